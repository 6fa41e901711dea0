"""CLMLF against the released code's arithmetic in plain modules, and its second views."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from spp_scl.batches.data import load_data
from spp_scl.checks.translations import describe_translations, find_translations
from spp_scl.clean.table import read_parquet
from spp_scl.encoders.augment import Augment
from spp_scl.errors import UserError
from spp_scl.methods.shared.losses import label_contrast, view_contrast
from spp_scl.methods.shared.method import Step
from spp_scl.params import load_params
from spp_scl.raw.datasets import DATASETS
from spp_scl.raw.translations import read_translations, repair_shift
from spp_scl.recipe import choose_recipe, choose_views
from spp_scl.training.recipe import make_method
from spp_scl.training.updates import Updates
from tests.pipeline import ROOT
from tests.recipes import FINETUNED
from tests.test_losses import BATCHES, dot
from tests.test_methods import recipe

SHARED = ROOT.parent / "shared/data"
RELEASED = {
    "tokens": "view",
    "global_token": True,
    "text_layer": True,
    "contrast_heads": True,
    "temperature_inside": False,
    "lbcl_mean": "pairs",
    "divide_by_batch": True,
    "outputs": "three",
}


class Layer(nn.Module):
    """A layer of BERT, written out."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-12) for _ in range(2))

    def forward(self, x, mask):
        rows, tokens, width = x.shape
        shape = (rows, tokens, self.heads, width // self.heads)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value))
        scores = q @ k.transpose(2, 3) / math.sqrt(width // self.heads)
        scores = scores + (1 - mask[:, None, None].float()) * -10000
        attended = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(x.shape)
        x = self.norm1(x + self.out(attended))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))

    def copy(self, layer):
        parts = layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3)
        for own, weight, bias in zip((self.query, self.key, self.value), *parts, strict=True):
            own.weight.data, own.bias.data = weight.clone(), bias.clone()
        for name, other in (
            ("out", layer.self_attn.out_proj),
            ("up", layer.linear1),
            ("down", layer.linear2),
            ("norm1", layer.norm1),
            ("norm2", layer.norm2),
        ):
            getattr(self, name).load_state_dict(other.state_dict())
        return self


@torch.inference_mode()
def test_as_released_the_logits_are_those_of_the_released_arithmetic(data):
    model = make_method(recipe("clmlf", **RELEASED), data, seed=1).eval()
    rows = data.rows["train"][:6]
    batch = data.source.batch(rows)
    found = model(batch).logits
    gelu, mapped = nn.functional.gelu, iter(batch.image())
    for i in range(len(rows)):
        words = batch.text().words[batch.packing.text == i, -1]
        text = gelu(model.text_in[0](torch.cat([batch.text().cls[i : i + 1, -1], words])))
        tokens, mask = text[None], torch.ones(1, len(text))
        if batch.has_image[i]:
            features = next(mapped).T.reshape(1, -1, 7, 7)  # (1, C, 7, 7), as a ResNet gives it
            regions = gelu(model.image_in[0](features.contiguous().view(1, 49, -1)))
            whole = gelu(model.global_in[0](nn.functional.adaptive_avg_pool2d(features, 1).flatten(1)))
            image = torch.cat([whole[:, None], regions], dim=1)
            for layer in model.image_layers:
                image = Layer(32, 4).copy(layer)(image, torch.ones(1, 50))
            tokens, mask = torch.cat([tokens, image], dim=1), torch.ones(1, len(text) + 50)
        for layer in model.fusion_layers:
            tokens = Layer(32, 4).copy(layer)(tokens, mask)
        first, _, second = model.score
        weights = second(gelu(first(tokens))).softmax(dim=1)
        fused = (weights * tokens).sum(dim=1)
        _, first, _, second = model.classifier
        wanted = second(gelu(first(fused)))[0]
        torch.testing.assert_close(found[i], wanted[: len(data.classes)], rtol=1e-5, atol=1e-5)


def plain_label_contrast(z, labels, temperature, inside, pairs):
    """Term by term: Algorithm 1, or what the released code makes of it."""
    scale = temperature if inside else 1.0
    terms = []
    for i, anchor in enumerate(z):
        total = sum(math.exp(dot(anchor, other) / scale) for other in z)
        own = [
            -math.log(math.exp(dot(anchor, other) / scale) / total)
            for j, other in enumerate(z)
            if labels[j] == labels[i]
        ]
        terms.append(own)
    if pairs:
        flat = [term for own in terms for term in own]
        loss = sum(flat) / len(flat)
    else:
        loss = sum(sum(own) / len(own) for own in terms) / len(terms)
    return loss if inside else loss / temperature


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
def test_the_label_contrast_is_both_formulations_term_by_term(labels, inside, pairs):
    z = torch.randn(len(labels), 8, dtype=torch.float64)
    wanted = plain_label_contrast(z.tolist(), labels, 0.5, inside, pairs)
    found = label_contrast(z, torch.tensor(labels), 0.5, inside=inside, pairs=pairs)
    assert found.item() == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("number", [1, 2, 7])
