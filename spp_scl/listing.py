"""The command `spp-scl methods`: what each method reads and takes, and the figures published for it."""

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spp_scl.methods import list_methods, load_method

PUBLISHED = Path(__file__).with_name("published.json")

# The keys are those of `metrics.json`.
_SCORES = {
    "accuracy": "accuracy",
    "f1_weighted": "weighted F1",
    "f1_macro": "macro F1",
    "f1_positive": "F1 of the positive class",
}
_INDENT = 18


def main(arguments: Sequence[str]) -> None:
    """Print the methods.

    Args:
        arguments: those of the command line.

    Raises:
        UserError: the folder's `params.yaml` is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="spp-scl methods",
        description="What each method is and reads, its parameters (with their values, in the pipeline's "
        "folder), and the figures published for it.",
        epilog="example: spp-scl methods clmlf",
    )
    parser.add_argument("names", nargs="*", metavar="METHOD", help="only these; all where none is given")
    names = parser.parse_args(arguments).names or list_methods()
    if unknown := [name for name in names if name not in list_methods()]:
        parser.error(f"unknown method {', '.join(unknown)}; there are {', '.join(list_methods())}")
    sections: dict[str, dict[str, Any]] = {}
    if Path("params.yaml").is_file():
        from spp_scl.params import load_params

        sections = load_params().methods
    published = read_published()
    print("\n\n".join(describe(name, sections.get(name, {}), published.get(name, [])) for name in names))


def read_published() -> dict[str, list[dict[str, Any]]]:
    """By method, a row a dataset and source: accuracy, and F1 under the name of its kind."""
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))


def describe(name: str, values: dict[str, Any], published: Sequence[dict[str, Any]]) -> str:
    """A few lines about a method.

    Args:
        name: of the method.
        values: of its parameters; empty: not known.
        published: its rows of `read_published`.
    """
    method = load_method(name)
    network, reads = method.network, method.network.reads
    inputs = [f"{part} ({what})" for part, what in (("text", reads.text), ("image", reads.image)) if what]
    inputs += ["second views"] if reads.views else []
    settings = [f"{key} {_show(values[key])}" if key in values else key for key in method.params.model_fields]
    rows = [f"{row['dataset']}: {_figures(row)} ({row['source']})" for row in published]
    facts = [
        ("paper", [network.paper]),
        ("reads", [", ".join(inputs)]),
        ("encoders", ["frozen, live, finetuned" if reads.encoders else "frozen"]),
        ("reconstruction", [network.reconstruction] if network.reconstruction else []),
        ("parameters", [", ".join(settings)]),
        ("published", rows),
    ]
    lines = [f"{name}: {network.title}"]
    for label, texts in facts:
        for i, text in enumerate(texts):
            first = f"  {label if i == 0 else '':{_INDENT - 2}}"
            lines += textwrap.wrap(
                text,
                110,
                initial_indent=first,
                subsequent_indent=" " * _INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def _show(value: object) -> str:
    return json.dumps(value).strip('"')


def _figures(row: dict[str, Any]) -> str:
    return ", ".join(f"{called} {row[score]:.4f}" for score, called in _SCORES.items() if score in row)
