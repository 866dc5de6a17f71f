"""The two unimodal networks of AV-MNIST.

Both are stacks of blocks (convolution, batch norm, ReLU, 2x2 max-pooling), each with twice the channels of the one
before; a linear layer classifies the global average of the last map. Parameter names are the published ones.

Notation: batch B, channels c of the first block, classes C.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.unimodal import UnimodalNetwork


class _MaxPool2x2(torch.autograd.Function):
    """2x2 max-pooling by comparing strided views, faster on CPUs than `max_pool2d` if there are few channels.

    As in `max_pool2d`, the gradient goes to the first of equal maxima in reading order, and an odd last row or column
    is dropped.
    """

    @staticmethod
    def _corners(x: Tensor) -> list[Tensor]:
        height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        return [x[:, :, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b, c, d = _MaxPool2x2._corners(x)
        top, bottom = torch.maximum(a, b), torch.maximum(c, d)
        y = torch.maximum(top, bottom)
        ctx.save_for_backward(x, top, bottom, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, top, bottom, y = ctx.saved_tensors
        result = torch.zeros_like(x) if x.shape[2] % 2 or x.shape[3] % 2 else torch.empty_like(x)
        corners, targets = _MaxPool2x2._corners(x), _MaxPool2x2._corners(result)
        to_top = (top == y).to(gradient.dtype).mul_(gradient)
        for i, maximum, share in ((0, top, to_top), (2, bottom, gradient - to_top)):
            to_left = (corners[i] == maximum).to(gradient.dtype).mul_(share)
            targets[i].copy_(to_left)
            torch.sub(share, to_left, out=targets[i + 1])
        return result


class LeNet(UnimodalNetwork):
    """`depth` blocks of channels c, 2c, 4c, ...; the first convolution is 5x5, the others 3x3."""

    depth: int
    first_feature_pooled: bool
    memory_format = torch.channels_last

    def __init__(self, channels: int = 3, num_outputs: int = 10) -> None:
        super().__init__()
        widths = [channels * 2**i for i in range(self.depth)]
        previous = 1
        for i, width in enumerate(widths, start=1):
            size = 5 if i == 1 else 3
            self.add_module(f"conv{i}", nn.Conv2d(previous, width, size, padding=size // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            previous = width
        self.classifier = nn.Sequential(nn.Linear(previous, num_outputs))
        self.feature_widths = widths
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_uniform_(module.weight)

    def pooled(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        features = []  # x: (B, 1, H, W)
        # On CPUs, convolutions with few channels are faster with channels last, everything else with channels first.
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"conv{i}")(x).contiguous()  # (B, c 2^(i-1), h, w)
            out = F.relu(self.get_submodule(f"bn{i}")(x))  # (B, c 2^(i-1), h, w)
            x = F.max_pool2d(out, 2) if out.is_cuda else _MaxPool2x2.apply(out)  # (B, c 2^(i-1), h/2, w/2)
            source = x if i == 1 and self.first_feature_pooled else out
            features.append(source.mean(dim=(2, 3)))  # (B, c 2^(i-1))
        return features, self.classifier(features[-1])  # (B, C)


class ImageLeNet(LeNet):
    """Images (B, 1, 28, 28); features c, 2c and 4c wide, averages of the maps before max-pooling."""

    depth = 3
    first_feature_pooled = False


class AudioLeNet(LeNet):
    """Spectrograms (B, 1, 112, 112) with values 0..255; features c, 2c, 4c, 8c and 16c wide.

    The first feature is an average after max-pooling, the others before it: the published checkpoints expect that.
    """

    depth = 5
    first_feature_pooled = True
