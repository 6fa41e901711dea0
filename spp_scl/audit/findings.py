"""What an audit finds, in plain sentences."""

import math
from collections.abc import Mapping

from spp_scl.audit.coupling import BATCH_SIZES
from spp_scl.audit.uncertainty import RESAMPLES
from spp_scl.checks.repeats import KINDS, NEAR
from spp_scl.checks.shortcuts import TOGETHER
from spp_scl.methods.shared.method import Method
from spp_scl.metrics import MAIN, percent
from spp_scl.report.style import FLOOR_NAMES, SCORE_NAMES

# Measured: with fewer than five wrong (or right) predictions, bootstrap intervals of F1 hold the true value
# in 40 to 93 % of the cases instead of 95 %; with more, in 92 % or better.
_FEW = 5

# Of a shortcut's test against the majority class.
_LEVEL = 0.05

MODALITY_GROUPS = {
    "agree": "both labels equal",
    "image_neutral": "picture neutral",
    "text_neutral": "text neutral",
}


def describe_findings(figures: Mapping[str, Mapping], tweets: int, model: Method) -> dict[str, str]:
    """A finding for each section of an audit.

    Args:
        figures: see `audit`.
        tweets: of the test set.
        model: that was audited.
    """
    own = figures["repeats"]["with"]
    found = {
        "coupling": _describe_coupling(figures["coupling"], tweets, model),
        "repeats": _describe_repeats(figures["repeats"], tweets),
        "training": _describe_training(figures["training"], model),
        "floors": _describe_floors(figures["floors"], own),
        "shortcuts": _describe_shortcuts(figures["shortcuts"]),
        "uncertainty": _describe_uncertainty(figures["uncertainty"], own, tweets),
    }
    if "modalities" in figures:
        found["modalities"] = _describe_modalities(figures["modalities"])
    if "translations" in figures:
        found["translations"] = _describe_translations(figures["translations"])
    return found


def _describe_coupling(c: Mapping[str, Mapping], tweets: int, model: Method) -> str:
    ways = {"in the file's order": "file_order", "sorted by label": "sorted_by_label"}
    ways |= {f"in batches of {size}": f"batches_of_{size}" for size in BATCH_SIZES}
    ways |= {"one at a time": "one_at_a_time"}
    shuffled = c["shuffled"]
    encoded = " (The model's own encoders ran once for all of this.)" if len(model.encoders) else ""
    if not max(shuffled["changed_max"], *(c[key]["changed"] for key in ways.values())):
        return (
            f"No prediction depends on its batch: in other orders, in other batch sizes and one at a time, "
            f"all {tweets} test predictions stay the same.{encoded}"
        )
    coupled = model.couples_batch
    why = "Predictions depend on the tweets in their batch" if coupled else "Rounding changes predictions"
    drawn = f" The metrics are of an order drawn from the seed (accuracy {c['own']['accuracy']:.4f})."
    changes = [
        f"{way} {percent(c[key]['changed'])} (accuracy {c[key]['accuracy']:.4f})" for way, key in ways.items()
    ]
    return (
        f"{why}: in another random order {percent(shuffled['changed_mean'])} of the test predictions change "
        f"on average (accuracy {shuffled['accuracy_min']:.4f} to {shuffled['accuracy_max']:.4f}), "
        f"{', '.join(changes)}.{drawn if coupled else ''}"
    )


def _describe_repeats(r: Mapping[str, Mapping], tweets: int) -> str:
    if not r["any"]["tweets"]:
        return f"None of the {tweets} test tweets is in train too, neither its text nor its picture."
    text, picture, near = (r[kind] for kind in KINDS)
    finding = (
        f"{r['any']['tweets']} of {tweets} test tweets are in train too: {text['tweets']} by their text "
        f"({text['same_label']} with the same label), {picture['tweets']} by an identical picture, "
        f"{near['tweets']} by a picture that differs in at most {NEAR} of pHash's 64 bits."
    )
    if "without" not in r:
        return f"{finding} Without them no test tweet is left."
    return (
        f"{finding} Accuracy is {r['with']['accuracy']:.4f} with them and {r['without']['accuracy']:.4f} "
        f"without, weighted F1 {r['with']['f1_weighted']:.4f} and {r['without']['f1_weighted']:.4f}. "
        "`-S split.protocol=grouped` keeps equal texts and pictures on one side."
    )


def _describe_training(training: Mapping, model: Method) -> str:
    if not training:
        return (
            "The model was not trained here: nothing is known of its training, nor whether some of the test "
            "tweets trained it."
        )
    kept = f"The weights are those of epoch {training['best_epoch']} of {training['epochs']}."
    return " ".join([*model.describe(training), kept])


