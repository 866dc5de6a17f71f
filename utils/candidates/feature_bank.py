"""The feature bank: pooled features and logits of frozen unimodal networks over whole splits, computed once.

The bank is a folder named by a hash of everything that the features depend on: checkpoints, data, settings. It holds
one table (N, layout.total) of float32 per split, and for "train" one per training pass if random crops make the passes
differ, each beside its checksum. A bank with the same hash is opened instead of computed, a table that does not match
its checksum is computed again, and an interrupted extraction is resumed.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from models.fusion import FeatureLayout, FusionNetwork
from utils import distributed
from utils.array_on_disk import ArrayOnDisk
from utils.candidates.extraction import CHECKSUM, MOST_CHECKED, extract_table
from utils.errors import ProjectError, UsageError
from utils.files import locked, write_json
from utils.reading import at_least_0, read_bytes, read_json, sha256
from utils.training.batches import ArraySplit, Split
from utils.training.devices import on_device
from utils.training.standardization import StandardizedTable, table_statistics

SECONDS = "seconds.json"  # in the bank's folder: duration of its extraction


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

    def standardized(self, names: Sequence[str]) -> "FeatureBank":
        """Return the bank with features standardized by the first training pass; see `table_statistics`."""
        mean, scale = table_statistics(self.train.inputs[0], self.layout, names)

        def of(split: ArraySplit) -> ArraySplit:
            return ArraySplit((StandardizedTable(split.inputs[0], mean, scale),), split.labels)

        train = BankedSplit.of([of(split) for split in self.train.passes])
        return dataclasses.replace(self, train=train, dev=of(self.dev))

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
    reused = distributed.from_first(lambda: None not in whole.values() and (home / SECONDS).exists())
    if not reused:
        on_device(network, device)
        with contextlib.ExitStack() as stack:
            if distributed.rank() == 0:
                stack.enter_context(locked(home))
                stack.enter_context(_clocked(home / SECONDS))
                write_json(home / "bank.json", content)
            for name in tables:
                whole[name] = whole[name] or opened(name, report=True)
                if any(distributed.gather(whole[name] is None)):
                    extract_table(network, tables[name], layout.total, device, home / f"{name}.npy", verbose, bfloat16)
                    distributed.gather(None)  # until process 0 has written it
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
