"""The training step as one writes it first: the same parameters and equations, padded, in float32.

Also what the step's speed is bought with: nothing, for both give the same numbers up to rounding
(tests/test_network.py).
"""

import torch
import torch.nn.functional as F
from torch import nn

from spp_scl.features.store import ImageFeatures, TextFeatures
from spp_scl.methods.shared.fusion import SampleFusion
from spp_scl.methods.shared.gate import gate
from spp_scl.methods.shared.layers import masked_mean
from spp_scl.methods.shared.losses import inter_modal_loss, intra_modal_loss
from spp_scl.methods.shared.method import Output
from spp_scl.methods.spp_scl import HierarchicalAttention, SppScl


def pad(images: ImageFeatures, texts: TextFeatures, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Words (B, T, 4, D), their mask (B, T), [CLS] (B, 4, D) and maps (B, 49, 2048), in float32."""
    own = [texts.words[texts.offsets[row] : texts.offsets[row + 1]].float() for row in rows.tolist()]
    words = nn.utils.rnn.pad_sequence(own, batch_first=True)
    lengths = torch.tensor([len(w) for w in own])
    mask = torch.arange(words.shape[1]) < lengths[:, None]
    return words, mask, texts.cls[rows].float(), images.maps[images.index[rows]].float()


def forward(model: SppScl, words, mask, cls, maps) -> Output:
    """The whole forward pass of `fusion: sample`, for rows with a text and a picture."""
    text_branch, image_branch, fusion = model.text_branch, model.image_branch, model.fusion
    assert text_branch is not None
    assert image_branch is not None
    assert isinstance(fusion, SampleFusion)
    assert isinstance(text_branch.attention, HierarchicalAttention)
    weights = text_branch.attention.fc(cls.mean(dim=2)).sigmoid()
    inputs = torch.einsum("btld,bl->btd", words, weights) * mask[:, :, None]
    states, _ = text_branch.lstm(inputs.transpose(0, 1))
    tokens = states.transpose(0, 1) * mask[:, :, None]
    text = text_branch.align(text_branch.mlp(masked_mean(tokens, mask)))
    x = image_branch.conv(maps)
    x = image_branch.norm(x.flatten(0, 1)).view_as(x)
    positions = image_branch.dropout(F.relu(x))
    image = image_branch.align(image_branch.mlp(positions.mean(dim=1)))
    words_out = fusion.text(fusion.text_in(tokens), image[:, None], mask)
    positions_out = fusion.image(fusion.image_in(positions), text[:, None])
    streams = [masked_mean(words_out, mask), positions_out.mean(dim=1)]
    fused = model.classifier(torch.cat([*streams, image, text], dim=1))
    return Output(model.fc(fused), {"fused": fused, "text": text, "image": image})


def step(model: SppScl, run, optimizer, labels) -> None:
    """Both steps of the method on one batch; `run` is its forward pass."""
    params = model.params
    output = run()
    text, image = output.vectors["text"], output.vectors["image"]
    loss = params.ce_weight * F.cross_entropy(output.logits, labels)
    loss = loss + intra_modal_loss(text, labels, params.temperature)
    loss = loss + intra_modal_loss(image, labels, params.temperature)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    output = run()
    text, image = output.vectors["text"], output.vectors["image"]
    if gate(text, image, labels, params.alpha).step2:
        optimizer.zero_grad()
        inter_modal_loss(image, text, labels, params.temperature).backward()
        optimizer.step()
