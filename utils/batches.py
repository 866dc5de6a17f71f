"""Whole splits in memory, cut into batches by slicing."""

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from utils.seeds import generator

Batch = tuple[tuple[Tensor, ...], Tensor]


@dataclasses.dataclass(frozen=True)
class ArraySplit:
    """One split: input arrays that are aligned along their first dimension, and labels (N,).

    Inputs of type uint8 become float32 batch by batch, so that spectrograms stay a quarter of the size.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "ArraySplit":
        return ArraySplit(tuple(x.to(device) for x in self.inputs), self.labels.to(device))

    def select(self, modality: int) -> "ArraySplit":
        """The split with one of its inputs only."""
        return ArraySplit((self.inputs[modality],), self.labels)

    def batches(self, batch_size: int, shuffle: Sequence[int | str] | None = None) -> "Batches":
        """One pass; `shuffle` names the place of the run whose derived seed orders it (None: in order)."""
        order = None if shuffle is None else torch.randperm(len(self), generator=generator(*shuffle))
        return Batches(self, batch_size, order)


@dataclasses.dataclass(frozen=True)
class Batches:
    """An iterable over a split; its length is the number of batches, the last of which may be smaller."""

    split: ArraySplit
    batch_size: int
    order: Tensor | None = None

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = None if self.order is None else self.order.to(self.split.labels.device)
        for start in range(0, len(self.split), self.batch_size):
            part = slice(start, start + self.batch_size)
            chosen = part if order is None else order[part]
            inputs = (x[chosen] for x in self.split.inputs)
            yield tuple(x.float() if x.dtype == torch.uint8 else x for x in inputs), self.split.labels[chosen]
