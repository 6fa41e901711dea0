"""Image features, JPEG to HDF5, against the bare forward pass, and against float32 batch after batch."""

import logging
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import write_pictures
from spp_scl.encoders.fused import fuse
from spp_scl.encoders.image import ImageEncoder, load_image_encoder
from spp_scl.encoders.pictures import AT_ONCE, encode_images, prepare_picture
from spp_scl.encoders.workers import in_order
from spp_scl.features.device import DTYPES, choose_device, choose_precision

PICTURES = 768
BATCH = 32


def main() -> None:
    logging.disable()
    device = choose_device()
    precision = choose_precision(device, "auto")
    encoder = load_image_encoder("untrained", 1)
    encoder.optimize(device, precision)
    # The same with public operations alone: a GPU's way of fusing, whatever the device.
    public = load_image_encoder("untrained", 1)
    fuse(public.net, DTYPES[precision], torch.device("cuda"))
    public.to(device)
    pixels = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = write_pictures(folder, PICTURES)

        def encode(rows: int) -> None:
            (folder / "image.h5").unlink(missing_ok=True)
            options: dict[str, Any] = {
                "weights": "untrained",
                "seed": 1,
                "batch_size": BATCH,
                "precision": "auto",
            }
            encode_images(table.head(rows), folder, folder / "image.h5", **options)

        def forward(encoder: ImageEncoder) -> None:
            with torch.inference_mode():
                for part in pixels.to(device).split(AT_ONCE):
                    encoder(part).cpu()

        def all_cores() -> None:
            for _ in range(PICTURES // BATCH):
                forward(public)

        def core_by_core(encoder: ImageEncoder) -> None:
            for _ in in_order(forward, [encoder] * (PICTURES // BATCH), device):
                pass

        net = load_image_encoder("untrained", 1).net.to(memory_format=torch.contiguous_format)

        def float32() -> None:
            rows = table.head(BATCH)
            batch = [prepare_picture(folder / r.image, r.picture, encoder) for r in rows.itertuples()]
            with torch.inference_mode():
                x = (torch.stack(batch).contiguous().float() - 120) / 60
                x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
                net.layer4(net.layer3(net.layer2(net.layer1(x))))

        whole, setup, bare, bare_by_core, own, plain = alternate(
            partial(encode, PICTURES),
            partial(encode, 0),
            all_cores,
            partial(core_by_core, public),
            partial(core_by_core, encoder),
            float32,
        )
    # The network is built and hashed once however many pictures follow.
    ours = PICTURES / (whole - setup)
    best = PICTURES / min(bare, bare_by_core)
    own = PICTURES / own
    slow = BATCH / plain
    print(f"set-up: {setup:.1f} s", file=sys.stderr)
    report(
        Row(
            "image features, JPEG to HDF5",
            f"the bare ResNet-50 forward in plain PyTorch on tensors in memory, {precision}, channels-last, "
            "batch normalizations multiplied in, the better of all cores on a batch and a batch a core",
            f"{ours:.1f} pictures/s against {best:.1f}: {ours / best:.2f} of its rate (and {ours / own:.2f} "
            f"of the {own:.1f} of our own forward, oneDNN's fused operations, alone)",
            "at least 0.90 of its rate",
            ours / best >= 0.90,
        ),
        Row(
            "image features, JPEG to HDF5",
            "float32, one after the other",
            f"{ours:.1f} pictures/s against {slow:.1f}: {ours / slow:.1f} times",
            "at least 4 times",
            ours / slow >= 4,
        ),
    )


if __name__ == "__main__":
    main()
