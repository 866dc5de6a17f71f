"""Readers of the three originals: MNIST (IDX files), FSDD (spoken digits) and ESC-50 (environmental noise).

All raise DataError if a file is missing or damaged; the message names the file.
"""

import csv
import gzip
import re
import zlib
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from datasets.avmnist.spectrogram import SIZE
from utils.errors import DataError
from utils.reading import read_json

TEST_TAKES = range(40, 50)  # of every speaker and digit; takes 0 to 39 train
NUM_CLASSES, TRAIN_CLASSES = 50, 40  # of ESC-50; the other 10 classes are noise of the test split
CHECKSUMS = "checksums.json"  # beside downloaded folders: of the archives that they come from
TAKE_NAME = re.compile(r"([0-9])_([A-Za-z][A-Za-z0-9-]*)_([0-9]+)\.wav")


@dataclass(frozen=True)
class Settings:
    """Everything that determines a data set's bytes, apart from the contents of the sources."""

    source: str  # "files" or "embedded"
    preset: str
    image_components: int
    snr_db: float | None  # None: no noise
    seed: int
    limit_train: int | None
    limit_test: int | None
    mnist_dir: str | None = None
    fsdd_dir: str | None = None
    esc50_dir: str | None = None

    @property
    def limits(self) -> dict[str, int | None]:
        """Number of samples to keep from the start of each split; None keeps all."""
        return {"train": self.limit_train, "test": self.limit_test}


@dataclass
class Sound:
    """A mono recording."""

    name: str
    samples: np.ndarray  # (n,) float32 in [-1, 1]
    rate: int  # Hz


@dataclass
class Raw:
    """Sources of a data set; the keys of the outer dictionaries are `train` and `test`."""

    images: dict[str, np.ndarray]  # (N, 784) uint8
    labels: dict[str, np.ndarray]  # (N,) int64
    takes: dict[str, list[list[Sound]]]  # takes[split][digit]
    noises: dict[str, dict[str, Sound]]  # noises[split][class]; no classes without noise
    description: dict  # entry "sources" of the manifest


def read_originals(settings: Settings, rng: np.random.Generator, pool: Executor) -> Raw:
    """Read MNIST, FSDD and, if noise is requested, ESC-50."""
    images, labels = {}, {}
    for split, limit in settings.limits.items():
        images[split], labels[split] = (array[:limit] for array in read_mnist(Path(str(settings.mnist_dir)), split))
    takes = read_fsdd(Path(str(settings.fsdd_dir)), pool)
    noises: dict[str, dict[str, Sound]] = {"train": {}, "test": {}}
    if settings.snr_db is not None:
        noises = read_esc50(Path(str(settings.esc50_dir)), rng, pool)
    description: dict[str, object] = {
        "images": "MNIST",
        "recordings": "FSDD",
        "noise": "ESC-50" if settings.snr_db is not None else None,
        "recordings_per_digit": {split: [len(digit) for digit in takes[split]] for split in takes},
        "noise_clips": {split: {name: clip.name for name, clip in noises[split].items()} for split in noises},
    }
    checksums: dict[str, object] = {}
    for folder in {Path(str(settings.fsdd_dir)).parent, Path(str(settings.esc50_dir)).parent}:
        if (folder / CHECKSUMS).is_file():
            checksums |= read_json(folder / CHECKSUMS)
    if checksums:
        description["checksums"] = checksums
    return Raw(images, labels, takes, noises, description)


