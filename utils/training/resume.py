"""Where a training is, saved after every epoch, so that it goes on as if it had never been interrupted."""

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from utils.errors import UsageError
from utils.training.checkpoints import read_checkpoint, write_checkpoint

FORMAT = 3  # 1: a live search saved one candidate; 2: shared weights were kept by place and row


class SavedState:
    """Values in `state.checkpoint` of a folder; the ones before are kept as `state.previous.checkpoint`.

    All randomness derives from the seed and the place in the run, so no random state is among them.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.previous = folder / "state.checkpoint", folder / "state.previous.checkpoint"

    def save(self, values: Mapping[str, object]) -> None:
        """Replace what is there, whole or not at all."""
        fresh = self.path.with_name("state.next.checkpoint")
        write_checkpoint(fresh, {"format": FORMAT, **values})
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path, self.previous)
        os.replace(fresh, self.path)

    def load(self) -> dict:
        """The values that were saved last; empty where there are none. Says so where it must take those before."""
        for path in (self.path, self.previous):
            try:
                values = read_checkpoint(path) if path.exists() else None
                if isinstance(values, dict) and values.get("format") == FORMAT:
                    return values
                reason = values is not None and f"{path} holds no state of this version"
            except UsageError as error:
                reason = str(error)
            if reason:
                print(f"warning: {reason}; going on from before it", file=sys.stderr)
        return {}


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """What `restore` takes."""
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, dict]) -> None:
    """Put a model and its optimizer back to where they were."""
    model.load_state_dict(state["model"])
    # What belongs to the device; the learning rate, which is set before every batch, may be a tensor there.
    own = [{name: group.get(name) for name in ("lr", "capturable", "fused")} for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, kept in zip(optimizer.param_groups, own, strict=True):
        group.update((name, value) for name, value in kept.items() if name in group)
