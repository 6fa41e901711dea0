"""Audit the trained model: coupling, repeats, gate, floors, uncertainty."""

import logging

from spp_scl.audit.audit import audit
from spp_scl.audit.page import write_page
from spp_scl.audit.repeats import read_repeats
from spp_scl.files import read_json, replacing, write_json
from spp_scl.model.data import load_data
from spp_scl.params import load_params
from spp_scl.stage import run_stage
from spp_scl.train.artifact import load_model, require_features


def main() -> None:
    params = load_params()
    model_path = "models/model.safetensors"
    model, artifact = load_model(model_path)
    data = load_data(
        f"data/clean/{params.dataset}.parquet",
        f"data/split/{params.dataset}.parquet",
        f"data/features/{params.dataset}/image.h5",
        f"data/features/{params.dataset}/text.h5",
    )
    require_features(artifact, data.fingerprint, data.classes, model_path)
    found = audit(
        model,
        artifact,
        data,
        read_repeats("reports/repeats.csv", data.ids("test")),
        read_json("reports/floors.json", "the floors"),
        params.seed,
    )
    with replacing("reports/audit.json") as figures_path, replacing("reports/audit.md") as page_path:
        write_json(figures_path, found.figures)
        page_path.write_text(write_page(found, params.dataset), encoding="utf-8")
    for finding in found.findings.values():
        logging.info("- %s", finding)


if __name__ == "__main__":
    run_stage(main)
