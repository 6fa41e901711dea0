"""One epoch of training from the cache, against one as the released code does it."""

import tempfile
from functools import partial
from pathlib import Path

import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before torchvision)

# isort: split
from torchvision.models import resnet50
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor
from transformers import BertConfig, BertModel

from benchmarks import straightforward
from benchmarks.measure import REPEATS, Row, alternate, report
from benchmarks.synthetic import load_features, write_features, write_pictures
from benchmarks.training import epoch, network, optimizer_of
from spp_scl.clean.pictures import open_picture

POSITIONS = 202
prepare = Compose(
    [
        Resize(256),
        CenterCrop(224),
        ToTensor(),
        Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_features(folder)
        data = load_features(folder)
        model = network(data).train()
        optimizer = optimizer_of(model, fused=False)
        size = model.params.batch_size
        pictures = write_pictures(folder / "pictures", size)["image"]
        net = resnet50(weights=None).train().requires_grad_(False)
        bert = BertModel(BertConfig(), add_pooling_layer=False).train().requires_grad_(False)
        ids = torch.randint(1000, 30000, (size, POSITIONS))
        mask = torch.ones(size, POSITIONS, dtype=torch.bool)
        labels = torch.randint(0, len(data.classes), (size,))

        def forward(pixels: torch.Tensor):
            hidden = torch.stack(bert(ids, mask.long(), output_hidden_states=True).hidden_states[-4:], dim=2)
            x = net.maxpool(net.relu(net.bn1(net.conv1(pixels))))
            maps = net.layer4(net.layer3(net.layer2(net.layer1(x)))).flatten(2).transpose(1, 2)
            return straightforward.forward(model, hidden[:, 1:-1], mask[:, 1:-1], hidden[:, 0], maps)

        def released_batch() -> None:
            pixels = torch.stack([prepare(open_picture(folder / "pictures" / name)) for name in pictures])
            straightforward.step(model, partial(forward, pixels), optimizer, labels)

        ours, theirs = alternate(lambda: epoch(data), released_batch, repeats=REPEATS)
        batches = -(-len(data.rows["train"]) // size)
    theirs *= batches
    report(
        Row(
            "one epoch of training from the cache, MVSA-Single's size",
            "one as the released code does it: float32, text padded to 202, both encoders run twice a batch, "
            f"pictures from JPEG (the median of {REPEATS} batches, times {batches} batches)",
            f"{ours:.2f} s against {theirs:,.0f} s: {theirs / ours:,.0f} times faster",
            "1,000 times faster",
            theirs / ours >= 1000,
        )
    )


if __name__ == "__main__":
    main()
