"""Second views of the training rows: pictures drawn anew, texts translated or as they are."""

from dataclasses import replace
from pathlib import Path

import torch

from spp_scl.batches.batch import FeatureStore, View
from spp_scl.batches.inputs import InputStore
from spp_scl.errors import UserError
from spp_scl.features.store import (
    ImageFeatures,
    ImageInputs,
    Images,
    TextFeatures,
    TextInputs,
    Texts,
    read_images,
    read_texts,
)

Store = FeatureStore | InputStore


class Views:
    """Where second views come from.

    Args:
        source: of views.
        place: (N,) which of its training rows a row is; -1: none.
        number: of its training rows; row `k * number + i` is the k-th draw of the i-th.
        draws: K.
    """

    def __init__(self, source: Store, place: torch.Tensor, number: int, draws: int):
        self.source, self._place, self._number, self._draws = source, place, number, draws

    def of(self, rows: torch.Tensor) -> View | None:
        """A second view of each row that has one, (B,) int64; None: no row has."""
        place = self._place[rows]
        there = (place >= 0).nonzero()[:, 0]
        if not len(there):
            return None
        drawn = torch.randint(self._draws, (len(there),)) * self._number
        batch = self.source.batch(place[there] + drawn)
        device = batch.labels.device
        return View(batch, there.to(device), batch.order.argsort().to(device))


def add_views(
    store: Store, images: Images, texts: Texts, labels: torch.Tensor, rows: torch.Tensor, folder: Path
) -> str:
    """Give a source its training rows' second views.

    Args:
        store: of `images` and `texts`.
        images: of all rows.
        texts: of all rows.
        labels: (N,).
        rows: (n,) the training rows.
        folder: with the files of the stage `views`.

    Returns:
        A hash of them.

    Raises:
        UserError: a file is missing, damaged or of other rows.
    """
    rows = rows.sort().values
    ids = [images.ids[row] for row in rows.tolist()]
    translations = read_texts(folder / "text.h5")
    known = {row_id: i for i, row_id in enumerate(ids)}
    if not known.keys() >= set(translations.ids):
        raise _other_rows(folder)
    translated = torch.tensor([known[row_id] for row_id in translations.ids], dtype=torch.int64)
    drawn, draws = images, 1
    if isinstance(images, ImageFeatures):
        drawn = read_images(folder / "image.h5")
        draws = len(drawn.ids) // max(1, len(ids))
        if drawn.ids != [f"{row_id} {k}" for k in range(draws) for row_id in ids]:
            raise _other_rows(folder)
        index = drawn.index.view(draws, len(ids))
    else:
        index = images.index[rows][None]
    for name, own_texts, text_of, which in (
        ("drawn", texts, rows, torch.arange(len(rows))),
        ("translated", translations, torch.arange(len(translated)), translated),
    ):
        source = _make(
            store,
            replace(drawn, index=index[:, which].flatten()),
            own_texts,
            labels[rows[which]].repeat(draws),
            text_of.repeat(draws),
        )
        place = torch.full((len(labels),), -1)
        place[rows[which]] = torch.arange(len(which))
        store.views[name] = Views(source, place, len(which), draws)
    return drawn.digest + translations.digest


def _make(store: Store, images: Images, texts: Texts, labels: torch.Tensor, text_of: torch.Tensor) -> Store:
    if isinstance(images, ImageFeatures) and isinstance(texts, TextFeatures):
        return FeatureStore(images, texts, labels, store.device, text_of)
    if isinstance(images, ImageInputs) and isinstance(texts, TextInputs):
        # Here: it imports torchvision, which features from the cache do not need.
        from spp_scl.encoders.augment import Augment

        return InputStore(images, texts, labels, store.device, text_of, Augment())
    raise UserError("the second views are of other encoders' settings; make them anew with `dvc repro`")


def _other_rows(folder: Path) -> UserError:
    return UserError(f"{folder}: second views of other tweets than train's; run `dvc repro views --force`")
