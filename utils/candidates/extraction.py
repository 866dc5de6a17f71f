"""Extract a table of the feature bank: run the unimodal networks over a split, or resume where that stopped."""

import io
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from models.fusion import FusionNetwork
from models.lenet import LeNet
from utils import interrupts
from utils.candidates import fused
from utils.files import write_text
from utils.progress import Progress
from utils.reading import sha256
from utils.training.batches import Batch, Split
from utils.training.devices import autocast, threads

EXTRACTION_BATCH = 32  # small enough for the feature maps of a batch to stay in cache
CHECKSUM = ".sha256"  # suffix of the file with the checksum of a table
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
