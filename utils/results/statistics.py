"""Paired comparisons of two networks on the same samples: bootstrap interval and McNemar's test."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy
from numpy.typing import ArrayLike

CONFIDENCE, RESAMPLES = 0.95, 10_000


class Difference(NamedTuple):
    """A difference of means with its confidence interval."""

    mean: float
    low: float
    high: float


class McNemar(NamedTuple):
    """Samples that only one of two networks classifies correctly, and the exact two-sided p-value."""

    only_a_right: int
    only_b_right: int
    p: float


def paired_bootstrap(correct_a: ArrayLike, correct_b: ArrayLike, seed: int) -> Difference:
    """Percentile bootstrap of mean(a) - mean(b) with paired resampling (Efron and Tibshirani, 1993).

    A resample's mean depends only on how often each distinct value of a - b is drawn, and these counts are
    multinomial: with 0/1 values that is three numbers per resample, however many samples there are.

    Args:
        correct_a, correct_b: (N,) correct (1) or wrong (0), for the same samples in the same order.

    Raises:
        ValueError: the shapes differ or are not (N,) with N >= 1.
    """
    a, b = _pair(correct_a, correct_b)
    values, counts = np.unique(a - b, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(a), counts / len(a), size=RESAMPLES)  # (RESAMPLES, values)
    means = drawn @ values / len(a)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(a.mean() - b.mean()), float(low), float(high))


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """McNemar's exact test (1947): where only one of two networks is correct, each is equally likely to be the one.

    Args:
        correct_a, correct_b: (N,) correct or wrong, for the same samples in the same order.

    Raises:
        ValueError: the shapes differ or are not (N,) with N >= 1.
    """
    a, b = (x.astype(bool) for x in _pair(correct_a, correct_b))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))


def significance(test: Mapping[str, Any]) -> str:
    """Describe McNemar's test, as results.json records it, in words."""
    p = "p < 0.001" if test["p"] < 0.001 else f"p = {test['p']:.3f}"
    verdict = "rarely gives" if test["p"] < 0.05 else "may give"
    ahead = test["only_found_right"] - test["only_baseline_right"]
    favored = "the found network" if ahead > 0 else "the baseline"
    p += f" in favor of {favored}" if ahead else " and neither is ahead"
    return (
        f"{test['only_found_right']} test samples are classified correctly only by the found network, "
        f"{test['only_baseline_right']} only by the baseline ({test['against']}). McNemar's exact test: {p}; "
        f"chance alone {verdict} a difference this large."
    )


def paired(found: ArrayLike, other: ArrayLike, seed: int) -> dict[str, Any]:
    """Compare the found network with another on the same samples: its lead with an interval, and McNemar's test."""
    lead, test = paired_bootstrap(found, other, seed), mcnemar(found, other)
    counts = {"only_found_right": test.only_a_right, "only_baseline_right": test.only_b_right, "p": test.p}
    return {**lead._asdict(), "confidence": CONFIDENCE, **counts}


def best_baseline(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the baseline that is best on dev; None without a finite score.

    If baselines are level on dev, it is the one that is best on test, which never favors the found network.
    """
    judged = [row for row in rows if row.get("baseline", True) and row["dev"] is not None and row["test"] is not None]
    finite = [row for row in judged if math.isfinite(row["dev"]) and math.isfinite(row["test"])]
    return max(finite, key=lambda row: (row["dev"], row["test"]), default=None)


def verdict(name: str, test: float, found: float, lead: Mapping[str, Any] | None) -> str:
    """Say in one sentence whether the found network is ahead of the baseline that is best on dev.

    Args:
        name, test: of the baseline.
        found: test score of the found network.
        lead: see `paired`; None for multi-label data.
    """
    points = round(100 * (found - test), 1)
    side = "level with" if points == 0 else "ahead of" if points > 0 else "behind"
    by = f" by {abs(points):.1f} points" if points else ""
    said = f"The found network is {side} the baseline that is best on dev ({name}, {100 * test:.1f} %){by}"
    if lead is None:
        return f"{said}."
    low, high = 100 * lead["low"], 100 * lead["high"]
    gain = "a clear gain" if low > 0 else "a clear loss" if high < 0 else "no clear difference"
    interval = f"{100 * lead['confidence']:.0f} % interval {signed(low)} to {signed(high)}"
    return f"{said} ({interval}): {gain}."


def format_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def format_lead(lead: Mapping[str, float]) -> str:
    """A difference in points with its interval, as in "+0.4 (-0.2 to +1.0)"."""
    mean, low, high = (signed(100 * lead[name]) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def signed(points: float) -> str:
    """A difference in points with its sign, such as +0.4; never -0.0."""
    return f"{round(points, 1) + 0.0:+.1f}"


def _pair(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(correct_a, dtype=float), np.asarray(correct_b, dtype=float)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"both arrays must have one number per sample, but got the shapes {a.shape} and {b.shape}")
    return a, b
