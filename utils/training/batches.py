"""Splits and their batches: whole arrays in memory, sliced; or samples read from disk by worker processes."""

import abc
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.queues import Queue
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from utils import interrupts
from utils.errors import ProjectError
from utils.seeds import derive_seed

Batch = tuple[tuple[Tensor, ...], Tensor]
Part = slice | Tensor  # samples of a batch: a slice of the split, or indices (B,)
CPU = torch.device("cpu")


def generator(*place: int | str) -> torch.Generator:
    """Create a CPU generator for one place in a run; see `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*place))


class Split(abc.ABC):
    """A split of a data set, to train on, to evaluate on, and to extract features from."""

    evaluation_batch: ClassVar[int]  # most samples that go through the networks at once
    small: ClassVar[bool]  # on CPUs, batches side by side are faster than threads within one
    labels: Tensor  # (N,), or (N, C) if multi-label

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def to(self, device: torch.device) -> "Split":
        """Return the split on `device`, moving its arrays there."""

    @abc.abstractmethod
    def to_batches(self, device: torch.device) -> "Split":
        """Return the split with only its batches on `device`."""

    def at_pass(self, number: int) -> "Split":
        """Return the split for the training pass `number`; random crops differ from pass to pass."""
        return self

    def batches(self, batch_size: int, shuffle: Sequence[int | str] | None = None) -> "Batches":
        """Return one pass; `shuffle` is the place in the run from which the order derives (None: in order)."""
        order = None if shuffle is None else torch.randperm(len(self), generator=generator(*shuffle))
        return Batches(self, batch_size, order)

    @abc.abstractmethod
    def read(self, parts: Sequence[Part]) -> Iterator[Batch]:
        """Yield one batch per part."""


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of one pass over a split; the last may be smaller."""

    split: Split
    batch_size: int
    order: Tensor | None

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.split.read(self.parts())

    def parts(self) -> list[Part]:
        """The samples of each batch."""
        parts = [slice(start, start + self.batch_size) for start in range(0, len(self.split), self.batch_size)]
        return [part if self.order is None else self.order[part] for part in parts]


@dataclasses.dataclass(frozen=True)
class ArraySplit(Split):
    """A split as input arrays, aligned along their first dimension, and labels.

    Inputs become floats batch by batch, so that uint8 spectrograms stay a quarter of the size.
    """

    inputs: tuple[Any, ...]  # tensors, or tables on disk that are indexed like them
    labels: Tensor
    device: torch.device | None = None  # of the batches, if the inputs are elsewhere
    evaluation_batch: ClassVar[int] = 64  # on CPUs the maps stay in cache
    small: ClassVar[bool] = True

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.inputs)

    def to(self, device: torch.device) -> "ArraySplit":
        return ArraySplit(tuple(x.to(device) for x in self.inputs), self.labels.to(device))

    def to_batches(self, device: torch.device) -> "ArraySplit":
        return dataclasses.replace(self, device=device)

    def read(self, parts: Sequence[Part]) -> Iterator[Batch]:
        for part in parts:
            inputs = (x[part].to(self.device or x.device) for x in self.inputs)
            yield tuple(x.to(torch.get_default_dtype()) for x in inputs), self.labels[part]


class WorkerError(ProjectError):
    """A worker process that reads samples died."""


class SampleSource(Protocol):
    """Samples on disk, such as `datasets.ntu.samples.NTUSplit`."""

    @property
    def labels(self) -> Tensor: ...

    def load(self, index: int, modality: str, crop: int | None) -> Tensor:
        """Load one input of one sample; `crop` is the seed of its random crops (None: not cropped)."""


@dataclasses.dataclass(frozen=True)
class LoadedSplit(Split):
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
    evaluation_batch: ClassVar[int] = 16  # a video takes 100 MB of feature maps
    small: ClassVar[bool] = False

    @property
    def labels(self) -> Tensor:  # type: ignore[override]  # nothing assigns the labels of a split
        return self.source.labels.to(self.device)

    def to(self, device: torch.device) -> "LoadedSplit":
        return dataclasses.replace(self, device=device)

    to_batches = to  # samples are on disk

    def at_pass(self, number: int) -> "LoadedSplit":
        crop = None if self.crop_seed is None else derive_seed(self.crop_seed, "crops", number)
        return dataclasses.replace(self, crop=crop)

    def read(self, parts: Sequence[Part]) -> Iterator[Batch]:
        places = torch.arange(len(self))
        loader = DataLoader(
            _BatchesOnDisk(self, [places[part] for part in parts]),
            batch_size=None,  # an item is already a batch
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # not the global one, whose draws belong to dropout
            worker_init_fn=_start_worker,
        )
        try:
            for loaded in _awaited(iter(loader)):
                if isinstance(loaded, Exception):
                    raise loaded
                *inputs, labels = (x.to(self.device, non_blocking=True) for x in loaded)
                yield tuple(self.prepare(x) if x.dtype == torch.uint8 else x for x in inputs), labels
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise WorkerError(
                "a process that reads samples ended (out of memory, or of shared memory in /dev/shm?); use fewer "
                "--num_workers, or --num_workers 0 to read in the main process; Docker gives more with --shm-size"
            ) from None


def _awaited(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches; a signal to stop ends a wait for one that does not come."""
    while True:
        with interrupts.waiting():
            try:
                loaded = next(batches)
            except StopIteration:
                return
            except BaseException:
                for worker in getattr(batches, "_workers", ()):  # torch would wait 5 seconds for each that is stuck
                    worker.terminate()
                raise
        yield loaded


def _start_worker(number: int) -> None:
    """Let a worker end if it cannot hand over a batch; Python would print the error, and leave the parent waiting."""
    Queue._on_queue_feeder_error = staticmethod(lambda error, batch: os._exit(1))  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class _BatchesOnDisk(Dataset):
    split: LoadedSplit
    places: list[Tensor]  # samples of each batch, (B,)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[Tensor, ...] | Exception:
        """Read the inputs and labels of a batch.

        A data error is returned instead: raised, it would arrive from a worker wrapped in a traceback.
        """
        source, modalities, crop = self.split.source, self.split.modalities, self.split.crop
        places = self.places[number]
        try:
            samples = [[source.load(place, name, crop) for name in modalities] for place in places.tolist()]
        except (OSError, ProjectError) as error:
            return error
        return *map(torch.stack, zip(*samples, strict=True)), source.labels[places]


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
