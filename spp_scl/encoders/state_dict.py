"""Weights in a file: tensors and their names, with nothing pickled executed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch

from spp_scl.errors import UserError, first_line

_NAMED = 4


def read_state_dict(path: Path, where: str) -> dict[str, torch.Tensor]:
    """Read a state dict, `.safetensors` or what `torch.save` writes.

    Args:
        path: of the file.
        where: how the message begins.

    Raises:
        UserError: it is damaged, or holds anything but named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{where}: {first_line(error)}") from None
    except Exception:  # a damaged file makes the parsers raise whatever they run into
        # Without torch's own words: they advise to execute what is pickled.
        raise UserError(
            f"{where}: cannot be read as a state dict, tensors and their names alone, as "
            "torch.save(model.state_dict(), path) writes it; nothing else in a file is executed"
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(t, torch.Tensor) for name, t in state.items()
    ):
        raise UserError(f"{where}: expected a state dict of tensors")
    return state


def require_fit(
    missing: Sequence[str], unknown: Sequence[str], misshapen: Sequence[str], problem: str
) -> None:
    """Refuse a state dict that differs from what its network has.

    Args:
        missing: names that it lacks.
        unknown: names that the network lacks.
        misshapen: names of tensors of another shape, or what is to be said of them.
        problem: how the message begins.

    Raises:
        UserError: one of them is not empty.
    """
    kinds: Mapping[str, Sequence[str]] = {
        "missing": missing,
        "not known": unknown,
        "of another shape": misshapen,
    }
    parts = []
    for kind, names in kinds.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            parts.append(f"{kind}: {', '.join(sorted(names)[:_NAMED])}{more}")
    if parts:
        raise UserError(f"{problem} ({'; '.join(parts)})")
