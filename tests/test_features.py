"""The encoders and their files."""

import os
import shutil
import subprocess
import sys
import threading
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tokenizers import Tokenizer
from torchvision.models import resnet50
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor
from transformers import BertModel, BertTokenizer

import spp_scl
from spp_scl.encoders import pictures as features_image
from spp_scl.encoders import writing
from spp_scl.encoders.fused import fuse
from spp_scl.encoders.hf_text import HFTextEncoder
from spp_scl.encoders.image import load_image_encoder
from spp_scl.encoders.pictures import encode_images
from spp_scl.encoders.text import load_text_encoder
from spp_scl.encoders.texts import encode_texts
from spp_scl.encoders.vocabulary import collect_vocabulary, make_tokenizer
from spp_scl.encoders.weights import choose_weights, require_encoders
from spp_scl.errors import UserError
from spp_scl.features.device import onednn_takes_bf16
from spp_scl.features.encoder import hash_code
from spp_scl.features.store import read_images, read_texts, require_rows
from spp_scl.previous import previous_output
from tests.conftest import ENCODING
from tests.pipeline import ENVIRONMENT, ROOT, run, set_params
from tests.small_bert import save_bert

FP32: dict[str, Any] = {**ENCODING, "precision": "fp32"}


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A small local BERT, saved as transformers saves one."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "day", "bad", "##ly", "!"]
    folder = save_bert(tmp_path_factory.mktemp("bert"), words, layers=5)
    BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def texts_table(sample, texts):
    table = sample.table.iloc[: len(texts)].copy()
    table["text"] = texts
    return table


def test_image_features_are_layer4_of_the_prepared_picture(sample, tmp_path):
    """Against torchvision's own network and preset, one picture at a time, in float32."""
    encode_images(sample.table.head(9), sample.raw, tmp_path / "x.h5", **FP32)
    features = read_images(tmp_path / "x.h5")
    torch.manual_seed(1)
    net = torch.nn.Sequential(*list(resnet50(weights=None).children())[:-2]).eval()

    imagenet = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    steps = Compose([Resize(256), CenterCrop(224), ToTensor(), imagenet])
    for i in (0, 8):
        picture = Image.open(sample.raw / sample.table["image"][i]).convert("RGB")
        with torch.no_grad():
            expected = net(steps(picture)[None])[0]  # (2048, 7, 7)
        found = features.maps[features.index[i]].float().T.view(2048, 7, 7)
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())


