"""Name the flags that would make a checkpoint fit a network, from the shapes of the parameters that it holds."""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from models.fusion import FusionHead, FusionNetwork
from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from models.lenet import LeNet

LAYER = re.compile(r"fusion_layers\.(\d+)\.0\.weight")
NORM = re.compile(r"fusion_layers\.\d+\.2\.running_mean")
CENTRAL = {
    "--num_outputs {}": ("central_classifier.weight", 0),
    "--inner_representation_size {}": ("central_classifier.weight", 1),
}
# By class of network: the parameter, and its dimension, whose size a flag sets.
SIZES: dict[type[nn.Module], dict[str, tuple[str, int]]] = {
    LeNet: {"--channels {}": ("conv1.weight", 0), "--num_outputs {}": ("classifier.0.weight", 0)},
    InflatedResNet50: {"--num_outputs {}": ("classifier.weight", 0)},
    SkeletonNet: {  # the first number of --vid_len counts the frames of clips, which no shape depends on
        "--vid_len 8 {}": ("conv2.weight", 0),
        "--num_outputs {}": ("fc8.weight", 0),
    },
    FusionHead: CENTRAL,
    FusionNetwork: CENTRAL,
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
    reads, holds = _inputs(own), _inputs(held)
    if reads and holds:
        normalized = [any(NORM.match(name) for name in state) for state in (own, held)]
        if normalized[0] != normalized[1]:
            flags.append("--batchnorm" if normalized[1] else "no --batchnorm")
        # Other backbones have features of other widths, so widths identify the rows only if the backbones agree.
        others = any(flag.startswith(("--channels", "--vid_len")) for flag in flags)
        if len(reads) != len(holds) or (not others and reads != holds):
            flags.append(f"a --conf of {_describe(holds)} features, not {_describe(reads)}")
    return list(dict.fromkeys(flags))


def _sizes(network: nn.Module) -> Iterator[tuple[str, str, int]]:
    """(flag, parameter, dimension whose size the flag sets) of a network and the networks in it."""
    for prefix, module in network.named_modules():
        for known, sizes in SIZES.items():
            if isinstance(module, known):
                for flag, (name, dimension) in sizes.items():
                    yield flag, f"{prefix}.{name}" if prefix else name, dimension


def _inputs(state: Mapping[str, Tensor]) -> list[int]:
    """Number of features that each fusion layer reads, without the previous layer's output.

    Empty if the state holds no central weights, or some of other than two dimensions.
    """
    layers = {int(match[1]): value for name, value in state.items() if (match := LAYER.fullmatch(name))}
    classifier = state.get("central_classifier.weight")
    if classifier is None or any(weight.ndim != 2 for weight in (classifier, *layers.values())):
        return []
    return [layers[n].shape[1] - classifier.shape[1] * (n > 0) for n in sorted(layers)]


def _describe(inputs: list[int]) -> str:
    return f"{len(inputs)} layers that read {', '.join(map(str, inputs))}"
