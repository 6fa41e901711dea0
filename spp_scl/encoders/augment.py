"""Second views of pictures: RandAugment (Cubuk et al. 2020) and a flip, on the prepared picture."""

import hashlib
import threading

import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before torchvision)

# isort: split
import torchvision.transforms as T

# Of 0 to 30, as the published recipe has them.
OPERATIONS, MAGNITUDE = 2, 14

_LOCK = threading.Lock()


class Augment:
    """A random change of a picture; draws from torch's global generator."""

    description = f"RandAugment {OPERATIONS} of magnitude {MAGNITUDE}/30, then a flip in one of two"

    def __init__(self) -> None:
        self._transform = T.Compose(
            [T.RandAugment(OPERATIONS, MAGNITUDE, num_magnitude_bins=31), T.RandomHorizontalFlip()]
        )

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Change prepared pictures, (B, 3, H, W) uint8, each by itself."""
        if not len(pixels):
            return pixels
        return torch.stack([self._transform(picture) for picture in pixels.cpu()]).to(pixels.device)

    def draw(self, picture: torch.Tensor, name: str) -> torch.Tensor:
        """Change one picture, (3, H, W) uint8, in the way that its name decides."""
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
        # The generator is one for all threads.
        with _LOCK, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._transform(picture)
