"""A stand-in for AV-MNIST that needs no files: scikit-learn's handwritten digits, each paired with its telephone tones.

The digits are real (UCI, 8x8 pixels); the sounds are synthetic. A recording is the tone pair (DTMF) of the digit at
8 kHz; the noise clips are colored noise. Figures measured on it do not carry over to the real AV-MNIST.
"""

import numpy as np
import scipy.ndimage
from sklearn.datasets import load_digits

from datasets.avmnist.sources import Raw, Settings, Sound

COUNTS = {"train": 6000, "test": 1000}  # samples; a digit occurs several times, with different recordings
TEST_DIGITS = 300  # of 1,797
DEV_PART = 12  # the last twelfth of the train split is the dev split, which shares no digit with the rest
TAKES = {"train": 600, "test": 100}  # recordings of each digit: about one per sample
RATE = 8000  # Hz
SECONDS = (0.2, 0.5)  # length of a recording
LENGTHS = 16  # number of different lengths
NOISES = {"train": 40, "test": 10}  # clips
NOISE_SECONDS = 5.0
COLORS = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls as 1 / frequency^exponent
LOW = (941, 697, 697, 697, 770, 770, 770, 852, 852, 852)  # Hz, of the digits 0 to 9
HIGH = (1336, 1209, 1336, 1477, 1209, 1336, 1477, 1209, 1336, 1477)


def read(settings: Settings, rng: np.random.Generator) -> Raw:
    """Draw at most `settings.limits[split]` samples of each split; the splits share no digit, recording or noise."""
    bunch = load_digits()
    images = enlarge(bunch.images)
    order = rng.permutation(len(images))
    pools = {"test": order[:TEST_DIGITS], "train": order[TEST_DIGITS:]}
    noisy = settings.snr_db is not None
    counts = {split: min(count, settings.limits[split] or count) for split, count in COUNTS.items()}
    chosen = {split: _repeat(pools[split], counts[split], split, rng) for split in counts}
    takes = {split: [[dial(d, rng) for _ in range(TAKES[split])] for d in range(10)] for split in counts}
    noises: dict[str, dict[str, Sound]] = {split: {} for split in counts}
    for split in counts:
        for i in range(NOISES[split] if noisy else 0):
            color = list(COLORS)[i % len(COLORS)]
            noises[split][f"{color} {i}"] = colored_noise(color, rng)
    description = {
        "images": "scikit-learn load_digits, enlarged",
        "recordings": "DTMF tone pairs, synthesized",
        "noise": "colored noise, synthesized" if noisy else None,
        "recordings_per_digit": {split: [TAKES[split]] * 10 for split in counts},
        "noise_clips": {split: list(noises[split]) for split in counts},
    }
    labels = {split: bunch.target[chosen[split]].astype(np.int64) for split in counts}
    return Raw({split: images[chosen[split]] for split in counts}, labels, takes, noises, description)


def _repeat(pool: np.ndarray, count: int, split: str, rng: np.random.Generator) -> np.ndarray:
    """Repeat members of the pool up to `count`; the dev tail of `train` shares none with the rest."""
    tail = count // DEV_PART if split == "train" else 0
    own = len(pool) // DEV_PART if tail else 0
    parts = []
    for members, wanted in ((pool[own:], count - tail), (pool[:own], tail)):
        rounds = -(-wanted // max(1, len(members)))
        parts += [np.concatenate([rng.permutation(members) for _ in range(rounds)] or [members[:0]])[:wanted]]
    return np.concatenate(parts)


def enlarge(digits: np.ndarray) -> np.ndarray:
    """Enlarge digits (N, 8, 8) with values 0..16 to MNIST's 28x28: (N, 784) uint8 with values 0..255."""
    large = scipy.ndimage.zoom(digits, (1, 3.5, 3.5), order=1, grid_mode=True, mode="grid-constant")
    return np.clip(large * (255 / 16), 0, 255).astype(np.uint8).reshape(len(digits), 784)


def dial(digit: int, rng: np.random.Generator) -> Sound:
    """Synthesize a recording of a digit: its two tones with random length, levels and phases, faded at both ends."""
    low, high = SECONDS
    n = int(RATE * (low + (high - low) * rng.integers(LENGTHS) / (LENGTHS - 1)))
    t = np.arange(n) / RATE
    level = 10 ** rng.uniform(-0.3, 0.0, 2)  # up to 6 dB apart
    phase = rng.uniform(0, 2 * np.pi, 2)
    tones = sum(level[k] * np.sin(2 * np.pi * pair[digit] * t + phase[k]) for k, pair in enumerate((LOW, HIGH)))
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)
    return Sound(f"dialed {digit}", (0.25 * tones * fade).astype(np.float32), RATE)


def colored_noise(color: str, rng: np.random.Generator) -> Sound:
    """Synthesize a noise clip whose spectrum falls as 1 / frequency^exponent from 50 Hz up."""
    n = int(RATE * NOISE_SECONDS)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.maximum(np.fft.rfftfreq(n, 1 / RATE), 50) ** COLORS[color]
    noise = np.fft.irfft(spectrum, n)
    return Sound(color, (0.1 * noise / noise.std()).astype(np.float32), RATE)
