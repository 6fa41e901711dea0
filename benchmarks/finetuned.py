"""One epoch with the encoders trained too, against a bare loop in plain torch, timm and transformers."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before timm and transformers)

# isort: split
import timm
from timm.models import save_for_hf
from transformers import BertConfig, BertModel, BertTokenizer

from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import ROWS, WORDS, texts, write_pictures
from benchmarks.training import ROOT, settings
from spp_scl.batches.data import Data, load_data
from spp_scl.encoders.pictures import encode_images
from spp_scl.encoders.texts import encode_texts
from spp_scl.features.device import autocast, choose_device, choose_precision
from spp_scl.methods import check_settings
from spp_scl.params import load_params
from spp_scl.recipe import choose_recipe
from spp_scl.training.checkpoint import save_checkpoint
from spp_scl.training.recipe import TrainingRecipe
from spp_scl.training.state import TrainingState
from spp_scl.training.training import train_epoch

# A part of MVSA-Single: the ratio is that of an epoch of all, and a run takes minutes instead of an hour.
PART = 8
VOCABULARY = 30522
IMAGE, TEXT = "tf_efficientnet_lite0", "MiniLM's size (6 layers, 384 wide)"


def write(folder: Path) -> Data:
    """Encoders of these sizes, drawn at random, and posts as they read them."""
    rows = ROWS // PART
    save_for_hf(timm.create_model(IMAGE, num_classes=3), folder / "image", safe_serialization=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    words += [f"[unused{i}]" for i in range(VOCABULARY - len(words))]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder / "text")
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertModel(BertConfig(vocab_size=VOCABULARY, **shape)).save_pretrained(folder / "text")
    table = write_pictures(folder / "pictures", rows).assign(text=texts(rows))
    classes = ["positive", "neutral", "negative"]
    codes = np.random.default_rng(4).integers(0, 3, rows)
    table["label"] = pd.Categorical.from_codes(codes, classes)
    table["split"] = None
    table.attrs["selection"] = "f1_weighted"
    table.to_parquet(folder / "clean.parquet", index=False)
    split = np.array(["train"] * rows, dtype=object)
    split[: rows // 5], split[: rows // 10] = "valid", "test"
    pd.DataFrame({"id": table["id"], "split": split}).to_parquet(folder / "split.parquet", index=False)
    options: dict[str, Any] = {"seed": 42, "batch_size": 32, "precision": "auto", "content": "inputs"}
    encode_images(table, folder / "pictures", folder / "image.h5", weights=str(folder / "image"), **options)
    encode_texts(table, folder / "text.h5", weights=str(folder / "text"), max_positions=202, **options)
    return load_data(*(folder / name for name in ("clean.parquet", "split.parquet", "image.h5", "text.h5")))


def recipe(folder: Path) -> TrainingRecipe:
    """The repository's own for `concat`."""
    params = load_params(ROOT / "params.yaml")
    chosen = choose_recipe(params.model_copy(update={"method": "concat", "encoders": "finetuned"}))
    kept = check_settings("concat", chosen["settings"])
    sources = {
        "image": {"weights": str(folder / "image"), "seed": 42},
        "text": {"weights": str(folder / "text"), "seed": 42, "max_positions": 202},
    }
    return TrainingRecipe("concat", kept, "finetuned", sources, params.finetuned)


def ours(folder: Path, data: Data) -> Callable[[], None]:
    """As `train` runs it: validation, log and checkpoint included; the encoders are loaded once."""
    chosen = recipe(folder)
    state = TrainingState.start(chosen, data, seed=42)

    def epoch() -> None:
        train_epoch(state, data, chosen.settings.batch_size, seed=42)
        state.log.write(folder / "log")
        save_checkpoint(folder / "checkpoint", "key", state.state_dict())

    return epoch


class Bare(nn.Module):
    """Both networks and the same head, as their libraries' own examples put them together."""

    def __init__(self, folder: Path):
        super().__init__()
        self.image = timm.create_model(f"local-dir:{folder / 'image'}", pretrained=True, num_classes=0)
        self.text = BertModel.from_pretrained(folder / "text", add_pooling_layer=False)
        self.hidden = nn.Linear(384 + 1280, 512)
        self.fc = nn.Linear(512, 3)

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = (pixels.float() / 255 - 0.5) / 0.5
        device = choose_device()
        with autocast(device, choose_precision(device, "auto")):
            image = self.image.forward_features(x).float().mean(dim=(2, 3))
            states = self.text(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        words = mask.clone()
        words[:, 0] = 0  # [CLS]
        words.scatter_(1, mask.sum(dim=1, keepdim=True) - 1, 0)  # [SEP]
        text = (states * words[:, :, None]).sum(dim=1) / words.sum(dim=1, keepdim=True).clamp(min=1)
        return self.fc(F.dropout(F.relu(self.hidden(torch.cat([text, image], dim=1))), 0.2, self.training))


def bare(folder: Path, data: Data) -> Callable[[], None]:
    """Inputs in memory, the same batches and updates; no log, no validation, no checkpoint."""
    with h5py.File(folder / "image.h5") as file:
        pixels = torch.from_numpy(file["pixels"][:])
        index = torch.from_numpy(file["index"][:]).long()
    with h5py.File(folder / "text.h5") as file:
        tokens = torch.from_numpy(file["tokens"][:]).long().split(np.diff(file["offsets"][:]).tolist())
    finetuned, size = load_params(ROOT / "params.yaml").finetuned, recipe(folder).settings.batch_size

    model = Bare(folder).train()
    updates = torch.optim.AdamW(model.parameters(), lr=finetuned.learning_rate, fused=True)

    def epoch() -> None:
        order = torch.randperm(len(data.rows["train"]))
        for rows in data.rows["train"][order].split(size):
            ids = nn.utils.rnn.pad_sequence([tokens[row] for row in rows.tolist()], batch_first=True)
            mask = (ids > 0).long()
            loss = F.cross_entropy(model(pixels[index[rows]], ids, mask), data.labels[rows])
            updates.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), finetuned.clip)
            updates.step()

    return epoch


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write(folder)
        torch.set_num_threads(settings().threads)
        mine, theirs = alternate(ours(folder, data), bare(folder, data), repeats=3)
    posts = len(data.rows["train"])
    report(
        Row(
            f"one epoch of `concat`, encoders trained too: {IMAGE} and {TEXT}, {posts} posts",
            "bare loop: same networks, batches and updates, inputs in memory, no log, validation, checkpoint",
            f"{mine:.1f} s against {theirs:.1f} s: {mine / theirs:.3f} times",
            "at most 1.10 times",
            mine / theirs <= 1.10,
        )
    )


if __name__ == "__main__":
    main()
