"""The feature bank: pooled features and logits of frozen unimodal networks over whole splits, computed once.

The bank is a folder named by a hash of everything that the features depend on: checkpoints, data, settings. It holds
one table (N, layout.total) of float32 per split, and for "train" one per training pass if random crops make the passes
differ, each beside its checksum. A bank with the same hash is opened instead of computed, a table that does not match
its checksum is computed again, and an interrupted extraction is resumed.
"""

import contextlib
import dataclasses
import io
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from models.fusion import FeatureLayout, FusionNetwork
from models.lenet import LeNet
from utils import interrupts
from utils.arrays import ArrayOnDisk
from utils.candidates import fused
from utils.errors import ProjectError, UsageError
from utils.files import locked, write_json, write_text
from utils.progress import Progress
from utils.reading import at_least_0, read_bytes, read_json, sha256
from utils.training.batches import ArraySplit, Batch, Split
from utils.training.devices import autocast, on_device, threads

EXTRACTION_BATCH = 32  # small enough for the feature maps of a batch to stay in cache
CHECKSUM = ".sha256"  # suffix of the file with the checksum of a table
SECONDS = "seconds.json"  # in the bank's folder: duration of its extraction
SYNC_EVERY = 1 << 22  # bytes of a table between two syncs to disk
MOST_CHECKED = 4 << 30  # bytes of a table that its checksum covers; in a larger one, blocks at equal distances


@dataclasses.dataclass(frozen=True)
class BankedSplit(ArraySplit):
    """The train split, with a table for every training pass, each from its own random crops.

    Its own rows are those of the first pass.
    """

    passes: tuple[ArraySplit, ...] = ()

    @classmethod
    def of(cls, passes: Sequence[ArraySplit]) -> "BankedSplit":
        return cls(passes[0].inputs, passes[0].labels, passes=tuple(passes))

    def to(self, device: torch.device) -> "BankedSplit":
        return BankedSplit.of([split.to(device) for split in self.passes])

    @property
    def nbytes(self) -> int:
        return sum(split.nbytes for split in self.passes)

    def at_pass(self, number: int) -> ArraySplit:
        return self.passes[number % len(self.passes)]


@dataclasses.dataclass(frozen=True)
class FeatureBank:
    """The tables of train and dev, as splits whose only input is the row, which is on disk."""

    layout: FeatureLayout
    train: BankedSplit
    dev: ArraySplit
    folder: Path
    reused: bool
    seconds: float = 0.0  # duration of its extraction, over all processes that worked on it

    @property
    def splits(self) -> dict[str, ArraySplit]:
        return {"train": self.train, "dev": self.dev}

    def on(self, device: torch.device, memory: float = float("inf")) -> dict[str, ArraySplit]:
        """Return the splits for training on `device`.

        Splits of at most `memory` bytes are moved there; larger ones are read from disk, some steps at a time.
        """
        if self.train.nbytes + self.dev.nbytes <= memory:
            return {"train": self.train.to(device), "dev": self.dev.to(device)}

        def streamed(split: ArraySplit) -> ArraySplit:
            return ArraySplit(split.inputs, split.labels.to(device), device=device)

        return {"train": BankedSplit.of([streamed(split) for split in self.train.passes]), "dev": streamed(self.dev)}


def open_bank(
    folder: Path,
    network: FusionNetwork,
    splits: Mapping[str, Split],
    inputs: Mapping[str, object],
    device: torch.device,
    verbose: bool = True,
    passes: int = 1,
    bfloat16: bool = False,
) -> FeatureBank:
    """Open the bank of the unimodal networks over train and dev, extracting the tables that are missing.

    Args:
        folder: the bank is a subfolder, named by a hash.
        inputs: fingerprints of checkpoints and data (JSON-serializable).
        passes: number of tables of the train split, each with the crops of its own training pass.
    """
    layout = network.feature_layout
    content = {
        "format": 2,
        "device": device.type,
        "bfloat16": bfloat16,
        "widths": layout.widths,
        "counts": {name: len(split) for name, split in splits.items()},
        **inputs,
    }
    home = folder / sha256(json.dumps(content, sort_keys=True).encode())[:16]
    train, dev = (splits[name].to_batches(device) for name in ("train", "dev"))
    tables = {"dev": dev} | {f"train-{i}": train.at_pass(i) for i in range(passes)}

    def opened(name: str, report: bool) -> ArrayOnDisk | None:
        return _open_table(home / f"{name}.npy", (len(tables[name]), layout.total), report)

    whole = {name: opened(name, report=False) for name in tables}
    reused = None not in whole.values() and (home / SECONDS).exists()
    if not reused:
        on_device(network, device)
        with locked(home), _clocked(home / SECONDS):
            write_json(home / "bank.json", content)
            for name in tables:
                whole[name] = whole[name] or opened(name, report=True)
                if whole[name] is None:
                    _extract(network, tables[name], layout.total, device, home / f"{name}.npy", verbose, bfloat16)
                    whole[name] = opened(name, report=True)

    def banked(name: str) -> ArraySplit:
        if (table := whole[name]) is None:
            raise ProjectError(f"{home / name}.npy is not what was just written to it; check the disk")
        return ArraySplit((table,), tables[name].labels)

    train_tables = BankedSplit.of([banked(f"train-{i}") for i in range(passes)])
    return FeatureBank(layout, train_tables, banked("dev"), home, reused, _seconds(home / SECONDS))


