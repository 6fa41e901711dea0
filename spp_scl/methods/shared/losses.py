"""The contrastive losses (Khosla et al. 2020, "Supervised Contrastive Learning", the L_out form).

Shapes: B batch, K width.
"""

import torch
import torch.nn.functional as F


def intra_modal_loss(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    anchor_in_denominator: bool = False,
) -> torch.Tensor:
    """L_cli or L_clt: each sample against the others of its own modality.

    The anchor itself is neither a positive nor, by the equation, in the denominator.

    Args:
        embeddings: (B, K); they are l2-normalized here.
        labels: (B,).
        temperature: tau.
        anchor_in_denominator: whether the anchor stays in the denominator, as if its similarity to itself
            were 0: what the released code does.

    Returns:
        The mean over all B anchors, a scalar; an anchor without a positive counts 0.
    """
    z = F.normalize(embeddings, dim=1)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = z @ z.T / temperature
    if anchor_in_denominator:
        return _contrast(logits.masked_fill(itself, 0), _same(labels) & ~itself, torch.ones_like(itself))
    return _contrast(logits, _same(labels) & ~itself, ~itself)


def inter_modal_loss(
    image: torch.Tensor, text: torch.Tensor, labels: torch.Tensor, temperature: float
) -> torch.Tensor:
    """L_clm: each image against all texts; its own text is a positive as any of its label.

    Args:
        image: (B, K), the anchors.
        text: (B, K).
        labels: (B,).
        temperature: tau.

    Returns:
        The mean over the B anchors, a scalar.
    """
    logits = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T / temperature
    return _contrast(logits, _same(labels), torch.ones_like(logits, dtype=torch.bool))


def label_contrast(
    vectors: torch.Tensor, labels: torch.Tensor, temperature: float, *, inside: bool, pairs: bool
) -> torch.Tensor:
    """CLMLF's LBCL (Algorithm 1): each sample against all of its batch, itself among its positives.

    Args:
        vectors: (B, K), as they are, not normalized.
        labels: (B,).
        temperature: tau.
        inside: whether tau divides the products, as written; else the loss, as released.
        pairs: whether all pairs of a label weigh the same, as released; else all anchors.
    """
    products = vectors @ vectors.T
    log_probability = (products / temperature if inside else products).log_softmax(dim=1)
    same = _same(labels)
    if pairs:
        loss = -log_probability[same].mean()
    else:
        loss = -(torch.where(same, log_probability, 0).sum(dim=1) / same.sum(dim=1)).mean()
    return loss if inside else loss / temperature


def view_contrast(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """CLMLF's DBCL (Algorithm 2): each sample's second view among those of its batch.

    Args:
        first: (n, K).
        second: (n, K), in the same order.
        temperature: tau.
    """
    target = torch.arange(len(first), device=first.device)
    return F.cross_entropy(first @ second.T / temperature, target)


def _same(labels: torch.Tensor) -> torch.Tensor:
    return labels[:, None] == labels[None, :]


def _contrast(logits: torch.Tensor, positives: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    # Not -inf: an anchor without any candidate (a batch of one) must not give a NaN, not even a gradient.
    masked = logits.masked_fill(~candidates, torch.finfo(logits.dtype).min)
    log_probability = logits - masked.logsumexp(dim=1, keepdim=True)
    total = torch.where(positives, log_probability, 0).sum(dim=1)
    return -(total / positives.sum(dim=1).clamp(min=1)).mean()
