"""The one look of the progress bars."""

from collections.abc import Iterable

from tqdm import tqdm


def progress(
    iterable: Iterable | None = None, *, desc: str, unit: str, total: int | None = None, initial: int = 0
):
    """A progress bar on stderr, on a terminal and in a log alike."""
    return tqdm(
        iterable, desc=desc, unit=f" {unit}", total=total, initial=initial, mininterval=0.5, smoothing=0.1
    )
