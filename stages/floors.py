"""Compute the floors that every result is compared with: majority class and logistic regression."""

import logging

from spp_scl.batches.data import load_dataset
from spp_scl.batches.inputs import InputStore
from spp_scl.checks.floors import compute_floors
from spp_scl.encoders.loop import load_encoders
from spp_scl.encoders.weights import choose_sources
from spp_scl.files import replacing, write_json
from spp_scl.params import Params
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    data = load_dataset(params.dataset)
    if isinstance(data.source, InputStore):
        # The floors are of the encoders as they come, whatever the training makes of them.
        sources = choose_sources(params.image_features, params.text_features, params.dataset)
        encoders = load_encoders(sources, sources, data.table["text"].tolist())
        data.source.require(encoders)
        data.source.use(encoders.to(data.source.device), "fp32")
    floors, predictions = compute_floors(data)
    with (
        replacing("reports/floors.json") as metrics_path,
        replacing("reports/floors.csv") as predictions_path,
    ):
        write_json(metrics_path, floors)
        predictions.to_csv(predictions_path, index=False)
    for name, metrics in floors.items():
        logging.info("%-16s test accuracy %.4f", name, metrics["test"]["accuracy"])


if __name__ == "__main__":
    run_stage(main)
