"""The search loop on toy objectives: a function of the configuration instead of trained networks."""

import itertools
import math

import numpy as np
import pytest

from utils.search import loop as search
from utils.search.loop import (
    Evaluation,
    SearchSettings,
    Step,
    random_search,
    rank_correlation,
    sequential_search,
)
from utils.search.space import Space
from utils.search.surrogate import AccuracyPredictor

AVMNIST = Space((5, 3))


def hashed(configuration) -> float:
    """An accuracy that is arbitrary, but always the same for one configuration."""
    return (hash(configuration) % 997 + 1) / 1000


class Toy:
    """An evaluator that remembers what it was asked to train."""

    def __init__(self, objective=hashed):
        self.objective, self.calls = objective, []

    def __call__(self, configurations, step, predicted):
        self.calls.append((step, list(configurations)))
        return [Evaluation([0.0, self.objective(c)], 0.5) for c in configurations]


class KnowsAll:
    """A predictor that is right to within a seeded error, and remembers what it was told."""

    def __init__(self):
        self.rng, self.updates = np.random.default_rng(0), []

    def predict(self, configurations):
        return np.array([hashed(c) for c in configurations]) + self.rng.uniform(0, 1e-3, len(configurations))

    def update(self, configurations, accuracies):
        self.updates.append((list(configurations), list(accuracies)))
        return 0.25


def sequential(space=AVMNIST, settings=None, toy=None, predictor=None) -> list[Step]:
    return list(sequential_search(space, toy or Toy(), predictor or KnowsAll(), settings or SearchSettings()))


def trained(steps) -> list:
    return [candidate.configuration for step in steps for candidate in step.candidates]


# The sequential search


def test_steps_in_order_and_their_counts():
    toy, predictor = Toy(), KnowsAll()
    steps = sequential(toy=toy, predictor=predictor)
    assert [s.index for s in steps] == list(range(12)) == [step for step, _ in toy.calls]
    assert [(s.search_iteration, s.level) for s in steps] == list(itertools.product(range(3), range(4)))
    assert [len(s.candidates) for s in steps] == [30] + [15] * 11
    assert SearchSettings().trainings(AVMNIST) == len(trained(steps)) == 195
    assert [{len(c.configuration) for c in s.candidates} for s in steps] == [{1}, {2}, {3}] + [{4}] * 9
    for step, (_, asked), (told, accuracies) in zip(steps, toy.calls, predictor.updates, strict=True):
        assert asked == told == [c.configuration for c in step.candidates]
        assert len(set(asked)) == len(asked)
        assert accuracies == [c.evaluation.accuracy for c in step.candidates] == [hashed(c) for c in asked]


def test_every_step_unfolds_what_the_step_before_sampled():
    steps = sequential()
    assert trained(steps[:1]) == [(row,) for row in AVMNIST.rows()]
    for before, step in itertools.pairwise(steps):
        starts = {c.configuration for c in before.candidates}
        around = {(s[: step.level], s[step.level + 1 :]) for s in starts}
        assert {(c[: step.level], c[step.level + 1 :]) for c in trained([step])} <= around


def test_what_a_step_records():
    first, *others = sequential()
    assert first.rank_correlation is None
    assert {c.predicted for c in first.candidates} == {None}
    for step in others:
        assert all(abs(c.predicted - hashed(c.configuration)) < 2e-3 for c in step.candidates)
        assert step.rank_correlation > 0.9
    for step in (first, *others):
        assert step.surrogate_loss == 0.25
        assert 0 <= step.surrogate_seconds <= step.seconds


def test_temperatures_follow_the_published_sequence(monkeypatch):
    """Iteration index = search iteration x search_iterations + level; each step samples at what the last one left."""
    used = []
    original = search.sample
    monkeypatch.setattr(search, "sample", lambda *args: used.append(args[3]) or original(*args))
    steps = sequential()
    indices = [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8]
    expected = [10.0] + [0.2 + 9.8 * math.exp(-((i + 1) ** 2) / 16) for i in indices]
    assert [s.temperature for s in steps] == pytest.approx(expected)
    assert used == [s.temperature for s in steps]


def test_the_search_can_be_stopped_at_any_step():
    toy = Toy()
    running = sequential_search(AVMNIST, toy, KnowsAll(), SearchSettings())
    assert [next(running).index for _ in range(3)] == [0, 1, 2]
    running.close()
    assert len(toy.calls) == 3


