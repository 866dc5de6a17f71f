"""Run search algorithms on a table of configurations, many seeds each, and store their regret (docs/benchmark.md).

    python benchmarks/searchers.py --table docs/results/avmnist-paper.npz --out docs/results/regret-avmnist-paper.npz

Every algorithm trains `--trainings` candidates in each of `--runs` runs; a search that ends earlier keeps its best.
Run r uses the results of trainings with seed r (modulo the number of seeds in the table). After every fifth training,
three figures of the best candidate so far are recorded: its validation regret, which is the best accuracy with these
seeds minus its own; its regret with other seeds, the same for the mean accuracy with all others; and the seconds of all
trainings until then. OUT keeps finished algorithms. TPE needs Optuna (benchmarks/requirements.txt).
"""

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import math
from pathlib import Path

import measure  # noqa: F401 - finds the project
import numpy as np
import torch
from algorithms import SEARCHERS

from datasets.ntu.workers import parallel
from utils import cli
from utils.arrays import read_arrays
from utils.errors import UsageError
from utils.files import whole_file
from utils.progress import Progress
from utils.reading import sha256
from utils.search.loop import Evaluation
from utils.search.space import Configuration
from utils.search.table import AccuracyTable, read_table

EVERY = 5  # trainings between two records


@dataclasses.dataclass(frozen=True)
class Truth:
    """Accuracies of all configurations of a table, in the trainings of one run and in all others."""

    table: AccuracyTable
    run: int

    def best(self) -> float:
        """Best accuracy in the trainings of the run."""
        return float(max(own.max() for own in self.own().values()))

    def best_other(self) -> float:
        return max(means.max() for means in self.others.values())

    def other(self, configuration: Configuration) -> float:
        """Mean accuracy of a configuration in the trainings with other seeds; NaN if there are none."""
        return self.others[len(configuration)][self.table.rank(configuration)]

    def regret_of_all(self) -> float:
        """Regret with other seeds of the configuration that is best of all in the trainings of the run."""
        own = self.own()
        layers = max(own, key=lambda n: own[n].max())
        return float(self.best_other() - self.others[layers][own[layers].argmax()])

    def own(self) -> dict[int, np.ndarray]:
        """Accuracies in the trainings of the run, by number of layers."""
        return {n: self.table.accuracies(n)[self.run % self.table.seeds(n)] for n in self._depths}

    @functools.cached_property
    def others(self) -> dict[int, np.ndarray]:
        """Mean accuracies in the trainings with other seeds, by number of layers."""
        means = {}
        for n in self._depths:
            others = np.delete(self.table.accuracies(n), self.run % self.table.seeds(n), axis=0)
            means[n] = others.mean(0, dtype=float) if len(others) else np.full(others.shape[1], np.nan)
        return means

    @property
    def _depths(self) -> range:
        return range(1, self.table.depth + 1)


def seed_sets(table: AccuracyTable) -> int:
    """Number of runs until their seeds repeat."""
    return math.lcm(*(table.seeds(n) for n in range(1, table.depth + 1)))


@functools.cache
def _table(path: Path) -> AccuracyTable:
    return read_table(path)


@functools.cache
def _truth(path: Path, run: int) -> Truth:
    return Truth(_table(path), run)


def one_run(path: Path, name: str, trainings: int, run: int) -> np.ndarray:
    """Regret in validation, with other seeds, and seconds after every fifth training, (3, trainings // 5)."""
    torch.set_num_threads(1)
    table = _table(path)
    truth = _truth(path, run % seed_sets(table))
    best, best_other, rows = truth.best(), truth.best_other(), list[tuple[float, float, float]]()
    reached, chosen, spent = -1.0, Configuration(), 0.0
    for configuration in itertools.islice(SEARCHERS[name](table, table.evaluator(run), run), trainings):
        evaluation: Evaluation = table.evaluation(configuration, run)
        spent += evaluation.seconds
        if evaluation.accuracy > reached:
            reached, chosen = evaluation.accuracy, configuration
        rows.append((best - reached, best_other - truth.other(chosen), spent))
    return np.array(rows + [rows[-1]] * (trainings - len(rows)), np.float32).T[:, EVERY - 1 :: EVERY]


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--table", type=Path, required=True, help="a table of benchmarks/make_table.py")
    parser.add_argument("--searchers", nargs="+", choices=SEARCHERS, default=list(SEARCHERS), help="algorithms")
    parser.add_argument("--runs", type=cli.COUNT, default=100, help="runs of each algorithm")
    parser.add_argument("--trainings", type=cli.COUNT, default=150, help="candidates of each run")
    parser.add_argument("--processes", type=cli.COUNT, default=2, help="runs side by side")
    parser.add_argument("--out", type=Path, required=True, help="the regrets, an .npz file")
    cli.add_verbosity(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if "TPE" in args.searchers and not importlib.util.find_spec("optuna"):
        raise UsageError("TPE needs one more package: pip install -r benchmarks/requirements.txt")
    digest = sha256(args.table)
    known = read_arrays(args.out)[0] if args.out.exists() else {}
    if known and (str(known["table"]), known["trainings"]) != (digest, args.trainings):
        raise UsageError(f"{args.out} holds runs on another table or of another length; name another --out")
    arrays = {"table": np.array(digest), "trainings": np.array(args.trainings), **known}
    missing = [name for name in args.searchers if len(known.get(name, ())) < args.runs]
    with Progress(total=len(missing) * args.runs, desc="runs", verbose=args.verbose) as bar:
        for name in missing:
            work, results = functools.partial(one_run, args.table, name, args.trainings), []
            for result in parallel(work, range(args.runs), args.processes):
                results.append(result)
                bar.update()
            arrays[name] = np.array(results)  # (runs, 3, trainings // EVERY)
            with whole_file(args.out) as file:
                np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    cli.run(main)
