"""Tweets that one method gets wrong and another right, and one sentence with different pictures."""

import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from spp_scl.errors import UserError
from studies.cases import draw_cases, draw_sentence, find_cases, find_sentence
from studies.results import common_seeds, require_comparable, same_seed
from studies.tables import describe_modalities, describe_spread, scores_table

LABELS = ["good", "bad", "bad", "good"]
SAME = "the same $\\nope{$ <b>"
TEXTS = [SAME, f"{SAME} https://t.co/x", "other", f"RT @a: {SAME.upper()}"]


def make_run(seed, hits, folder, missing=False):
    """A run whose predictions are right where `hits` says so, with a probability of 0.6 to 1 by the seed."""
    sure = 0.5 + seed / 10
    said = [
        label if hit else {"good": "bad", "bad": "good"}[label]
        for label, hit in zip(LABELS, hits, strict=True)
    ]
    predictions = pd.DataFrame(
        {
            "id": list("wxyz"),
            "split": "test",
            "text": TEXTS,
            "label": LABELS,
            "prediction": said,
            "p_good": [sure if name == "good" else 1 - sure for name in said],
            "p_bad": [sure if name == "bad" else 1 - sure for name in said],
        }
    )
    images = []
    for i in range(4):
        images.append(f"{i}.png")
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(folder / f"{i}.png")
    clean = pd.DataFrame(
        {
            "id": list("wxyz"),
            "text": TEXTS,
            "image": images,
            "picture": list("0120"),
            "label": LABELS,
            "split": None,
        }
    )
    split = pd.DataFrame({"id": list("wxyz"), "split": ["train", "test", "test", "valid"]})

    def fetch(path, to):
        if missing:
            raise UserError("not in DVC's cache")
        shutil.copy(folder / path.rpartition("/")[2], to)

    return SimpleNamespace(
        seed=seed,
        params={"dataset": "d"},
        test_predictions=predictions,
        read_csv=lambda _: predictions[predictions["id"] != "w"],
        read_parquet=lambda path: clean if "clean" in path else split,
        fetch=fetch,
    )


@pytest.fixture
def runs(tmp_path):
    return {
        "text": [make_run(s, (s == 1, False, False, True), tmp_path) for s in (1, 4)],
        # One seed more, which has nothing to be paired with.
        "both": [
            make_run(s, hits, tmp_path)
            for s, hits in ((1, (1, 1, 1, 0)), (4, (1, 1, 1, 0)), (5, (0, 0, 0, 0)))
        ],
    }


def test_a_case_is_wrong_and_right_with_every_seed_that_both_have(runs):
    cases = find_cases(runs, "text", "both")
    assert cases.found["id"].tolist() == ["x", "y"]
    assert (cases.opposite, cases.tests, cases.seeds) == (1, 4, 2)
    # 0.6 and 0.9 of the label against 0.4 and 0.1.
    assert cases.found["gain"].tolist() == pytest.approx([0.5, 0.5])


def test_one_sentence_is_found_under_links_and_retweets(runs):
    found = find_sentence(runs["text"][0])
    # A test tweet first; then one of the other label, before the rest.
    assert found["id"].tolist() == ["x", "z"]
    assert found["side"].tolist() == ["test", "valid"]


def test_equal_pictures_are_no_sentence_with_different_ones(runs):
    run = runs["text"][0]
    run.read_parquet("clean")["picture"] = "0"
    assert find_sentence(run).empty


def test_of_many_tweets_of_a_sentence_each_label_comes_first(runs):
    run = runs["text"][0]
    clean, split = run.read_parquet("clean"), run.read_parquet("split")
    for frame, more in (
        (clean, {"text": SAME, "image": "1.png", "label": "bad"}),
        (split, {"split": "test"}),
    ):
        for i in range(9):
            frame.loc[len(frame)] = {
                **frame.iloc[0].to_dict(),
                **more,
                "id": f"more{i}",
                **({"picture": f"p{i}"} if frame is clean else {}),
            }
    found = find_sentence(run)
    assert found["label"].head(2).nunique() == 2
    assert len(found) == 11


