"""Read arrays from .npy and .npz files, whole or row by row, without running code that they may hold.

A header is compared with the size of the file before memory is taken. Rows are read rather than mapped: a file that is
cut while it is in use gives an error, where a map would kill the process.
"""

import copy
import errno
import io
import math
import os
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from utils.errors import UsageError
from utils.files import errors_name
from utils.reading import Error, open_file, read_bytes, sha256

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class _HoldsObjectsError(ValueError):
    """An array of Python objects, which only running code could load."""


def _read_header(file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, type and place of the first value of an .npy file of `size` bytes.

    Raises:
        ValueError: it is not a whole .npy file, or holds Python objects.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"its format is {version}, not one of {list(HEADERS)}")
        shape, fortran, dtype = HEADERS[version](file)
    except OSError:
        raise
    except Exception as error:  # numpy raises almost anything on a damaged header, and adds lines of advice
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0][:200]) from None
    if dtype.hasobject:
        raise _HoldsObjectsError("it holds Python objects")
    start = file.tell()
    if min(shape, default=0) < 0 or size != start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{start + math.prod(shape) * dtype.itemsize} bytes expected, {size} found")
    return shape, fortran, dtype, start


def _parse(content: bytes) -> np.ndarray:
    """View the bytes of an .npy file as an array, which cannot be written to; ValueError as in `_read_header`."""
    shape, fortran, dtype, start = _read_header(io.BytesIO(content), len(content))
    if not math.prod(shape):
        return np.empty(shape, dtype)
    if dtype.kind == "U" and np.frombuffer(content, f"{dtype.byteorder}u4", offset=start).max() > sys.maxunicode:
        raise ValueError("it holds text of numbers that are no characters")  # numpy fails when it shows them
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def read_array(path: Path, error: Error = UsageError) -> np.ndarray:
    """Read an .npy file whole.

    Raises:
        error: it is not a whole .npy file, or holds Python objects.
    """
    try:
        return _parse(read_bytes(path, error)).copy()
    except ValueError as problem:
        raise error(f"{path} is not a complete .npy file: {problem}") from None


def read_arrays(path: Path, error: Error = UsageError) -> tuple[dict[str, np.ndarray], str]:
    """Read an .npz file whole: its arrays, which cannot be written to, by name, and the SHA-256 of the file.

    Raises:
        error: it is not a whole .npz file, holds something other than arrays, or does not fit into memory.
    """
    content = read_bytes(path, error)
    if content.startswith(np.lib.format.MAGIC_PREFIX):
        raise error(f"{path} is a single array, not an .npz file of named arrays; write it with numpy.savez")
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for file in archive.namelist():
                member, name = archive.read(file), file.removesuffix(".npy")
                if name == file or not member.startswith(np.lib.format.MAGIC_PREFIX):
                    raise error(f"{path}: {name[:80]!r} is not an array; use numpy.savez")
                try:
                    arrays[name] = _parse(member)
                except _HoldsObjectsError:
                    raise error(
                        f"{path}: {name[:80]!r} holds Python objects, which are never loaded; store numbers, and "
                        "labels as integers (numpy.unique(labels, return_inverse=True) numbers names)"
                    ) from None
    except MemoryError:
        raise error(f"{path} does not fit into memory") from None
    except error:
        raise
    except Exception as problem:  # zip and its compressions raise almost anything on damaged bytes
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise error(f"{path} is not a complete .npz file, which numpy.savez writes: {reason}") from None
    return arrays, sha256(content)


class ArrayOnDisk:
    """Rows of an .npy file, which are read on access; none of them stay in memory.

    The file must not change while it is in use: what is read is what its checksum is of.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, dtypes: tuple[str, ...], inner: tuple[int, ...], error: Error = UsageError) -> None:
        """
        Args:
            dtypes: types that the array may have; none: any integer type.
            inner: shape of a row.

        Raises:
            error: it is not a whole .npy file in C order, or the type or the shape differs.
        """
        self.path, self.error, self.inner = path, error, inner
        self._file: BinaryIO = open_file(path, error)
        self._state = self._file_state()
        try:
            with errors_name(path):
                shape, fortran, self._dtype, self._first = _read_header(self._file, self._state[0])
        except ValueError as problem:
            raise error(f"{path} is not a complete .npy file: {problem}") from None
        fits = self._dtype in map(np.dtype, dtypes) if dtypes else self._dtype.kind in "iu"
        if not fits or shape[1:] != inner or len(shape) != len(inner) + 1:
            wanted = f"{' or '.join(dtypes) or 'an integer type'} of shape (N, {', '.join(map(str, inner))})"
            raise error(f"{path} must hold {wanted}, but holds {self._dtype} of shape {shape}")
        if fortran and inner:
            raise error(f"{path} must hold its samples in C order, but they are in Fortran order")
        self._rows = range(shape[0])
        self._row_bytes = math.prod(inner) * self._dtype.itemsize

    def _file_state(self) -> tuple[int, int]:
        stat = os.fstat(self._file.fileno())
        return stat.st_size, stat.st_mtime_ns

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), *self.inner

    @property
    def nbytes(self) -> int:
        return len(self) * self._row_bytes

    def sha256(self, most: int | None = None) -> str:
        """SHA-256 of the file; see `utils.reading.sha256`."""
        with errors_name(self.path):
            found = sha256(self._file, most)
        self._check_unchanged()
        return found

    def part(self, span: slice) -> "ArrayOnDisk":
        """Select consecutive rows without reading them."""
        other = copy.copy(self)
        other._rows = self._rows[span]
        return other

    def shaped(self, *inner: int) -> "ArrayOnDisk":
        """Give rows another shape of the same size."""
        other = copy.copy(self)
        other.inner = inner
        return other

    def read(self, span: slice) -> np.ndarray:
        """Read consecutive rows."""
        chosen = self._rows[span]
        assert chosen.step == 1
        rows = np.empty((len(chosen), *self.inner), self._dtype)
        if rows.size:
            self._fill(rows, chosen.start)
        self._check_unchanged()
        return rows

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Read rows by index (n,) or slice."""
        if isinstance(chosen, slice):
            return torch.from_numpy(self.read(chosen))
        rows = np.empty((len(chosen), *self.inner), self._dtype)
        for row, number in zip(rows.reshape(len(rows), -1), chosen.tolist(), strict=True):
            self._fill(row, self._rows[number])
        self._check_unchanged()
        return torch.from_numpy(rows)

    def to(self, device: torch.device) -> Tensor:
        """Read all rows into memory, on `device`."""
        return self[:].to(device)

    def _fill(self, rows: np.ndarray, number: int) -> None:
        """Read rows from row `number` of the file on."""
        left, at = rows.data.cast("B"), self._first + number * self._row_bytes
        with errors_name(self.path):
            while left:
                count = os.preadv(self._file.fileno(), [left], at)
                if count == 0:
                    raise OSError(errno.EIO, "the file was cut short while it was in use")
                left, at = left[count:], at + count

    def _check_unchanged(self) -> None:
        if self._file_state() != self._state:
            raise self.error(f"{self.path} was changed while it was in use; start again")
