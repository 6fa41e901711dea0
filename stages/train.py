"""Train the chosen method on the cached features, or with the encoders in the loop."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from spp_scl.batches.data import Data, load_dataset
from spp_scl.errors import UserError
from spp_scl.files import remove
from spp_scl.methods import load_method
from spp_scl.methods.shared.method import Method, count_parameters
from spp_scl.params import Params
from spp_scl.stage import run_stage
from spp_scl.training.artifact import Artifact, hash_ids, load_model, require_usable, save_model
from spp_scl.training.log import TrainingLog
from spp_scl.training.processes import together
from spp_scl.training.recipe import TrainingRecipe, read_recipe
from spp_scl.training.training import train

MODEL, LOG = "models/model.safetensors", "reports/train"
CHECKPOINT = Path("reports/.checkpoint.tmp")


def main(params: Params) -> None:
    recipe = read_recipe("models/recipe.json")
    network = load_method(recipe.method).network
    data = load_dataset(params.dataset, views=network.reads.views)
    if params.train.weights != "trained":
        use_model_file(params.train.weights, network, data, params.train.threads)
        return
    started = time.perf_counter()
    # Features from the cache are one process's work.
    number = 1 if recipe.encoders == "frozen" else params.train.processes
    options: dict[str, Any] = {"seed": params.seed, "params": params.train, "checkpoint": CHECKPOINT}
    with together(number, train_along, params.dataset, recipe, options):
        trained = train(data, recipe, **options, log_folder=LOG)
    seconds = time.perf_counter() - started
    summary, model = trained.summary(), trained.model
    own: dict[str, Any] = dict(model.encoders.items())
    encoders = {name: encoder.describe() for name, encoder in own.items()}
    artifact = Artifact(
        method=recipe.method,
        settings=recipe.settings.model_dump(),
        sizes=model.sizes.numbers(),
        encoders=encoders,
        precision=recipe.precision(data.source.device),
        classes=data.classes,
        features=data.fingerprint,
        trained_on=hash_ids(data.ids("train")),
        seed=params.seed,
        threads=params.train.threads,
        training=summary,
    )
    save_model(MODEL, model, artifact)
    remove(CHECKPOINT)
    logging.info(
        "%s: %d parameters; trained in %.1f s; best epoch %d of %d",
        model.title,
        count_parameters(model),
        seconds,
        trained.best_epoch,
        trained.epochs,
    )
    for sentence in model.describe(summary):
        logging.info(sentence)


def train_along(dataset: str, recipe: TrainingRecipe, options: dict[str, Any]) -> None:
    """What the other processes do."""
    data = load_dataset(dataset, views=load_method(recipe.method).network.reads.views)
    train(data, recipe, **options, log_folder=None)


def use_model_file(path: str, network: type[Method], data: Data, threads: int) -> None:
    """Let a model file be the trained model; its log is empty."""
    model, artifact = load_model(path)
    if not isinstance(model, network):
        raise UserError(
            f"train.weights: {path}: a model of {model.title}; choose its method, {artifact.method}"
        )
    require_usable(artifact, data, path)
    TrainingLog.of(network).write(LOG)
    save_model(MODEL, model, replace(artifact, features=data.fingerprint, threads=threads))
    logging.info("taken from %s: nothing was trained", path)


if __name__ == "__main__":
    run_stage(main)
