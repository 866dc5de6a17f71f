"""Measure what distinguishes the copies of AV-MNIST: components of the images, noise of the recordings, alignment.

Noise is measured by a probe, linear discriminant analysis on small spectrograms. Its accuracy with each preset was
measured on data sets of 12,000 + 4,000 samples that `avmnist_gen.py` built with three seeds.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from datasets.avmnist.load import AVMNISTSplit
from datasets.avmnist.presets import PRESETS
from utils.errors import DataError

TRAINED, TESTED = 12_000, 10_000  # samples of a probe, from the start
LEAST = 1000  # training samples, and test samples, below which a probe says little
BLOCK = 8  # side of the squares over which spectrograms are averaged, in pixels
VARIES = 1e-6  # variance of a component, relative to the first: images are rounded to 1/256 of a gray level
ERRORS = 5  # standard errors above chance from which a probe shows that labels belong to the samples
ACCURACY = {"paper": (0.39, 0.53), "multibench": (0.20, 0.36), "fork": (0.80, 1.0)}
# Measured: paper 42.6 to 48.6 %, multibench 26.2 to 32.1 %, fork 90.4 % with each seed.


@dataclasses.dataclass(frozen=True)
class Findings:
    """Measurements of a data set, and the presets that they match."""

    components: int  # principal components in which the images lie
    image_probe: float  # accuracy on test
    audio_probe: float
    chance: float  # accuracy from which a probe is better than guessing

    @property
    def images(self) -> list[str]:
        """Presets with as many components."""
        return [name for name in ACCURACY if PRESETS[name][0] == self.components]

    @property
    def sounds(self) -> list[str]:
        """Presets with about as much noise."""
        return [name for name, (low, high) in ACCURACY.items() if low <= self.audio_probe <= high]

    @property
    def unaligned(self) -> list[str]:
        """Modalities whose samples are not those of the labels, as far as a probe can tell."""
        probes = {"images": self.image_probe, "spectrograms": self.audio_probe}
        return [name for name, reached in probes.items() if reached < self.chance]


def examine(parts: Mapping[str, AVMNISTSplit]) -> Findings:
    """Measure a data set, given its parts train and test.

    Raises:
        DataError: it has too few samples.
    """
    train, test = (parts[name].part(slice(most)) for name, most in (("train", TRAINED), ("test", TESTED)))
    if min(len(train.labels), len(test.labels)) < LEAST:
        held = f"{len(train.labels):,} and {len(test.labels):,}"
        raise DataError(f"the check needs {LEAST:,} training and {LEAST:,} test samples or more, but there are {held}")
    labels, counts = test.labels.numpy(), np.bincount(test.labels.numpy())
    most = counts.max() / len(labels)
    chance = most + ERRORS * np.sqrt(most * (1 - most) / len(labels))
    known = train.labels.numpy()
    images, unseen = (_flat(part.images[:]) for part in (train, test))
    image_probe = _probe(images, known, unseen, labels)
    sounds, unheard = (_flat(F.avg_pool2d(part.spectrograms[:].float(), BLOCK)) for part in (train, test))
    return Findings(_components(images), image_probe, _probe(sounds, known, unheard, labels), float(chance))


def _flat(x: Tensor) -> np.ndarray:
    return x.flatten(1).double().numpy()


def _components(images: np.ndarray) -> int:
    """Number of directions in which images (N, 784) vary."""
    centered = images - images.mean(axis=0)
    variances = np.linalg.eigvalsh(centered.T @ centered / len(images))
    return int((variances > VARIES * variances[-1]).sum())


def _probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, expected: np.ndarray) -> float:
    """Accuracy on test samples (N, D) of a linear classifier fitted to the training samples."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # takes a second to import

    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(train, labels)
    return float((fitted.predict(test) == expected).mean())


def describe(found: Findings) -> list[str]:
    """Lines that compare the findings with the presets."""
    components = ", ".join(f"{name} {PRESETS[name][0]}" for name in ACCURACY)
    reached = ", ".join(f"{name} {100 * low:.0f} to {100 * high:.0f} %" for name, (low, high) in ACCURACY.items())
    aligned = "no: " + " and ".join(found.unaligned) + " do not belong to them" if found.unaligned else "yes"
    both = [name for name in found.images if name in found.sounds]
    preset = both[0] if both else f"none; images of {_named(found.images)}, noise of {_named(found.sounds)}"
    if "spectrograms" in found.unaligned:
        preset = f"images of {_named(found.images)}; noise cannot be measured without labels"
    return [
        f"image components: {found.components} ({components})",
        f"noise: a probe reaches {100 * found.audio_probe:.1f} % ({reached})",
        f"labels aligned: {aligned} (probes on images {100 * found.image_probe:.1f} %, on spectrograms "
        f"{100 * found.audio_probe:.1f} %; guessing stays below {100 * found.chance:.1f} %)",
        f"preset: {preset}",
    ]


def _named(presets: list[str]) -> str:
    return f"preset {presets[0]}" if presets else "no preset"
