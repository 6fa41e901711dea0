"""Studies: what they vary, how they are run and compared, and what a reader gets."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from spp_scl.errors import UserError
from spp_scl.params import load_params
from studies import queue
from studies.definitions import choose_studies, experiment_name, load_studies
from studies.statistics import compare, summarize
from tests.pipeline import ENVIRONMENT, ROOT, run, set_params, small_clone


@pytest.mark.parametrize("study", load_studies().values(), ids=lambda s: s.name)
def test_each_row_overrides_parameters_by_values_that_they_take(study, tmp_path):
    names = {experiment_name("x", overrides, 1) for overrides in study.rows.values()}
    assert len(names) == len(study.rows)
    assert study.rows[study.reference] == {}
    assert set(study.tsne) <= set(study.rows)
    for overrides in study.rows.values():
        sections = {}
        for key, value in overrides.items():
            first, _, rest = key.partition(".")
            sections.setdefault(first, {}).update({rest: value}) if rest else sections.update({first: value})
        (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        default = load_params(tmp_path / "params.yaml")
        set_params(tmp_path, **sections)
        changed = load_params(tmp_path / "params.yaml")
        assert (changed == default) == (not overrides)


def test_an_unknown_study_is_named():
    with pytest.raises(UserError, match="no study alfa; there are ablations"):
        choose_studies(["alfa"])


def test_a_summary_is_students_interval():
    s = summarize([0.70, 0.72, 0.74])
    assert (s.mean, s.deviation) == (pytest.approx(0.72), pytest.approx(0.02))
    assert s.high - s.mean == pytest.approx(4.303 * 0.02 / 3**0.5, rel=1e-3)
    assert np.isnan(summarize([0.7]).low)


def predictions(right, n, seed):
    """Test predictions of which the given share is right."""
    rng = np.random.default_rng(seed)
    hit = rng.random(n) < right
    frame = {"id": [str(i) for i in range(n)], "label": "a", "prediction": np.where(hit, "a", "b")}
    return pd.DataFrame(frame)


def test_a_difference_is_found_where_there_is_one_and_not_where_there_is_none():
    better = [predictions(0.8, 500, seed) for seed in range(3)]
    worse = [predictions(0.6, 500, seed) for seed in range(10, 13)]
    found = compare(better, worse)
    gains = np.mean(
        [
            (b["prediction"] == "a").astype(int) - (w["prediction"] == "a")
            for b, w in zip(better, worse, strict=True)
        ],
        axis=0,
    )
    assert found.mean == pytest.approx(gains.mean())
    half = 1.96 * gains.std() / 500**0.5
    assert gains.mean() - 2 * half < found.low < gains.mean() - half
    assert found.p < 0.001
    # Of rows that are equally good, about one in twenty is told apart.
    others = [compare([predictions(0.8, 500, s)], [predictions(0.8, 500, 100 + s)]).p for s in range(20)]
    assert sum(p < 0.05 for p in others) <= 3
    nothing = compare(better, better)
    assert (nothing.mean, nothing.low, nothing.high, nothing.p) == (0, 0, 0, 1)


def test_what_a_seed_shifts_as_a_whole_is_not_taken_for_a_difference():
    """Rows of one quality whose runs differ by three points from seed to seed."""
    rng, told = np.random.default_rng(0), 0
    for trial in range(10):
        shift = rng.normal(0, 0.03, 10)
        runs = [predictions(0.75 + s, 1000, 100 * trial + i) for i, s in enumerate(shift)]
        told += compare(runs[:5], runs[5:]).p < 0.05
    assert told <= 3


def test_p_agrees_with_the_paired_t_test_of_many_tweets():
    one, other = predictions(0.75, 2000, 1), predictions(0.73, 2000, 2)
    gains = [(f["prediction"] == "a").astype(int) for f in (one, other)]
    assert compare([one], [other]).p == pytest.approx(ttest_rel(*gains).pvalue, abs=0.03)


def test_predictions_of_other_tweets_are_not_paired():
    with pytest.raises(UserError, match="different test tweets"):
        compare([predictions(0.8, 50, 1)], [predictions(0.8, 40, 1)])


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A small clone, the sample reproduced, with a study of two rows that has been run with one seed."""
    folder = small_clone(tmp_path_factory.mktemp("studied"), epochs=1)
    (folder / "studies/definitions.yaml").write_text(
        "small:\n  title: Small\n  x: alpha\n  rows:\n    one: {}\n    two: { alpha: 0.0 }\n  tsne: [one]\n"
    )
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "reproduced")
    run(folder, "python", "-m", "studies", "run", "small", "--data", "tiny", "--seeds", "1", "-j", "1")
    return folder


