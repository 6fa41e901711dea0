"""The floors that every table needs: majority class and logistic regression."""

import logging

from spp_scl.audit.floors import compute_floors
from spp_scl.files import replacing, write_json
from spp_scl.model.data import load_data
from spp_scl.params import load_params
from spp_scl.raw.datasets import DATASETS
from spp_scl.stage import run_stage


def main() -> None:
    params = load_params()
    data = load_data(
        f"data/clean/{params.dataset}.parquet",
        f"data/split/{params.dataset}.parquet",
        f"data/features/{params.dataset}/image.h5",
        f"data/features/{params.dataset}/text.h5",
    )
    floors, predictions = compute_floors(data, DATASETS[params.dataset].selection)
    with replacing("reports/floors.json") as path, replacing("reports/floors.csv") as table:
        write_json(path, floors)
        predictions.to_csv(table, index=False)
    for name, metrics in floors.items():
        logging.info("%-16s test accuracy %.4f", name, metrics["test"]["accuracy"])


if __name__ == "__main__":
    run_stage(main)
