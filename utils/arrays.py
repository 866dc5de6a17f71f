"""Read arrays from .npy and .npz files without running code that they may hold.

A header is compared with the size of the file before memory is taken.
"""

import io
import math
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UsageError, printable
from utils.reading import Error, read_bytes, sha256

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class _HoldsObjectsError(ValueError):
    """An array of Python objects, which only running code could load."""


def read_header(file: Any, size: int) -> tuple[tuple[int, ...], bool, np.dtype, int]:
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
        raise ValueError(printable((str(error).splitlines() or [type(error).__name__])[0][:200])) from None
    if dtype.hasobject:
        raise _HoldsObjectsError("it holds Python objects")
    start = file.tell()
    if min(shape, default=0) < 0 or size != start + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{start + math.prod(shape) * dtype.itemsize} bytes expected, {size} found")
    return shape, fortran, dtype, start


def _parse(content: bytes) -> np.ndarray:
    """View the bytes of an .npy file as an array, which cannot be written to; ValueError as in `read_header`."""
    shape, fortran, dtype, start = read_header(io.BytesIO(content), len(content))
    if not math.prod(shape):
        return np.empty(shape, dtype)
    if dtype.kind == "U" and np.frombuffer(content, f"{dtype.byteorder}u4", offset=start).max() > sys.maxunicode:
        raise ValueError("it holds text with invalid code points")  # numpy fails when it shows them
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
        reason = printable(" ".join(str(problem).split())[:200]) or type(problem).__name__
        raise error(f"{path} is not a complete .npz file, which numpy.savez writes: {reason}") from None
    return arrays, sha256(content)
