"""Read MM-IMDB from multimodal_imdb.hdf5: 25,959 films with the plot, the poster and the genres of each.

Datasets of the file, with one row per film: `features` float32 (N, 300), the mean word2vec of the plot; `vgg_features`
float32 (N, 4096), VGG-16 on the poster; `images` int32 (N, 3, 256, 160), the poster; `genres` 0 and 1 (N, 23).
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import DataError, UsageError
from utils.reading import open_file, parse_json

SPLITS = {"train": slice(0, 15_552), "dev": slice(15_552, 18_160), "test": slice(18_160, 25_959)}
SHAPES = {"features": (300,), "vgg_features": (4096,), "images": (3, 256, 160)}
PIXEL_MEANS = (103.939, 116.779, 123.68)  # of blue, green and red, which the file's images lack


@dataclasses.dataclass(frozen=True)
class MMIMDB:
    """Films by split: labels float32 (N, C) of 0 and 1, and names of the C genres if the file has them."""

    path: Path
    spans: Mapping[str, slice]
    labels: Mapping[str, np.ndarray]
    genres: tuple[str, ...] | None

    def table(self, name: str) -> dict[str, np.ndarray]:
        """Read "features" or "vgg_features" by split: float32 (N, D). Numbers that are not finite become 0.

        Raises:
            DataError: the file lacks them, or they are damaged.
        """
        with _opened(self.path) as file:
            source = _dataset(self.path, file, name, self.spans["test"].stop, SHAPES[name])
            rows = {split: source[span].astype(np.float32) for split, span in self.spans.items()}
        wrong = sum(int((~np.isfinite(part)).any(axis=1).sum()) for part in rows.values())
        if wrong:
            print(f"warning: {self.path}: {wrong:,} rows of {name} have numbers that are not finite", file=sys.stderr)
        return {split: np.nan_to_num(part, nan=0, posinf=0, neginf=0) for split, part in rows.items()}

    def posters(self, split: str, batch: int) -> Iterator[np.ndarray]:
        """Read the posters of a split in batches: float32 (B, 3, 256, 160), red first, from 0 to 255.

        Raises:
            DataError: the file lacks them, they are damaged, or they still have their mean.
        """
        span = self.spans[split]
        with _opened(self.path) as file:
            source = _dataset(self.path, file, "images", self.spans["test"].stop, SHAPES["images"])
            for start in range(span.start, span.stop, batch):
                images = source[start : min(start + batch, span.stop)].astype(np.float32)
                if start == span.start and images.min() >= 0:  # in all of a batch: a poster alone may be white
                    rule = "images must be blue first and without their mean, as the published file has them"
                    raise DataError(f"{self.path}: {rule}, but the first ones have no negative value")
                yield (images + np.array(PIXEL_MEANS, np.float32)[:, None, None])[:, ::-1].copy()


def load_mmimdb(path: Path) -> MMIMDB:
    """Open the file, and read its splits, labels and names of genres.

    Raises:
        DataError: it is missing or damaged, or has another layout.
        UsageError: h5py is not installed.
    """
    with _opened(path) as file:
        count = (getattr(file.get("genres"), "shape", None) or (0,))[0]
        labels = _dataset(path, file, "genres", count, None)
        spans = _spans(path, file, count)
        whole = labels[...].astype(np.float32)
        names = labels.attrs.get("target_names")
    if not np.isin(whole, (0, 1)).all():
        raise DataError(f"{path}: genres must be 0 or 1, but range from {whole.min():g} to {whole.max():g}")
    genres = _names(path, names, whole.shape[1])
    return MMIMDB(path, spans, {split: whole[span] for split, span in spans.items()}, genres)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise UsageError("MM-IMDB is an HDF5 file, which needs the package h5py: pip install h5py") from None
    try:
        open_file(path, DataError).close()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; docs/mmimdb.md says where to get it") from None
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises on a damaged file
        raise DataError(f"{path} is not a complete HDF5 file: {' '.join(str(error).split())[:200]}") from None


def _dataset(path: Path, file: Any, name: str, count: int, inner: tuple[int, ...] | None) -> Any:
    """A dataset of `count` rows of numbers; DataError if there is none. `inner` None: rows of any length."""
    found = file.get(name)
    shape, kind = getattr(found, "shape", None), getattr(getattr(found, "dtype", None), "kind", "")
    fits = shape is not None and len(shape) > 1 and shape[0] == count and shape[1:] == (inner or shape[1:2])
    if not fits or kind not in "fiub" or not count:
        wanted = ", ".join(map(str, inner or "C"))
        held = f"{found.dtype} {shape}" if shape is not None else "none"
        raise DataError(f"{path} must hold numbers {name} ({count or 'N'}, {wanted}), but holds {held}")
    return found


def _spans(path: Path, file: Any, count: int) -> dict[str, slice]:
    """Rows of each split, from the attribute `split` that the published file has, or the published numbers."""
    table = file.attrs.get("split")
    found = dict(SPLITS)
    if table is not None:
        try:
            rows = [row for row in table if _text(row["source"]) == "genres"]
            found |= {_text(row["split"]): slice(int(row["start"]), int(row["stop"])) for row in rows}
        except (IndexError, ValueError, TypeError):
            raise DataError(f"{path}: the attribute split must list the rows of each split") from None
    spans = {split: found[split] for split in SPLITS}
    ends = [0, *(span.stop for span in spans.values())]
    if [span.start for span in spans.values()] != ends[:-1] or sorted(set(ends)) != ends or ends[-1] != count:
        held = ", ".join(f"{split} {span.start} to {span.stop}" for split, span in spans.items())
        raise DataError(f"{path}: the splits must follow each other in all {count:,} rows, but are {held}")
    return spans


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _names(path: Path, stored: Any, count: int) -> tuple[str, ...] | None:
    if stored is None:
        return None
    try:
        names = parse_json(_text(stored))
    except ValueError:
        names = None
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: target_names of genres must be a JSON list of {count} names")
    return tuple(names)
