"""Extract a table of the feature bank: run the unimodal networks over a split, or resume where that stopped."""

import contextlib
import io
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from models.fusion import FusionNetwork
from models.lenet import LeNet
from utils import distributed, interrupts
from utils.candidates import fused
from utils.files import whole_file, write_text
from utils.progress import Progress
from utils.reading import sha256
from utils.training.batches import Batch, Split
from utils.training.devices import autocast, threads

EXTRACTION_BATCH = 32  # small enough for the feature maps of a batch to stay in cache
CHECKSUM = ".sha256"  # suffix of the file with the checksum of a table
PIECE = 16  # batches that one of several processes computes and writes as a whole
SYNC_EVERY = 1 << 22  # bytes of a table between two syncs to disk
MOST_CHECKED = 4 << 30  # bytes of a table that its checksum covers; in a larger one, blocks at equal distances


def extract_table(
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
    Several processes first compute pieces of the table, which process 0 then appends.
    """
    network.eval()
    batch = min(EXTRACTION_BATCH, split.evaluation_batch)
    source = _compiled(network) if device.type == "cpu" and not bfloat16 else network
    side_by_side = split.small and device.type == "cpu"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, pieces, count = path.with_suffix(".partial"), path.with_suffix(".pieces"), -(-len(split) // batch)
    done = distributed.from_first(lambda: _finished_batches(partial, (len(split), width), batch))

    def compute(numbers: Sequence[int], done: int = 0) -> Generator[bytes]:
        parts = [slice(n * batch, (n + 1) * batch) for n in numbers]
        desc, total = f"features of {path.stem}", done + len(parts)
        progress = Progress(split.read(parts), desc=desc, total=total, initial=done, verbose=verbose)
        return (rows.tobytes() for rows in _computed(source, progress, device, bfloat16, side_by_side))

    if distributed.world() == 1:
        table = compute(range(done, count), done)
    else:
        _write_pieces(pieces, done, count, compute)
        distributed.gather(None)  # until all are there
        table = _read_pieces(pieces, done, count, 4 * width * batch)
    if distributed.rank():
        return
    with contextlib.closing(table), open(partial, "ab") as file:
        synced = file.tell()
        for rows in table:
            file.write(rows)
            if file.tell() - synced > SYNC_EVERY:
                synced = file.tell()
                _sync(file)
            interrupts.check()
        _sync(file)
    write_text(path.with_suffix(CHECKSUM), sha256(partial, MOST_CHECKED))
    os.replace(partial, path)
    shutil.rmtree(pieces, ignore_errors=True)


def _finished_batches(path: Path, shape: tuple[int, int], batch: int) -> int:
    """Write the .npy header of a new file, or cut off the incomplete batch of an old one; return its batches."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with open(path, "ab") as file:
        if file.tell() < header.tell():
            file.truncate(0)
            file.write(header.getvalue())
            return 0
        size = 4 * shape[1] * batch  # bytes of a batch
        done = (file.tell() - header.tell()) // size
        file.truncate(header.tell() + done * size)
    return done


def _piece(folder: Path, number: int) -> Path:
    """File of a piece, named by its batches, so that it does not matter which process writes it."""
    return folder / f"{number * PIECE}-{(number + 1) * PIECE}"


def _write_pieces(folder: Path, done: int, count: int, compute: Callable[[Sequence[int]], Generator[bytes]]) -> None:
    """Compute this process's share of the pieces that are missing after the first `done` of `count` batches."""
    own = range(done // PIECE + distributed.rank(), -(-count // PIECE), distributed.world())
    missing = [n for n in own if not _piece(folder, n).exists()]
    batches = {n: range(n * PIECE, min((n + 1) * PIECE, count)) for n in missing}
    with contextlib.closing(compute([n for piece in batches.values() for n in piece])) as rows:
        for number, piece in batches.items():
            with whole_file(_piece(folder, number)) as file:
                for _ in piece:
                    file.write(next(rows))
                    interrupts.check()


def _read_pieces(folder: Path, done: int, count: int, size: int) -> Generator[bytes]:
    """Read the rows after the first `done` of `count` batches of `size` bytes, piece by piece."""
    for number in range(done // PIECE, -(-count // PIECE)):
        yield _piece(folder, number).read_bytes()[max(0, done - number * PIECE) * size :]


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
