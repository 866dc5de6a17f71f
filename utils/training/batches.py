"""Splits and their batches: whole arrays in memory, sliced; or samples read from disk by worker processes."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from utils.errors import ProjectError
from utils.seeds import derive_seed, generator

Batch = tuple[tuple[Tensor, ...], Tensor]
CPU = torch.device("cpu")


class SizedBatches(Protocol):
    """Batches in order, and how many there are."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class EvaluationSplit(Protocol):
    """A split to evaluate on, in order."""

    @property
    def evaluation_batch(self) -> int:
        """Most samples that go through the networks at once."""

    @property
    def labels(self) -> Tensor: ...

    def batches(self, batch_size: int) -> Iterable[Batch]: ...


class Split(Protocol):
    """A split of a data set, to train on, to evaluate on, and to extract features from."""

    @property
    def evaluation_batch(self) -> int:
        """Most samples that go through the networks at once."""

    @property
    def small(self) -> bool:
        """True if samples are so small that, on CPUs, batches side by side are faster than threads within one."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "Split":
        """The split on `device`: arrays are moved there."""

    def to_batches(self, device: torch.device) -> "Split":
        """The split where it is, with batches on `device`."""

    def at_pass(self, number: int) -> "Split":
        """The split as the training pass `number` sees it; random crops differ from pass to pass."""

    def tail(self, start: int) -> "Split":
        """The samples from `start` on."""

    def release(self) -> None:
        """Free the memory of mapped files that have been read."""

    def batches(self, batch_size: int, shuffle: Sequence[int | str] | None = None) -> SizedBatches:
        """One pass; `shuffle` names the place in the run from which the order derives (None: in order)."""


@dataclasses.dataclass(frozen=True)
class ArraySplit:
    """A split as input arrays, aligned along their first dimension, and labels (N,).

    Inputs become floats batch by batch, so that uint8 spectrograms stay a quarter of the size.
    """

    inputs: tuple[Any, ...]  # tensors, or tables on disk that are indexed like them
    labels: Tensor
    release: Callable[[], None] = lambda: None
    device: torch.device | None = None  # of the batches, if the inputs are elsewhere
    evaluation_batch: ClassVar[int] = 64  # on CPUs the maps stay in cache
    small: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.inputs)

    def to(self, device: torch.device) -> "ArraySplit":
        return ArraySplit(tuple(x.to(device) for x in self.inputs), self.labels.to(device))

    def to_batches(self, device: torch.device) -> "ArraySplit":
        return dataclasses.replace(self, device=device)

    def at_pass(self, number: int) -> "ArraySplit":
        return self

    def tail(self, start: int) -> "ArraySplit":
        return dataclasses.replace(self, inputs=tuple(x[start:] for x in self.inputs), labels=self.labels[start:])

    def batches(self, batch_size: int, shuffle: Sequence[int | str] | None = None) -> "ArrayBatches":
        order = None if shuffle is None else torch.randperm(len(self), generator=generator(*shuffle))
        return ArrayBatches(self, batch_size, order)


@dataclasses.dataclass(frozen=True)
class ArrayBatches:
    """The batches of an `ArraySplit`; the last may be smaller."""

    split: ArraySplit
    batch_size: int
    order: Tensor | None = None

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        split = self.split
        order = None if self.order is None else self.order.to(split.inputs[0].device)
        for start in range(0, len(split), self.batch_size):
            part = slice(start, start + self.batch_size)
            chosen = part if order is None else order[part]
            inputs = (x[chosen].to(split.device or x.device) for x in split.inputs)
            yield tuple(x.to(torch.get_default_dtype()) for x in inputs), split.labels[chosen]


class WorkerError(ProjectError):
    """A worker process that reads samples died."""


class SampleSource(Protocol):
    """Samples on disk, such as `datasets.ntu.folder.NTUSplit`."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def load(self, index: int, modality: str, crop: int | None) -> Tensor:
        """Load one input of one sample; `crop` is the seed of its random crops (None: not cropped)."""


