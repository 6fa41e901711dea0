"""The authors' checkpoint, against a network of plain torch modules in the released layout."""

import shlex
from contextlib import redirect_stdout
from io import StringIO

import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from transformers import BertConfig, BertModel

from spp_scl.batches.batch import FeatureStore
from spp_scl.cli import main
from spp_scl.encoders.image import load_image_encoder
from spp_scl.encoders.text import load_text_encoder
from spp_scl.errors import UserError
from spp_scl.features.encoder import EncoderInfo
from spp_scl.features.store import ImageFeatures, TextFeatures
from spp_scl.released.checkpoint import make_model, read_checkpoint, write_checkpoint
from spp_scl.training.artifact import load_model, require_features
from tests.small_bert import save_bert

CLASSES = ("positive", "neutral", "negative")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "day"]
WIDTH = 16


class Holder(nn.Module):
    """A module with the given children, for their names."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def projection():
    return nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.2))


def shared():
    norm, last = nn.BatchNorm1d(32), nn.BatchNorm1d(32)
    return nn.Sequential(nn.Linear(128, 32), norm, nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 32), last)


def align():
    return nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2))


class Released(nn.Module):
    """The released network as method papers draw it: padded texts, attention across the batch."""

    def __init__(self, bert):
        super().__init__()
        self.image_encoder = Holder(net=resnet50(weights=None))
        self.text_encoder = Holder(bert=bert)
        linears = (nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False), nn.Sigmoid())
        lstm = nn.LSTM(WIDTH, 64, bias=False, bidirectional=True, batch_first=True)
        self.Attention = Holder(fc=nn.Sequential(*linears), shared_text_encoding=Holder(LSTM=lstm))
        self.Conv_I = nn.Sequential(nn.Conv2d(2048, 128, 1), nn.BatchNorm2d(128), nn.ReLU(), nn.Dropout(0.2))
        self.Align_Module_T = Holder(shared_text_linear=shared())
        self.Align_Module_I = Holder(shared_image_linear=shared())
        self.Q_T, self.K_T, self.V_T = projection(), projection(), projection()
        self.Q_I, self.K_I, self.V_I = projection(), projection(), projection()
        self.Align_T, self.Align_I = align(), align()
        self.classifier = nn.Sequential(nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2))
        self.fc = nn.Linear(64, 3)

    def forward(self, words, cls, maps):
        """words (B, 200, 4, D), cls (B, 4, D), maps (B, 2048, 7, 7)."""
        weights = self.Attention.fc(cls.mean(dim=2))
        summed = (words * weights[:, None, :, None]).sum(dim=2)
        states, _ = self.Attention.shared_text_encoding.LSTM(summed)
        text = self.Align_T(self.Align_Module_T.shared_text_linear(states.mean(dim=1)))
        pooled = self.Conv_I(maps).mean(dim=(2, 3))
        image = self.Align_I(self.Align_Module_I.shared_image_linear(pooled))
        scale = 32**-0.5
        image_scores = (text * self.Q_I(image)) @ (text * self.K_I(image)).T * scale
        text_scores = (image * self.Q_T(text)) @ (image * self.K_T(text)).T * scale
        image_stream = image_scores.softmax(dim=-1) @ self.V_I(image)
        text_stream = text_scores.softmax(dim=-1) @ self.V_T(text)
        return self.fc(self.classifier(torch.cat([text_stream, image_stream, image, text], dim=1)))


@pytest.fixture(scope="module")
def released():
    torch.manual_seed(11)
    size = {"hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}
    network = Released(BertModel(BertConfig(vocab_size=len(WORDS), **size)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(released, tmp_path_factory):
    path = tmp_path_factory.mktemp("released") / "authors.pth"
    torch.save(released.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def read(checkpoint, tmp_path_factory):
    """The folder that the command writes."""
    folder = tmp_path_factory.mktemp("read")
    vocabulary = save_bert(folder / "vocabulary", WORDS)
    command = ["released", str(checkpoint), "--dataset", "mvsa_single"]
    command += ["--text-encoder", str(vocabulary), "--to", str(folder / "released")]
    with redirect_stdout(StringIO()) as printed:
        assert main(command) == 0
    # As the authors evaluate: padding kept, and float32, for in bfloat16 predictions differ.
    overrides = shlex.split(printed.getvalue().split("dvc exp run")[1].replace("\\\n", ""))[1::2]
    assert overrides == [
        "dataset=mvsa_single",
        "split.protocol=published",
        "text_features.padding=kept",
        "image_features.precision=fp32",
        "text_features.precision=fp32",
        f"image_features.weights={folder / 'released' / 'resnet50.safetensors'}",
        f"text_features.weights={folder / 'released' / 'bert'}",
        f"train.weights={folder / 'released' / 'model.safetensors'}",
    ]
    return folder / "released"


def test_logits_are_those_of_the_released_network(released, read):
    rows, positions = 24, 200
    words = torch.randn(rows, positions, 4, WIDTH).half()
    cls, maps = torch.randn(rows, 4, WIDTH).half(), torch.rand(rows, 49, 2048).half()
    info = EncoderInfo("", "", "", "", "", "", "", 1, "")
    ids = [str(i) for i in range(rows)]
    offsets = torch.arange(rows + 1) * positions
    table = FeatureStore(
        ImageFeatures(ids, torch.arange(rows), maps, info, ""),
        TextFeatures(
            ids,
            offsets,
            words.flatten(0, 1),
            cls,
            torch.zeros(offsets[-1], dtype=torch.int32),
            torch.zeros(1, 1),
            info,
            "",
        ),
        torch.zeros(rows, dtype=torch.int64),
        torch.device("cpu"),
    )
    model, artifact = load_model(read / "model.safetensors")
    with torch.no_grad():
        square = maps.float().transpose(1, 2).reshape(rows, 2048, 7, 7)
        expected = released(words.float(), cls.float(), square)
        batch = table.batch(torch.arange(rows))
        found = model(batch).logits[batch.order.argsort()]
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert artifact.classes == list(CLASSES)
    assert (artifact.method, artifact.encoders, artifact.training) == ("spp_scl", {}, {})
    assert model.couples_batch


def test_encoders_are_those_of_the_checkpoint_with_their_drifted_statistics(released, read):
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    net = released.image_encoder.net
    with torch.no_grad():
        found = load_image_encoder(str(read / "resnet50.safetensors"), seed=0)(pixels)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        x = net.layer4(net.layer3(net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))))
        expected = x.flatten(2).transpose(1, 2)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
        texts = load_text_encoder(str(read / "bert"), 0, [], max_positions=202)
        ids = torch.tensor([texts.tokenize(["a good day"])[0]])
        hidden = released.text_encoder.bert(ids, output_hidden_states=True).hidden_states[-4:]
        torch.testing.assert_close(texts(ids, torch.ones_like(ids)), torch.stack(hidden, dim=2))


def test_for_two_classes_the_third_output_is_cut_off(released):
    model = make_model(released.state_dict(), ("not sarcastic", "sarcastic"))
    assert torch.equal(model.fc.weight, released.fc.weight[:2])


def test_features_of_any_encoder_may_be_tried_with_it(read):
    _, artifact = load_model(read / "model.safetensors")
    require_features(artifact, "whatever", list(CLASSES), "model")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s.pop("Q_I.0.weight"), "missing: Q_I.0.weight"),
        (lambda s: s.pop("Attention.fc.2.weight"), "missing: Attention.fc.2.weight"),
        (lambda s: s.update({"decoder.weight": torch.zeros(1)}), "not known: decoder.weight"),
        (lambda s: s.update({"Align_T.0.weight": torch.zeros(3, 32)}), r"Align_T\.0\.weight \(3, 32\)"),
        (lambda s: s.update({"fc.bias": torch.tensor(0.0)}), r"fc\.bias \(\) instead of \(3,\)"),
        (
            lambda s: s.update({"Attention.shared_text_encoding.LSTM.weight_ih_l0": torch.tensor(0.0)}),
            r"weight_ih_l0 \(\) instead of",
        ),
        (lambda s: s.update({"fc.weight": torch.zeros(2, 64)}), r"fc\.weight \(2, 64\) instead of \(3, 64\)"),
    ],
)
def test_a_missing_an_extra_and_a_misshapen_tensor_are_named(released, change, named):
    state = dict(released.state_dict())
    change(state)
    with pytest.raises(UserError, match=named):
        make_model(state, CLASSES)


def test_an_encoder_that_does_not_fit_is_named_and_leaves_nothing(released, tmp_path):
    vocabulary = save_bert(tmp_path / "vocabulary", WORDS)
    state = dict(released.state_dict())
    name = "text_encoder.bert.encoder.layer.3.output.dense.bias"
    del state[name]
    with pytest.raises(UserError, match=f"missing: {name}"):
        write_checkpoint(state, CLASSES, str(vocabulary), tmp_path / "to")
    state = dict(released.state_dict())
    del state["image_encoder.net.layer1.0.conv1.weight"]
    with pytest.raises(UserError, match=r"missing: layer1\.0\.conv1\.weight"):
        write_checkpoint(state, CLASSES, str(vocabulary), tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary"]


def test_names_of_data_parallel_are_taken(released, tmp_path):
    torch.save({f"module.{n}": t for n, t in released.state_dict().items()}, tmp_path / "x.pth")
    make_model(read_checkpoint(tmp_path / "x.pth"), CLASSES)


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_nothing_pickled_is_executed(tmp_path):
    torch.save({"fc.weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UserError, match=r"trap\.pth: cannot be read as a state dict"):
        read_checkpoint(tmp_path / "trap.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "trap.pth").read_bytes()[:50])
    with pytest.raises(UserError, match=r"cut\.pth: cannot be read"):
        read_checkpoint(tmp_path / "cut.pth")
    for other in ([1, 2], {1: torch.zeros(1)}, {"fc.weight": 1}):
        torch.save(other, tmp_path / "other.pth")
        with pytest.raises(UserError, match="expected a state dict of tensors"):
            read_checkpoint(tmp_path / "other.pth")
