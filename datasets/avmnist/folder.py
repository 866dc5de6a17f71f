"""The folder of a data set on disk: whole or not there, never half; rows of an array written from many threads."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.errors import DataError

FORMAT = "avmnist"
ARRAYS = (
    "image/train_data.npy",
    "image/test_data.npy",
    "audio/train_data.npy",
    "audio/test_data.npy",
    "train_labels.npy",
    "test_labels.npy",
)
FILES = (*ARRAYS, "manifest.json", "preview.png")
FOLDERS = ("image", "audio")


def existing_manifest(folder: Path) -> dict | None:
    """The manifest of the data set in `folder`; None where there is no folder, or an empty one.

    Raises:
        DataError: the folder holds something else, which is not to be touched.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name another --datadir")
    entries = sorted(folder.iterdir())
    if not entries:
        return None
    inner = [path for entry in entries if entry.name in FOLDERS and entry.is_dir() for path in entry.iterdir()]
    known = {folder / name for name in (*FOLDERS, *FILES)}
    foreign = [path for path in entries + inner if path not in known]
    if foreign:
        raise DataError(f"{folder} holds {foreign[0].name}, which is no part of a data set; name another --datadir")
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (FileNotFoundError, ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{folder} is not empty and has no AV-MNIST manifest.json; name another --datadir")
    return manifest


def recover(target: Path) -> None:
    """Clear what killed runs left beside `target`, and put the old data set back where the new one is missing.

    Raises:
        DataError: another run is building the same target.
    """
    partial, old = _neighbours(target)
    if partial.is_dir():
        with _locked(partial, target):
            shutil.rmtree(partial)
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary neighbour to build in; on success it takes the place of `target`, on any error it is removed.

    The caller has made sure that `target` may be replaced.

    Raises:
        DataError: another run is building the same target.
        OSError: the disk is full or fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, old = _neighbours(target)
    partial.mkdir(exist_ok=True)
    with _locked(partial, target):
        try:
            yield partial
            for path in (*partial.rglob("*"), partial):
                _fsync(path)
            if target.exists():
                target.rename(old)
            partial.rename(target)
            _fsync(target.parent)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError) and error.errno and not error.filename:
                raise OSError(error.errno, error.strerror, str(partial)) from None  # say at least in which folder
            raise
    shutil.rmtree(old, ignore_errors=True)


def _neighbours(target: Path) -> tuple[Path, Path]:
    """Where the new data set is built, and where the old one waits while the new one moves in."""
    return target.parent / f".{target.name}.partial", target.parent / f".{target.name}.old"


@contextlib.contextmanager
def _locked(partial: Path, target: Path) -> Iterator[None]:
    """Hold `partial` for this process; the lock goes with the process, however it ends."""
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"another run is building {target} (it holds {partial}); wait for it") from None
    finally:
        os.close(descriptor)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RowWriter:
    """A .npy file whose rows are written in any order, from any thread; memory holds no more than a row.

    Plain writes and no memory map: on a full disk a write raises OSError, where a map would kill the process.
    """

    def __init__(self, path: Path, dtype: type, shape: tuple[int, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.dtype, self.shape = path, np.dtype(dtype), shape
        self.row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        self.file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by __exit__
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)
        self.start = self.file.tell()

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(self, first: int, rows: np.ndarray) -> None:
        """Write one row, or several that follow each other, from row `first` on.

        Raises:
            OSError: the disk is full, or fails; names the file.
        """
        data = memoryview(np.ascontiguousarray(rows, dtype=self.dtype)).cast("B")
        position = self.start + int(first) * self.row_bytes
        try:
            while data:
                written = os.pwrite(self.file.fileno(), data, position)
                data, position = data[written:], position + written
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
