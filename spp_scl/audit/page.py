"""The audit as a page that a person understands."""

from collections.abc import Iterator, Mapping

from spp_scl.audit.audit import SCORES, Audit
from spp_scl.audit.repeats import KINDS, NEAR

_TITLES = {
    "coupling": "Does a prediction depend on its batch?",
    "repeats": "Do test tweets stand in train?",
    "gate": "Did the gate, and alpha, do anything?",
    "floors": "What costs nothing, and how far above it is the model?",
    "uncertainty": "How sure are the figures?",
}


def write_page(audit: Audit, title: str) -> str:
    """The page, in Markdown: the findings first, then a table a section."""
    lines = [f"# Audit: {title}", ""]
    lines += [f"- {finding}" for finding in audit.findings.values()]
    tables = {"coupling": _coupling, "repeats": _repeats, "gate": _gate, "floors": _floors}
    for name, table in tables.items():
        lines += ["", f"## {_TITLES[name]}", "", *table(audit.figures[name])]
    lines += ["", f"## {_TITLES['uncertainty']}", "", *_uncertainty(audit.figures["uncertainty"])]
    return "\n".join(lines) + "\n"


def _table(*rows: tuple) -> Iterator[str]:
    for i, row in enumerate(rows):
        yield "| " + " | ".join(str(cell) for cell in row) + " |"
        if i == 0:
            yield "|" + "---|" * len(row)


def _coupling(c: Mapping[str, Mapping]) -> Iterator[str]:
    shuffled = c["shuffled"]
    rows = [
        ("as the metrics", f"{c['own']['accuracy']:.4f}", "0"),
        (
            "shuffled, 20 orders: mean (range)",
            "{accuracy_mean:.4f} ({accuracy_min:.4f} to {accuracy_max:.4f})".format(**shuffled),
            "{changed_mean:.2%} ({changed_min:.2%} to {changed_max:.2%})".format(**shuffled),
        ),
    ]
    for name, part in c.items():
        if name not in ("own", "shuffled"):
            rows.append((name.replace("_", " "), f"{part['accuracy']:.4f}", f"{part['changed']:.2%}"))
    yield from _table(("test set in which order and batches", "accuracy", "predictions changed"), *rows)


def _repeats(r: Mapping[str, Mapping]) -> Iterator[str]:
    names = dict(
        zip(KINDS, ("normalized text", "picture", f"pHash, {NEAR} bits or fewer apart"), strict=True)
    )
    rows = [(names[kind], r[kind]["tweets"], r[kind]["same_label"]) for kind in KINDS]
    yield from _table(
        ("test tweets that stand in train, by", "tweets", "with the same label"),
        *rows,
        ("any of these", r["any"]["tweets"], ""),
    )
    yield ""
    parts = [
        (f"{name} them", *(f"{r[name][s]:.4f}" for s in SCORES)) for name in ("with", "without") if name in r
    ]
    yield from _table(("test set", "accuracy", "weighted F1", "macro F1"), *parts)


def _gate(training: Mapping) -> Iterator[str]:
    names = {
        "step2_share": "share of batches with step 2",
        "step2_share_float32": "the same, had the sigmoids been compared in float32",
        "count_over_p": "mean of count / P",
        "saturated_share": "share of pairs whose float32 sigmoid is 1",
    }
    found = {name: training.get(key) for key, name in names.items()}
    yield from _table(
        ("of the training", ""),
        *((name, "none" if value is None else f"{value:.4f}") for name, value in found.items()),
    )


def _floors(floors: Mapping[str, Mapping]) -> Iterator[str]:
    yield from _table(
        ("floor, test set", "accuracy", "weighted F1", "macro F1"),
        *((name.replace("_", ", "), *(f"{f[s]:.4f}" for s in SCORES)) for name, f in floors.items()),
    )


def _uncertainty(u: Mapping) -> Iterator[str]:
    yield from _table(
        ("test set", "95 % interval"),
        *((s.replace("_", " "), f"{u[s]['low']:.4f} to {u[s]['high']:.4f}") for s in SCORES),
        ("expected calibration error", f"{u['calibration_error']:.4f}"),
    )
