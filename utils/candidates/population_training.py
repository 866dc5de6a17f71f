"""Train a population on a feature bank by autograd; on CUDA, forward and backward pass are replayed as graphs."""

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.population import Population
from utils.training.batches import ArraySplit, Batches
from utils.training.loop import EpochResult, TrainingSettings, adam, set_rate
from utils.training.metrics import losses

STEPS_AT_ONCE = 64  # most steps for which rows are gathered and dropout is drawn together
MASKS_AT_ONCE = 1 << 24  # most numbers in the dropout masks drawn together


class SumOfLosses(nn.Module):
    """Sum of the members' losses on a batch: rows (B, layout.total), labels and, with dropout, masks (P, S, B)."""

    def __init__(self, population: Population) -> None:
        super().__init__()
        self.population = population

    def forward(self, rows: Tensor, labels: Tensor, *masks: Tensor) -> Tensor:
        return losses(self.population(rows, *masks), labels).sum()  # ()


class PopulationTraining:
    """Train all members of a population, one pass per call; see `utils.training.loop.train_and_evaluate`.

    A step consists of many small operations. On CUDA, each batch shaped like the first one replays them as two graphs
    (`torch.cuda.make_graphed_callables`), whose warm-up neither changes weights nor draws dropout. It would change the
    statistics of batch norm, so populations with batch norm run without graphs.
    """

    def __init__(self, population: Population, settings: TrainingSettings) -> None:
        self.population = population
        self.optimizer = adam(list(population.parameters()), settings)
        self.graphs_wanted = population.ends.is_cuda and not population.settings.batchnorm
        self.plain: Callable[..., Tensor] = SumOfLosses(population)
        self.graphed: Callable[..., Any] | None = None
        self.shapes: list[torch.Size] = []  # of the inputs that the graphs read

    def __call__(self, batches: Batches, rates: Iterator[float], seed: int) -> EpochResult:
        """Train one pass; dropout derives from the seed."""
        assert isinstance(batches.split, ArraySplit)  # a feature table
        (table,), labels, size = batches.split.inputs, batches.split.labels, batches.batch_size
        population, device, rate = self.population.train(), labels.device, None
        population.start_pass(seed)
        order = torch.arange(len(labels)) if batches.order is None else batches.order
        units = len(population.pairs) * population.settings.inner_size
        steps = max(1, min(STEPS_AT_ONCE, MASKS_AT_ONCE // (units * size)))
        for chosen in order.to(table.device).split(steps * size):
            rows, masks = table[chosen].to(device).split(size), population.masks(-(-len(chosen) // size), size)
            for number, (x, y) in enumerate(zip(rows, labels[chosen].split(size), strict=True)):
                rate = next(rates)
                set_rate(self.optimizer, rate)
                self._step(x, y, *([] if masks is None else [masks[number, :, :, : len(x)]]))
        return EpochResult(rate=rate)

    def _step(self, *inputs: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._loss_of(*inputs)(*inputs).backward()
        self.optimizer.step()

    def _loss_of(self, *inputs: Tensor) -> Callable[..., Tensor]:
        """Return what computes the loss of a batch: the graphs, if they are wanted and fit its shape."""
        shapes = [x.shape for x in inputs]
        if self.graphs_wanted and self.graphed is None:
            gc.collect()  # graphs of earlier populations must not be freed during the capture
            torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)  # gradients live on torch's stream
            samples, self.shapes = tuple(x.clone() for x in inputs), shapes
            try:
                module = SumOfLosses(self.population)
                self.graphed = torch.cuda.make_graphed_callables(module, samples, allow_unused_input=True)
            except RuntimeError as error:
                reason = (str(error).splitlines() or [""])[0]
                print(f"warning: training without CUDA graphs, which only costs time ({reason})", file=sys.stderr)
                self.graphs_wanted = False
        return self.graphed if self.graphed is not None and shapes == self.shapes else self.plain
