"""A population equals its members: trained together or alone, the same losses, gradients and weights."""

import itertools

import pytest
import torch

from models.fusion import FeatureLayout, FusionHead, HeadSettings
from models.population import Population
from models.population_gradient import PopulationGradient
from utils.candidates.cuda_graph import CapturedStep
from utils.candidates.population_training import PopulationTraining
from utils.training.batches import ArraySplit
from utils.training.loop import ModelTraining, TrainingSettings, adam
from utils.training.metrics import losses, scores
from utils.training.rates import cosine_rates

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


def train(model, forward, rows, labels, trained):
    """20 steps of Adam as in the search; returns the losses of every step and the gradients of the last."""
    optimizer = torch.optim.Adam(trained, lr=1e-3, weight_decay=1e-4)
    rates, history = cosine_rates(1e-3, 1e-6, 1, 2, 7), []
    model.train()
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = next(rates)
        loss = losses(forward(rows[step]), labels[step])
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        history.append(loss.detach())
    return torch.stack(history)  # (STEPS,) or (STEPS, K)


@pytest.mark.trained
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "options",
    [{}, {"alphas": True}, {"multitask": True}, {"batchnorm": True}, dict(alphas=True, multitask=True, batchnorm=True)],
    ids=lambda options: "+".join(options) or "plain",
)
def test_population_equals_members(options):
    settings = HeadSettings(num_outputs=10, inner_size=16, dropout=0.0, **options)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(STEPS, BATCH, LAYOUT.total, generator=generator)
    labels = torch.randint(10, (STEPS, BATCH), generator=generator)

    population = Population(build_heads(settings), LAYOUT)
    together = train(population, population, rows, labels, population.parameters())
    population.eval()
    predicted = scores(population(rows[0]))

    for k, head in enumerate(build_heads(settings)):
        alone = train(head, lambda x, head=head: head(*LAYOUT.split(x)), rows, labels, head.parameters())
        torch.testing.assert_close(together[:, k], alone, **CLOSE)
        state = population.member_state(k)
        assert state.keys() == head.state_dict().keys()
        for name, value in head.state_dict().items():
            torch.testing.assert_close(state[name], value, **CLOSE, msg=f"member {k}, {name}")
        head.eval()
        torch.testing.assert_close(predicted[k], scores(head(*LAYOUT.split(rows[0]))), **CLOSE)


@pytest.mark.trained
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("multitask", [False, True])
def test_population_trained_by_hand_equals_members(multitask):
    """Includes a smaller last batch."""
    settings = HeadSettings(num_outputs=10, dropout=0.0, multitask=multitask)
    training = TrainingSettings(batchsize=BATCH)
    generator = torch.Generator().manual_seed(1)
    count = STEPS * BATCH - 5
    rows = torch.randn(count, LAYOUT.total, generator=generator)
    split = ArraySplit((rows,), torch.randint(10, (count,), generator=generator))
    batches = split.batches(BATCH, (0, "shuffle"))

    population = Population(build_heads(settings), LAYOUT)
    result = PopulationTraining(population, training)(batches, training.rates(7))
    assert result.rate == list(itertools.islice(training.rates(7), STEPS))[-1]
    population.eval()
    predicted = scores(population(rows))

    for k, head in enumerate(build_heads(settings)):
        optimizer, rates = adam(list(head.parameters()), training), training.rates(7)
        for (x,), labels in batches:
            optimizer.param_groups[0]["lr"] = next(rates)
            optimizer.zero_grad()
            losses(head(*LAYOUT.split(x)), labels).backward()
            optimizer.step()
        state = population.member_state(k)
        for name, value in head.state_dict().items():
            torch.testing.assert_close(state[name], value, **CLOSE, msg=f"member {k}, {name}")
        torch.testing.assert_close(predicted[k], scores(head(*LAYOUT.split(rows))), **CLOSE)


@pytest.mark.trained
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_by_hand_equal_autograd(dropout, monkeypatch):
    torch.manual_seed(0)
    rows, labels = torch.randn(BATCH, LAYOUT.total), torch.randint(10, (BATCH,))
    population = Population(build_heads(HeadSettings(num_outputs=10, dropout=dropout)), LAYOUT)
    mask = (torch.rand(len(population.pairs), 16, BATCH) >= dropout) / (1 - dropout)
    layers = iter(range(4))
    monkeypatch.setattr(
        "models.population.F.dropout", lambda h, p, training: h * mask.split(population.alive)[next(layers)]
    )
    losses(population(rows), labels).sum().backward()
    expected = {name: p.grad for name, p in population.named_parameters() if p.grad is not None}
    gradient = PopulationGradient(population)
    targets = torch.nn.functional.one_hot(labels, 10).T.float()
    gradient(LAYOUT.split(rows)[0], targets, mask if dropout else None)
    assert expected.keys() == gradient.by_name.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradient.by_name[name], value, **CLOSE, msg=name)


