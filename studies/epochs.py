"""What each epoch of a training would have scored, and in which order of the tweets.

Two questions: does a network whose attention runs across the batch learn to read the label off its batch
mates (the published test files are sorted by label), and what does early stopping cost or save? It trains as
the stage `train` does with the parameters of this folder, but never stops early, and scores the network after
each epoch:

    dvc exp run -S spp_scl.fusion=batch split image_features text_features recipe
    python -m studies.epochs train batch --seeds 5
    python -m studies.epochs draw batch sample

Test scores are written and drawn, and choose nothing.
"""

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from spp_scl.batches.data import Data, load_dataset
from spp_scl.errors import UserError
from spp_scl.files import remove, replacing
from spp_scl.methods import load_method
from spp_scl.methods.shared.prediction import predict
from spp_scl.metrics import confusion_matrix, main_scores, scores, scores_per_class
from spp_scl.params import Params, load_params
from spp_scl.progress import progress
from spp_scl.training.checkpoint import load_checkpoint, save_checkpoint, training_key
from spp_scl.training.recipe import TrainingRecipe, read_recipe
from spp_scl.training.state import TrainingState
from spp_scl.training.training import train_epoch
from studies.epoch_figures import draw

FOLDER = Path("reports/studies/epochs")

# Random orders of the test set.
_SHUFFLED = 5

log = logging.getLogger("studies")


def main(argv: list[str]) -> None:
    """Train, or draw what was trained.

    Raises:
        UserError: the folder holds no features or no recipe, or nothing of that name was trained.
    """
    options = _parse(argv)
    if options.action == "draw":
        for path in draw(FOLDER, options.names):
            log.info("%s", path)
        return
    params, recipe = load_params(), read_recipe("models/recipe.json")
    (name,) = options.names
    data = load_dataset(params.dataset, views=load_method(recipe.method).network.reads.views)
    for seed in range(1, options.seeds + 1):
        path = FOLDER / f"{name}-s{seed}.csv"
        key, known = make_key(data, recipe, params, seed, options.every), path.with_suffix(".key")
        if path.exists():
            if known.read_text() != key:
                raise UserError(f"{path}: of another training; remove it, or give this one another name")
            log.info("%s is there", path)
            continue
        table = score_epochs(data, recipe, params, seed, options.every, path.with_suffix(".tmp"))
        known.write_text(key)
        with replacing(path) as aside:
            table.to_csv(aside, index=False)
        remove(path.with_suffix(".tmp"))


def make_key(data: Data, recipe: TrainingRecipe, params: Params, seed: int, every: int) -> str:
    """A hash of all that decides the scores; see `score_epochs`."""
    return training_key(data, recipe, {"seed": seed, "every": every, "params": params.train.model_dump()})


def score_epochs(
    data: Data, recipe: TrainingRecipe, params: Params, seed: int, every: int, checkpoint: Path
) -> pd.DataFrame:
    """Train all epochs and score each, or go on where an interrupted call has stopped.

    Args:
        data: of the dataset.
        recipe: the method and its parameters.
        params: the section `train`, whose patience is not used.
        seed: of the training.
        every: epochs from one scoring in other orders to the next.
        checkpoint: the file that is written after each epoch.

    Returns:
        A row for each epoch, split (valid, test) and order: accuracy, f1_weighted, f1_macro, `selection`
        (that of them which chooses the epoch on validation data) and a recall a class. Orders: `own`, of the
        metrics; and each `every` epochs `sorted` (by label, as the published files), `shuffled` (several
        rows) and `alone` (one tweet at a time).
    """
    torch.set_num_threads(params.train.threads)
    key = make_key(data, recipe, params, seed, every)
    state, rows = TrainingState.start(recipe, data, seed), []
    if (saved := load_checkpoint(checkpoint, key)) is not None:
        rows = saved.pop("rows")
        state.load_state_dict(saved)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    epochs = recipe.settings.epochs
    with progress(desc=f"seed {seed}", unit="epochs", total=epochs, initial=state.epoch) as bar:
        while state.epoch < epochs:
            bar.set_postfix_str(train_epoch(state, data, recipe.settings.batch_size, seed))
            for split in ("valid", "test"):
                others = state.epoch % every == 0
                rows += [
                    {"epoch": state.epoch, "split": split, **row}
                    for row in _score(state, data, split, recipe.settings.batch_size, seed, others)
                ]
            save_checkpoint(checkpoint, key, {**state.state_dict(), "rows": rows})
            bar.update()
    return pd.DataFrame(rows)


def _score(
    state: TrainingState, data: Data, split: str, size: int, seed: int, others: bool
) -> Iterator[dict[str, str | float]]:
    rows = data.rows[split]
    labels = data.labels[rows]
    ways: list[tuple[str, int, torch.Tensor | None]] = [("own", size, None)]
    if others:
        ways.append(("sorted", size, labels.argsort(stable=True)))
        generator = torch.Generator().manual_seed(seed)
        ways += [("shuffled", size, torch.randperm(len(rows), generator=generator)) for _ in range(_SHUFFLED)]
        ways.append(("alone", 1, None))
    for name, batch_size, order in ways:
        output = predict(state.model, data.source, rows, batch_size, seed, order=order)
        matrix = confusion_matrix(labels.numpy(), output.logits.argmax(dim=1).numpy(), len(data.classes))
        found, recall = scores(matrix), scores_per_class(matrix)["recall"]
        yield {
            "order": name,
            "selection": float(found[data.selection]),
            **main_scores(matrix),
            **{f"recall_{label}": float(value) for label, value in zip(data.classes, recall, strict=True)},
        }


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.epochs", description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("train", "draw"))
    parser.add_argument("names", nargs="+", help="what the training in this folder is called; draw: several")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1 (default: 5)")
    parser.add_argument("--every", type=int, default=5, help="epochs between two scorings (default: 5)")
    options = parser.parse_args(argv)
    if options.action == "train" and len(options.names) > 1:
        parser.error("train takes one name")
    if min(options.seeds, options.every) < 1:
        parser.error("--seeds, --every: at least 1")
    return options


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
