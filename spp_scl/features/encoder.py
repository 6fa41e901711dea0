"""What a feature file says of the encoder that wrote it."""

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import spp_scl


@dataclass(frozen=True)
class EncoderInfo:
    """An encoder, whole: two files with the same fingerprint hold comparable features.

    Args:
        architecture: for instance `resnet50`.
        weights: their source, in words.
        sha256: of the weights, and of the vocabulary where there is one.
        preparation: what is done to an input before the encoder sees it.
        precision: the arithmetic.
        software: the versions of the libraries that compute.
        hardware: the processor that computes.
        batch_size: rows at a time; it may change the last digits, as software and hardware may.
        code: a hash of the code that prepares and computes.
    """

    architecture: str
    weights: str
    sha256: str
    preparation: str
    precision: str
    software: str
    hardware: str
    batch_size: int
    code: str

    def to_json(self) -> str:
        """One line of JSON, the same for the same encoder."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the features but their last digits."""
        parts = (self.architecture, self.sha256, self.preparation, self.precision)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def hash_code(*patterns: str) -> str:
    """SHA-256 of what modules do: their sources without comments and layout.

    Args:
        patterns: of files in the package, as `Path.glob` takes them.

    Raises:
        FileNotFoundError: a pattern has no file.
    """
    package, trees = Path(spp_scl.__file__).parent, []
    for pattern in patterns:
        files = sorted(package.glob(pattern))
        if not files:
            raise FileNotFoundError(f"{package / pattern}: no such file")
        trees += [ast.dump(ast.parse(file.read_text(encoding="utf-8"))) for file in files]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def hash_weights(tensors: Mapping[str, torch.Tensor], *more: str) -> str:
    """SHA-256 of named tensors, in the order of their names, and of further texts."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    for text in more:
        digest.update(text.encode())
    return digest.hexdigest()
