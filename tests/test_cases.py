"""Tweets that one method gets wrong and another right, and one sentence with different pictures."""

from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from studies.cases import draw_cases, draw_sentence, find_cases, find_sentence

LABELS = ["good", "bad", "bad", "good"]
SAME = "the same $\\nope{$ <b>"
TEXTS = [SAME, f"{SAME} https://t.co/x", "other", f"RT @a: {SAME.upper()}"]


def make_run(seed, hits, folder):
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
    return SimpleNamespace(
        seed=seed,
        params={"dataset": "d"},
        test_predictions=predictions,
        read_csv=lambda _: predictions[predictions["id"] != "w"],
        read_parquet=lambda path: clean if "clean" in path else split,
        open=lambda path: (folder / path.rpartition("/")[2]).open("rb"),
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


def test_one_sentence_is_found_under_links_and_retweets(runs, tmp_path):
    found = find_sentence(runs["text"][0])
    assert found["id"].tolist() == ["x", "z", "w"]
    assert found["side"].tolist() == ["test", "valid", "train"]


def test_equal_pictures_are_no_sentence_with_different_ones(runs):
    run = runs["text"][0]
    clean = run.read_parquet("clean")
    clean["picture"] = "0"
    assert find_sentence(run).empty


def test_what_would_be_mathematics_in_a_tweet_is_drawn_as_it_stands(runs, tmp_path):
    first = runs["text"][0]
    draw_cases(tmp_path / "cases.png", find_cases(runs, "text", "both"), first)
    draw_sentence(tmp_path / "sentence.png", find_sentence(first), {"text": first}, "title")
    for name in ("cases", "sentence"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()
