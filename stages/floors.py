"""Compute the floors that every result is compared with: majority class and logistic regression."""

import logging

from torch.nn import ModuleDict

from spp_scl.batches.data import Data, load_dataset
from spp_scl.batches.inputs import InputStore
from spp_scl.checks.floors import compute_floors
from spp_scl.encoders.image import load_image_encoder
from spp_scl.encoders.text import load_text_encoder
from spp_scl.encoders.weights import choose_weights
from spp_scl.files import replacing, write_json
from spp_scl.params import Params
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    data = load_dataset(params.dataset)
    if params.encoders != "frozen":
        # The floors are of the encoders as they come, whatever the training makes of them.
        image = load_image_encoder(
            choose_weights(params.image_features.weights, params.dataset), params.image_features.seed
        )
        text = load_text_encoder(
            choose_weights(params.text_features.weights, params.dataset),
            params.text_features.seed,
            data.table["text"].tolist(),
            params.text_features.max_positions,
        )
        use_encoders(data, ModuleDict({"image": image, "text": text}))
    floors, predictions = compute_floors(data)
    with (
        replacing("reports/floors.json") as metrics_path,
        replacing("reports/floors.csv") as predictions_path,
    ):
        write_json(metrics_path, floors)
        predictions.to_csv(predictions_path, index=False)
    for name, metrics in floors.items():
        logging.info("%-16s test accuracy %.4f", name, metrics["test"]["accuracy"])


def use_encoders(data: Data, encoders: ModuleDict) -> None:
    """Let the data's inputs go through encoders."""
    assert isinstance(data.source, InputStore)
    data.source.use(encoders.to(data.source.device), "fp32")


if __name__ == "__main__":
    run_stage(main)
