"""What a training of one network keeps from epoch to epoch: a line for each, the best dev epoch, and where it is."""

import copy
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from utils.training.checkpoints import save_state
from utils.training.resume import SavedState, restore, training_state


class TrainingRecord:
    """The epochs of a training, those of earlier processes included.

    The run folder has the best dev epoch as `best.checkpoint`, and the state from which the next process goes on.
    """

    def __init__(self, network: nn.Module, run_dir: Path) -> None:
        self.network, self.path, self.saved = network, run_dir / "best.checkpoint", SavedState(run_dir)
        self.state = self.saved.load()
        self.lines: list[dict[str, object]] = self.state.get("lines", [])  # each with its dev_accuracy
        self.best: Mapping[str, torch.Tensor] = self.state.get("best", {})
        self.started = time.perf_counter() - self.state.get("seconds", 0.0)

    @property
    def seconds(self) -> float:
        """That all processes took so far."""
        return time.perf_counter() - self.started

    @property
    def best_line(self) -> dict[str, object]:
        """Of the best dev epoch so far, the first of several."""
        return max(self.lines, key=lambda line: line["dev_accuracy"])

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Put network and optimizer back to where the earlier process left them, if there was one."""
        if self.state:
            restore(self.network, optimizer, self.state)

    def add(self, line: dict[str, object], optimizer: torch.optim.Optimizer) -> None:
        """Record an epoch that was trained, and save where the training is."""
        self.lines.append(line)
        if self.best_line is line:
            self.best = copy.deepcopy(self.network.state_dict())
            save_state(self.path, self.best)
        values = {"lines": self.lines, "best": self.best, "seconds": self.seconds}
        self.saved.save(values | training_state(self.network, optimizer))

    def keep_best(self) -> None:
        """Give the network the weights of the best dev epoch."""
        self.network.load_state_dict(self.best)
