"""Candidates and trainings whose numbers are no longer finite: recorded, told, and kept from the others."""

import itertools
import json
import math

import numpy as np
import pytest
import torch

from models.fusion import FeatureLayout, HeadSettings
from utils.candidates.evaluators import CachedEvaluator
from utils.candidates.feature_bank import BankedSplit, FeatureBank
from utils.progress import Progress
from utils.report.contents import read_files
from utils.search.evaluate import JournaledEvaluator
from utils.search.journal import Journal, best_of, read_journal
from utils.search.loop import Evaluation, SearchError, SearchSettings, random_search, sequential_search
from utils.search.space import Space, sample
from utils.training.batches import ArraySplit
from utils.training.loop import Diverged, ModelTraining, TrainingSettings, train_and_evaluate

LAYOUT = FeatureLayout(widths=((3, 6), (4, 5)), num_outputs=4)
CONFIGURATIONS = [((1, 1, 0),), ((0, 0, 1), (1, 0, 0)), ((1, 0, 1), (0, 1, 0), (1, 1, 1)), ((1, 1, 0), (0, 0, 1))]
CPU = torch.device("cpu")


def random_split(count: int, seed: int) -> ArraySplit:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(LAYOUT.num_outputs, (count,), generator=generator)
    return ArraySplit((torch.randn(count, LAYOUT.total, generator=generator) + labels.view(-1, 1),), labels)


class Poisoned(CachedEvaluator):
    """One candidate starts from weights so large that its numbers overflow."""

    poisoned: int | None = None

    def _head(self, configuration, step, place):
        head = super()._head(configuration, step, place)
        if place == self.poisoned:
            torch.nn.init.constant_(head.fusion_layers[0][0].weight, 3e38)
            torch.nn.init.constant_(head.central_classifier.weight, 3e38)
        return head


@pytest.mark.parametrize("options", [{}, {"alphas": True}, {"batchnorm": True}, {"multitask": True}], ids=str)
@pytest.mark.parametrize("poisoned", [0, 2])
def test_a_candidate_that_overflows_leaves_the_others_as_they_would_be_without_it(tmp_path, options, poisoned):
    bank = FeatureBank(LAYOUT, BankedSplit.of([random_split(100, 0)]), random_split(60, 1), tmp_path, False)
    head = HeadSettings(num_outputs=LAYOUT.num_outputs, inner_size=8, dropout=0.5, **options)
    evaluate = Poisoned(bank, head, TrainingSettings(epochs=3, batchsize=16), CPU)
    healthy = [e.accuracies for e in evaluate(CONFIGURATIONS, 0)]
    evaluate.poisoned = poisoned
    for place, (evaluation, alone) in enumerate(zip(evaluate(CONFIGURATIONS, 0), healthy, strict=True)):
        if place == poisoned:
            assert "not finite in epoch" in evaluation.failed
            assert math.isnan(evaluation.accuracy)
            assert len(evaluation.accuracies) < 3
        else:
            assert evaluation.accuracies == alone
            assert evaluation.failed is None


class FailsSometimes:
    """Every third candidate fails."""

    together = 256

    def __call__(self, configurations, step, known):
        for place, configuration in enumerate(configurations[known:], known):
            failed = "its loss went away" if place % 3 == 1 else None
            accuracies = [] if failed else [sum(map(sum, configuration)) / 100]
            yield Evaluation(accuracies, 0.1, failed, torch.ones(5))

    def restore_shared(self, configurations, step, known):
        pass


class Remembers:
    """A predictor that predicts the same for all."""

    def __init__(self):
        self.told = []

    def predict(self, configurations):
        return torch.full((len(configurations),), 0.5).numpy()

    def update(self, configurations, accuracies):
        assert all(math.isfinite(a) for a in accuracies)
        self.told += configurations
        return 0.0


def test_a_failed_candidate_is_recorded_and_has_no_say(tmp_path):
    predictor, space, settings = Remembers(), Space((2, 2)), SearchSettings(2, 2, 4)
    header = {"modalities": ["a", "b"], "sizes": [2, 2], "activations": ["relu", "sigmoid"]}
    with Journal(tmp_path / "journal.jsonl", header) as journal, Progress(verbose=False) as progress:
        evaluate = JournaledEvaluator(FailsSometimes(), journal, progress)
        steps = list(sequential_search(space, evaluate, predictor, settings))
    failed = [c.configuration for s in steps for c in s.candidates if c.evaluation.failed]
    assert len(failed) == 3 + 1 + 1 + 1
    assert len(predictor.told) == settings.trainings(space) - len(failed)
    worked = [c.configuration for s in steps for c in s.candidates if not c.evaluation.failed]
    assert predictor.told == worked
    prefixes = {c.configuration[:1] for c in steps[1].candidates}
    assert prefixes <= {c.configuration for c in steps[0].candidates if not c.evaluation.failed}
    lines = [line for line in read_journal(tmp_path / "journal.jsonl")[0] if line["kind"] == "candidate"]
    assert best_of(lines)[0]["accuracy"] == max(
        c.evaluation.accuracy for s in steps for c in s.candidates if not c.evaluation.failed
    )
    assert [line["configuration"] for line in lines if "failed" in line] == json.loads(json.dumps(failed))
    assert {line["failed"] for line in lines if "failed" in line} == {"its loss went away"}
    assert len(read_files(tmp_path).failed) == len(failed)


@pytest.mark.parametrize("search", [sequential_search, random_search])
def test_a_search_whose_candidates_all_fail_ends_with_the_reason(search):
    def evaluate(configurations, step, predicted):
        return [Evaluation([], 0.1, "it is too large")] * len(configurations)

    more = (Remembers(),) if search is sequential_search else ()
    with pytest.raises(SearchError, match=r"all .* candidates of step 0 failed, the first because it is too large"):
        list(search(Space((2, 2)), evaluate, *more, SearchSettings(num_samples=3)))


def test_a_training_stops_with_epoch_batch_and_learning_rate():
    model = torch.nn.Linear(LAYOUT.total, LAYOUT.num_outputs)
    splits = {"train": random_split(100, 0), "dev": random_split(20, 1)}
    splits["train"].inputs[0][70] = torch.inf
    settings = TrainingSettings(epochs=3, batchsize=10, eta_max=1e-2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_pass = ModelTraining(model, optimizer, model.train)
    epochs = train_and_evaluate(model, splits, settings, train_pass, ())
    order = splits["train"].batches(10, (settings.seed, "shuffle", 0)).order.tolist()
    batch = order.index(70) // 10
    rate = next(itertools.islice(settings.rates(10), batch, None))
    with pytest.raises(Diverged, match=f"epoch 0, batch {batch}, at learning rate {rate:g}"):
        next(epochs)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [1e-300, 1e-9, 1e9])
@pytest.mark.parametrize("accuracies", [[0.0] * 5, [0.0, 1.0, 0.0, 1e-12, 1.0], [1.0] * 5])
def test_sampling_at_its_limits(accuracies, temperature):
    chosen = sample([((i, 0, 0),) for i in range(5)], accuracies, 9, temperature, np.random.default_rng(0))
    assert sorted(chosen) == list(range(5))
