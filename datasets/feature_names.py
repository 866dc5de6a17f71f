"""Read and check the names of classes and of modules that a folder of features may have beside its numbers."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from utils.errors import DataError
from utils.reading import read_bytes, shown

CLASS_NAMES, CLASS_FILE, MODULES = "class_names", "classes.txt", ".modules"
MOST_CHARACTERS = 100  # of a name
Arrays = Mapping[str, np.ndarray]


def is_text(name: str) -> bool:
    """Whether an array of this name holds names rather than numbers."""
    return name == CLASS_NAMES or name.endswith(MODULES)


def check_names(names: Iterable[str], least: int = 1) -> tuple[str, ...]:
    """Return names of `least` to `MOST_CHARACTERS` printable characters; ValueError if one is not."""
    if isinstance(names, str):
        raise ValueError(f"must be a list of names, not {shown(names)}")
    names = tuple(names)
    for name in names:
        fits = isinstance(name, str) and name.isprintable() and least <= len(name.strip())
        if not fits or len(name) > MOST_CHARACTERS:
            raise ValueError(f"must be names of {least} to {MOST_CHARACTERS} printable characters, not {shown(name)}")
    return names


def check_class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of classes, each of which occurs once; ValueError if they are none."""
    names = check_names(names)
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise ValueError(f"must be different names, but {shown(name)} occurs {count} times")
    return names


def read_class_names(folder: Path, texts: Mapping[str, Arrays], classes: int) -> tuple[str, ...] | None:
    """Names of the classes, from the arrays `class_names` or from classes.txt; None if there are none.

    Args:
        texts: arrays of names by split.

    Raises:
        DataError: they are not different printable names, one for each class, or files differ.
    """
    found = {}
    for split, arrays in texts.items():
        if CLASS_NAMES in arrays:
            path = folder / f"{split}.npz"
            found[path] = _checked(f"{path}: {CLASS_NAMES}", arrays[CLASS_NAMES], classes, "class")
    path = folder / CLASS_FILE
    if path.exists():
        try:
            lines = read_bytes(path, DataError).decode("utf-8-sig").rstrip().split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} must be text in UTF-8, one name per line, but byte {error.start} is not") from None
        found[path] = _checked(str(path), np.array([line.strip() for line in lines]), classes, "class")
    return _only(folder, CLASS_NAMES, found)


def read_module_names(
    folder: Path, texts: Mapping[str, Arrays], sizes: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """Names of the modules that gave the features, by modality; modalities whose modules are not known are left out.

    Args:
        texts: arrays of names by split.
        sizes: number of features by modality.

    Raises:
        DataError: they are not printable names, one for each feature, or files differ.
    """
    found: dict[str, dict[Path, tuple[str, ...]]] = {}
    for split, arrays in texts.items():
        for name in arrays.keys() - {CLASS_NAMES}:
            path, modality = folder / f"{split}.npz", name.removesuffix(MODULES)
            if modality not in sizes:
                raise DataError(f"{path}: {name[:80]!r} names modules of a modality without features")
            names = _checked(f"{path}: {name}", arrays[name], sizes[modality], "feature")
            found.setdefault(modality, {})[path] = names
    return {name: _only(folder, f"{name}{MODULES}", found[name]) or () for name in sizes if name in found}


def _checked(where: str, array: np.ndarray, count: int, kind: str) -> tuple[str, ...]:
    """Convert an array of one name for each class or feature."""
    if array.ndim != 1 or array.dtype.kind != "U":
        raise DataError(f"{where} must hold text (N,), but is {array.dtype} {array.shape}")
    if len(array) != count:
        raise DataError(f"{where} must have one name for each {kind}, but has {len(array):,} for {count:,}")
    try:
        return check_class_names(array.tolist()) if kind == "class" else check_names(array.tolist(), least=0)
    except ValueError as error:
        raise DataError(f"{where} {error}") from None


def _only(folder: Path, name: str, found: Mapping[Path, tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the names, which must be equal in all files that have any; None if no file has."""
    for path, names in found.items():
        first = next(iter(found))
        if names != found[first]:
            raise DataError(f"{folder}: {name} must be the same everywhere, but differ in {first.name} and {path.name}")
    return next(iter(found.values()), None)
