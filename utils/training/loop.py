"""Train and evaluate: the one loop for unimodal networks, fusion networks, and populations of fusion heads.

A model returns logits (..., B, C) or, with multitask, a tuple of such tensors. Leading dimensions are the members of a
population: each member has its own loss and accuracy, and the sum of the members' losses is minimized.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils import distributed
from utils.errors import ProjectError
from utils.progress import show_batches
from utils.seeds import derive_seed
from utils.training.adam import Optimizer
from utils.training.batches import Batch, Batches, Split
from utils.training.devices import autocast
from utils.training.evaluation import judge, threshold_of
from utils.training.metrics import correct, losses, scores
from utils.training.parallel import share, share_statistics, total
from utils.training.rates import cosine_rates, onecycle_rates

CHECK_EVERY = 64  # batches between two checks of their losses: a check waits for the device


class Diverged(ProjectError):
    """A loss or an output is not finite."""

    def __init__(self, what: str, batch: int, rate: float | None, epoch: int = 0) -> None:
        super().__init__(
            f"the {what} is not finite in epoch {epoch}, batch {batch}, at learning rate {rate or 0:g}; "
            "a smaller learning rate may help"
        )
        self.what, self.batch, self.rate = what, batch, rate


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """Means over one pass, as tensors of shape () or, for a population, (K,); None if not computed."""

    loss: Tensor | None = None
    accuracy: Tensor | None = None
    dev_accuracy: Tensor | None = None
    dev_loss: Tensor | None = None  # of a single model
    dev_correct: Tensor | None = None  # of each sample, (N,) or (K, N); see `metrics.correct`
    rate: float | None = None  # learning rate of the last batch

    def figures(self) -> dict[str, float]:
        """Losses and accuracies of a single model as numbers."""
        parts = {"train_loss": self.loss, "train_accuracy": self.accuracy}
        parts |= {"dev_loss": self.dev_loss, "dev_accuracy": self.dev_accuracy}
        return {name: float(value) for name, value in parts.items() if value is not None and value.isfinite()}


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """Training of a fusion network (published names and defaults)."""

    epochs: int = 3
    batchsize: int = 32
    eta_max: float = 1e-3
    eta_min: float = 1e-6
    Ti: float = 1
    Tm: float = 2
    weight_decay: float = 1e-4
    schedule: str = "cosine"  # or "onecycle", over all epochs
    seed: int = 0
    balanced: bool = False  # weigh classes by the inverse of their frequency; found networks only
    patience: int | None = None  # stop after as many epochs without a better one on dev; found networks only

    def rates(self, batches_per_epoch: int) -> Iterator[float]:
        """Learning rates batch by batch."""
        if self.schedule == "onecycle":
            return onecycle_rates(self.eta_max, self.eta_min, self.epochs * batches_per_epoch)
        return cosine_rates(self.eta_max, self.eta_min, self.Ti, self.Tm, batches_per_epoch)


def train_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    rates: Iterator[float] | None = None,
    amp: bool = False,
    class_weights: Tensor | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> EpochResult:
    """Train for one pass, setting the learning rate before every batch from `rates` if given.

    The caller chooses the model's mode: the published search trains with frozen backbones in train mode.

    Args:
        sizes: with several processes, the samples of each batch that count here, and in all of them.
    """
    device = next(model.parameters()).device
    total_loss: Tensor | float = 0.0
    total_correct: Tensor | float = 0.0
    seen: list[tuple[int, float, Tensor]] = []  # number, learning rate and loss of the last batches
    count, rate = 0, None
    for number, (inputs, labels) in enumerate(batches):
        if rates is not None:
            rate = next(rates)
            set_rate(optimizer, rate)
        with autocast(device, amp):
            outputs = model(*inputs)
        loss = losses(outputs, labels, class_weights)
        optimizer.zero_grad(set_to_none=True)
        own, whole = sizes[number] if sizes else (len(labels), len(labels))
        objective = loss.sum()
        if sizes:  # the mean of the gradients over the processes is that of the loss over the whole batch
            objective = objective * (distributed.world() * own / whole)
        objective.backward()
        optimizer.step()
        total_loss = total_loss + loss.detach() * own
        right = correct(scores(outputs, threshold_of(model)).detach(), labels)
        total_correct = total_correct + right[..., :own].sum(-1)
        count += whole
        seen.append((number, float(optimizer.param_groups[0]["lr"]), loss.detach()))
        if len(seen) == CHECK_EVERY:
            _check_finite(seen)
            seen.clear()
    _check_finite(seen)
    if sizes:
        total_loss, total_correct = total(torch.as_tensor(total_loss), torch.as_tensor(total_correct))
    return EpochResult(torch.as_tensor(total_loss / count), torch.as_tensor(total_correct / count), rate=rate)


def _check_finite(seen: Sequence[tuple[int, float, Tensor]]) -> None:
    """Raise Diverged at the first NaN or infinite loss of a single model; a population's other members continue."""
    for number, rate, loss in seen:
        if loss.ndim == 0 and not loss.isfinite():
            raise Diverged("loss", number, rate)


