"""Losses and scores of single models and of populations, for single-label and multi-label samples.

Notation: batch B, N samples, C classes. Outputs are logits (..., B, C) or, with multitask, tuples of them; leading
dimensions are the members of a population. Labels are (B,), or (B, C) if multi-label.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from models.fusion import Outputs


def losses(outputs: Outputs, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the mean loss of every member, shape (...); with multitask the sum over the outputs.

    It is cross entropy for labels (B,) and binary cross entropy for multi-label labels (B, C), in float32 or float64.

    Args:
        weights: of each class (C,), for labels (B,); None: all the same.
    """
    if isinstance(outputs, tuple):
        return sum((losses(out, labels, weights) for out in outputs[1:]), losses(outputs[0], labels, weights))
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    if labels.ndim == 2:
        targets = labels.expand_as(outputs).to(outputs.dtype)
        return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none").mean((-2, -1))
    members = outputs.shape[:-2]
    flat = outputs.reshape(-1, outputs.shape[-1])  # (members x B, C)
    repeated = labels.expand(*members, len(labels)).reshape(-1)
    each = F.cross_entropy(flat, repeated, weights, reduction="none").view(*members, len(labels))
    return each.mean(-1) if weights is None else each.sum(-1) / weights[labels].sum()


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights (C,) inversely proportional to the frequency of each class in labels (N,); 0 for absent classes."""
    counts = labels.bincount(minlength=classes)
    return torch.where(counts > 0, len(labels) / (classes * counts.clamp(min=1)), 0.0).float()


def cutoff(threshold: float) -> float:
    """Logit of a probability: multi-label classes with larger logits are predicted."""
    return math.log(threshold / (1 - threshold))


def scores(outputs: Outputs, threshold: float = 0.5) -> Tensor:
    """Return the scores (..., B, C) of predictions: the logits, with multitask the sum of all outputs (published).

    Args:
        threshold: probability above which a class of multi-label samples is predicted; its score is then above 0.
    """
    together = sum(outputs[1:], outputs[0]) if isinstance(outputs, tuple) else outputs
    return together if threshold == 0.5 else together - cutoff(threshold)


def correct(predicted: Tensor, labels: Tensor) -> Tensor:
    """Score each sample, (..., N), from scores (..., N, C); if multi-label, by its share of correct classes."""
    if labels.ndim == 2:
        return ((predicted > 0) == (labels > 0)).float().mean(-1)
    return predicted.argmax(-1) == labels


def accuracy(predicted: Tensor, labels: Tensor) -> Tensor:
    """Compute the share of correct predictions, shape (...), from scores (..., N, C); NaN if a score is not finite.

    For multi-label samples this is the weighted F1.
    """
    if labels.ndim == 2:
        reached = weighted_f1(predicted > 0, labels > 0)
    else:
        reached = correct(predicted, labels).float().mean(-1)
    return reached.where(predicted.isfinite().flatten(-2).all(-1), torch.nan)


def weighted_f1(predicted: Tensor, labels: Tensor) -> Tensor:
    """Average F1 over classes, weighted by class frequency, shape (...), from booleans (..., N, C) and (N, C)."""
    occurring = labels.sum(-2)  # (C,)
    by_class = 2 * (predicted & labels).sum(-2) / (predicted.sum(-2) + occurring).clamp(min=1)  # (..., C)
    return (by_class * occurring).sum(-1) / occurring.sum().clamp(min=1)
