"""Results over several seeds: mean and intervals of each method, and by how much the found network exceeds it.

The unit is the seed: an interval over seeds is Student's t. All seeds share their test samples, so a second interval
resamples seeds and samples independently of each other (Owen, 2007).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy

from utils.arrays import read_array
from utils.errors import UsageError
from utils.results.statistics import CONFIDENCE, RESAMPLES, Difference, signed
from utils.seeds import derive_seed

AT_ONCE = 1000  # resamples drawn together, which bounds the memory


class Spread(NamedTuple):
    """Values over seeds; a single value has no deviation, and equal values no interval, as further ones may differ."""

    seeds: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


class SeedResult(NamedTuple):
    """Results of one found run."""

    rows: Sequence[dict[str, Any]]  # of results.json; the last is the found network's
    correct: np.ndarray | None  # (rows, N): whether each classifies each test sample correctly; None if unknown


class Method(NamedTuple):
    """A row of the results table over seeds; None for what is unknown."""

    name: str
    dev: Spread | None
    test: Spread | None
    seconds: Spread | None
    lead: Spread | None  # test score of the found network minus that of the method, paired over seeds
    sampled: Difference | None  # the same with an interval over seeds and samples
    baseline: bool  # False for the found network and others of the search


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Mean, standard deviation and Student's t interval of the values that are not None; None without any."""
    known = np.array([value for value in values if value is not None], dtype=float)
    if not len(known):
        return None
    mean, count = float(known.mean()), len(known)
    if count == 1:
        return Spread(count, mean, None, None, None)
    deviation = float(known.std(ddof=1))
    if deviation < 1e-9:
        return Spread(count, mean, 0.0, None, None)
    half = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    return Spread(count, mean, deviation, mean - half, mean + half)


def crossed_bootstrap(differences: np.ndarray, seed: int, resamples: int = RESAMPLES) -> Difference:
    """Percentile bootstrap of the mean over seeds and samples, both drawn with replacement.

    A sample counts in all seeds or in none, because what makes it hard for one network makes it hard for the others.
    How often each distinct column is drawn is multinomial, as are the seeds, so that no resample is ever built.

    Args:
        differences: (S, N) integers: correct (1) or wrong (0) of one network minus that of another, by seed and sample.

    Raises:
        ValueError: the shape is not (S, N) with S, N >= 1.
    """
    if differences.ndim != 2 or not differences.size:
        raise ValueError(f"there must be a number for each seed and sample, but the shape is {differences.shape}")
    seeds, samples = differences.shape
    columns, counts = np.unique(differences, axis=1, return_counts=True)  # (S, distinct), (distinct,)
    rng, means = np.random.default_rng(seed), []
    for start in range(0, resamples, AT_ONCE):
        size = min(AT_ONCE, resamples - start)
        drawn = rng.multinomial(samples, counts / samples, size) @ columns.T.astype(float)  # (size, S)
        means.append((drawn * rng.multinomial(seeds, np.full(seeds, 1 / seeds), size)).sum(1) / (seeds * samples))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(differences.mean()), float(low), float(high))


def read_test_correct(folder: Path, rows: int) -> np.ndarray | None:
    """Read test_correct.npy of a found run; None if it has none, and for multi-label data: F1 is no mean over samples.

    Raises:
        UsageError: the file is damaged, or of another number of rows.
    """
    path = folder / "test_correct.npy"
    if not path.exists():
        return None
    correct = read_array(path)
    if correct.dtype not in (bool, np.float32) or correct.ndim != 2 or len(correct) != rows or not correct.size:
        rule = f"must hold a value for each of {rows} rows of results.json and each test sample"
        raise UsageError(f"{path} {rule}, but holds {correct.dtype} {correct.shape}")
    return correct if correct.dtype == bool else None


def summarize(results: Sequence[SeedResult]) -> list[Method]:
    """Summarize each method, in the order of the rows; the found network, which is last in each run, comes last."""
    if not results:
        return []
    found = results[0].rows[-1]["name"]
    names = dict.fromkeys(row["name"] for result in results for row in result.rows if row["name"] != found)
    return [_method(name, results) for name in (*names, found)]


def _method(name: str, results: Sequence[SeedResult]) -> Method:
    places = [next((i for i, row in enumerate(one.rows) if row["name"] == name), None) for one in results]
    pairs = [(one, place) for one, place in zip(results, places, strict=True) if place is not None]
    dev, test, seconds = (spread_of([one.rows[i].get(key) for one, i in pairs]) for key in ("dev", "test", "seconds"))
    if name == results[0].rows[-1]["name"]:
        return Method(name, dev, test, seconds, None, None, baseline=False)
    both = [(one.rows[-1]["test"], one.rows[i]["test"]) for one, i in pairs]
    lead = spread_of([own - other for own, other in both if own is not None and other is not None])
    arrays = [one.correct[-1].astype(np.int8) - one.correct[i] for one, i in pairs if one.correct is not None]
    sampled = None
    if len(arrays) == len(pairs) > 1 and len({len(array) for array in arrays}) == 1:
        sampled = crossed_bootstrap(np.stack(arrays), derive_seed(0, "over seeds and samples"))
    baseline = all(one.rows[i].get("baseline", True) for one, i in pairs)
    return Method(name, dev, test, seconds, lead, sampled, baseline)


def verdict(methods: Sequence[Method]) -> str:
    """Compare the found network with the best simple baseline, which is that with the best dev score, in one sentence.

    A gain is clear if no interval contains 0.
    """
    rivals = [(m.dev.mean, m.name, m.lead, m.sampled) for m in methods if m.dev and m.lead and m.baseline]
    rivals = [rival for rival in rivals if math.isfinite(rival[0])]
    if not rivals:
        return "There is no baseline to compare the found network with."
    _, name, lead, sampled = max(rivals, key=lambda rival: rival[0])
    points = round(100 * lead.mean, 1)
    side = "ahead of" if points > 0 else "behind" if points else "level with"
    by = f" by {abs(points):.1f} points" if points else ""
    fact = f"the found network is {side} the best simple baseline ({name}){by}"
    if lead.seeds == 1:
        return f"With one seed, {fact}; an interval over seeds needs two."
    named = {"over seeds": lead, "over seeds and samples": sampled}
    shown = ", ".join(f"{words} {in_points(one)}" for words, one in named.items() if interval(one))
    if not shown:
        return f"Over {lead.seeds} seeds, {fact}, the same with each seed; an interval needs more seeds."
    lows, highs = zip(*filter(None, map(interval, named.values())), strict=True)
    unclear = "no clear loss" if points < 0 else "no clear gain"
    judged = "a clear gain" if min(lows) > 0 else "a clear loss" if max(highs) < 0 else unclear
    return f"Over {lead.seeds} seeds, {fact} (95 % interval {shown}): {judged}."


def interval(value: Spread | Difference | None) -> tuple[float, float] | None:
    """Ends of the interval; None if there is none."""
    return None if value is None or value.low is None or value.high is None else (value.low, value.high)


def in_points(difference: Spread | Difference | None) -> str:
    """Show the interval of a difference in points; empty if there is none."""
    ends = interval(difference)
    return f"{signed(100 * ends[0])} to {signed(100 * ends[1])}" if ends else ""
