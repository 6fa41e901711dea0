"""Run every benchmark, or those named, each in a process of its own, and write `docs/benchmarks.md`."""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Row, describe_machine
from spp_scl.files import replacing, write_json

PROGRAMS = (
    "epoch_released",
    "epoch_bare",
    "finetuned",
    "clmlf",
    "step",
    "image_features",
    "text_features",
    "prediction",
    "dvc_cost",
    "memory",
    "growth",
    "tsne",
)


def main() -> None:
    programs = sys.argv[1:] or PROGRAMS
    if unknown := set(programs) - set(PROGRAMS):
        sys.exit(f"error: no benchmark {', '.join(sorted(unknown))}; there are {', '.join(PROGRAMS)}")
    kept = Path("docs/benchmarks.json")
    # Of some programs only: the others' rows stay as they were.
    rows = json.loads(kept.read_text()) if sys.argv[1:] and kept.exists() else {}
    failed = []
    # The comparisons are written for a CPU; a GPU beside it must not take one side of them.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    for program in programs:
        print(f"== {program}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{program}"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        if done.returncode:
            failed.append(program)
        rows[program] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        write_json(kept, rows)
        in_order = [Row(**row) for name in PROGRAMS for row in rows.get(name, [])]
        with replacing(Path("docs/benchmarks.md")) as path:
            path.write_text(render(in_order), encoding="utf-8")
    if failed:
        sys.exit(f"error: {', '.join(failed)} failed; the report has the rest")


def render(rows: list[Row]) -> str:
    """The report as Markdown."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {today}. Medians of at least 5; what is compared runs in turns.",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in describe_machine().items()]
    lines += ["", "| what | against | measured | aim | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "met" if row.met else "**not met**"
        lines.append(f"| {row.what} | {row.against} | {row.measured} | {row.aim} | {verdict} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