def test_text_features_are_the_last_four_layers_without_padding(sample, bert_folder, tmp_path):
    """Against transformers, one text at a time, in float32."""
    texts = ["a good day!", "bad", "good good good good good good good good good good badly day", "day a"]
    table = texts_table(sample, texts)
    encode_texts(table, tmp_path / "x.h5", max_positions=202, **{**FP32, "weights": str(bert_folder)})
    features = read_texts(tmp_path / "x.h5")
    bert = BertModel.from_pretrained(bert_folder, add_pooling_layer=False).eval()
    tokenizer = BertTokenizer.from_pretrained(bert_folder)
    for i, text in enumerate(texts):
        with torch.no_grad():
            states = bert(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[
                -4:
            ]
        expected = torch.stack([layer[0] for layer in states], dim=1)  # (T, 4, D)
        words = features.words[features.offsets[i] : features.offsets[i + 1]]
        torch.testing.assert_close(words.float(), expected[1:-1], rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(features.cls[i].float(), expected[0], rtol=2e-3, atol=2e-3)


def test_long_texts_are_cut_at_max_positions(sample, bert_folder, tmp_path):
    table = texts_table(sample, ["good " * 300, "bad"])
    encode_texts(table, tmp_path / "x.h5", max_positions=20, **{**FP32, "weights": str(bert_folder)})
    assert read_texts(tmp_path / "x.h5").offsets.tolist() == [0, 18, 19]


def test_a_blank_text_has_no_words_and_a_zero_cls(sample, bert_folder, tmp_path):
    table = texts_table(sample, ["good", "", "bad day"])
    encode_texts(table, tmp_path / "x.h5", max_positions=20, **{**FP32, "weights": str(bert_folder)})
    features = read_texts(tmp_path / "x.h5")
    assert features.offsets.tolist() == [0, 1, 1, 3]
    assert (features.cls[1] == 0).all()
    assert (features.cls[[0, 2]] != 0).any(dim=(1, 2)).all()


def test_a_table_without_any_text_or_any_picture_has_files_too(sample, bert_folder, tmp_path):
    table = texts_table(sample, ["", ""])
    table["image"] = table["picture"] = None
    encode_texts(table, tmp_path / "t.h5", max_positions=20, **{**FP32, "weights": str(bert_folder)})
    encode_images(table, sample.raw, tmp_path / "i.h5", **ENCODING)
    assert read_texts(tmp_path / "t.h5").words.shape == (0, 4, 16)
    assert read_images(tmp_path / "i.h5").index.tolist() == [-1, -1]


def test_equal_pictures_share_a_map_and_blank_ones_have_none(sample, tmp_path):
    table = sample.table.head(4).copy()
    table.loc[2, ["image", "picture"]] = table.loc[0, ["image", "picture"]]
    table.loc[1, ["image", "picture"]] = None
    encode_images(table, sample.raw, tmp_path / "x.h5", **ENCODING)
    features = read_images(tmp_path / "x.h5")
    assert features.index.tolist() == [0, -1, 0, 1]
    assert len(features.maps) == 2


def test_files_are_byte_identical_when_written_again(sample, tmp_path):
    encode_images(sample.table, sample.raw, tmp_path / "image.h5", **ENCODING)
    encode_texts(sample.table, tmp_path / "text.h5", max_positions=202, **ENCODING)
    assert (tmp_path / "image.h5").read_bytes() == sample.images.read_bytes()
    assert (tmp_path / "text.h5").read_bytes() == sample.texts.read_bytes()


@pytest.fixture(scope="module")
def fixed_bert(sample, tmp_path_factory):
    """An encoder whose vocabulary does not change with the rows, and real enough in size."""
    folder = tmp_path_factory.mktemp("fixed")
    words = sorted({w for t in sample.table["text"] for w in t.lower().split() if w.isalpha()})
    encoder = load_text_encoder("untrained", 1, words, 202)
    encoder.tokenizer.backend.save(str(folder / "tokenizer.json"))
    encoder.model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(collect_vocabulary(words, 30522)))
    return folder


@pytest.fixture
def encode(sample, fixed_bert):
    """Encode a table into `image.h5` and `text.h5` of a folder; returns their bytes and what was encoded."""

    def encode_both(table, folder, **changes):
        pictures: list[str] = []
        texts: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            forward, prepare = HFTextEncoder.forward, features_image.prepare_picture

            def count_texts(self, ids, mask):
                texts.extend(n for n in mask.sum(dim=1).tolist() if n > 1)
                return forward(self, ids, mask)

            def count_pictures(path, known, encoder):
                pictures.append(known)
                return prepare(path, known, encoder)

            patch.setattr(HFTextEncoder, "forward", count_texts)
            patch.setattr(features_image, "prepare_picture", count_pictures)
            encode_images(table, sample.raw, folder / "image.h5", **{**ENCODING, **changes})
            bert = {**ENCODING, "weights": str(fixed_bert), "max_positions": 202, **changes}
            encode_texts(table, folder / "text.h5", **bert)
        files = [(folder / name).read_bytes() for name in ("image.h5", "text.h5")]
        return files, (len(pictures), len(texts))

    return encode_both


def test_only_new_content_is_encoded_and_the_file_is_that_of_a_run_from_nothing(encode, sample, tmp_path):
    """Rows added, removed, reordered and changed."""
    table = sample.table.copy()
    table.loc[[3, 9], "text"] = ""
    (tmp_path / "grown").mkdir()
    first = table.iloc[10:40].reset_index(drop=True)
    _, counts = encode(first, tmp_path / "grown")
    assert counts == (first["picture"].nunique(), 30)
    other = table.iloc[[50, 30, 3, 29, 12, 11, 51, 39, 9]].reset_index(drop=True)
    other.loc[4, "text"] = "another text"
    found, counts = encode(other, tmp_path / "grown")
    assert counts == (4, 3)  # pictures of 50, 3, 51, 9; texts of 50 and 51, and the changed one
    (tmp_path / "new").mkdir()
    wanted, _ = encode(other, tmp_path / "new")
    assert found == wanted
    assert not list(tmp_path.rglob(".*"))


def test_only_new_content_is_encoded_after_dvc_has_removed_the_output(encode, sample, tmp_path, monkeypatch):
    """A real repository: `dvc repro` removes a stage's outputs before it runs the stage."""
    table = sample.table
    (tmp_path / "whole").mkdir()
    encode(table.head(30), tmp_path / "whole")
    repository = tmp_path / "repository"
    repository.mkdir()
    run(repository, "dvc", "init", "--no-scm", "-q")
    copying = "cp ../whole/image.h5 ../whole/text.h5 ."
    run(repository, "dvc", "stage", "add", "-q", "-n", "encode", "-o", "image.h5", "-o", "text.h5", copying)
    run(repository, "dvc", "repro", "-q")
    monkeypatch.chdir(repository)
    for name in ("image.h5", "text.h5"):
        (repository / name).unlink()
    wanted, counts = encode(table.head(33), tmp_path / "whole")
    assert counts == (3, 3)
    found, counts = encode(table.head(33), repository)
    assert counts == (3, 3)
    assert found == wanted
    # Another repository may share the cache.
    cached = previous_output("image.h5")
    assert cached is not None
    assert cached.stat().st_nlink == 1
    assert previous_output("other.h5") is None
    cached.unlink()
    assert previous_output("image.h5") is None


@pytest.mark.parametrize("lock", [None, "", "stages:\n  x: [", "stages: 1", "stages: {x: {outs: [{}]}}"])
def test_without_a_lock_that_can_be_read_there_is_no_previous_output(lock, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if lock is not None:
        (tmp_path / "dvc.lock").write_text(lock)
    assert previous_output("image.h5") is None


def test_a_lock_without_a_repository_names_no_previous_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages: {x: {outs: [{path: image.h5, md5: %s}]}}" % ("0" * 32))
    assert previous_output("image.h5") is None


def test_of_equal_texts_one_that_a_killed_run_has_encoded_is_enough(encode, sample, tmp_path):
    table = sample.table.head(3).copy()
    table.loc[2, "text"] = table.loc[0, "text"]
    wanted, _ = encode(table, tmp_path)
    with h5py.File(tmp_path / "text.h5", "a") as file:
        file["sums"][2] = 0
    (tmp_path / "text.h5").rename(tmp_path / ".text.h5.tmp")
    found, counts = encode(table, tmp_path)
    assert counts == (0, 0)
    assert found == wanted


def test_nothing_of_another_encoder_is_reused(encode, sample, tmp_path):
    table = sample.table.head(8)
    for changes in ({"precision": "bf16"}, {"precision": "fp32"}, {"precision": "fp32", "batch_size": 4}):
        _, counts = encode(table, tmp_path, **changes)
        assert counts == (8, 8)
    assert encode(table, tmp_path, precision="fp32", batch_size=4)[1] == (0, 0)


@pytest.mark.parametrize("stop", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_run_that_ends_in_the_middle_goes_on_where_it_was(
    stop, encode, sample, fixed_bert, tmp_path, monkeypatch
):
    table = sample.table.head(33)
    (tmp_path / "whole").mkdir()
    wanted, _ = encode(table, tmp_path / "whole")
    (tmp_path / "stopped").mkdir()
    write = writing.FeatureWriter.write
    done: list[int] = []

    def stopping(self, item, *parts):
        if len(done) == 16:
            raise stop
        done.append(item)
        write(self, item, *parts)

    monkeypatch.setattr(writing.FeatureWriter, "write", stopping)
    bert = {**ENCODING, "weights": str(fixed_bert)}
    for name, encode_it in (
        ("image", lambda path: encode_images(table, sample.raw, path, **ENCODING)),
        ("text", lambda path: encode_texts(table, path, max_positions=202, **bert)),
    ):
        done.clear()
        path = tmp_path / "stopped" / f"{name}.h5"
        threads = threading.active_count()
        with pytest.raises(type(stop)) as raised:
            encode_it(path)
        # No worker goes on, though what was raised is still held.
        assert threading.active_count() == threads, raised
        assert not path.exists()
        assert path.with_name(f".{name}.h5.tmp").exists()
    monkeypatch.undo()
    found, counts = encode(table, tmp_path / "stopped")
    assert found == wanted
    assert counts == (33 - 16, 33 - 16)
    assert not list(tmp_path.rglob(".*"))


def test_a_part_is_not_lost_when_the_run_that_copies_it_is_killed_too(sample, tmp_path):
    """Killed while it copied: the first run's part is still there, and the second's is worth nothing."""
    whole = sample.images.read_bytes()
    (tmp_path / ".x.h5.part.tmp").write_bytes(whole)
    (tmp_path / ".x.h5.tmp").write_bytes(b"begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_image, "prepare_picture", lambda *of: pytest.fail(f"encoded again: {of}"))
        encode_images(sample.table, sample.raw, tmp_path / "x.h5", **ENCODING)
    assert (tmp_path / "x.h5").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]


@pytest.mark.parametrize(
    "where", ["ids", "index", "keys", "sums", "maps", "offsets", "cls", "words", "pieces", "vocabulary"]
)
def test_one_flipped_bit_is_found_named_and_mended(where, sample, tmp_path):
    kind = "image" if where in ("index", "maps") else "text"
    whole = {"image": sample.images, "text": sample.texts}[kind].read_bytes()
    path = tmp_path / "features.h5"
    path.write_bytes(whole)
    with h5py.File(path) as file:
        at = file[where].id.get_offset() + file[where].id.get_storage_size() // 2
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    read = {"image": read_images, "text": read_texts}[kind]
    with pytest.raises(UserError, match=r"features.h5: damaged.*; make it again"):
        read(path)
    if kind == "image":
        encode_images(sample.table, sample.raw, path, **ENCODING)
    else:
        encode_texts(sample.table, path, max_positions=202, **ENCODING)
    assert path.read_bytes() == whole


def test_features_are_the_same_on_any_number_of_cores(sample, tmp_path, monkeypatch):
    monkeypatch.setattr("spp_scl.encoders.workers.count_workers", lambda device: 5)
    threads = torch.get_num_threads()
    encode_images(sample.table, sample.raw, tmp_path / "image.h5", **ENCODING)
    encode_texts(sample.table, tmp_path / "text.h5", max_positions=202, **ENCODING)
    assert (tmp_path / "image.h5").read_bytes() == sample.images.read_bytes()
    assert (tmp_path / "text.h5").read_bytes() == sample.texts.read_bytes()
    assert torch.get_num_threads() == threads


def test_files_describe_themselves(sample):
    for path, kind in ((sample.images, "image"), (sample.texts, "text")):
        with h5py.File(path) as file:
            assert file.attrs["kind"] == kind
            assert [i.decode() for i in file["ids"][:]] == sample.table["id"].tolist()
            assert {file[name].dtype for name in ("maps", "words", "cls") if name in file} == {np.dtype("f2")}
        encoder = (read_images if kind == "image" else read_texts)(path).encoder
        assert len(encoder.sha256) == 64
        assert "torch" in encoder.software
        assert encoder.weights == "untrained, seed 1"


def test_another_seed_draws_other_weights_and_the_same_seed_the_same():
    hashes = [load_image_encoder("untrained", seed).net.conv1.weight.sum().item() for seed in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_encoders_are_frozen_and_in_evaluation_mode(bert_folder):
    for encoder in (load_image_encoder("untrained", 1), load_text_encoder(str(bert_folder), 1, [], 20)):
        assert not any(module.training for module in encoder.modules())
        assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])  # which operations; all of this runs on the CPU
def test_the_fused_network_differs_in_rounding_only(device, dtype, rounding):
    encoder = load_image_encoder("untrained", 1)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        before = encoder(pixels)
        fuse(encoder.net, dtype, torch.device(device))
        after = encoder(pixels).float()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())
    onednn = device == "cpu" and (dtype == torch.float32 or onednn_takes_bf16())
    assert any("OneDnn" in type(module).__name__ for module in encoder.modules()) == onednn
    torch.testing.assert_close(after, before, rtol=10 * rounding, atol=rounding * before.abs().max().item())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("without", ["nothing", "fc.", "num_batches_tracked"])
def test_a_local_resnet_is_loaded(suffix, without, tmp_path):
    """With or without its classifier, and without the counters that torchvision's own files lack."""
    torch.manual_seed(9)
    state = {k: v for k, v in resnet50(weights=None).state_dict().items() if without not in k}
    path = tmp_path / f"resnet{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    loaded = load_image_encoder(str(path), 1).net.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded.keys() & state.keys())
    assert len(loaded.keys() & state.keys()) >= 265


def test_weights_that_do_not_fit_are_named(tmp_path):
    state = resnet50(weights=None).state_dict()
    state["more.weight"] = state.pop("layer1.0.conv1.weight")
    state["conv1.weight"] = torch.zeros(1)
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"missing: layer1.0.conv1.weight.*more.weight.*another shape: conv1"):
        load_image_encoder(str(tmp_path / "x.safetensors"), 1)