def _describe_translations(t: Mapping) -> str:
    """Do the second views' texts belong to their tweets?"""
    finding = f"Of {t['rows']} training tweets {t['translated']} have a translation"
    if t["overlap"] is None:
        return f"{finding}, which the contrast of the two views needs."
    finding += (
        f" ({t['same']} the tweet itself). On average {percent(t['overlap'])} of a tweet's words are in its "
        f"translation, and {percent(t['overlap_next'])} in the next tweet's"
    )
    if t["overlap"] <= 2 * t["overlap_next"]:
        return f"{finding}: they may belong to other tweets."
    return f"{finding}."


def _describe_floors(floors: Mapping[str, Mapping], own: Mapping[str, float]) -> str:
    best = max(floors, key=lambda name: floors[name]["accuracy"])
    finding = f"The majority class has an accuracy of {floors['majority']['accuracy']:.4f}"
    if best == "majority":
        finding += ", and no regression has a higher one"
    else:
        finding += f"; the best floor, {FLOOR_NAMES[best]}, has {floors[best]['accuracy']:.4f}"
    difference = describe_difference(own["accuracy"], floors[best]["accuracy"])
    finding += f". The model's {own['accuracy']:.4f} is {difference}"
    # The macro F1 counts each class: it is the majority's only where no other is predicted.
    if all(math.isclose(own[score], floors["majority"][score]) for score in MAIN):
        finding += ": it takes every tweet for the majority class, and has learned nothing"
    return f"{finding}."


def _describe_shortcuts(shortcuts: Mapping[str, Mapping]) -> str:
    """Does anything but the content tell the label?"""
    together = shortcuts[TOGETHER]
    # Bonferroni's correction for how many are asked by themselves.
    level = _LEVEL / (len(shortcuts) - 1)
    alone = {
        name: found
        for name, found in shortcuts.items()
        if name != TOGETHER and found["above_majority"] > 0 and found["p"] < level
    }
    told = together["above_majority"] > 0 and together["p"] < _LEVEL
    reached = (
        f"(all together an accuracy of {together['accuracy']:.4f}, {_points(together['above_majority'])} to "
        f"the majority class, p = {together['p']:.2g})"
    )
    if not told and not alone:
        return (
            "There is no sign that a tweet's outside (lengths, links, capitals, the picture's size, format "
            f"and bytes, ...) tells its label {reached}."
        )
    finding = f"A tweet's outside tells something of its label, without its content {reached}"
    if alone:
        best = sorted(alone, key=lambda name: alone[name]["above_majority"], reverse=True)
        finding += "; by itself " + ", ".join(
            f"*{name}* ({_points(alone[name]['above_majority'])})" for name in best
        )
    return f"{finding}. A method may have learned that instead of what tweets say and show."


def _points(share: float) -> str:
    return f"{share * 100:+.1f} points"


def _describe_modalities(groups: Mapping[str, Mapping]) -> str:
    """Does the method do as well where a tweet's two halves disagree?"""
    parts = [
        "{} {accuracy:.4f} [{low:.4f}, {high:.4f}] ({tweets} tweets)".format(MODALITY_GROUPS[name], **group)
        for name, group in groups.items()
    ]
    return f"Accuracy by what text and picture are labeled alone: {', '.join(parts)}."


def describe_difference(score: float, floor: float) -> str:
    """How far a score is above or below a floor, in points."""
    points = abs(score - floor) * 100
    if points < 1e-9:
        return "equal to it"
    size = f"{points:.1f}" if points >= 0.05 else "less than 0.1"
    return f"{size} points {'above' if score > floor else 'below'} it"


def _describe_uncertainty(u: Mapping, own: Mapping[str, float], tweets: int) -> str:
    finding = (
        f"With {tweets} test tweets the 95 % interval of accuracy {own['accuracy']:.4f} is "
        "{low:.4f} to {high:.4f} (Wilson)".format(**u["accuracy"])
    )
    drawn = [
        "{} {:.4f} is {low:.4f} to {high:.4f}".format(SCORE_NAMES[score], own[score], **u[score])
        for score in MAIN[1:]
        if u[score]["low"] is not None
    ]
    finding += "".join(f", of {part}" for part in drawn)
    finding += f" ({RESAMPLES:,} bootstrap resamples)." if drawn else "."
    if degenerate := [SCORE_NAMES[score] for score in MAIN[1:] if u[score]["low"] is None]:
        finding += (
            f" For {' and '.join(degenerate)} no interval can be drawn: every resample of these tweets gives "
            "the same value."
        )
    right = round(own["accuracy"] * tweets)
    if drawn and min(right, tweets - right) < _FEW:
        count, kind = min((right, "right"), (tweets - right, "wrong"))
        finding += f" With only {count} {kind} prediction(s), the intervals of F1 are too narrow."
    return (
        f"{finding} The spread over seeds comes on top. The expected calibration error is "
        f"{u['calibration_error']:.3f}."
    )