def test_the_view_contrast_finds_the_own_second_view(number):
    first, second = (torch.randn(number, 8, dtype=torch.float64) for _ in range(2))
    wanted = 0.0
    for i, anchor in enumerate(first.tolist()):
        terms = [math.exp(dot(anchor, other) / 0.5) for other in second.tolist()]
        wanted -= math.log(terms[i] / sum(terms)) / number
    assert view_contrast(first, second, 0.5).item() == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_a_second_view_is_of_its_own_row(data, sample):
    """The fixture's translations add a word to a tweet; every fifth training row has none."""
    rows = data.rows["train"][torch.randperm(len(data.rows["train"]))[:20]]
    batch = data.source.batch(rows)
    order = {row: i for i, row in enumerate(sorted(data.rows["train"].tolist()))}
    translated = [order[row] % 5 != 0 for row in rows[batch.order].tolist()]
    view = batch.view("translated")
    assert view.rows.tolist() == [i for i, having in enumerate(translated) if having]
    assert torch.equal(view.batch.labels[view.place], batch.labels[view.rows])
    lengths, own = view.batch.packing.lengths[view.place], batch.packing.lengths[view.rows]
    assert (lengths - own).unique().tolist() == [3]  # `too`, in pieces
    drawn = batch.view("drawn")
    assert drawn.rows.tolist() == list(range(20))
    assert torch.equal(drawn.batch.packing.lengths[drawn.place], batch.packing.lengths)
    assert torch.equal(drawn.batch.has_image[drawn.place], batch.has_image)


def test_draws_differ_from_each_other_and_from_the_picture(data):
    row = next(row for row in data.rows["train"] if data.source.batch(row[None]).has_image.all())
    batch = data.source.batch(row[None])
    maps = {batch.view("drawn").batch.image().numpy().tobytes() for _ in range(40)}
    assert len(maps) == 2
    assert batch.image().numpy().tobytes() not in maps


def test_a_draw_is_decided_by_its_name_alone():
    picture = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    augment = Augment()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augment.draw(picture, "1 0 abc")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augment.draw(picture, "1 0 abc"), first)
    assert len({augment.draw(picture, f"1 {k} abc").numpy().tobytes() for k in range(8)}) > 4


def test_rows_without_a_second_view_are_left_out_of_the_contrast(data):
    model = make_method(recipe("clmlf"), data, seed=1)
    first = min(data.rows["train"].tolist())  # which has none
    (step,) = model.steps(data.source.batch(torch.tensor([first])))
    assert set(step.log) == {"L_sc", "L_lbcl"}
    (step,) = model.steps(data.source.batch(data.rows["train"][:8]))
    assert set(step.log) == {"L_sc", "L_lbcl", "L_dbcl"}
    assert step.loss.item() == pytest.approx(sum(step.log.values()).item(), rel=1e-6)


def test_views_of_other_rows_are_refused(sample, data, tmp_path):
    files = sample.clean, sample.split, sample.images, sample.texts
    without = load_data(*files)
    assert without.source.views == {}
    assert without.digest != data.digest
    split = read_parquet(sample.split, "split")
    moved = split.assign(split=split["split"].replace({"train": "test", "test": "train"}))
    moved.to_parquet(tmp_path / "split.parquet", index=False)
    with pytest.raises(UserError, match="second views of other tweets than train's"):
        load_data(sample.clean, tmp_path / "split.parquet", *files[2:], sample.views)


def test_layers_and_batch_are_those_published_for_the_dataset_unless_set():
    params = load_params(ROOT / "params.yaml").model_copy(update={"method": "clmlf"})
    for dataset, wanted in {
        "mvsa_single": (3, 2, 32),
        "mvsa_multiple": (4, 2, 64),
        "hfm": (5, 1, 128),
        "own": (3, 2, 32),
    }.items():
        of = params.model_copy(update={"dataset": dataset})
        settings = choose_recipe(of)["settings"]
        assert (settings["fusion_layers"], settings["image_layers"], settings["batch_size"]) == wanted
        section = {**params.methods["clmlf"], "fusion_layers": 1}
        own = choose_recipe(of.model_copy(update={"methods": {"clmlf": section}}))["settings"]
        assert (own["fusion_layers"], own["image_layers"]) == (1, wanted[1])


def test_second_views_depend_on_what_they_are_made_of_alone():
    params = load_params(ROOT / "params.yaml")
    assert choose_views(params) == {}  # SPP-SCL reads none
    params = params.model_copy(update={"method": "clmlf"})
    views, section = choose_views(params), params.methods["clmlf"]
    assert views["draws"] == 4

    def of(**changes):
        return choose_views(params.model_copy(update={"methods": {"clmlf": {**section, **changes}}}))

    assert of(epochs=3, width=96) == views
    assert of(views={**section["views"], "draws": 2}) != views
    with pytest.raises(UserError, match=r"clmlf\.views\.draw: unknown key; did you mean clmlf\.views\.draws"):
        of(views={**section["views"], "draw": 2})


