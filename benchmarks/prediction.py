"""A trained model in use: how long the first prediction takes, a further one, and the rate of many."""

import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import Row, alternate, report
from benchmarks.synthetic import sorted_batches, write_pictures
from spp_scl.encoders.fused import fuse
from spp_scl.encoders.image import load_image_encoder
from spp_scl.encoders.pictures import AT_ONCE
from spp_scl.encoders.text import TextEncoder
from spp_scl.encoders.workers import in_order
from spp_scl.features.device import DTYPES, autocast, choose_device, choose_precision
from spp_scl.prediction.bundle import load_encoder
from spp_scl.prediction.predictor import Predictor
from spp_scl.raw.sample import make_tweet

SENTIMENTS = ("positive", "neutral", "negative")
POSTS = 512
BATCH = 32

# In a process of its own, with the model of `make repro`.
_FIRST = """
import json, sys, time
started = time.perf_counter()
from spp_scl import Predictor
predictor = Predictor.load("models")
predictor(sys.argv[1], image=sys.argv[2])
first, times = time.perf_counter() - started, []
for _ in range(20):
    started = time.perf_counter()
    predictor(sys.argv[1], image=sys.argv[2])
    times.append(time.perf_counter() - started)
print(json.dumps([first, sorted(times)[10]]))
"""


def main() -> None:
    logging.disable()
    if not Path("models/config.json").is_file():
        sys.exit("error: models/config.json is missing; run `make repro` first")
    device = choose_device()
    predictor = Predictor.load("models")
    precision = choose_precision(device, "auto")
    rng = random.Random(1)
    # Of the vocabulary of the sample's model: other texts have a piece a letter.
    strings = [make_tweet(rng, sentiment) for sentiment in rng.choices(SENTIMENTS, k=POSTS)]
    text = load_encoder(predictor.bundle, "text")
    assert isinstance(text, TextEncoder)
    text.optimize(device, precision)
    image = load_image_encoder("untrained", 1)
    fuse(image.net, DTYPES[precision], torch.device("cuda"))  # with public operations alone
    image.to(device)
    pixels = torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8, device=device)
    batches = sorted_batches(text, strings, BATCH, device)

    def forward(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        with torch.inference_mode():
            with autocast(device, precision):
                text(*batch).cpu()
            for part in pixels.split(AT_ONCE):
                image(part).cpu()

    def all_cores() -> None:
        for batch in batches:
            forward(batch)

    def core_by_core() -> None:
        for _ in in_order(forward, batches, device):
            pass

    with tempfile.TemporaryDirectory() as name:
        table = write_pictures(Path(name), POSTS)
        posts = [
            {"text": string, "image": Path(name, path)}
            for string, path in zip(strings, table["image"], strict=True)
        ]
        mine, bare, bare_by_core = alternate(partial(predictor, posts), all_cores, core_by_core, repeats=3)
        command = [sys.executable, "-c", _FIRST, strings[0], str(posts[0]["image"])]
        started = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        whole = time.perf_counter() - started
    first, further = json.loads(done.stdout.splitlines()[-1])
    ours, best = POSTS / mine, POSTS / min(bare, bare_by_core)
    print(f"process: {whole:.1f} s", file=sys.stderr)
    report(
        Row(
            "posts of text and picture, from file to probabilities",
            f"the bare forward passes of both encoders on tensors in memory, {precision}, the better of all "
            "cores on a batch and a batch a core",
            f"{ours:.1f} posts/s against {best:.1f}: {ours / best:.2f} of its rate",
            "at least 0.85 of its rate",
            ours / best >= 0.85,
        ),
        Row(
            "first prediction in a fresh process",
            "nothing",
            f"{first:.1f} s, imports and both encoders included",
            "less than 10 s",
            first < 10,
        ),
        Row(
            "a further prediction, of one post",
            "nothing",
            f"{1000 * further:.0f} ms",
            "less than 100 ms",
            further < 0.1,
        ),
    )


if __name__ == "__main__":
    main()
