"""Read features of a user's own networks from a folder with train.npz, dev.npz and, for the found network, test.npz.

Arrays of a file: `NAME.INDEX` (N, D) for each feature of a modality, numbered from 0 without gaps; optionally
`NAME.logits` (N, C), the output of the modality's own network; and `label`, either integers (N,) from 0, or 0 and 1
(N, C) if a sample may belong to several classes. The order of modalities is that of train.npz. Names may be beside
them: `class_names` (C,), and `NAME.modules`, one for each feature of a modality.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.feature_checks import (
    Arrays,
    are_multi_label,
    check_repeated,
    check_same_widths,
    check_split,
    count_classes,
)
from datasets.feature_names import is_text, read_class_names, read_module_names
from utils.arrays import read_arrays
from utils.errors import DataError

MODALITIES = range(2, 6)  # possible numbers of modalities
NAME = re.compile(r"([A-Za-z0-9_-]+)\.(0|[1-9][0-9]{0,3}|logits)")
FORMS = "NAME.INDEX, NAME.logits, NAME.modules, label or class_names"


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
    class_names: tuple[str, ...] | None  # num_outputs names; None if not known
    module_names: Mapping[str, tuple[str, ...]]  # of each feature by modality; modalities may be missing

    @property
    def feature_names(self) -> list[str]:
        """NAME.INDEX of the features, in the order of a row, with the module in parentheses if its name is known."""
        names = []
        for name, widths in zip(self.modalities, self.widths, strict=True):
            for i, module in enumerate(self.module_names.get(name, [""] * len(widths))):
                names.append(f"{name}.{i} ({module})" if module else f"{name}.{i}")
        return names


def load_features(
    folder: Path, splits: Sequence[str], limits: Mapping[str, int | None], multi_label: bool = False
) -> FeatureData:
    """Read and check splits.

    Args:
        splits: train first; it determines the order of modalities and, unless there are logits, the number of classes.
        limits: number of samples to keep from the start of each split; None or no entry keeps all.
        multi_label: accept labels (N, C) even if every sample has exactly one, and no others.

    Raises:
        DataError: a file is missing or damaged, or breaks a rule; the message names the file, the array and the rule.
    """
    arrays, texts, checksums = dict[str, Arrays](), dict[str, Arrays](), dict[str, str]()
    for split in splits:
        path = folder / f"{split}.npz"
        try:
            found, checksums[path.name] = read_arrays(path, DataError)
        except FileNotFoundError:
            there = sorted(entry.name for entry in folder.iterdir())[:5] if folder.is_dir() else []
            instead = f" ({folder} holds {', '.join(there)})" if there else ""
            raise DataError(f"{path} is missing{instead}; docs/own_data.md describes the file") from None
        arrays[split] = {name: array for name, array in found.items() if not is_text(name)}
        texts[split] = {name: array for name, array in found.items() if is_text(name)}
    train = arrays[splits[0]]
    features = _features(folder / f"{splits[0]}.npz", train)
    for split in splits:
        check_split(folder / f"{split}.npz", arrays[split])
    check_same_widths(folder, arrays)
    labels = {split: arrays[split]["label"] for split in splits}
    logits = _logits(folder, features, train)
    multi_label = are_multi_label(folder, labels, multi_label)
    count = _count_labels if multi_label else count_classes
    num_outputs = count(folder, labels, logits)

    columns = [name for names in features.values() for name in names]
    widths = tuple(tuple(train[name].shape[1] for name in names) for names in features.values())
    rows = {}
    for split in splits:
        kept = slice(limits.get(split))
        parts = [arrays[split][name][kept] for name in (*columns, *logits)]
        rows[split] = np.concatenate(parts, axis=1, dtype=np.float32)
        labels[split] = labels[split][kept].astype(np.float32 if multi_label else np.int64)
    check_repeated(folder, {split: of[:, : sum(map(sum, widths))] for split, of in rows.items()})
    class_names = read_class_names(folder, texts, num_outputs)
    module_names = read_module_names(folder, texts, {name: len(names) for name, names in features.items()})
    return FeatureData(
        modalities=tuple(features),
        widths=widths,
        has_logits=bool(logits),
        num_outputs=num_outputs,
        multi_label=multi_label,
        rows=rows,
        labels=labels,
        checksums=checksums,
        class_names=class_names,
        module_names=module_names,
    )


def _features(path: Path, arrays: Arrays) -> dict[str, list[str]]:
    """Names of the feature arrays of each modality, in order."""
    indices: dict[str, set[int]] = {}
    for name in arrays:
        if name == "label":
            continue
        match = NAME.fullmatch(name)
        if match is None:
            raise DataError(f"{path}: arrays must be named {FORMS}, but one is {name!r}")
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


def _logits(folder: Path, modalities: Mapping[str, list[str]], arrays: Arrays) -> dict[str, int]:
    """Columns of the arrays of logits by name: of all modalities, or none."""
    logits = [f"{name}.logits" for name in modalities if f"{name}.logits" in arrays]
    if logits and len(logits) < len(modalities):
        raise DataError(f"{folder}: all modalities or none must have logits, but the files have {', '.join(logits)}")
    return {name: arrays[name].shape[1] for name in logits}


def _count_labels(folder: Path, labels: Arrays, logits: Mapping[str, int]) -> int:
    """Number of classes of labels (N, C) by split; logits must have as many columns."""
    number = next(iter(labels.values())).shape[1]
    for name, found in logits.items():
        if found != number:
            raise DataError(f"{folder}: {name} must have a column for each of {number} classes, but has {found}")
    return number
