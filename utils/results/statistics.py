"""Is one network better than another on the same samples? Pure functions of which samples each got right."""

from typing import NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

CHUNK = 2**22  # random counts held at once


class Difference(NamedTuple):
    """A difference of means with its confidence interval."""

    mean: float
    low: float
    high: float


class McNemar(NamedTuple):
    """Samples that only one of two got right, and the exact two-sided p of their being as unequal by chance."""

    only_a_right: int
    only_b_right: int
    p: float


def paired_bootstrap(
    correct_a: ArrayLike, correct_b: ArrayLike, seed: int, resamples: int = 10_000, confidence: float = 0.95
) -> Difference:
    """Percentile bootstrap of mean(a) - mean(b), where both are resampled together (Efron and Tibshirani, 1993).

    A resample's mean depends only on how often each distinct value of a - b is drawn, and these counts are
    multinomial: with 0/1 values that is three numbers a resample, however many samples there are.

    Args:
        correct_a, correct_b: (N,) numbers, of the same samples in the same order; booleans for right and wrong.

    Raises:
        ValueError: not two rows of equal length of at least 1, no resample, or confidence outside 0 to 1.
    """
    a, b = _pair(correct_a, correct_b)
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"resamples >= 1 and 0 < confidence < 1 must hold, but got resamples={resamples}, confidence={confidence}"
        )
    values, counts = np.unique(a - b, return_counts=True)
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(values))
    means = np.concatenate(
        [
            rng.multinomial(len(a), counts / len(a), size=min(rows, resamples - start)) @ values / len(a)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Difference(float(a.mean() - b.mean()), float(low), float(high))


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """McNemar's exact test: among the samples that one of two got right, each is as likely to be the one (1947).

    Args:
        correct_a, correct_b: (N,) right or wrong, of the same samples in the same order.

    Raises:
        ValueError: not two rows of equal length of at least 1.
    """
    a, b = (x.astype(bool) for x in _pair(correct_a, correct_b))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))


def _pair(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(correct_a, dtype=float), np.asarray(correct_b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"two rows of one number a sample are compared, but got the shapes {a.shape} and {b.shape}")
    return a, b
