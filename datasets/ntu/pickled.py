"""Read the prepared skeletons of pyskl and mmaction2, such as ntu60_3danno.pkl.

The pickle holds {"split": ..., "annotations": [...]}; an annotation has frame_dir (the sample's name), label (from 0)
and keypoint, an array (M, T, 25, 3) for M bodies in T frames. Usual unpickling runs whatever code the file names. Here
a file can only build numbers, text and plain containers, and arrays of numbers from their bytes.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any, cast

import numpy as np

from datasets.ntu import SAMPLE
from datasets.ntu.skeleton import JOINTS, MAX_BODIES
from utils.errors import DataError
from utils.reading import open_file, shown

NUMBERS = re.compile(r"[fiu][1248]|b1")  # types of arrays that are read


class _Type:
    """Stands for numpy.dtype in a pickle."""

    def __init__(self, name: str, *_: object) -> None:
        if not NUMBERS.fullmatch(name):
            raise ValueError(f"an array must hold numbers, but one is of type {shown(name)}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray in a pickle."""

    def __init__(self, *_: object) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        self.values = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _from_buffer(content: bytes, kind: _Type, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _scalar(kind: _Type, content: bytes) -> Any:
    return np.frombuffer(content, kind.dtype)[0].item()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")  # the only encoding that pickles of bytes name


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"asks for {shown(f'{module}.{name}')}, but only arrays, numbers and plain containers are read"
            )
        return _ALLOWED[module, name]


def read_skeletons(path: Path) -> dict[str, np.ndarray]:
    """Read the skeletons of a pickle by sample, sorted by name: float (M, T, 25, 3), in meters.

    Raises:
        DataError: the file is damaged, names anything but arrays and plain containers, or holds other skeletons.
    """
    try:
        with io.BufferedReader(cast(io.FileIO, open_file(path, DataError))) as file:
            content = _Unpickler(file).load()
    except DataError as error:
        raise DataError(f"{path} {error}") from None
    except OSError:
        raise
    except MemoryError:  # also if a damaged size asks for it
        raise DataError(f"{path} is damaged, or does not fit into memory") from None
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"{path} is not a complete pickle: {' '.join(str(error).split())[:200] or type(error).__name__}"
        ) from None
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list) or not annotations:
        raise DataError(f"{path} must hold split and annotations, as ntu60_3danno.pkl of pyskl, but has no annotations")
    found: dict[str, np.ndarray] = {}
    for number, annotation in enumerate(annotations):
        try:
            name, keypoint = _checked(annotation)
        except ValueError as error:
            raise DataError(f"{path}, annotation {number}: {error}") from None
        if name in found:
            raise DataError(f"{path}, annotation {number}: {name} occurs twice")
        found[name] = keypoint
    return dict(sorted(found.items()))


def _checked(annotation: Any) -> tuple[str, np.ndarray]:
    """Return name and keypoint of an annotation; ValueError if it is not of NTU RGB+D's 3D skeletons."""
    if not isinstance(annotation, dict) or not {"frame_dir", "label", "keypoint"} <= annotation.keys():
        raise ValueError("must hold frame_dir, label and keypoint")
    name, label, keypoint = annotation["frame_dir"], annotation["label"], annotation["keypoint"]
    if not isinstance(name, str) or not re.fullmatch(SAMPLE, name):
        raise ValueError(f"frame_dir must be a name such as S001C001P001R001A001, but is {shown(name)}")
    if label != int(name[17:20]) - 1:
        raise ValueError(f"{name} must have label {int(name[17:20]) - 1}, but has {shown(label)}")
    values: Any = keypoint.values if isinstance(keypoint, _Array) else np.empty(0)
    if values.ndim != 4 or values.shape[2:] != (JOINTS, 3) or values.dtype.kind != "f":
        flat = values.ndim == 4 and values.shape[3] == 2
        rule = f"keypoint must hold numbers (bodies, frames, {JOINTS}, 3)"
        hint = "; 2D skeletons, such as *_hrnet.pkl, do not fit the skeleton network: use *_3danno.pkl" if flat else ""
        raise ValueError(f"{rule}, but is {values.dtype} {values.shape}{hint}")
    return name, values


def joints_of(keypoint: np.ndarray) -> np.ndarray:
    """Convert a keypoint (M, T, 25, 3) to the rows of a pack: float32 (T, M, 25, 3), of the first two bodies."""
    rows = keypoint[:MAX_BODIES].transpose(1, 0, 2, 3).astype(np.float32)
    return np.ascontiguousarray(np.nan_to_num(rows, nan=0, posinf=0, neginf=0))