def test_a_command_that_leaves_workers_behind_is_not_waited_for(tmp_path, monkeypatch):
    """`dvc queue start` is one: waiting for its workers, a study would queue nothing until all are done."""
    command = tmp_path / "dvc"
    command.write_text("#!/bin/sh\necho said; sleep 30 &\nexit $1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    started = time.monotonic()
    queue._dvc("0")
    with pytest.raises(UserError, match="dvc 3: said"):
        queue._dvc("3")
    assert time.monotonic() - started < 10


def test_an_interruption_lets_a_command_finish_that_has_begun(tmp_path):
    command = tmp_path / "dvc"
    command.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun; sleep 3; touch {tmp_path}/finished\n")
    command.chmod(0o755)
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from studies import queue\nqueue._dvc('exp', 'run', '--queue')"
    )
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}:{ENVIRONMENT['PATH']}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert (tmp_path / "finished").exists()


class FakeQueue:
    """DVC's queue as `run_all` sees it; a worker takes two polls for an experiment.

    Args:
        trouble: called with the queue at each poll.
    """

    def __init__(self, monkeypatch, trouble):
        self.status, self.done, self.workers, self.most = {}, {}, [], 0
        self.trouble, self.polls = trouble, 0
        monkeypatch.setattr(queue, "_look", self.look)
        monkeypatch.setattr(queue, "_dvc", self.dvc)
        monkeypatch.setattr(queue, "list_experiments", lambda: dict(self.done))
        monkeypatch.setattr(queue, "require_committed", dict)
        monkeypatch.setattr(queue, "require_own_name", lambda data, params: None)
        monkeypatch.setattr(queue, "read_params", lambda revision: {})
        monkeypatch.setattr(queue.time, "sleep", self.poll)

    def look(self):
        return dict(self.status), [int(task is not None) for task in self.workers]

    def dvc(self, *arguments, may_fail=False):
        match arguments:
            case ("exp", "run", "--queue", "--name", name, *_):
                assert name not in self.status
                self.status[name] = "Queued"
            case ("queue", "start", "-j", jobs):
                self.workers += [None] * (int(jobs) - len(self.workers))
            case ("queue", "kill", "--force", *names):
                self.status |= dict.fromkeys(names, "Failed")
            case ("queue", "remove", name):
                del self.status[name]

    def poll(self, seconds):
        self.polls += 1
        assert self.polls < 300, "it waits for ever"
        for i, task in enumerate(self.workers):
            if task and task[1]:
                self.status[task[0]], self.done[task[0]] = "Success", "revision"
                task = None
            elif task:
                task = (task[0], True)
            queued = [n for n, state in self.status.items() if state == "Queued"]
            if task is None and queued:
                task = (queued[0], False)
                self.status[queued[0]] = "Running"
            self.workers[i] = task
        self.most = max(self.most, sum(task is not None for task in self.workers))
        self.trouble(self)


def run_fake(fake):
    rows = [{"alpha": i / 10} for i in range(10)]
    failed = queue.run_all("x", rows, {}, seeds=[1], jobs=2)
    return failed, {experiment_name("x", row, 1) for row in rows} - fake.done.keys()


def test_as_many_run_at_once_as_were_asked_for_and_all_are_run(monkeypatch):
    fake = FakeQueue(monkeypatch, lambda q: None)
    assert run_fake(fake) == ([], set())
    assert fake.most == 2
    assert fake.polls <= 20  # one worker alone would take twenty and more


@pytest.mark.parametrize("polls", [(3,), (3, 4)])
def test_a_run_whose_worker_was_killed_runs_again(monkeypatch, polls):
    def kill(q):
        if q.polls in polls:
            del q.workers[0]  # what it ran stays Running

    assert run_fake(FakeQueue(monkeypatch, kill)) == ([], set())


