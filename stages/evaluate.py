"""Evaluate the trained model, audit what its metrics rest on, and draw the pictures."""

import logging

from spp_scl.audit.audit import audit
from spp_scl.audit.findings import describe_findings
from spp_scl.audit.page import write_page
from spp_scl.batches.data import load_dataset
from spp_scl.checks.repeats import read_repeats
from spp_scl.clean.table import write_parquet
from spp_scl.encoders.weights import choose_sources
from spp_scl.evaluation.evaluate import describe, evaluate
from spp_scl.files import read_json, replacing, write_json
from spp_scl.params import Params
from spp_scl.prediction.bundle import describe_bundle
from spp_scl.report.confusion import draw_confusion
from spp_scl.report.tsne import draw_tsne, project
from spp_scl.stage import run_stage
from spp_scl.training.artifact import load_model, place_model, require_features


def main(params: Params) -> None:
    model_path = "models/model.safetensors"
    model, artifact = load_model(model_path)
    data = load_dataset(params.dataset)
    require_features(artifact, data.fingerprint, data.classes, model_path)
    data = place_model(model, artifact, data)
    repeats = read_repeats("reports/repeats.csv", data.ids("test"))
    floors = read_json("reports/floors.json", "the floors")
    sources = choose_sources(params.image_features, params.text_features, params.dataset)
    sources["text"]["padding"] = params.text_features.padding
    found = evaluate(model, artifact, data)
    shortcuts = read_json("reports/shortcuts.json", "the shortcuts")
    figures = audit(model, artifact, data, found.logits, repeats, floors, shortcuts, params.seed)
    if views := read_json("reports/views.json", "the second views' report"):
        figures["translations"] = views
    findings = describe_findings(figures, len(repeats), model)
    test = found.embeddings[found.embeddings["split"] == "test"]
    coordinates = project(test, list(model.spaces), params.tsne.perplexity, params.seed)
    bundle = describe_bundle(
        data,
        read_json("models/model.json", "the model's description"),
        sources,
        {
            "title": model.title,
            "spaces": dict(model.spaces),
            "dataset": params.dataset,
            "split": read_json("reports/split.json", "the split's report"),
            "metrics": found.metrics,
            "uncertainty": figures["uncertainty"],
            "floors": figures["floors"],
            "findings": findings,
        },
    )
    with (
        replacing("models/config.json") as config,
        replacing("reports/metrics.json") as metrics,
        replacing("reports/predictions.csv") as predictions,
        replacing("reports/per_class.csv") as per_class,
        replacing("reports/confusion.csv") as confusion,
        replacing("reports/embeddings.parquet") as embeddings,
        replacing("reports/tsne.csv") as tsne,
        replacing("reports/audit.json") as audited,
        replacing("reports/audit.md") as page,
    ):
        write_json(config, bundle)
        write_json(metrics, found.metrics)
        found.predictions.to_csv(predictions, index=False)
        found.per_class.to_csv(per_class, index=False)
        test[["label", "prediction"]].to_csv(confusion, index=False)
        write_parquet(found.embeddings, embeddings)
        coordinates.to_csv(tsne, index=False)
        write_json(audited, figures)
        page.write_text(write_page(figures, findings, params.dataset), encoding="utf-8")
    draw_confusion(
        "reports/confusion.png",
        test,
        data.classes,
        f"{model.title} on {params.dataset}: {len(test)} test tweets",
    )
    draw_tsne(
        "reports/tsne.png",
        coordinates,
        model.spaces,
        data.classes,
        f"{model.title}: t-SNE of the {len(test)} test tweets of {params.dataset}",
    )
    logging.info(describe(found))
    for finding in findings.values():
        logging.info("- %s", finding)


if __name__ == "__main__":
    run_stage(main)
