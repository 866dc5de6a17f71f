"""The folder of an AV-MNIST data set: its files, its manifest, and arrays written row by row from several threads."""

import os
from pathlib import Path

import numpy as np

from utils.errors import DataError, UsageError
from utils.files import errors_name
from utils.reading import read_json

FORMAT, MANIFEST = "avmnist", "manifest.json"
FOLDERS, SPLITS = ("image", "audio"), ("train", "test")
ARRAYS = [f"{folder}/{split}_data.npy" for folder in FOLDERS for split in SPLITS] + [
    f"{split}_labels.npy" for split in SPLITS
]
FORM = {"format?": str, "stand_in?": bool}  # of the manifest


def read_manifest(datadir: Path) -> dict:
    """Read manifest.json; empty if there is none, as with arrays that other programs wrote."""
    path = datadir / MANIFEST
    if not path.exists():
        return {}
    try:
        return read_json(path, FORM)
    except UsageError as error:
        raise DataError(f"{path} is damaged ({error}); build the data set again with avmnist_gen.py --force") from None


def replaceable_manifest(folder: Path) -> dict | None:
    """Manifest of the data set in `folder`; None if the folder is missing or empty.

    Raises:
        DataError: the folder holds something other than a data set, which must not be replaced.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name another --datadir")
    paths = [*sorted(folder.iterdir()), *folder.glob("image/*"), *folder.glob("audio/*")]
    if not paths:
        return None
    known = {folder / name for name in (*FOLDERS, *ARRAYS, MANIFEST, "preview.png")}
    foreign = [path for path in paths if path not in known]
    if foreign:
        raise DataError(f"{folder} holds {foreign[0].name}, which is not part of a data set; name another --datadir")
    try:
        manifest = read_json(folder / MANIFEST, FORM | {"splits?": {...: {"count": int}}})
    except UsageError:
        manifest = {}
    if manifest.get("format") != FORMAT:
        raise DataError(f"{folder} is not empty and has no AV-MNIST manifest.json; name another --datadir")
    return manifest


class RowWriter:
    """A .npy file whose rows are written in any order, from any thread, without holding the array in memory.

    Uses plain writes rather than a memory map: on a full disk a write raises OSError, while a map kills the process.
    """

    def __init__(self, path: Path, dtype: type, shape: tuple[int, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.dtype = path, np.dtype(dtype)
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
        """Write one row, or several consecutive rows, starting at row `first`."""
        data = np.ascontiguousarray(rows, dtype=self.dtype).data.cast("B")
        position = self.start + int(first) * self.row_bytes
        with errors_name(self.path):
            while data:
                written = os.pwrite(self.file.fileno(), data, position)
                data, position = data[written:], position + written
