"""Fused, as a population, or alone by autograd: a candidate trains to the same losses, gradients and weights."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from models import dropout
from models.fusion import FeatureLayout, FeatureNetwork, FusionHead, HeadSettings
from models.population import Population
from utils.candidates.fused import operations
from utils.candidates.fused.operations import draw_words
from utils.candidates.fused.training import FusedHeads, FusedTraining
from utils.candidates.population_training import PopulationTraining
from utils.training.batches import ArraySplit
from utils.training.devices import threads as limited_threads
from utils.training.evaluation import judge
from utils.training.loop import TrainingSettings, adam
from utils.training.metrics import losses, scores, weighted_f1

LAYOUT = FeatureLayout(widths=((3, 6, 12, 24, 48), (3, 6, 12)), num_outputs=10)
THREE = FeatureLayout(widths=((3, 6), (5,), (4, 7, 2)), num_outputs=5, has_logits=False)
WITH_SKIPS = [  # of three modalities; the first is never read in the second layer, the second in no first one
    [[1, -1, 2, 0]],
    [[0, -1, -1, 3], [-1, 0, 1, 1]],
    [[-1, -1, 0, 2], [-1, 0, -1, 3], [1, -1, -1, 0]],
    [[1, -1, 0, 1], [-1, 0, 2, 0]],
]
CONFIGURATIONS = [
    [[4, 2, 0]],
    [[0, 0, 1], [4, 1, 0]],
    [[2, 2, 1], [2, 2, 1], [2, 0, 1], [2, 2, 0]],
    [[3, 2, 0], [3, 1, 1], [0, 2, 0]],
    [[1, 0, 2], [3, 1, 0], [4, 2, 1], [0, 0, 0]],
    [[4, 2, 0]],
]
STEPS, BATCH = 20, 32
# In float64: Adam divides gradients that are near zero by their own size, so in float32 the rounding of another order
# of additions, which differs by processor, may become a step of any size.
CLOSE = {"rtol": 1e-6, "atol": 1e-8}


@pytest.fixture
def double():
    """float64 for what is created without a dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def build_heads(settings: HeadSettings) -> list[FusionHead]:
    heads = []
    for k, configuration in enumerate(CONFIGURATIONS):
        torch.manual_seed(k)
        heads.append(FusionHead(configuration, LAYOUT.widths, settings))
    return heads


class Masked(torch.nn.Module):
    """Dropout with given masks, (batches, S, samples of a batch)."""

    def __init__(self, masks):
        super().__init__()
        self.masks = iter(masks)

    def forward(self, x):
        return x * next(self.masks)[:, : len(x)].T.to(x) if self.training else x


def train_alone(head, layout, batches, training, per_epoch, masks=None):
    """Train one candidate by autograd and torch's Adam; `masks` is the dropout of its layers."""
    if masks is not None:
        for layer, own in zip(head.fusion_layers, masks, strict=True):
            layer[-1] = Masked(own)
    optimizer, rates = adam(list(head.parameters()), training), training.rates(per_epoch)
    head.train()
    for (x,), labels in batches:
        optimizer.param_groups[0]["lr"] = next(rates)
        optimizer.zero_grad()
        losses(head(*layout.split(x)), labels).backward()
        optimizer.step()
    return optimizer


SETTINGS = [
    {},
    {"dropout": 0.4},
    {"dropout": 0.5, "multitask": True, "inner_size": 6},
    {"dropout": 0.4, "inner_size": 40},
    {"alphas": True, "dropout": 0.4},
    {"batchnorm": True, "dropout": 0.4},
    {"alphas": True, "multitask": True, "batchnorm": True},
]
SEED, PLACE = 2**62 + 12345, 7


def compare(way, build, layout, labels, settings, per_epoch=7):
    """Assert that a pass over random rows trains every member as it would train alone, and return the members.

    The last batch is smaller. float32 rounds differently in each way, and Adam may turn the rounding of a gradient near
    zero into a step of any size: the first moments are compared in its place.
    """
    rows = torch.randn(len(labels), layout.total, generator=torch.Generator().manual_seed(1))
    training = TrainingSettings(batchsize=BATCH)
    batches = ArraySplit((rows,), labels).batches(BATCH, (0, "shuffle"))
    heads = build(settings)
    if way == "fused":
        model = FusedHeads(build(settings), layout)
        train_pass, close = FusedTraining(model, training, PLACE), {"rtol": 1e-5, "atol": 1e-5}
    else:
        model = Population(build(settings), layout, PLACE)
        train_pass, close = PopulationTraining(model, training), CLOSE
    result = train_pass(batches, training.rates(per_epoch), SEED)
    assert result.rate == list(itertools.islice(training.rates(per_epoch), len(batches)))[-1]
    predicted = scores(model.eval()(rows))
    for k, head in enumerate(heads):
        depth = len(head.configuration)
        numbers = (torch.arange(len(batches)), torch.arange(depth), torch.full((depth,), PLACE + k))
        masks = dropout.masks(settings.dropout, SEED, *numbers, settings.inner_size, BATCH).transpose(0, 1)
        train_alone(head, layout, batches, training, per_epoch, masks if settings.dropout else None)
        state, expected = model.member_state(k), head.eval().state_dict()
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, **close, msg=lambda text, at=(k, name): f"{at}: {text}")
        torch.testing.assert_close(predicted[k], scores(head(*layout.split(rows))), **close)
        torch.testing.assert_close(
            losses(predicted[k], labels), losses(scores(head(*layout.split(rows))), labels), **close
        )


