"""What DVC and the start of the stages cost: with nothing to do, and beyond an experiment's training."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.measure import REPEATS, Row, report

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    **{
        f"GIT_{who}_{what}": "bench@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "clone")

        def run(*command: str) -> tuple[float, str]:
            started = time.perf_counter()
            done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
            return time.perf_counter() - started, done.stdout + done.stderr

        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
        run("dvc", "repro")
        run("git", "add", "-A")
        run("git", "commit", "-qm", "reproduced", "--allow-empty")
        nothing = median(run("dvc", "repro")[0] for _ in range(REPEATS))
        beyond, trained = [], []
        for i in range(REPEATS):
            # Each a new experiment whose every stage from the training on has to run: another alpha may
            # change nothing, and another seed changes everything.
            changes = [f"alpha={1 + i}", f"seed={i}", "spp_scl.epochs=4"]
            seconds, output = run("dvc", "exp", "run", *(word for c in changes for word in ("-S", c)))
            training = float(re.search(r"trained in ([\d.]+) s", output).group(1))
            if "Running stage 'evaluate'" not in output:
                raise RuntimeError(f"not every stage ran: {output[-2000:]}")
            beyond.append(seconds - training)
            trained.append(training)
    report(
        Row(
            "`dvc repro` with nothing to do",
            "nothing",
            f"{nothing:.2f} s",
            "under 2 s",
            nothing < 2,
        ),
        Row(
            "`dvc exp run -S alpha=...` on the sample",
            "its training alone (short ones here)",
            f"{median(beyond):.1f} s beyond the training's {median(trained):.1f} s",
            "under 10 s beyond it",
            median(beyond) < 10,
        ),
    )


if __name__ == "__main__":
    main()
