"""The authors' checkpoint (a `.pth` state dict) as this project's model and encoders.

Nothing pickled is executed: torch reads tensors and nothing else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch

import spp_scl.encoders.torchvision_ops  # noqa: F401  (before transformers)

# isort: split
from transformers import AutoConfig, AutoTokenizer, BertModel

from spp_scl.batches.batch import Sizes
from spp_scl.encoders.image import load_image_encoder
from spp_scl.encoders.state_dict import read_state_dict, require_fit
from spp_scl.encoders.text import load_text_encoder
from spp_scl.errors import UserError, first_line
from spp_scl.files import replacing
from spp_scl.methods.spp_scl import Params, SppScl
from spp_scl.training.artifact import Artifact, save_model

IMAGE_ENCODER, TEXT_ENCODER = "image_encoder.net.", "text_encoder.bert."

# Their names and ours, of the trainable part.
_NAMES = {
    "Attention.fc.": "text_branch.attention.fc.",
    "Attention.shared_text_encoding.LSTM.": "text_branch.lstm.",
    "Align_Module_T.shared_text_linear.": "text_branch.mlp.",
    "Align_T.": "text_branch.align.",
    "Conv_I.0.": "image_branch.conv.",
    "Conv_I.1.": "image_branch.norm.",
    "Align_Module_I.shared_image_linear.": "image_branch.mlp.",
    "Align_I.": "image_branch.align.",
    **{
        f"{letter}_{modality[0].upper()}.": f"fusion.{modality}.{part}."
        for modality in ("text", "image")
        for letter, part in (("Q", "query"), ("K", "key"), ("V", "value"))
    },
    "classifier.": "classifier.",
    "fc.": "fc.",
}

# What evaluation never reads, and files of other versions of the libraries have or lack.
_IGNORED = ("num_batches_tracked", "position_ids")

# How the released code trains, as far as it decides a prediction or is told by `model.json`.
_RELEASED = Params(
    epochs=150,
    batch_size=64,
    learning_rate=1e-4,
    weight_decay=1e-6,
    lr_step=10,
    lr_decay=0.5,
    alpha=2 / 3,
    fusion="batch",
    dropout=0.2,
    layers="attention",
    modalities="both",
    ce_weight=5.0,
    intra_modal=True,
    anchor_in_denominator=True,
    step2="gated",
    step2_forward="whole",
    anchors="text",
    gate="float32",
    zero_grad="zeros",
    temperature=0.07,
)

_NOT_RELEASED = "not a checkpoint in the released layout"


def read_checkpoint(path: Path | str) -> dict[str, torch.Tensor]:
    """Read a state dict.

    Raises:
        UserError: it is missing, damaged, or holds anything but named tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    # As `DataParallel` names them.
    return {name.removeprefix("module."): t for name, t in read_state_dict(path, str(path)).items()}


