"""Read features of a user's own networks from a folder with train.npz, dev.npz and, for the found network, test.npz.

Arrays of a file: `NAME.INDEX` (N, D) for each feature of a modality, numbered from 0 without gaps; optionally
`NAME.logits` (N, C), the output of the modality's own network; and `label`, either integers (N,) from 0, or 0 and 1
(N, C) if a sample may belong to several classes. The order of modalities is that of train.npz.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.arrays import read_arrays
from utils.errors import DataError

MODALITIES = range(2, 6)  # possible numbers of modalities
NAME = re.compile(r"([A-Za-z0-9_-]+)\.(0|[1-9][0-9]{0,3}|logits)")
MOST_CLASSES = 100_000  # larger labels are not classes, but sample numbers or the like
Arrays = Mapping[str, np.ndarray]


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
    checksums: Mapping[str, str]  # SHA-256 of the files by name, which are the data's fingerprint

    @property
    def feature_names(self) -> list[str]:
        """NAME.INDEX of the features, in the order of a row."""
        counted = zip(self.modalities, map(len, self.widths), strict=True)
        return [f"{name}.{i}" for name, count in counted for i in range(count)]


def load_features(folder: Path, splits: Sequence[str], limits: Mapping[str, int | None]) -> FeatureData:
    """Read and check splits.

    Args:
        splits: train first; it determines the order of modalities and the number of classes.
        limits: number of samples to keep from the start of each split; None or no entry keeps all.

    Raises:
        DataError: a file is missing or damaged, or breaks a rule; the message names the file, the array and the rule.
    """
    arrays, checksums = dict[str, Arrays](), dict[str, str]()
    for split in splits:
        path = folder / f"{split}.npz"
        try:
            arrays[split], checksums[path.name] = read_arrays(path, DataError)
        except FileNotFoundError:
            raise DataError(f"{path} is missing; docs/own_data.md describes the file") from None
    train = arrays[splits[0]]
    features = _features(folder / f"{splits[0]}.npz", train)
    for split in splits:
        _check_split(folder / f"{split}.npz", arrays[split])
    _check_same_widths(folder, arrays)
    multi_label = train["label"].ndim == 2
    num_outputs = train["label"].shape[1] if multi_label else _count_classes(folder, arrays)
    logits = _logits(folder, features, train, num_outputs)

    columns = [name for names in features.values() for name in names] + logits
    rows, labels = {}, {}
    for split in splits:
        kept = slice(limits.get(split))
        rows[split] = np.concatenate([arrays[split][name][kept] for name in columns], axis=1, dtype=np.float32)
        labels[split] = arrays[split]["label"][kept].astype(np.float32 if multi_label else np.int64)
    widths = tuple(tuple(train[name].shape[1] for name in names) for names in features.values())
    return FeatureData(tuple(features), widths, bool(logits), num_outputs, multi_label, rows, labels, checksums)


def _features(path: Path, arrays: Arrays) -> dict[str, list[str]]:
    """Names of the feature arrays of each modality, in order."""
    indices: dict[str, set[int]] = {}
    for name in arrays:
        if name == "label":
            continue
        match = NAME.fullmatch(name)
        if match is None:
            raise DataError(f"{path}: arrays must be named NAME.INDEX, NAME.logits or label, but one is {name!r}")
        found = indices.setdefault(match[1], set())
        if match[2] != "logits":
            found.add(int(match[2]))
    for name, found in indices.items():
        if not found or found != set(range(len(found))):
            numbers = ", ".join(map(str, sorted(found))) or "none"
            rule = f"the features of {name} must be numbered from 0 without gaps"
            raise DataError(f"{path}: {rule}, but the file has {numbers}")
    if len(indices) not in MODALITIES:
        names = ", ".join(indices)
        raise DataError(f"{path}: the number of modalities must be 2 to 5, but the file has {len(indices)}: {names}")
    return {name: [f"{name}.{i}" for i in range(len(found))] for name, found in indices.items()}


def _check_split(path: Path, arrays: Arrays) -> None:
    """Check shapes, types, counts and values of one file."""
    if "label" not in arrays:
        raise DataError(f"{path} has no array named label")
    labels = arrays["label"]
    _check_labels(path, labels)
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
            raise DataError(f"{path}: {name} must be finite, but is not in sample {int(finite.argmin())}")


def _check_labels(path: Path, labels: np.ndarray) -> None:
    kinds = {1: "iub", 2: "iubf"}.get(labels.ndim, "")
    if labels.dtype.kind not in kinds or 0 in labels.shape[1:]:
        found = f"{labels.dtype} {labels.shape}"
        raise DataError(f"{path}: label must hold integers (N,), or 0 and 1 (N, C), but is {found}")
    if not len(labels):
        raise DataError(f"{path} has no samples")
    if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():
        raise DataError(f"{path}: labels (N, C) must be 0 or 1, but some are not")
    if labels.ndim == 1 and not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"{path}: labels must lie in 0..{MOST_CLASSES - 1}, but range from {found}")


def _check_same_widths(folder: Path, arrays: Mapping[str, Arrays]) -> None:
    widths = {split: {name: (*of[name].shape, 1)[1] for name in of} for split, of in arrays.items()}
    first, *others = arrays
    for split in others:
        for name in sorted(widths[first].keys() | widths[split].keys()):
            expected, found = (widths[which].get(name, "none") for which in (first, split))
            if expected != found:
                raise DataError(
                    f"{folder}: all splits must have the same arrays, but the width of {name} is "
                    f"{expected} in {first}.npz and {found} in {split}.npz"
                )


def _logits(folder: Path, modalities: Mapping[str, list[str]], arrays: Arrays, num_outputs: int) -> list[str]:
    """Names of the arrays of logits: of all modalities, or none."""
    logits = [f"{name}.logits" for name in modalities if f"{name}.logits" in arrays]
    if logits and len(logits) < len(modalities):
        raise DataError(f"{folder}: all modalities or none must have logits, but the files have {', '.join(logits)}")
    for name in logits:
        if (found := arrays[name].shape[1]) != num_outputs:
            raise DataError(f"{folder}: {name} must have a column for each of {num_outputs} classes, but has {found}")
    return logits


def _count_classes(folder: Path, arrays: Mapping[str, Arrays]) -> int:
    """Number of classes in train; the other splits must have no others."""
    first, *others = arrays
    labels = arrays[first]["label"]
    highest = int(labels.max())
    if (labels == labels[0]).all():
        raise DataError(f"{folder}/{first}.npz must have two classes or more, but all samples are of class {labels[0]}")
    for split in others:
        found = int(arrays[split]["label"].max())
        if found > highest:
            raise DataError(f"{folder}: {split}.npz has class {found}, but {first}.npz only classes up to {highest}")
    return highest + 1
