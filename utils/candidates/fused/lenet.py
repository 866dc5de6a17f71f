"""Features of the LeNets in eval mode, as compiled functions.

A block is one pass over the rows of its map: convolution, batch norm, ReLU, averages and max-pooling touch a row while
it is in the cache. With as few channels as these networks have, PyTorch spends most of the time on moving whole maps.
"""

import numpy as np
import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork
from models.lenet import LeNet
from utils.candidates.fused.lanes import LANES, copy, element, put
from utils.candidates.fused.operations import ONE, ROWS, add_product, compiled


@compiled
def block(maps, kernel, shifts, size):
    """Convolution, shift, ReLU and 2x2 max-pooling of maps (N, channels, H, W), with zeros around them.

    Args:
        kernel: (output channels, padded to a multiple of ROWS, channels x size x size).
        shifts: what is added to each output channel, (C,).

    Returns:
        The pooled maps (N, C, H // 2, W // 2), and the averages before and after pooling, (N, C) each.
    """
    samples, channels, height, width = maps.shape
    out, edge = len(shifts), size // 2
    wide = -(-width // LANES) * LANES
    across = wide + 2 * edge
    high, low, narrow = height + 2 * edge, height // 2, width // 2
    rows, inner, flat, weights = len(kernel), kernel.shape[1], maps.ravel(), kernel.ravel()
    around = np.zeros(channels * high * across, np.float32)
    starts = np.empty(inner, np.int64)
    for k in range(inner):
        starts[k] = (k // (size * size) * high + k // size % size) * across + k % size
    lines, totals = np.zeros((2, rows * wide), np.float32), np.zeros(out * wide, np.float32)
    pooled = np.empty(samples * out * low * narrow, np.float32)
    before, after = np.zeros((samples, out), np.float32), np.zeros((samples, out), np.float32)
    for n in range(samples):
        for c in range(channels):
            for y in range(height):
                copy(
                    around,
                    (c * high + y + edge) * across + edge,
                    flat,
                    ((n * channels + c) * height + y) * width,
                    width,
                )
        totals[:] = 0
        for y in range(height):
            line = lines[y % 2]
            for c in range(out):
                line[c * wide : (c + 1) * wide] = shifts[c]
            add_product(line, weights, inner, ONE, around, starts, y * across, rows, inner, wide)
            for i in range(out * wide):
                line[i] = max(line[i], np.float32(0))
                totals[i] += line[i]
            if y % 2 and y // 2 < low:
                for c in range(out):
                    target, source = ((n * out + c) * low + y // 2) * narrow, c * wide
                    for x in range(narrow):
                        top = max(element(lines[0], source + 2 * x), element(lines[0], source + 2 * x + 1))
                        bottom = max(element(line, source + 2 * x), element(line, source + 2 * x + 1))
                        put(pooled, target + x, max(top, bottom))
                    after[n, c] += pooled[target : target + narrow].sum()
        for c in range(out):
            before[n, c] = totals[c * wide : c * wide + width].sum() / np.float32(height * width)
    return pooled.reshape(samples, out, low, narrow), before, after / np.float32(max(1, low * narrow))


class FusedLeNet:
    """The weights of a LeNet in eval mode, with batch norm folded into the convolutions."""

    @torch.no_grad()
    def __init__(self, network: LeNet) -> None:
        self.network = network
        self.blocks: list[tuple[np.ndarray, np.ndarray, int]] = []
        for i in range(1, network.depth + 1):
            convolution, norm = network.get_submodule(f"conv{i}"), network.get_submodule(f"bn{i}")
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            scale = norm.weight * torch.rsqrt(variance + norm.eps)  # (C,)
            kernel = (convolution.weight.contiguous() * scale.view(-1, 1, 1, 1)).flatten(1)  # (C, channels k k)
            missing = -len(kernel) % ROWS
            kernel = torch.cat([kernel, kernel.new_zeros(missing, kernel.shape[1])])
            shifts = norm.bias - mean * scale
            self.blocks.append((kernel.numpy(), shifts.numpy(), convolution.kernel_size[0]))

    def pooled(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Compute features and logits as `LeNet.pooled` does."""
        maps, features = x.contiguous().numpy(), list[Tensor]()
        for number, weights in enumerate(self.blocks):
            maps, before, after = block(maps, *weights)
            features.append(torch.from_numpy(after if number == 0 and self.network.first_feature_pooled else before))
        return features, self.network.classifier(features[-1])


class FusedNetwork:
    """The LeNets of a fusion network."""

    def __init__(self, network: FusionNetwork) -> None:
        self.backbones = [FusedLeNet(backbone) for backbone in network.backbones() if isinstance(backbone, LeNet)]

    def feature_rows(self, *inputs: Tensor) -> Tensor:
        """Compute the rows (B, total) of a batch, as `FusionNetwork.feature_rows` does."""
        parts = [net.pooled(x) for net, x in zip(self.backbones, reversed(inputs), strict=True)]
        return torch.cat([x for features, _ in parts for x in features] + [logits for _, logits in parts], dim=1)
