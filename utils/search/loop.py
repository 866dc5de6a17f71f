"""The search loop: sequential model-based (MFAS, algorithm 1) and random.

Both are generators that yield one `Step` after the other; the caller records them and may stop at any time. What a
configuration is worth is told by the evaluator that they are given, so they run on networks and on toy functions alike.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import scipy
from torch import Tensor

from utils.errors import ProjectError
from utils.search.space import Configuration, Space, random_configuration, sample, temperature, unfold
from utils.seeds import derive_seed


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One trained candidate: dev accuracy after each epoch, and its share of the wall time."""

    accuracies: list[float]
    seconds: float
    failed: str | None = None  # why it has no accuracy
    correct: Tensor | None = None  # by dev sample (N,), in the best epoch; not known of one that was read back

    @property
    def accuracy(self) -> float:
        """Of the best epoch; NaN of a candidate that failed."""
        return math.nan if self.failed else max(self.accuracies)


# Given configurations, the step's index, and what the surrogate predicts of them.
Evaluator = Callable[[Sequence[Configuration], int, Sequence[float] | None], list[Evaluation]]


class SearchError(ProjectError):
    """A search that cannot go on."""


class Predictor(Protocol):
    """What the search asks of a surrogate; see `utils.search.surrogate.AccuracyPredictor`."""

    def predict(self, configurations: Sequence[Configuration]) -> np.ndarray: ...

    def update(self, configurations: Sequence[Configuration], accuracies: Sequence[float]) -> float: ...


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Published names and defaults."""

    max_fusions: int = 4
    search_iterations: int = 3
    num_samples: int = 15
    initial_temperature: float = 10.0
    final_temperature: float = 0.2
    temperature_decay: float = 4.0
    lr_surrogate: float = 1e-3
    epochs_surrogate: int = 50
    seed: int = 0

    def steps(self) -> list[tuple[int, int]]:
        """(search iteration, progression level) of every step."""
        return [(i, level) for i in range(self.search_iterations) for level in range(self.max_fusions)]

    def trainings(self, space: Space) -> int:
        """How many candidates a whole search trains: all rows in the first step, then `num_samples` a step."""
        rows, depth = len(space.rows()), self.max_fusions
        # Step n samples layers up to n, so in a small space there may be fewer than num_samples.
        later = (min(self.num_samples, rows ** min(n + 1, depth)) for n in range(1, len(self.steps())))
        return rows + sum(later)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A configuration that was trained."""

    configuration: Configuration
    evaluation: Evaluation
    predicted: float | None  # by the surrogate, before it was trained


@dataclasses.dataclass(frozen=True)
class Step:
    """One unfold - predict - sample - train - fit step; a random search has neither levels nor a surrogate."""

    index: int
    candidates: list[Candidate]
    seconds: float
    search_iteration: int | None = None
    level: int | None = None
    temperature: float | None = None  # at which this step's configurations were sampled
    surrogate_loss: float | None = None
    rank_correlation: float | None = None  # Spearman, predicted against trained accuracy
    surrogate_seconds: float = 0.0


def sequential_search(
    space: Space, evaluate: Evaluator, predictor: Predictor, settings: SearchSettings
) -> Iterator[Step]:
    """The published search. The first step trains every one-layer configuration, all others a sample."""
    rng = np.random.default_rng(derive_seed(settings.seed, "sampling"))
    rows, sampled = space.rows(), []
    current = settings.initial_temperature
    for index, (iteration, level) in enumerate(settings.steps()):
        started = time.perf_counter()
        unfolded = unfold(sampled, rows, level)
        if index == 0:
            chosen, predicted, thinking = unfolded, None, 0.0
        else:
            guesses = predictor.predict(unfolded)
            places = sample(unfolded, guesses, settings.num_samples, current, rng)
            chosen, predicted = [unfolded[i] for i in places], [float(guesses[i]) for i in places]
            thinking = time.perf_counter() - started
        evaluations = evaluate(chosen, index, predicted)
        trained, accuracies = _without_failed(chosen, evaluations, index)
        fitting = time.perf_counter()
        loss = predictor.update(trained, accuracies)
        thinking += time.perf_counter() - fitting
        if index == 0:  # nothing to predict yet: the sample is drawn from what was trained
            sampled = [trained[i] for i in sample(trained, accuracies, settings.num_samples, current, rng)]
        else:
            sampled = trained
        yield Step(
            index=index,
            search_iteration=iteration,
            level=level,
            candidates=_candidates(chosen, evaluations, predicted),
            temperature=current,
            surrogate_loss=loss,
            rank_correlation=rank_correlation(predicted, [e.accuracy for e in evaluations]),
            seconds=time.perf_counter() - started,
            surrogate_seconds=thinking,
        )
        current = temperature(
            iteration * settings.search_iterations + level,
            settings.initial_temperature,
            settings.final_temperature,
            settings.temperature_decay,
        )


def random_search(space: Space, evaluate: Evaluator, settings: SearchSettings) -> Iterator[Step]:
    """As many trainings as the sequential search, of configurations drawn at random without repetition."""
    rng = np.random.default_rng(derive_seed(settings.seed, "sampling"))
    remaining, seen, index = settings.trainings(space), set(), 0
    existing = sum(len(space.rows()) ** (n + 1) for n in range(settings.max_fusions))
    while remaining and len(seen) < existing:
        started = time.perf_counter()
        chosen: list[Configuration] = []
        while len(chosen) < min(settings.num_samples, remaining) and len(seen) < existing:
            configuration = random_configuration(space, settings.max_fusions, rng)
            if configuration not in seen:
                seen.add(configuration)
                chosen.append(configuration)
        evaluations = evaluate(chosen, index, None)
        _without_failed(chosen, evaluations, index)
        yield Step(index, _candidates(chosen, evaluations, None), time.perf_counter() - started)
        remaining, index = remaining - len(chosen), index + 1


def _without_failed(
    configurations: Sequence[Configuration], evaluations: Sequence[Evaluation], step: int
) -> tuple[list[Configuration], list[float]]:
    """The candidates that did not fail, and their accuracies.

    Raises:
        SearchError: all failed.
    """
    pairs = [(c, e.accuracy) for c, e in zip(configurations, evaluations, strict=True) if not e.failed]
    if not pairs:
        raise SearchError(
            f"all {len(evaluations)} candidates of step {step} failed, the first because {evaluations[0].failed}; "
            "a smaller --eta_max may help"
        )
    trained, accuracies = zip(*pairs, strict=True)
    return list(trained), list(accuracies)


def _candidates(
    configurations: Sequence[Configuration], evaluations: Sequence[Evaluation], predicted: Sequence[float] | None
) -> list[Candidate]:
    guesses = predicted or [None] * len(configurations)
    return [Candidate(*parts) for parts in zip(configurations, evaluations, guesses, strict=True)]


def rank_correlation(predicted: Sequence[float] | None, accuracies: Sequence[float]) -> float | None:
    """Spearman's, over the accuracies that are finite; None where there is nothing to rank."""
    pairs = [(p, a) for p, a in zip(predicted or (), accuracies, strict=predicted is not None) if math.isfinite(a)]
    if any(len(set(values)) < 2 for values in zip(*pairs, strict=True)) or not pairs:
        return None
    return float(scipy.stats.spearmanr(*zip(*pairs, strict=True)).statistic)  # scipy imports its parts when used
