"""Studies: what they vary, how they are run and compared, and what a reader gets."""

import json
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
from studies import queue, results, statistics
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


def test_a_difference_is_found_where_there_is_one():
    better = [predictions(0.8, 500, seed) for seed in range(5)]
    worse = [predictions(0.6, 500, seed) for seed in range(10, 15)]
    found = compare(better, worse)
    gains = [hits(b) - hits(w) for b, w in zip(better, worse, strict=True)]
    assert found.mean == pytest.approx(np.mean(gains))
    assert 0.1 < found.low < found.mean < found.high < 0.3
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert found.p < 0.001
    nothing = compare(better, better)
    assert (nothing.mean, nothing.low, nothing.high, nothing.p) == (0, 0, 0, 1)


def hits(frame):
    return (frame["prediction"] == "a").to_numpy(int)


@pytest.mark.parametrize("shift", [0.0, 0.03])
@pytest.mark.parametrize("hardness", [0.0, 0.15])
def test_of_equally_good_rows_about_one_in_twenty_is_told_apart_and_the_intervals_fit(shift, hardness):
    """Five seeds. A run as a whole may be better by chance, and a tweet easier for one of the rows."""
    rng, n, trials = np.random.default_rng(0), 300, 200
    means, halves, told = [], [], 0
    for _ in range(trials):
        rows = []
        for _ in range(2):
            easy = 0.7 + rng.normal(0, hardness, n)
            right = (rng.random((5, n)) < easy + rng.normal(0, shift, (5, 1))).astype(int)
            frame = {"id": [str(i) for i in range(n)], "label": "a"}
            rows.append([pd.DataFrame({**frame, "prediction": np.where(r, "a", "b")}) for r in right])
        found = compare(*rows)
        means.append(found.mean)
        halves.append(found.high - found.mean)
        told += found.p < 0.05
    assert told <= 0.09 * trials
    # Neither too narrow nor much too wide; with five runs that differ, Student's t asks for 2.8 and not 2.
    assert 1.85 < np.mean(halves) / np.std(means) < (3.2 if shift else 2.5)


def test_with_one_seed_it_is_the_paired_t_test_of_tweets():
    one, other = predictions(0.75, 2000, 1), predictions(0.73, 2000, 2)
    expected = ttest_rel(hits(one), hits(other))
    found = compare([one], [other])
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_with_several_seeds_it_is_the_layout_s_expected_mean_squares():
    """The variance that it estimates is, on average, the true one."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        gains = rng.normal(0, 0.02, (5, 1)) + rng.normal(0, 0.3, 200) + rng.normal(0, 0.4, (5, 200))
        found.append(statistics._variance_of_mean(gains)[0])
    assert np.mean(found) == pytest.approx(0.02**2 / 5 + 0.3**2 / 200 + 0.4**2 / 1000, rel=0.1)


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
        monkeypatch.setattr(queue, "same_model", lambda revision, alpha: False)
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


def test_a_moment_without_an_answer_of_the_workers_kills_nothing(monkeypatch):
    """An earlier call's runs go on: DVC asks the workers for what they do, and waits a second for it."""
    fake = FakeQueue(monkeypatch, lambda q: None)
    fake.status = {"x-alpha-0.0-s1": "Running", "of-another-study": "Running"}
    fake.workers = [("x-alpha-0.0-s1", False), ("of-another-study", False)]
    answers = [[], [0, 0]]
    monkeypatch.setattr(
        queue, "_look", lambda: (dict(fake.status), answers.pop()) if answers else fake.look()
    )
    killed, dvc = [], fake.dvc
    monkeypatch.setattr(
        queue, "_dvc", lambda *a, **k: (killed.append(a) if "kill" in a else None, dvc(*a, **k))
    )
    assert run_fake(fake) == ([], set())
    assert not killed


def run_fake(fake):
    rows = [{"alpha": i / 10} for i in range(10)]
    failed = queue.run_all("x", rows, {}, seeds=[1], jobs=2)
    return failed, {experiment_name("x", row, 1) for row in rows} - fake.done.keys()


def test_as_many_run_at_once_as_were_asked_for_and_all_are_run(monkeypatch):
    fake = FakeQueue(monkeypatch, lambda q: None)
    assert run_fake(fake) == ([], set())
    assert fake.most == 2
    assert fake.polls <= 20  # one worker alone would take twenty and more


def test_alphas_that_a_run_proves_to_give_its_model_are_not_run(monkeypatch):
    fake = FakeQueue(monkeypatch, lambda q: None)
    monkeypatch.setattr(queue, "same_model", lambda revision, alpha: alpha >= 0.5)
    rows = [{}, {"alpha": 0.0}, {"alpha": 0.5}, {"alpha": 1.0, "fusion": "batch"}]
    assert queue.run_all("x", rows, {}, seeds=[1], jobs=2) == []
    assert fake.done.keys() == {"x-reference-s1", "x-alpha-0.0-s1", "x-alpha-1.0-fusion-batch-s1"}
    assert fake.status.keys() == fake.done.keys()


@pytest.mark.parametrize(
    ("share", "bound", "alpha", "same"),
    [
        (1.0, 0.25, 0.25, True),
        (1.0, 0.25, 0.2499, False),
        (0.0, 0.25, 0.2499, True),
        (0.0, 0.25, 0.25, False),
        (0.5, None, 0.25, False),
    ],
)
def test_a_run_proves_another_alpha_s_model_on_its_side_of_the_bound(monkeypatch, share, bound, alpha, same):
    metrics = {"train": {"step2_share": share, "alpha_bound": bound}}
    monkeypatch.setattr(results, "_show", lambda revision, path: json.dumps(metrics))
    results.same_model.cache_clear()
    assert results.same_model("revision", alpha) == same


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
    summary = pd.read_csv(f"{stem}.csv").set_index("row")
    runs = pd.read_csv(f"{stem}-runs.csv").set_index("row")
    assert (summary["accuracy_mean"] == runs["accuracy"]).all()
    gain = runs.loc["two", "accuracy"] - runs.loc["one", "accuracy"]
    assert summary.loc["two", "difference_mean"] == pytest.approx(gain)
    assert runs.loc["two", "step2_share"] == 0
    page = stem.with_suffix(".md").read_text()
    assert f"{runs.loc['one', 'accuracy']:.4f}" in page
    assert "python -m studies run small --data tiny" in page
    assert "Not run" not in page
    assert "No test prediction of any run depends on its batch." in page
    assert run(studied, "git", "rev-parse", "HEAD")[:10] in page
    for kind in ("", "-tsne"):
        assert f"tiny-small{kind}.png" in page
        assert stem.with_name(f"tiny-small{kind}.png").read_bytes().startswith(b"\x89PNG")


def test_alphas_that_the_gate_proves_alike_are_run_once_and_reported(studied):
    """Without step 2, for alpha is 0: the row of alpha 0 is the reference."""
    study(studied, "run", "-j", "1", "-S", "alpha=0.0", data="zero", code=0)
    assert {name for name in names(studied) if name.startswith("zero")} == {"zero-reference-s1"}
    study(studied, "collect", "-S", "alpha=0.0", data="zero", code=0)
    page = (studied / "reports/studies/zero-small.md").read_text()
    assert "that alpha was not run" in page
    assert "Not run" not in page
    assert "+0.0 [+0.0, +0.0]" in page


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
