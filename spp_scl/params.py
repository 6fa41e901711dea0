"""The parameters, typed and checked at the door. The one module that reads `params.yaml`."""

import difflib
import reprlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from spp_scl import options
from spp_scl.errors import UserError, first_line
from spp_scl.raw.datasets import DATASETS

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dropout = Annotated[float, Field(ge=0, le=0.99)]
Decay = Annotated[float, Field(gt=0, le=1)]


def _require_dataset(name: object) -> object:
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(f"unknown dataset; there are {', '.join(DATASETS)}")
    return name


# The registry's keys, so that a new dataset has one entry there and none here.
DatasetName = Annotated[str, BeforeValidator(_require_dataset)]


class Section(BaseModel):
    """A group of parameters: no unknown key, no conversion of types, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SampleParams(Section):
    pairs: Annotated[int, Field(ge=60)]
    seed: Seed
    noise: Annotated[float, Field(ge=0, le=1)]


class CleanParams(Section):
    missing_image: options.Policy
    empty_text: options.Policy


class SplitParams(Section):
    protocol: options.Protocol
    seed: Seed


class ImageFeaturesParams(Section):
    weights: Annotated[str, Field(min_length=1)]
    seed: Seed
    batch_size: Count
    precision: options.Precision


class TextFeaturesParams(ImageFeaturesParams):
    # [CLS], one word and [SEP]; 512 positions are all that BERT has.
    max_positions: Annotated[int, Field(ge=3, le=512)]
    padding: options.Padding


class ModelParams(Section):
    dropout: Dropout
    layers: options.Layers
    modalities: options.Modalities
    weights: Annotated[str, Field(min_length=1)]


class TrainParams(Section):
    epochs: Count
    # Batch normalisation and a contrast both need two samples.
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    weight_decay: NonNegative
    lr_step: Count
    lr_decay: Decay
    ce_weight: NonNegative
    intra_modal: bool
    anchor_in_denominator: bool
    step2: options.Step2
    step2_forward: options.Step2Forward
    anchors: options.Anchors
    gate: options.Comparison
    zero_grad: options.ZeroGrad
    temperature: Positive
    patience: Annotated[int, Field(ge=0)]
    keep: options.Keep
    threads: Count


class TsneParams(Section):
    perplexity: Positive


class Params(Section):
    """Everything in `params.yaml`; the file gives each value, so there are no defaults here."""

    dataset: DatasetName
    seed: Seed
    alpha: NonNegative
    fusion: options.Fusion
    sample: SampleParams
    clean: CleanParams
    split: SplitParams
    image_features: ImageFeaturesParams
    text_features: TextFeaturesParams
    model: ModelParams
    train: TrainParams
    tsne: TsneParams


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check the parameters.

    The file is read as YAML 1.2, by the parser that DVC uses, so that both see the same values (`1e-4`
    is a number there and a string in YAML 1.1).

    Raises:
        UserError: the file is missing or not YAML, or a key is unknown, missing, of a wrong type or out
            of range; every such key is named with its value and what is allowed.
    """
    try:
        values = YAML(typ="safe").load(Path(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run in the folder that holds it") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{path}{line}: not valid YAML: {problem}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except Exception as error:  # a date that is none, a folder in the file's place, a thousand brackets
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(e)}" for e in error.errors())
        raise UserError(f"{path}:\n{problems}") from None


def _describe(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key{_suggest(error['loc'])}"
        case "missing":
            return f"{key}: missing"
        case _:
            try:
                shown = reprlib.repr(error["input"])
            except ValueError:  # Python refuses to print an integer of thousands of digits
                shown = "a number too long to show"
            return f"{key}: {shown}: {error['msg'].lower()}"


def _suggest(loc: tuple[int | str, ...]) -> str:
    """The known key of the same section that is nearest in spelling."""
    *sections, name = (str(part) for part in loc)
    section: type[BaseModel] = Params
    for part in sections:
        section = section.model_fields[part].annotation  # type: ignore[assignment]  # a Section
    near = difflib.get_close_matches(name, section.model_fields, n=1)
    return f"; did you mean {'.'.join([*sections, near[0]])}?" if near else ""
