"""SPP-SCL: image-text sentiment and sarcasm with semi-push-pull supervised contrastive learning.

The data's way is the folder's way: raw, clean, split, features, encoders, batches, methods, training,
evaluation, report; and prediction, for who uses a trained model: `from spp_scl import Predictor`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spp_scl.prediction.predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    # Not before it is asked for: torch takes seconds, and commands and stages have messages to show.
    if name == "Predictor":
        from spp_scl.prediction.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
