"""What the benchmarks share: spread over repeats, and a split that notes when a pass over it begins."""

import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from utils.batches import ArrayBatches, ArraySplit


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the repeats of a measurement."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


@dataclasses.dataclass(frozen=True)
class ClockedSplit(ArraySplit):
    """Notes when a pass over it begins; a shuffled pass ends after `steps` batches, if that is given."""

    steps: int | None = None
    begun: list[float] = dataclasses.field(default_factory=list)

    def to(self, device: torch.device) -> "ClockedSplit":
        moved = super().to(device)
        return dataclasses.replace(self, inputs=moved.inputs, labels=moved.labels)

    def batches(self, batch_size: int, shuffle: Sequence[int | str] | None = None) -> ArrayBatches:
        batches = super().batches(batch_size, shuffle)
        if batches.order is not None and self.steps is not None:
            batches = dataclasses.replace(batches, order=batches.order[: self.steps * batch_size])
        if self.labels.is_cuda:
            torch.cuda.synchronize()
        self.begun.append(time.perf_counter())
        return batches
