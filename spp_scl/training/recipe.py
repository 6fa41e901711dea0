"""The recipe that a training follows, read from the file that the stage `recipe` writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spp_scl.batches.data import Data
from spp_scl.batches.inputs import InputStore
from spp_scl.encoders.loop import load_encoders
from spp_scl.errors import first_line
from spp_scl.features.device import choose_precision
from spp_scl.files import read_json
from spp_scl.methods import check_settings, load_method, require_reads
from spp_scl.methods.shared.method import Method, Recipe
from spp_scl.params import FinetunedParams
from spp_scl.previous import damaged_output


@dataclass(frozen=True)
class TrainingRecipe:
    """A method, its parameters, and what is done with the encoders.

    Args:
        method: its name.
        settings: its parameters.
        encoders: `frozen`, `live` or `finetuned`.
        sources: where the encoders come from, by `image` and `text`; empty for frozen ones.
        finetuned: how the encoders are trained; None unless they are.
    """

    method: str
    settings: Recipe
    encoders: str
    sources: Mapping[str, Mapping[str, Any]]
    finetuned: FinetunedParams | None

    def numbers(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {
            "method": self.method,
            "settings": self.settings.model_dump(),
            "encoders": self.encoders,
            "sources": {name: dict(source) for name, source in self.sources.items()},
            "finetuned": self.finetuned and self.finetuned.model_dump(),
        }

    def precision(self, device: torch.device) -> str:
        """In which the encoders compute; `live` ones as the released code does."""
        if self.finetuned is None:
            return "fp32"
        chosen = choose_precision(device, self.finetuned.precision, "finetuned.precision")
        return "fp32" if chosen == "fp16" else chosen


def read_recipe(path: Path | str) -> TrainingRecipe:
    """Read `models/recipe.json`.

    Raises:
        UserError: it is missing or damaged, or a parameter of the method is wrong.
    """
    values = read_json(path, "the recipe")
    try:
        settings = check_settings(values["method"], values["settings"])
        require_reads(values["method"], values["encoders"])
        finetuned = FinetunedParams(**values["finetuned"]) if "finetuned" in values else None
        sources = {name: values[name] for name in ("image", "text") if name in values}
        return TrainingRecipe(values["method"], settings, values["encoders"], sources, finetuned)
    except (KeyError, TypeError, ValueError, ModuleNotFoundError) as error:
        raise damaged_output(f"or not a recipe: {first_line(error)}", path) from None


def make_method(recipe: TrainingRecipe, data: Data, seed: int) -> Method:
    """The method's network before its training; `seed` draws its weights.

    Raises:
        UserError: an encoder cannot be had.
    """
    network, encoders = load_method(recipe.method).network, None
    if isinstance(data.source, InputStore):
        encoders = load_encoders(network.reads.encoders, recipe.sources, data.table["text"].tolist())
        data.source.require(encoders)
        encoders.requires_grad_(recipe.encoders == "finetuned").to(data.source.device)
        data.source.use(encoders, recipe.precision(data.source.device))
    torch.manual_seed(seed)
    model = network(recipe.settings, data.source.sizes(len(data.classes)))
    if encoders is not None:
        model.encoders = encoders
        model.prepare_encoders()
    return model.to(data.source.device)
