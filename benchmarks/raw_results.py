"""The raw results in docs/results and their summaries, for the tables and plots of docs/benchmark.md and results.md."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import measure  # noqa: F401 - finds the project
import numpy as np
from algorithms import SEARCHERS
from scipy import stats

from utils.arrays import read_arrays
from utils.errors import UsageError
from utils.reading import sha256
from utils.results.over_seeds import SeedResult
from utils.search.table import AccuracyTable, read_table

TASKS = {  # by file name: title
    "avmnist-paper": "AV-MNIST, `paper`",
    "avmnist-multibench": "AV-MNIST, `multibench`",
    "noisy-views": "digits, noisy views",
    "avmnist-multibench-2": "AV-MNIST, `multibench`, other networks",
}
MAIN = "avmnist-paper"
OTHER_NETWORKS = {"avmnist-multibench": "avmnist-multibench-2"}  # of the same data
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A statistic with its 95 % interval."""

    value: float
    low: float
    high: float

    def shown(self, sign: str = "") -> str:
        value, low, high = (f"{round(x, 2) + 0.0:{sign}.2f}" for x in self)
        return f"{value} ({low} to {high})"


class Results:
    """The raw results in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def tables(self) -> dict[str, AccuracyTable]:
        paths = {name: self.folder / f"{name}.npz" for name in TASKS}
        return {name: read_table(path) for name, path in paths.items() if path.exists()}

    @functools.cached_property
    def regrets(self) -> dict[str, dict[str, dict[str, np.ndarray]]]:
        """By task, algorithm, and kind (validation, other seeds, seconds): (runs, trainings // 5).

        Raises:
            UsageError: the runs used another table.
        """
        found = {}
        for name in self.tables:
            path = self.folder / f"regret-{name}.npz"
            if path.exists():
                arrays, _ = read_arrays(path)
                if str(arrays["table"]) != sha256(self.folder / f"{name}.npz"):
                    raise UsageError(f"{path} is of another {name}.npz; run benchmarks/searchers.py again")
                runs = {name: values for name, values in arrays.items() if values.ndim == 3}
                kinds = ("validation", "other seeds", "seconds")
                known = [algorithm for algorithm in SEARCHERS if algorithm in runs]
                found[name] = {own: dict(zip(kinds, runs[own].swapaxes(0, 1), strict=True)) for own in known}
        return found

    @functools.cached_property
    def ranking(self) -> dict:
        path = self.folder / f"ranking-{MAIN}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    @functools.cached_property
    def methods(self) -> dict[str, dict[int, SeedResult]]:
        """By task and seed: whatever was trained to completion, that of the published search last."""
        found = {}
        for name in TASKS:
            path = self.folder / f"methods-{name}.npz"
            if path.exists():
                arrays, _ = read_arrays(path)
                seeds = sorted(int(key.removeprefix("rows_")) for key in arrays if key.startswith("rows_"))
                found[name] = {
                    s: SeedResult(json.loads(str(arrays[f"rows_{s}"])), arrays[f"correct_{s}"]) for s in seeds
                }
        return found


def interquartile_mean(values: np.ndarray) -> Estimate:
    """Interquartile mean over the runs."""
    return bootstrap(values, _iqm)


def interquartile_difference(values: np.ndarray, others: np.ndarray) -> Estimate:
    """Interquartile mean of the values minus that of the others, as far as both have the same runs."""
    count = min(len(values), len(others))
    values, others = values[:count], others[:count]
    return bootstrap(np.stack([values, others]), lambda chosen: _iqm(chosen[0]) - _iqm(chosen[1]))


def _iqm(values: np.ndarray) -> np.ndarray:
    return stats.trim_mean(values, 0.25, axis=-1)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> Estimate:
    """Spearman's rank correlation over configurations."""

    def spearman(chosen: np.ndarray) -> np.ndarray:
        ranks = stats.rankdata(chosen, axis=-1)
        ranks -= ranks.mean(-1, keepdims=True)
        return (ranks[0] * ranks[1]).sum(-1) / np.sqrt((ranks**2).sum(-1).prod(0))

    return bootstrap(np.stack([a, b]), spearman)


def bootstrap(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> Estimate:
    """A statistic over the last axis of the values, and its 95 % bootstrap interval."""
    count = values.shape[-1]
    resampled = values[..., np.random.default_rng(0).integers(count, size=(RESAMPLES, count))]
    low, high = np.nanquantile(statistic(resampled), [0.025, 0.975])
    return Estimate(float(statistic(values)), float(low), float(high))