def three_modality_heads(**options) -> list[FusionHead]:
    heads = []
    for k, configuration in enumerate(WITH_SKIPS):
        torch.manual_seed(k)
        settings = HeadSettings(num_outputs=5, inner_size=6, dropout=0.0, **options)
        heads.append(FusionHead(configuration, THREE.widths, settings))
    return heads


@pytest.mark.trained
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("by_hand", [False, True])
def test_members_that_leave_modalities_out_train_as_they_would_alone(multi_label, by_hand):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(90, THREE.total, generator=generator)
    classes = torch.randint(5, (90,), generator=generator)
    labels = (torch.rand(90, 5, generator=generator) < 0.4).float() if multi_label else classes
    split, training = ArraySplit((rows,), labels), TrainingSettings(batchsize=BATCH)
    batches = split.batches(BATCH, (0, "shuffle"))
    population = Population(three_modality_heads(multi_label=multi_label), THREE)
    if by_hand:
        train_pass = PopulationTraining(population, training)
    else:
        train_pass = ModelTraining(population, adam(list(population.parameters()), training), population.train)
    train_pass(batches, training.rates(3))
    predicted = population.eval()(rows)
    for k, head in enumerate(three_modality_heads(multi_label=multi_label)):
        optimizer, rates = adam(list(head.parameters()), training), training.rates(3)
        for (x,), target in batches:
            optimizer.param_groups[0]["lr"] = next(rates)
            optimizer.zero_grad()
            losses(head(*THREE.split(x)), target).backward()
            optimizer.step()
        state = population.member_state(k)
        assert state.keys() == head.state_dict().keys()
        for name, value in head.state_dict().items():
            torch.testing.assert_close(state[name], value, **CLOSE, msg=f"member {k}, {name}")
        torch.testing.assert_close(predicted[k], head(*THREE.split(rows)), **CLOSE)


@pytest.mark.parametrize("dropout", [0.5, 0.4])
def test_dropout_masks_keep_the_right_share(dropout):
    torch.manual_seed(0)
    population = Population(build_heads(HeadSettings(num_outputs=10, dropout=dropout)), LAYOUT)
    masks = PopulationTraining(population, TrainingSettings())._masks(9, BATCH)
    assert masks.shape == (9, len(population.pairs), 16, BATCH)
    kept = masks != 0
    assert kept.float().mean().item() == pytest.approx(1 - dropout, abs=0.01)
    assert torch.unique(masks).tolist() == pytest.approx([0, 1 / (1 - dropout)])
    other = kept.flatten(1)[1:] == kept.flatten(1)[:-1]
    assert other.float().mean().item() == pytest.approx(dropout**2 + (1 - dropout) ** 2, abs=0.01)  # steps differ


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
    first, second = population.eval()(rows)
    assert torch.equal(first, second)


def test_a_step_that_cannot_be_captured_warns_and_runs_eagerly(monkeypatch, capsys):
    """CUDA's calls are replaced, so the test needs no device."""

    class Refuses:
        def __init__(self, graph=None):
            pass

        def __enter__(self):
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Refuses)
    monkeypatch.setattr(torch.cuda, "graph", Refuses)
    monkeypatch.setattr(CapturedStep, "_warm_up", lambda self, *inputs: self.step(*inputs))
    total = torch.zeros(())
    step = CapturedStep(lambda x, mask: total.add_(x.sum()))
    for number in range(6):
        step(torch.full((2,), float(number)), None)
    step(torch.ones(1), None)  # a smaller last batch
    assert float(total) == 2 * sum(range(6)) + 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: steps are not captured")
    assert line.endswith("(operation not permitted when stream is capturing)")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_equals_one_that_is_run():
    """On a device, with a smaller last batch."""
    settings, training = HeadSettings(num_outputs=10, dropout=0.0), TrainingSettings(batchsize=BATCH)
    generator = torch.Generator().manual_seed(1)
    count = STEPS * BATCH - 5
    rows = torch.randn(count, LAYOUT.total, generator=generator)
    split = ArraySplit((rows,), torch.randint(10, (count,), generator=generator)).to(torch.device("cuda"))
    weights = []
    for captured in (False, True):
        population = Population(build_heads(settings), LAYOUT).cuda()
        train_pass = PopulationTraining(population, training)
        if not captured:
            train_pass.step = train_pass._step
        rates = training.rates(STEPS)
        for epoch in range(2):
            train_pass(split.batches(BATCH, (0, epoch)), rates)
        weights.append(train_pass.gradient.weights.detach())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
