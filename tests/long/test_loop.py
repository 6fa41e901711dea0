"""The pipeline with the encoders in the loop, as a user runs it: live and finetuned, with small encoders."""

import json
import signal
import subprocess
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from spp_scl.encoders.parallel import run_shared, synchronize
from spp_scl.training.artifact import load_model
from spp_scl.training.processes import together
from tests.pipeline import ENVIRONMENT, ran, run, set_params, small_clone, stage
from tests.small_encoders import TEXT, TIMM

CHECKPOINT = "reports/.checkpoint.tmp"
ENCODERS = {"image": TIMM["test_efficientnet"], "text": TEXT["bert"]}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A repository with its inputs prepared; nothing is trained yet."""
    folder = small_clone(tmp_path_factory.mktemp("clone"), epochs=2)
    weights = {name: save(folder / "encoders" / name) for name, save in ENCODERS.items()}
    set_params(
        folder,
        encoders="finetuned",
        method="concat",
        concat={"epochs": 3, "batch_size": 16},
        image_features={"weights": str(weights["image"])},
        text_features={"weights": str(weights["text"])},
        finetuned={"learning_rate": 0.001},
    )
    run(folder, "dvc", "repro")
    return folder


def weights_before_and_after(folder, name):
    """Of the matrices and kernels of an encoder in the model's file."""
    model, _ = load_model(folder / "models/model.safetensors")
    before = load_file(folder / "encoders" / name / "model.safetensors")
    pairs = []
    for own, tensor in model.encoders[name].named_parameters():
        # Of a network's names the file has less in front.
        known = [before[file] for file in before if own.endswith(file)]
        if known and tensor.dim() > 1:
            pairs.append((known[0], tensor))
    assert len(pairs) > 5
    return pairs


def read(folder):
    files = ("models/model.safetensors", "reports/predictions.csv", "reports/train/epochs.csv")
    return {name: (folder / name).read_bytes() for name in files}


def test_a_finetuned_model_has_encoders_that_moved_and_is_reported_like_any(clone):
    about = json.loads((clone / "models/model.json").read_text())
    assert set(about["encoders"]) == {"image", "text"}
    for name in about["encoders"]:
        assert any(not torch.equal(*pair) for pair in weights_before_and_after(clone, name)), name
    predictions = pd.read_csv(clone / "reports/predictions.csv")
    assert set(predictions["split"]) == {"valid", "test"}
    assert predictions.filter(like="p_").sum(axis=1).to_numpy() == pytest.approx(1)
    coupling = json.loads((clone / "reports/audit.json").read_text())["coupling"]
    assert coupling["one_at_a_time"]["changed"] == 0
    assert (clone / "reports/tsne.png").is_file()


def test_a_finetuning_that_is_killed_goes_on_to_the_same_bytes(clone):
    wanted = read(clone)
    run(clone, "rm", "-rf", "models/model.safetensors", "models/model.json", "reports/train")
    training = subprocess.Popen(
        ["python", "-m", "stages.train"], cwd=clone, env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (clone / CHECKPOINT).exists() and training.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    training.send_signal(signal.SIGKILL)
    assert training.wait(60) == -signal.SIGKILL
    assert not (clone / "models/model.safetensors").exists()
    assert "going on after epoch" in stage(clone, "train")
    stage(clone, "evaluate")
    assert read(clone) == wanted
    assert not (clone / CHECKPOINT).exists()


def test_live_encoders_train_the_method_and_stay_as_they_are(clone):
    set_params(clone, encoders="live", method="spp_scl")
    # The inputs are those of finetuning, and so are the floors.
    assert "floors" not in ran(run(clone, "dvc", "repro"))
    about = json.loads((clone / "models/model.json").read_text())
    assert (about["method"], about["precision"]) == ("spp_scl", "fp32")
    for name in ("image", "text"):
        assert all(torch.equal(*pair) for pair in weights_before_and_after(clone, name)), name
    assert "valid" in json.loads((clone / "reports/metrics.json").read_text())


def test_processes_that_train_together_give_the_same_bytes_again(clone):
    set_params(clone, encoders="finetuned", method="concat", train={"processes": 2})
    stage(clone, "recipe")
    found = []
    for _ in range(2):
        stage(clone, "train")
        model = load_file(clone / "models/model.safetensors")
        found.append(((clone / "models/model.safetensors").read_bytes(), model))
    assert found[0][0] == found[1][0]
    assert all(tensor.isfinite().all() for tensor in found[0][1].values())
    assert json.loads((clone / "models/model.json").read_text())["training"]["epochs"] == 3
    assert len(pd.read_csv(clone / "reports/train/epochs.csv")) == 3


def gradients(rows, path=None):
    """Of a loss that compares every row with every other, of the encoder and of what stands behind it."""
    torch.manual_seed(3)
    encoder, head = nn.Sequential(nn.Linear(4, 6), nn.Tanh()), nn.Linear(6, 5)
    vectors = head(run_shared(encoder, torch.randn(rows, 4)))
    (vectors @ vectors.T).exp().sum().log().backward()
    synchronize(encoder)
    found = [parameter.grad for module in (encoder, head) for parameter in module.parameters()]
    if path is not None:
        torch.save(found, path)
    return found


def fail():
    raise ValueError("no such row")


def test_the_error_of_another_process_is_told():
    with pytest.raises(Exception, match="no such row"), together(2, fail):
        gradients(4)


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_shares_of_a_batch_give_the_gradients_of_the_whole(rows, tmp_path):
    whole = gradients(rows)
    with together(3, gradients, rows, tmp_path / "other"):
        first = gradients(rows)
    for found in (first, torch.load(tmp_path / "other")):
        for one, wanted in zip(found, whole, strict=True):
            torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-6)
