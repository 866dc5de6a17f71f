"""The one loop that trains and evaluates: unimodal nets, fusion networks, and whole populations of them.

A model returns logits (..., B, C) or, with multitask, a tuple of such tensors. Leading dimensions are members of a
population: every member has its own loss and accuracy, and what is minimised is the sum of the members' losses.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.batches import Batch

Outputs = Tensor | tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """Means over one pass; tensors of shape () or, for a population, (K,)."""

    loss: Tensor
    accuracy: Tensor


def losses(outputs: Outputs, labels: Tensor) -> Tensor:
    """Mean cross entropy of every member, shape (...); with multitask the sum over the outputs."""
    if isinstance(outputs, tuple):
        return sum((losses(out, labels) for out in outputs[1:]), losses(outputs[0], labels))
    members = outputs.shape[:-2]
    flat = outputs.float().reshape(-1, outputs.shape[-1])  # (members x B, C)
    repeated = labels.expand(*members, len(labels)).reshape(-1)
    return F.cross_entropy(flat, repeated, reduction="none").view(*members, len(labels)).mean(-1)


def scores(outputs: Outputs) -> Tensor:
    """What is predicted from, (..., B, C): the logits, with multitask the sum of all outputs (published)."""
    return sum(outputs[1:], outputs[0]) if isinstance(outputs, tuple) else outputs


def autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager:
    """bfloat16 autocast where asked for."""
    return torch.autocast(device.type, torch.bfloat16) if enabled else contextlib.nullcontext()


def train_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    rates: Iterator[float] | None = None,
    amp: bool = False,
) -> EpochResult:
    """One pass of training; the learning rate is set before every batch from `rates` if given.

    The caller puts the model into the mode it wants: the published search trains with frozen backbones in train mode.
    """
    device = next(model.parameters()).device
    total_loss, total_correct, count = 0.0, 0.0, 0
    for inputs, labels in batches:
        if rates is not None:
            rate = next(rates)
            for group in optimizer.param_groups:
                group["lr"] = rate
        with autocast(device, amp):
            outputs = model(*inputs)
        loss = losses(outputs, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimizer.step()
        total_loss = total_loss + loss.detach() * len(labels)
        total_correct = total_correct + (scores(outputs).argmax(-1) == labels).sum(-1)
        count += len(labels)
    return EpochResult(total_loss / count, total_correct / count)


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable[Batch], amp: bool = False) -> Tensor:
    """Scores (..., N, C) of all samples, in eval mode; the model's modes are put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    model.eval()
    try:
        with autocast(device, amp):
            parts = [scores(model(*inputs)).float() for inputs, _ in batches]
    finally:
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(parts, dim=-2)


def accuracy(predicted: Tensor, labels: Tensor) -> Tensor:
    """Share of correct predictions from scores (..., N, C), shape (...)."""
    return (predicted.argmax(-1) == labels).float().mean(-1)


def evaluate(model: nn.Module, batches: Iterable[Batch], labels: Tensor, amp: bool = False) -> Tensor:
    """Accuracy over one pass in order, shape () or (K,); `labels` are those of the whole split."""
    return accuracy(predict(model, batches, amp), labels)