def test_a_pickle_is_not_executed(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"conv1.weight": Attack()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="cannot be read as a state dict"):
        load_image_encoder(str(tmp_path / "x.pth"), 1)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("weights", ["/no/such/file.pth", "no_such_file"])
def test_a_missing_local_resnet_says_what_is_allowed(weights):
    with pytest.raises(UserError, match=r"no such file.*It takes a file, a directory.*untrained or auto"):
        load_image_encoder(weights, 1)


def test_pretrained_weights_that_cannot_be_downloaded_say_both_ways_out(monkeypatch, tmp_path):
    # A proxy where nobody listens: no network, on any machine.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"IMAGENET1K_V1.*image_features.weights=/path.*weights=untrained"):
        load_image_encoder("pretrained", 1)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"nobody/no-bert.*text_features.weights=/path.*weights=untrained"):
        load_text_encoder("nobody/no-bert", 1, [], 202)


def test_a_text_encoder_that_is_no_bert_or_lacks_weights_is_refused(bert_folder, tmp_path):
    with pytest.raises(UserError, match=r"no such directory with a config\.json"):
        load_text_encoder("/no/such/folder", 1, [], 202)
    assert load_text_encoder(str(bert_folder), 1, [], 513).max_positions == 512
    for file in bert_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    state.pop("encoder.layer.2.output.dense.weight")
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"not those of a BertModel \(missing: encoder.layer.2.output.dense.w"
    ):
        load_text_encoder(str(tmp_path), 1, [], 202)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_hidden_layers": 5', '"num_hidden_layers": 3'))
    with pytest.raises(UserError, match="at least 4 layers"):
        load_text_encoder(str(tmp_path), 1, [], 202)


