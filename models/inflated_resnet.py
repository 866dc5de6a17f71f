"""The RGB network of NTU RGB+D: a ResNet-50 whose 3x3 convolutions see three frames (an inflated network).

The stem runs frame by frame in 2D; strides act in space only, so the number of frames never changes. Parameter names
are the published ones.

Notation: batch B, frames T, height H, width W, stride s, classes C.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.unimodal import UnimodalNetwork

POOLED = 7  # side of the averaged window of the last map: the corner of an 8x8 map, as published


class _Bottleneck(nn.Module):
    """1x1x1, 3x3x3 and 1x1x1 convolutions with a shortcut; the output has 4 `width` channels."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        steps = (1, stride, stride)
        self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, 3, steps, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if inputs != 4 * width:  # the first block of a stage
            projection = nn.Conv3d(inputs, 4 * width, 1, steps, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))  # (B, width, T, H, W)
        y = self.relu(self.bn2(self.conv2(y)))  # (B, width, T, H/s, W/s)
        y = self.bn3(self.conv3(y))  # (B, 4 width, T, H/s, W/s)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))  # (B, 4 width, T, H/s, W/s)


class _Stages(nn.Module):
    """The stem and the four stages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = 64
        for i, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
            first = _Bottleneck(inputs, width, stride=1 if i == 1 else 2)
            inputs = 4 * width
            others = [_Bottleneck(inputs, width, stride=1) for _ in range(blocks - 1)]
            self.add_module(f"layer{i}", nn.Sequential(first, *others))

    def forward(self, clips: Tensor) -> list[Tensor]:
        """Compute the maps of the stages i = 1 ... 4, each (B, 128 2^i, T, H/2/2^i, W/2/2^i)."""
        x = clips.flatten(0, 1).movedim(-1, 1)  # (B T, 3, H, W)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B T, 64, H/4, W/4)
        x = x.unflatten(0, clips.shape[:2]).transpose(1, 2)  # (B, 64, T, H/4, W/4)
        maps = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            maps.append(x)
        return maps


class InflatedResNet50(UnimodalNetwork):
    """Normalized BGR clips (B, T, H, W, 3) of any length.

    Features are 512, 1024, 2048 (averages of the maps) and 2048 (input of the classifier) wide.
    """

    feature_widths = (512, 1024, 2048, 2048)
    depth = len(feature_widths)

    def __init__(self, num_outputs: int = 60) -> None:
        super().__init__()
        self.cnn = _Stages()
        self.classifier = nn.Linear(2048, num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def pooled(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.cnn(x)
        corner = maps[-1][..., :POOLED, :POOLED].mean(dim=(2, 3, 4))  # (B, 2048)
        features = [y.mean(dim=(2, 3, 4)) for y in maps[1:]]  # (B, 512), (B, 1024), (B, 2048)
        return [*features, corner], self.classifier(corner)  # (B, C)


def inflate(state: Mapping[str, Tensor], how: str) -> dict[str, Tensor]:
    """Convert the state_dict of torchvision's 2D ResNet-50 for `InflatedResNet50().cnn`.

    Args:
        how: "centre" puts a 2D kernel on the middle frame (the network then starts as the 2D one, frame by frame),
            "average" spreads it evenly over the frames.
    """
    weights = {"centre": torch.tensor([0.0, 1.0, 0.0]), "average": torch.full((3,), 1 / 3)}[how]
    inflated = {}
    for name, value in state.items():
        if name.startswith("fc."):
            continue
        if value.ndim == 4 and name != "conv1.weight":  # the stem stays 2D
            depth = weights if value.shape[-1] > 1 else torch.ones(1)
            value = value.unsqueeze(2) * depth.view(1, 1, -1, 1, 1)  # (out, in, frames, h, w)
        inflated[name] = value
    return inflated
