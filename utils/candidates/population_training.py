"""Training of a population on a feature bank: steps prepared many at once, gradients by hand, Adam on one vector."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from models.population import Population
from models.population_gradient import PopulationGradient
from utils.candidates.cuda_graph import CapturedStep
from utils.training.batches import ArrayBatches
from utils.training.devices import threads
from utils.training.loop import EpochResult, TrainingSettings, adam, set_rate

SMALL = 1 << 18  # weights of a population
STEPS_AT_ONCE = 64  # rows are gathered and dropout is drawn for so many steps together


class PopulationTraining:
    """Trains all members of a population on one pass after the other; see `utils.training.loop.train_and_evaluate`."""

    def __init__(self, population: Population, settings: TrainingSettings) -> None:
        self.population = population
        self.gradient = PopulationGradient(population)
        weights = self.gradient.weights
        weights.grad = self.gradient.gradient
        self.optimizer = adam([weights], settings, capturable=weights.is_cuda)
        self.step = CapturedStep(self._step) if weights.is_cuda else self._step

    def __call__(self, batches: ArrayBatches, rates: Iterator[float]) -> EpochResult:
        """One pass; dropout follows torch's global random state."""
        # Where the arrays of a step are small, waking another thread costs more than it does.
        with threads(1 if len(self.gradient.weights) < SMALL else torch.get_num_threads()):
            return self._pass(batches, rates)

    def _pass(self, batches: ArrayBatches, rates: Iterator[float]) -> EpochResult:
        (table,), labels = batches.split.inputs, batches.split.labels
        layout, weights, rate = self.population.layout, self.gradient.weights, None
        order = batches.order.to(table.device)
        for chosen in order.split(STEPS_AT_ONCE * batches.batch_size):
            rows = table[chosen].to(weights.device).split(batches.batch_size)
            these = labels[chosen]
            targets = these if labels.ndim == 2 else F.one_hot(these, layout.num_outputs)  # (B, C)
            targets = targets.to(weights).split(batches.batch_size)
            masks = self._masks(len(rows), batches.batch_size)
            for number, (x, target) in enumerate(zip(rows, targets, strict=True)):
                rate = next(rates)
                set_rate(self.optimizer, rate)
                mask = None if masks is None else masks[number][:, :, : len(x)]
                self.step(x, target.T, mask)
        return EpochResult(rate=rate)

    def _step(self, rows: Tensor, targets: Tensor, mask: Tensor | None) -> None:
        """One step on rows (B, layout.total), one-hot targets (C, B) and dropout masks (P, S, B)."""
        features, _ = self.population.layout.split(rows)
        self.gradient(features, targets, mask)
        self.optimizer.step()

    def _masks(self, steps: int, batch: int) -> Tensor | None:
        """Dropout masks (steps, P, S, B): 0, or 1 / (1 - p); None without dropout.

        Every random 64-bit number serves four units, whose p is exact to 2^-16.
        """
        settings, weights = self.population.settings, self.gradient.weights
        if settings.dropout == 0:
            return None
        shape = (steps, len(self.population.pairs), settings.inner_size, batch)
        count = -(-steps * shape[1] * shape[2] * batch // 4)
        words = torch.empty(count, dtype=torch.int64, device=weights.device).random_(-(2**63), None)
        numbers = words.view(torch.int16)[: steps * shape[1] * shape[2] * batch].view(shape)
        kept = numbers >= min(round(settings.dropout * 2**16), 2**16 - 1) - 2**15
        return kept.to(weights.dtype).mul_(1 / (1 - settings.dropout))
