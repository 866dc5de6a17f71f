"""Train a population on a feature bank: many steps prepared at once, gradients derived by hand, Adam on one vector."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from models.population import Population
from models.population_gradient import PopulationGradient
from utils.candidates.cuda_graph import CapturedStep
from utils.training.batches import ArraySplit, Batches
from utils.training.devices import threads
from utils.training.loop import EpochResult, TrainingSettings, adam, set_rate

SMALL = 1 << 18  # weights of a population that trains on one thread
STEPS_AT_ONCE = 64  # rows are gathered and dropout is drawn for this many steps together


class PopulationTraining:
    """Train all members of a population, one pass per call; see `utils.training.loop.train_and_evaluate`."""

    def __init__(self, population: Population, settings: TrainingSettings) -> None:
        self.population = population
        self.gradient = PopulationGradient(population)
        weights = self.gradient.weights
        weights.grad = self.gradient.gradient
        self.optimizer = adam([weights], settings, capturable=weights.is_cuda)
        self.step = CapturedStep(self._step) if weights.is_cuda else self._step

    def __call__(self, batches: Batches, rates: Iterator[float]) -> EpochResult:
        """Train one pass; dropout uses torch's global random state."""
        assert isinstance(batches.split, ArraySplit)  # a feature table
        (table,), labels, size = batches.split.inputs, batches.split.labels, batches.batch_size
        classes, weights, rate = self.population.layout.num_outputs, self.gradient.weights, None
        order = torch.arange(len(labels)) if batches.order is None else batches.order
        # In a small population, waking another thread costs more than it saves.
        with threads(1 if len(weights) < SMALL else torch.get_num_threads()):
            for chosen in order.to(table.device).split(STEPS_AT_ONCE * size):
                rows = table[chosen].to(weights.device).split(size)
                hot = labels[chosen] if labels.ndim == 2 else F.one_hot(labels[chosen], classes)  # (steps B, C)
                masks = self._masks(len(rows), size)
                for number, (x, targets) in enumerate(zip(rows, hot.to(weights).split(size), strict=True)):
                    rate = next(rates)
                    set_rate(self.optimizer, rate)
                    self.step(x, targets.T, None if masks is None else masks[number, :, :, : len(x)])
        return EpochResult(rate=rate)

    def _step(self, rows: Tensor, targets: Tensor, mask: Tensor | None) -> None:
        """Train one step on rows (B, layout.total), targets (C, B) and a dropout mask (P, S, B)."""
        features, _ = self.population.layout.split(rows)
        self.gradient(features, targets, mask)
        self.optimizer.step()

    def _masks(self, steps: int, batch: int) -> Tensor | None:
        """Draw dropout masks (steps, P, S, B) of 0 and 1 / (1 - p); None without dropout.

        Every random 64-bit number serves four units, so p is rounded to a multiple of 2^-16.
        """
        settings, weights = self.population.settings, self.gradient.weights
        if settings.dropout == 0:
            return None
        shape = (steps, len(self.population.pairs), settings.inner_size, batch)
        count = math.prod(shape)
        words = torch.empty(-(-count // 4), dtype=torch.int64, device=weights.device).random_(-(2**63), None)
        numbers = words.view(torch.int16)[:count].view(shape)
        kept = numbers >= min(round(settings.dropout * 2**16), 2**16 - 1) - 2**15
        return kept.to(weights.dtype).mul_(1 / (1 - settings.dropout))
