"""The improved search: its neighborhood, its Gaussian process, and the loop on toy objectives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rows import SKIP
from tests.test_search import AVMNIST, Toy, trained
from utils.search.improved import GaussianProcess, improved_search, neighbors
from utils.search.loop import Evaluation, SearchError, SearchSettings, random_search
from utils.search.space import Space, random_configuration

SPACES = st.builds(
    Space, st.lists(st.integers(1, 3), min_size=2, max_size=3).map(tuple), st.just((0, 1)), st.booleans()
)


def improved(space=AVMNIST, toy=None, **settings) -> list:
    own = SearchSettings(**settings)
    return list(improved_search(space, toy or Toy(), GaussianProcess(space, own.max_fusions), own))


TARGET = ((1, 0, 1), (4, 2, 0), (0, 1, 0), (3, 1, 1))


def additive(configuration) -> float:
    """Share of the target's entries that a configuration has, compared from the last layer on."""
    pairs = zip(reversed(configuration), reversed(TARGET), strict=False)
    return (1 + sum(a == b for row, wanted in pairs for a, b in zip(row, wanted, strict=True))) / 13


@given(SPACES, st.integers(1, 3), st.integers(0, 99))
def test_neighborhoods_are_symmetric_and_stay_in_the_space(space, depth, seed):
    configuration = random_configuration(space, depth, np.random.default_rng(seed))
    around = neighbors(space, depth, configuration)
    assert len(set(around)) == len(around)
    assert configuration not in around
    rows = set(space.rows())
    for other in around[:: max(1, len(around) // 10)]:
        assert 1 <= len(other) <= depth
        assert set(other) <= rows
        if abs(len(other) - len(configuration)) == 1 or not space.allow_skip:
            assert configuration in neighbors(space, depth, other)


def test_one_edit_changes_one_entry_or_one_row():
    around = neighbors(Space((2, 2)), 2, ((0, 0, 0),))
    changed = [((1, 0, 0),), ((0, 1, 0),), ((0, 0, 1),)]
    assert {c for c in around if len(c) == 1} == set(changed)
    assert all((0, 0, 0) in c for c in around if len(c) == 2)
    assert neighbors(Space((2, 2)), 1, ((0, 0, 0),)) == [c for c in around if len(c) == 1]


def test_the_search_trains_as_many_as_the_published_one_each_once():
    toy, settings = Toy(), SearchSettings()
    steps = improved(toy=toy)
    configurations = trained(steps)
    assert len(configurations) == len(set(configurations)) == settings.trainings(AVMNIST) == 195
    assert [len(step.candidates) for step in steps] == [15] * 13
    assert max(map(len, configurations)) <= 4
    assert steps[0].candidates[0].predicted is None
    assert all(0 < c.predicted < 1.5 for step in steps[1:] for c in step.candidates)
    assert trained(improved()) == configurations
    assert trained(improved(seed=1)) != configurations


def test_a_small_space_is_searched_whole():
    space = Space((2, 1))
    configurations = trained(improved(space, max_fusions=2, num_samples=7, search_iterations=50))
    assert len(configurations) == len(set(configurations)) == 4 + 16


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_optimum_that_random_search_misses(seed):
    settings = SearchSettings(seed=seed, search_iterations=2)
    at_random = random_search(AVMNIST, Toy(additive), settings)
    own, other = (
        max(c.evaluation.accuracy for step in steps for c in step.candidates)
        for steps in (improved(toy=Toy(additive), seed=seed, search_iterations=2), at_random)
    )
    assert other < own == additive(TARGET) == 1


def test_failed_candidates_are_left_out_and_never_trained_again():
    def evaluate(configurations, step, predicted):
        return [Evaluation([], 0.5, "it diverged") if c[0][0] == 0 else Evaluation([0.5], 0.5) for c in configurations]

    configurations = trained(improved(toy=evaluate))
    assert len(set(configurations)) == 195
    with pytest.raises(SearchError, match="all 15 candidates of step 0 failed"):
        improved(toy=lambda configurations, *_: [Evaluation([], 0.5, "it diverged")] * len(configurations))


def test_the_process_interpolates():
    rng = np.random.default_rng(0)
    known = list({random_configuration(AVMNIST, 3, rng): None for _ in range(80)})
    process = GaussianProcess(AVMNIST, 3)
    process.fit(known[:60], [additive(c) for c in known[:60]])
    mean = process.predict(known)
    truth = np.array([additive(c) for c in known])
    assert np.corrcoef(mean[60:], truth[60:])[0, 1] > 0.9
    assert np.abs(mean[:60] - truth[:60]).mean() < np.abs(mean[60:] - truth[60:]).mean()
    places, expected = process.best(known, 5)
    assert expected == sorted(mean, reverse=True)[:5] == mean[places].tolist()


def test_equal_accuracies_are_no_problem():
    process = GaussianProcess(AVMNIST, 2)
    process.fit([((0, 0, 0),), ((1, 1, 1),)], [0.5, 0.5])
    assert process.predict([((2, 2, 0),)]) == pytest.approx([0.5])


def test_skipped_modalities_have_a_place_in_the_encoding():
    space = Space((2, 2), allow_skip=True)
    rows = space.rows()
    encoded = GaussianProcess(space, 1).encode([(row,) for row in rows])
    assert len({tuple(x) for x in encoded}) == len(rows)
    assert any(SKIP in row for row in rows)
