"""Files of posts are scored whole, whatever is in them; a model is exported with all that it needs."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from spp_scl.cli import main
from spp_scl.errors import UserError
from spp_scl.prediction import scoring
from spp_scl.prediction.export import export
from spp_scl.prediction.predictor import Predictor
from spp_scl.prediction.reading import Columns, read_rows
from spp_scl.prediction.scoring import score_file
from tests.test_prediction import as_array, make_bundle, posts_of

FACTS = {
    "split": {"protocol": "stratified", **{part: {"rows": 6} for part in ("train", "valid", "test")}},
    "metrics": {"test": {"accuracy": 0.5, "f1_weighted": 0.4, "f1_macro": 0.3}},
    "uncertainty": {
        **{score: {"low": 0.2, "high": 0.7} for score in ("accuracy", "f1_weighted", "f1_macro")},
        "calibration_error": 0.1,
    },
    "floors": {"majority": {"accuracy": 0.6}},
    "findings": {"coupling": "No prediction depends on its batch."},
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, data):
    """Of a method that reads word pieces alone, which is fast."""
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(folder, data, "cnn")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **FACTS}))
    return folder


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle)


@pytest.fixture
def posts(tmp_path, sample, data):
    """A file of good and bad rows; which rows are good, and their posts."""
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    good = [{"text": post["text"]} for post in posts_of(sample, data)]
    rows = [{"id": f"t{i}", "text": post["text"], "image": ""} for i, post in enumerate(good)]
    rows[1]["image"] = "photo.png"
    bad = {
        "broken.png": "cannot be read",
        "absent.png": "no such picture",
        "../photo.png": "lies outside",
        "/etc/hostname": "lies outside",
    }
    for image in bad:
        rows.insert(2, {"id": image, "text": "a text", "image": image})
    rows.append({"id": "nothing", "text": "", "image": ""})
    return rows, good, {**bad, "nothing": "neither a text nor an image"}


def write(rows, path):
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_json(path, lines=True) if path.suffix == ".jsonl" else pd.read_csv(path)


def columns(folder):
    return Columns("text", "image", folder)


@pytest.mark.parametrize("out", ["scores.csv", "scores.parquet", "scores.jsonl"])
@pytest.mark.parametrize("name", ["posts.csv", "posts.tsv", "posts.parquet", "posts.jsonl"])
def test_every_row_of_a_file_has_its_prediction_or_its_reason(predictor, posts, tmp_path, name, out):
    rows, good, bad = posts
    path = write(rows, tmp_path / name)
    assert score_file(predictor, path, tmp_path / out, columns(tmp_path)) == (len(rows), len(bad))
    table = read(tmp_path / out)
    assert table["row"].tolist() == list(range(1, len(rows) + 1))
    assert table["id"].tolist() == [row["id"] for row in rows]
    failed = table["error"].notna()
    for own, error in zip(table.loc[failed, "id"], table.loc[failed, "error"], strict=True):
        assert bad[own] in error
    expected = predictor(good)
    assert table.loc[~failed, "prediction"].tolist() == [one.label for one in expected]
    found = table.loc[~failed, [f"p_{name}" for name in predictor.classes]].to_numpy()
    np.testing.assert_allclose(found, as_array(expected), atol=1e-5)
    assert table.loc[failed, "prediction"].isna().all()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, out, "photo.png", "broken.png"])


def test_an_interrupted_scoring_goes_on_and_another_model_or_file_begins_anew(
    predictor, posts, tmp_path, monkeypatch
):
    rows, _, bad = posts
    path, out = write(rows, tmp_path / "posts.csv"), tmp_path / "scores.csv"
    monkeypatch.setattr(scoring, "_ROWS", 5)
    score_file(predictor, path, out, columns(tmp_path))
    whole = out.read_bytes()
    out.unlink()
    score, scored = scoring._score, []

    def stop_at_third(*arguments):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(1)
        return score(*arguments)

    monkeypatch.setattr(scoring, "_score", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        score_file(predictor, path, out, columns(tmp_path))
    assert not out.exists()
    counted = []
    monkeypatch.setattr(scoring, "_score", lambda *a: counted.append(1) or score(*a))
    assert score_file(predictor, path, out, columns(tmp_path)) == (len(rows), len(bad))
    assert len(counted) == -(-len(rows) // 5) - 2
    assert out.read_bytes() == whole
    # Parts of other posts are not taken.
    monkeypatch.setattr(scoring, "_score", stop_at_third)
    scored.clear()
    with pytest.raises(KeyboardInterrupt):
        score_file(predictor, path, out, columns(tmp_path))
    write(rows[:-2], path)
    counted.clear()
    monkeypatch.setattr(scoring, "_score", lambda *a: counted.append(1) or score(*a))
    score_file(predictor, path, out, columns(tmp_path))
    assert len(counted) == -(-(len(rows) - 2) // 5)


def errors_of(path):
    return [row.error for row in read_rows(path, columns(path.parent))]


def test_rows_that_are_no_rows_are_reasons(tmp_path):
    csv, lines = tmp_path / "posts.csv", tmp_path / "posts.jsonl"
    csv.write_bytes(
        b'text,image\nfine,\none,two,three\nbad \xff byte,\n"' + b"x" * (2**24 + 9) + b'",\nlast,\n'
    )
    found = errors_of(csv)
    assert found[:3] == ["", "3 values where the header has 2", ""]
    assert "field larger than field limit" in found[3]
    lines.write_bytes(
        b'{"text": "fine"}\n[1]\n{"text": \n\n{"text": 7}\n' + b"[" * 100_000 + b"\n"
        b'{"text": "' + b"x" * 2**25 + b'"}\n{"text": "last"}\n'
    )
    found = errors_of(lines)
    assert found[0] == found[6] == ""
    for error, why in zip(
        found[1:6],
        ["not a JSON object", "not valid JSON", "text and image are strings, or missing; this is int",
         "not valid JSON", "a line longer than 16 MiB"],
        strict=True,
    ):  # fmt: skip
        assert why in error


def test_a_text_that_no_post_has_is_a_reason(tmp_path):
    path = tmp_path / "posts.csv"
    path.write_text(f"text\n{'a' * 100_000}\n{'a' * 100_001}\n")
    assert errors_of(path) == ["", "a text of more than 100,000 characters"]


def test_odd_names_and_ids_stop_nothing(tmp_path):
    path = tmp_path / "posts.jsonl"
    (tmp_path / "loop.png").symlink_to("loop.png")
    lines = [
        '{"id": "\\ud83d", "text": "a"}', '{"text": "a", "image": "\\ud83d.png"}',
        '{"text": "a", "image": "loop.png"}', '{"text": "a", "image": "a\\u0000b"}',
    ]  # fmt: skip
    path.write_text("\n".join(lines))
    first, *rest = read_rows(path, columns(tmp_path))
    assert (first.id, first.error) == ("?", "")
    assert all("lies outside" in row.error for row in rest)


def test_a_tsv_is_split_at_tabs_and_a_column_that_is_asked_for_must_be_there(tmp_path):
    path = tmp_path / "posts.tsv"
    path.write_text("text\nhello, world; all\n")
    assert [row.text for row in read_rows(path, columns(tmp_path))] == ["hello, world; all"]
    with pytest.raises(UserError, match="no column named phto; it has text"):
        list(read_rows(path, Columns("text", "phto", tmp_path, named=["phto"])))
    spaced = tmp_path / "posts.csv"
    spaced.write_text("text, image\na,b.png\n")
    assert [row.image for row in read_rows(spaced, columns(tmp_path))] == [tmp_path / "b.png"]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "mine/link.png").symlink_to(tmp_path / "secret.png")
    path = tmp_path / "mine/posts.csv"
    path.write_text("text,image\na,link.png\n")
    assert "lies outside" in errors_of(path)[0]


def test_files_that_cannot_be_scored_are_refused(predictor, tmp_path):
    here = columns(tmp_path)
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        score_file(predictor, tmp_path / "gone.csv", tmp_path / "out.csv", here)
    (tmp_path / "a.txt").write_text("text\n")
    with pytest.raises(UserError, match=r"a file of posts is one of \.csv"):
        score_file(predictor, tmp_path / "a.txt", tmp_path / "out.csv", here)
    (tmp_path / "a.csv").write_text("txt;img\n1;2\n")
    with pytest.raises(UserError, match="no column named text and none named image; it has txt, img"):
        score_file(predictor, tmp_path / "a.csv", tmp_path / "out.csv", here)
    with pytest.raises(UserError, match=r"--out .*: it is one of \.csv"):
        score_file(predictor, tmp_path / "a.csv", tmp_path / "out.xlsx", here)
    with pytest.raises(UserError, match="the file of the posts itself"):
        score_file(predictor, tmp_path / "a.csv", tmp_path / "a.csv", here)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(UserError, match="damaged, or no Parquet file"):
        score_file(predictor, tmp_path / "a.parquet", tmp_path / "out.csv", here)


def test_an_export_with_its_encoders_is_used_where_nothing_else_is(bundle, predictor, tmp_path, sample, data):
    export(bundle, tmp_path / "exported", with_encoders=True)
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "exported", moved)
    assert sorted(p.name for p in (moved / "encoders").iterdir()) == ["text.json", "text.safetensors"]
    # The source that it came from is not looked at.
    config = json.loads((moved / "config.json").read_text())
    config["encoders"]["text"]["weights"] = "/gone"
    (moved / "config.json").write_text(json.dumps(config))
    posts = posts_of(sample, data)
    np.testing.assert_array_equal(as_array(Predictor.load(moved)(posts)), as_array(predictor(posts)))
    content = bytearray((moved / "encoders/text.safetensors").read_bytes())
    content[-1] ^= 1
    (moved / "encoders/text.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="not the text encoder that the model was trained with"):
        Predictor.load(moved)


def test_an_export_has_a_card_with_the_hub_s_metadata(bundle, tmp_path):
    export(bundle, tmp_path / "exported", with_encoders=False)
    assert {p.name for p in (tmp_path / "exported").iterdir()} == {
        "README.md", "config.json", "model.safetensors",
    }  # fmt: skip
    card = (tmp_path / "exported/README.md").read_text()
    metadata = YAML(typ="safe").load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])
    assert metadata["pipeline_tag"] == "text-classification"
    (result,) = metadata["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "accuracy", "value": 0.5, "name": "accuracy"}
    for part in (
        "0.2000 to 0.7000",
        "No prediction depends on its batch",
        "frozen; not in this folder",
        "generated",
    ):
        assert part in card


def test_the_commands_predict_and_export(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--text", "a happy day"]) == 1
    assert "models/config.json: no such file; train a model" in capsys.readouterr().err
    model = ["--model", str(bundle)]
    assert main(["predict", "--text", "a happy day", *model]) == 0
    label, *lines = capsys.readouterr().out.splitlines()
    assert label in ("positive", "neutral", "negative")
    assert [line.split()[0] for line in lines] == ["positive", "neutral", "negative"]
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photo.png")
    assert (
        main(["predict", "--text", "a <b> $x", "--image", "photo.png", "--explain", "why.png", *model]) == 0
    )
    assert capsys.readouterr().out.endswith("why.png and why.svg\n")
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "posts.csv").write_text("text,image\na happy day,\nb,gone.png\n")
    assert main(["predict", "posts.csv", "--out", "scores.parquet", *model]) == 0
    assert capsys.readouterr().out == "scores.parquet: 2 posts, 1 without a prediction (column `error`)\n"
    assert main(["export", "exported", *model]) == 0
    assert main(["export", "exported", *model]) == 1
    assert "exported: is there already" in capsys.readouterr().err
    for wrong in (
        ["predict", "--text", "a", "--explain", "a.txt"],
        ["predict"],
        ["predict", "a.csv"],
        ["predict", "a.csv", "--text", "b"],
    ):
        with pytest.raises(SystemExit):
            main(wrong)
    for name in ("predict", "export"):
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert "example" in capsys.readouterr().out
