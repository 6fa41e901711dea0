"""Run studies and collect them: see `python -m studies --help`."""

import argparse
import logging
import shlex
import sys
from pathlib import Path

from ruamel.yaml import YAML

from spp_scl.errors import UserError
from studies.definitions import choose_studies, load_studies
from studies.queue import run_all
from studies.report import write_report
from studies.results import read_runs, require_comparable, require_own_name, require_told

log = logging.getLogger("studies")


def main() -> None:
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)  # its own: those of DVC's queue tell a user nothing
    options = _parse()
    base = dict(_override(text) for text in options.set)
    studies = choose_studies(options.studies)
    seeds = range(1, options.seeds + 1)
    if options.action == "run":
        rows = [overrides for study in studies for overrides in study.rows.values()]
        if options.only:
            rows = [overrides for overrides in rows if set(overrides) & set(options.only)]
        rows = [overrides for overrides in rows if not set(overrides) & set(options.without)]
        failed = run_all(options.data, rows, base, seeds, options.jobs)
        if failed:
            raise UserError(
                f"{len(failed)} experiment(s) failed: {', '.join(failed)}; `dvc queue logs <name>` says why, "
                "and the same command runs them again"
            )
        log.info("all there; now: %s", _command("collect", options.action))
        return
    for study in studies:
        runs = {row: read_runs(options.data, overrides, seeds) for row, overrides in study.rows.items()}
        there = sum(map(len, runs.values()))
        if not there:
            raise UserError(f"{study.name} on {options.data}: no experiment has been run")
        for row, found in runs.items():
            require_told(found, study.rows[row], base)
            for run in found:
                require_own_name(options.data, run.params)
        require_comparable(runs, study.rows)
        files = write_report(study, options.data, runs, base, _command("run", options.action))
        log.info(
            "%s: %d of %d runs; %s",
            study.name,
            there,
            len(study.rows) * len(seeds),
            ", ".join(map(str, files)),
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies", description="Studies of the method.")
    parser.add_argument(
        "action",
        choices=("run", "collect"),
        help="run: as experiments in DVC's queue, as far as they have not been run; "
        "collect: into reports/studies/<data>-<study>.md, .csv and .png",
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
    return parser.parse_args()


def _command(action: str, given: str) -> str:
    """This call's command line with another action."""
    arguments = sys.argv[1:]
    arguments.remove(given)
    return shlex.join(["python", "-m", "studies", action, *arguments])


def _override(text: str) -> tuple[str, object]:
    key, _, value = text.partition("=")
    if not key or not value:
        raise UserError(f"-S {text}: expected key=value")
    if key in ("seed", "train.threads"):
        raise UserError(
            f"-S {text}: a study sets it itself, the seeds from 1 on (--seeds) and one thread a run"
        )
    return key, YAML(typ="safe").load(value)


if __name__ == "__main__":
    if not Path("dvc.yaml").is_file():
        sys.exit("error: run it in the folder that holds dvc.yaml")
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: what runs goes on; the same command goes on from there")
