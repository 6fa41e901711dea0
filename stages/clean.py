"""Raw data to the clean table, with every drop counted and named."""

import logging
from pathlib import Path

from spp_scl.clean.cleaning import clean_rows
from spp_scl.clean.table import write_parquet
from spp_scl.files import replacing, write_json
from spp_scl.params import Params
from spp_scl.raw.datasets import DATASETS
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    dataset = DATASETS[params.dataset]
    folder = Path("data/raw") / params.dataset
    table, dropped, report = clean_rows(
        dataset.read(folder),
        folder,
        dataset,
        missing_image=params.clean.missing_image,
        empty_text=params.clean.empty_text,
    )
    with (
        replacing(f"data/clean/{params.dataset}.parquet") as clean_path,
        replacing("reports/dropped.csv") as dropped_path,
        replacing("reports/clean.json") as report_path,
    ):
        write_parquet(table, clean_path)
        dropped.to_csv(dropped_path, index=False)
        write_json(report_path, {"dataset": params.dataset, **report})
    reasons = ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items())
    logging.info("kept %d of %d pairs; dropped: %s", report["kept"], report["rows"], reasons or "none")


if __name__ == "__main__":
    run_stage(main)
