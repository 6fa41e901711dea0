"""Encoders of every family against their own libraries' full pipelines, and what is refused."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before transformers and timm)

# isort: split
import timm
import transformers as tr
from timm.data import create_transform, resolve_data_config

from spp_scl.encoders.image import load_image_encoder, rebuild_image_encoder
from spp_scl.encoders.pictures import encode_images
from spp_scl.encoders.text import load_text_encoder, rebuild_text_encoder
from spp_scl.encoders.texts import encode_texts
from spp_scl.encoders.weights import require_encoders
from spp_scl.errors import UserError
from spp_scl.features.device import has_bf16
from spp_scl.features.store import read_images, read_texts
from tests import small_encoders
from tests.conftest import ENCODING
from tests.pipeline import ROOT

FP32: dict[str, Any] = {**ENCODING, "precision": "fp32"}
TEXTS = ["a good day", "bad", "sad night rain sun happy city a good day bad", "", "day a"]
LITE0 = ROOT.parent / "shared" / "models" / "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a small encoder, saved once."""
    made: dict[tuple[int, str], Path] = {}

    def save(builders, name):
        if (id(builders), name) not in made:
            made[id(builders), name] = builders[name](tmp_path_factory.mktemp(name))
        return made[id(builders), name]

    return save


def table_of(sample, texts):
    table = sample.table.iloc[: len(texts)].copy()
    table["text"] = texts
    return table


def text_pipeline(folder, text):
    """The library's own: token ids, and the last four layers (T, 4, D)."""
    ids = tr.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    model: Any = tr.AutoModel.from_pretrained(folder).eval()
    model = getattr(model, "text_model", model)
    with torch.no_grad():
        output = model(**{k: ids[k] for k in ("input_ids", "attention_mask")}, output_hidden_states=True)
    states = [*output.hidden_states[-4:-1], output.last_hidden_state]
    return ids["input_ids"][0], torch.stack([layer[0] for layer in states], dim=1)


@pytest.mark.parametrize("name", small_encoders.TEXT)
def test_text_features_are_those_of_the_librarys_own_pipeline(name, saved, sample, tmp_path):
    folder = saved(small_encoders.TEXT, name)
    encode_texts(
        table_of(sample, TEXTS), tmp_path / "x.h5", max_positions=60, **{**FP32, "weights": str(folder)}
    )
    features = read_texts(tmp_path / "x.h5")
    for i, text in enumerate(TEXTS):
        words = slice(features.offsets[i], features.offsets[i + 1])
        if not text:
            assert len(features.words[words]) == 0
            assert not features.cls[i].any()
            continue
        ids, states = text_pipeline(folder, text)
        assert features.pieces[words].tolist() == ids[1:-1].tolist()
        torch.testing.assert_close(features.words[words].float(), states[1:-1], rtol=1e-2, atol=1e-2)
        summary = states[-1] if name == "clip" else states[0]
        torch.testing.assert_close(features.cls[i].float(), summary, rtol=1e-2, atol=1e-2)
    model: Any = tr.AutoModel.from_pretrained(folder)
    table = model.get_input_embeddings() if name != "clip" else model.text_model.get_input_embeddings()
    assert torch.equal(features.vocabulary, table.weight.half())


