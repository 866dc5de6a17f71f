"""Logistic regression on the outputs of unimodal networks, as a baseline of the found network."""

import pytest
import torch
from torch import Tensor

from models.fusion import FeatureLayout, FeatureNetwork, HeadSettings
from utils.results.simple import regressions
from utils.results.table import Row
from utils.training.batches import ArraySplit


def split_of(count: int, seed: int, layout: FeatureLayout, multi_label: bool) -> ArraySplit:
    """Only the last feature of each modality, and the logits if there are any, tell the classes apart."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, layout.total, generator=draw)
    classes = torch.arange(count) % 3
    hot = torch.nn.functional.one_hot(classes, 3).float()
    rows[:, 2:5] += 4 * hot
    if layout.has_logits:
        rows[:, layout.features : layout.features + 3] += 4 * hot
    return ArraySplit((rows,), hot if multi_label else classes)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("has_logits", [False, True])
def test_regressions_learn_from_last_features_and_from_log_probabilities(has_logits, multi_label):
    layout = FeatureLayout(((2, 3), (4, 2)), 3, has_logits)
    network = FeatureNetwork(((0, 0, 0),), layout, HeadSettings(3, multi_label=multi_label))
    sizes = {"train": 120, "dev": 40, "test": 60}
    splits = {name: split_of(n, seed, layout, multi_label) for seed, (name, n) in enumerate(sizes.items())}
    found = list(regressions(network, splits, balanced=False))
    names = ["logistic regression, log-probabilities"] * has_logits + ["logistic regression, last features"]
    assert [name for name, *_ in found] == names
    for name, weights, scores, seconds in found:
        assert weights == 3 * ((6 if "log-prob" in name else 5) + 1)
        assert scores["test"].shape == (60, 3)
        assert seconds > 0
        row = Row(name).judge(scores, splits)
        assert min(row.dev or 0, row.test) > 0.8


def test_regressions_predict_several_labels_at_the_threshold():
    layout = FeatureLayout(((2, 3), (4, 2)), 3, has_logits=False)
    splits = {name: split_of(60, seed, layout, True) for seed, name in enumerate(("train", "test"))}

    def predicted(threshold: float) -> Tensor:
        settings = HeadSettings(3, multi_label=True, threshold=threshold)
        ((_, _, scores, _),) = regressions(FeatureNetwork(((0, 0, 0),), layout, settings), splits, balanced=False)
        torch.testing.assert_close(scores["test"] + threshold, (scores["test"] + threshold).clamp(0, 1))
        return scores["test"] > 0

    least, more = predicted(0.9), predicted(0.05)
    assert (least & ~more).sum() == 0
    assert least.sum() < predicted(0.5).sum() < more.sum()


def test_a_class_that_is_missing_in_training_is_never_predicted():
    layout = FeatureLayout(((2, 3), (4, 2)), 3, has_logits=False)
    network = FeatureNetwork(((0, 0, 0),), layout, HeadSettings(3))
    train, test = split_of(90, 0, layout, False), split_of(60, 1, layout, False)
    kept = train.labels != 1
    few = ArraySplit((train.inputs[0][kept],), train.labels[kept])
    ((_, _, scores, _),) = regressions(network, {"train": few, "dev": test, "test": test}, balanced=True)
    assert set(scores["test"].argmax(1).tolist()) == {0, 2}
