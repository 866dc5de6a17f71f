"""The improved search, guided by a Gaussian process (docs/benchmark.md compares it with the published one).

The published surrogate reads the indices of features as if they were ordered numbers, and its first temperatures make
most of the search nearly uniform sampling. Here a Gaussian process compares configurations by what they have in common,
and every step trains those that it expects to be best.

Notation: n configurations trained so far with accuracies y, a pool of m to choose from.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np
from scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

from utils.search.loop import Candidate, Evaluator, SearchSettings, Step, rank_correlation, without_failed
from utils.search.space import Configuration, Row, Space, random_configuration
from utils.seeds import derive_seed

EDITED, EDITS = 5, 400  # best configurations whose neighbors are in the pool, and most neighbors of each
AT_RANDOM = 100  # random configurations in the pool
SCALES, NOISES = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0), (0.01, 0.03, 0.1, 0.3)  # of the Gaussian process
FITTED = 300  # most configurations by which scale and noise are chosen


def neighbors(space: Space, max_fusions: int, configuration: Configuration) -> list[Configuration]:
    """Return all configurations that differ in one edit: an entry of a row changed, a row inserted, or one dropped."""
    rows, layers = space.rows(), len(configuration)
    known = set(rows)
    found = dict[Configuration, None]()

    def add(start: int, end: int, new: Sequence[Row]) -> None:
        found[(*configuration[:start], *new, *configuration[end:])] = None

    choices = [sorted({row[column] for row in rows}) for column in range(len(rows[0]))]
    for layer, own in enumerate(configuration):
        for column, values in enumerate(choices):
            for value in values:
                row = (*own[:column], value, *own[column + 1 :])
                if row in known:
                    add(layer, layer + 1, [row])
        if layers > 1:
            add(layer, layer + 1, [])
    if layers < max_fusions:
        for layer in range(layers + 1):
            for row in rows:
                add(layer, layer, [row])
    found.pop(configuration, None)
    return list(found)


class GaussianProcess:
    """Accuracies of configurations as a Gaussian process whose kernel compares their encodings."""

    def __init__(self, space: Space, max_fusions: int) -> None:
        self.space, self.depth = space, max_fusions

    def encode(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Encode entries of rows as indicators, (n, D): by layer counted from the last one, and in any layer."""
        sizes = [*self.space.sizes, max(self.space.activations) + 1]
        starts = np.cumsum([0, *(size + 1 for size in sizes)])  # one more for a modality that is skipped
        encoded = np.zeros((len(configurations), self.depth + 1, starts[-1]))
        for own, configuration in zip(encoded, configurations, strict=True):
            for layer, row in enumerate(reversed(configuration)):
                places = starts[:-1] + np.array(row) % np.array([size + 1 for size in sizes])
                own[layer, places] = 1
                own[-1, places] = 1
        return encoded.reshape(len(configurations), -1)

    def fit(self, configurations: Sequence[Configuration], accuracies: Sequence[float]) -> None:
        """Condition on trained configurations; length scale and noise are those of the largest marginal likelihood."""
        self.x, y = self.encode(configurations), np.asarray(accuracies)
        self.mean, self.deviation = y.mean(), max(y.std(), 1e-6)
        y = (y - self.mean) / self.deviation
        distances, some = squared_distances(self.x, self.x), slice(None, None, -(-len(y) // FITTED))

        def likelihood(pair: tuple[float, float]) -> float:
            lower, weights = _condition(distances[some, some], y[some], *pair)
            return -0.5 * weights @ weights - np.log(np.diag(lower)).sum()

        self.scale, noise = max(itertools.product(SCALES, NOISES), key=likelihood)
        self.lower, weights = _condition(distances, y, self.scale, noise)
        self.weights = solve_triangular(self.lower, weights, lower=True, trans="T")

    def kernel(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Covariances (m, n) with the configurations of `fit`."""
        return np.exp(-squared_distances(self.encode(configurations), self.x) / self.scale)

    def predict(self, configurations: Sequence[Configuration]) -> np.ndarray:
        """Expected accuracies (m,)."""
        return self.mean + self.deviation * (self.kernel(configurations) @ self.weights)

    def best(self, pool: Sequence[Configuration], count: int) -> tuple[list[int], list[float]]:
        """Return the indices of the `count` configurations that are expected to be best, and their expectations."""
        expected = self.predict(pool)
        places = np.argsort(-expected, kind="stable")[:count]
        return places.tolist(), expected[places].tolist()


def _condition(distances: np.ndarray, y: np.ndarray, scale: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower Cholesky factor of the kernel with noise, and the solution of it times x = y."""
    lower = np.linalg.cholesky(np.exp(-distances / scale) + noise * np.eye(len(y)))
    return lower, solve_triangular(lower, y, lower=True)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (m, n) between the rows of (m, D) and (n, D)."""
    return (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T


def improved_search(
    space: Space, evaluate: Evaluator, process: GaussianProcess, settings: SearchSettings
) -> Iterator[Step]:
    """Train as many configurations as the published search, each of them once."""
    rng = np.random.default_rng(derive_seed(settings.seed, "sampling"))
    known, seen = dict[Configuration, float](), set[Configuration]()  # accuracies; failed ones are seen, too
    remaining = min(settings.trainings(space), space.configurations(settings.max_fusions))
    index = 0
    while remaining:
        started = time.perf_counter()
        count, predicted = min(settings.num_samples, remaining), None

        # Choose: at random first, then what the process expects to be best
        pool = _pool(space, settings.max_fusions, known, seen, count, rng)
        chosen = pool[:count]
        if known:
            with threadpool_limits(1, "blas"):  # the same digits with any number of threads
                process.fit(list(known), list(known.values()))
                places, predicted = process.best(pool, count)
            chosen = [pool[i] for i in places]
        before_training = time.perf_counter()

        # Train
        evaluations = evaluate(chosen, index, predicted)
        seen.update(chosen)
        known.update({c: e.accuracy for c, e in zip(chosen, evaluations, strict=True) if not e.failed})
        if not known:
            without_failed(chosen, evaluations, index)  # raises
        yield Step(
            index=index,
            candidates=list(map(Candidate, chosen, evaluations, predicted or itertools.repeat(None))),
            rank_correlation=rank_correlation(predicted, [e.accuracy for e in evaluations]),
            seconds=time.perf_counter() - started,
            surrogate_seconds=before_training - started,
        )
        remaining, index = remaining - count, index + 1


def _pool(
    space: Space,
    max_fusions: int,
    known: Mapping[Configuration, float],
    seen: Set[Configuration],
    count: int,
    rng: np.random.Generator,
) -> list[Configuration]:
    """Return untrained configurations, at least `count`: neighbors of the best, and random ones."""
    pool = dict[Configuration, None]()
    for configuration in sorted(known, key=lambda c: -known[c])[:EDITED]:
        around = neighbors(space, max_fusions, configuration)
        kept = range(len(around)) if len(around) <= EDITS else rng.choice(len(around), EDITS, replace=False)
        pool |= dict.fromkeys(around[i] for i in kept if around[i] not in seen)
    drawn = 0
    while drawn < AT_RANDOM or len(pool) < count:
        configuration, drawn = random_configuration(space, max_fusions, rng), drawn + 1
        if configuration not in seen:
            pool[configuration] = None
    return list(pool)
