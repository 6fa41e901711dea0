"""The parameters, typed and checked at the door. The one module that reads `params.yaml`."""

import difflib
import reprlib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from spp_scl import options
from spp_scl.errors import UserError, first_line
from spp_scl.methods import list_methods
from spp_scl.raw.datasets import DATASETS

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dropout = Annotated[float, Field(ge=0, le=0.99)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(gt=0, le=1)]


def _require_dataset(name: object) -> object:
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(f"unknown dataset; there are {', '.join(DATASETS)}")
    return name


def _require_method(name: object) -> object:
    if not isinstance(name, str) or name not in list_methods():
        raise ValueError(f"unknown method; there are {', '.join(list_methods())}")
    return name


# The registry's keys, so that a new dataset has one entry there and none here; and the methods' files.
DatasetName = Annotated[str, BeforeValidator(_require_dataset)]
MethodName = Annotated[str, BeforeValidator(_require_method)]


class Section(BaseModel):
    """A group of parameters: no unknown key, no conversion of types, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Checked = TypeVar("Checked", bound=Section)


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


class TrainParams(Section):
    patience: Annotated[int, Field(ge=0)]
    keep: options.Keep
    threads: Count
    processes: Count
    weights: Annotated[str, Field(min_length=1)]


class FinetunedParams(Section):
    learning_rate: Positive
    weight_decay: NonNegative
    warmup: Share
    decay: options.Decay
    clip: NonNegative
    accumulation: Count
    frozen_epochs: Annotated[int, Field(ge=0)]
    precision: options.TrainingPrecision


class ViewsParams(Section):
    """The part `views` of the section of a method that reads second views."""

    translations: Annotated[str, Field(min_length=1)]
    repair: bool
    missing: options.Missing
    draws: Count
    seed: Seed


class TsneParams(Section):
    perplexity: Positive


class Params(Section):
    """Everything in `params.yaml`; the file gives each value, so there are no defaults here.

    `methods` holds the methods' own sections as they stand there; `spp_scl.methods` checks them.
    """

    dataset: DatasetName
    seed: Seed
    method: MethodName
    encoders: options.Encoders
    alpha: NonNegative
    sample: SampleParams
    clean: CleanParams
    split: SplitParams
    image_features: ImageFeaturesParams
    text_features: TextFeaturesParams
    train: TrainParams
    finetuned: FinetunedParams
    tsne: TsneParams
    methods: dict[str, dict[str, Any]]


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
    sections = {name: values.pop(name) for name in list_methods() if name in values}
    return check(Params, {**values, "methods": sections}, str(path))


def check(section: type[Checked], values: dict, where: str, prefix: str = "") -> Checked:
    """Check the values of a section.

    Args:
        section: its type.
        values: by their keys.
        where: how the message begins.
        prefix: of the keys in the message.

    Raises:
        UserError: naming every wrong key with its value and what is allowed.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(e, section, prefix)}" for e in error.errors())
        raise UserError(f"{where}:\n{problems}") from None


def _describe(error: Any, root: type[Section], prefix: str) -> str:
    key = prefix + ".".join(str(part) for part in error["loc"]).removeprefix("methods.")
    match error["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key{_suggest(error['loc'], root, prefix)}"
        case "missing":
            return f"{key}: missing"
        case _:
            try:
                shown = reprlib.repr(error["input"])
            except ValueError:  # Python refuses to print an integer of thousands of digits
                shown = "a number too long to show"
            return f"{key}: {shown}: {error['msg'].lower()}"


def _suggest(loc: tuple[int | str, ...], root: type[BaseModel], prefix: str) -> str:
    """The known key of the same section that is nearest in spelling."""
    *sections, name = (str(part) for part in loc)
    section = root
    for part in sections:
        section = section.model_fields[part].annotation  # type: ignore[assignment]  # a Section
    known = [*section.model_fields, *(list_methods() if section is Params else ())]
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix}{'.'.join([*sections, near[0]])}?" if near else ""