def test_padding_and_truncation_of_a_tokenizer_file_are_switched_off(bert_folder, tmp_path):
    for file in bert_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = ["a good day", "bad"]
    plain = load_text_encoder(str(bert_folder), 1, [], 202).tokenize(texts)
    assert load_text_encoder(str(tmp_path), 1, [], 202).tokenize(texts) == plain
    assert [len(ids) for ids in plain] == [5, 3]


@pytest.mark.parametrize("damage", ["no vocabulary", "truncated weights"])
def test_a_damaged_local_bert_is_refused(damage, bert_folder, tmp_path):
    for file in bert_folder.iterdir():
        if damage != "no vocabulary" or file.name in ("config.json", "model.safetensors"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    if damage == "truncated weights":
        path = tmp_path / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"is vocab\.txt or|cannot be had"):
        load_text_encoder(str(tmp_path), 1, [], 202)


def test_the_vocabulary_is_that_of_the_texts_in_any_order():
    texts = ["Good DAY @user", "good café ☕", "a bad day"]
    vocabulary = collect_vocabulary(texts, 1000)
    assert vocabulary == collect_vocabulary(texts[::-1], 1000)
    assert list(vocabulary)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"good", "day", "cafe", "☕", "@", "##y"} <= vocabulary.keys()
    encoded = make_tokenizer(vocabulary).encode("GOOD yard")
    assert encoded.tokens == ["[CLS]", "good", "y", "##a", "##r", "##d", "[SEP]"]


