"""Attention of words over a picture (CLMLF's Figure 5)."""

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib import pyplot as plt

from spp_scl.errors import UserError
from spp_scl.report.style import save_figure


def draw_attention(
    path: Path, picture: torch.Tensor, words: Mapping[str, torch.Tensor], caption: str
) -> None:
    """Draw the picture, and beside it each word's attention on it.

    Args:
        path: see `save_figure`.
        picture: (3, H, W) uint8, as the image encoder gets it.
        words: by word, (P,) its weights on the positions, row by row.
        caption: of the figure.

    Raises:
        UserError: the positions are no square.
    """
    pixels = picture.permute(1, 2, 0).numpy()
    height, width = pixels.shape[:2]
    figure, axes = plt.subplots(
        1, 1 + len(words), figsize=(4 * (1 + len(words)), 5), layout="constrained", squeeze=False
    )
    axes[0][0].imshow(pixels)
    axes[0][0].set_title("the picture, as the encoder gets it", fontsize="medium")
    for ax, (word, weights) in zip(axes[0][1:], words.items(), strict=True):
        side = math.isqrt(len(weights))
        if side * side != len(weights):
            raise UserError(f"attention: the image encoder's {len(weights)} positions are no square")
        ax.imshow(pixels.mean(axis=2), cmap="gray")
        drawn = ax.imshow(
            weights.view(side, side).numpy(),
            cmap="inferno",
            alpha=0.6,
            vmin=0,
            interpolation="bilinear",
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )
        figure.colorbar(drawn, ax=ax, shrink=0.7, label="share of the word's attention")
        title = f"{word}: {float(weights.sum()):.0%} of its attention is on these positions"
        ax.set_title(title, fontsize="medium", parse_math=False)
    for ax in axes[0]:
        ax.axis("off")
    lines = [
        wrapped for line in caption.splitlines() for wrapped in textwrap.wrap(line, 45 * (1 + len(words)))
    ]
    figure.suptitle("\n".join(lines), parse_math=False)
    save_figure(figure, path)
