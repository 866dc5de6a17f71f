"""Train a population on a feature bank by autograd; on CUDA, the whole step is captured as a graph."""

from collections.abc import Iterator

import torch
from torch import Tensor

from models.population import Population
from utils.candidates.cuda_graph import CapturedStep
from utils.training.batches import ArraySplit, Batches
from utils.training.loop import EpochResult, TrainingSettings, adam, set_rate
from utils.training.metrics import losses

STEPS_AT_ONCE = 64  # most steps for which rows are gathered and dropout is drawn together
MASKS_AT_ONCE = 1 << 24  # most numbers in the dropout masks drawn together


class PopulationTraining:
    """Train all members of a population, one pass per call; see `utils.training.loop.train_and_evaluate`."""

    def __init__(self, population: Population, settings: TrainingSettings) -> None:
        self.population = population
        parameters = list(population.parameters())
        self.optimizer = adam(parameters, settings, capturable=parameters[0].is_cuda)
        self.step = CapturedStep(self._step) if parameters[0].is_cuda else self._step

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
                self.step(x, y, None if masks is None else masks[number, :, :, : len(x)])
        return EpochResult(rate=rate)

    def _step(self, rows: Tensor, labels: Tensor, masks: Tensor | None) -> None:
        """Train one step on rows (B, layout.total), labels and dropout masks (P, S, B)."""
        self.optimizer.zero_grad(set_to_none=True)
        losses(self.population(rows, masks), labels).sum().backward()
        self.optimizer.step()
