"""The raw results in docs/results and their summaries, for the tables and plots of docs/benchmark.md and results.md."""

import functools
import json
from pathlib import Path

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
}
MAIN = "avmnist-paper"
RESAMPLES = 2000


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
        """By task, algorithm, and kind (validation, true, seconds): (runs, trainings // 5).

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
                kinds = ("validation", "true", "seconds")
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


def best_epochs(table: AccuracyTable, layers: int) -> np.ndarray:
    """Accuracy of the best epoch, (seeds, configurations)."""
    return table.correct[layers].max(2) / table.dev_samples


def interquartile_mean(values: np.ndarray) -> tuple[float, float, float]:
    """Interquartile mean over the runs, and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    resampled = values[rng.integers(len(values), size=(RESAMPLES, len(values)))]
    low, high = np.quantile(stats.trim_mean(resampled, 0.25, axis=1), [0.025, 0.975])
    return float(stats.trim_mean(values, 0.25)), float(low), float(high)