@pytest.mark.trained
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_members_of_a_population_train_as_they_would_alone(options):
    labels = torch.randint(10, (STEPS * BATCH - 5,), generator=torch.Generator().manual_seed(1))
    compare("population", build_heads, LAYOUT, labels, HeadSettings(**{"num_outputs": 10, "dropout": 0.0, **options}))


@pytest.mark.trained
@pytest.mark.parametrize("options", SETTINGS[:4], ids=str)
def test_a_fused_epoch_trains_candidates_as_autograd_does(options):
    labels = torch.randint(10, (STEPS * BATCH - 5,), generator=torch.Generator().manual_seed(1))
    compare("fused", build_heads, LAYOUT, labels, HeadSettings(**{"num_outputs": 10, "dropout": 0.0, **options}))


def three_modality_heads(settings) -> list[FusionHead]:
    heads = []
    for k, configuration in enumerate(WITH_SKIPS):
        torch.manual_seed(k)
        heads.append(FusionHead(configuration, THREE.widths, settings))
    return heads


@pytest.mark.trained
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("way", ["fused", "population"])
def test_members_that_leave_modalities_out_train_as_they_would_alone(multi_label, way, request):
    if way == "population":
        request.getfixturevalue("double")
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(5, (90,), generator=generator)
    labels = (torch.rand(90, 5, generator=generator) < 0.4).float() if multi_label else classes
    settings = HeadSettings(num_outputs=5, inner_size=6, dropout=0.4, multi_label=multi_label)
    compare(way, three_modality_heads, THREE, labels, settings, per_epoch=3)


@pytest.mark.parametrize("activation", range(4))
def test_the_first_gradient_of_a_fused_epoch_is_that_of_autograd(activation):
    """Of one step, from the first moments of Adam; weight decay is part of it."""
    settings, training = HeadSettings(num_outputs=10, dropout=0.0), TrainingSettings(batchsize=BATCH)
    configuration = [[4, 2, activation], [3, 0, activation]]
    rows = torch.randn(BATCH, LAYOUT.total, generator=torch.Generator().manual_seed(1))
    batches = ArraySplit((rows,), torch.arange(BATCH) % 10).batches(BATCH)
    torch.manual_seed(0)
    head = FusionHead(configuration, LAYOUT.widths, settings)
    fused = FusedTraining(FusedHeads([copy.deepcopy(head)], LAYOUT), training)
    fused(batches, training.rates(1), SEED)
    optimizer = train_alone(head, LAYOUT, batches, training, 1)
    moments = [state["exp_avg"] for state in fused.optimizer.state.values()]
    by_name = dict(zip(head.state_dict(), head.parameters(), strict=True))
    at = 0
    for name in [name for name in by_name if name.endswith("weight")]:
        weight, bias = (optimizer.state[by_name[own]]["exp_avg"] for own in (name, name.replace("weight", "bias")))
        block = moments[0][at : at + 16 * (weight.shape[1] + 1)].view(-1, 16)  # padded to 16 units
        torch.testing.assert_close(block[:-1, : len(weight)].T, weight, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(block[-1, : len(weight)], bias, rtol=1e-5, atol=1e-7)
        assert not block[:, len(weight) :].any()
        at += block.numel()
    assert at == len(moments[0])


def test_a_candidate_does_not_depend_on_who_trains_beside_it():
    settings, training = HeadSettings(num_outputs=10, dropout=0.5), TrainingSettings(batchsize=BATCH)
    rows = torch.randn(100, LAYOUT.total, generator=torch.Generator().manual_seed(1))
    batches = ArraySplit((rows,), torch.arange(100) % 10).batches(BATCH, (0, "shuffle"))

    def trained(first: int, last: int, threads: int) -> list[torch.Tensor]:
        heads = FusedHeads(build_heads(settings)[first:last], LAYOUT)
        with limited_threads(threads):
            FusedTraining(heads, training, PLACE + first)(batches, training.rates(4), SEED)
        return [flat.clone() for flat in heads.split(heads.flat)]

    together = trained(0, 6, threads=2)
    apart = trained(0, 2, threads=1) + trained(2, 6, threads=1)
    assert all(map(torch.equal, together, apart))


# Known answers of Philox4x32-10, from the authors' test vectors: counter, key, result.
PHILOX = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((dropout.WORD,) * 4, (dropout.WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def test_denormal_numbers_which_slow_a_processor_down_count_as_zero():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers")
    torch.set_flush_denormal(False)
    tiny = torch.full((100,), 1e-40)
    assert (tiny * 1).count_nonzero() == 100
    pool = FusedHeads(build_heads(HeadSettings(10)), LAYOUT).pool
    assert pool.submit(lambda: (tiny * 1).count_nonzero()).result() == 0


@pytest.mark.parametrize(("counter", "key", "answer"), PHILOX)
def test_philox_gives_the_known_answers(counter, key, answer):
    words = dropout.philox([torch.tensor(word) for word in counter], key)
    assert tuple(map(int, words)) == answer


def test_the_compiled_words_are_those_of_the_arrays():
    key, blocks = 0xA4093822299F31D0, 24
    words = np.zeros(4 * blocks, np.uint32)
    draw_words(words, blocks, 5, 3, 2**31 + 9, np.uint64(key))
    counter = torch.broadcast_tensors(torch.arange(blocks), *map(torch.tensor, (5, 3, 2**31 + 9)))
    expected = dropout.philox(counter, (key & dropout.WORD, key >> 32))
    assert words.reshape(4, blocks).tolist() == torch.stack(expected).tolist()


def test_compiled_code_is_kept_apart_by_its_sources(tmp_path, monkeypatch):
    assert operations._cache_folder() == operations.CACHE
    (tmp_path / "dropout.py").write_text("ROUNDS = 7\n")
    monkeypatch.setattr(dropout, "__file__", str(tmp_path / "dropout.py"))
    assert operations._cache_folder() != operations.CACHE
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "cache"))
    assert Path(operations._cache_folder()).parent == tmp_path / "cache"
    (tmp_path / "file").touch()
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "file"))  # where no folder can be made
    assert operations._cache_folder() == ""


