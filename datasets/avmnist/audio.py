"""Takes dealt to digits, noise mixed in, spectrograms written: the audio half of the AV-MNIST generator."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.avmnist.folder import RowWriter
from datasets.avmnist.sources import Raw, to_rate
from datasets.avmnist.spectrogram import SIZE, spectrograms
from utils.errors import DataError

SILENCE = 1e-8  # mean power (full scale is 1) below which a window of noise counts as silent: -80 dB
REDRAWS = 1000  # windows tried before a split's noise is called silent
BATCH = 16  # signals of one length computed together: about what the processor's caches hold


@dataclass
class AudioPlan:
    """What each of N samples of a split hears: recording `take[i]`, and a window of noise `clip[i]`."""

    recordings: list[np.ndarray]  # (n,) float32 each
    noises: list[np.ndarray]  # (m,) float32 each; none needed without an snr_db
    take: np.ndarray  # (N,) index of the recording
    clip: np.ndarray  # (N,) index of the noise
    position: np.ndarray  # (N,) in [0, 1): where the window starts among the places it fits
    snr_db: float | None  # None: no noise
    seed: tuple[int, ...]


def plan_audio(raw: Raw, split: str, snr_db: float | None, rate: int, seed: tuple[int, ...]) -> AudioPlan:
    """Deal the takes of each digit to the images of that digit in turn, and draw the noise of every sample.

    All draws are made here, so they do not depend on who computes which sample.

    Raises:
        DataError: a recording is too short for a spectrogram.
    """
    labels = raw.labels[split]
    recordings: list[np.ndarray] = []
    take = np.empty(len(labels), np.int64)
    for digit, sounds in enumerate(raw.takes[split]):
        mine = np.flatnonzero(labels == digit)
        take[mine] = len(recordings) + np.arange(len(mine)) % len(sounds)
        for sound in sounds:
            recordings.append(to_rate(sound, rate))
            if len(recordings[-1]) < SIZE:
                raise DataError(f"{sound.name} has {len(recordings[-1])} samples at {rate} Hz, but {SIZE} are needed")
    noises = [to_rate(sound, rate) for sound in raw.noises[split].values()]
    clip = np.random.default_rng((*seed, 0)).integers(max(1, len(noises)), size=len(labels))
    position = np.random.default_rng((*seed, 1)).random(len(labels))
    return AudioPlan(recordings, noises, take, clip, position, snr_db, seed)


def common_rate(raw: Raw) -> int:
    """The lowest rate in Hz of all recordings and noises: the others are brought to it."""
    takes = [sound for split in raw.takes.values() for digit in split for sound in digit]
    noises = [sound for split in raw.noises.values() for sound in split.values()]
    return min(sound.rate for sound in takes + noises)


def noise_window(plan: AudioPlan, sample: int, n: int) -> np.ndarray:
    """The `n` samples of noise that a sample hears, float64; a silent window is drawn again, clip and place.

    A clip shorter than `n` is repeated.

    Raises:
        DataError: no window with any sound was found.
    """
    clip, position = plan.clip[sample], plan.position[sample]
    again = None
    for _ in range(REDRAWS):
        noise = plan.noises[clip]
        places = len(noise) - n + 1 if len(noise) >= n else len(noise)
        start = int(position * places)
        window = noise[start : start + n] if len(noise) >= n else np.resize(np.roll(noise, -start), n)
        window = window.astype(np.float64)
        if np.mean(window**2) > SILENCE:
            return window
        again = again or np.random.default_rng((*plan.seed, 2, sample))
        clip, position = again.integers(len(plan.noises)), again.random()
    raise DataError(f"the noise clips are silent: {REDRAWS} windows of {n} samples had no power above {SILENCE}")


def mix(recording: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Recording (n,) plus noise (n,) scaled to `snr_db` dB below it, in mean power."""
    scale = np.sqrt(np.mean(recording**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    return recording + scale * noise


def _equal_lengths(plan: AudioPlan) -> Iterator[np.ndarray]:
    """Indices of samples in batches whose recordings have one length, all samples once."""
    lengths = np.array([len(recording) for recording in plan.recordings])[plan.take]
    order = np.lexsort((plan.take, lengths))
    for run in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        yield from np.split(run, range(BATCH, len(run), BATCH))


def _render(plan: AudioPlan, samples: np.ndarray) -> np.ndarray:
    """Spectrograms (B, 112, 112) uint8 of samples of one length."""
    if plan.snr_db is None:
        takes, which = np.unique(plan.take[samples], return_inverse=True)
        return spectrograms(np.stack([plan.recordings[take] for take in takes]))[which]
    signals = []
    for sample in samples:
        recording = plan.recordings[plan.take[sample]].astype(np.float64)
        signals.append(mix(recording, noise_window(plan, sample, len(recording)), plan.snr_db))
    return spectrograms(np.stack(signals))


def write_spectrograms(path: Path, plan: AudioPlan, pool: Executor) -> Iterator[int]:
    """Compute all spectrograms in the pool and write them to `path` as uint8 (N, 112, 112); yields counts done."""
    with RowWriter(path, np.uint8, (len(plan.take), SIZE, SIZE)) as writer:

        def work(samples: np.ndarray) -> int:
            for sample, image in zip(samples, _render(plan, samples), strict=True):
                writer.write(sample, image)
            return len(samples)

        yield from pool.map(work, list(_equal_lengths(plan)))
