"""Second views of the training tweets, for methods that contrast a tweet with a changed one.

Shapes: K draws, n training tweets; the row k * n + i of the image file is the k-th draw of tweet i.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from spp_scl.encoders.augment import Augment
from spp_scl.encoders.image import ImageEncoder
from spp_scl.encoders.pictures import Pictures, encode_images
from spp_scl.encoders.texts import encode_texts
from spp_scl.encoders.writing import image_layout
from spp_scl.features.encoder import hash_code


class _DrawnPictures(Pictures):
    """Each different picture in K draws."""

    name = "drawn pictures"

    def __init__(
        self,
        table: pd.DataFrame,
        folder: Path,
        encoder: ImageEncoder,
        device: torch.device,
        batch_size: int,
        draws: int,
        seed: int,
    ):
        super().__init__(table, folder, encoder, device, batch_size)
        self._augment = Augment()
        number = len(self.hashes)
        index = [np.where(self.index < 0, -1, self.index + k * number) for k in range(draws)]
        self._names = [f"{seed} {k} {known}" for k in range(draws) for known in self.hashes]
        way = hash_code("encoders/augment.py", "encoders/views.py")
        keys = [hashlib.sha256(f"{way} {name}".encode()).digest() for name in self._names]
        self.layout = image_layout(
            [f"{row_id} {k}" for k in range(draws) for row_id in self.ids],
            np.concatenate(index),
            np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32),
            encoder.positions,
            encoder.channels,
        )

    def prepare_one(self, item: int) -> torch.Tensor:
        """A picture's draw."""
        picture = super().prepare_one(item % len(self.hashes))
        return self._augment.draw(picture, self._names[item])


def encode_views(
    table: pd.DataFrame,
    translations: Sequence[str | None],
    folder: Path,
    images: Path,
    texts: Path,
    views: dict[str, Any],
    vocabulary: Sequence[str],
) -> None:
    """Encode draws of the pictures, and the translations, of the training tweets.

    With encoders in the loop the pictures are drawn there, and `images` says so.

    Args:
        table: the training rows of a clean table.
        translations: n texts; None: the row has no second view.
        folder: the raw folder that the table's `image` column is relative to.
        images: the file to write of them.
        texts: and the other one.
        views: see `choose_views`.
        vocabulary: all texts of the dataset; an untrained text encoder's vocabulary is collected from them.

    Raises:
        UserError: see `encode_images` and `encode_texts`.
    """
    if views["content"] == "inputs":
        images.write_text("drawn in the loop\n")
    else:
        drawn = partial(_DrawnPictures, draws=views["draws"], seed=views["seed"])
        encode_images(table, folder, images, **views["image"], pictures=drawn)
    translated = table.assign(text=translations)[[text is not None for text in translations]]
    encode_texts(
        translated.reset_index(drop=True),
        texts,
        **views["text"],
        content=views["content"],
        vocabulary=vocabulary,
    )
