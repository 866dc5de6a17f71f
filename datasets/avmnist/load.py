"""Load AV-MNIST from arrays on disk, as written by `avmnist_gen.py`, the published fork or MultiBench."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.avmnist.folder import FORMAT, MANIFEST, read_manifest
from utils.array_on_disk import ArrayOnDisk
from utils.errors import DataError
from utils.reading import shown

CHUNK = 4096  # images checked at a time
MODALITIES = ("audio", "image")  # the columns of a configuration


@dataclasses.dataclass(frozen=True)
class AVMNISTSplit:
    """Aligned samples: images (N, 1, 28, 28), spectrograms (N, 1, 112, 112) uint8, labels (N,) int64.

    Images are float32, or float64 as the published generator writes them. Images and spectrograms are read on access.
    """

    images: ArrayOnDisk
    spectrograms: ArrayOnDisk
    labels: Tensor
    checksum: str  # SHA-256 of the file of labels

    def part(self, span: slice) -> "AVMNISTSplit":
        """The samples of a slice."""
        return AVMNISTSplit(self.images.part(span), self.spectrograms.part(span), self.labels[span], self.checksum)

    def identity(self, modalities: Sequence[str] = MODALITIES) -> dict[str, str]:
        """Fingerprint (JSON-serializable): SHA-256 of the files that the split is read from.

        Args:
            modalities: those that a run uses.
        """
        arrays = {"audio": self.spectrograms, "image": self.images}
        return {name: arrays[name].sha256() for name in modalities} | {"labels": self.checksum}


def load_avmnist(
    datadir: Path, num_outputs: int = 10, limits: Mapping[str, int | None] | None = None, dev_samples: int | None = None
) -> dict[str, AVMNISTSplit]:
    """Load the splits train, dev and test.

    Args:
        limits: number of samples to keep from the start of each split; None or no entry keeps all.
        dev_samples: samples at the end of the training arrays that form the dev split; None takes a twelfth, which is
            5,000 of 60,000 as published.

    DataError as in `read_parts`, and if a split is empty or has samples of one class only.
    """
    train, test = read_parts(datadir, num_outputs).values()
    total = len(train.labels)
    boundary = max(0, total - (dev_samples or total // 12))
    splits = {"train": train.part(slice(boundary)), "dev": train.part(slice(boundary, total)), "test": test}
    for name, split in splits.items():
        limit = (limits or {}).get(name)
        splits[name] = split.part(slice(limit))
        labels = splits[name].labels
        if not len(labels):
            rule = "at least 12 training and 1 test samples are needed"
            if dev_samples:
                rule = f"--dev_samples must be below the {total} training samples, but is {dev_samples}"
            raise DataError(f"{datadir}: the {name} split is empty; {rule}")
        if min(num_outputs, len(labels)) > 1 and (labels == labels[0]).all():
            found = f"class {labels[0]} only ({len(labels)} samples)"
            hint = "" if limit is None else f"; use a larger --limit_{name}"
            raise DataError(f"{datadir}: the {name} split must hold two classes or more, but has {found}{hint}")
    return splits


def image_folder(datadir: Path) -> str:
    """Name of the folder of images: "image" as published, or "images" in the copy of the MFAS authors."""
    return "images" if (datadir / "images").is_dir() and not (datadir / "image").is_dir() else "image"


def data_identity(
    splits: Mapping[str, AVMNISTSplit],
    parts: Sequence[str] = ("train", "test"),
    modalities: Sequence[str] = MODALITIES,
    dev_samples: int | None = None,
) -> dict[str, object]:
    """Fingerprint of the data that a run reads (JSON-serializable): their content decides, not the files' times.

    Args:
        parts: "train", whose files also hold the dev split, and "test" unless no result depends on it.
        modalities: those that the run uses.
        dev_samples: of `load_avmnist`.
    """
    identity: dict[str, object] = {part: splits[part].identity(modalities) for part in parts}
    return identity if dev_samples is None else identity | {"dev_samples": dev_samples}


def read_parts(datadir: Path, num_outputs: int = 10) -> dict[str, AVMNISTSplit]:
    """Open and check all files: the parts train, which includes dev, and test.

    Raises:
        DataError: a file is missing or damaged; shapes, types or counts are wrong; a label is out of range; a pixel is
            not finite; the manifest states different counts.
    """
    if datadir.exists() and not datadir.is_dir():
        raise DataError(f"{datadir} is not a folder; name the folder of the data set with --datadir")
    parts = {part: _read_part(datadir, part, num_outputs) for part in ("train", "test")}
    _check_counts(datadir, parts)
    for part, split in parts.items():
        for first in range(0, len(split.images), CHUNK):
            wrong = ~split.images[first : first + CHUNK].float().isfinite().flatten(1).all(1).numpy()
            if wrong.any():
                sample = f"those of sample {first + wrong.argmax()} are not"
                path = datadir / image_folder(datadir) / f"{part}_data.npy"
                raise DataError(f"{path}: pixels must be finite numbers, but {sample}")
    return parts


def _read_part(datadir: Path, part: str, num_outputs: int) -> AVMNISTSplit:
    images = _open_array(datadir, f"{image_folder(datadir)}/{part}_data.npy", ("float32", "float64"), (784,))
    spectrograms = _open_array(datadir, f"audio/{part}_data.npy", ("uint8",), (112, 112))
    of_labels = _open_array(datadir, f"{part}_labels.npy", (), ())
    labels = of_labels.read(slice(None)).astype(np.int64)
    if not len(images) == len(spectrograms) == len(labels):
        rule = f"images, spectrograms and labels of {part} must be equal in number"
        raise DataError(f"{datadir}: {rule}, but there are {len(images)}, {len(spectrograms)} and {len(labels)}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_outputs:
        found = f"{labels.min()} to {labels.max()}"
        raise DataError(f"{of_labels.path}: labels must lie in 0..{num_outputs - 1}, but range from {found}")
    shaped = images.shaped(1, 28, 28), spectrograms.shaped(1, 112, 112)
    return AVMNISTSplit(*shaped, torch.from_numpy(labels), of_labels.sha256())


def _open_array(datadir: Path, name: str, dtypes: tuple[str, ...], inner: tuple[int, ...]) -> ArrayOnDisk:
    try:
        return ArrayOnDisk(datadir / name, dtypes, inner, DataError)
    except FileNotFoundError:
        advice = f"build the data set with avmnist_gen.py --datadir {datadir}"
        raise DataError(f"{datadir / name} is missing; {advice}") from None


def _check_counts(datadir: Path, parts: Mapping[str, AVMNISTSplit]) -> None:
    """Raise DataError if a manifest written by `avmnist_gen.py` states different counts from those of the files."""
    manifest = read_manifest(datadir)
    if manifest.get("format") != FORMAT:
        return
    for part, split in parts.items():
        stated = manifest["splits"].get(part) if isinstance(manifest.get("splits"), dict) else None
        held = {"count": len(split.labels), "per_class": torch.bincount(split.labels, minlength=10).tolist()}
        if stated != held:
            raise DataError(
                f"{datadir / MANIFEST} does not match the files: it states {shown(stated)} for {part}, "
                f"but the files hold {held}; build the data set again with avmnist_gen.py --force"
            )


def is_stand_in(datadir: Path) -> bool:
    """Check whether the data set is the embedded stand-in, whose figures are not those of AV-MNIST."""
    return bool(read_manifest(datadir).get("stand_in"))
