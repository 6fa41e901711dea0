"""Train the network on the cached features."""

import logging
import time
from dataclasses import replace
from pathlib import Path

from spp_scl.files import remove
from spp_scl.model.data import Data, load_dataset
from spp_scl.model.network import ModelConfig, count_parameters
from spp_scl.params import Params
from spp_scl.stage import run_stage
from spp_scl.train.artifact import Artifact, hash_ids, load_model, require_usable, save_model
from spp_scl.train.gate import describe_gate
from spp_scl.train.log import TrainingLog
from spp_scl.train.training import train

MODEL, LOG = "models/model.safetensors", "reports/train"
CHECKPOINT = Path("reports/.checkpoint.tmp")


def main(params: Params) -> None:
    data = load_dataset(params.dataset)
    if params.model.weights != "trained":
        use_model_file(params.model.weights, data, params.train.threads)
        return
    config = ModelConfig(
        classes=len(data.classes),
        text_width=data.text_width,
        fusion=params.fusion,
        dropout=params.model.dropout,
        layers=params.model.layers,
        modalities=params.model.modalities,
    )
    started = time.perf_counter()
    trained = train(
        data,
        config,
        alpha=params.alpha,
        seed=params.seed,
        params=params.train,
        log_folder=LOG,
        checkpoint=CHECKPOINT,
    )
    seconds = time.perf_counter() - started
    summary = trained.summary()
    artifact = Artifact(
        config=config,
        classes=data.classes,
        features=data.fingerprint,
        trained_on=hash_ids(data.ids("train")),
        batch_size=params.train.batch_size,
        seed=params.seed,
        threads=params.train.threads,
        training=summary,
    )
    save_model(MODEL, trained.model, artifact)
    remove(CHECKPOINT)
    logging.info(
        "%d parameters; trained in %.1f s; best epoch %d of %d",
        count_parameters(trained.model),
        seconds,
        trained.best_epoch,
        trained.epochs,
    )
    logging.info(describe_gate(summary))


def use_model_file(path: str, data: Data, threads: int) -> None:
    """Let a model file be the trained model; its log is empty."""
    model, artifact = load_model(path)
    require_usable(artifact, data, path)
    TrainingLog().write(LOG)
    save_model(MODEL, model, replace(artifact, features=data.fingerprint, threads=threads))
    logging.info("taken from %s: nothing was trained", path)


if __name__ == "__main__":
    run_stage(main)
