"""An array in an .npy file whose rows are read on access.

Rows are read rather than mapped: a file that is cut while it is in use gives an error, where a map would kill the
process.
"""

import copy
import errno
import math
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from utils.arrays import read_header
from utils.errors import UsageError
from utils.files import errors_name
from utils.reading import Error, open_file, sha256


class ArrayOnDisk:
    """Rows of an .npy file, which are read on access; none of them stay in memory.

    The file must not change while it is in use, so that the rows read are those that its checksum covers.
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
                shape, fortran, self._dtype, self._first = read_header(self._file, self._state[0])
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
