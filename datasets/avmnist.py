"""AV-MNIST as arrays on disk: what `avmnist_gen.py` writes, the published fork reads and MultiBench reads."""

import dataclasses
import json
import mmap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.errors import DataError

MODALITIES = ("audio", "image")  # in the order of a configuration row


@dataclasses.dataclass(frozen=True)
class AVMNISTSplit:
    """Aligned samples: images (N, 1, 28, 28) float32, spectrograms (N, 1, 112, 112) uint8, labels (N,) int64."""

    images: Tensor
    spectrograms: Tensor
    labels: Tensor
    maps: tuple[mmap.mmap, ...] = ()  # of the files

    def release(self) -> None:
        """Give back the memory of what was read so far; what is read again comes from the file again."""
        for mapped in self.maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def load_avmnist(
    datadir: Path,
    num_outputs: int = 10,
    limit_train: int | None = None,
    limit_dev: int | None = None,
    limit_test: int | None = None,
) -> dict[str, AVMNISTSplit]:
    """The splits train, dev and test, memory-mapped; the limits keep the first samples of each.

    Dev is the last twelfth of the training arrays: 55,000 and 5,000 of 60,000 (published).

    Raises:
        DataError: a file is missing or damaged, shapes, types or counts do not fit, or a label is out of range.
    """
    arrays = {part: _read_part(datadir, part, num_outputs) for part in ("train", "test")}
    total = len(arrays["train"].labels)
    boundary = total - total // 12
    spans = {
        "train": ("train", slice(0, boundary), limit_train),
        "dev": ("train", slice(boundary, total), limit_dev),
        "test": ("test", slice(0, None), limit_test),
    }
    splits = {}
    for name, (part, span, limit) in spans.items():
        whole = arrays[part]
        parts = (getattr(whole, field)[span][:limit] for field in ("images", "spectrograms", "labels"))
        splits[name] = AVMNISTSplit(*parts, whole.maps)
        if not len(splits[name].labels):
            raise DataError(f"{datadir}: the {name} split is empty; at least 12 training and 1 test samples are needed")
    return splits


def _read_part(datadir: Path, part: str, num_outputs: int) -> AVMNISTSplit:
    images = _read_array(datadir, f"image/{part}_data.npy", np.float32, (784,))
    spectrograms = _read_array(datadir, f"audio/{part}_data.npy", np.uint8, (112, 112))
    path = datadir / f"{part}_labels.npy"
    labels = _read_array(datadir, path.name, None, ()).astype(np.int64)
    if not len(images) == len(spectrograms) == len(labels):
        raise DataError(
            f"{datadir}: images, spectrograms and labels of {part} must be equally many, "
            f"but there are {len(images)}, {len(spectrograms)} and {len(labels)}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_outputs:
        raise DataError(
            f"{path}: labels must lie in 0..{num_outputs - 1}, but go from {labels.min()} to {labels.max()}"
        )
    return AVMNISTSplit(
        torch.from_numpy(images).view(-1, 1, 28, 28),
        torch.from_numpy(spectrograms).view(-1, 1, 112, 112),
        torch.from_numpy(labels),
        tuple(array.base for array in (images, spectrograms) if isinstance(array.base, mmap.mmap)),
    )


def _read_array(datadir: Path, name: str, dtype: type | None, shape: tuple[int, ...]) -> np.ndarray:
    """Map an .npy file of (N, *shape); `dtype` None takes any integers."""
    path = datadir / name
    try:
        array = np.load(path, mmap_mode="c")  # copy-on-write: read lazily, and torch wants it writable
        found, found_shape = array.dtype, array.shape
    except FileNotFoundError:
        raise DataError(f"{path} is missing; make the data set with avmnist_gen.py --datadir {datadir}") from None
    except OSError:
        raise
    except Exception as error:  # numpy raises almost anything on a damaged header
        raise DataError(f"{path} is not a whole .npy file: {error}") from None
    fits = np.issubdtype(found, np.integer) if dtype is None else found == dtype
    if not fits or found_shape[1:] != shape or len(found_shape) != len(shape) + 1:
        wanted = "an integer type" if dtype is None else np.dtype(dtype).name
        raise DataError(
            f"{path} must hold {wanted} of shape (N, {', '.join(map(str, shape))}), "
            f"but holds {found} of shape {found_shape}"
        )
    return array


def is_stand_in(datadir: Path) -> bool:
    """Whether the data set is the embedded stand-in, whose figures say nothing about AV-MNIST.

    Raises:
        DataError: the data set's manifest is damaged.
    """
    path = datadir / "manifest.json"
    if not path.exists():
        return False
    try:
        return bool(json.loads(path.read_text()).get("stand_in"))
    except (ValueError, AttributeError):
        raise DataError(f"{path} is damaged; build the data set again with avmnist_gen.py --force") from None
