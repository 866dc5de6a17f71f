"""Baselines: unimodal networks, late fusion, and the lead of the best candidate over them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.fusion import AudioImageNetwork, FeatureLayout, FeatureNetwork, HeadSettings
from utils.candidates.evaluators import CachedEvaluator
from utils.candidates.feature_bank import bank_of_features
from utils.results.baselines import baseline_scores, difference, ensemble_scores, search_baselines
from utils.training.batches import ArraySplit
from utils.training.evaluation import unimodal_outputs
from utils.training.loop import TrainingSettings
from utils.training.metrics import accuracy, scores

NAMES = ("text", "sound", "image")


def baselines_of(evaluator: CachedEvaluator, best: Path) -> list[dict]:
    return search_baselines(NAMES, evaluator.dev_logits(), evaluator.splits["dev"].labels, best, seed=0)


def three_logits(count: int = 40, classes: int = 4) -> list[Tensor]:
    torch.manual_seed(0)
    return [3 * torch.randn(count, classes) for _ in NAMES]


def test_late_fusions_add_probabilities_and_their_logarithms():
    logits = three_logits()
    found = baseline_scores(NAMES, logits)
    assert list(found) == [
        "text only",
        "sound only",
        "image only",
        "late fusion, mean of softmax",
        "late fusion, sum of log-softmax",
    ]
    for name, one in zip(NAMES, logits, strict=True):
        assert found[f"{name} only"] is one
    probabilities = torch.stack([F.softmax(one, dim=1) for one in logits])
    mean, product = probabilities.mean(dim=0), probabilities.prod(dim=0)
    assert torch.equal(found["late fusion, mean of softmax"].argmax(1), mean.argmax(1))
    assert torch.equal(found["late fusion, sum of log-softmax"].argmax(1), product.argmax(1))
    assert not torch.equal(mean.argmax(1), product.argmax(1))


def test_multi_label_late_fusion_predicts_mean_probabilities_above_one_half():
    logits = three_logits()
    found = baseline_scores(NAMES, logits, multi_label=True)
    assert set(found) == {"text only", "sound only", "image only", "late fusion, mean of sigmoid"}
    mean = torch.stack(logits).sigmoid().mean(dim=0)
    assert torch.equal(found["late fusion, mean of sigmoid"] > 0, mean > 0.5)
    assert found["sound only"] is logits[1]


def test_logits_of_unimodal_networks_come_first_modality_first_in_eval_mode():
    torch.manual_seed(0)
    network = AudioImageNetwork(((0, 0, 0),), HeadSettings(10))
    network.rgbnet.eval()
    modes = [module.training for module in network.modules()]
    image, audio = torch.randn(70, 1, 28, 28), torch.rand(70, 1, 112, 112)  # of more than one batch
    last, found = unimodal_outputs(network, ArraySplit((image, audio), torch.zeros(70, dtype=torch.int64)))
    assert [module.training for module in network.modules()] == modes
    network.eval()
    with torch.no_grad():
        features, expected = network.unimodal(image, audio)
    for ours, theirs in zip([*last, *found], [features[0][-1], features[1][-1], *expected], strict=True):
        torch.testing.assert_close(ours, theirs)
        assert not ours.requires_grad


def test_logits_of_features_come_from_the_table_if_it_has_them():
    torch.manual_seed(0)
    for has_logits in (True, False):
        layout = FeatureLayout(((2,), (3, 1)), 4, has_logits)
        rows = torch.randn(9, layout.total)
        network = FeatureNetwork(((0, 1, 0),), layout, HeadSettings(4))
        last, found = unimodal_outputs(network, ArraySplit((rows,), torch.zeros(9, dtype=torch.int64)))
        assert torch.equal(torch.cat(last, dim=1), rows[:, [0, 1, 5]])
        assert len(found) == (2 if has_logits else 0)
        if has_logits:
            assert torch.equal(torch.cat(found, dim=1), rows[:, 6:])


# On dev, beside the best candidate of a search


def evaluator(labels: Tensor, logits: list[Tensor], has_logits: bool = True) -> CachedEvaluator:
    """An evaluator on a bank with these dev samples."""
    layout = FeatureLayout(((2,),) * len(logits), logits[0].shape[1], has_logits)
    rows = torch.cat([torch.zeros(len(labels), 2 * len(logits)), *(logits if has_logits else ())], dim=1)
    split = ArraySplit((rows,), labels)
    head = HeadSettings(layout.num_outputs, multi_label=labels.ndim == 2)
    bank = bank_of_features(layout, {"train": split, "dev": split})
    return CachedEvaluator(bank, head, TrainingSettings(), torch.device("cpu"))


@pytest.fixture
def best(tmp_path) -> Path:
    return tmp_path / "best_dev.npy"


def test_the_difference_is_positive_if_the_best_candidate_is_better(best):
    labels, wrong = torch.arange(200) % 4, (torch.arange(200) + 1) % 4
    sometimes = torch.where(torch.arange(200) % 5 == 0, wrong, labels)  # right in 160
    logits = [10.0 * F.one_hot(chosen, 4) for chosen in (wrong, labels, sometimes)]
    right = np.arange(200) % 10 > 0  # 180 samples, and not all of those that `sometimes` has right
    right[1] = False
    np.save(best, right.astype(np.float32))
    found = {row["name"]: row for row in baselines_of(evaluator(labels, logits), best)}
    assert {name: row["dev"] for name, row in found.items() if "only" in name} == pytest.approx(
        {"text only": 0, "sound only": 1, "image only": 0.8}
    )
    means = {name: row["difference"]["mean"] for name, row in found.items()}
    assert means["text only"] == pytest.approx(0.895)
    assert means["sound only"] == pytest.approx(-0.105)
    assert means["image only"] == pytest.approx(0.095)
    for row in found.values():
        assert row["difference"]["low"] < row["difference"]["mean"] < row["difference"]["high"]
    assert found["sound only"]["difference"]["high"] < 0 < found["image only"]["difference"]["low"]
    assert found["image only"]["difference"]["confidence"] == 0.95


def test_multi_label_baselines_have_weighted_f1_and_no_differences(best):
    torch.manual_seed(0)
    labels, logits = torch.randint(2, (50, 4)).float(), three_logits(50)
    np.save(best, np.ones(50, dtype=np.float32))
    found = baselines_of(evaluator(labels, logits), best)
    for row, one in zip(found, baseline_scores(NAMES, logits, multi_label=True).values(), strict=True):
        assert row["dev"] == float(accuracy(one, labels))
        assert row["difference"] is None


def test_multi_label_baselines_predict_at_the_threshold():
    logits = three_logits(50)
    found = baseline_scores(NAMES, logits, multi_label=True, threshold=0.3)
    for name, one in zip(NAMES, logits, strict=True):
        assert (found[f"{name} only"] > 0).equal(one.sigmoid() > 0.3)
    mean = torch.stack([one.sigmoid() for one in logits]).mean(0)
    assert (found["late fusion, mean of sigmoid"] > 0).equal(mean > 0.3)
    members = [{"test": scores(one, 0.3)} for one in logits]
    ensemble = ensemble_scores(members, multi_label=True, threshold=0.3)["test"]
    torch.testing.assert_close(ensemble, mean - 0.3)


def test_no_logits_give_no_baselines_and_no_best_candidate_gives_no_differences(best):
    labels, logits = torch.arange(40) % 4, three_logits()
    assert baselines_of(evaluator(labels, logits, has_logits=False), best) == []
    found = baselines_of(evaluator(labels, logits), best)
    assert [row["difference"] for row in found] == [None] * 5


def test_a_difference_is_best_minus_other(best):
    np.save(best, np.array([1, 1, 1, 0, 1], dtype=np.float32))
    other, labels = torch.tensor([0.0, 0, 1, 1, 0]), torch.zeros(5)
    found = difference(best, other, labels, seed=3)
    assert found["mean"] == pytest.approx(0.4)
    assert found == difference(best, other, labels, seed=3)
