"""Standardize feature columns: subtract the mean of the training split and divide by its standard deviation."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from models.fusion import FeatureLayout, FusionNetwork
from utils.training.batches import Split
from utils.training.evaluation import eval_mode

ROWS_AT_ONCE = 4096
CONSTANT = 1e-6  # largest deviation, relative to the mean, of a column that counts as constant: float32 rounds


class StandardizedTable:
    """A feature table whose rows are standardized when they are read; logits stay as they are."""

    def __init__(self, table: Any, mean: Tensor, scale: Tensor) -> None:
        """
        Args:
            table: (N, D) in memory or on disk.
            mean, scale: of the first columns, the features.
        """
        self.table, self.mean, self.scale = table, mean, scale
        self.device, self.shape, self.nbytes = table.device, table.shape, table.nbytes

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        rows = self.table[chosen]
        count = len(self.mean)
        return torch.cat([(rows[:, :count] - self.mean) / self.scale, rows[:, count:]], dim=1)

    def to(self, device: torch.device) -> "StandardizedTable":
        return StandardizedTable(self.table.to(device), self.mean.to(device), self.scale.to(device))


def column_statistics(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of the columns of rows given in parts (n, D); 0 for a constant column.

    Parts are merged by the formulas of Chan, Golub and LeVeque (1983), which do not cancel.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        own, more = part.double().mean(0), len(part)
        gap = own - mean
        squares = squares + (part - own).square().sum(0) + gap.square() * (count * more / (count + more))
        mean, count = mean + gap * (more / (count + more)), count + more
    deviation = (squares / count).sqrt()
    return mean.float(), deviation.where(deviation > CONSTANT * mean.abs(), 0).float()


def table_statistics(table: Any, layout: FeatureLayout, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Mean and scale (layout.features,) of the features of a table (N, layout.total); see `statistics`."""
    return statistics((table[i : i + ROWS_AT_ONCE] for i in range(0, len(table), ROWS_AT_ONCE)), layout, names)


@torch.no_grad()
def standardize_network(network: FusionNetwork, train: Split, names: Sequence[str]) -> None:
    """Set the mean and scale of a network's features from the training split; see `statistics`."""
    with eval_mode(network):
        parts = (network.feature_rows(*inputs) for inputs, _ in train.batches(train.evaluation_batch))
        mean, scale = statistics(parts, network.feature_layout, names)
    network.get_buffer("feature_mean").copy_(mean)
    network.get_buffer("feature_scale").copy_(scale)


def statistics(parts: Iterable[Tensor], layout: FeatureLayout, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Mean and scale (layout.features,) of the features in rows, given in parts (n, layout.total).

    Args:
        names: modalities, for the warning about columns that do not vary. These are only centered.
    """
    mean, deviation = column_statistics(part[:, : layout.features] for part in parts)
    for name, columns in zip(names, layout.columns(), strict=True):
        for index, (first, width) in enumerate(columns):
            if constant := int((deviation[first : first + width] == 0).sum()):
                what = f"{constant} of {width} columns of {name}.{index} do not vary in the training split"
                print(f"warning: {what}; they are only centered", file=sys.stderr)
    return mean, deviation.where(deviation > 0, 1)
