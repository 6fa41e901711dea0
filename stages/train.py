"""Train the network on the cached features."""

import logging
import time
from dataclasses import replace

from dvclive import Live

from spp_scl.errors import UserError
from spp_scl.files import replacing
from spp_scl.model.data import Data, load_data
from spp_scl.model.network import ModelConfig
from spp_scl.params import load_params
from spp_scl.raw.datasets import DATASETS
from spp_scl.stage import run_stage
from spp_scl.train.artifact import Artifact, hash_ids, load_model, require_features, save_model
from spp_scl.train.checkpoint import Checkpoint, training_key
from spp_scl.train.gate import describe_gate
from spp_scl.train.training import complete_log, count_parameters, train


def main() -> None:
    params = load_params()
    data = load_data(
        f"data/clean/{params.dataset}.parquet",
        f"data/split/{params.dataset}.parquet",
        f"data/features/{params.dataset}/image.h5",
        f"data/features/{params.dataset}/text.h5",
    )
    config = ModelConfig(
        classes=len(data.classes),
        text_width=data.text_width,
        fusion=params.fusion,
        dropout=params.model.dropout,
        layers=params.model.layers,
        modalities=params.model.modalities,
    )
    settings = {
        "alpha": params.alpha,
        "seed": params.seed,
        "params": params.train.model_dump(),
        "selection": DATASETS[params.dataset].selection,
    }
    if params.model.weights != "trained":
        take_over(params.model.weights, data, params.train.threads)
        return
    with replacing("reports/train", keep=True) as folder:
        key = training_key(data, config, settings)
        checkpoint = Checkpoint(folder.with_name(".checkpoint.tmp"), folder, key)
        state = checkpoint.load()
        started = time.perf_counter()
        trained = train(
            data,
            config,
            alpha=params.alpha,
            seed=params.seed,
            params=params.train,
            selection=DATASETS[params.dataset].selection,
            live=Live(str(folder), resume=state is not None, save_dvc_exp=False, dvcyaml=None),
            state=state,
            save=checkpoint.save,
        )
        complete_log(folder)
        seconds = time.perf_counter() - started
        artifact = Artifact(
            config=config,
            classes=data.classes,
            features=data.fingerprint,
            trained_on=hash_ids(data.ids("train")),
            batch_size=params.train.batch_size,
            seed=params.seed,
            threads=params.train.threads,
            training=trained.summary(),
        )
        save_model("models/model.safetensors", trained.model, artifact)
    checkpoint.remove()
    size = count_parameters(trained.model)
    logging.info(
        "%d parameters, trained in %.1f s; best epoch %d of %d",
        size,
        seconds,
        trained.best_epoch,
        trained.epochs,
    )
    logging.info(describe_gate(trained.summary()))


def take_over(path: str, data: Data, threads: int) -> None:
    """Let a model file be the trained model."""
    model, artifact = load_model(path)
    require_features(artifact, data.fingerprint, data.classes, path)
    if artifact.config.text_width != data.text_width:
        raise UserError(
            f"model.weights: {path}: the model takes texts of width {artifact.config.text_width}, and the "
            f"text encoder's is {data.text_width}; choose its own encoder (text_features.weights)"
        )
    if artifact.trained_on not in (None, hash_ids(data.ids("train"))):
        raise UserError(
            f"model.weights: {path}: the model was trained on other tweets than this split's, and would be "
            "tested on some of them; choose the split that it was trained with"
        )
    with replacing("reports/train") as folder:
        complete_log(folder)
        artifact = replace(artifact, features=data.fingerprint, threads=threads)
        save_model("models/model.safetensors", model, artifact)
    logging.info("taken from %s: nothing was trained", path)


if __name__ == "__main__":
    run_stage(main)
