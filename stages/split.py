"""Assign every clean row to train, valid or test."""

import logging
from pathlib import Path

from spp_scl.clean.table import SPLITS, read_clean, write_parquet
from spp_scl.files import replacing, write_json
from spp_scl.params import Params
from spp_scl.split.splitting import split_table
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    split, report = split_table(
        read_clean(f"data/clean/{params.dataset}.parquet"),
        params.dataset,
        Path("data/published") / params.dataset,
        params.split.protocol,
        params.split.seed,
    )
    with (
        replacing(f"data/split/{params.dataset}.parquet") as split_path,
        replacing("reports/split.json") as report_path,
    ):
        write_parquet(split, split_path)
        write_json(report_path, {"dataset": params.dataset, **report})
    sizes = ", ".join(f"{name} {report[name]['rows']}" for name in SPLITS)
    logging.info("%s split: %s", report["protocol"], sizes)
    if report["unassigned"] or report["absent"]:
        logging.info(
            "%d row(s) are in no split; %d row(s) of the published split were not kept in cleaning",
            report["unassigned"],
            report["absent"],
        )


if __name__ == "__main__":
    run_stage(main)