def make_model(state: Mapping[str, torch.Tensor], classes: Sequence[str]) -> SppScl:
    """The trainable part, in evaluation mode, with `fusion: batch`.

    Args:
        state: the whole checkpoint; the encoders in it are left out here.
        classes: names, in the order of the outputs. The released network has three outputs for two-class
            data too; the outputs behind the last class are cut off.

    Raises:
        UserError: tensors are missing, not known or of another shape.
    """
    ours, unknown = {}, []
    for name, tensor in state.items():
        if name.startswith((IMAGE_ENCODER, TEXT_ENCODER)):
            continue
        prefix = next((theirs for theirs in _NAMES if name.startswith(theirs)), None)
        if prefix is None:
            unknown.append(name)
        else:
            ours[_NAMES[prefix] + name.removeprefix(prefix)] = (name, tensor)
    _, weight = ours.get("text_branch.lstm.weight_ih_l0", ("", torch.empty(0, 768)))
    width = weight.shape[-1] if weight.dim() else 768
    sizes = Sizes(len(classes), 4, width, 49, 2048, torch.zeros(0, 0))
    model = SppScl(_RELEASED, sizes)
    wanted = model.state_dict()
    back = {value: key for key, value in _NAMES.items()}
    missing, misshapen, fitting = [], [], {}
    for name, own in wanted.items():
        if name not in ours:
            prefix = max((p for p in back if name.startswith(p)), key=len)
            if not name.endswith(_IGNORED):
                missing.append(back[prefix] + name.removeprefix(prefix))
            continue
        theirs, tensor = ours.pop(name)
        if name == "image_branch.conv.weight" and tensor.dim() == 4:
            tensor = tensor.flatten(1)  # a 1 x 1 convolution
        if name.startswith("fc.") and tensor.dim() and len(tensor) > len(classes):
            tensor = tensor[: len(classes)]
        if tensor.shape != own.shape:
            misshapen.append(f"{theirs} {tuple(tensor.shape)} instead of {tuple(own.shape)}")
        fitting[name] = tensor
    unknown += [theirs for theirs, _ in ours.values()]
    require_fit(missing, unknown, misshapen, _NOT_RELEASED)
    model.load_state_dict({**wanted, **fitting})
    return model.eval()


def write_checkpoint(
    state: Mapping[str, torch.Tensor], classes: Sequence[str], text_encoder: str, folder: Path | str
) -> None:
    """Write all of a checkpoint as this project reads it: `model.safetensors` and `model.json`, the pictures'
    encoder `resnet50.safetensors`, and the texts' encoder in the folder `bert`.

    Args:
        state: the checkpoint.
        classes: see `make_model`.
        text_encoder: a hub name or a local directory with the configuration and the vocabulary of its BERT,
            which the checkpoint has not.
        folder: the folder to make; replaced as a whole when everything fits.

    Raises:
        UserError: tensors are missing, not known or of another shape, or the vocabulary cannot be had.
    """
    model = make_model(state, classes)
    with replacing(folder) as aside:
        aside.mkdir()
        image = {n.removeprefix(IMAGE_ENCODER): t for n, t in state.items() if n.startswith(IMAGE_ENCODER)}
        resnet = aside / "resnet50.safetensors"
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in image.items()}, resnet)
        load_image_encoder(str(resnet), seed=0)  # refuses what does not fit
        _write_bert(state, text_encoder, aside / "bert")
        load_text_encoder(str(aside / "bert"), 0, [], max_positions=202)
        artifact = Artifact(
            method="spp_scl",
            settings=model.params.model_dump(),
            sizes=model.sizes.numbers(),
            classes=list(classes),
        )
        save_model(aside / "model.safetensors", model, artifact)


def _write_bert(state: Mapping[str, torch.Tensor], source: str, folder: Path) -> None:
    try:
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # no network, no such name, a damaged file: each has its own
        raise UserError(
            f"the configuration and vocabulary of {source} cannot be had ({first_line(error)}); "
            "give a local directory that has them (--text-encoder)"
        ) from None
    bert = BertModel(config, add_pooling_layer=False)
    theirs = {
        n.removeprefix(TEXT_ENCODER): t
        for n, t in state.items()
        if n.startswith(TEXT_ENCODER) and not n.startswith(f"{TEXT_ENCODER}pooler.")
    }
    own = bert.state_dict()
    missing = [TEXT_ENCODER + n for n in own.keys() - theirs.keys() if not n.endswith(_IGNORED)]
    unknown = [TEXT_ENCODER + n for n in theirs.keys() - own.keys() if not n.endswith(_IGNORED)]
    misshapen = [
        f"{TEXT_ENCODER}{n} {tuple(theirs[n].shape)} instead of {tuple(own[n].shape)}"
        for n in own.keys() & theirs.keys()
        if own[n].shape != theirs[n].shape
    ]
    require_fit(missing, unknown, misshapen, _NOT_RELEASED)
    bert.load_state_dict({**own, **{n: t for n, t in theirs.items() if n in own}})
    bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
