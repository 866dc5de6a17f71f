"""Name the flags that would make a checkpoint fit a network, from the shapes of the parameters that it holds."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from models.fusion import CentralWeights
from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from models.lenet import LeNet

LAYER = re.compile(r"fusion_layers\.(\d+)\.0\.weight")
# By class of network: the parameter, and its dimension, whose size a flag sets.
SIZES: dict[type[nn.Module], dict[str, tuple[str, int]]] = {
    LeNet: {"--channels {}": ("conv1.weight", 0), "--num_outputs {}": ("classifier.0.weight", 0)},
    InflatedResNet50: {"--num_outputs {}": ("classifier.weight", 0)},
    SkeletonNet: {  # the first number of --vid_len counts the frames of clips, which no shape depends on
        "--vid_len 8 {}": ("conv2.weight", 0),
        "--num_outputs {}": ("fc8.weight", 0),
    },
    CentralWeights: {
        "--num_outputs {}": ("central_classifier.weight", 0),
        "--inner_representation_size {}": ("central_classifier.weight", 1),
    },
}


def flags_that_fit(network: nn.Module, held: Mapping[str, Tensor]) -> list[str]:
    """Flags, with the checkpoint's values, in which a checkpoint differs from a network.

    Args:
        held: state_dict of the checkpoint.

    Returns:
        Flags such as "--channels 4"; empty if no flag explains the difference.
    """
    own = network.state_dict()
    flags = []
    for flag, name, dimension in _sizes(network):
        if name in held and held[name].ndim == own[name].ndim:
            size = held[name].shape[dimension]
            if size != own[name].shape[dimension]:
                flags.append(flag.format(size))
    if all("central_classifier.weight" in state and _are_matrices(state) for state in (own, held)):
        normalized = [
            any(".2.running_mean" in name for name in state if name.startswith("fusion_")) for state in (own, held)
        ]
        if normalized[0] != normalized[1]:
            flags.append("--batchnorm" if normalized[1] else "no --batchnorm")
        # Other backbones have features of other widths, so widths identify the rows only if the backbones agree.
        others = any(flag.startswith(("--channels", "--vid_len")) for flag in flags)
        if len(_inputs(own)) != len(_inputs(held)) or (not others and _inputs(own) != _inputs(held)):
            flags.append(f"a --conf of {_describe(_inputs(held))} features, not {_describe(_inputs(own))}")
    return list(dict.fromkeys(flags))


def _sizes(network: nn.Module) -> Iterator[tuple[str, str, int]]:
    """(flag, parameter, dimension whose size the flag sets) of a network and the networks in it."""
    for prefix, module in network.named_modules():
        for known, sizes in SIZES.items():
            if isinstance(module, known):
                for flag, (name, dimension) in sizes.items():
                    yield flag, f"{prefix}.{name}" if prefix else name, dimension


def _inputs(state: Mapping[str, Tensor]) -> list[int]:
    """Number of features that each fusion layer reads, without the previous layer's output."""
    inner = state["central_classifier.weight"].shape[1]
    layers = sorted(
        (int(match[1]), value.shape[1]) for name, value in state.items() if (match := LAYER.fullmatch(name))
    )
    return [width - inner * (layer > 0) for layer, width in layers]


def _are_matrices(state: Mapping[str, Tensor]) -> bool:
    """Check that the weights that `_inputs` reads have two dimensions."""
    names = ["central_classifier.weight", *filter(LAYER.fullmatch, state)]
    return all(state[name].ndim == 2 for name in names)


def _describe(inputs: list[int]) -> str:
    return f"{len(inputs)} layers that read {', '.join(map(str, inputs))}"
