"""The one loop that trains and evaluates: unimodal nets, fusion networks, and whole populations of them.

A model returns logits (..., B, C) or, with multitask, a tuple of such tensors. Leading dimensions are members of a
population: every member has its own loss and accuracy, and what is minimised is the sum of the members' losses.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.batches import Batch, SizedBatches, Split
from utils.schedules import cosine_rates
from utils.seeds import derive_seed

Outputs = Tensor | tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """Means over one pass; tensors of shape () or, for a population, (K,). None: not computed."""

    loss: Tensor | None = None
    accuracy: Tensor | None = None
    dev_accuracy: Tensor | None = None
    rate: float | None = None  # learning rate of the last batch


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How fusion networks are trained (published names and defaults)."""

    epochs: int = 3
    batchsize: int = 32
    eta_max: float = 1e-3
    eta_min: float = 1e-6
    Ti: float = 1
    Tm: float = 2
    weight_decay: float = 1e-4
    seed: int = 0

    def rates(self, batches_per_epoch: int) -> Iterator[float]:
        """Learning rates batch by batch."""
        return cosine_rates(self.eta_max, self.eta_min, self.Ti, self.Tm, batches_per_epoch)


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network, and give the weights of the networks in it the layout in which they are fastest."""
    network.to(device)
    for module in network.modules():
        if hasattr(module, "memory_format"):
            module.to(memory_format=module.memory_format)
    return network


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """How many threads an operation on CPUs may use."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    total_loss, total_correct, count, rate = 0.0, 0.0, 0, None
    for inputs, labels in batches:
        if rates is not None:
            rate = next(rates)
            set_rate(optimizer, rate)
        with autocast(device, amp):
            outputs = model(*inputs)
        loss = losses(outputs, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimizer.step()
        total_loss = total_loss + loss.detach() * len(labels)
        total_correct = total_correct + (scores(outputs).argmax(-1) == labels).sum(-1)
        count += len(labels)
    return EpochResult(total_loss / count, total_correct / count, rate=rate)


@torch.no_grad()
def predict(model: nn.Module, split: Split, batch_size: int | None = None) -> Tensor:
    """Scores (..., N, C) of all samples in order, in eval mode and float32; modes are put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        parts = [scores(model(*inputs)) for inputs, _ in split.batches(batch_size or split.evaluation_batch)]
    finally:
        for module, mode in modes.items():
            module.training = mode
    return torch.cat(parts, dim=-2)


def accuracy(predicted: Tensor, labels: Tensor) -> Tensor:
    """Share of correct predictions from scores (..., N, C), shape (...)."""
    return (predicted.argmax(-1) == labels).float().mean(-1)


def evaluate(model: nn.Module, split: Split, batch_size: int | None = None) -> Tensor:
    """Accuracy on a split, shape () or (K,)."""
    return accuracy(predict(model, split, batch_size), split.labels)


def adam(parameters: Sequence[nn.Parameter], settings: TrainingSettings, capturable: bool = False) -> torch.optim.Adam:
    """The published optimizer of fusion networks; `capturable`: for a CUDA graph, its learning rate is a tensor."""
    rate = torch.tensor(settings.eta_max, device=parameters[0].device) if capturable else settings.eta_max
    return torch.optim.Adam(parameters, lr=rate, weight_decay=settings.weight_decay, fused=True, capturable=capturable)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate; one that is a tensor stays where it is."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


TrainPass = Callable[[SizedBatches, Iterator[float]], EpochResult]


def adam_passes(
    model: nn.Module,
    parameters: Sequence[nn.Parameter],
    settings: TrainingSettings,
    prepare: Callable[[], None],
    amp: bool = False,
) -> TrainPass:
    """What trains `parameters` of a model on one pass after the other; `prepare` puts it into its training mode."""
    optimizer = adam(parameters, settings)

    def train_pass(batches: SizedBatches, rates: Iterator[float]) -> EpochResult:
        prepare()
        return train_epoch(model, batches, optimizer, rates, amp)

    return train_pass


def train_and_evaluate(
    model: nn.Module,
    splits: Mapping[str, Split],
    settings: TrainingSettings,
    train_pass: TrainPass,
    place: tuple[int | str, ...],
    epochs: int,
    dev_batch: int | None = None,
    first_pass: int = 0,
) -> Iterator[EpochResult]:
    """Epochs under the cosine rate, each followed by the dev split; yields each epoch's result.

    Args:
        train_pass: trains the model on one pass, given its batches and the learning rate of each.
        place: where in the run this is, such as (step,); orders and dropout derive from it, the seed and the epoch.
        first_pass: over the training split, of the first epoch.
    """
    rates: Iterator[float] | None = None
    for epoch in range(epochs):
        train = splits["train"].at_pass(first_pass + epoch)
        batches = train.batches(settings.batchsize, (settings.seed, "shuffle", *place, epoch))
        rates = rates or settings.rates(len(batches))
        torch.manual_seed(derive_seed(settings.seed, "dropout", *place, epoch))
        result = train_pass(batches, rates)
        yield dataclasses.replace(result, dev_accuracy=evaluate(model, splits["dev"], dev_batch))
