"""The model card: README.md of an exported model, with Hugging Face's metadata in front."""

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from spp_scl.metrics import percent
from spp_scl.prediction.bundle import Bundle

# Datasets of tweets in English; of what `own` holds nothing is known.
_ENGLISH = ("mvsa_single", "mvsa_multiple", "hfm", "sample")

LIMITS = (
    "It knows the classes of its training data and no other, and answers with one of them whatever it is "
    "shown.",
    "Its training data are the posts of some people, in some language, of some years: others are other data.",
    "Its probabilities are not calibrated (the expected calibration error is above); a high one is no proof.",
    "It must not decide about people: what someone feels or means cannot be read off a post.",
)


def write_card(bundle: Bundle, with_encoders: bool) -> str:
    """The card of a bundle, as Markdown."""
    config, artifact = bundle.config, bundle.artifact
    title, dataset = bundle.model.title, str(config["dataset"])
    sections = [
        _metadata(bundle, dataset),
        f"# {title} on {dataset}",
        f"Labels a post, a text with a picture, as {', '.join(artifact.classes)}. The method is {title} "
        f"({bundle.model.paper}); trained with the SPP-SCL pipeline."
        + (f" {bundle.model.reconstruction}" if bundle.model.reconstruction else ""),
        "## Use",
        '```python\nfrom spp_scl import Predictor\n\npredictor = Predictor.load("path/to/this/folder")\n'
        'predictor("Blue Jays game with the fam!", image="photo.jpg")\n```',
        "## Encoders",
        _describe_encoders(bundle, with_encoders),
        "## Data",
        _describe_data(config, dataset),
        "## Metrics",
        *_describe_metrics(config),
        "## What the audit found",
        "\n".join(f"- {finding}" for finding in config["findings"].values()),
        "## Intended use and limits",
        "For research on image-text sentiment and sarcasm, and for trying a method on one's own posts.",
        "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    return "\n\n".join(sections) + "\n"


def _metadata(bundle: Bundle, dataset: str) -> str:
    test = bundle.config["metrics"]["test"]
    results = [
        {"type": kind, "value": round(test[key], 4), "name": name}
        for key, kind, name in (
            ("accuracy", "accuracy", "accuracy"),
            ("f1_weighted", "f1", "weighted F1"),
            ("f1_macro", "f1", "macro F1"),
        )
    ]
    title = bundle.model.title
    values = {
        **({"language": "en"} if dataset in _ENGLISH else {}),
        "library_name": "spp-scl",
        "pipeline_tag": "text-classification",
        "tags": ["multimodal", "sentiment-analysis", "tweets", bundle.artifact.method],
        "metrics": ["accuracy", "f1"],
        "model-index": [
            {
                "name": title,
                "results": [
                    {
                        "task": {"type": "text-classification", "name": "image-text classification"},
                        "dataset": {"name": dataset, "type": dataset, "split": "test"},
                        "metrics": results,
                    }
                ],
            }
        ],
    }
    text = io.StringIO()
    YAML().dump(values, text)
    return f"---\n{text.getvalue()}---"


def _describe_encoders(bundle: Bundle, with_encoders: bool) -> str:
    lines = []
    for kind in bundle.model.reads.kinds:
        info = bundle.info(kind)
        if kind in bundle.model.encoders:
            where = "in the loop of the training, and in the model's file"
        else:
            where = "frozen; " + ("in this folder" if with_encoders else "not in this folder")
        lines.append(f"- {kind}: {info.architecture}, {info.weights} ({where}); SHA-256 `{info.sha256}`")
    return "\n".join(lines)


def _describe_data(config: Mapping[str, Any], dataset: str) -> str:
    split = config["split"]
    sizes = ", ".join(f"{split[part]['rows']} {part}" for part in ("train", "valid", "test"))
    synthetic = (
        " **The sample is generated**: the model has seen no real tweet." if dataset == "sample" else ""
    )
    return f"`{dataset}`, {split['protocol']} split: {sizes}.{synthetic}"


def _describe_metrics(config: Mapping[str, Any]) -> list[str]:
    test, sure = config["metrics"]["test"], config["uncertainty"]
    lines = ["| test set | value | 95 % interval |", "|---|---|---|"]
    for key, name in (("accuracy", "accuracy"), ("f1_weighted", "weighted F1"), ("f1_macro", "macro F1")):
        low, high = sure[key]["low"], sure[key]["high"]
        interval = "" if low is None else f"{low:.4f} to {high:.4f}"
        lines.append(f"| {name} | {test[key]:.4f} | {interval} |")
    for name, floor in config["floors"].items():
        lines.append(f"| *floor: {name.replace('_', ' ')}*, accuracy | {floor['accuracy']:.4f} | |")
    error = percent(sure["calibration_error"])
    return ["\n".join(lines), f"Expected calibration error: {error}."]
