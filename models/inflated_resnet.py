"""The RGB network of NTU: a ResNet-50 whose 3x3 convolutions see three frames (an inflated network).

The stem runs frame by frame in 2D; strides act in space only, so that all frames live to the end. Parameter names are
the published ones.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

POOLED = 7  # side of the window of the last map that is averaged: the corner of an 8x8 one, as published


class _Bottleneck(nn.Module):
    """1x1x1, 3x3x3 and 1x1x1 convolutions around a shortcut; the last widens four times."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
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
        if project:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, 4 * width, 1, steps, bias=False), nn.BatchNorm3d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))  # (B, width, T, H, W)
        y = self.relu(self.bn2(self.conv2(y)))  # (B, width, T, H/s, W/s)
        y = self.bn3(self.conv3(y))  # (B, 4 width, T, H/s, W/s)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Stages(nn.Module):
    """Stem and the four stages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = 64
        for i, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
            stage = []
            for block in range(blocks):
                stage.append(_Bottleneck(inputs, width, stride=2 if block == 0 and i > 1 else 1, project=block == 0))
                inputs = 4 * width
            self.add_module(f"layer{i}", nn.Sequential(*stage))

    def forward(self, clips: Tensor) -> list[Tensor]:
        """Clips (B, T, H, W, 3) to the maps of the stages, (B, 256 2^i, T, H/4/2^i, W/4/2^i)."""
        batch = len(clips)
        x = clips.flatten(0, 1).movedim(-1, 1)  # (B T, 3, H, W)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # (B T, 64, H/4, W/4)
        x = x.unflatten(0, (batch, -1)).transpose(1, 2)  # (B, 64, T, H/4, W/4)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps


class InflatedResNet50(nn.Module):
    """Clips (B, T, H, W, 3) of any length, BGR, normalised; features 512, 1024, 2048 (maps) and 2048 (pooled) wide."""

    feature_widths = (512, 1024, 2048, 2048)
    depth = len(feature_widths)
    shape_flags: ClassVar = {"num_outputs": ("classifier.weight", 0)}

    def __init__(self, num_outputs: int = 60) -> None:
        super().__init__()
        self.cnn = _Stages()
        self.classifier = nn.Linear(2048, num_outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def pooled(self, clips: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features that fusion reads, each (B, its width), and the logits (B, num_outputs)."""
        maps = self.cnn(clips)
        corner = maps[-1][..., :POOLED, :POOLED].mean(dim=(2, 3, 4))  # (B, 2048)
        features = [x.mean(dim=(2, 3, 4)) for x in maps[1:]]  # (B, 512), (B, 1024), (B, 2048)
        return [*features, corner], self.classifier(corner)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (B, num_outputs)."""
        return self.pooled(clips)[1]


def inflate(state: Mapping[str, Tensor], how: str, frames: int = 3) -> dict[str, Tensor]:
    """Turn the state of torchvision's 2D ResNet-50 into one for `InflatedResNet50().cnn`.

    Args:
        how: "centre" puts a 2D kernel on the middle frame (the network then starts as the 2D one, frame by frame),
            "average" spreads it evenly over the frames.
        frames: of the 3x3 kernels.
    """
    weights = {"centre": torch.zeros(frames), "average": torch.full((frames,), 1 / frames)}[how]
    if how == "centre":
        weights[frames // 2] = 1
    inflated = {}
    for name, value in state.items():
        if name.startswith("fc."):
            continue
        if value.ndim == 4 and name != "conv1.weight":  # the stem stays 2D
            depth = weights if value.shape[-1] > 1 else torch.ones(1)
            value = value.unsqueeze(2) * depth.view(1, 1, -1, 1, 1)  # (out, in, frames, h, w)
        inflated[name] = value
    return inflated
