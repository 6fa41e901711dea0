"""What each word and region of a post adds to its prediction, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from matplotlib import pyplot as plt

from spp_scl.report.style import save_figure

# Two colors that the color-blind can tell: for the label, and against it.
MAP = "PuOr"


def draw_explanation(
    path: Path,
    words: Sequence[tuple[str, float]],
    regions: np.ndarray | None,
    picture: PIL.Image.Image | None,
    label: str,
) -> None:
    """Draw the words' gains as bars, and the regions' over the picture.

    Args:
        path: see `save_figure`.
        words: each with its gain in the label's probability.
        regions: (G, G) gains; None: no picture was read.
        picture: that they are of.
        label: that was predicted.
    """
    figure, axes = plt.subplots(
        1, 2, figsize=(12, max(4.5, 0.3 * len(words) + 1.5)), layout="constrained", width_ratios=(1, 1.1)
    )
    places = np.arange(len(words))[::-1]
    gains = [gain for _, gain in words]
    colors = plt.get_cmap(MAP)([0.9 if gain > 0 else 0.15 for gain in gains])
    axes[0].barh(places, gains, color=colors)
    axes[0].set_yticks(places, [word for word, _ in words], parse_math=False)
    axes[0].axvline(0, color="0.5", linewidth=0.8)
    axes[0].set_xlabel(f"probability of {label} with the word, less that without it", parse_math=False)
    axes[0].set_title("words" if words else "no text")
    axes[1].axis("off")
    if regions is None or picture is None:
        axes[1].set_title("no picture")
    else:
        width, height = picture.size
        most = max(1e-6, float(np.abs(regions).max()))
        axes[1].imshow(np.asarray(picture.convert("L")), cmap="gray")
        drawn = axes[1].imshow(
            regions,
            cmap=MAP,
            vmin=-most,
            vmax=most,
            alpha=0.6,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )
        figure.colorbar(drawn, ax=axes[1], shrink=0.8, label="with the region, less without it")
        axes[1].set_title("regions of the picture")
    figure.suptitle(f"What speaks for {label} (above 0), and against it (below)", parse_math=False)
    save_figure(figure, path)