def test_translations_are_read_from_json_and_from_a_table(tmp_path):
    entries = [{"id": "1", "text_translation": "a, b"}, {"id": "2", "text_translation": ""}]
    (tmp_path / "t.json").write_text(json.dumps(entries))
    (tmp_path / "t.csv").write_text('text_translation,id\n"a, b",1\n,2\n')
    wanted = [("1", "a, b"), ("2", "")]
    assert read_translations(tmp_path / "t.json") == read_translations(tmp_path / "t.csv") == wanted
    for content, message in (
        ([{"id": "1"}], "entry 1: expected the texts"),
        ([*entries, entries[0]], "entry 3: id '1' stands in it twice"),
        ({}, "expected a list"),
        (["x"], "expected a list"),
    ):
        (tmp_path / "t.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            read_translations(tmp_path / "t.json")
    (tmp_path / "t.csv").write_text("id;text_translation\n1;a\n")
    with pytest.raises(UserError, match="entry 1: expected the texts"):
        read_translations(tmp_path / "t.csv")
    with pytest.raises(UserError, match="no such file"):
        read_translations(tmp_path / "none.json")


def test_a_shift_by_line_breaks_is_taken_back():
    texts = {"a": "one", "b": "two\nlines", "c": "three", "d": "four", "e": "five"}
    slipped = [("a", "A"), ("b", "B1"), ("c", "B2"), ("d", "C"), ("e", "E")]
    streams = dict.fromkeys("abcd", "0") | {"e": "1"}
    repaired = repair_shift(slipped, texts, streams)
    assert repaired == [("a", "A"), ("b", "B1 B2"), ("c", "C"), ("e", "E")]


@pytest.mark.skipif(not (SHARED / "hfm").is_dir(), reason="HFM's files are not at hand")
def test_hfms_published_translations_come_back_to_their_tweets():
    path = SHARED / "hfm/translations.json"
    raw = SHARED / "hfm"
    rows = {row.id: row for row in DATASETS["hfm"].read(raw)}
    entries = read_translations(path)
    ids = {split: [i for i, _ in entries if rows[i].split in split] for split in ("train", "valid test")}
    assert [len(found) for found in ids.values()] == [19816, 4819]
    import pandas as pd

    table = pd.DataFrame({"id": [*ids["train"], *ids["valid test"]]})
    table["text"] = [rows[i].text for i in table["id"]]
    views = {"translations": "auto", "repair": True}
    found = find_translations(table, "hfm", raw, raw, views)
    train, others = found[:19816], found[19816:]
    # One of train's and none of the others' is blank once cleaned.
    assert sum(t is not None for t in train) in (19740, 19741)
    assert sum(t is not None for t in others) in (4813, 4814)
    report = describe_translations(table["text"].tolist(), found)
    assert report["overlap"] > 0.5
    assert report["overlap_next"] < 0.1
    kept = find_translations(table, "hfm", raw, raw, {**views, "repair": False})
    assert describe_translations(table["text"].tolist(), kept)["overlap"] < 0.1


@pytest.mark.skipif(not (SHARED / "mvsa_single").is_dir(), reason="MVSA-Single's files are not at hand")
def test_every_tweet_of_mvsa_single_has_a_published_translation():
    entries = dict(read_translations(SHARED / "mvsa_single/translations.json"))
    ids = [row["id"] for row in json.loads(Path(SHARED, "mvsa_single/splits/train.json").read_text())]
    assert len(entries) == 4869
    assert entries.keys() >= set(ids)


def test_encoders_whose_rate_is_0_at_first_stay_until_their_epoch(data):
    chosen = recipe("clmlf")
    finetuned = FINETUNED.model_copy(update={"frozen_epochs": 2})
    model = make_method(chosen, data, seed=1)
    model.encoders = nn.ModuleDict({"text": nn.Linear(2, 2), "image": nn.Linear(2, 2)})
    model.prepare_encoders()
    assert not any(p.requires_grad for p in model.encoders["image"].parameters())
    updates = Updates(model, replace(chosen, finetuned=finetuned), batches=3)
    rates = []
    for _ in range(9):
        rates.append([group["lr"] for group in updates.optimizer.param_groups])
        updates.apply(Step(sum(p.sum() for p in model.parameters() if p.requires_grad)), last=False)
        updates.end_batch()
    own = chosen.settings.learning_rate
    assert rates == [[own, 0, 0]] * 6 + [[own, 0.1, 0.1]] * 3


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_the_image_encoders_batch_statistics_are_used_only_where_asked_for(data, batch_norm):
    model = make_method(recipe("clmlf", batch_norm=batch_norm), data, seed=1)
    model.encoders = nn.ModuleDict({"text": nn.Dropout(), "image": nn.BatchNorm1d(2)})
    model.train()
    assert model.encoders["text"].training
    assert model.encoders["image"].training == (batch_norm == "train")
    model.eval()
    assert not model.encoders["image"].training