def test_three_modalities():
    space = Space((2, 3, 2))
    steps = sequential(space, SearchSettings(num_samples=5), predictor=AccuracyPredictor(4, seed=0, epochs=2))
    assert len(trained(steps)) == 24 + 11 * 5
    for configuration in trained(steps):
        space.check(configuration, legal_activations=2)
        assert len(configuration[0]) == 4


@pytest.mark.parametrize("at_random", [False, True])
def test_the_seed_fixes_the_steps(at_random):
    def configurations(seed):
        settings = SearchSettings(2, 2, 5, seed=seed)
        if at_random:
            return trained(random_search(AVMNIST, Toy(), settings))
        return trained(sequential(settings=settings, predictor=AccuracyPredictor(3, seed, epochs=2)))

    assert configurations(1) == configurations(1) != configurations(2)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (2, 2), (5, 3)], ids=str)
@pytest.mark.parametrize("options", [(4, 3, 15), (1, 3, 15), (2, 2, 100), (3, 1, 1)], ids=str)
def test_the_number_of_trainings_is_known_beforehand(sizes, options):
    space, settings = Space(sizes), SearchSettings(*options)
    assert settings.trainings(space) == len(trained(sequential(space, settings)))


# Random search


def test_random_search_trains_as_many_and_none_twice():
    steps = list(random_search(AVMNIST, Toy(), SearchSettings()))
    configurations = trained(steps)
    assert len(configurations) == len(set(configurations)) == 195
    assert [s.index for s in steps] == list(range(13))
    assert {len(s.candidates) for s in steps} == {15}
    assert {len(c) for c in configurations} == {1, 2, 3, 4}
    assert all(s.level is s.temperature is s.surrogate_loss is s.rank_correlation is None for s in steps)


def test_random_search_ends_when_a_small_space_is_used_up():
    space = Space((1, 2), activations=(0,))
    configurations = trained(random_search(space, Toy(), SearchSettings(max_fusions=2, search_iterations=9)))
    rows = space.rows()
    assert sorted(configurations) == sorted([(r,) for r in rows] + list(itertools.product(rows, rows)))


# Sequential against random


def near_the_target(configuration) -> float:
    """0.9 where both rows are the target's, less with every index that is off; one layer reaches 0.9 / 8 at most."""
    target = ((3, 1, 0), (4, 2, 1))
    pairs = zip(configuration, target, strict=False)
    points = sum(2 - abs(r[0] - t[0]) / 4 - abs(r[1] - t[1]) / 2 + 0.5 * (r[2] == t[2]) for r, t in pairs)
    return 0.9 * (points / 5) ** 3


@pytest.mark.slow
@pytest.mark.trained
def test_sequential_search_finds_the_optimum_more_often_than_random_search():
    """Seeds 0 to 11, 930 configurations, 195 trainings each: 10 of 12 runs find the best of all, random search 2.

    The surrogate is fitted 15 epochs at rate 3e-3 to keep the test short. Over 32 seeds 27 runs found it, random search
    5: of 12 runs 10.1 are expected to, with a standard deviation of 1.3. Random search depends on no training.
    """
    rows = AVMNIST.rows()
    everything = [*((row,) for row in rows), *itertools.product(rows, rows)]
    best = max(map(near_the_target, everything))
    found = {"sequential": 0, "random": 0}
    for seed in range(12):
        settings = SearchSettings(max_fusions=2, search_iterations=6, seed=seed)
        predictor = AccuracyPredictor(3, seed, lr=3e-3, epochs=15)
        runs = {
            "sequential": sequential_search(AVMNIST, Toy(near_the_target), predictor, settings),
            "random": random_search(AVMNIST, Toy(near_the_target), settings),
        }
        for name, run in runs.items():
            steps = list(run)
            assert len(trained(steps)) == 195
            found[name] += max(c.evaluation.accuracy for step in steps for c in step.candidates) == best
    assert found["sequential"] >= found["random"] + 4


# Results


@pytest.mark.parametrize(
    ("predicted", "accuracies", "expected"),
    [
        ([0.1, 0.2, 0.3], [0.5, 0.6, 0.9], 1.0),
        ([0.1, 0.2, 0.3], [0.9, 0.6, 0.5], -1.0),
        (None, [0.1, 0.2], None),
        ([0.1, 0.1], [0.1, 0.2], None),
        ([0.1, 0.2], [0.1, 0.1], None),
        ([0.1], [0.1], None),
    ],
)
def test_rank_correlation(predicted, accuracies, expected):
    assert rank_correlation(predicted, accuracies) == (expected and pytest.approx(expected))
