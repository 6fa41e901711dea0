"""SPP-SCL as the tests build and train it: small steps, and the defaults of `params.yaml` otherwise."""

import dataclasses

import torch

from spp_scl.batches.batch import Batch, Sizes, Text
from spp_scl.methods.spp_scl import Params, SppScl
from spp_scl.params import FinetunedParams, TrainParams
from spp_scl.training.artifact import Artifact
from spp_scl.training.log import TrainingLog
from spp_scl.training.recipe import TrainingRecipe
from spp_scl.training.state import TrainingState
from spp_scl.training.updates import Updates

SETTINGS = Params(
    epochs=3,
    batch_size=16,
    learning_rate=1e-3,
    weight_decay=1e-6,
    lr_step=2,
    lr_decay=0.5,
    alpha=2 / 3,
    fusion="sample",
    dropout=0.2,
    layers="attention",
    modalities="both",
    ce_weight=5.0,
    intra_modal=True,
    anchor_in_denominator=False,
    step2="gated",
    step2_forward="branches",
    anchors="image",
    gate="exact",
    zero_grad="none",
    temperature=0.07,
)
FINETUNED = FinetunedParams(
    learning_rate=0.1,
    weight_decay=0.0,
    warmup=0.0,
    decay="none",
    clip=0.0,
    accumulation=1,
    frozen_epochs=0,
    precision="fp32",
)
TRAIN = TrainParams(patience=0, keep="best", threads=2, processes=1, weights="trained")


def make_settings(**changes):
    return Params(**{**SETTINGS.model_dump(), **changes})


def make_recipe(**changes):
    return TrainingRecipe("spp_scl", make_settings(**changes), "frozen", {}, None)


def sizes_of(data):
    return data.source.sizes(len(data.classes))


def make_sizes(classes=3, width=768):
    """Of BERT's and ResNet-50's features."""
    return Sizes(classes, 4, width, 49, 2048, torch.zeros(0, 0))


def make_network(sizes, **changes):
    return SppScl(make_settings(**changes), sizes)


def start(model):
    """The state of a training of this network, before its first batch."""
    recipe = TrainingRecipe("spp_scl", model.params, "frozen", {}, None)
    return TrainingState(model, Updates(model, recipe, 1), torch.Generator(), TrainingLog.of(SppScl))


def widen(batch: Batch) -> Batch:
    """The same batch in float64."""
    read, maps = batch.text(), batch.image().double()
    text = Text(read.words.double(), read.cls.double())
    return dataclasses.replace(batch, text=lambda: text, image=lambda: maps)


def make_artifact(data, model, **changes):
    """What stands beside a network that has frozen encoders."""
    about = Artifact(
        method="spp_scl",
        settings=model.params.model_dump(),
        sizes=model.sizes.numbers(),
        classes=data.classes,
        features=data.fingerprint,
    )
    return dataclasses.replace(about, **changes)
