"""The report: whole, small, without a network, and tweets are text in it."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spp_scl.report.html import make_thumbnail, read_scripts, write_report
from tests.browser import open_browser, severe
from tests.pipeline import ROOT

CLASSES = ["positive", "neutral", "negative"]
EVIL = [
    "<script>document.title = 'harmed'</script>",
    "</script><img src=x onerror=\"document.title = 'harmed'\">",
    "{{ 7 * 7 }} & \u2028 'quotes' \"too\" $x$ \\",
    "",
]


def config(tweets):
    scores = {"accuracy": 0.5, "f1_weighted": 0.4, "f1_macro": 0.3}
    names = ("architecture", "weights", "preparation", "precision", "sha256", "software", "hardware")
    info = dict.fromkeys(names, "x" * 20)
    return {
        "title": "SPP-SCL",
        "dataset": "sample",
        "spaces": {"fused": "fused <b>space</b>"},
        "model": {
            "method": "spp_scl", "classes": CLASSES, "seed": 3, "settings": {"alpha": 0.3}, "encoders": {},
        },
        "encoders": {"image": {"info": info}, "text": {"info": info}},
        "split": {"protocol": "grouped", **{part: {"rows": tweets} for part in ("train", "valid", "test")}},
        "metrics": {"test": scores, "valid": scores, "train": {"best_epoch": 2, "epochs": 3}},
        "uncertainty": {name: {"low": 0.1, "high": 0.9} for name in scores},
        "floors": {"majority": {"accuracy": 0.6}},
        "findings": {"coupling": "A finding with <b>markup</b>."},
    }  # fmt: skip


def make_page(folder, tweets=4, config=config, texts=EVIL, epochs=3):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], tweets)
    ids = [f"t{i}" for i in range(tweets)]
    predictions = pd.DataFrame(
        {
            "id": ids,
            "split": "test",
            "text": [texts[i % len(texts)] for i in range(tweets)],
            "label": rng.choice(CLASSES, tweets),
            "prediction": [CLASSES[i] for i in probabilities.argmax(axis=1)],
            **{f"p_{name}": probabilities[:, i] for i, name in enumerate(CLASSES)},
        }
    )
    places = rng.normal(size=(tweets, 2))
    tsne = predictions[["id", "label", "prediction"]].assign(fused_x=places[:, 0], fused_y=places[:, 1])
    log = pd.DataFrame(
        {"epoch": [1, 2, 3], **dict.fromkeys(("valid_accuracy", "valid_f1_weighted", "valid_f1_macro"), 0.5)}
    )
    curves = pd.DataFrame({"epoch": [1, 2], "plot": "losses", "curve": "L_ce", "value": [1.0, np.nan]})
    pictures = {}
    for i, own in enumerate(ids[1:]):
        pictures[own] = folder / f"{i % 40}.jpg"
        if not pictures[own].exists():
            noise = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((320, 240)).save(pictures[own])
    tables = {"predictions": predictions, "tsne": tsne, "epochs": log.head(epochs), "curves": curves}
    return predictions, write_report(config(tweets), tables, pictures, read_scripts(ROOT / ".dvc/plots.html"))


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_tweets_are_text_whatever_is_in_them(tmp_path):
    predictions, page = make_page(tmp_path)
    parsed = Elements(page)
    assert sum(tag == "script" for tag, _ in parsed.found) == 3 + 2  # vega's three, and the page's own
    assert not any("onerror" in attrs for _, attrs in parsed.found)
    assert not any(tag == "b" for tag, _ in parsed.found)
    shown = " ".join(parsed.text)
    for text in filter(None, predictions["text"]):
        assert text.replace("\u2028", "") in shown.replace("\u2028", "")
    tweets = json.loads(re.search(r"const tweets = (\[.*?\]), columns", page)[1])
    assert [tweet["text"] for tweet in tweets] == predictions["text"].tolist()
    assert tweets[0]["image"] is None
    assert tweets[1]["image"].startswith("data:image/jpeg;base64,")


def test_the_page_asks_no_host_for_anything(tmp_path):
    _, page = make_page(tmp_path)
    for tag, attrs in Elements(page).found:
        for name in ("src", "href", "action", "data", "poster"):
            assert attrs.get(name, "data:").startswith("data:"), (tag, attrs)
    assert "default-src 'none'" in page


def test_five_hundred_tweets_take_less_than_five_megabytes(tmp_path):
    text = (
        "a tweet of a hundred and forty characters, as they were when these were collected, with a link " * 2
    )
    _, page = make_page(tmp_path, 500, texts=[text[:140]])
    assert 500 * 2_000 < len(page.encode()) < 5_000_000
    assert page.count("data:image/jpeg") > 499


def test_a_model_that_was_not_trained_here_has_a_report_too(tmp_path):
    def imported(tweets):
        values = config(tweets)
        values["metrics"]["train"] = {}
        values["uncertainty"]["f1_macro"] = {"low": None, "high": None}
        return values

    assert "The model was not trained here" in make_page(tmp_path, config=imported, epochs=0)[1]
    # Taken from a file of this project's: the summary is of that training, and the log is empty.
    assert "The model was not trained here" in make_page(tmp_path, epochs=0)[1]


def test_a_picture_that_cannot_be_read_any_more_is_left_out(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"gone")
    assert make_thumbnail(tmp_path / "a.jpg", 96) == make_thumbnail(tmp_path / "b.jpg", 96) == ""
    Image.new("RGBA", (900, 300)).save(tmp_path / "c.png")
    assert make_thumbnail(tmp_path / "c.png", 96).startswith("data:image/jpeg;base64,")


def test_the_same_run_gives_the_same_bytes(tmp_path):
    assert make_page(tmp_path)[1] == make_page(tmp_path)[1]


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_works_in_a_browser(tmp_path, width, monkeypatch):
    with open_browser(width, monkeypatch) as driver:
        webdriver = pytest.importorskip("selenium.webdriver")
        path = tmp_path / "report.html"
        path.write_text(make_page(tmp_path, 30)[1], encoding="utf-8")
        driver.get(path.as_uri())
        assert driver.title == "SPP-SCL on sample"
        assert severe(driver) == []
        assert len(driver.find_elements("css selector", ".charts svg.marks")) == 3
        rows = driver.find_elements("css selector", "#tweets tbody tr")
        assert len(rows) == 30
        search = driver.find_element("id", "search")
        search.send_keys("onerror")
        assert len(driver.find_elements("css selector", "#tweets tbody tr")) == 8  # of 30, every fourth
        search.clear()
        search.send_keys(" ")
        driver.find_element("css selector", "#tweets th[data-key=sure] button").click()
        cells = driver.find_elements("css selector", "#tweets td.number")
        sure = [float(cell.text) for cell in cells]
        assert sure == sorted(sure)
        driver.find_element("id", "mistakes").click()
        left = driver.find_elements("css selector", "#tweets tbody tr")
        assert 0 < len(left) < 30
        assert all(row.find_elements("css selector", "td.wrong") for row in left)
        # Pointing at a dot shows its tweet, as text.
        dot = driver.find_element("css selector", "#tsne-0 .mark-symbol path")
        webdriver.ActionChains(driver).move_to_element(dot).perform()
        tip = driver.find_element("id", "vg-tooltip-element")
        assert "visible" in tip.get_attribute("class")
        assert "prediction" in tip.text
        for dot in driver.find_elements("css selector", "#tsne-0 .mark-symbol path"):
            webdriver.ActionChains(driver, duration=0).move_to_element(dot).perform()
        assert severe(driver) == []
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= driver.execute_script("return window.innerWidth") + 1
        assert driver.title == "SPP-SCL on sample"
