"""Studies: what they vary, how they are run and compared, and what a reader gets."""

import fcntl
import os
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from spp_scl.errors import UserError
from spp_scl.methods import require_settings
from spp_scl.params import load_params
from studies import statistics
from studies.definitions import choose_studies, experiment_name, load_studies
from studies.statistics import compare, summarize
from tests.pipeline import ENVIRONMENT, ROOT, run, set_params, small_clone


@pytest.mark.parametrize("study", load_studies().values(), ids=lambda s: s.name)
def test_each_row_overrides_parameters_by_values_that_they_take(study, tmp_path):
    names = {experiment_name("x", overrides, 1) for overrides in study.rows.values()}
    assert len(names) == len(study.rows)
    assert {*study.tsne, *study.cases} <= set(study.rows)
    for overrides in study.rows.values():
        sections = {}
        for key, value in overrides.items():
            first, _, rest = key.partition(".")
            sections.setdefault(first, {}).update({rest: value}) if rest else sections.update({first: value})
        (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        default = load_params(tmp_path / "params.yaml")
        set_params(tmp_path, **sections)
        changed = load_params(tmp_path / "params.yaml")
        require_settings(changed)
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
def test_of_equally_good_rows_about_one_in_twenty_is_found_different_and_the_intervals_fit(shift, hardness):
    """Five seeds. A run as a whole may be better by chance, and a tweet easier for one of the rows."""
    rng, n, trials = np.random.default_rng(0), 300, 200
    means, halves, found_different = [], [], 0
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
        found_different += found.p < 0.05
    assert found_different <= 0.09 * trials
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


# As `spp-scl studies` does, with Ctrl-C at work in the background too.
COMMAND = (
    "python",
    "-c",
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from studies.command import main; main(sys.argv[1:])",
)


SMALL = """
small:
  title: Small
  x: alpha
  rows:
    one: {}
    two: { alpha: 0.0 }
  tsne: [one]
mixed:
  title: Two methods
  rows:
    text: { method: bert }
    one: {}
  tsne: [text, one]
  cases: [text, one]
"""


def command(action, *options, data="tiny", name="small"):
    return [*COMMAND, action, name, "--data", data, "--seeds", "1", *options]


def study(folder, action, *options, code=0, data="tiny", name="small"):
    return run(folder, *command(action, *options, data=data, name=name), code=code)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A small clone in which nothing was reproduced, and a study of two rows has been run with one seed."""
    folder = small_clone(tmp_path_factory.mktemp("studied"), epochs=1)
    (folder / "studies/definitions.yaml").write_text(SMALL)
    run(folder, "git", "commit", "-qam", "a small study")
    assert "spp-scl studies collect small --data tiny" in study(folder, "run", "--jobs", "2")
    return folder


def experiments(folder, data):
    names = run(folder, "dvc", "exp", "list", "--name-only", "-A").split()
    return {name for name in names if name.startswith(f"{data}-")}


def left_in(folder):
    return {path.name for path in (folder / ".dvc/tmp/studies").iterdir()} - {"lock"}


def test_a_study_runs_as_experiments_once_beside_the_workspace(studied):
    assert experiments(studied, "tiny") == {"tiny-reference-s1", "tiny-alpha-0.0-s1"}
    assert left_in(studied) == set()
    assert run(studied, "git", "status", "--porcelain") == ""
    before = run(studied, "git", "for-each-ref", "refs/exps")
    study(studied, "run")
    assert run(studied, "git", "for-each-ref", "refs/exps") == before


def test_a_collected_study_is_a_page_tables_and_figures(studied):
    assert "2 of 2 runs" in study(studied, "collect")
    stem = studied / "reports/studies/tiny-small"
    summary = pd.read_csv(f"{stem}.csv").set_index("row")
    runs = pd.read_csv(f"{stem}-runs.csv").set_index("row")
    assert (summary["accuracy_mean"] == runs["accuracy"]).all()
    gain = runs.loc["two", "accuracy"] - runs.loc["one", "accuracy"]
    assert summary.loc["two", "difference_mean"] == pytest.approx(gain)
    assert runs.loc["two", "step2_share"] == 0
    page = stem.with_suffix(".md").read_text()
    row, of_modalities = (line for line in page.splitlines() if line.startswith("| one "))
    assert of_modalities.count("0.") == 3
    assert [cell.strip() for cell in row.split("|")[1:4]] == [
        "one",
        "1",
        f"{runs.loc['one', 'accuracy']:.4f}",
    ]
    assert "weighted F1" in page
    assert "nan" not in page
    assert "spp-scl studies run small --data tiny" in page
    assert "Not run" not in page
    assert "No test prediction of any run depends on its batch." in page
    assert run(studied, "git", "rev-parse", "HEAD")[:10] in page
    for kind in ("", "-tsne"):
        assert f"tiny-small{kind}.png" in page
        assert stem.with_name(f"tiny-small{kind}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in stem.with_name(f"tiny-small{kind}.svg").read_text()


def test_a_study_of_two_methods_shows_where_they_differ(studied):
    study(studied, "run", name="mixed")
    assert "2 of 2 runs" in study(studied, "collect", name="mixed")
    stem = studied / "reports/studies/tiny-mixed"
    cases = pd.read_csv(f"{stem}-cases.csv")
    assert (cases["prediction: text"] != cases["label"]).all()
    assert (cases["prediction: one"] == cases["label"]).all()
    predictions = pd.read_csv(f"{stem}-runs.csv")
    assert list(predictions["row"]) == ["text", "one"]
    page = stem.with_suffix(".md").read_text()
    assert f"{len(cases)} are wrong in the row *text* and right in *one*" in page
    assert "nan" not in page
    assert "<svg" in stem.with_name("tiny-mixed-tsne.svg").read_text()
    run(studied, "dvc", "exp", "remove", "tiny-method-bert-s1")


def start(folder, *options, data):
    """Start a study of one run; returns once it trains."""
    log = folder / f".dvc/tmp/studies/{data}-reference-s1.log"
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        command("run", *options, data=data),
        cwd=folder,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (log.exists() and "Running stage 'train'" in log.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def is_locked(folder):
    with (folder / ".dvc/tmp/studies/lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_interrupted_runs_end_killed_ones_go_on_and_the_same_command_completes_the_study(studied):
    options = ("--without", "alpha", "-S", "spp_scl.epochs=3")  # 3: not in the run cache
    process = start(studied, *options, data="stopped")
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode
    assert "the same command runs what is missing" in errors
    assert not is_locked(studied)  # by any run
    assert run(studied, "git", "diff", "HEAD", "--stat") == ""

    process = start(studied, *options, data="stopped")
    process.kill()
    process.communicate()
    assert is_locked(studied)
    assert run(studied, "git", "diff", "HEAD", "--stat") == ""
    assert experiments(studied, "stopped") == set()

    assert "waiting for the runs" in study(studied, "run", *options, data="stopped")
    assert experiments(studied, "stopped") == {"stopped-reference-s1"}
    assert left_in(studied) == set()


def test_a_run_that_fails_is_named_with_its_log(studied):
    output = study(studied, "run", "--without", "alpha", "-S", "spp_scl.fusion=foo", data="failed", code=1)
    log = ".dvc/tmp/studies/failed-reference-s1.log"
    assert f"1 experiment(s) failed, why is in: {log}" in output
    assert "fusion" in (studied / log).read_text()
    assert experiments(studied, "failed") == set()


def test_what_is_not_committed_does_not_get_into_a_study(studied):
    before = run(studied, "git", "for-each-ref", "refs/exps")
    set_params(studied, alpha=0.3)
    try:
        assert "not committed: params.yaml; " in study(studied, "run", code=1)
    finally:
        run(studied, "git", "restore", "params.yaml")
    assert run(studied, "git", "for-each-ref", "refs/exps") == before


def test_the_name_of_another_dataset_is_no_name_for_the_data(studied):
    output = study(studied, "run", data="hfm", code=1)
    assert "would be of the dataset sample; add `-S dataset=hfm`" in output


def test_what_was_run_with_an_override_is_not_reported_without_it(studied):
    study(studied, "run", "--without", "alpha", "-S", "spp_scl.batch_size=12", data="other")
    assert experiments(studied, "other") == {"other-reference-s1"}
    assert "(-S spp_scl.batch_size=12)" in study(studied, "collect", data="other", code=1)
    study(studied, "collect", "-S", "spp_scl.batch_size=12", data="other")
    page = (studied / "reports/studies/other-small.md").read_text()
    assert "committed: `spp_scl.batch_size=12`." in page
    assert "Not run: two." in page
    assert "(-S spp_scl.batch_size=12)" in study(
        studied, "collect", "-S", "spp_scl.batch_size=14", data="other", code=1
    )
    assert "(-S spp_scl.batch_size=12)" in study(studied, "run", data="other", code=1)


def test_runs_of_different_code_are_not_compared(studied):
    run(studied, "dvc", "exp", "remove", "tiny-alpha-0.0-s1")
    with (studied / "spp_scl/methods/shared/losses.py").open("a") as file:
        file.write("# changed\n")
    run(studied, "git", "commit", "-qam", "other code")
    study(studied, "run", "--only", "alpha")
    output = study(studied, "collect", code=1)
    assert (
        "tiny-alpha-0.0-s1 and tiny-reference-s1 differ in more than their parameters: spp_scl/methods/shared"
        in output
    )
