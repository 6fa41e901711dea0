"""Write the report: one HTML file that opens without a network."""

from pathlib import Path

import pandas as pd

from spp_scl.clean.table import read_clean
from spp_scl.files import read_json, replacing
from spp_scl.params import Params
from spp_scl.report.html import read_scripts, write_report
from spp_scl.stage import run_stage

SCRIPTS = Path(".dvc/plots.html")  # the page of `dvc plots show`


def main(params: Params) -> None:
    config = read_json("models/config.json", "the bundle's configuration")
    types = {"id": str, "label": str, "prediction": str, "text": str}
    clean = read_clean(f"data/clean/{params.dataset}.parquet")
    having = clean.dropna(subset="image")
    folder = Path("data/raw") / params.dataset
    page = write_report(
        config,
        {
            "predictions": pd.read_csv("reports/predictions.csv", dtype=types, keep_default_na=False),
            "tsne": pd.read_csv("reports/tsne.csv", dtype=types, keep_default_na=False),
            "epochs": pd.read_csv(Path("reports/train") / "epochs.csv"),
            "curves": pd.read_csv(Path("reports/train") / "curves.csv"),
        },
        {own: folder / image for own, image in zip(having["id"], having["image"], strict=True)},
        read_scripts(SCRIPTS),
    )
    with replacing("reports/report.html") as path:
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    run_stage(main)
