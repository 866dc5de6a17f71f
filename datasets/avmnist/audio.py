"""Audio half of the AV-MNIST generator: assign recordings to digits, mix in noise, write spectrograms."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.avmnist.folder import RowWriter
from datasets.avmnist.sources import Raw, to_rate
from datasets.avmnist.spectrogram import SIZE, spectrograms
from utils.errors import DataError

SILENCE = 1e-8  # mean power (full scale is 1) below which a window of noise is silent: -80 dB
REDRAWS = 1000  # windows tried before a split's noise is considered silent
BATCH = 16  # signals of one length computed together: about as many as fit in the processor's caches


@dataclass
class AudioPlan:
    """Sources of the N samples of a split: sample i combines recording `take[i]` and a window of noise `clip[i]`."""

    recordings: list[np.ndarray]  # (n,) float32 each
    noises: list[np.ndarray]  # (m,) float32 each; may be empty without an snr_db
    take: np.ndarray  # (N,) index of the recording
    clip: np.ndarray  # (N,) index of the noise
    position: np.ndarray  # (N,) in [0, 1): start of the window, as a fraction of the possible starts
    snr_db: float | None  # None: no noise
    seed: tuple[int, ...]


def plan_audio(raw: Raw, split: str, snr_db: float | None, rate: int, seed: tuple[int, ...]) -> AudioPlan:
    """Assign the takes of each digit to its images in turn, and draw the noise of every sample.

    All draws are made here, so they do not depend on which thread computes which sample.
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
    """Lowest rate in Hz of all recordings and noises; the others are resampled to it."""
    takes = [sound for split in raw.takes.values() for digit in split for sound in digit]
    noises = [sound for split in raw.noises.values() for sound in split.values()]
    return min(sound.rate for sound in takes + noises)


def noise_window(plan: AudioPlan, sample: int, n: int) -> np.ndarray:
    """Window of noise (n,) float64 for a sample; if it is silent, another clip and position are drawn.

    A clip shorter than `n` is repeated.
    """
    clip, position = plan.clip[sample], plan.position[sample]
    again = None
    for _ in range(REDRAWS):
        noise = plan.noises[clip]
        start = int(position * (len(noise) - n + 1 if len(noise) >= n else len(noise)))
        window = noise.take(np.arange(start, start + n), mode="wrap").astype(np.float64)
        if np.mean(window**2) > SILENCE:
            return window
        again = again or np.random.default_rng((*plan.seed, 2, sample))
        clip, position = again.integers(len(plan.noises)), again.random()
    raise DataError(f"the noise clips are silent: {REDRAWS} windows of {n} samples had no power above {SILENCE}")


def _equal_lengths(plan: AudioPlan) -> Iterator[np.ndarray]:
    """Yield the indices of all samples in batches whose recordings have equal length."""
    lengths = np.array([len(recording) for recording in plan.recordings])[plan.take]
    order = np.lexsort((plan.take, lengths))
    for run in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        yield from np.split(run, range(BATCH, len(run), BATCH))


def _render(plan: AudioPlan, samples: np.ndarray) -> np.ndarray:
    """Compute spectrograms (B, 112, 112) uint8 of samples of equal length."""
    if plan.snr_db is None:
        takes, which = np.unique(plan.take[samples], return_inverse=True)
        return spectrograms(np.stack([plan.recordings[take] for take in takes]))[which]
    signals = []
    for sample in samples:
        recording = plan.recordings[plan.take[sample]].astype(np.float64)
        noise = noise_window(plan, sample, len(recording))
        scale = np.sqrt(np.mean(recording**2) / np.mean(noise**2)) * 10 ** (-plan.snr_db / 20)
        signals.append(recording + scale * noise)
    return spectrograms(np.stack(signals))


def write_spectrograms(path: Path, plan: AudioPlan, pool: Executor) -> Iterator[int]:
    """Compute all spectrograms in the pool, write them to `path` as uint8 (N, 112, 112), and yield the counts done."""
    with RowWriter(path, np.uint8, (len(plan.take), SIZE, SIZE)) as writer:

        def work(samples: np.ndarray) -> int:
            for sample, image in zip(samples, _render(plan, samples), strict=True):
                writer.write(sample, image)
            return len(samples)

        yield from pool.map(work, list(_equal_lengths(plan)))