def test_what_would_be_mathematics_in_a_tweet_is_drawn_as_it_stands(runs, tmp_path):
    first = runs["text"][0]
    gone = make_run(1, (True,) * 4, tmp_path, missing=True)
    for run in (first, gone):  # a picture that is not at hand stops nothing
        draw_cases(tmp_path / "cases.png", find_cases(runs, "text", "both"), run)
        draw_sentence(tmp_path / "sentence.png", find_sentence(first), {"text": run}, "title")
        for name in ("cases", "sentence"):
            assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
            (tmp_path / f"{name}.png").unlink()


def test_rows_are_paired_by_their_seeds(runs):
    assert common_seeds(runs, ("text", "both")) == {1, 4}
    assert common_seeds(runs, ("text", "missing")) == set()
    assert {run.seed for run in same_seed({"a": runs["text"], "b": runs["both"][1:]}).values()} == {4}
    assert [r.seed for r in same_seed({"a": runs["text"][:1], "b": runs["both"][1:]}).values()] == [1, 4]


def test_features_are_compared_among_rows_that_have_the_same():
    def row(md5, views):
        inputs = {"data/features/d": md5, "data/views/d": views, "data/clean/d": "c"}
        return [SimpleNamespace(name=f"{md5}{views}", inputs=inputs)]

    rows = {"a": {"method": "clmlf"}, "b": {"method": "bert"}, "c": {"encoders": "live"}, "d": {}}
    require_comparable({"a": row("1", "v"), "b": row("1", ""), "c": row("2", ""), "d": row("1", "")}, rows)
    with pytest.raises(UserError, match="differ in more than their parameters: data/features/d"):
        require_comparable({"a": row("1", "v"), "b": row("2", "")}, rows)
    with pytest.raises(UserError, match="data/views/d"):
        require_comparable({"d": row("1", ""), "e": row("1", "w")}, {**rows, "e": {"alpha": 1.0}})


def test_each_method_has_its_own_published_figures():
    runs = {
        method: [SimpleNamespace(params={"dataset": "mvsa_single", "method": method}, floors={}, audit={})]
        for method in ("clmlf", "bert", "resnet", "concat")
    }
    table = scores_table(pd.DataFrame({"step2_mean": []}), runs)
    assert table["accuracy"].tolist() == ["0.7533", "0.7111", "0.6467"]
    assert "step 2" not in table


def scored(accuracy, floor, agree=None):
    """A run of which only this is known."""
    test = {"accuracy": accuracy, "f1_weighted": accuracy}
    modalities = {"modalities": {"agree": {"tweets": 7, "accuracy": agree}}} if agree else {}
    return SimpleNamespace(
        params={"dataset": "sample", "method": "cnn"},
        metrics={"test": test},
        floors={"majority": {"test": {"accuracy": floor}}},
        audit=modalities,
    )


def test_rows_of_different_splits_have_floors_of_their_own_and_are_not_compared():
    runs = {"one": [scored(0.6, 0.5), scored(0.7, 0.5)], "two": [scored(0.9, 0.8), scored(0.8, 0.8)]}
    line = {f"{score}_{key}": 0.5 for score in ("accuracy", "f1_weighted") for key in SUMMARY}
    summary = pd.DataFrame([{"row": name, "seeds": 2, **line, "step2_mean": None} for name in runs])
    table = scores_table(summary, runs, paired=False)
    assert table["majority class"].dropna().tolist() == ["0.5000", "0.8000"]
    assert not {"difference", "p"} & set(table)
    assert not table["row"].str.contains("floor").any()
    # Means .65 and .85; within a row the deviation is 0.1 / sqrt(2).
    assert "a standard deviation of 0.1414 (from 0.6500 to 0.8500)" in describe_spread(runs)
    assert describe_spread(runs).endswith("over the seeds of a row it is 0.0707.")


def test_accuracy_by_modality_is_shown_where_the_dataset_says_what_each_is_labeled():
    assert describe_modalities({"one": [scored(0.6, 0.5)]}) == []
    runs = {"one": [scored(0.6, 0.5, agree=0.7), scored(0.6, 0.5, agree=0.8)]}
    sentence, table = describe_modalities(runs)
    assert "7 both labels equal" in sentence
    assert "0.7500 ± 0.0707" in table


SUMMARY = ("mean", "deviation", "low", "high")
