"""Fit the surrogate to the candidates trained so far and predict the accuracy of others."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from models.surrogate import Surrogate
from utils.search.space import Configuration
from utils.seeds import derive_seed
from utils.training.adam import FlatAdam, flatten
from utils.training.devices import threads


def _rows(configurations: Sequence[Configuration]) -> torch.Tensor:
    """Return the surrogate's input, (L, B, row size), for B configurations of L rows."""
    return torch.tensor(configurations, dtype=torch.float32).transpose(0, 1).contiguous()


def _by_length(configurations: Sequence[Configuration]) -> dict[int, list[int]]:
    """Return the indices of the configurations of each length, shortest first."""
    lengths = [len(configuration) for configuration in configurations]
    return {length: [i for i, own in enumerate(lengths) if own == length] for length in sorted(set(lengths))}


class AccuracyPredictor:
    """A surrogate fitted to all (configuration, accuracy) pairs so far; a repeated configuration keeps its maximum."""

    def __init__(self, row_size: int, seed: int, lr: float = 1e-3, epochs: int = 50) -> None:
        torch.manual_seed(derive_seed(seed, "surrogate"))
        self.network = Surrogate(row_size)
        self.data: dict[Configuration, float] = {}
        self.lr, self.epochs = lr, epochs
        weights, self._gradient = flatten(list(self.network.parameters()))
        self._optimizer = FlatAdam(weights)

    @torch.no_grad()
    def predict(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Predict accuracies, (N,) in (0, 1)."""
        predicted = np.empty(len(configurations))
        for places in _by_length(configurations).values():
            predicted[places] = self.network(_rows([configurations[i] for i in places]))[:, 0].numpy()
        return predicted

    def update(self, configurations: Sequence[Configuration], accuracies: Sequence[float]) -> float:
        """Add trained candidates, fit to all data, and return the mean squared error of the last epoch."""
        for configuration, accuracy in zip(configurations, accuracies, strict=True):
            self.data[configuration] = max(accuracy, self.data.get(configuration, -np.inf))
        known = list(self.data)
        batches = []
        for places in _by_length(known).values():
            group = [known[i] for i in places]
            batches.append((_rows(group), torch.tensor([[self.data[c]] for c in group], dtype=torch.float32)))
        with threads(1):  # more threads would slow down such a small network
            for _ in range(self.epochs):
                total = sum(self._step(rows, targets) for rows, targets in batches)  # one batch per length
        return total / len(known)

    def _step(self, rows: torch.Tensor, targets: torch.Tensor) -> float:
        """Train one step and return the sum of the squared errors before it."""
        loss = F.mse_loss(self.network(rows), targets)
        self._gradient.zero_()
        loss.backward()
        self._optimizer.step(self._gradient, self.lr)
        return float(loss.detach()) * len(targets)