def adam(parameters: Sequence[nn.Parameter], settings: TrainingSettings) -> torch.optim.Adam:
    """Make the published optimizer of fusion networks."""
    return torch.optim.Adam(parameters, lr=settings.eta_max, weight_decay=settings.weight_decay, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class TrainPass(Protocol):
    """One pass over the training split."""

    @property
    def optimizer(self) -> Optimizer: ...

    def __call__(self, batches: Batches, rates: Iterator[float], seed: int) -> EpochResult:
        """Train the model on the batches, each with its learning rate; everything random derives from the seed."""
        ...


@dataclasses.dataclass(frozen=True)
class ModelTraining:
    """Train a model by `train_epoch`; `prepare` sets its training mode."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    prepare: Callable[[], object]
    amp: bool = False
    verbose: bool = False  # long passes show their progress
    class_weights: Tensor | None = None  # of the loss, (C,)

    def __call__(self, batches: Batches, rates: Iterator[float], seed: int) -> EpochResult:
        own: Iterable[Batch] = batches
        sizes = None
        if isinstance(self.model, DistributedDataParallel):
            seed = derive_seed(seed, "process", distributed.rank())
            own, sizes = share(batches)
        torch.manual_seed(seed)
        self.prepare()
        shown = show_batches(own, self.verbose, len(batches))
        return train_epoch(self.model, shown, self.optimizer, rates, self.amp, self.class_weights, sizes)


class Schedule(Protocol):
    """Epochs, order of the batches and learning rates, such as `TrainingSettings`."""

    @property
    def epochs(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def batchsize(self) -> int: ...

    def rates(self, batches_per_epoch: int) -> Iterator[float]: ...


def train_and_evaluate(
    model: nn.Module,
    splits: Mapping[str, Split],
    schedule: Schedule,
    train_pass: TrainPass,
    place: tuple[int | str, ...],
    dev_batch: int | None = None,
    first_pass: int = 0,
    done: int = 0,
    class_weights: Tensor | None = None,
    spread: bool = False,
) -> Iterator[EpochResult]:
    """Train, evaluating on the dev split after every epoch; yield each epoch's result.

    Args:
        train_pass: trains the model for one pass.
        place: place in the run, such as (step,); batches and dropout derive from it, the seed and the epoch.
        first_pass: number of the first epoch's pass over the training split.
        done: epochs trained by an earlier process, whose model and optimizer have been restored.
        class_weights: of the loss on dev, (C,).
        spread: all processes of the run train this one model.
    """
    rates: Iterator[float] | None = None
    for epoch in range(done, schedule.epochs):
        train = splits["train"].at_pass(first_pass + epoch)
        batches = train.batches(schedule.batchsize, (schedule.seed, "shuffle", *place, epoch))
        rates = rates or itertools.islice(schedule.rates(len(batches)), done * len(batches), None)
        try:
            result = train_pass(batches, rates, derive_seed(schedule.seed, "dropout", *place, epoch))
            if spread:
                share_statistics(model)
            reached, right, loss = judge(model, splits["dev"], dev_batch, class_weights, spread)
            if reached.ndim == 0 and reached.isnan():
                raise Diverged("dev output", len(batches) - 1, result.rate)
        except Diverged as error:
            raise Diverged(error.what, error.batch, error.rate, first_pass + epoch) from None
        yield dataclasses.replace(result, dev_accuracy=reached, dev_correct=right, dev_loss=loss)