def test_auto_weights_need_no_download_for_the_sample_alone():
    assert choose_weights("auto", "sample") == "untrained"
    assert choose_weights("auto", "mvsa_single") == "pretrained"
    assert choose_weights("untrained", "hfm") == "untrained"


def test_bad_weights_of_either_encoder_are_refused(bert_folder, tmp_path):
    for text in ("auto", "untrained", str(bert_folder)):
        require_encoders("auto", text, "sample")
    with pytest.raises(
        UserError, match=r"text_features\.weights: /nope: no such directory.*untrained or auto"
    ):
        require_encoders("auto", "/nope", "sample")
    with pytest.raises(
        UserError, match=r"image_features\.weights: /nope\.pth: no such file.*untrained or auto"
    ):
        require_encoders("/nope.pth", "auto", "sample")
    (tmp_path / "resnet.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"image_features\.weights.*cannot be read as a state dict"):
        require_encoders(str(tmp_path / "resnet.pth"), "auto", "sample")


def test_missing_text_weights_are_refused_before_pictures_are_encoded(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    set_params(tmp_path, text_features={"weights": "/nope"})
    command = [sys.executable, "-m", "stages.image_features"]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: text_features.weights: /nope: no such directory" in done.stderr


# Each in a process of its own: torch and oneDNN read them when they are loaded.
_PROCESSORS = [
    {},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
]


def on_processor(variables, code):
    without = {k: v for k, v in os.environ.items() if k not in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")}
    environment = {**without, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_AUTO = """
import torch
from spp_scl.features.device import choose_precision, describe_hardware
print(choose_precision(torch.device("cpu"), "auto"))
print(describe_hardware(torch.device("cpu")))
torch.nn.Conv2d(64, 64, 3)(torch.zeros(8, 64, 56, 56))
"""


@pytest.mark.parametrize("variables", _PROCESSORS, ids=str)
def test_auto_is_bf16_where_onednn_says_that_it_computes_in_it_and_torch_can(variables):
    """oneDNN names the instructions that it uses in its log; torch's attention wants AVX-512 too."""
    output = on_processor({**variables, "ONEDNN_VERBOSE": "1"}, _AUTO)
    isa = next(line for line in output.splitlines() if ",isa:" in line)
    computes = "AVX2" not in isa and ("bfloat16" in isa or "AMX" in isa)
    computes = computes and variables.get("ATEN_CPU_CAPABILITY") != "avx2"
    assert output.splitlines()[0] == ("bf16" if computes else "fp32"), isa


def test_processors_that_round_differently_are_described_differently():
    found = [on_processor(variables, _AUTO).splitlines()[1] for variables in _PROCESSORS]
    plain, avx2, *limited = found
    assert len({plain, *limited}) == 3
    assert avx2 != plain or "AVX2" in plain


def test_bf16_that_is_asked_for_runs_where_onednn_does_not_take_it():
    code = """
import torch
from spp_scl.features.device import onednn_takes_bf16
from spp_scl.encoders.image import load_image_encoder
encoder = load_image_encoder("untrained", 1)
pixels = torch.arange(3 * 224 * 224).reshape(1, 3, 224, 224).to(torch.uint8)
with torch.inference_mode():
    wanted = encoder(pixels)
    encoder.optimize(torch.device("cpu"), "bf16")
    torch.testing.assert_close(encoder(pixels).float(), wanted, rtol=0.3, atol=0.03 * wanted.max().item())
print(onednn_takes_bf16())
"""
    assert on_processor({"ONEDNN_MAX_CPU_ISA": "AVX2"}, code).split() == ["False"]


@pytest.mark.parametrize("damage", ["truncated", "not hdf5", "empty", "missing part", "other kind"])
def test_a_corrupt_feature_file_is_named_with_the_way_to_rebuild_it(damage, sample, tmp_path):
    path = tmp_path / "image.h5"
    whole = sample.images.read_bytes()
    if damage == "other kind":
        path.write_bytes(sample.texts.read_bytes())
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "not hdf5": b"x" * 999}.get(damage, b""))
    if damage == "missing part":
        path.write_bytes(whole)
        with h5py.File(path, "a") as file:
            del file["index"]
    with pytest.raises(UserError, match=r"image.h5: damaged.*; make it again"):
        read_images(path)


def test_features_of_other_rows_are_refused(sample):
    features = read_texts(sample.texts)
    require_rows(features, sample.table["id"].tolist(), "text.h5")
    for ids in (sample.table["id"].tolist()[:-1], sample.table["id"].tolist()[::-1]):
        with pytest.raises(UserError, match=r"text.h5: the features belong to other rows.*text_features"):
            require_rows(features, ids, "text.h5")


def test_a_picture_that_has_gone_since_cleaning_is_named(sample, tmp_path):
    with pytest.raises(UserError, match=r"1.jpg: readable when the data was cleaned, and not now"):
        encode_images(sample.table.head(2), tmp_path, tmp_path / "x.h5", **ENCODING)
    assert not (tmp_path / "x.h5").exists()


def test_a_picture_that_has_changed_since_cleaning_is_named(sample, tmp_path):
    shutil.copytree(sample.raw, tmp_path / "raw")
    first, second = sample.table["image"][:2]
    shutil.copy(tmp_path / "raw" / second, tmp_path / "raw" / first)
    with pytest.raises(UserError, match=rf"{first}: not the picture that it was"):
        encode_images(sample.table.head(2), tmp_path / "raw", tmp_path / "x.h5", **ENCODING)


def test_the_hash_of_code_depends_on_what_it_does_and_not_on_comments(tmp_path, monkeypatch):
    monkeypatch.setattr(spp_scl, "__file__", str(tmp_path / "__init__.py"))

    def hashed(source):
        (tmp_path / "encoder.py").write_text(source)
        return hash_code("encoder.py")

    assert hashed("x = 1  # one") == hashed("# one\nx  =  1\n")
    assert hashed("x = 1") != hashed("x = 2")
    with pytest.raises(FileNotFoundError, match=r"gone\.py"):
        hash_code("gone.py")
