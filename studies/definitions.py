"""What a study consists of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from spp_scl.errors import UserError

Overrides = Mapping[str, object]


@dataclass(frozen=True)
class Study:
    """One study.

    Args:
        name: for instance `ablations`.
        title: for the report.
        rows: overrides, by the row's name; the first is the reference.
        x: the parameter that the rows vary, where the figure has it on its axis.
        tsne: rows whose t-SNE are drawn side by side.
        cases: two rows; tweets that the first gets wrong and the second right are drawn.
        paired: false where the rows have test tweets of their own, and no two can be paired.
    """

    name: str
    title: str
    rows: Mapping[str, Overrides]
    x: str | None = None
    tsne: Sequence[str] = ()
    cases: Sequence[str] = ()
    paired: bool = True

    @property
    def reference(self) -> str:
        """The row that the others are compared with."""
        return next(iter(self.rows))


def load_studies() -> dict[str, Study]:
    """All of `definitions.yaml`."""
    values = YAML(typ="safe").load(Path(__file__).with_name("definitions.yaml"))
    return {name: Study(name=name, **value) for name, value in values.items()}


def choose_studies(names: Sequence[str]) -> list[Study]:
    """The named studies.

    Raises:
        UserError: there is no such study.
    """
    studies = load_studies()
    for name in names:
        if name not in studies:
            raise UserError(f"no study {name}; there are {', '.join(studies)}")
    return [studies[name] for name in names]


def experiment_name(data: str, overrides: Overrides, seed: int) -> str:
    """The experiment that runs these overrides: `sample-fusion-batch-s1`."""
    parts = [f"{key.split('.')[-1]}-{value}".lower().replace("_", "-") for key, value in overrides.items()]
    return "-".join([data, *(parts or ["reference"]), f"s{seed}"])


def run_overrides(row: Overrides, base: Overrides, seed: int) -> dict[str, object]:
    """All overrides of one run: one thread, so that runs beside each other are as fast as alone."""
    return {**base, **row, "seed": seed, "train.threads": 1}