def test_a_run_that_somebody_takes_out_of_the_queue_is_reported_and_the_others_run(monkeypatch):
    removed = []

    def remove(q):
        queued = [n for n, state in q.status.items() if state == "Queued"]
        if queued and not removed:
            removed.append(queued[0])
            del q.status[queued[0]]

    failed, missing = run_fake(FakeQueue(monkeypatch, remove))
    assert failed == removed
    assert missing == set(removed)


def names(folder):
    return set(run(folder, "dvc", "exp", "list", "--name-only", "-A").split())


def test_a_study_runs_as_experiments_once_and_is_collected(studied):
    assert names(studied) >= {"tiny-reference-s1", "tiny-alpha-0.0-s1"}
    before = run(studied, "git", "for-each-ref", "refs/exps")
    again = ["python", "-m", "studies", "run", "small", "--data", "tiny", "--seeds", "1", "-j", "1"]
    done = subprocess.run(again, cwd=studied, env=ENVIRONMENT, capture_output=True, timeout=60)
    assert done.returncode == 0
    assert run(studied, "git", "for-each-ref", "refs/exps") == before
    run(studied, "python", "-m", "studies", "collect", "small", "--data", "tiny", "--seeds", "1")
    stem = studied / "reports/studies/tiny-small"
    runs = pd.read_csv(f"{stem}.csv").set_index("row")
    assert runs.loc["two", "step2_share"] == 0
    page = stem.with_suffix(".md").read_text()
    assert f"{runs.loc['one', 'accuracy']:.4f}" in page
    assert "python -m studies run small --data tiny" in page
    assert "Not run" not in page
    for kind in ("", "-tsne"):
        assert f"tiny-small{kind}.png" in page
        assert stem.with_name(f"tiny-small{kind}.png").read_bytes().startswith(b"\x89PNG")


def study(folder, action, *options, code=1, data="tiny"):
    command = ["python", "-m", "studies", action, "small", "--data", data, "--seeds", "1", *options]
    return run(folder, *command, code=code)


def test_what_an_experiment_has_left_in_params_yaml_does_not_get_into_a_study(studied):
    before = run(studied, "git", "for-each-ref", "refs/exps")
    set_params(studied, alpha=0.3)
    try:
        assert "not committed (alpha=0.3)" in study(studied, "run", "-j", "1")
    finally:
        run(studied, "git", "restore", "params.yaml")
    assert run(studied, "git", "for-each-ref", "refs/exps") == before


def test_the_name_of_another_dataset_is_no_name_for_the_data(studied):
    assert "would be of the dataset sample; add `-S dataset=hfm`" in study(studied, "run", data="hfm")


def test_what_was_run_with_an_override_is_not_reported_without_it(studied):
    run(studied, "dvc", "exp", "run", "--temp", "--name", "other-reference-s1", "-S", "seed=1",
        "-S", "train.threads=1", "-S", "train.batch_size=12")  # fmt: skip
    assert "(-S train.batch_size=12)" in study(studied, "collect", data="other")
    study(studied, "collect", "-S", "train.batch_size=12", data="other", code=0)
    page = (studied / "reports/studies/other-small.md").read_text()
    assert "committed: `train.batch_size=12`." in page
    assert "Not run: two." in page
    assert "(-S train.batch_size=12)" in study(studied, "collect", "-S", "train.batch_size=14", data="other")
    assert "is there with other parameters" in study(studied, "run", data="other")


def test_runs_that_differ_in_more_than_the_study_varies_are_not_compared(studied):
    run(studied, "dvc", "exp", "remove", "tiny-reference-s1", "tiny-alpha-0.0-s1")
    for name, alpha in (("tiny-reference-s1", 2 / 3), ("tiny-alpha-0.0-s1", 0.0)):
        set_params(studied, train={"batch_size": 12 if alpha else 13})
        run(studied, "git", "commit", "-qam", name)
        run(studied, "dvc", "exp", "run", "--temp", "--name", name, "-S", f"alpha={alpha}", "-S", "seed=1",
            "-S", "train.threads=1")  # fmt: skip
    assert "differ in more than their rows do: train.batch_size" in study(studied, "collect")
