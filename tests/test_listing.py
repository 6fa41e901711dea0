"""What is told about the methods: the command, the published figures, the README's table, the kinds of F1."""

import re

import pytest
import torch
from sklearn.metrics import f1_score

from spp_scl.cli import main
from spp_scl.listing import read_published
from spp_scl.methods import list_methods, load_method
from spp_scl.metrics import classification_metrics
from spp_scl.raw.datasets import DATASETS
from tests.pipeline import ROOT

METHODS = list_methods()


def test_the_published_figures_are_of_known_methods_and_datasets_with_the_kind_of_f1_named():
    published = read_published()
    assert set(published) <= set(METHODS)
    for name, rows in published.items():
        for row in rows:
            assert row["dataset"] in DATASETS
            (kind,) = row.keys() - {"dataset", "accuracy", "source"}
            if row["dataset"].startswith("mvsa"):
                assert kind == "f1_weighted"
            else:
                assert kind == ("f1_positive" if name in ("cnn", "bilstm", "concat") else "f1_macro")
            assert 0.5 < row[kind] <= 1
            assert 0.5 < row["accuracy"] <= 1


def test_the_command_lists_the_methods_with_parameters_and_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert re.findall(r"^(\w+): ", listed, re.MULTILINE) == METHODS
    for name in METHODS:
        assert load_method(name).network.title in listed
    assert main(["methods", "bert"]) == 0
    bert = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "spp_scl" not in bert
    assert "reads text (layers)" in bert
    assert "dropout 0.1" in bert
    assert "hfm: accuracy 0.8389, macro F1 0.8326" in bert
    # Elsewhere there are no values, and that is no mistake.
    monkeypatch.chdir(tmp_path)
    assert main(["methods", "cnn"]) == 0
    assert "embedding, dropout" in re.sub(r"\s+", " ", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["methods", "bret"])


def test_two_classes_have_the_f1_of_the_last_one():
    assert DATASETS["hfm"].classes[-1] == "sarcastic"
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 2, generator=generator), torch.randint(2, (50,), generator=generator)
    found = classification_metrics(logits, labels, ("not sarcastic", "sarcastic"))
    assert found["f1_positive"] == pytest.approx(f1_score(labels, logits.argmax(dim=1), pos_label=1))
    assert found["f1_positive"] == found["f1"]["sarcastic"]
    assert "f1_positive" not in classification_metrics(torch.randn(50, 3), labels, ("a", "b", "c"))


def test_the_readme_has_a_row_a_method():
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("## Methods") : readme.index("## What a run leaves")]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == METHODS
