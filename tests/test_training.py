"""Batches, losses, the training loop, seeds, and the max-pooling of the unimodal networks."""

import contextlib
import copy
import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score
from torch import nn
from torch.nn import functional as F

from models.fusion import HeadSettings
from models.lenet import _MaxPool2x2
from utils.errors import UsageError
from utils.results.table import f1_scores
from utils.runs.fusion_training import is_over
from utils.runs.settings import check_batches
from utils.seeds import derive_seed
from utils.training.batches import ArraySplit, generator
from utils.training.devices import Compute, KeepsBfloat16
from utils.training.evaluation import evaluate, predict
from utils.training.loop import train_epoch
from utils.training.metrics import accuracy, balanced_weights, correct, losses, scores, weighted_f1
from utils.training.rates import onecycle_rates


def numbered(count: int) -> ArraySplit:
    """Every input and label says which sample it is."""
    samples = torch.arange(count)
    return ArraySplit((samples.view(-1, 1).float(), samples.to(torch.uint8).view(-1, 1, 1)), samples)


# Batches


@given(st.integers(1, 60), st.integers(1, 70), st.booleans(), st.integers(0, 5))
def test_batches_cover_every_sample_once(count, batch_size, shuffled, epoch):
    batches = numbered(count).batches(batch_size, (0, "shuffle", epoch) if shuffled else None)
    parts = list(batches)
    assert len(batches) == len(parts)
    assert [len(labels) for _, labels in parts[:-1]] == [batch_size] * (len(parts) - 1)
    for (first, second), labels in parts:
        assert torch.equal(first[:, 0], labels.float())
        assert torch.equal(second[:, 0, 0], labels.float())
        assert first.dtype == second.dtype == torch.float32
    order = torch.cat([labels for _, labels in parts]).tolist()
    assert sorted(order) == list(range(count))
    if not shuffled:
        assert order == list(range(count))


def test_orders_differ_by_epoch_and_repeat_by_seed():
    def order(*where):
        return torch.cat([labels for _, labels in numbered(50).batches(7, where)]).tolist()

    orders = [order(seed, "shuffle", step, epoch) for seed in (0, 1) for step in (0, 1) for epoch in (0, 1)]
    assert len(set(map(tuple, orders))) == 8
    assert order(0, "shuffle", 0, 1) == orders[1]


# Seeds

PLACES = st.tuples(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["shuffle", "dropout", "candidate"]),
    st.integers(0, 99),
    st.integers(0, 99),
)


@given(PLACES, PLACES)
def test_seeds_differ_by_place(first, second):
    assert 0 <= derive_seed(*first) < 2**63
    assert (derive_seed(*first) == derive_seed(*second)) == (first == second)


def test_a_generator_repeats():
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))


# Losses


@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=str)
@pytest.mark.parametrize("multitask", [False, True])
def test_members_have_the_losses_and_accuracies_that_they_have_alone(shape, multitask):
    torch.manual_seed(0)
    labels = torch.randint(5, (9,))
    outputs = torch.randn(*shape, 9, 5)
    extra = (torch.randn(9, 5), torch.randn(9, 5)) if multitask else ()

    def join(fused):
        return (fused, *extra) if multitask else fused

    together, right = losses(join(outputs), labels), accuracy(scores(join(outputs)), labels)
    assert together.shape == right.shape == shape
    for place in torch.cartesian_prod(*map(torch.arange, shape)).reshape(-1, len(shape)).tolist():
        member = outputs[tuple(place)]
        alone = sum(F.cross_entropy(logits, labels) for logits in (member, *extra))
        torch.testing.assert_close(together[tuple(place)], alone)
        summed = sum(extra, member)
        assert right[tuple(place)] == (summed.argmax(1) == labels).float().mean()


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("multitask", [False, True])
def test_several_labels_a_sample_have_binary_cross_entropy(shape, multitask):
    torch.manual_seed(0)
    labels = torch.randint(2, (9, 5)).float()
    outputs = torch.randn(*shape, 9, 5)
    extra = (torch.randn(9, 5), torch.randn(9, 5)) if multitask else ()
    together = losses((outputs, *extra) if multitask else outputs, labels)
    assert together.shape == shape
    for member, loss in zip(outputs.reshape(-1, 9, 5), together.reshape(-1), strict=True):
        alone = sum(F.binary_cross_entropy_with_logits(logits, labels) for logits in (member, *extra))
        torch.testing.assert_close(loss, alone)


