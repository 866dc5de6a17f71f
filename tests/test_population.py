"""A population equals its members: trained together or alone, the same losses, gradients and weights."""

import pytest
import torch

from models.fusion import FeatureLayout, FusionHead, HeadSettings
from models.population import Population
from utils.schedules import cosine_rates
from utils.training import losses, scores

LAYOUT = FeatureLayout(widths=((3, 6, 12, 24, 48), (3, 6, 12)), num_outputs=10)
CONFIGURATIONS = [
    [[4, 2, 0]],
    [[0, 0, 1], [4, 1, 0]],
    [[2, 2, 1], [2, 2, 1], [2, 0, 1], [2, 2, 0]],
    [[3, 2, 0], [3, 1, 1], [0, 2, 0]],
    [[1, 0, 2], [3, 1, 0], [4, 2, 1], [0, 0, 0]],
    [[4, 2, 0]],
]
STEPS, BATCH = 20, 32


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
        alone = train(head, lambda x, head=head: head(*LAYOUT.split(x)), rows, labels, head.central_parameters())
        torch.testing.assert_close(together[:, k], alone, rtol=1e-5, atol=1e-5)
        state = population.member_state(k)
        assert state.keys() == head.state_dict().keys()
        for name, value in head.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5, msg=f"member {k}, {name}")
        head.eval()
        torch.testing.assert_close(predicted[k], scores(head(*LAYOUT.split(rows[0]))), rtol=1e-5, atol=1e-5)


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
