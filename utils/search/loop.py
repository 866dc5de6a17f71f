"""The search loop: sequential model-based (MFAS, algorithm 1) and random.

Both are generators that yield one `Step` at a time; the caller records it and may stop at any time. The evaluator maps
configurations to accuracies, so the same loop searches networks, a table, or a toy function.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch import Tensor

from utils.errors import ProjectError
from utils.search.space import Configuration, Space, random_configuration, sample, temperature, unfold
from utils.search.surrogate import AccuracyPredictor
from utils.seeds import derive_seed


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One trained candidate: dev accuracy after each epoch, and its share of the wall time."""

    accuracies: list[float]
    seconds: float
    failed: str | None = None  # reason, if it has no accuracy
    correct: Tensor | None = None  # of each dev sample (N,), in the best epoch; None if read from the journal

    @property
    def accuracy(self) -> float:
        """Accuracy of the best epoch; NaN if the candidate failed."""
        return math.nan if self.failed else max(self.accuracies)


# Maps configurations, the step's index, and the surrogate's predictions (None in the first step) to evaluations.
Evaluator = Callable[[Sequence[Configuration], int, Sequence[float] | None], list[Evaluation]]


class SearchError(ProjectError):
    """The search cannot continue."""


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Settings of a search (published names and defaults)."""

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
        """Number of candidates that a whole search trains: all rows in the first step, then `num_samples` per step."""
        rows, later = len(space.rows()), range(1, len(self.steps()))
        # Step n samples layers up to n, so in a small space there may be fewer than num_samples.
        return rows + sum(min(self.num_samples, rows ** min(n + 1, self.max_fusions)) for n in later)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A trained configuration."""

    configuration: Configuration
    evaluation: Evaluation
    predicted: float | None  # by the surrogate, before it was trained


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a search; only the published search has levels, and a random one has no predictions."""

    index: int
    candidates: list[Candidate]
    seconds: float
    search_iteration: int | None = None
    level: int | None = None
    temperature: float | None = None  # at which this step's configurations were sampled
    surrogate_loss: float | None = None
    rank_correlation: float | None = None  # Spearman, predicted against trained accuracy
    surrogate_seconds: float = 0.0

    def record(self) -> dict[str, object]:
        """The step's line in the journal; its candidates have lines of their own."""
        values = {name: value for name, value in vars(self).items() if name not in ("index", "candidates")}
        return {"step": self.index, "candidates": len(self.candidates), **values}


def sequential_search(
    space: Space, evaluate: Evaluator, surrogate: AccuracyPredictor, settings: SearchSettings
) -> Iterator[Step]:
    """Run the published search: train every one-layer configuration, then samples of ever deeper ones."""
    rng = np.random.default_rng(derive_seed(settings.seed, "sampling"))
    rows = space.rows()
    sampled: list[Configuration] = []
    current = settings.initial_temperature
    for index, (iteration, level) in enumerate(settings.steps()):
        started = time.perf_counter()

        # Unfold: replace or append each possible row at this level in every sampled configuration
        chosen, predicted = unfold(sampled, rows, level), None

        # Predict and sample: by the surrogate's accuracies, from the second step on
        if index > 0:
            guesses = surrogate.predict(chosen).tolist()
            places = sample(chosen, guesses, settings.num_samples, current, rng)
            chosen, predicted = [chosen[i] for i in places], [guesses[i] for i in places]
        before_training = time.perf_counter()

        # Train
        evaluations = evaluate(chosen, index, predicted)
        trained, accuracies = without_failed(chosen, evaluations, index)
        after_training = time.perf_counter()

        # Update the surrogate
        loss = surrogate.update(trained, accuracies)
        ended = time.perf_counter()

        # The next step unfolds the trained configurations, or a sample of them after the first step, which trained all
        sampled = trained
        if index == 0:
            sampled = [trained[i] for i in sample(trained, accuracies, settings.num_samples, current, rng)]
        yield Step(
            index=index,
            search_iteration=iteration,
            level=level,
            candidates=list(map(Candidate, chosen, evaluations, predicted or itertools.repeat(None))),
            temperature=current,
            surrogate_loss=loss,
            rank_correlation=rank_correlation(predicted, [e.accuracy for e in evaluations]),
            seconds=ended - started,
            surrogate_seconds=(ended - after_training) + (before_training - started if index > 0 else 0.0),
        )

        # Cool down
        cooled, final = iteration * settings.search_iterations + level, settings.final_temperature
        current = temperature(cooled, settings.initial_temperature, final, settings.temperature_decay)


def random_search(space: Space, evaluate: Evaluator, settings: SearchSettings) -> Iterator[Step]:
    """Train as many configurations as the sequential search, drawn at random without repetition."""
    rng = np.random.default_rng(derive_seed(settings.seed, "sampling"))
    remaining, index = min(settings.trainings(space), space.configurations(settings.max_fusions)), 0
    seen, worked = set[Configuration](), False
    while remaining:
        started = time.perf_counter()
        chosen: list[Configuration] = []
        while len(chosen) < min(settings.num_samples, remaining):
            configuration = random_configuration(space, settings.max_fusions, rng)
            if configuration not in seen:
                seen.add(configuration)
                chosen.append(configuration)
        evaluations = evaluate(chosen, index, None)
        worked = worked or bool(without_failed(chosen, evaluations, index))
        candidates = list(map(Candidate, chosen, evaluations, itertools.repeat(None)))
        yield Step(index, candidates, time.perf_counter() - started)
        remaining, index = remaining - len(chosen), index + 1


def without_failed(
    configurations: Sequence[Configuration], evaluations: Sequence[Evaluation], step: int
) -> tuple[list[Configuration], list[float]]:
    """Return the candidates that did not fail, and their accuracies; raise SearchError if all failed."""
    pairs = [(c, e.accuracy) for c, e in zip(configurations, evaluations, strict=True) if not e.failed]
    if not pairs:
        raise SearchError(
            f"all {len(evaluations)} candidates of step {step} failed, the first because {evaluations[0].failed}; "
            "a smaller --eta_max may help"
        )
    return [c for c, _ in pairs], [accuracy for _, accuracy in pairs]


def rank_correlation(predicted: Sequence[float] | None, accuracies: Sequence[float]) -> float | None:
    """Spearman's rank correlation over the finite accuracies; None if there is nothing to rank."""
    pairs = [(p, a) for p, a in zip(predicted or (), accuracies, strict=predicted is not None) if math.isfinite(a)]
    columns = list(zip(*pairs, strict=True))
    if not columns or min(len(set(values)) for values in columns) < 2:
        return None
    return float(np.corrcoef([_ranks(values) for values in columns])[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1 on; equal values share the mean of theirs. `scipy.stats` has it, but takes a second to import."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]
