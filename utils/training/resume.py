"""Saved training state: a training resumes after any epoch as if it had never stopped.

All randomness derives from the seed and the place in the run, so no random state is saved.
"""

import contextlib
import copy
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from utils import distributed
from utils.errors import UsageError
from utils.reading import at_least_0, conform
from utils.training.adam import Optimizer
from utils.training.checkpoints import check_fit, check_plain, is_state, read_checkpoint, save_state, write_checkpoint

FORMAT = 4  # 1: a live search saved one candidate; 2: shared weights were kept by place and row; 3: lists


def _state(value: object) -> None:
    """A schema: a state_dict."""
    if not is_state(value):
        raise ValueError("a state_dict must hold tensors by name")


def _pair(value: object) -> None:
    """A schema: two integers."""
    if not isinstance(value, tuple) or [type(one) for one in value] != [int, int]:
        raise ValueError("a place in the run must be two integers")


FORM = {  # of the saved values; those of a single network, and those of a population
    **{"format": int, "seconds": at_least_0, "model": _state, "optimizer": {"state": dict, "param_groups": [dict]}},
    **{"lines?": [{"epoch": int, "dev_accuracy": float}], "best?": _state},
    **{"unit?": _pair, "configurations?": [tuple], "shared?": {...: _state}},
    "results?": {"history": torch.Tensor, "best": torch.Tensor, "correct": torch.Tensor, "weights": {...: _state}},
}


class SavedTraining:
    """Model, optimizer, and any other values of a training, saved after every epoch in a folder.

    The state before the last one is kept as well, in case that one is damaged. Without a folder, nothing is saved.
    """

    only_first = False  # whether process 0 of the run saves for all of them

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.path: Path | None = None  # of the file that was loaded
        self.values: dict[str, Any] = self._load()
        self.start_clock(self.values.get("seconds", 0.0))

    def start_clock(self, before: float = 0.0) -> None:
        """Measure `seconds` from now on, starting at `before`."""
        self._started = time.perf_counter() - before

    @property
    def seconds(self) -> float:
        """Training time so far, that of earlier processes included."""
        return time.perf_counter() - self._started

    def restore(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Load the saved state of a model and its optimizer.

        Raises:
            UsageError: it does not fit them.
        """
        assert self.path is not None
        check_fit(model, self.values["model"], self.path)
        model.load_state_dict(self.values["model"])
        # Settings follow from the flags and the device; the learning rate is set before every batch.
        own = [{name: group[name] for name in group if name != "params"} for group in optimizer.param_groups]
        try:
            optimizer.load_state_dict(self.values["optimizer"])
            for parameter, values in optimizer.state.items():
                if isinstance(optimizer, torch.optim.Adam) and values.keys() != {"step", "exp_avg", "exp_avg_sq"}:
                    raise ValueError(f"it holds {list(values)}")
                if any(value is not None and value.shape not in ((), parameter.shape) for value in values.values()):
                    raise ValueError(f"its values are not of shape {tuple(parameter.shape)}")
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise UsageError(f"{self.path} does not fit: its optimizer state is of another network ({error})") from None
        for group, kept in zip(optimizer.param_groups, own, strict=True):
            group.update(kept)

    def save(self, model: nn.Module, optimizer: Optimizer, values: Mapping[str, object]) -> None:
        """Replace the saved state completely or not at all."""
        if self.folder is None or (self.only_first and distributed.rank()):
            return
        path, previous, fresh = (self.folder / f"state{part}.checkpoint" for part in ("", ".previous", ".next"))
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "seconds": self.seconds}
        write_checkpoint(fresh, {"format": FORMAT, **values, **state})
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, previous)
        os.replace(fresh, path)

    def _load(self) -> dict[str, Any]:
        """Return the last saved values, or the previous ones if these are damaged; empty if there are none."""
        paths = [] if self.folder is None else [self.folder / f"state{part}.checkpoint" for part in ("", ".previous")]
        for path in filter(Path.exists, paths):
            try:
                values, _ = read_checkpoint(path)
                check_plain(values)
                conform(values, {"format": int})
                if cast(dict, values)["format"] == FORMAT:
                    conform(values, FORM)
                    self.path = path
                    return cast(dict, values)
                reason = f"{path} holds no state of this version"
            except ValueError as error:
                reason = f"{path} is damaged: {error}"
            except UsageError as error:
                reason = str(error)
            print(f"warning: {reason}; resuming from the previous state", file=sys.stderr)
        return {}


class NetworkRecord(SavedTraining):
    """The epochs of one network's training and the weights of the best dev epoch, also saved as `best.checkpoint`."""

    folder: Path
    only_first = True

    def __init__(self, network: nn.Module, folder: Path) -> None:
        super().__init__(folder)
        self.network = network
        if self.path:
            check_fit(network, self.values.get("best", {}), self.path)
        self.lines: list[dict[str, Any]] = self.values.get("lines", [])  # one per epoch
        self.best: Mapping[str, torch.Tensor] = self.values.get("best", {})

    @property
    def best_line(self) -> dict[str, Any]:
        """The line of the best dev epoch; the first if several are equal."""
        return max(self.lines, key=lambda line: line["dev_accuracy"])

    def add(self, line: dict[str, Any], optimizer: Optimizer) -> None:
        """Record an epoch, keep its weights if it is the best so far, and save the state."""
        self.lines.append(line)
        if self.best_line is line:
            self.best = copy.deepcopy(self.network.state_dict())
            if not distributed.rank():
                save_state(self.folder / "best.checkpoint", self.best)
        self.save(self.network, optimizer, {"lines": self.lines, "best": self.best})

    def load_best(self) -> None:
        """Load the weights of the best dev epoch into the network."""
        self.network.load_state_dict(self.best)
