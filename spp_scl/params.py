"""The parameters, typed and checked at the door. The one module that reads `params.yaml`."""

import reprlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from spp_scl.errors import UserError, first_line

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dropout = Annotated[float, Field(ge=0, le=0.99)]
Decay = Annotated[float, Field(gt=0, le=1)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Missing = Literal["drop", "blank", "error"]
Fusion = Literal["sample", "batch", "none"]
Step2 = Literal["gated", "always", "never", "merged"]


class Section(BaseModel):
    """A group of parameters: no unknown key, no conversion of types, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SampleParams(Section):
    pairs: Annotated[int, Field(ge=60)]
    seed: Seed
    noise: Annotated[float, Field(ge=0, le=1)]


class CleanParams(Section):
    missing_image: Missing
    empty_text: Missing


class SplitParams(Section):
    protocol: Literal["auto", "published", "stratified", "grouped"]
    seed: Seed


class ImageFeaturesParams(Section):
    weights: Annotated[str, Field(min_length=1)]
    seed: Seed
    batch_size: Count
    precision: Precision


class TextFeaturesParams(ImageFeaturesParams):
    # [CLS], one word and [SEP]; 512 positions are all that BERT has.
    max_positions: Annotated[int, Field(ge=3, le=512)]
    padding: Literal["masked", "kept"]


class ModelParams(Section):
    dropout: Dropout
    layers: Literal["attention", "last"]
    modalities: Literal["both", "text", "image"]
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
    step2: Step2
    anchors: Literal["image", "text"]
    gate: Literal["exact", "float32"]
    temperature: Positive
    patience: Annotated[int, Field(ge=0)]
    keep: Literal["best", "last"]
    threads: Count


class TsneParams(Section):
    perplexity: Positive


class Params(Section):
    """Everything in `params.yaml`; the file gives each value, so there are no defaults here."""

    dataset: Literal["sample", "mvsa_single", "mvsa_multiple", "hfm", "table"]
    seed: Seed
    alpha: NonNegative
    fusion: Fusion
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


def _describe(error: dict) -> str:
    key = ".".join(str(part) for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key (a typing mistake?)"
        case "missing":
            return f"{key}: missing"
        case _:
            try:
                shown = reprlib.repr(error["input"])
            except ValueError:  # Python refuses to print an integer of thousands of digits
                shown = "a number too long to show"
            return f"{key}: {shown}: {error['msg'].lower()}"
