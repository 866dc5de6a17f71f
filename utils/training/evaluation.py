"""Evaluate models: scores, accuracy and correct predictions on a split, features and logits of unimodal networks.

A model returns logits (..., B, C) or, with multitask, a tuple of such tensors; leading dimensions are the members of a
population.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork, HeadSettings
from utils.training.batches import Split
from utils.training.metrics import correct, losses, scores, weighted_f1
from utils.training.parallel import evaluated, joined


def threshold_of(model: nn.Module) -> float:
    """Probability above which a fusion network, or fusion heads, predict a class of multi-label samples."""
    settings = getattr(getattr(model, "module", model), "settings", None)  # unimodal networks have none
    return settings.threshold if isinstance(settings, HeadSettings) else 0.5


@torch.no_grad()
def predict(model: nn.Module, split: Split, spread: bool = False) -> Tensor:
    """Predict scores (..., N, C) of all samples in order, in eval mode and float32.

    Args:
        spread: over the processes of the run, all of which must call this.
    """
    batches = split.batches(split.evaluation_batch)
    with eval_mode(model):
        own = evaluated(batches) if spread else batches
        parts = [scores(model(*inputs), threshold_of(model)) for inputs, _ in own]
    return torch.cat(joined(parts, split.labels.device) if spread else parts, dim=-2)


@torch.no_grad()
def judge(
    model: nn.Module,
    split: Split,
    batch_size: int | None = None,
    class_weights: Tensor | None = None,
    spread: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return `accuracy` (...), `correct` (..., N) and, of a single model, the loss () on a split.

    Computed batch by batch, since the scores of a population may be large.

    Args:
        class_weights: of the loss, (C,).
        spread: over the processes of the run, all of which must call this.
    """
    right, chosen, finite, loss = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    batches = split.batches(batch_size or split.evaluation_batch)
    with eval_mode(model):
        for inputs, labels in evaluated(batches) if spread else batches:
            outputs = model(*inputs)
            predicted = scores(outputs, threshold_of(model))
            if predicted.ndim == 2:  # a search, with its populations, does without
                loss.append(losses(outputs, labels, class_weights) * (len(labels) / len(split)))
            finite.append(predicted.isfinite().flatten(-2).all(-1))
            right.append(correct(predicted, labels))
            if labels.ndim == 2:
                chosen.append(predicted > 0)
    if spread:
        device = split.labels.device
        right, chosen, finite, loss = (joined(parts, device) for parts in (right, chosen, finite, loss))
    whole = torch.cat(right, dim=-1)
    reached = weighted_f1(torch.cat(chosen, dim=-2), split.labels > 0) if chosen else whole.float().mean(-1)
    reached = reached.where(torch.stack(finite).all(0), torch.nan)
    return reached, whole, torch.stack(loss).sum() if loss else None


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put all modules in eval mode, and restore their modes afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def evaluate(model: nn.Module, split: Split, spread: bool = False) -> Tensor:
    """Compute the accuracy on a split, shape () or (K,); see `judge`."""
    return judge(model, split, spread=spread)[0]


@torch.no_grad()
def unimodal_outputs(network: FusionNetwork, split: Split) -> tuple[list[Tensor], list[Tensor]]:
    """Last feature (N, D) and logits (N, C) of each unimodal network, first modality first, in eval mode.

    There may be no logits.
    """
    last, outputs = list[list[Tensor]](), list[list[Tensor]]()
    with eval_mode(network):
        for inputs, _ in split.batches(split.evaluation_batch):
            features, logits = network.unimodal(*inputs)
            last.append([modality[-1] for modality in features])
            outputs.append(logits)
    return [torch.cat(x) for x in zip(*last, strict=True)], [torch.cat(x) for x in zip(*outputs, strict=True)]
