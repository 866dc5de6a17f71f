"""Which flags would make a checkpoint fit a network, read from the shapes that the file holds."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

FORMATS = {"vid_len": "--vid_len 8 {}"}  # the second number is the skeletons'; the first fixes no shape
LAYER = re.compile(r"fusion_layers\.(\d+)\.0\.weight")


def flags_that_fit(network: nn.Module, held: Mapping[str, Tensor]) -> list[str]:
    """The flags in which the checkpoint differs, with its values; empty where no flag explains the difference.

    Args:
        network: its `shape_flags` and those of its children tell which size each flag fixes.
        held: the state_dict of the checkpoint.
    """
    own = network.state_dict()
    flags = []
    for flag, name, dimension in _sizes(network):
        if (
            name in held
            and held[name].ndim == own[name].ndim
            and held[name].shape[dimension] != own[name].shape[dimension]
        ):
            flags.append(FORMATS.get(flag, f"--{flag} {{}}").format(held[name].shape[dimension]))
    if all("central_classifier.weight" in state and _are_matrices(state) for state in (own, held)):
        normalised = [
            any(".2.running_mean" in name for name in state if name.startswith("fusion_")) for state in (own, held)
        ]
        if normalised == [False, True]:
            flags.append("--batchnorm")
        if normalised == [True, False]:
            flags.append("no --batchnorm")
        # other backbones read as other inputs, so only equally wide ones tell whether the rows are others
        others = any(flag.startswith(("--channels", "--vid_len")) for flag in flags)
        if len(_inputs(own)) != len(_inputs(held)) or (not others and _inputs(own) != _inputs(held)):
            flags.append(f"a --conf of {_describe(_inputs(held))} features, not {_describe(_inputs(own))}")
    return list(dict.fromkeys(flags))


def _sizes(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, str, int]]:
    """(flag, parameter, dimension that the flag fixes) of a network and the networks in it."""
    for flag, (name, dimension) in getattr(network, "shape_flags", {}).items():
        yield flag, prefix + name, dimension
    for child, module in network.named_children():
        yield from _sizes(module, f"{prefix}{child}.")


def _inputs(state: Mapping[str, Tensor]) -> list[int]:
    """How many features each fusion layer reads, the previous layer's left out."""
    inner = state["central_classifier.weight"].shape[1]
    layers = sorted(
        (int(match[1]), value.shape[1]) for name, value in state.items() if (match := LAYER.fullmatch(name))
    )
    return [width - inner * (layer > 0) for layer, width in layers]


def _are_matrices(state: Mapping[str, Tensor]) -> bool:
    """Whether the weights that `_inputs` reads are of a kind that linear layers have."""
    names = ["central_classifier.weight", *filter(LAYER.fullmatch, state)]
    return all(state[name].ndim == 2 for name in names)


def _describe(inputs: list[int]) -> str:
    return f"{len(inputs)} layers that read {', '.join(map(str, inputs))}"
