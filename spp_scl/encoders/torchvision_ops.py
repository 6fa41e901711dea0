"""Lets torchvision, and transformers with it, be imported beside a build of torch for other hardware.

torchvision's wheel brings C++ operators compiled against one build of torch. Beside another build (the CPU
build of torch, say) they do not load, and then `import torchvision` itself fails, for it registers a Python
implementation for the operator `nms` that nobody has defined. Nothing here calls these operators (they belong
to object detection), so it is enough that their schemas exist.

Import this module before torchvision or transformers.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _define_missing_operators() -> torch.library.Library | None:
    # Without importing torchvision, which is what would fail.
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
        return None
    definitions = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        definitions.define(name + _SCHEMA)
    return definitions


# The definitions last as long as this object does.
_definitions = _define_missing_operators()
