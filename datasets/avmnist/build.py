"""Build AV-MNIST from raw images and recordings: presets, PCA of the images, spectrograms, manifest, preview.

Sample i of a split has label i, image i and spectrogram i. The bytes depend only on the settings and the sources.
"""

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import scipy.linalg
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from datasets.avmnist import stand_in
from datasets.avmnist.audio import common_rate, plan_audio, write_spectrograms
from datasets.avmnist.folder import ARRAYS, FORMAT, MANIFEST, SPLITS, RowWriter, replaceable_manifest
from datasets.avmnist.load import read_parts
from datasets.avmnist.sources import Raw, Settings, read_originals
from utils.array_on_disk import ArrayOnDisk
from utils.arrays import read_array
from utils.errors import DataError
from utils.files import restore_folder, whole_folder, write_json
from utils.progress import Progress
from utils.reading import sha256

VERSION = 1  # version of the folder's format and of how it is computed
CHUNK = 4096  # images projected at a time


def build(target: Path, settings: Settings, num_workers: int, force: bool, verbose: bool) -> tuple[dict, bool]:
    """Build the data set in the folder `target`, and return its manifest and whether it was built.

    A data set with the same settings is kept, unless `force` is set.

    Raises:
        DataError: the sources are invalid, or `target` holds something that must not be replaced.
        LockedError: another process is building the same folder.
    """
    target = target.resolve()  # a link stays; the folder it points to is replaced
    restore_folder(target)
    present = replaceable_manifest(target)
    if present is not None and not force:
        if present.get("version") != VERSION or present.get("settings") != asdict(settings):
            fix = "--force replaces it, --datadir names another"
            raise DataError(f"{target} holds a data set with other settings; {fix}")
        try:
            read_parts(target)
        except DataError as error:
            raise DataError(f"{error}; --force builds the data set again") from None
        return present, False
    # Threads rather than processes: array operations release the interpreter lock, and the threads share the arrays.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(num_workers) as pool, whole_folder(target) as folder:
        rng = np.random.default_rng((settings.seed, 0))
        raw = stand_in.read(settings, rng) if settings.source == "embedded" else read_originals(settings, rng, pool)
        manifest = _write(folder, raw, settings, pool, verbose)
    return manifest, True


def _write(folder: Path, raw: Raw, settings: Settings, pool: Executor, verbose: bool) -> dict:
    """Write all files of the data set and return the manifest."""
    count = len(raw.images["train"])
    if settings.image_components > min(count, 784):
        rule = "image_components must be at most the number of training digits, 784 at most"
        raise DataError(f"{rule}, but got {settings.image_components} with {count} digits")
    mean, components, share = principal_components(raw.images["train"], settings.image_components, pool)
    for split in SPLITS:
        _write_images(folder / "image" / f"{split}_data.npy", raw.images[split], mean, components, pool)
        with RowWriter(folder / f"{split}_labels.npy", np.int64, raw.labels[split].shape) as writer:
            writer.write(0, raw.labels[split])
    rate = common_rate(raw)
    total = sum(map(len, raw.labels.values()))
    with Progress(total=total, desc="spectrograms", unit="sample", verbose=verbose) as progress:
        for number, split in enumerate(SPLITS, 1):
            plan = plan_audio(raw, split, settings.snr_db, rate, (settings.seed, number))
            for done in write_spectrograms(folder / "audio" / f"{split}_data.npy", plan, pool):
                progress.update(done)
    write_preview(folder)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "stand_in": settings.source == "embedded",
        "settings": asdict(settings),
        "sources": raw.description,
        "rate": rate,
        "explained_variance_share": round(share, 6),
        "splits": {
            split: {"count": len(labels), "per_class": np.bincount(labels, minlength=10).tolist()}
            for split, labels in raw.labels.items()
        },
        "sha256": dict(zip(ARRAYS, pool.map(sha256, [folder / name for name in ARRAYS]), strict=True)),
    }
    write_json(folder / MANIFEST, manifest)
    return manifest


def principal_components(images: np.ndarray, count: int, pool: Executor) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean (784,) of images (N, 784), first `count` components (count, 784) and their share of the variance."""

    def moment(first: int) -> np.ndarray:
        x = images[first : first + CHUNK].astype(np.float64)
        return x.T @ x

    mean = images.mean(axis=0, dtype=np.float64)
    covariance = sum(pool.map(moment, range(0, len(images), CHUNK))) / len(images) - np.outer(mean, mean)
    values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(784 - count, 783))
    total = np.trace(covariance)
    return mean, vectors.T[::-1], float(values.sum() / total) if total > 0 else 0.0


def _write_images(path: Path, images: np.ndarray, mean: np.ndarray, components: np.ndarray, pool: Executor) -> None:
    """Write images (N, 784) projected on the components and back, as float32; as published, no mean is added.

    They are rounded to 1/256 gray level, so that the same bytes come from every processor.
    """
    with RowWriter(path, np.float32, images.shape) as writer:

        def work(first: int) -> None:
            projected = (images[first : first + CHUNK] - mean) @ components.T @ components
            writer.write(first, np.rint(256 * projected) / 256 + 0.0)  # no negative zeros

        list(pool.map(work, range(0, len(images), CHUNK)))


def write_preview(folder: Path) -> None:
    """Draw preview.png: the first training sample of each digit, image above spectrogram."""
    labels = read_array(folder / "train_labels.npy")
    images = ArrayOnDisk(folder / "image" / "train_data.npy", ("float32",), (784,)).shaped(28, 28)
    audio = ArrayOnDisk(folder / "audio" / "train_data.npy", ("uint8",), (112, 112))
    figure = Figure(figsize=(12, 2.9), dpi=100, layout="constrained")
    axes = figure.subplots(2, 10, squeeze=False)
    for digit, (upper, lower) in enumerate(axes.T):
        upper.set_title(str(digit))
        for axis in (upper, lower):
            axis.set(xticks=[], yticks=[])
        samples = np.flatnonzero(labels == digit)
        for first in samples[:1]:
            upper.imshow(images.read(slice(first, first + 1))[0], cmap="gray")
            lower.imshow(audio.read(slice(first, first + 1))[0], cmap="gray", vmin=0, vmax=255)
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("audio")
    figure.savefig(folder / "preview.png")
