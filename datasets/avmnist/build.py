"""Build AV-MNIST from raw images and recordings: presets, PCA of the images, spectrograms, manifest, preview.

Sample i of a split has label i, image i and spectrogram i. The bytes depend only on the settings and the sources.
"""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from datasets.avmnist import stand_in
from datasets.avmnist.audio import common_rate, plan_audio, write_spectrograms
from datasets.avmnist.folder import ARRAYS, FORMAT, MANIFEST, RowWriter, replaceable_manifest
from datasets.avmnist.load import read_parts
from datasets.avmnist.sources import Raw, read_originals
from utils.errors import DataError
from utils.files import restore_folder, sha256, whole_folder, write_json
from utils.progress import Progress

VERSION = 1  # of the folder's format and of its computation
SPLITS = ("train", "test")
CHUNK = 4096  # images projected at a time


@dataclass(frozen=True)
class Preset:
    """Difficulty of the two modalities."""

    image_components: int
    snr_db: float | None  # None: no noise


PRESETS = {
    "paper": Preset(5, -10.0),
    "multibench": Preset(4, -19.0),
    "fork": Preset(3, None),
    "embedded": Preset(3, -10.0),
}


@dataclass(frozen=True)
class Settings:
    """Everything that determines a data set's bytes, apart from the contents of the sources."""

    source: str  # "files" or "embedded"
    preset: str
    image_components: int
    snr_db: float | None
    seed: int
    limit_train: int | None
    limit_test: int | None
    mnist_dir: str | None = None
    fsdd_dir: str | None = None
    esc50_dir: str | None = None


def build(target: Path, settings: Settings, num_workers: int, force: bool, verbose: bool) -> tuple[dict, bool]:
    """Build the data set in the folder `target`, unless it holds one of the same settings and not `force`.

    Returns:
        the manifest, and whether the data set was built.

    Raises:
        DataError: the sources are invalid, or `target` holds something that must not be replaced.
        LockedError: another process is building the same folder.
        OSError: the disk is full or fails.
    """
    target = target.resolve()  # a link stays; the folder it points to is replaced
    restore_folder(target)
    present = replaceable_manifest(target)
    if present is not None and not force:
        _check_present(target, present, settings)
        return present, False
    # Threads rather than processes: array operations release the interpreter lock, and the threads share the arrays.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(num_workers) as pool, whole_folder(target) as folder:
        manifest = _write(folder, _read(settings, pool), settings, pool, verbose)
    return manifest, True


def _check_present(target: Path, manifest: dict, settings: Settings) -> None:
    if manifest.get("version") != VERSION or manifest.get("settings") != asdict(settings):
        raise DataError(f"{target} holds a data set of other settings; --force replaces it, --datadir names another")
    try:
        read_parts(target)
    except DataError as error:
        raise DataError(f"{error}; --force builds the data set again") from None


def _read(settings: Settings, pool: Executor) -> Raw:
    limits = {"train": settings.limit_train, "test": settings.limit_test}
    noisy = settings.snr_db is not None
    rng = np.random.default_rng((settings.seed, 0))
    if settings.source == "embedded":
        return stand_in.read(limits, noisy, rng)
    if not settings.mnist_dir or not settings.fsdd_dir or (noisy and not settings.esc50_dir):
        raise ValueError(f"a data set of files needs the folders of the originals, but got {settings}")
    esc50_dir = Path(settings.esc50_dir) if settings.esc50_dir and noisy else None
    return read_originals(Path(settings.mnist_dir), Path(settings.fsdd_dir), esc50_dir, limits, rng, pool)


def _write(folder: Path, raw: Raw, settings: Settings, pool: Executor, verbose: bool) -> dict:
    """Write all files of the data set and return the manifest."""
    count = len(raw.images["train"])
    if settings.image_components > min(count, 784):
        raise DataError(
            f"image_components must be at most the number of training digits, 784 at most, "
            f"but got {settings.image_components} with {count} digits"
        )
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


def _chunks(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, len(images), CHUNK):
        yield first, images[first : first + CHUNK]


def principal_components(images: np.ndarray, count: int, pool: Executor) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean (784,), the first `count` principal components (count, 784) and their share of the variance.

    Args:
        images: (N, 784) uint8.
    """

    def moment(chunk: tuple[int, np.ndarray]) -> np.ndarray:
        x = chunk[1].astype(np.float64)
        return x.T @ x

    mean = images.mean(axis=0, dtype=np.float64)
    covariance = sum(pool.map(moment, _chunks(images))) / len(images) - np.outer(mean, mean)
    values, vectors = scipy.linalg.eigh(covariance, subset_by_index=(784 - count, 783))
    total = np.trace(covariance)
    return mean, vectors.T[::-1], float(values.sum() / total) if total > 0 else 0.0


def _write_images(path: Path, images: np.ndarray, mean: np.ndarray, components: np.ndarray, pool: Executor) -> None:
    """Write images (N, 784) projected on the components and back, as float32; as published, no mean is added."""
    with RowWriter(path, np.float32, images.shape) as writer:

        def work(chunk: tuple[int, np.ndarray]) -> None:
            first, x = chunk
            writer.write(first, (x - mean) @ components.T @ components)

        list(pool.map(work, _chunks(images)))


def write_preview(folder: Path) -> None:
    """Draw preview.png: the first training sample of each digit, image above spectrogram."""
    labels = np.load(folder / "train_labels.npy")
    images = np.load(folder / "image" / "train_data.npy", mmap_mode="r")
    audio = np.load(folder / "audio" / "train_data.npy", mmap_mode="r")
    figure = Figure(figsize=(12, 2.9), dpi=100, layout="constrained")
    axes = figure.subplots(2, 10, squeeze=False)
    for digit, (upper, lower) in enumerate(axes.T):
        upper.set_title(str(digit))
        for axis in (upper, lower):
            axis.set(xticks=[], yticks=[])
        samples = np.flatnonzero(labels == digit)
        if len(samples):
            upper.imshow(images[samples[0]].reshape(28, 28), cmap="gray")
            lower.imshow(audio[samples[0]], cmap="gray", vmin=0, vmax=255)
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("audio")
    figure.savefig(folder / "preview.png")
