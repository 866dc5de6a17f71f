"""Adam on a flat vector, in the arithmetic of `torch.optim.Adam`.

A search uses no other optimizer: creating the first one of `torch.optim` takes seconds, because it imports modules that
only compilation needs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Optimizer(Protocol):
    """The state of an optimizer, to save and to restore: `torch.optim.Optimizer` or `FlatAdam`."""

    @property
    def param_groups(self) -> Sequence[dict[str, Any]]: ...

    @property
    def state(self) -> Mapping[Any, Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class FlatAdam:
    """The moments of a flat vector, and the step on it."""

    param_groups: Sequence[dict[str, Any]] = ()  # as of `torch.optim`: the learning rate is an argument of the step

    def __init__(self, weights: Tensor) -> None:
        zeros = (torch.zeros_like(weights) for _ in range(2))
        self.weights, self.moments = weights, dict(zip(("exp_avg", "exp_avg_sq"), zeros, strict=True))
        self.moments["step"] = torch.zeros(())

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor]]:
        return {self.weights: self.moments}

    @torch.no_grad()
    def step(self, gradient: Tensor, rate: float) -> None:
        """Take a step."""
        state = self.moments
        state["step"] += 1
        count = int(state["step"])
        mean, square = state["exp_avg"].lerp_(gradient, 1 - BETA1), state["exp_avg_sq"]
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = square.sqrt().div_(math.sqrt(1 - BETA2**count)).add_(EPSILON)
        self.weights.addcdiv_(mean, root, value=-rate / (1 - BETA1**count))

    def state_dict(self) -> dict[str, Any]:
        """The moments, in the form of `torch.optim`."""
        return {"state": {0: self.moments}, "param_groups": []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load moments in place.

        Raises:
            KeyError, RuntimeError: they are of another vector.
        """
        for name, value in self.moments.items():
            saved = state["state"][0][name]
            if saved.shape != value.shape:
                raise RuntimeError(f"{name} must have shape {tuple(value.shape)}, but has {tuple(saved.shape)}")
            value.copy_(saved)


def flatten(parameters: Sequence[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Turn parameters and their gradients into views of two flat vectors, and return these."""
    weights = torch.cat([p.detach().reshape(-1) for p in parameters])
    gradient, sizes = torch.zeros_like(weights), [p.numel() for p in parameters]
    for parameter, values, own in zip(parameters, weights.split(sizes), gradient.split(sizes), strict=True):
        parameter.data, parameter.grad = values.view_as(parameter), own.view_as(parameter)
    return weights, gradient
