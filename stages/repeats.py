"""Find the test tweets that are in train too."""

import logging
from pathlib import Path

from spp_scl.checks.repeats import KINDS, find_repeats
from spp_scl.clean.table import read_clean, read_parquet
from spp_scl.files import replacing
from spp_scl.params import Params
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    repeats = find_repeats(
        read_clean(f"data/clean/{params.dataset}.parquet"),
        read_parquet(f"data/split/{params.dataset}.parquet", "split"),
        Path("data/raw") / params.dataset,
    )
    with replacing("reports/repeats.csv") as path:
        repeats.to_csv(path, index=False)
    counts = ", ".join(f"{repeats[kind].notna().sum()} by {kind.replace('_', ' ')}" for kind in KINDS)
    logging.info("of %d test tweets are in train: %s", len(repeats), counts)


if __name__ == "__main__":
    run_stage(main)
