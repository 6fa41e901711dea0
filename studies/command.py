"""`spp-scl studies`: run studies and collect them."""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence

from ruamel.yaml import YAML

from spp_scl.errors import UserError
from studies.definitions import Overrides, Study, choose_studies, load_studies
from studies.experiments import read_params
from studies.report import write_report
from studies.results import read_runs, require_comparable, require_dataset
from studies.running import run_all

log = logging.getLogger("studies")

_PROGRAM = "spp-scl studies"


def main(argv: Sequence[str]) -> None:
    """Run or collect studies.

    Args:
        argv: the command's arguments, without its name.

    Raises:
        UserError: the studies cannot be run or collected as asked, or a run failed.
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    options = _parse(argv)
    studies = choose_studies(options.studies)
    base = dict(_override(text) for text in options.set)
    seeds = range(1, options.seeds + 1)
    if options.action == "run":
        rows = _choose_rows(studies, set(options.only), set(options.without))
        _run(options.data, rows, base, seeds, options.jobs)
        log.info("all there; now: %s", _command(argv, "collect"))
    else:
        for study in studies:
            _collect(study, options.data, base, seeds, _command(argv, "run"))


def _choose_rows(studies: Sequence[Study], only: set[str], without: set[str]) -> list[Overrides]:
    rows = [row for study in studies for row in study.rows.values()]
    keys = {key for row in rows for key in row}
    # Otherwise a misspelled one would run nothing, or all, and say that it is done.
    if unknown := sorted((only | without) - keys):
        raise UserError(f"no row sets {', '.join(unknown)}; the rows set {', '.join(sorted(keys))}")
    return [row for row in rows if (not only or row.keys() & only) and not row.keys() & without]


def _run(data: str, rows: Sequence[Overrides], base: Overrides, seeds: Sequence[int], jobs: int) -> None:
    try:
        failed = run_all(data, rows, base, seeds, jobs)
    except KeyboardInterrupt:
        log.info("the same command runs what is missing")
        raise
    if failed:
        raise UserError(
            f"{len(failed)} experiment(s) failed, why is in: {', '.join(map(str, failed.values()))}; the "
            "same command runs them again"
        )


def _collect(study: Study, data: str, base: Overrides, seeds: Sequence[int], command: str) -> None:
    require_dataset(data, {**read_params("HEAD"), **base})
    runs = {row: read_runs(data, overrides, base, seeds) for row, overrides in study.rows.items()}
    found = sum(map(len, runs.values()))
    if not found:
        raise UserError(f"{study.name} on {data}: no experiment has been run; run them with: {command}")
    require_comparable(runs, study.rows)
    files = write_report(study, data, runs, base, command)
    log.info(
        "%s: %d of %d runs; %s", study.name, found, len(study.rows) * len(seeds), ", ".join(map(str, files))
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Studies of the method, as DVC experiments.",
        epilog="example: spp-scl studies run ablations alpha --data sample --seeds 3",
    )
    parser.add_argument(
        "action",
        choices=("run", "collect"),
        help="run: what has not been run yet; "
        "collect: into reports/studies/<data>-<study>.md, .csv, .png and .svg",
    )
    parser.add_argument("studies", nargs="+", help=", ".join(load_studies()))
    parser.add_argument("--data", required=True, help="a name for the data, which begins the experiments'")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1 (default: 5)")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="runs at once, a core each (default: 2)")
    for name, what in (("--only", "run only"), ("--without", "do not run")):
        parser.add_argument(name, nargs="+", default=[], metavar="KEY", help=f"{what} rows that set these")
    parser.add_argument(
        "-S", "--set", action="append", default=[], metavar="KEY=VALUE", help="an override of every run"
    )
    options = parser.parse_args(argv)
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: at least 1")
    return options


def _command(argv: Sequence[str], action: str) -> str:
    """The same command with another action."""
    given = next(i for i, argument in enumerate(argv) if argument in ("run", "collect"))
    return f"{_PROGRAM} {shlex.join([*argv[:given], action, *argv[given + 1 :]])}"


def _override(text: str) -> tuple[str, object]:
    key, _, value = text.partition("=")
    if not key or not value:
        raise UserError(f"-S {text}: expected key=value")
    if key in ("seed", "train.threads"):
        raise UserError(f"-S {text}: a study sets it itself: seeds from 1 on (--seeds), one thread a run")
    return key, YAML(typ="safe").load(value)
