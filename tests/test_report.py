"""What people look at: predictions, embeddings and pictures."""

import matplotlib
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spp_scl.evaluation.evaluate import evaluate
from spp_scl.report.confusion import draw_confusion
from spp_scl.report.style import SCORE_NAMES, as_math, class_styles, save_figure
from spp_scl.report.tsne import draw_tsne, project, scatter
from tests.recipes import make_artifact, make_network, sizes_of

SPACES = {"fused": "before the classifier", "text": "T_p", "image": "I_p"}


@pytest.fixture(scope="module")
def evaluation(data):
    model = make_network(sizes_of(data)).eval()
    summary = {
        "best_epoch": 1,
        "epochs": 1,
        "step2_share": 0.5,
        "step2_share_float32": 1.0,
        "count_over_p": 1.0,
        "alpha_mattered": True,
    }
    return evaluate(model, make_artifact(data, model, training=summary), data)


def embeddings(n, seed=0):
    rng = np.random.default_rng(seed)
    vectors = {
        name: list(rng.normal(size=(n, k))) for name, k in (("fused", 64), ("text", 32), ("image", 32))
    }
    labels = pd.Categorical(["yes", "no"] * (n // 2), categories=["yes", "no"])
    return pd.DataFrame({"id": map(str, range(n)), "label": labels, "prediction": "yes", **vectors})


def test_predictions_hold_every_validation_and_test_row_with_its_own_text_and_label(evaluation, data):
    rows = np.concatenate([data.rows["valid"], data.rows["test"]])
    known = data.table.iloc[rows].reset_index(drop=True)
    found = evaluation.predictions
    assert list(found) == ["id", "split", "text", "label", "prediction", *(f"p_{c}" for c in data.classes)]
    for name in ("id", "text"):
        assert found[name].tolist() == known[name].tolist()
    assert found["label"].tolist() == known["label"].astype(str).tolist()
    probabilities = found[[f"p_{c}" for c in data.classes]].to_numpy()
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert found["prediction"].tolist() == [data.classes[i] for i in probabilities.argmax(axis=1)]


def test_metrics_agree_with_the_predictions_file(evaluation):
    assert list(evaluation.metrics) == ["valid", "test", "train"]
    for split, rows in evaluation.predictions.groupby("split"):
        expected = (rows["label"] == rows["prediction"]).mean()
        assert evaluation.metrics[split]["accuracy"] == pytest.approx(expected)
        support = evaluation.per_class[evaluation.per_class["split"] == split].set_index("class")["support"]
        assert support.to_dict() == rows["label"].value_counts().reindex(support.index).to_dict()


def test_embeddings_are_the_three_spaces_of_each_row(evaluation):
    assert evaluation.embeddings["id"].tolist() == evaluation.predictions["id"].tolist()
    for name, width in (("fused", 64), ("text", 32), ("image", 32)):
        assert {len(vector) for vector in evaluation.embeddings[name]} == {width}


def test_tsne_repeats_to_the_bit():
    first, again = (project(embeddings(40), list(SPACES), 10.0, seed=1) for _ in range(2))
    assert first.equals(again)
    axes = [f"{space}_{axis}" for space in ("fused", "text", "image") for axis in "xy"]
    assert list(first) == ["id", "label", "prediction", *axes]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_tsne_takes_few_points_and_equal_points(n):
    few = embeddings(4)[:n]
    few["image"] = [few["image"][0]] * n  # blank pictures
    coordinates = project(few, list(SPACES), 30.0, 1)
    assert np.isfinite(coordinates.filter(regex="_[xy]$").to_numpy()).all()
    assert len(coordinates) == n


def test_pictures_are_equal_files_when_drawn_again(tmp_path):
    coordinates = project(embeddings(20), list(SPACES), 5.0, 1)
    for name in ("a", "b"):
        draw_tsne(tmp_path / f"{name}.png", coordinates, SPACES, ["yes", "no"], "title")
        draw_confusion(tmp_path / f"{name}c.png", coordinates, ["yes", "no"], "title")
    for kind in (".png", "c.png", ".svg", "c.svg"):
        assert (tmp_path / f"a{kind}").read_bytes() == (tmp_path / f"b{kind}").read_bytes()
    for kind in ("", "c"):
        with Image.open(tmp_path / f"a{kind}.png") as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50  # something is drawn on it


def test_a_class_keeps_its_color_in_a_picture_where_the_first_class_does_not_occur():
    coordinates = project(embeddings(20), list(SPACES), 5.0, 1)
    coordinates = coordinates[coordinates["label"] == "no"]
    figure, ax = plt.subplots()
    scatter(ax, coordinates, "fused", ["yes", "no"])
    drawn = {
        dots.get_label(): dots.get_facecolor()[:, :3] for dots in ax.collections if len(dots.get_offsets())
    }
    plt.close(figure)
    assert list(drawn) == ["no (10)"]
    color, _ = class_styles(["yes", "no"])["no"]
    np.testing.assert_allclose(drawn["no (10)"][0], matplotlib.colors.to_rgb(color))


def test_a_class_has_one_style_by_its_place_and_no_other_class_has_it():
    styles = class_styles(["positive", "neutral", "negative"])
    assert list(styles) == ["positive", "neutral", "negative"]
    assert styles["positive"] == ("#0072B2", "o")  # Okabe and Ito's blue
    many = class_styles([str(i) for i in range(20)])
    assert len(set(many.values())) == 20


def test_symbols_of_the_method_become_mathematics_and_nothing_else_does():
    assert as_math("without L_clm") == "without $L_{clm}$"
    assert as_math("L_cli, L_clt and L_ce of T_p and I_p") == (
        "$L_{cli}$, $L_{clt}$ and $L_{ce}$ of $T_{p}$ and $I_{p}$"
    )
    assert as_math("f1_macro, step2_share, TL_ce") == "f1_macro, step2_share, TL_ce"


def test_scores_have_names_for_people(evaluation):
    numbers = {name for name, value in evaluation.metrics["test"].items() if isinstance(value, float)}
    # The positive class has a score of its own where there are two classes.
    assert numbers | {"f1_positive"} == set(SCORE_NAMES)


def test_a_figure_is_saved_as_png_and_svg_without_date_or_version_and_closed(tmp_path):
    for name in ("a", "b"):
        figure, axes = plt.subplots()
        axes.scatter([1, 2], [2, 1], label=as_math("L_clm"))
        axes.legend()
        save_figure(figure, tmp_path / f"{name}.png")
    assert not plt.get_fignums()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    drawing = (tmp_path / "a.svg").read_text()
    assert matplotlib.__version__ not in drawing
    assert "<dc:date>" not in drawing
