"""The search algorithms that benchmarks/searchers.py compares: generators of the configurations that they train."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import measure  # noqa: F401 - finds the project
import numpy as np
from scipy.linalg import solve_triangular

from utils.search.improved import GaussianProcess, improved_search, neighbors, squared_distances
from utils.search.loop import Evaluator, SearchSettings, random_search, sequential_search
from utils.search.space import Configuration, random_configuration
from utils.search.surrogate import AccuracyPredictor
from utils.search.table import AccuracyTable
from utils.seeds import derive_seed

Searcher = Callable[[AccuracyTable, Evaluator, int], Iterator[Configuration]]  # table, its evaluator and the run


def settings(table: AccuracyTable, run: int, **changes: float) -> SearchSettings:
    return dataclasses.replace(SearchSettings(max_fusions=table.depth, seed=run), **changes)


def _configurations(steps) -> Iterator[Configuration]:
    for step in steps:
        for candidate in step.candidates:
            yield candidate.configuration


class NoPredictor:
    """A surrogate that knows nothing: every configuration is as good as any other."""

    def __init__(self, table: AccuracyTable, run: int) -> None:
        self.table, self.run = table, run

    def predict(self, configurations: Sequence[Configuration]) -> np.ndarray:
        return np.full(len(configurations), 0.5)

    def update(self, configurations: Sequence[Configuration], accuracies: Sequence[float]) -> float:
        return 0.0


class PerfectPredictor(NoPredictor):
    """A surrogate that knows the accuracies."""

    def predict(self, configurations: Sequence[Configuration]) -> np.ndarray:
        return np.array([self.table.evaluation(configuration, self.run).accuracy for configuration in configurations])


def published(
    table: AccuracyTable,
    evaluate: Evaluator,
    run: int,
    predictor: Callable[[AccuracyTable, int], NoPredictor] | None = None,
    **changes: float,
) -> Iterator[Configuration]:
    """The published search to its end, with another predictor or settings if given."""
    own = settings(table, run, **changes)
    if predictor:
        surrogate = predictor(table, run)
    else:
        surrogate = AccuracyPredictor(len(table.space.sizes) + 1, run, own.lr_surrogate, own.epochs_surrogate)
    yield from _configurations(sequential_search(table.space, evaluate, surrogate, own))


def at_random(table: AccuracyTable, evaluate: Evaluator, run: int) -> Iterator[Configuration]:
    yield from _configurations(random_search(table.space, evaluate, settings(table, run, search_iterations=100)))


class Draws(GaussianProcess):
    """Choose each configuration as the best one in its own draw from the posterior (Thompson sampling)."""

    def best(self, pool: Sequence[Configuration], count: int) -> tuple[list[int], list[float]]:
        x, rng = self.encode(pool), np.random.default_rng(len(self.x))
        across = solve_triangular(self.lower, self.kernel(pool).T, lower=True)  # (n, m)
        covariance = np.exp(-squared_distances(x, x) / self.scale) - across.T @ across
        root = np.linalg.cholesky(covariance + 1e-6 * np.trace(covariance) / len(pool) * np.eye(len(pool)))
        expected, places = self.predict(pool), list[int]()
        while len(places) < count:
            drawn = expected + self.deviation * (root @ rng.standard_normal(len(pool)))
            drawn[places] = -np.inf
            places.append(int(drawn.argmax()))
        return places, expected[places].tolist()


class LayersApart(GaussianProcess):
    """Compare configurations layer by layer only, not by what they have in any layer."""

    def encode(self, configurations: Sequence[Configuration]) -> np.ndarray:
        encoded = super().encode(configurations)
        return encoded[:, : encoded.shape[1] * self.depth // (self.depth + 1)]


def improved(
    table: AccuracyTable,
    evaluate: Evaluator,
    run: int,
    process: type[GaussianProcess] = GaussianProcess,
    **changes: float,
) -> Iterator[Configuration]:
    own = settings(table, run, **{"search_iterations": 100, **changes})
    yield from _configurations(improved_search(table.space, evaluate, process(table.space, table.depth), own))


def unrepeated(searcher: Searcher) -> Searcher:
    """Leave out configurations that were trained before: their results are known."""

    def search(table: AccuracyTable, evaluate: Evaluator, run: int) -> Iterator[Configuration]:
        seen = set[Configuration]()
        for configuration in searcher(table, evaluate, run):
            if configuration not in seen:
                seen.add(configuration)
                yield configuration
            if len(seen) == table.space.configurations(table.depth):
                return

    return search


def accuracy(evaluate: Evaluator, configuration: Configuration) -> float:
    (evaluation,) = evaluate([configuration], 0, None)
    return evaluation.accuracy


def evolution(table: AccuracyTable, evaluate: Evaluator, run: int) -> Iterator[Configuration]:
    """Regularized evolution (Real et al., 2019): population 30, tournaments of 10, the oldest dies."""
    rng, population = _rng(run), list[tuple[float, Configuration]]()
    while True:
        if len(population) < 30:
            child = random_configuration(table.space, table.depth, rng)
        else:
            chosen = rng.choice(len(population), 10, replace=False)
            parent = max(population[i] for i in chosen)[1]
            around = neighbors(table.space, table.depth, parent)
            child = around[rng.integers(len(around))]
        population.append((accuracy(evaluate, child), child))
        population = population[-30:]
        yield child


def local_search(table: AccuracyTable, evaluate: Evaluator, run: int) -> Iterator[Configuration]:
    """Move to the first better neighbor; restart at random at a local optimum (White et al., 2021)."""
    rng, seen = _rng(run), set[Configuration]()
    while len(seen) < table.space.configurations(table.depth):
        current = random_configuration(table.space, table.depth, rng)
        if current in seen:
            continue
        seen.add(current)
        yield current
        best, moved = accuracy(evaluate, current), True
        while moved:
            moved, around = False, neighbors(table.space, table.depth, current)
            for place in rng.permutation(len(around)):
                if around[place] in seen:
                    continue
                seen.add(around[place])
                yield around[place]
                reached = accuracy(evaluate, around[place])
                if reached > best:
                    current, best, moved = around[place], reached, True
                    break


def greedy(table: AccuracyTable, evaluate: Evaluator, run: int) -> Iterator[Configuration]:
    """Try every row for the first layer and keep the best, then for the second, and so on; then random ones."""
    rng, rows, start = _rng(run), table.space.rows(), Configuration()
    for _ in range(table.depth):
        tried = [(*start, rows[i]) for i in rng.permutation(len(rows))]
        yield from tried
        start = max(tried, key=functools.partial(accuracy, evaluate))
    while True:
        yield random_configuration(table.space, table.depth, rng)


def tpe(table: AccuracyTable, evaluate: Evaluator, run: int) -> Iterator[Configuration]:
    """Tree-structured Parzen estimator (Optuna): depth, and each row's entries, as categories."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=run))
    choices = [*map(range, table.space.sizes), table.space.activations]
    while True:
        trial = study.ask()
        depth = trial.suggest_categorical("depth", range(1, table.depth + 1))
        configuration = tuple(
            tuple(trial.suggest_categorical(f"{layer}.{i}", own) for i, own in enumerate(choices))
            for layer in range(depth)
        )
        study.tell(trial, accuracy(evaluate, configuration))
        yield configuration


def _rng(run: int) -> np.random.Generator:
    return np.random.default_rng(derive_seed(run, "searcher"))


SEARCHERS: dict[str, Searcher] = {
    "published search": published,
    "random search": at_random,
    "improved search": improved,
    "regularized evolution": unrepeated(evolution),
    "local search": local_search,
    "TPE": tpe,
    "greedy by level": unrepeated(greedy),
    "published, without surrogate": functools.partial(published, predictor=NoPredictor),
    "published, perfect surrogate": functools.partial(published, predictor=PerfectPredictor),
    "published, temperature 1 to 0.2": functools.partial(published, initial_temperature=1.0),
    "published, temperature 0.2": functools.partial(published, initial_temperature=0.2),
    "published, K = 5": functools.partial(published, num_samples=5),
    "published, K = 45": functools.partial(published, num_samples=45),
    "improved, posterior draws": functools.partial(improved, process=Draws),
    "improved, layers compared apart": functools.partial(improved, process=LayersApart),
    "improved, K = 5": functools.partial(improved, num_samples=5, search_iterations=300),
    "improved, K = 45": functools.partial(improved, num_samples=45),
}
