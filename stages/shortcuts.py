"""Find what tells the label from a tweet's outside: lengths, links, sizes, formats."""

import logging
from pathlib import Path

from spp_scl.checks.shortcuts import describe_outside, find_shortcuts
from spp_scl.clean.table import SPLITS, read_clean, read_parquet
from spp_scl.files import replacing, write_json
from spp_scl.params import Params
from spp_scl.stage import run_stage


def main(params: Params) -> None:
    table = read_clean(f"data/clean/{params.dataset}.parquet")
    split = read_parquet(f"data/split/{params.dataset}.parquet", "split").set_index("id")["split"]
    side = table["id"].map(split)
    found = find_shortcuts(
        describe_outside(table, Path("data/raw") / params.dataset),
        table["label"].cat.codes.to_numpy(int),
        {name: (side == name).to_numpy().nonzero()[0] for name in SPLITS},
        table["label"].cat.categories.tolist(),
    )
    with replacing("reports/shortcuts.json") as path:
        write_json(path, found)
    for name, scores in found.items():
        logging.info("%-16s test accuracy %.4f", name, scores["accuracy"])


if __name__ == "__main__":
    run_stage(main)
