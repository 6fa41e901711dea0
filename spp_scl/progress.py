"""The one look of the progress bars."""

from collections.abc import Iterable

from tqdm import tqdm


def progress(iterable: Iterable | None = None, *, desc: str, unit: str, total: int | None = None):
    """A progress bar on stderr, on a terminal and in a log alike."""
    return tqdm(iterable, desc=desc, unit=f" {unit}", total=total, mininterval=0.5, smoothing=0.1)
