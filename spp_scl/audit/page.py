"""The audit as a page in Markdown."""

from collections.abc import Mapping

import pandas as pd

from spp_scl.audit.findings import MODALITY_GROUPS
from spp_scl.checks.repeats import KINDS, NEAR
from spp_scl.metrics import MAIN
from spp_scl.report.style import FLOOR_NAMES, SCORE_NAMES


def write_page(figures: Mapping[str, Mapping], findings: Mapping[str, str], title: str) -> str:
    """The findings first, then the tables of each section.

    Args:
        figures: see `audit`.
        findings: see `describe_findings`.
        title: of the page.
    """
    names = {score: SCORE_NAMES[score] for score in MAIN}
    repeats = figures["repeats"]
    training = {name.replace("_", " "): value for name, value in figures["training"].items()}
    sections: dict[str, list[pd.DataFrame]] = {
        "Does a prediction depend on its batch?": [_tabulate_coupling(figures["coupling"])],
        "Are test tweets in train too?": [
            _tabulate_repeats(repeats),
            pd.DataFrame({f"{k} them": repeats[k] for k in ("with", "without") if k in repeats})
            .T.rename(columns=names)
            .rename_axis("test set"),
        ],
        "How did the training go?": [
            pd.DataFrame({"value": training or {"not trained here": ""}}, dtype=object)
            .fillna("none")
            .rename_axis("of the training")
        ],
        "What do simple models reach?": [
            pd.DataFrame(figures["floors"])
            .T.rename(index=FLOOR_NAMES, columns=names)
            .rename_axis("floor, test set")
        ],
        "Does a tweet's outside tell its label?": [_tabulate_shortcuts(figures["shortcuts"])],
        "How sure are the figures?": [_tabulate_uncertainty(figures["uncertainty"])],
    }
    if "modalities" in figures:
        heading = "Does it do as well where text and picture disagree?"
        sections[heading] = [_tabulate_modalities(figures["modalities"])]
    parts = [f"# Audit: {title}", "\n".join(f"- {finding}" for finding in findings.values())]
    for heading, tables in sections.items():
        parts += [f"## {heading}", *(table.to_markdown(floatfmt=".4f") for table in tables)]
    return "\n\n".join(parts) + "\n"


def _tabulate_coupling(c: Mapping[str, Mapping]) -> pd.DataFrame:
    ways = {
        "as the metrics": (f"{c['own']['accuracy']:.4f}", "0.00%"),
        f"shuffled, {c['shuffled']['orders']} orders: mean (range)": (
            "{accuracy_mean:.4f} ({accuracy_min:.4f} to {accuracy_max:.4f})".format(**c["shuffled"]),
            "{changed_mean:.2%} ({changed_min:.2%} to {changed_max:.2%})".format(**c["shuffled"]),
        ),
    }
    for name, part in c.items():
        if name not in ("own", "shuffled"):
            ways[name.replace("_", " ")] = (f"{part['accuracy']:.4f}", f"{part['changed']:.2%}")
    columns = ["accuracy", "predictions changed"]
    return pd.DataFrame.from_dict(ways, orient="index", columns=columns).rename_axis("order and batches")


def _tabulate_repeats(r: Mapping[str, Mapping]) -> pd.DataFrame:
    kinds = dict(
        zip(KINDS, ("normalized text", "picture", f"pHash, {NEAR} bits or fewer apart"), strict=True)
    )
    rows = {name: [str(r[kind]["tweets"]), str(r[kind]["same_label"])] for kind, name in kinds.items()}
    rows["any of these"] = [str(r["any"]["tweets"]), ""]
    columns = ["tweets", "with the same label"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("in train too, by")


def _tabulate_shortcuts(shortcuts: Mapping[str, Mapping]) -> pd.DataFrame:
    rows = {
        name: {
            **{SCORE_NAMES[score]: found[score] for score in MAIN},
            "to the majority class, in points": f"{100 * found['above_majority']:+.1f}",
            "p": f"{found['p']:.3f}",
        }
        for name, found in shortcuts.items()
    }
    return pd.DataFrame(rows).T.rename_axis("known, test set")


def _tabulate_modalities(groups: Mapping[str, Mapping]) -> pd.DataFrame:
    rows = {
        MODALITY_GROUPS[name]: {
            "tweets": str(group["tweets"]),
            **{SCORE_NAMES[score]: group[score] for score in MAIN},
            "95 % interval of accuracy": "{low:.4f} to {high:.4f}".format(**group),
        }
        for name, group in groups.items()
    }
    return pd.DataFrame(rows).T.rename_axis("labeled alone, test set")


def _tabulate_uncertainty(u: Mapping) -> pd.DataFrame:
    rows = {
        SCORE_NAMES[score]: "none: all resamples are equal"
        if u[score]["low"] is None
        else "{low:.4f} to {high:.4f}".format(**u[score])
        for score in MAIN
    }
    return pd.DataFrame({"95 % interval": rows}).rename_axis("test set")
