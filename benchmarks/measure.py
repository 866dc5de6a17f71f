"""What the benchmarks share: spread over repeats, and a split that notes when a pass over it begins."""

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from models.lenet import AudioLeNet, ImageLeNet
from utils.errors import UsageError
from utils.training.batches import ArraySplit, Batches


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the repeats of a measurement."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def run_script(command: Sequence[str]) -> None:
    """Run one of the project's scripts, which tells of its errors itself.

    Raises:
        UsageError: it failed.
    """
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise UsageError(f"{next(part for part in command if part.endswith('.py'))} failed; see above")


def plain_pooled(net: AudioLeNet | ImageLeNet, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """What `net.pooled` gives, as plain PyTorch computes it: features, and logits (B, num_outputs)."""
    features = []
    for i in range(1, net.depth + 1):
        out = F.relu(net.get_submodule(f"bn{i}")(net.get_submodule(f"conv{i}")(x)))
        x = F.max_pool2d(out, 2)
        features.append((x if i == 1 and net.first_feature_pooled else out).mean(dim=(2, 3)))
    return features, net.classifier(features[-1])


@dataclasses.dataclass(frozen=True)
class ClockedSplit(ArraySplit):
    """Notes when a pass over it begins; a shuffled pass ends after `steps` batches, if that is given."""

    steps: int | None = None
    begun: list[float] = dataclasses.field(default_factory=list)

    def to(self, device: torch.device) -> "ClockedSplit":
        moved = super().to(device)
        return dataclasses.replace(self, inputs=moved.inputs, labels=moved.labels)

    def batches(self, batch_size: int, shuffle: Sequence[int | str] | None = None) -> Batches:
        batches = super().batches(batch_size, shuffle)
        if batches.order is not None and self.steps is not None:
            batches = dataclasses.replace(batches, order=batches.order[: self.steps * batch_size])
        if self.labels.is_cuda:
            torch.cuda.synchronize()
        self.begun.append(time.perf_counter())
        return batches