# Scores

TABLES = st.tuples(st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@given(TABLES)
def test_f1_of_several_labels_a_sample_is_that_of_scikit_learn(tables):
    predicted, label = tables
    expected = {a: f1_score(label, predicted, average=a, zero_division=0) for a in ("macro", "weighted")}
    expected["samples"] = np.mean([f1_score(t, p, zero_division=0) for t, p in zip(label, predicted, strict=True)])
    if predicted.shape[1] == 1:  # which scikit-learn takes for two classes
        only = f1_score(label, predicted, zero_division=0)
        expected |= {"macro": only, "weighted": only}
    logits, labels = torch.from_numpy(predicted) * 2.0 - 1, torch.from_numpy(label).float()
    assert f1_scores(logits, labels) == pytest.approx(expected, abs=1e-6)
    assert float(accuracy(logits, labels)) == pytest.approx(expected["weighted"], abs=1e-6)
    population = torch.stack([logits, -logits, labels * 2 - 1])
    assert accuracy(population, labels).tolist()[0] == pytest.approx(expected["weighted"], abs=1e-6)
    assert float(accuracy(population, labels)[2]) == float(label.any())
    torch.testing.assert_close(weighted_f1(population > 0, labels > 0), accuracy(population, labels))
    shares = (predicted == label).mean(axis=1)
    np.testing.assert_allclose(correct(logits, labels), shares, rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_f1_of_single_labels_is_that_of_scikit_learn(pairs):
    chosen, label = np.array(pairs).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"labels": range(5), "zero_division": 0}
        expected = {a: f1_score(label, chosen, average=a, **options) for a in ("macro", "weighted")}
    logits, labels = F.one_hot(torch.from_numpy(chosen), 5).float(), torch.from_numpy(label)
    assert f1_scores(logits, labels) == pytest.approx(expected, abs=1e-6)
    assert float(accuracy(logits, labels)) == pytest.approx(accuracy_score(label, chosen), abs=1e-6)


def test_scores_that_are_not_finite_have_no_accuracy():
    labels = torch.tensor([[1.0, 0], [0, 1]])
    outputs = torch.ones(3, 2, 2)
    outputs[1, 0, 1] = torch.nan
    assert accuracy(outputs, labels).isnan().tolist() == [False, True, False]
    assert accuracy(outputs, torch.tensor([0, 1])).isnan().tolist() == [False, True, False]


# The loop


class Members(nn.Module):
    """Three linear classifiers as a population, with batch norm and dropout before them."""

    def __init__(self):
        super().__init__()
        self.start = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.weight = nn.Parameter(torch.randn(3, 4, 5))

    def forward(self, x):
        return self.start(x) @ self.weight


def random_split(count: int = 22) -> ArraySplit:
    torch.manual_seed(1)
    return ArraySplit((torch.randn(count, 4),), torch.randint(5, (count,)))


@given(st.floats(1e-4, 1), st.integers(1, 300))
def test_one_cycle_rises_to_its_peak_and_falls(peak, steps):
    rates = list(itertools.islice(onecycle_rates(peak, peak / 100, steps), steps + 3))
    top = rates.index(max(rates))
    assert top == min(max(1, round(steps / 4)), steps + 2)
    assert rates[top] == pytest.approx(peak)
    assert rates[0] == pytest.approx(peak / 25)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[max(top + 1, steps - 1) :] == pytest.approx([peak / 100] * (steps + 3 - max(top + 1, steps - 1)))


def test_an_epoch_sets_the_rates_and_gives_means_over_all_samples():
    model, split = nn.Linear(4, 5), random_split()
    optimizer = torch.optim.SGD(model.parameters(), lr=123.0)
    used, rates = [], iter([0.0, 0.0, 0.0, 0.5])
    optimizer.register_step_pre_hook(lambda *_: used.append(optimizer.param_groups[0]["lr"]))
    before = copy.deepcopy(model)
    result = train_epoch(model, split.batches(8), optimizer, rates)  # batches of 8, 8 and 6
    assert used == [0.0] * 3
    logits = before(split.inputs[0])
    torch.testing.assert_close(result.loss, F.cross_entropy(logits, split.labels).detach())
    torch.testing.assert_close(result.accuracy, accuracy(logits, split.labels))
    assert next(rates) == 0.5
    train_epoch(model, split.batches(8), torch.optim.SGD(model.parameters(), lr=0.1))
    assert not torch.equal(model.weight, before.weight)


def test_a_population_trains_each_member_by_its_own_loss():
    split, model = random_split(), Members()
    result = train_epoch(model, split.batches(8), torch.optim.SGD([model.weight], lr=0.1))
    assert result.loss.shape == result.accuracy.shape == (3,)
    assert evaluate(model, split).shape == (3,)
    alone = copy.deepcopy(model).eval()
    alone.weight.data[1:] = 0
    optimizer = torch.optim.SGD([alone.weight], lr=0.1)
    together = copy.deepcopy(model).eval()
    train_epoch(alone, split.batches(8), optimizer)
    train_epoch(together, split.batches(8), torch.optim.SGD([together.weight], lr=0.1))
    torch.testing.assert_close(alone.weight[0], together.weight[0])


@pytest.mark.parametrize(
    ("gpus", "count", "fits"), [(1, 40, True), (1, 41, False), (4, 44, False), (1, 44, True), (4, 48, True)]
)
def test_batch_norm_needs_two_samples_wherever_it_runs(gpus, count, fits):
    """Batches of 40, shared by several GPUs or not."""
    head = HeadSettings(num_outputs=10, batchnorm=True)
    with contextlib.nullcontext() if fits else pytest.raises(UsageError, match="leave one over"):
        check_batches(head, 40, count, gpus)


def test_gpus_share_batches_with_dataparallel_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for spread, kind, gpus in ((True, "cuda", 4), (False, "cuda", 1), (True, "cpu", 1)):
        assert Compute(torch.device(kind), use_dataparallel=spread).replicas == gpus


def test_a_thread_that_is_told_of_autocast_alone_computes_in_bfloat16():
    """As DataParallel's threads are, whose own dtype is another."""

    def run(network: nn.Module) -> torch.dtype:
        with torch.autocast("cpu", torch.float16):
            return network(torch.ones(2, 3)).dtype

    layer = nn.Linear(3, 4)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, layer).result() == torch.float16
        assert pool.submit(run, KeepsBfloat16(layer)).result() == torch.bfloat16
    assert KeepsBfloat16(layer)(torch.ones(2, 3)).dtype == torch.float32


