"""Pack all skeletons of NTU RGB+D in one array, which is read row by row, so that training parses no text.

`nturgbd_skeletons_packed/` holds `joints.npy`, float32 (rows, 25, 3), one row per frame and body of a sample (frame by
frame), and `index.npz` with, for each sample, its name, start (first row), frames, bodies, and the size in bytes of its
source: the text file, or the array of a pickle. The index is written last: without it there is no pack.
"""

import contextlib
import functools
from collections.abc import Iterable, KeysView, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from datasets.ntu import PACK_FOLDER, TEXT_FOLDER, scan
from datasets.ntu.pickled import joints_of, read_skeletons
from datasets.ntu.skeleton import JOINTS, parse_skeleton
from datasets.ntu.workers import Report, parallel
from utils.array_on_disk import ArrayOnDisk
from utils.arrays import read_arrays
from utils.errors import DataError
from utils.files import sweep, whole_file
from utils.progress import Progress

_FIELDS = ("names", "starts", "frames", "bodies", "sizes")


class SkeletonPack:
    """Packed skeletons of a data folder; pickling keeps only the folder, so that workers open the files themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index, self._checksum = read_arrays(folder / "index.npz", DataError)
            self._joints = ArrayOnDisk(folder / "joints.npy", ("float32",), (JOINTS, 3), DataError)
            names, self._starts, self._frames, self._bodies, self._sizes = self._checked(index)
        except PermissionError:
            raise
        except (OSError, DataError) as error:
            raise DataError(f"{folder} is damaged ({error}); remove it, or pack the skeletons again") from None
        self._numbers = {name: number for number, name in enumerate(names)}

    def _checked(self, index: Mapping[str, np.ndarray]) -> list[list]:
        """Columns of the index as lists; DataError unless they describe the rows of joints.npy."""
        if missing := [key for key in _FIELDS if key not in index]:
            raise DataError(f"index.npz lacks {', '.join(missing)}")
        columns = [index[key] for key in _FIELDS]
        if any(column.shape != (columns[0].size,) for column in columns):
            raise DataError("the arrays of index.npz must be of equal length")
        kinds = [column.dtype.kind for column in columns]
        if kinds[0] != "U" or not set(kinds[1:]) <= set("iu"):
            raise DataError(f"index.npz must hold names and integers, but holds {[str(x.dtype) for x in columns]}")
        names, starts, frames, bodies, sizes = (column.tolist() for column in columns)
        place = 0
        for name, start, length, count in zip(names, starts, frames, bodies, strict=True):
            if start != place or length < 0 or count < 0:
                raise DataError(
                    f"index.npz places {name!r} at row {start}, {length} x {count}, but row {place} is next"
                )
            place += length * count
        if place != len(self._joints):
            raise DataError(f"joints.npy holds {len(self._joints)} rows, but the index has {place}")
        if len(set(names)) != len(names):
            raise DataError("index.npz names a sample twice")
        return [names, starts, frames, bodies, sizes]

    @classmethod
    def open(cls, datadir: Path) -> "SkeletonPack | None":
        """Open the pack of a data folder; None if there is none, DataError if it is damaged."""
        folder = datadir / PACK_FOLDER
        return cls(folder) if (folder / "index.npz").exists() else None

    def __reduce__(self) -> tuple:
        return SkeletonPack, (self.folder,)

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of both files: of the index, and of the joints."""
        return f"{self._checksum} {self._joints.sha256()}"

    @property
    def names(self) -> KeysView[str]:
        """Names of the samples in the pack."""
        return self._numbers.keys()

    def load(self, name: str) -> np.ndarray:
        """Copy of a sample's joints as returned by `parse_skeleton`: float32 (3, N, 25, M)."""
        number = self._numbers[name]
        start, frames, bodies = self._starts[number], self._frames[number], self._bodies[number]
        rows = self._joints.read(slice(start, start + frames * bodies))
        return rows.reshape(frames, bodies, JOINTS, 3).transpose(3, 0, 2, 1).copy()

    def bodies(self, name: str) -> int:
        """Largest number of bodies in any frame, at most 2."""
        return self._bodies[self._numbers[name]]

    def source_size(self, name: str) -> int:
        """Size in bytes of the text file or array that was packed."""
        return self._sizes[self._numbers[name]]


def write_pack(datadir: Path, num_workers: int, verbose: bool, pickled: Path | None = None) -> Report:
    """Pack all skeletons of a data folder, unless the pack is up to date in names and sizes; the caller holds its lock.

    Args:
        pickled: read the skeletons from this file instead, see `read_skeletons`.

    Raises:
        DataError: there are no skeleton files, or the pickle cannot be used.
        OSError: the pack cannot be written; the previous one remains, or there is none.
    """
    if pickled is not None:
        skeletons = read_skeletons(pickled)
        sizes = {name: keypoint.nbytes for name, keypoint in skeletons.items()}
        return _write(datadir, sizes, map(joints_of, skeletons.values()), verbose)
    files = scan(datadir / TEXT_FOLDER, r"\.skeleton")
    sizes = {name: entry.stat().st_size for name, entry in files.items()}
    if not files:
        raise DataError(f"{datadir / TEXT_FOLDER} must hold files like S001C001P001R001A001.skeleton, but has none")
    parsed = parallel(_parse, [Path(entry) for entry in files.values()], num_workers)
    return _write(datadir, sizes, parsed, verbose)


def _write(datadir: Path, sizes: Mapping[str, int], parsed: Iterable[np.ndarray | str], verbose: bool) -> Report:
    """Write a pack unless there is one of these names and sizes; `parsed` are joints (N, M, 25, 3) or messages."""
    with contextlib.suppress(DataError):  # a damaged pack is rewritten
        pack = SkeletonPack.open(datadir)
        if pack and sizes == {name: pack.source_size(name) for name in pack.names}:
            return Report(kept=len(sizes))
    folder = datadir / PACK_FOLDER
    sweep(folder, exclusive=True)
    results = Progress(parsed, desc="skeletons", total=len(sizes), unit="file", verbose=verbose)
    failures, entries, rows = [], [], 0  # an entry is a row of the index
    with whole_file(folder / "joints.npy") as file:
        _write_header(file, rows)
        for (name, size), result in zip(sizes.items(), results, strict=True):
            if isinstance(result, str):
                failures.append(result)
                continue
            frames, bodies = result.shape[:2]
            entries.append((name, rows, frames, bodies, size))
            file.write(result.data)
            rows += frames * bodies
        file.seek(0)
        _write_header(file, rows)  # as long as the first one: numpy reserves space for the first axis to grow
        file.flush()
        (folder / "index.npz").unlink(missing_ok=True)  # no pack exists until the new index is written
    with whole_file(folder / "index.npz") as file:
        columns: dict[str, Any] = {key: np.array([entry[i] for entry in entries]) for i, key in enumerate(_FIELDS)}
        np.savez(file, **columns)
    return Report(len(entries), failures=failures)


def _parse(path: Path) -> np.ndarray | str:
    """Joints of a file as float32 (N, M, 25, 3), or a message if it cannot be read."""
    try:
        return np.ascontiguousarray(parse_skeleton(path).transpose(1, 3, 2, 0))
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def _write_header(file: BinaryIO, rows: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, JOINTS, 3)}
    np.lib.format.write_array_header_1_0(file, header)