def _open_table(path: Path, shape: tuple[int, int], report: bool) -> ArrayOnDisk | None:
    """Open a whole table; None if it is missing, or damaged (and `report` prints a warning)."""
    try:
        table = ArrayOnDisk(path, ("float32",), shape[1:])
        if table.shape == shape and table.sha256(MOST_CHECKED).encode() == read_bytes(path.with_suffix(CHECKSUM)):
            return table
        reason = "its checksum is wrong"
    except FileNotFoundError:
        reason = "it has no checksum"
    except UsageError as error:
        reason = str(error)
    if report and path.exists():
        print(f"warning: {path} is damaged ({reason}); it is extracted again", file=sys.stderr)
    return None


def _seconds(path: Path) -> float:
    """Seconds recorded in the file; 0 if it is missing or damaged."""
    try:
        return read_json(path, {"seconds": at_least_0})["seconds"]
    except (OSError, UsageError):
        return 0.0


@contextlib.contextmanager
def _clocked(path: Path) -> Iterator[None]:
    """Add the duration of the block to the seconds in the file, even if it is interrupted."""
    before, started = _seconds(path), time.perf_counter()
    try:
        yield
    finally:
        write_json(path, {"seconds": before + time.perf_counter() - started})


def feature_splits(rows: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, ArraySplit]:
    """Make splits whose only input is the row from tables in memory."""
    return {name: ArraySplit((torch.from_numpy(rows[name]),), torch.from_numpy(labels[name])) for name in rows}


def bank_of_features(layout: FeatureLayout, splits: Mapping[str, ArraySplit]) -> FeatureBank:
    """Make a bank from existing features."""
    return FeatureBank(layout, BankedSplit.of([splits["train"]]), splits["dev"], Path(), reused=True)


def _extract(
    network: FusionNetwork,
    split: Split,
    width: int,
    device: torch.device,
    path: Path,
    verbose: bool,
    bfloat16: bool,
) -> None:
    """Write the table of a split, computed in order with the unimodal networks in eval mode.

    Batches are appended to a partial file beside `path`, whose length shows how many an earlier extraction finished.
    """
    network.eval()
    batch = min(EXTRACTION_BATCH, split.evaluation_batch)
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(partial, "ab") as file:
        done = _finished_batches(file, (len(split), width), batch)
        parts = [slice(start, start + batch) for start in range(done * batch, len(split), batch)]
        progress = Progress(
            split.read(parts),
            desc=f"features of {path.stem}",
            total=done + len(parts),
            initial=done,
            verbose=verbose,
        )
        side_by_side = split.small and device.type == "cpu"
        synced = file.tell()
        source = _compiled(network) if device.type == "cpu" and not bfloat16 else network
        for rows in _computed(source, progress, device, bfloat16, side_by_side):
            file.write(rows.tobytes())
            if file.tell() - synced > SYNC_EVERY:
                synced = file.tell()
                _sync(file)
            interrupts.check()
        _sync(file)
    write_text(path.with_suffix(CHECKSUM), sha256(partial, MOST_CHECKED))
    os.replace(partial, path)


def _finished_batches(file: BinaryIO, shape: tuple[int, int], batch: int) -> int:
    """Write the .npy header of a new file, or cut off the incomplete batch of an old one; return its batches."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    if file.tell() < header.tell():
        file.truncate(0)
        file.write(header.getvalue())
    size = 4 * shape[1] * batch  # bytes of a batch
    done = (file.tell() - header.tell()) // size
    file.truncate(header.tell() + done * size)
    file.seek(0, os.SEEK_END)
    return done


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


class _Source(Protocol):
    def feature_rows(self, *inputs: Tensor) -> Tensor: ...


def _compiled(network: FusionNetwork) -> _Source:
    """Return the compiled counterpart of the networks if there is one, else the networks."""
    if not all(isinstance(backbone, LeNet) for backbone in network.backbones()) or not fused.usable():
        return network
    from utils.candidates.fused.lenet import FusedNetwork

    return FusedNetwork(network)


def _computed(
    network: _Source, batches: Iterable[Batch], device: torch.device, bfloat16: bool, side_by_side: bool
) -> Iterator[np.ndarray]:
    """Compute the rows of each batch, in order; if `side_by_side`, every thread computes its own batches."""

    @torch.no_grad()
    def compute(inputs: Sequence[Tensor]) -> np.ndarray:
        with autocast(device, bfloat16):
            rows = network.feature_rows(*inputs)
        return rows.float().cpu().numpy()

    if not side_by_side:
        yield from (compute(inputs) for inputs, _ in batches)
        return
    workers = torch.get_num_threads()
    waiting: deque[Future] = deque()
    with threads(1), ThreadPoolExecutor(workers) as pool:
        for inputs, _ in batches:
            waiting.append(pool.submit(compute, inputs))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
