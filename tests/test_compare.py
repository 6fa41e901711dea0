"""Experiments side by side: what differs, by how much, and on which tweets."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from spp_scl.cli import main
from spp_scl.errors import UserError
from studies.compare import Compared, write_page
from studies.statistics import compare


def make_run(name, said, **params):
    labels = ["a", "b", "a", "b"] * 10
    test = pd.DataFrame(
        {
            "id": [f"t{i}" for i in range(40)],
            "text": ["</script><b>x</b>", *["a text"] * 39],
            "label": labels,
            "prediction": said,
        }
    )
    accuracy = float((test["label"] == test["prediction"]).mean())
    metrics = dict.fromkeys(("accuracy", "f1_weighted", "f1_macro"), accuracy)
    return Compared(
        name, {"dataset": "sample", "alpha": 0.5, "seed": 1, **params}, metrics, {"majority": 0.5}, test
    )


@pytest.fixture
def runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    labels = np.array(["a", "b", "a", "b"] * 10)
    other = labels.copy()
    other[:4] = ["b", "b", "b", "b"]  # two of them wrong
    return [make_run("first", labels), make_run("<second>", other, alpha=0.3)]


def tweets_of(page):
    return json.loads(re.search(r"const tweets = (\[.*?\]), columns", page)[1])


def test_the_page_has_the_difference_the_parameters_and_the_tweets(runs):
    page = write_page(runs)
    found = compare([runs[1].test], [runs[0].test])
    assert f"-5.0 [{100 * found.low:+.1f}, {100 * found.high:+.1f}]" in page
    assert re.findall(r'<tr><th scope="row">(\w+)</th><td>(.*?)</td><td>(.*?)</td></tr>', page) == [
        ("alpha", "0.5", "0.3")
    ]
    tweets = tweets_of(page)
    assert [(t["id"], t["run0"], t["run1"], t["wrong"]) for t in tweets] == [
        ("t0", "a", "b", False), ("t2", "a", "b", False),
    ]  # fmt: skip
    assert page.count("<script>") == 1
    assert "<b>" not in page
    assert "&lt;second&gt;" in page


def test_runs_that_cannot_be_paired_say_so(runs):
    shorter = make_run("third", runs[0].test["prediction"])
    shorter.test.drop(index=39, inplace=True)
    page = write_page([runs[0], shorter])
    assert "other test tweets" in page
    assert "<p>None.</p>" in page  # no parameter differs
    assert tweets_of(page) == []
    with pytest.raises(UserError, match="runs of hfm and sample have no tweet in common"):
        write_page([runs[0], make_run("other", runs[0].test["prediction"], dataset="hfm")])
    shorter.test["id"] = "elsewhere"
    with pytest.raises(UserError, match="no test tweet in common"):
        write_page([runs[0], shorter])


def test_the_command_is_the_pipeline_s(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare"]) == 1
    assert "go to the pipeline's folder" in capsys.readouterr().err