@pytest.mark.parametrize("name", small_encoders.TEXT)
def test_padding_and_batch_mates_change_no_text(name, saved, sample, tmp_path):
    folder = saved(small_encoders.TEXT, name)
    options = {**FP32, "weights": str(folder), "max_positions": 60}
    encode_texts(table_of(sample, TEXTS), tmp_path / "all.h5", **options)
    together = read_texts(tmp_path / "all.h5")
    encode_texts(table_of(sample, TEXTS[:1]), tmp_path / "one.h5", **{**options, "batch_size": 1})
    alone = read_texts(tmp_path / "one.h5")
    torch.testing.assert_close(together.words[:3], alone.words, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(together.cls[:1], alone.cls, rtol=2e-3, atol=2e-3)
    encoder = load_text_encoder(str(folder), 0, [], 60)
    (ids,) = encoder.tokenize([TEXTS[0]])
    padded = torch.full((1, 20), encoder.pad_id)
    padded[0, : len(ids)] = torch.tensor(ids)
    mask = (torch.arange(20) < len(ids)).long()[None]
    with torch.no_grad():
        bare = encoder(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
        torch.testing.assert_close(encoder(padded, mask)[:, : len(ids)], bare, rtol=1e-4, atol=1e-4)
    place = len(ids) - 1 if name == "clip" else 0
    assert encoder.summary(mask).tolist() == [place]


@pytest.mark.parametrize(
    ("name", "limit"), [("bert", 512), ("roberta", 64), ("mpnet", 64), ("bertweet", 128), ("clip", 77)]
)
def test_the_encoders_own_limit_counts_where_it_is_lower(name, limit, saved, sample, tmp_path, caplog):
    """RoBERTa's first two positions are padding's."""
    caplog.set_level("INFO")
    options = {**FP32, "weights": str(saved(small_encoders.TEXT, name)), "max_positions": 600}
    encode_texts(table_of(sample, ["good " * 700, "a day"]), tmp_path / "x.h5", **options)
    assert read_texts(tmp_path / "x.h5").offsets.tolist() == [0, limit - 2, limit]
    assert f"600 are asked for, and {options['weights']} has {limit}" in caplog.text


def test_padding_in_front_is_a_tokenizers_choice(sample, tmp_path):
    folder = small_encoders.TEXT["roberta"](tmp_path / "x")
    small_encoders.save_tokenizer(folder, small_encoders._ROBERTA, "<s> $A </s>", side="left")
    options = {**FP32, "weights": str(folder), "max_positions": 12}
    encode_texts(table_of(sample, TEXTS), tmp_path / "left.h5", **options)
    features = read_texts(tmp_path / "left.h5")
    for i in (0, 1, 4):
        ids, states = text_pipeline(folder, TEXTS[i])
        words = slice(features.offsets[i], features.offsets[i + 1])
        assert features.pieces[words].tolist() == ids[1:-1].tolist()
        torch.testing.assert_close(features.words[words].float(), states[1:-1], rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(features.cls[i].float(), states[0], rtol=1e-2, atol=1e-2)
    encode_texts(table_of(sample, TEXTS), tmp_path / "kept.h5", padding="kept", **options)
    kept = read_texts(tmp_path / "kept.h5")
    assert kept.offsets.diff().tolist() == [10, 10, 10, 0, 10]
    assert kept.pieces[:6].tolist() == [1] * 6  # padding, then the first text but its last token


def full(builders, name):
    return [(builders, n) for n in name]


IMAGE = [
    *full(small_encoders.HF_IMAGE, small_encoders.HF_IMAGE),
    *full(small_encoders.TIMM, small_encoders.TIMM),
]
IMAGE_IDS = [f"{'hf' if builders is small_encoders.HF_IMAGE else 'timm'}-{name}" for builders, name in IMAGE]


def image_pipeline(folder, picture, is_timm):
    """The library's own: (P, C)."""
    if is_timm:
        net: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        x = create_transform(**resolve_data_config(pretrained_cfg=net.pretrained_cfg))(picture)[None]
        with torch.no_grad():
            features = net.forward_features(x)[0]
        prefix = getattr(net, "num_prefix_tokens", 0)
    else:
        model: Any = tr.AutoModel.from_pretrained(folder).eval()
        model = getattr(model, "vision_model", model)
        with torch.no_grad():
            inputs = tr.AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
            features = model(**inputs).last_hidden_state[0]
        kind = model.config.model_type
        prefix = {"vit": 1, "clip_vision_model": 1, "dinov2": 1, "dinov2_with_registers": 5}.get(kind, 0)
    if features.dim() == 3 and is_timm and getattr(net, "output_fmt", "") == "NHWC":
        return features.flatten(0, 1)
    return features.flatten(1).T if features.dim() == 3 else features[prefix:]


@pytest.mark.parametrize(("builders", "name"), IMAGE, ids=IMAGE_IDS)
def test_image_features_are_those_of_the_librarys_own_pipeline(builders, name, saved, sample, tmp_path):
    folder = saved(builders, name)
    options = {**FP32, "weights": str(folder)}
    encode_images(sample.table.head(10), sample.raw, tmp_path / "x.h5", **options)
    features = read_images(tmp_path / "x.h5")
    for i in (0, 9):
        picture = Image.open(sample.raw / sample.table["image"][i]).convert("RGB")
        expected = image_pipeline(folder, picture, builders is small_encoders.TIMM)
        found = features.maps[features.index[i]].float()
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    # A batch mate changes nothing.
    encode_images(sample.table.head(1), sample.raw, tmp_path / "one.h5", **options)
    one = read_images(tmp_path / "one.h5").maps[0]
    assert torch.equal(one, features.maps[features.index[0]])


@pytest.mark.parametrize(("builders", "name"), IMAGE, ids=IMAGE_IDS)
def test_an_image_encoder_is_rebuilt_from_its_description_and_its_weights(builders, name, saved, sample):
    encoder = load_image_encoder(str(saved(builders, name)), 0)
    again = rebuild_image_encoder(json.loads(json.dumps(encoder.describe())))
    again.load_state_dict(encoder.state_dict())
    picture = Image.open(sample.raw / sample.table["image"][0]).convert("RGB")
    pixels = encoder.prepare(picture)[None]
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (1, 3, *encoder.side)
    assert torch.equal(again.prepare(picture)[None], pixels)
    with torch.no_grad():
        found = encoder(pixels)
        assert torch.equal(again(pixels), found)
    assert found.shape == (1, encoder.positions, encoder.channels)
    assert (again.positions, again.channels, again.side) == (
        encoder.positions,
        encoder.channels,
        encoder.side,
    )
    assert list(encoder.state_dict()) == [f"net.{key}" for key in encoder.net.state_dict()]
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize(("builders", "name"), IMAGE, ids=IMAGE_IDS)
def test_an_image_encoder_can_be_trained(builders, name, saved):
    encoder = load_image_encoder(str(saved(builders, name)), 0).train().requires_grad_(True)
    pixels = torch.randint(0, 256, (2, 3, *encoder.side), dtype=torch.uint8)
    encoder(pixels).square().sum().backward()
    # Some networks have weights that only their classifier's side reads.
    given = [p.grad is not None for p in encoder.parameters()]
    assert sum(given) > 0.9 * len(given)
    assert any(bool(p.grad.any()) for p in list(encoder.parameters())[:3] if p.grad is not None)


@pytest.mark.parametrize("name", small_encoders.TEXT)
def test_a_text_encoder_is_rebuilt_from_its_description_and_its_weights_and_trained(name, saved):
    encoder = load_text_encoder(str(saved(small_encoders.TEXT, name)), 0, [], 60)
    again = rebuild_text_encoder(json.loads(json.dumps(encoder.describe())))
    again.load_state_dict(encoder.state_dict())
    ids = torch.tensor(encoder.tokenize(["a good day"]))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        assert torch.equal(again(ids, mask), encoder(ids, mask))
    assert torch.equal(again.summary(mask), encoder.summary(mask))
    for attribute in ("width", "layers", "prefix", "suffix", "max_positions", "pad_id", "padding_side"):
        assert getattr(again, attribute) == getattr(encoder, attribute)
    again.requires_grad_(True)(ids, mask).square().sum().backward()
    assert not [n for n, p in again.named_parameters() if p.grad is None and "pooler" in n]
    assert sum(p.grad is not None for p in again.parameters()) > 0.9 * len(list(again.parameters()))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_a_frozen_image_encoder_differs_in_rounding_only(name, precision, saved):
    if precision == "bf16" and torch.cpu._is_amx_tile_supported() and not has_bf16():
        pytest.skip("torch's attention fails in bfloat16 on AMX where it is kept below AVX-512")
    encoder = load_image_encoder(str(saved(small_encoders.TIMM, name)), 0)
    pixels = torch.randint(0, 256, (2, 3, *encoder.side), dtype=torch.uint8)
    with torch.inference_mode():
        before = encoder(pixels)
        encoder.optimize(torch.device("cpu"), precision)
        after = encoder(pixels).float()
    scale = before.abs().max().item()
    torch.testing.assert_close(after, before, rtol=0.1, atol=(0.05 if precision == "bf16" else 1e-5) * scale)


def test_resnet101_is_a_state_dict_like_any_other(sample, tmp_path):
    from torchvision.models import resnet101

    torch.manual_seed(3)
    net = resnet101(weights=None)
    safetensors.torch.save_file(net.state_dict(), tmp_path / "r.safetensors")
    encoder = load_image_encoder(str(tmp_path / "r.safetensors"), 0)
    assert encoder.describe() == {"family": "resnet", "depth": 101}
    again = rebuild_image_encoder(encoder.describe())
    again.load_state_dict(encoder.state_dict())
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        found = encoder(pixels)
        assert torch.equal(again(pixels), found)
        x = (pixels / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
            [0.229, 0.224, 0.225]
        ).view(3, 1, 1)
        parts = torch.nn.Sequential(*list(net.eval().children())[:-2])
        scale = found.abs().max().item()
        torch.testing.assert_close(found, parts(x).flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-5 * scale)
        again.optimize(torch.device("cpu"), "fp32")
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in again.modules())
        torch.testing.assert_close(again(pixels), found, rtol=1e-3, atol=1e-4 * scale)


def test_a_real_encoder_of_timm(sample, tmp_path):
    if not LITE0.is_dir():
        pytest.skip(f"EfficientNet-Lite0 is not in {LITE0}")
    encode_images(sample.table.head(8), sample.raw, tmp_path / "x.h5", **{**FP32, "weights": str(LITE0)})
    features = read_images(tmp_path / "x.h5")
    assert features.maps.shape[1:] == (49, 1280)
    picture = Image.open(sample.raw / sample.table["image"][0]).convert("RGB")
    expected = image_pipeline(LITE0, picture, True)
    torch.testing.assert_close(features.maps[features.index[0]].float(), expected, rtol=1e-2, atol=1e-2)


def test_inputs_are_what_the_encoder_gets(saved, sample, tmp_path):
    """Prepared pictures and token ids: encoded from the file, they are the features."""
    table = table_of(sample, TEXTS)
    table.loc[1, ["image", "picture"]] = None
    table.loc[2, ["image", "picture"]] = table.loc[0, ["image", "picture"]]
    vit, roberta = str(saved(small_encoders.HF_IMAGE, "vit")), str(saved(small_encoders.TEXT, "roberta"))
    for content in ("features", "inputs"):
        encode_images(
            table, sample.raw, tmp_path / f"i-{content}.h5", content=content, **{**FP32, "weights": vit}
        )
        encode_texts(
            table,
            tmp_path / f"t-{content}.h5",
            max_positions=60,
            content=content,
            **{**FP32, "weights": roberta},
        )
    pictures, maps = read_images(tmp_path / "i-inputs.h5"), read_images(tmp_path / "i-features.h5")
    assert pictures.pixels.shape == (3, 3, 64, 64)
    assert pictures.pixels.dtype == torch.uint8
    assert pictures.index.tolist() == [0, -1, 0, 1, 2]
    assert pictures.encoder.sha256 == maps.encoder.sha256
    with torch.no_grad():
        found = load_image_encoder(vit, 0)(pictures.pixels)
    torch.testing.assert_close(found, maps.maps.float(), rtol=1e-2, atol=1e-2)
    texts = read_texts(tmp_path / "t-inputs.h5")
    encoder = load_text_encoder(roberta, 0, [], 60)
    assert texts.offsets.diff().tolist() == [5, 3, 12, 0, 4]
    assert texts.tokens.tolist() == [i for text in TEXTS if text for i in encoder.tokenize([text])[0]]
    found = (texts.prefix, texts.suffix, texts.pad_id, texts.max_positions, texts.padding, texts.padding_side)
    assert found == (1, 1, 1, 60, "masked", "right")


def test_inputs_are_copied_whatever_the_machine_and_the_batch(saved, sample, tmp_path, monkeypatch):
    vit = str(saved(small_encoders.HF_IMAGE, "vit"))
    options = {**FP32, "weights": vit, "content": "inputs"}
    encode_images(sample.table.head(9), sample.raw, tmp_path / "x.h5", **options)
    whole = (tmp_path / "x.h5").read_bytes()
    monkeypatch.setattr("spp_scl.encoders.pictures.describe_hardware", lambda device: "another")
    monkeypatch.setattr(
        "spp_scl.encoders.pictures.prepare_picture", lambda *of: pytest.fail(f"prepared again: {of}")
    )
    other = {**options, "batch_size": 3, "precision": "bf16"}
    encode_images(sample.table.head(9), sample.raw, tmp_path / "x.h5", **other)
    assert (tmp_path / "x.h5").read_bytes() == whole
    monkeypatch.undo()
    encode_images(sample.table.head(12), sample.raw, tmp_path / "x.h5", **options)
    assert len(read_images(tmp_path / "x.h5").pixels) == sample.table.head(12)["picture"].nunique()


@pytest.mark.parametrize("where", ["pixels", "index", "tokens", "offsets"])
def test_a_flipped_bit_in_inputs_is_found(where, saved, sample, tmp_path):
    import h5py

    path = tmp_path / "x.h5"
    if where in ("pixels", "index"):
        vit = str(saved(small_encoders.HF_IMAGE, "vit"))
        encode_images(sample.table.head(4), sample.raw, path, content="inputs", **{**FP32, "weights": vit})
    else:
        bert = str(saved(small_encoders.TEXT, "bert"))
        options = {**FP32, "weights": bert, "max_positions": 60}
        encode_texts(table_of(sample, TEXTS), path, content="inputs", **options)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        at = file[where].id.get_offset() + file[where].id.get_storage_size() // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    with pytest.raises(UserError, match=r"x.h5: damaged"):
        (read_images if where in ("pixels", "index") else read_texts)(path)


def copied(folder, to):
    shutil.copytree(folder, to)
    return to


def edit(path, **changes):
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


def refused(kind, folder, why):
    """One message, with why and both ways out."""
    load = (
        load_image_encoder
        if kind == "image"
        else lambda weights, seed: load_text_encoder(weights, seed, [], 60)
    )
    with pytest.raises(UserError, match=why) as caught:
        load(str(folder), 0)
    message = str(caught.value)
    assert message.startswith(f"{kind}_features.weights: ")
    assert "\n" not in message
    assert f"(-S {kind}_features.weights=/path/to/" in message
    assert f"(-S {kind}_features.weights=untrained)" in message
    return message


def test_an_encoder_of_the_other_kind_is_refused(saved):
    why = refused(
        "image", saved(small_encoders.TEXT, "roberta"), "a roberta is no image encoder: it reads input_ids"
    )
    assert "-S image_features.weights=untrained" in why
    why = refused(
        "text", saved(small_encoders.HF_IMAGE, "vit"), "a vit is no text encoder: it reads pixel_values"
    )
    assert "-S text_features.weights=untrained" in why
    refused("text", saved(small_encoders.TIMM, "test_vit"), "a timm_wrapper is no text encoder")


def test_decoders_and_encoders_with_decoders_are_refused(tmp_path):
    shape = {"n_embd": 16, "n_layer": 4, "n_head": 2, "bos_token_id": 0, "eos_token_id": 2}
    for template, why in (("$A", "adds no token that could stand"), ("<s> $A", "it is a decoder")):
        folder = tmp_path / template[:1]
        size = small_encoders.save_tokenizer(folder, small_encoders._ROBERTA, template)
        tr.GPT2Model(tr.GPT2Config(vocab_size=size, **shape)).save_pretrained(folder)
        refused("text", folder, why)
    config = tr.T5Config(vocab_size=15, d_model=16, d_ff=32, num_layers=4, num_heads=2, d_kv=8)
    tr.T5Model(config).save_pretrained(tmp_path / "t5")
    refused("text", tmp_path / "t5", "a t5 is no text encoder: it is an encoder with a decoder")


@pytest.mark.parametrize("damage", ["missing", "misshapen"])
@pytest.mark.parametrize(
    ("kind", "builders", "name"),
    [
        ("text", small_encoders.TEXT, "deberta-v2"),
        ("text", small_encoders.TEXT, "clip"),
        ("image", small_encoders.HF_IMAGE, "clip"),
        ("image", small_encoders.HF_IMAGE, "vit"),
        ("image", small_encoders.TIMM, "test_vit"),
    ],
)
def test_weights_that_differ_from_their_network_are_refused(kind, builders, name, damage, saved, tmp_path):
    """transformers would draw what is missing at random."""
    folder = copied(saved(builders, name), tmp_path / "x")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    tower = {"text": "text_model", "image": "vision_model"}[kind] if name == "clip" else ""
    key = next(k for k in state if k.startswith(tower) and k.endswith("bias") and ".1." in k)
    if damage == "missing":
        del state[key]
    else:
        state[key] = torch.zeros(3)
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    named = "k_proj.bias" if name == "vit" else key  # transformers renames as it loads
    problem = "missing: " if damage == "missing" else "of another shape: "
    why = refused(kind, folder, re.escape(named))
    assert problem in why or builders is small_encoders.TIMM
    require_encoders("untrained", "untrained", "hfm")
    both = {"image": "untrained", "text": "untrained", kind: str(folder)}
    with pytest.raises(UserError, match=rf"^{kind}_features\.weights"):
        require_encoders(both["image"], both["text"], "hfm")


def test_the_other_tower_is_not_asked_for(saved, tmp_path):
    folder = copied(saved(small_encoders.TEXT, "clip"), tmp_path / "x")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    del state["vision_model.encoder.layers.1.mlp.fc1.bias"]
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    load_text_encoder(str(folder), 0, [], 60)


def test_a_pooler_that_nobody_reads_may_be_missing(saved, tmp_path):
    """Checkpoints of masked language models have none."""
    folder = copied(saved(small_encoders.TEXT, "roberta"), tmp_path / "x")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state = {name: tensor for name, tensor in state.items() if not name.startswith("pooler.")}
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = load_text_encoder(str(folder), 0, [], 60)
    assert not [name for name in encoder.state_dict() if "pooler" in name]


@pytest.mark.parametrize("name", ["roberta", "bert", "clip"])
def test_a_tokenizer_without_its_vocabulary_is_refused(name, saved, tmp_path):
    folder = copied(saved(small_encoders.TEXT, name), tmp_path / "x")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    refused("text", folder, "cannot be had|is vocab.txt or tokenizer.json missing")


def test_code_that_comes_with_an_encoder_is_refused_and_not_run(saved, tmp_path):
    for kind, builders, name in (
        ("text", small_encoders.TEXT, "bert"),
        ("image", small_encoders.HF_IMAGE, "vit"),
    ):
        folder = copied(saved(builders, name), tmp_path / name)
        edit(folder / "config.json", auto_map={"AutoModel": "attack.Model", "AutoConfig": "attack.Config"})
        (folder / "attack.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        refused(kind, folder, "code of its own")
    folder = copied(saved(small_encoders.TEXT, "bert"), tmp_path / "tokenizer")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["attack.Tokenizer", None]})
    refused("text", folder, "code of its own")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("builders", [small_encoders.HF_IMAGE, small_encoders.TIMM], ids=["hf", "timm"])
def test_a_pickle_in_an_encoders_folder_is_not_executed(builders, saved, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    folder = copied(
        saved(builders, "vit" if builders is small_encoders.HF_IMAGE else "test_vit"), tmp_path / "x"
    )
    (folder / "model.safetensors").unlink()
    torch.save({"x": Attack()}, folder / "pytorch_model.bin")
    refused("image", folder, "cannot be had")
    assert not (tmp_path / "executed").exists()


def test_an_image_encoder_without_a_usable_preparation_is_refused(saved, tmp_path):
    folder = copied(saved(small_encoders.HF_IMAGE, "vit"), tmp_path / "none")
    (folder / "preprocessor_config.json").unlink()
    refused("image", folder, "image processor")
    folder = copied(saved(small_encoders.HF_IMAGE, "dinov2"), tmp_path / "sizes")
    edit(folder / "preprocessor_config.json", do_center_crop=False)
    refused("image", folder, "pictures of different sizes")


def test_an_image_encoder_whose_tokens_are_no_grid_is_refused(tmp_path):
    """Only a quarter of the patches, drawn at random; and a token of its own beside the patches."""
    config = tr.ViTMAEConfig(**small_encoders._PATCHES)
    small_encoders._vision(config, tr.ViTImageProcessor(size=small_encoders._SQUARE))(tmp_path / "mae")
    refused("image", tmp_path / "mae", "5 tokens, which are no grid")
    small_encoders._timm("volo_d1_224", img_size=64)(tmp_path / "volo")
    refused("image", tmp_path / "volo", "no grid|cannot take a picture")


def test_a_text_encoder_that_reads_the_padding_is_refused(tmp_path):
    folder = small_encoders._text(tr.FNetConfig, small_encoders._BERT)(tmp_path / "fnet")
    refused("text", folder, "depend on the padding of a batch")


@pytest.mark.parametrize(
    ("image", "text", "why"),
    [
        ("timm/no_such_net", "untrained", r"image encoder timm/no_such_net cannot be had.*=untrained"),
        ("hf-hub:timm/no_such_net", "untrained", r"cannot be had.*=untrained"),
        ("nobody/no-vit", "untrained", r"image encoder nobody/no-vit cannot be had.*=untrained"),
        ("untrained", "nobody/no-bert", r"text encoder nobody/no-bert cannot be had.*=untrained"),
    ],
)
def test_without_a_network_a_hub_name_says_both_ways_out(image, text, why, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=why):
        require_encoders(image, text, "hfm")


def test_a_damaged_configuration_is_named(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(1))
    for content in ("{", "[1]", '{"model_type": "no such"}', '{"architecture": "no_such_net"}'):
        (tmp_path / "config.json").write_text(content)
        refused("image", tmp_path, "config.json|cannot be had")
        refused("text", tmp_path, "config.json|cannot be had")