@pytest.mark.parametrize("share", [0.5, 0.4])
def test_dropout_masks_keep_the_right_share(share):
    population = Population(build_heads(HeadSettings(num_outputs=10, dropout=share)), LAYOUT)
    population.start_pass(SEED)
    masks = population.masks(9, BATCH)
    assert masks.shape == (9, len(population.pairs), 16, BATCH)
    kept = masks != 0
    assert kept.float().mean().item() == pytest.approx(1 - share, abs=0.01)
    assert torch.unique(masks).tolist() == pytest.approx([0, 1 / (1 - share)])
    for other in (kept[1:] == kept[:-1], kept[:, 1:] == kept[:, :-1], kept[..., 1:] == kept[..., :-1]):
        assert other.float().mean().item() == pytest.approx(share**2 + (1 - share) ** 2, abs=0.01)  # they differ


def test_gradients_equal_members():
    settings = HeadSettings(num_outputs=10, dropout=0.0, alphas=True)
    rows, labels = torch.randn(BATCH, LAYOUT.total), torch.randint(10, (BATCH,))
    heads = build_heads(settings)
    population = Population(heads, LAYOUT)
    losses(population(rows), labels).sum().backward()
    with torch.no_grad():  # a step of plain gradient descent makes member_state show the gradients
        for parameter in population.parameters():
            parameter -= parameter.grad
    for k, head in enumerate(heads):
        losses(head(*LAYOUT.split(rows)), labels).backward()
        state = population.member_state(k)
        for name, parameter in head.named_parameters():
            torch.testing.assert_close(state[name], (parameter - parameter.grad).detach(), rtol=1e-5, atol=1e-5)


def test_a_fresh_population_holds_its_members():
    heads = build_heads(HeadSettings(num_outputs=10, batchnorm=True))
    population = Population(heads, LAYOUT)
    for k, head in enumerate(heads):
        for name, value in head.state_dict().items():
            assert torch.equal(population.member_state(k)[name], value)


def test_dropout_differs_between_members_and_stops_in_eval():
    twins = [FusionHead([[4, 2, 0]], LAYOUT.widths, HeadSettings(num_outputs=10, dropout=0.5)) for _ in range(2)]
    twins[1].load_state_dict(twins[0].state_dict())
    population = Population(twins, LAYOUT)
    rows = torch.randn(BATCH, LAYOUT.total)
    first, second = population(rows)
    assert not torch.equal(first, second)
    assert not torch.equal(first, population(rows)[0])  # the next batch
    population.start_pass(0)
    assert torch.equal(population(rows), torch.stack([first, second]))
    first, second = population.eval()(rows)
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", [FusedHeads, Population, "alone"])
def test_candidates_are_judged_at_the_threshold(kind):
    settings = HeadSettings(num_outputs=10, multi_label=True, threshold=0.3)
    heads = build_heads(settings)
    torch.manual_seed(1)
    rows, labels = torch.randn(60, LAYOUT.total), (torch.rand(60, 10) < 0.4).float()
    model = FeatureNetwork(CONFIGURATIONS[3], LAYOUT, settings) if kind == "alone" else kind(heads, LAYOUT)
    probabilities = model.eval()(rows).detach().sigmoid()
    reached, right, _ = judge(model, ArraySplit((rows,), labels))
    torch.testing.assert_close(reached, weighted_f1(probabilities > 0.3, labels > 0))
    torch.testing.assert_close(right, ((probabilities > 0.3) == (labels > 0)).float().mean(-1))
    assert not reached.equal(weighted_f1(probabilities > 0.5, labels > 0))
