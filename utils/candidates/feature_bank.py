"""The feature bank: pooled features and logits of frozen unimodal networks over whole splits, computed once.

One table (N, layout.total) float32 a split - of "train" one for every training pass, where random crops make passes
differ - in a folder named by a key over everything that the features depend on: checkpoints, data, settings. A bank
with the same key is opened, not computed; one that was cut off goes on where it stopped.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.fusion import FeatureLayout, FusionNetwork
from utils import interrupts
from utils.files import locked, sha256, write_json
from utils.progress import Progress
from utils.training.batches import ArraySplit, Batch, Split
from utils.training.devices import autocast, on_device, threads

EXTRACTION_BATCH = 32  # small enough for the feature maps of a batch to stay in cache
SECONDS = "seconds.json"  # in a bank's folder: what its extraction took
SYNC_EVERY = 1 << 22  # bytes of a table between two syncs to disk


@dataclasses.dataclass(frozen=True)
class BankedSplit:
    """A split of the bank: for every training pass the rows of its own crops, pass after pass in turn."""

    passes: tuple[ArraySplit, ...]

    def __len__(self) -> int:
        return len(self.passes[0])

    @property
    def labels(self) -> Tensor:
        return self.passes[0].labels

    def to(self, device: torch.device) -> "BankedSplit":
        return BankedSplit(tuple(split.to(device) for split in self.passes))

    @property
    def nbytes(self) -> int:
        return sum(split.nbytes for split in self.passes)

    def at_pass(self, number: int) -> ArraySplit:
        return self.passes[number % len(self.passes)]


class TableOnDisk:
    """The rows (N, D) of a float32 .npy file, read when they are asked for: none of them stay in memory.

    A memory map would not do: the kernel maps large pieces around every row that is read.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path) -> None:
        self._rows = np.load(path, mmap_mode="r")  # tells where the rows begin, and that the file is whole
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - as long as the table

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Rows by their numbers (n,), or a range of them."""
        numbers = range(*chosen.indices(len(self._rows))) if isinstance(chosen, slice) else chosen.tolist()
        rows = np.empty((len(numbers), self._rows.shape[1]), np.float32)
        for row, number in zip(rows, numbers, strict=True):
            if os.preadv(self._file.fileno(), [row], self._rows.offset + number * row.nbytes) != row.nbytes:
                raise OSError(errno.EIO, "the file was cut short while it was in use", self._file.name)
        return torch.from_numpy(rows)


@dataclasses.dataclass(frozen=True)
class FeatureBank:
    """Tables by split, as splits whose only input is the row."""

    layout: FeatureLayout
    splits: Mapping[str, ArraySplit | BankedSplit]  # train, dev
    folder: Path
    reused: bool
    seconds: float = 0.0  # that its extraction took, in all processes that worked on it

    def on(self, device: torch.device, memory: float = float("inf")) -> dict[str, ArraySplit | BankedSplit]:
        """The splits for training on `device`: whole, if they take at most `memory` bytes there.

        Of larger ones a training reads the rows of some steps at a time, see `population_training`.
        """
        if sum(split.nbytes for split in self.splits.values()) <= memory:
            return {name: split.to(device) for name, split in self.splits.items()}

        def streamed(name: str, split: ArraySplit) -> ArraySplit:
            return ArraySplit((TableOnDisk(self.folder / f"{name}.npy"),), split.labels.to(device), device=device)

        train = (streamed(f"train-{i}", split) for i, split in enumerate(self.splits["train"].passes))
        return {"train": BankedSplit(tuple(train)), "dev": streamed("dev", self.splits["dev"])}


def data_identity(datadir: Path, arrays: Iterable[str], **choices: object) -> dict[str, object]:
    """Fingerprint of a data set (JSON-serializable): size and time of each array file, and its manifest if it has one.

    Args:
        choices: what else the splits depend on; None is left out.
    """
    manifest = datadir / "manifest.json"
    identity: dict[str, object] = {"manifest": sha256(manifest)} if manifest.exists() else {}
    stats = {name: (datadir / name).stat() for name in arrays}
    identity |= {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    return identity | {name: value for name, value in choices.items() if value is not None}


def open_bank(
    folder: Path,
    network: FusionNetwork,
    splits: Mapping[str, Split],
    identity: Mapping[str, object],
    device: torch.device,
    verbose: bool = True,
    passes: int = 1,
    amp: bool = False,
) -> FeatureBank:
    """The bank of `network`'s unimodal nets over `splits`, computed into a sub-folder of `folder` unless it is there.

    Args:
        identity: everything that the features depend on, as JSON values; its hash names the sub-folder.
        passes: how many tables of the split "train", each with the crops of its own training pass.
    """
    layout = network.feature_layout
    counts = {name: len(split) for name, split in splits.items()}
    content = {
        "format": 1,
        "device": device.type,
        "bfloat16": amp,
        "widths": layout.widths,
        "counts": counts,
        **identity,
    }
    home = folder / hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    splits = {name: dataclasses.replace(split, device=device) for name, split in splits.items()}  # batches come there
    tables = {"dev": splits["dev"]} | {f"train-{i}": splits["train"].at_pass(i) for i in range(passes)}

    def missing() -> list[str]:
        return [name for name in tables if not _is_whole(home / f"{name}.npy", (len(tables[name]), layout.total))]

    reused = not missing() and (home / SECONDS).exists()
    if not reused:
        on_device(network, device)
        with locked(home), _clocked(home / SECONDS):
            write_json(home / "bank.json", content)
            for name in missing():
                _extract(network, tables[name], layout, device, home / f"{name}.npy", verbose, amp)

    def banked(name: str) -> ArraySplit:
        table = np.load(home / f"{name}.npy", mmap_mode="c")  # copy-on-write: read lazily, and torch wants it writable
        return ArraySplit((torch.from_numpy(table),), tables[name].labels)

    train = BankedSplit(tuple(banked(f"train-{i}") for i in range(passes)))
    return FeatureBank(layout, {"train": train, "dev": banked("dev")}, home, reused, _seconds(home / SECONDS))


def _seconds(path: Path) -> float:
    """What the file tells; 0 where there is none, or none that is whole."""
    try:
        return float(json.loads(path.read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


@contextlib.contextmanager
def _clocked(path: Path) -> Iterator[None]:
    """Add the seconds within to those that the file tells, also where the work is interrupted."""
    before, started = _seconds(path), time.perf_counter()
    try:
        yield
    finally:
        write_json(path, {"seconds": before + time.perf_counter() - started})


def feature_splits(rows: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, ArraySplit]:
    """Splits whose only input is the row, of tables in memory."""
    return {name: ArraySplit((torch.from_numpy(rows[name]),), torch.from_numpy(labels[name])) for name in rows}


def bank_of_features(layout: FeatureLayout, splits: Mapping[str, ArraySplit]) -> FeatureBank:
    """A bank of features that are there already."""
    return FeatureBank(layout, {"train": BankedSplit((splits["train"],)), "dev": splits["dev"]}, Path(), reused=True)


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    try:
        return np.load(path, mmap_mode="r").shape == shape  # a map of a file that is cut short fails
    except (OSError, ValueError, EOFError):
        return False


def _extract(
    network: FusionNetwork,
    split: Split,
    layout: FeatureLayout,
    device: torch.device,
    path: Path,
    verbose: bool,
    amp: bool,
) -> None:
    """One pass in order with the unimodal networks in eval mode, appended batch by batch to a neighbour of `path`.

    The neighbour's length tells how many batches an earlier extraction finished.
    """
    network.eval()
    batch = min(EXTRACTION_BATCH, split.evaluation_batch)
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    header = io.BytesIO()
    shape = (len(split), layout.total)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with open(partial, "ab") as file:
        if file.tell() < header.tell():
            file.truncate(0)
            file.write(header.getvalue())
        size = 4 * layout.total * batch  # bytes of a batch
        done = (file.tell() - header.tell()) // size
        file.truncate(header.tell() + done * size)
        synced = file.seek(0, os.SEEK_END)
        batches = split.tail(done * batch).batches(batch)
        progress = Progress(
            batches, desc=f"features of {path.stem}", total=done + len(batches), initial=done, verbose=verbose
        )
        for rows in _computed(network, progress, device, amp, side_by_side=split.small and device.type == "cpu"):
            file.write(rows.tobytes())
            if file.tell() - synced > SYNC_EVERY:
                synced = file.tell()
                file.flush()
                os.fsync(file.fileno())
                split.release()
            interrupts.check()
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _computed(
    network: FusionNetwork, batches: Iterable[Batch], device: torch.device, amp: bool, side_by_side: bool
) -> Iterator[np.ndarray]:
    """The rows of each batch, in order; side by side, every thread computes batches of its own."""

    @torch.no_grad()
    def compute(inputs: Sequence[Tensor]) -> np.ndarray:
        with autocast(device, amp):
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