@dataclasses.dataclass(frozen=True)
class LoadedSplit:
    """A split whose samples are read by worker processes while the networks compute.

    Crops derive from (crop_seed, pass, sample), so they do not depend on the number of workers.
    """

    source: SampleSource
    modalities: tuple[str, ...]  # in the order of the network's inputs
    prepare: Callable[[Tensor], Tensor]  # turns a batch of uint8 into network inputs, on the device
    workers: int = 0
    crop_seed: int | None = None  # None: no crops
    device: torch.device = CPU
    crop: int | None = None  # of the current pass
    start: int = 0
    evaluation_batch: ClassVar[int] = 16  # a video takes 100 MB of maps
    small: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.source) - self.start

    @property
    def labels(self) -> Tensor:
        return self.source.labels[self.start :].to(self.device)

    def to(self, device: torch.device) -> "LoadedSplit":
        return dataclasses.replace(self, device=device)

    to_batches = to  # samples are on disk

    def at_pass(self, number: int) -> "LoadedSplit":
        if self.crop_seed is None:
            return self
        return dataclasses.replace(self, crop=derive_seed(self.crop_seed, "crops", number))

    def tail(self, start: int) -> "LoadedSplit":
        return dataclasses.replace(self, start=self.start + start)

    def release(self) -> None:
        """Nothing is mapped."""

    def batches(self, batch_size: int, shuffle: Sequence[int | str] | None = None) -> "_Loaded":
        count = len(self)
        order = torch.arange(count) if shuffle is None else torch.randperm(count, generator=generator(*shuffle))
        return _Loaded(self, batch_size, order)


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """The batches of a `LoadedSplit`."""

    split: LoadedSplit
    batch_size: int
    order: Tensor

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        split = self.split
        if not len(self.order):
            return
        loader = DataLoader(
            _Samples(split),
            batch_sampler=[part.tolist() for part in self.order.split(self.batch_size)],
            num_workers=split.workers,
            collate_fn=_collate,
            pin_memory=split.device.type == "cuda",
            generator=torch.Generator(),  # not the global one, whose draws belong to dropout
        )
        try:
            for loaded in loader:
                if isinstance(loaded, Exception):
                    raise loaded
                *inputs, labels = (x.to(split.device, non_blocking=True) for x in loaded)
                yield tuple(split.prepare(x) if x.dtype == torch.uint8 else x for x in inputs), labels
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise WorkerError(
                "a process that reads samples was killed (out of memory, or of shared memory in /dev/shm?); "
                "give fewer --num_workers, or 0 to read in the main process"
            ) from None


@dataclasses.dataclass(frozen=True)
class _Samples(Dataset):
    split: LoadedSplit

    def __getitem__(self, index: int) -> tuple[Tensor, ...] | Exception:
        """Inputs and label of a sample, or a data error as a value: raised, it would arrive wrapped in a traceback."""
        split, place = self.split, self.split.start + index
        try:
            inputs = (split.source.load(place, name, split.crop) for name in split.modalities)
            return *inputs, split.source.labels[place]
        except (OSError, ProjectError) as error:
            return error


def _collate(samples: list[tuple[Tensor, ...] | Exception]) -> tuple[Tensor, ...] | Exception:
    errors = [sample for sample in samples if isinstance(sample, Exception)]
    return errors[0] if errors else tuple(torch.stack(parts) for parts in zip(*samples, strict=True))


def loaded_splits(
    sources: Mapping[str, SampleSource],
    modalities: tuple[str, ...],
    prepare: Callable[[Tensor], Tensor],
    num_workers: int,
    seed: int,
    device: torch.device = CPU,
) -> dict[str, LoadedSplit]:
    """Make the splits of a script, by role; only "train" is cropped at random, by the seed."""
    return {
        role: LoadedSplit(source, modalities, prepare, num_workers, seed if role == "train" else None, device)
        for role, source in sources.items()
    }
