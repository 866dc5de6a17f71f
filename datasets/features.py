"""Features of one's own networks: a folder with train.npz, dev.npz and, for the found network, test.npz.

Arrays of a file: `NAME.INDEX` (N, D) for each feature of a modality, indices from 0 without gaps; optionally
`NAME.logits` (N, C), what the modality's own network says; and `label`, (N,) whole numbers from 0, or (N, C) of 0 and 1
where a sample has any number of classes. Modalities are in the order of train.npz.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import DataError

MODALITIES = range(2, 6)  # how many there may be
NAME = re.compile(r"([A-Za-z0-9_-]+)\.(0|[1-9][0-9]{0,3}|logits)")
MOST_CLASSES = 100_000  # more are no classes, but numbers of samples or the like


@dataclass(frozen=True)
class FeatureData:
    """Splits as tables: rows (N, total) float32 of all features by modality, then all logits; and labels."""

    modalities: tuple[str, ...]
    widths: tuple[tuple[int, ...], ...]  # by modality
    has_logits: bool
    num_outputs: int
    multi_label: bool
    rows: Mapping[str, np.ndarray]  # by split
    labels: Mapping[str, np.ndarray]  # by split, int64 (N,) or float32 (N, C)

    @property
    def feature_names(self) -> list[str]:
        """NAME.INDEX of the features, in the order of a row."""
        return [
            f"{name}.{i}" for name, widths in zip(self.modalities, self.widths, strict=True) for i in range(len(widths))
        ]


def load_features(folder: Path, splits: Sequence[str], limits: Mapping[str, int | None]) -> FeatureData:
    """Read the named splits; the limits keep the first samples of each.

    Args:
        splits: train first, which tells the order of modalities and how many classes there are.

    Raises:
        DataError: a file is missing or damaged, or breaks a rule; the message names file, array and rule.
    """
    arrays = {split: _read(folder / f"{split}.npz") for split in splits}
    first, *others = splits
    names = _modalities(folder / f"{first}.npz", arrays[first])
    for split in splits:
        _check_split(folder / f"{split}.npz", arrays[split])
    shapes = {name: array.shape[1:] for name, array in arrays[first].items()}
    for split in others:
        found = {name: array.shape[1:] for name, array in arrays[split].items()}
        for name in sorted(shapes.keys() | found.keys()):
            if shapes.get(name) != found.get(name):
                raise DataError(
                    f"{folder}: all splits need the same arrays, but the width of {name} is "
                    f"{_width(shapes.get(name))} in {first}.npz and {_width(found.get(name))} in {split}.npz"
                )
    columns = [f"{name}.{i}" for name, count in names.items() for i in range(count)]
    logits = [f"{name}.logits" for name in names if f"{name}.logits" in arrays[first]]
    if logits and len(logits) < len(names):
        raise DataError(f"{folder}: either all modalities have logits or none, but only {', '.join(logits)} are there")
    num_outputs, multi_label = _classes(folder, arrays)
    for name in logits:
        if arrays[first][name].shape[1] != num_outputs:
            raise DataError(
                f"{folder}: {name} must have a column for each of {num_outputs} classes, "
                f"but has {arrays[first][name].shape[1]}"
            )
    kept = {split: slice(0, limits.get(split)) for split in splits}
    return FeatureData(
        modalities=tuple(names),
        widths=tuple(tuple(arrays[first][f"{name}.{i}"].shape[1] for i in range(n)) for name, n in names.items()),
        has_logits=bool(logits),
        num_outputs=num_outputs,
        multi_label=multi_label,
        rows={
            s: np.concatenate([arrays[s][c][kept[s]] for c in columns + logits], 1, dtype=np.float32) for s in splits
        },
        labels={s: arrays[s]["label"][kept[s]].astype(np.float32 if multi_label else np.int64) for s in splits},
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"{path} is one array, not an .npz file of several; write it with numpy.savez")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path} is missing; docs/own_data.md tells what belongs there") from None
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory: {_one_line(error)}") from None
    except Exception as error:  # what zip, its compressions and numpy's headers raise of damaged bytes may be any
        if isinstance(error, OSError) and error.filename:
            raise
        raise DataError(f"{path} is not a whole .npz file: {_one_line(error)}") from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # another file in the archive
            raise DataError(f"{path}: {name!r} is no array; write the file with numpy.savez")
    return arrays


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _modalities(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many features each modality has."""
    indices: dict[str, set[int]] = {}
    for name in arrays:
        if name == "label":
            continue
        match = NAME.fullmatch(name)
        if match is None:
            raise DataError(f"{path}: arrays are called NAME.INDEX, NAME.logits or label, but one is {name!r}")
        indices.setdefault(match[1], set())
        if match[2] != "logits":
            indices[match[1]].add(int(match[2]))
    for name, found in indices.items():
        if found != set(range(len(found))) or not found:
            there = ", ".join(map(str, sorted(found))) or "none"
            raise DataError(f"{path}: the features of {name} must count from 0 without gaps, but there are {there}")
    if len(indices) not in MODALITIES:
        raise DataError(f"{path}: two to five modalities are fused, but there are {len(indices)}: {', '.join(indices)}")
    return {name: len(found) for name, found in indices.items()}


def _check_split(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Shapes, types, counts and values of one file."""
    if "label" not in arrays:
        raise DataError(f"{path} has no array called label")
    labels = arrays["label"]
    kinds = {1: "iub", 2: "iubf"}.get(labels.ndim, "")
    if labels.dtype.kind not in kinds or 0 in labels.shape[1:]:
        raise DataError(
            f"{path}: label must be whole numbers (N,), or 0 and 1 (N, C), but is {labels.dtype} {labels.shape}"
        )
    if not len(labels):
        raise DataError(f"{path} holds no samples")
    if labels.ndim == 1 and labels.min() < 0:
        raise DataError(f"{path}: labels count from 0, but one is {labels.min()}")
    if labels.ndim == 1 and labels.max() >= MOST_CLASSES:
        raise DataError(f"{path}: labels count from 0, but the highest is {labels.max()}")
    if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():
        raise DataError(f"{path}: labels of several classes a sample are 0 or 1, but there are others")
    for name, array in arrays.items():
        if name == "label":
            continue
        if array.ndim != 2 or array.dtype.kind not in "fiu" or not array.shape[1]:
            raise DataError(f"{path}: {name} must hold numbers (N, D), but is {array.dtype} {array.shape}")
        if len(array) != len(labels):
            raise DataError(f"{path}: {name} has {len(array)} samples, but label has {len(labels)}")
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32, copy=False)).all(axis=1)
        if not finite.all():
            raise DataError(f"{path}: {name} is not finite in sample {int(finite.argmin())}")


def _classes(folder: Path, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[int, bool]:
    """How many classes there are, and whether a sample may have several."""
    first, *others = arrays
    labels = arrays[first]["label"]
    if labels.ndim == 2:
        return labels.shape[1], True
    highest = {split: int(content["label"].max()) for split, content in arrays.items()}
    count = highest[first] + 1
    if len(np.unique(labels)) < 2:
        raise DataError(f"{folder}/{first}.npz: all samples are of class {labels[0]}; there is nothing to tell apart")
    for split in others:
        if highest[split] >= count:
            raise DataError(
                f"{folder}: {split}.npz has the class {highest[split]}, but train.npz only classes up to {count - 1}"
            )
    return count, False


def _width(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape)) or "1"