def test_predicting_is_in_eval_mode_and_puts_every_mode_back():
    split, model = random_split(), Members()
    model.start[0].eval()  # as a frozen part of a network that trains
    modes = [module.training for module in model.modules()]
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(split.inputs[0])
    predicted = predict(model, split)
    torch.testing.assert_close(predicted, expected)
    assert not predicted.requires_grad
    assert [module.training for module in model.modules()] == modes == [True, True, False, True]
    assert model.start[0].num_batches_tracked == 0


# Max-pooling


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 9), st.integers(2, 9)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1000),
)
def test_max_pooling_equals_torch(shape, ties, channels_last, seed):
    torch.manual_seed(seed)
    start = torch.randint(-1, 2, shape).float() if ties else torch.randn(shape)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    ours, theirs = (start.clone(memory_format=layout).requires_grad_() for _ in range(2))
    pooled, expected = _MaxPool2x2.apply(ours), F.max_pool2d(theirs, 2)
    gradient = torch.randn_like(expected)
    pooled.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(pooled, expected)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("members", [(), (3,)])
def test_class_weights_are_those_of_torch(members):
    torch.manual_seed(0)
    outputs, labels = torch.randn(*members, 30, 4), torch.arange(30) % 3  # no sample of the last class
    weights = balanced_weights(labels, 4)
    assert weights.tolist() == [pytest.approx(30 / 40)] * 3 + [0]
    expected = [F.cross_entropy(one, labels, weights) for one in outputs.view(-1, 30, 4)]
    torch.testing.assert_close(losses(outputs, labels, weights).view(-1), torch.stack(expected))


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 4))
def test_patience_ends_a_phase_after_as_many_epochs_without_a_better_one(scores, patience):
    lines = [{"phase": "central", "dev_accuracy": 9}] + [{"phase": "all", "dev_accuracy": value} for value in scores]
    since = len(scores) - 1 - scores.index(max(scores)) if scores else 0  # epochs after the first best one
    assert is_over(lines, "all", patience) == (since >= patience)
    assert not is_over(lines, "all", None)
