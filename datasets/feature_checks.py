"""Check tables of features and labels, of each split and against each other; errors name the file and the rule."""

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.errors import DataError

MOST_CLASSES = 100_000  # larger labels are not classes, but sample numbers or the like
MOST_SHOWN = 10  # missing classes in a message
Arrays = Mapping[str, np.ndarray]


def check_split(path: Path, arrays: Arrays) -> None:
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
    found = f"{labels.dtype} {labels.shape}"
    if labels.dtype.kind in "US":
        raise DataError(
            f"{path}: label must hold integers, but holds text ({found}); number the classes of all splits together, "
            "names, numbers = numpy.unique(labels, return_inverse=True), and store the names as class_names"
        )
    kinds = {1: "iub", 2: "iubf"}.get(labels.ndim, "")
    if labels.dtype.kind not in kinds or 0 in labels.shape[1:]:
        raise DataError(f"{path}: label must hold integers (N,), or 0 and 1 (N, C), but is {found}")
    if not len(labels):
        raise DataError(f"{path} has no samples")
    if labels.ndim == 2 and not np.isin(labels, (0, 1)).all():
        raise DataError(f"{path}: labels (N, C) must be 0 or 1, but some are not")
    if labels.ndim == 1 and not 0 <= labels.min() <= labels.max() < MOST_CLASSES:
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"{path}: labels must lie in 0..{MOST_CLASSES - 1}, but range from {found}")


def check_same_widths(folder: Path, arrays: Mapping[str, Arrays]) -> None:
    """Check that all splits have the arrays of the first, of the same widths."""
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


def are_multi_label(folder: Path, labels: Mapping[str, np.ndarray], wanted: bool) -> bool:
    """Whether labels, by split, are 0 and 1 (N, C) for samples of several labels, rather than classes (N,).

    Args:
        wanted: `--multi_label`, which allows labels (N, C) that look like one-hot classes.

    Raises:
        DataError: every sample has exactly one of several labels, or labels are classes though `wanted`.
    """
    first = next(iter(labels.values()))
    if first.ndim == 1:
        if wanted:
            raise DataError(f"{folder}: --multi_label needs labels 0 and 1 (N, C), but label is {first.dtype} (N,)")
        return False
    if not wanted and first.shape[1] > 1 and all((of.sum(axis=1) == 1).all() for of in labels.values()):
        raise DataError(
            f"{folder}: each sample has one of {first.shape[1]} labels; these look like one-hot classes: give integers "
            "(N,), as label.argmax(axis=1) does, or --multi_label if every sample really has one label"
        )
    return True


def count_classes(folder: Path, labels: Mapping[str, np.ndarray], logits: Mapping[str, int]) -> int:
    """Number of classes of labels (N,) by split, train first: the columns of the logits, or the classes in train.

    Warn if the logits have classes that train lacks.

    Args:
        logits: columns of each array of logits, by name.

    Raises:
        DataError: train lacks a class below its highest, or another split has a class beyond the number.
    """
    first = next(iter(labels))
    path, highest = folder / f"{first}.npz", int(labels[first].max())
    if (labels[first] == labels[first][0]).all():
        raise DataError(f"{path} must have two classes or more, but all samples are of class {labels[first][0]}")
    number = next(iter(logits.values()), highest + 1)
    for name, found in logits.items():
        if found != number:
            others = ", ".join(f"{found} in {name}" for name, found in logits.items())
            raise DataError(f"{folder}: logits must have a column for each class, but there are {others}")
    limit = f"{next(iter(logits))} has {number} columns" if logits else f"{first}.npz only classes up to {highest}"
    for split, of in labels.items():
        if of.max() >= number:
            raise DataError(f"{folder}: {split}.npz has class {of.max()}, but {limit}")
    missing = np.setdiff1d(np.arange(number), labels[first])
    if not len(missing):
        return number
    more = ", ..." if len(missing) > MOST_SHOWN else ""
    lacks = (
        f"has no sample of {len(missing):,} of {number:,} classes: {', '.join(map(str, missing[:MOST_SHOWN]))}{more}"
    )
    if not logits:
        raise DataError(
            f"{path} {lacks}; number the classes of all splits together without gaps "
            "(numpy.unique(labels, return_inverse=True)[1]), or store logits, whose columns are the classes"
        )
    print(f"warning: {path} {lacks}", file=sys.stderr)
    return number


def check_repeated(folder: Path, rows: Mapping[str, np.ndarray]) -> None:
    """Compare the samples of all splits; warn if some occur in two.

    Args:
        rows: features (N, D) by split, train first.

    Raises:
        DataError: all samples of a split occur in another. If at most half of a split's
            samples are distinct, as with features that take few values, this only gives the warning.
    """
    # Keyed 64-bit hashes: 100,000 samples of 4,000 features take a fraction of the time to read them.
    hashes = {split: [hash(row.tobytes()) for row in of] for split, of in rows.items()}
    known = {split: set(of) for split, of in hashes.items()}
    order, found = list(rows), []
    for one, other in itertools.permutations(reversed(order), 2):
        count, shared = len(hashes[one]), sum(value in known[other] for value in hashes[one])
        if shared == count < 2 * len(known[one]):
            raise DataError(
                f"{folder}: all {count:,} samples of {one}.npz are also in {other}.npz (they have the same features); "
                "a split must have samples of its own"
            )
        if shared and order.index(one) > order.index(other):
            found.append(f"{shared:,} of {count:,} samples of {one}.npz are also in {other}.npz")
    if found:
        print(f"warning: {folder}: {', and '.join(found)} (they have the same features)", file=sys.stderr)
