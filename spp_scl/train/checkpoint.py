"""What an unfinished training needs to go on: its state after the last epoch, and the log until then."""

import hashlib
import importlib.metadata
import io
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import spp_scl
from spp_scl.features.device import describe_hardware
from spp_scl.files import remove, replacing
from spp_scl.model.data import Data
from spp_scl.model.network import ModelConfig

log = logging.getLogger(__name__)

# The code that a training runs: with other code it would not end where it would have.
_CODE = ("features/device.py", "features/store.py", "model", "train")
_LIBRARIES = ("dvclive", "numpy", "torch")


@dataclass(frozen=True)
class Checkpoint:
    """A file beside the log's folder; it is not an output, so DVC leaves it where it is.

    Args:
        path: the file.
        log_folder: what training writes its log to; cut back to the checkpoint's epoch on loading.
        key: a hash of all that decides the training (`training_key`); a checkpoint of another one is no use.
    """

    path: Path
    log_folder: Path
    key: str

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state of tensors, numbers and texts, nested, and the lengths of the log's files."""
        # Files that only grow: what an unfinished epoch has added is cut off again.
        sizes = {
            str(f.relative_to(self.log_folder)): f.stat().st_size for f in self.log_folder.rglob("*.tsv")
        }
        buffer = io.BytesIO()
        torch.save({"key": self.key, "log": sizes, "state": dict(state)}, buffer)
        content = buffer.getbuffer()
        with replacing(self.path, durable=False) as aside, aside.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, the log cut back to it; None, the log empty, if there is none."""
        saved = self._read()
        if saved is not None and self._cut_log(saved["log"]):
            return saved["state"]
        # The two belong together: one without the other must not meet a later run's.
        self.remove()
        remove(self.log_folder)
        return None

    def _cut_log(self, sizes: Mapping[str, int]) -> bool:
        for file in self.log_folder.rglob("*"):
            name = str(file.relative_to(self.log_folder))
            if file.is_file() and name not in sizes:
                file.unlink()
        files = {name: self.log_folder / name for name in sizes}
        if any(not file.is_file() or file.stat().st_size < sizes[name] for name, file in files.items()):
            return False
        for name, file in files.items():
            os.truncate(file, sizes[name])
        return True

    def remove(self) -> None:
        """Forget it, once the training's result is in place."""
        remove(self.path)

    def _read(self) -> dict[str, Any] | None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() != digest:
            log.warning("%s: the checkpoint is damaged; the training begins anew", self.path)
            return None
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return saved if saved["key"] == self.key else None


def training_key(data: Data, config: ModelConfig, settings: Mapping[str, Any]) -> str:
    """A hash of the data, the network, the settings, the code, its libraries and the hardware.

    Args:
        data: as it is trained on.
        config: of the network.
        settings: every other argument of `train`, as JSON takes it.
    """
    digest = hashlib.sha256()
    package = Path(spp_scl.__file__).parent
    for entry in _CODE:
        files = [package / entry] if entry.endswith(".py") else sorted((package / entry).glob("*.py"))
        for file in files:
            digest.update(file.read_bytes())
    facts = [
        data.digest,
        asdict(config),
        settings,
        [importlib.metadata.version(name) for name in _LIBRARIES],
        describe_hardware(data.features.device),
    ]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()
