"""The feature bank: pooled features and logits of frozen unimodal networks over whole splits, computed once.

One table (N, layout.total) float32 a split, in a folder named by a key over everything that the features depend on:
checkpoints, data, settings. A bank with the same key is opened, not computed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.fusion import FeatureLayout, FusionNetwork
from utils.batches import ArraySplit
from utils.files import whole_file, write_json

# Small enough for the feature maps of a batch to stay in cache.
EXTRACTION_BATCH = 32


@dataclasses.dataclass(frozen=True)
class FeatureBank:
    """Tables by split, as splits whose only input is the row."""

    layout: FeatureLayout
    splits: Mapping[str, ArraySplit]
    folder: Path
    reused: bool


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def data_identity(datadir: Path, arrays: Iterable[str]) -> dict[str, object]:
    """What tells one data set from another: its manifest, else size and time of each array file."""
    manifest = datadir / "manifest.json"
    if manifest.exists():
        return {"manifest": file_digest(manifest)}
    stats = {name: (datadir / name).stat() for name in arrays}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def open_bank(
    folder: Path,
    network: FusionNetwork,
    splits: Mapping[str, ArraySplit],
    identity: Mapping[str, object],
    device: torch.device,
    verbose: bool = True,
) -> FeatureBank:
    """The bank of `network`'s unimodal nets over `splits`, computed into a sub-folder of `folder` unless it is there.

    Args:
        identity: everything that the features depend on, as JSON values; its hash names the sub-folder.
    """
    widths = tuple(tuple(net.feature_widths) for net in network.backbones())
    layout = FeatureLayout(widths, network.settings.num_outputs)
    counts = {name: len(split) for name, split in splits.items()}
    content = {"format": 1, "device": device.type, "widths": widths, "counts": counts, **identity}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    home = folder / key
    shapes = {name: (count, layout.total) for name, count in counts.items()}
    tables = _read_tables(home, shapes)
    reused = tables is not None
    if not reused:
        network.to(device)
        for name, split in splits.items():
            table = _extract(network, split, layout, device, name, verbose)
            with whole_file(home / f"{name}.npy") as file:
                np.save(file, table)
        write_json(home / "bank.json", content)
        tables = _read_tables(home, shapes)
    banked = {name: ArraySplit((torch.from_numpy(tables[name]),), splits[name].labels) for name in splits}
    return FeatureBank(layout, banked, home, reused)


def _read_tables(home: Path, shapes: Mapping[str, tuple[int, int]]) -> dict[str, np.ndarray] | None:
    """The tables of a finished bank, memory-mapped; None where it is not finished, or not whole."""
    if not (home / "bank.json").exists():  # written last
        return None
    try:
        tables = {name: np.load(home / f"{name}.npy", mmap_mode="c") for name in shapes}
    except (OSError, ValueError, EOFError):
        return None
    return tables if all(tables[name].shape == shape for name, shape in shapes.items()) else None


@torch.no_grad()
def _extract(
    network: FusionNetwork, split: ArraySplit, layout: FeatureLayout, device: torch.device, name: str, verbose: bool
) -> np.ndarray:
    """One pass in order with the unimodal networks in eval mode: (N, layout.total) float32."""
    network.eval()
    table = np.empty((len(split), layout.total), np.float32)
    start = 0
    for inputs, _ in tqdm(split.batches(EXTRACTION_BATCH), desc=f"features of {name}", disable=not verbose):
        rows = feature_rows(network, [x.to(device) for x in inputs])
        table[start : start + len(rows)] = rows.cpu().numpy()
        start += len(rows)
    return table


def feature_rows(network: FusionNetwork, inputs: Iterable[Tensor]) -> Tensor:
    """The rows (B, layout.total) of a batch: all features by modality, then the logits by modality."""
    features, logits = network.unimodal(*inputs)
    return torch.cat([x for modality in features for x in modality] + list(logits), dim=1)
