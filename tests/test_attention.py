"""`spp-scl attention`: the last layer's weights, a word found by its pieces, mistakes named."""

import shutil

import pytest
import torch

from spp_scl.attention import find_word, main
from spp_scl.encoders.text import load_text_encoder
from spp_scl.errors import UserError
from spp_scl.training.artifact import Artifact, save_model
from spp_scl.training.recipe import make_method
from tests.pipeline import ROOT, set_params
from tests.recipes import make_artifact
from tests.test_methods import recipe


@torch.inference_mode()
def test_the_weights_are_the_softmax_of_the_last_fusion_layer(data):
    model = make_method(recipe("clmlf", fusion_layers=2), data, seed=1).eval()
    batch = data.source.batch(data.rows["train"][:6])
    found = model.word_attention(batch, head=2)
    tokens, mask, _ = model.tokens(batch)
    tokens = model.fusion_layers[0](tokens, src_key_padding_mask=~mask)
    attention = model.fusion_layers[1].self_attn
    size = attention.head_dim
    projected = (tokens @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
    query, key = (part[:, :, 2 * size : 3 * size] for part in projected[:2])
    scores = query @ key.transpose(1, 2) / size**0.5
    wanted = scores.masked_fill(~mask[:, None], -torch.inf).softmax(dim=-1)
    assert found.shape == (len(batch.packing.text), data.source.sizes(3).positions)
    for row, weights in enumerate(found):
        text, time = int(batch.packing.text[row]), int(batch.packing.time[row])
        torch.testing.assert_close(weights, wanted[text, 1 + time, -found.shape[1] :])
    # A post without a picture has nothing to look at, and one with a picture does not look elsewhere alone.
    seen = found.sum(dim=1) > 0
    assert (seen == batch.has_image[batch.packing.text]).all()


def test_a_word_is_found_by_its_pieces_wherever_it_stands():
    text = "a happy dog, unhappy dogs \N{DOG FACE} and \N{CAT FACE} a DOG"
    encoder = load_text_encoder("untrained", 1, ["a happy dog, unhappy dogs and a DOG"], 32)
    pieces = encoder.tokenize([text])[0][encoder.prefix : -encoder.suffix]
    dogs = find_word(encoder, text, "dog")
    assert dogs == [2, len(pieces) - 1]
    assert [pieces[i] for i in dogs] == [pieces[2]] * 2
    assert find_word(encoder, text, "a happy") == [0, 1]
    # Unknown pieces look alike: a word is found by its place.
    first, second = find_word(encoder, text, "\N{DOG FACE}"), find_word(encoder, text, "\N{CAT FACE}")
    assert pieces[first[0]] == pieces[second[0]]
    assert first != second
    short = load_text_encoder("untrained", 1, [text], 6)
    for read, word in ((encoder, "cat"), (encoder, "happ"), (short, "\N{CAT FACE}")):
        with pytest.raises(UserError, match=f"--word {word}: not in the tweet"):
            find_word(read, text, word)


@pytest.fixture
def folder(sample, data, tmp_path, monkeypatch):
    """The pipeline's folder, with the sample and a CLMLF that has not been trained."""
    for path, place in (
        (ROOT / "params.yaml", "params.yaml"),
        (sample.clean, "data/clean/sample.parquet"),
        (sample.split, "data/split/sample.parquet"),
        (sample.images, "data/features/sample/image.h5"),
        (sample.texts, "data/features/sample/text.h5"),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / place)
    (tmp_path / "data/raw").mkdir()
    (tmp_path / "data/raw/sample").symlink_to(sample.raw)
    set_params(tmp_path, image_features={"seed": 1}, text_features={"seed": 1}, method="clmlf")
    monkeypatch.chdir(tmp_path)
    write_model(data, "clmlf")
    return tmp_path


def write_model(data, method, **changes):
    model = make_method(recipe(method, **changes), data, seed=1)
    about: Artifact = make_artifact(data, model, method=method)
    save_model("models/model.safetensors", model, about)


def test_the_command_draws_the_picture_and_each_word(folder, sample, data, capsys):
    tweet = sample.table[sample.table["text"].str.split().str.len() > 2].iloc[0]
    words = tweet["text"].split()[:2]
    main(["--id", tweet["id"], "--word", *words, "--head", "1"])
    (path,) = (folder / "reports/attention").glob("*.png")
    assert path.name in capsys.readouterr().out
    assert path.with_suffix(".svg").exists()
    for arguments, message in (
        (["--id", "nope", "--word", "x"], "--id nope: no clean tweet of sample has it"),
        (["--id", tweet["id"], "--word", "Xylophon"], "--word Xylophon: not in the tweet"),
        (["--id", tweet["id"], "--word", words[0], "--head", "4"], "--head 4: there are 4, from 0 on"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)
    set_params(folder, text_features={"max_positions": 4})
    with pytest.raises(UserError, match="not in the tweet, as far as"):
        main(["--id", tweet["id"], "--word", tweet["text"].split()[-1]])
    set_params(folder, text_features={"max_positions": 202})
    write_model(data, "clmlf", tokens="view")
    with pytest.raises(UserError, match="an image token is of some channels"):
        main(["--id", tweet["id"], "--word", words[0]])
    write_model(data, "concat")
    with pytest.raises(UserError, match="no word attends to positions of the picture"):
        main(["--id", tweet["id"], "--word", words[0]])


def test_without_a_pipeline_it_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no params\.yaml; go to the pipeline's folder"):
        main(["--id", "1", "--word", "x"])
