"""Identify the flags that would make a checkpoint fit a network, from the shapes of the parameters that it holds."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from models.fusion import CentralWeights
from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from models.lenet import LeNet

LAYER = re.compile(r"fusion_layers\.(\d+)\.0\.weight")
NORM = re.compile(r"fusion_layers\.\d+\.2\.running_mean")
SIZES: tuple[tuple[type[nn.Module], str, str, int], ...] = (  # network, parameter and dimension whose size a flag sets
    (LeNet, "--channels {}", "conv1.weight", 0),
    (LeNet, "--num_outputs {}", "classifier.0.weight", 0),
    (InflatedResNet50, "--num_outputs {}", "classifier.weight", 0),
    (SkeletonNet, "--vid_len 8 {}", "conv2.weight", 0),  # the first number counts frames of clips: no shape reveals it
    (SkeletonNet, "--num_outputs {}", "fc8.weight", 0),
    (CentralWeights, "--num_outputs {}", "central_classifier.weight", 0),
    (CentralWeights, "--inner_representation_size {}", "central_classifier.weight", 1),
)


def flags_that_fit(network: nn.Module, held: Mapping[str, Tensor]) -> list[str]:
    """Return the flags, with the values of the state_dict `held`, in which a checkpoint differs from a network.

    For example, ["--channels 4"]; empty if no flag explains the difference.
    """
    own, flags = network.state_dict(), list[str]()
    for prefix, module in network.named_modules():
        for kind, flag, parameter, dimension in SIZES:
            name = f"{prefix}.{parameter}".removeprefix(".")
            if isinstance(module, kind) and name in held and held[name].ndim == own[name].ndim:
                size = held[name].shape[dimension]
                if size != own[name].shape[dimension]:
                    flags.append(flag.format(size))
    mine, theirs = _inputs(own), _inputs(held)
    if mine is not None and theirs is not None:
        trained = any(NORM.fullmatch(name) for name in held)
        if trained != any(NORM.fullmatch(name) for name in own):
            flags.append("--batchnorm" if trained else "no --batchnorm")
        # Other backbones have features of other widths, so widths identify the rows only if the backbones agree.
        others = any(flag.startswith(("--channels", "--vid_len")) for flag in flags)
        if len(mine) != len(theirs) or (not others and mine != theirs):
            flags.append(f"a --conf of {_describe(theirs)} features, not {_describe(mine)}")
    return list(dict.fromkeys(flags))


def _inputs(state: Mapping[str, Tensor]) -> list[int] | None:
    """Number of features that each fusion layer reads, without the previous layer's output.

    None if the state holds no central weights, or they are not matrices.
    """
    layers = [match for match in map(LAYER.fullmatch, state) if match]
    names = ["central_classifier.weight", *(match[0] for match in layers)]
    if not all(name in state and state[name].ndim == 2 for name in names):
        return None
    inner = state["central_classifier.weight"].shape[1]
    widths = sorted((int(match[1]), state[match[0]].shape[1]) for match in layers)
    return [width - inner * (layer > 0) for layer, width in widths]


def _describe(inputs: list[int]) -> str:
    return f"{len(inputs)} layers that read {', '.join(map(str, inputs))}"
