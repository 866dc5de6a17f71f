"""Weights and inputs that anyone can rebuild from a name, to compare networks with their published outputs."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FIXTURES = Path(__file__).parent / "fixtures"
GOLDEN = np.load(FIXTURES / "golden.npz")
KEYS = json.loads((FIXTURES / "state_dict_keys.json").read_text())


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def fill(network: nn.Module) -> nn.Module:
    """Fill every parameter and buffer from its name, and put the network into eval mode."""
    state = network.state_dict()
    for key, old in state.items():
        if not old.is_floating_point():
            state[key] = torch.zeros_like(old)
            continue
        z = normal(key, tuple(old.shape))
        if key.endswith("running_var"):
            z = abs(z) * 0.2 + 0.8
        elif z.ndim == 1 and key.endswith("weight"):
            z = 1 + 0.1 * z
        elif z.ndim >= 2:
            z = z * 1.4 / np.sqrt(np.prod(z.shape[1:]))
        else:
            z = 0.1 * z
        state[key] = torch.from_numpy(z)
    network.load_state_dict(state)
    return network.eval()


def reference_input(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    return torch.from_numpy(normal(f"input:{name}", shape) * scale)


def shapes(network: nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in network.state_dict().items()}


def assert_agrees(ours: Tensor, golden: str) -> None:
    """Relative error of the norm below 1e-4."""
    theirs = GOLDEN[golden]
    difference = ours.detach().numpy().reshape(theirs.shape) - theirs
    assert np.linalg.norm(difference) < 1e-4 * np.linalg.norm(theirs), golden