def read_mnist(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images (N, 784) uint8 and labels (N,) int64 of `train` or `test` from IDX files, gzipped or plain."""
    stem = "train" if split == "train" else "t10k"
    images_path, images = _read_idx(folder, f"{stem}-images-idx3-ubyte", (28, 28))
    labels_path, labels = _read_idx(folder, f"{stem}-labels-idx1-ubyte", ())
    if len(images) != len(labels):
        raise DataError(f"{labels_path} has {len(labels)} labels for the {len(images)} images of {images_path}")
    if labels.max() > 9:
        raise DataError(f"{labels_path}: labels must be 0 to 9, but one is {labels.max()}")
    return images.reshape(len(images), 784), labels.astype(np.int64)


def _read_idx(folder: Path, stem: str, item_shape: tuple[int, ...]) -> tuple[Path, np.ndarray]:
    """Read an array (N, *item_shape) uint8 from an IDX file: 0 0 8 dimensions, sizes as big-endian int32, bytes."""
    _need_folder(folder, "MNIST", "--mnist_dir")
    names = (f"{stem}.gz", stem, re.sub(r"-(idx\d)", r".\1", stem))  # the last as some archives spell it
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise DataError(f"MNIST needs {stem} or {stem}.gz in {folder}; give its folder with --mnist_dir")
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is not a complete gzip file ({error}); download it again") from None
    dimensions = 1 + len(item_shape)
    header, magic = 4 + 4 * dimensions, bytes([0, 0, 8, dimensions])
    if data[:4] != magic:
        raise DataError(f"{path}: an IDX file of this kind starts with {magic.hex()}, but got '{data[:4].hex()}'")
    shape = tuple(np.frombuffer(data[4:header].ljust(4 * dimensions, b"\0"), ">i4").tolist())
    if shape[1:] != item_shape or shape[0] < 1:
        raise DataError(f"{path}: the shape must be {('N', *item_shape)} with N >= 1, but the header states {shape}")
    expected = header + int(np.prod(shape))
    if len(data) != expected:
        found = f"{expected} bytes expected, {len(data)} found"
        raise DataError(f"{path} is truncated or damaged: {found}; download it again")
    return path, np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_fsdd(folder: Path, pool: Executor) -> dict[str, list[list[Sound]]]:
    """Read the takes of both splits: `takes[split][digit]` lists the recordings in the order of their names.

    `folder` holds DIGIT_SPEAKER_INDEX.wav files, or a folder `recordings` with them.
    """
    _need_folder(folder, "FSDD", "--fsdd_dir")
    if (folder / "recordings").is_dir():
        folder = folder / "recordings"
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise DataError(f"FSDD needs DIGIT_SPEAKER_INDEX.wav files, but {folder} has none; see --fsdd_dir")
    takes: dict[str, list[list[Sound]]] = {split: [[] for _ in range(10)] for split in ("train", "test")}
    places = []
    for path in paths:
        match = TAKE_NAME.fullmatch(path.name)
        if match is None or int(match[3]) >= TEST_TAKES.stop:
            raise DataError(f"{path}: a take is named DIGIT_SPEAKER_INDEX.wav with an index of 0 to 49")
        places.append(takes["test" if int(match[3]) in TEST_TAKES else "train"][int(match[1])])
    for place, sound in zip(places, pool.map(read_sound, paths), strict=True):
        place.append(sound)
    for split, digits in takes.items():
        missing = [digit for digit in range(10) if not digits[digit]]
        if missing:
            wanted = "0 to 39" if split == "train" else "40 to 49"
            raise DataError(f"{folder} has no take with index {wanted} ({split}) of the digits {missing}")
    return takes


def read_esc50(folder: Path, rng: np.random.Generator, pool: Executor) -> dict[str, dict[str, Sound]]:
    """Draw one clip of each class: `noises[split][class]`, 40 random classes for train, the other 10 for test.

    `folder` holds `meta/esc50.csv` and `audio/`, as in the published archive.
    """
    _need_folder(folder, "ESC-50", "--esc50_dir")
    table = folder / "meta" / "esc50.csv"
    if not table.is_file():
        raise DataError(f"ESC-50 needs its table {table}; give the folder that holds meta/ and audio/ as --esc50_dir")
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = [(row["category"], row["filename"]) for row in csv.DictReader(file)]
    except (KeyError, UnicodeDecodeError, csv.Error):
        raise DataError(f"{table}: expected comma-separated text with the columns filename and category") from None
    clips: dict[str, list[str]] = {}
    for category, name in sorted(row for row in rows if all(row)):
        clips.setdefault(category, []).append(name)
    if len(clips) != NUM_CLASSES:
        raise DataError(f"{table}: {NUM_CLASSES} noise classes expected, {len(clips)} found")
    classes = [str(name) for name in rng.permutation(sorted(clips))]
    paths = [folder / "audio" / str(rng.choice(clips[name])) for name in classes]
    sounds = dict(zip(classes, pool.map(read_sound, paths), strict=True))
    return {
        "train": {name: sounds[name] for name in classes[:TRAIN_CLASSES]},
        "test": {name: sounds[name] for name in classes[TRAIN_CLASSES:]},
    }


def read_sound(path: Path) -> Sound:
    """Read a recording and average its channels."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{path} is not a readable WAV file: {error.error_string}") from None
    if len(samples) < SIZE:
        raise DataError(f"{path} is too short: at least {SIZE} samples expected, {len(samples)} found")
    if not np.isfinite(samples).all():
        raise DataError(f"{path} has samples that are not finite numbers")
    return Sound(path.name, samples.mean(axis=1), rate)


def to_rate(sound: Sound, rate: int) -> np.ndarray:
    """Resample to `rate` Hz, which must not exceed the recording's own: (n,) float32."""
    if sound.rate == rate:
        return sound.samples
    import librosa  # slow to import, and not needed if all rates are equal

    return librosa.resample(sound.samples, orig_sr=sound.rate, target_sr=rate)


def _need_folder(folder: Path, what: str, flag: str) -> None:
    if not folder.is_dir():
        raise DataError(f"the {what} folder {folder} does not exist; give it with {flag}, or use --download")
