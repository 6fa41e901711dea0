"""Encoders in the format of `save_pretrained`, which transformers loads; of a two-tower model, one tower.

No code that comes with an encoder is run, nothing pickled is executed, and what an encoder's files lack is
not drawn at random, as transformers would do.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
import transformers
from huggingface_hub.utils import enable_progress_bars
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from spp_scl.encoders.state_dict import require_fit
from spp_scl.errors import UserError, first_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """What is asked of an encoder.

    Args:
        parameter: that names it.
        noun: what it is called in messages.
        tower: of a two-tower model, its attribute.
        reads: the argument of its forward pass.
        layers: that it must have, at least.
    """

    parameter: str
    noun: str
    tower: str
    reads: str
    layers: int = 0


IMAGE = Kind("image_features.weights", "image encoder", "vision_model", "pixel_values")
TEXT = Kind("text_features.weights", "text encoder", "text_model", "input_ids", layers=4)


def unavailable(kind: Kind, weights: str, error: BaseException | str) -> UserError:
    """The error for an encoder that cannot be had, with the ways out."""
    reason = error if isinstance(error, str) else first_line(error)
    return UserError(
        f"{kind.parameter}: the {kind.noun} {weights} cannot be had ({reason}). Either give a local "
        f"directory (-S {kind.parameter}=/path/to/encoder) or go without (-S {kind.parameter}=untrained)"
    )


def unfit(kind: Kind, weights: str, why: str) -> UserError:
    """The error for what is no encoder of its kind, with the ways out."""
    return UserError(
        f"{kind.parameter}: {weights}: {why}. Either give another {kind.noun} "
        f"(-S {kind.parameter}=/path/to/encoder) or go without (-S {kind.parameter}=untrained)"
    )


def load_model(source: str, weights: str, kind: Kind) -> PreTrainedModel:
    """The network without its pooler, float32, in evaluation mode.

    Args:
        source: a local directory or a hub name.
        weights: how messages call it.
        kind: what it must be.

    Raises:
        UserError: it cannot be had, is of another kind, has code of its own, or differs from its files.
    """
    quieten(source, weights)
    try:
        config = _read_config(source, weights, kind)
        two_towers = all(hasattr(config, f"{part}_config") for part in ("text", "vision"))
        if not two_towers:
            _require_kind(config, weights, kind)
        own_config = getattr(config, kind.tower.replace("model", "config")) if two_towers else config
        layers = getattr(own_config, "num_hidden_layers", 0)
        if kind.layers and layers < kind.layers:
            raise unfit(kind, weights, f"at least {kind.layers} layers are needed, this is one of {layers}")
        with torch.random.fork_rng(devices=[]):  # poolers that a checkpoint lacks are drawn
            loaded: Any = AutoModel.from_pretrained(
                source,
                config=config,
                trust_remote_code=False,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
    except UserError:
        raise
    except Exception as error:  # no network, no such name, a damaged file: each library has its own
        raise unavailable(kind, weights, error) from None
    whole, report = loaded
    model = getattr(whole, kind.tower, None) if two_towers else whole
    if not isinstance(model, PreTrainedModel):
        raise unfit(kind, weights, f"{type(whole).__name__} has no {kind.noun} of its own")
    drop_pooler(model)
    prefix = f"{kind.tower}." if two_towers else ""
    own = {prefix + name for name in model.state_dict()}
    try:
        require_fit(
            missing=sorted(own & set(report["missing_keys"])),
            unknown=[],  # heads, and what is of other uses of the network
            misshapen=sorted(name for name, *_ in report["mismatched_keys"] if name in own),
            problem=f"its weights are not those of a {type(model).__name__}",
        )
    except UserError as error:
        raise unfit(kind, weights, str(error)) from None
    return model.eval()


def quieten(source: str, weights: str) -> None:
    """Let the libraries be silent: what they say of each retry and each file hides our own message."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    enable_progress_bars()  # of downloads; the line above turns them off as well
    for library, level in (("huggingface_hub", logging.ERROR), ("timm", logging.WARNING)):
        logging.getLogger(library).setLevel(level)
    if not Path(source).is_dir():
        log.info("%s: looked for in the cache, else at huggingface.co", weights)


def build_model(description: dict[str, Any]) -> PreTrainedModel:
    """The network that `describe_model` describes, with weights that mean nothing.

    Raises:
        UserError: this version of transformers has no such network.
    """
    cls = getattr(transformers, description["class"], None)
    if not (isinstance(cls, type) and issubclass(cls, PreTrainedModel) and cls.config_class):
        raise UserError(f"transformers {transformers.__version__} has no network {description['class']}")
    config = cls.config_class.from_dict(description["config"])
    with torch.random.fork_rng(devices=[]):
        model = cls._from_config(config, dtype=torch.float32)
    drop_pooler(model)
    return model.eval()


def describe_model(model: PreTrainedModel) -> dict[str, Any]:
    """What `build_model` needs, in JSON.

    Raises:
        UserError: transformers does not offer the network by its name, as some vision towers.
    """
    name = type(model).__name__
    if getattr(transformers, name, None) is not type(model):
        raise UserError(
            f"{name}: a model with this network in it could not be read again; it takes encoders=frozen"
        )
    config = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)  # a folder of this machine
    return {"class": type(model).__name__, "config": config}


def drop_pooler(model: Any) -> None:
    """Remove what stands behind the last layer and nobody reads, so that it is neither kept nor trained."""
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, torch.nn.Module) and any(True for _ in pooler.parameters()):
        model.pooler = None
    if getattr(model, "use_head", False):  # SigLIP's pooling by attention
        model.use_head = False
        del model.head


def _read_config(source: str, weights: str, kind: Kind) -> PreTrainedConfig:
    values, _ = PreTrainedConfig.get_config_dict(source)
    refuse_code(values, weights, kind)
    return AutoConfig.from_pretrained(source, trust_remote_code=False)


def refuse_code(values: dict[str, Any], weights: str, kind: Kind) -> None:
    """Refuse an encoder that is a program: a configuration with an `auto_map` names its modules.

    Raises:
        UserError: it is one.
    """
    if values.get("auto_map"):
        raise unfit(kind, weights, "it comes with code of its own (auto_map), which is never run here")


def _require_kind(config: PreTrainedConfig, weights: str, kind: Kind) -> None:
    cls: Any = MODEL_MAPPING.get(type(config), None)
    cls = cls[0] if isinstance(cls, tuple) else cls
    what = f"a {config.model_type} is no {kind.noun}"
    if cls is None:
        raise unfit(kind, weights, f"{what} that transformers knows")
    if config.is_encoder_decoder:
        raise unfit(kind, weights, f"{what}: it is an encoder with a decoder")
    if cls.main_input_name != kind.reads:
        raise unfit(kind, weights, f"{what}: it reads {cls.main_input_name}")
