"""Training of a population on a feature bank: steps prepared many at once, gradients by hand, Adam on one vector."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from models.population import Population
from models.population_gradient import PopulationGradient
from utils.batches import ArrayBatches
from utils.training import EpochResult, TrainingSettings, adam, threads

SMALL = 1 << 18  # weights of a population
STEPS_AT_ONCE = 64  # rows are gathered and dropout is drawn for so many steps together


class PopulationTraining:
    """Trains all members of a population on one pass after the other; see `utils.training.train_and_evaluate`."""

    def __init__(self, population: Population, settings: TrainingSettings) -> None:
        self.population = population
        self.gradient = PopulationGradient(population)
        self.gradient.weights.grad = self.gradient.gradient
        self.optimizer = adam([self.gradient.weights], settings)

    def __call__(self, batches: ArrayBatches, rates: Iterator[float]) -> EpochResult:
        """One pass; dropout follows torch's global random state."""
        # Where the arrays of a step are small, waking another thread costs more than it does.
        with threads(1 if len(self.gradient.weights) < SMALL else torch.get_num_threads()):
            return self._pass(batches, rates)

    def _pass(self, batches: ArrayBatches, rates: Iterator[float]) -> EpochResult:
        (table,), labels = batches.split.inputs, batches.split.labels
        layout, rate = self.population.layout, None
        order = batches.order.to(table.device)
        for chosen in order.split(STEPS_AT_ONCE * batches.batch_size):
            rows = table[chosen].split(batches.batch_size)
            targets = F.one_hot(labels[chosen], layout.num_outputs).to(table.dtype).split(batches.batch_size)
            masks = self._masks(len(rows), batches.batch_size, table)
            for number, (x, target) in enumerate(zip(rows, targets, strict=True)):
                rate = self.optimizer.param_groups[0]["lr"] = next(rates)
                features, _ = layout.split(x)
                mask = None if masks is None else masks[number][:, :, : len(x)]
                self.gradient(features, target.T, mask)
                self.optimizer.step()
        return EpochResult(rate=rate)

    def _masks(self, steps: int, batch: int, like: Tensor) -> Tensor | None:
        """Dropout masks (steps, P, S, B): 0, or 1 / (1 - p); None without dropout.

        Every random 64-bit number serves four units, whose p is exact to 2^-16.
        """
        settings = self.population.settings
        if settings.dropout == 0:
            return None
        shape = (steps, len(self.population.pairs), settings.inner_size, batch)
        count = -(-steps * shape[1] * shape[2] * batch // 4)
        words = torch.empty(count, dtype=torch.int64, device=like.device).random_(-(2**63), None)
        numbers = words.view(torch.int16)[: steps * shape[1] * shape[2] * batch].view(shape)
        kept = numbers >= round(settings.dropout * 2**16) - 2**15
        return kept.to(like.dtype).mul_(1 / (1 - settings.dropout))
