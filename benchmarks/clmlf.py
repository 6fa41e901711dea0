"""One epoch of CLMLF from the cache, against a bare loop in plain torch."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import ROWS, load_features, write_features, write_views
from benchmarks.training import ROOT, epoch, settings
from spp_scl.batches.data import Data
from spp_scl.methods import check_settings
from spp_scl.params import load_params
from spp_scl.recipe import choose_recipe
from spp_scl.training.recipe import TrainingRecipe
from spp_scl.training.training import epoch_batches

# A part of MVSA-Single, and a third of the width: the ratio is stricter, and a run takes a minute.
PART, WIDTH, HEADS = 16, 256, 4


def recipe(**changes: Any) -> TrainingRecipe:
    """The repository's own, with some settings changed."""
    params = load_params(ROOT / "params.yaml").model_copy(
        update={"method": "clmlf", "dataset": "mvsa_single"}
    )
    chosen = {**choose_recipe(params)["settings"], **changes}
    return TrainingRecipe("clmlf", check_settings("clmlf", chosen), "frozen", {}, None)


class Bare(nn.Module):
    """The same network, as its equations are written down with torch's layers."""

    def __init__(self, p: Any):
        super().__init__()
        self.text = nn.Linear(768, p.width)
        self.image = nn.Sequential(nn.Linear(2048, p.width), nn.GELU())

        def layers(number: int) -> nn.TransformerEncoder:
            layer: Any = nn.TransformerEncoderLayer(
                p.width, p.heads, 4 * p.width, p.dropout, "gelu", layer_norm_eps=1e-12, batch_first=True
            )
            layer.dropout = nn.Identity()  # none within the feed-forward part
            return nn.TransformerEncoder(layer, number, enable_nested_tensor=False)

        self.image_layers, self.fusion_layers = layers(p.image_layers), layers(p.fusion_layers)
        half = p.width // 2
        self.score = nn.Sequential(nn.Linear(p.width, half), nn.GELU(), nn.Linear(half, 1))
        self.classifier = nn.Sequential(
            nn.Dropout(p.dropout), nn.Linear(p.width, half), nn.GELU(), nn.Linear(half, 3)
        )

    def forward(self, words: torch.Tensor, lengths: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        image = self.image_layers(self.image(maps))
        tokens = torch.cat([self.text(words), image], dim=1)
        padding = torch.arange(words.shape[1]) >= lengths[:, None]
        padding = torch.cat([padding, padding.new_zeros(len(words), image.shape[1])], dim=1)
        tokens = self.fusion_layers(tokens, src_key_padding_mask=padding)
        weights = self.score(tokens)[:, :, 0].masked_fill(padding, -1e9).softmax(dim=1)
        return (weights[:, :, None] * tokens).sum(dim=1)


def bare(data: Data, p: Any) -> Callable[[], None]:
    """All tensors in memory, the same batches, losses and updates; no log, no validation, no checkpoint."""
    temperature = p.width**0.5
    rows = data.rows["train"]
    texts, drawn = [], []
    for which, kept in ((None, texts), ("translated", drawn)):
        for row in rows.tolist():
            batch = data.source.batch(torch.tensor([row]))
            batch = batch.view(which).batch if which else batch
            words = torch.cat([batch.text().cls[:, -1], batch.text().words[:, -1]])
            kept.append((words, batch.image()[0]))
    torch.manual_seed(42)
    labels = data.labels[rows]

    def gather(kept: list, part: torch.Tensor) -> tuple[torch.Tensor, ...]:
        words = [kept[i][0] for i in part.tolist()]
        return (
            nn.utils.rnn.pad_sequence(words, batch_first=True),
            torch.tensor([len(each) for each in words]),
            torch.stack([kept[i][1] for i in part.tolist()]),
        )

    def bare_epoch() -> None:
        torch.set_num_threads(settings().threads)
        model = Bare(p).train()
        updates = torch.optim.AdamW(
            model.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay, fused=True
        )
        shuffle = torch.Generator().manual_seed(42)
        for part in epoch_batches(torch.arange(len(rows)), p.batch_size, shuffle):
            own = labels[part]
            first, second = model(*gather(texts, part)), model(*gather(drawn, part))
            loss = F.cross_entropy(model.classifier(first), own)
            same = (own[:, None] == own).float()
            logs = (first @ first.T / temperature).log_softmax(dim=1)
            loss = loss - p.lbcl_weight * ((same * logs).sum(dim=1) / same.sum(dim=1)).mean()
            scores = first @ second.T / temperature
            loss = loss + p.dbcl_weight * F.cross_entropy(scores, torch.arange(len(part)))
            updates.zero_grad(set_to_none=True)
            loss.backward()
            updates.step()

    return bare_epoch


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder, ROWS // PART)
        write_views(folder)
        data = load_features(folder, views=True)
        chosen = recipe(width=WIDTH, heads=HEADS, epochs=1)
        mine, theirs = alternate(lambda: epoch(data, chosen), bare(data, chosen.settings))
    posts = len(data.rows["train"])
    report(
        Row(
            f"one epoch of `clmlf` from the cache, {WIDTH} wide, {posts} posts with second views",
            "bare loop: same network, batches, losses, updates, in memory, no log, validation, checkpoint",
            f"{mine:.1f} s against {theirs:.1f} s: {mine / theirs:.3f} times",
            "at most 1.10 times",
            mine / theirs <= 1.10,
        )
    )


if __name__ == "__main__":
    main()
