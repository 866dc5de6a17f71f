"""Paired comparisons agree with independent computations."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.results.statistics import mcnemar, paired, paired_bootstrap, signed, verdict

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(pairs, st.integers(0, 9))
def test_the_interval_is_antisymmetric_and_within_its_bounds(rows, seed):
    a, b = np.array(rows).T
    result, swapped = paired_bootstrap(a, b, seed), paired_bootstrap(b, a, seed)
    assert result.mean == pytest.approx(a.mean() - b.mean()) == pytest.approx(-swapped.mean)
    assert -1 <= result.low <= result.high <= 1
    assert result == paired_bootstrap(a, b, seed)


@given(st.lists(st.booleans(), min_size=1))
def test_equal_networks_do_not_differ(right):
    assert paired_bootstrap(right, right, seed=0) == (0, 0, 0)
    assert mcnemar(right, right) == (0, 0, 1)


def test_the_interval_agrees_with_drawing_samples_one_by_one():
    rng = np.random.default_rng(1)
    a, b = rng.random(400) < 0.9, rng.random(400) < 0.8
    difference = a.astype(float) - b
    means = [difference[rng.integers(400, size=400)].mean() for _ in range(4000)]
    result = paired_bootstrap(a, b, seed=2)
    assert result[1:] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)


@given(pairs)
def test_mcnemar_is_the_sign_test_on_the_samples_that_differ(rows):
    a, b = np.array(rows).T
    result = mcnemar(a, b)
    assert result.only_a_right - result.only_b_right == a.sum() - b.sum()
    n, k = result.only_a_right + result.only_b_right, min(result[:2])
    assert result.p == pytest.approx(min(1, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n))
    assert mcnemar(b, a) == (*result[1::-1], result.p)


@pytest.mark.parametrize("rows", [([], []), ([1], [1, 0]), ([[1]], [[1]])])
def test_unequal_shapes_are_refused(rows):
    for test in (lambda a, b: paired_bootstrap(a, b, seed=0), mcnemar):
        with pytest.raises(ValueError, match="shapes"):
            test(*rows)


@pytest.mark.parametrize(
    ("found", "other", "said"),
    [
        (
            [1] * 60 + [0] * 40,
            [0] * 20 + [1] * 40 + [0] * 40,
            "ahead of the baseline that is best on dev (late, 40.0 %) by 20.0 points",
        ),
        (
            [1] * 50 + [0] * 50,
            [1] * 51 + [0] * 49,
            "behind the baseline that is best on dev (late, 51.0 %) by 1.0 points",
        ),
        ([1, 0] * 50, [0, 1] * 50, "level with the baseline that is best on dev (late, 50.0 %) ("),
    ],
)
def test_the_verdict_says_who_is_ahead_and_whether_that_is_clear(found, other, said):
    lead = paired(found, other, seed=0)
    sentence = verdict("late", np.mean(other), np.mean(found), lead)
    assert sentence.startswith(f"The found network is {said}")
    assert f"(95 % interval {signed(100 * lead['low'])} to {signed(100 * lead['high'])})" in sentence
    clear = {1: "a clear gain", -1: "a clear loss", 0: "no clear difference"}
    assert sentence.endswith(f": {clear[(lead['low'] > 0) - (lead['high'] < 0)]}.")
    assert (
        verdict("late", 0.4, 0.6, None)
        == "The found network is ahead of the baseline that is best on dev (late, 40.0 %) by 20.0 points."
    )


def test_small_differences_have_no_negative_zero():
    assert [signed(x) for x in (-0.04, 0.04, -0.06, 12.34)] == ["+0.0", "+0.0", "-0.1", "+12.3"]
