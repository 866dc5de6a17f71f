"""The comparison of a found network with its baselines."""

from typing import NoReturn

import numpy as np
import pytest
from torch import nn

from utils.results.table import Row, compare, format_table
from utils.runs.found import FoundRun
from utils.training.loop import Diverged, TrainingSettings

RIGHT = np.arange(100)


def row(name: str, dev: float, right: int, baseline: bool = True) -> Row:
    """A row that classifies the first `right` of 100 test samples correctly."""
    return Row(name, dev, right / 100, baseline=baseline, correct=right > RIGHT)


def test_the_found_network_is_compared_with_the_baseline_that_is_best_on_dev():
    found = row("found network", 0.9, 92, baseline=False)
    others = [row("weak", 0.8, 95), row("level", 0.85, 80), row("strong", 0.85, 90), row("other", 0.99, 99, False)]
    said = compare(found, others, seed=0)
    assert said["mcnemar"]["against"] == "strong"  # of two that are level on dev, the better on test
    ahead = "The found network is ahead of the baseline that is best on dev (strong, 90.0 %) by 2.0 points"
    assert str(said["verdict"]).startswith(ahead)
    for other in others:
        assert other.lead is not None
        assert other.lead["mean"] == pytest.approx(found.test - other.test)
        assert other.lead["only_found_right"] - other.lead["only_baseline_right"] == round(100 * other.lead["mean"])
    printed = format_table([*others, found])
    assert "strong         0.8500  0.9000" in printed
    assert "found leads by (95 %)" in printed.splitlines()[0]


def test_a_baseline_without_a_finite_score_is_not_the_best():
    found = row("found network", 0.9, 92, baseline=False)
    others = [row("broken", float("nan"), 0), row("weak", 0.8, 95)]
    assert compare(found, others, seed=0)["mcnemar"]["against"] == "weak"
    assert "mcnemar" not in compare(found, others[:1], seed=0)


def test_a_baseline_that_diverges_is_left_out_with_a_warning(capsys):
    class Diverging(FoundRun):
        def __init__(self) -> None:
            self.rows, self.facts = [], {}

        def _train(self, *arguments: object) -> NoReturn:
            raise Diverged("loss", 3, 0.5)

    run = Diverging()
    run._add_trained(Row("late fusion, fine-tuned"), nn.Identity(), "late", TrainingSettings())
    assert run.rows == []
    assert list(run.facts["left_out"]) == ["late fusion, fine-tuned"]
    warning = "warning: without the baseline late fusion, fine-tuned: the loss is not finite in epoch 0, batch 3"
    assert warning in capsys.readouterr().err


def test_without_baselines_there_is_no_verdict():
    assert compare(row("found network", 0.9, 92, baseline=False), [], seed=0) == {}
