"""Train candidates side by side on a feature bank, each by a compiled function on one thread of the CPU."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.dropout import threshold
from models.fusion import FeatureLayout, FusionHead, Outputs
from models.rows import SKIP
from utils.candidates.fused.epoch import describe, make_buffers, predict, train_steps
from utils.candidates.fused.operations import padded
from utils.training.adam import FlatAdam
from utils.training.batches import ArraySplit, Batches
from utils.training.loop import EpochResult, TrainingSettings

SAMPLES_AT_ONCE = 64  # that a prediction computes together, so that they stay in the cache
STEPS_AT_ONCE = 512  # most steps of every candidate on the same rows, which are gathered once for all
BYTES_AT_ONCE = 64 << 20  # most bytes of these rows


class FusedHeads(nn.Module):
    """Fusion heads without batch norm or alphas, whose central weights lie in one flat array, see `fused.epoch`.

    The parameters of a head are views of its part; the state of this module is the array.
    """

    flat: Tensor

    def __init__(self, heads: Sequence[FusionHead], layout: FeatureLayout) -> None:
        super().__init__()
        self.layout, self.settings = layout, heads[0].settings
        self.heads = tuple(heads)  # not registered
        self.sizes = [sum(rows * width for rows, width in _shapes(head)) for head in heads]
        self.register_buffer("flat", torch.zeros(sum(self.sizes)))
        for head, part in zip(heads, self.split(self.flat), strict=True):
            _flatten(head, part)
        # Moments of weights without a gradient decay to denormal numbers, with which Intel's processors are far slower.
        self.pool = ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_flush_denormal, initargs=(True,))
        shape = (self.settings.inner_size, layout.num_outputs)
        self.described = [
            describe(_spans(head, layout), np.array([row[-1] for row in head.configuration]), *shape) for head in heads
        ]

    def split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Split an array like the flat one into the parts of each head."""
        return flat.split(self.sizes)

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return the central weights of one head under their published names."""
        return {name: value.clone() for name, value in self.heads[member].state_dict().items()}

    @torch.no_grad()
    def forward(self, rows: Tensor) -> Outputs:
        """Compute logits (K, B, C) from rows (B, layout.total); with multitask the unimodal networks' logits follow."""
        values = rows.contiguous().numpy()
        logits = self.pool.map(self._predict, range(len(self.heads)), itertools.repeat(values))
        fused = torch.stack([torch.from_numpy(own) for own in logits])  # (K, B, C)
        return (fused, *reversed(self.layout.split(rows)[1])) if self.settings.multitask else fused

    def make_buffers(self, k: int, batch: int) -> tuple[np.ndarray, ...]:
        """Make the arrays for a batch of one head."""
        return make_buffers(self.described[k][1], batch, self.settings.inner_size, self.layout.num_outputs)

    def _predict(self, k: int, rows: np.ndarray) -> np.ndarray:
        logits = np.empty((len(rows), self.layout.num_outputs), np.float32)
        buffers = self.make_buffers(k, SAMPLES_AT_ONCE)
        predict(logits, self.split(self.flat)[k].numpy(), self.described[k], buffers, rows, SAMPLES_AT_ONCE)
        return logits


def _linears(head: FusionHead) -> list[nn.Linear]:
    return [module for module in head.modules() if isinstance(module, nn.Linear)]  # the classifier is the last


def _shapes(head: FusionHead) -> list[tuple[int, int]]:
    """(inputs and bias, padded units) of each layer."""
    return [(linear.in_features + 1, padded(linear.out_features)) for linear in _linears(head)]


def _flatten(head: FusionHead, flat: Tensor) -> None:
    """Move the central weights of a head to its part of the flat array, one layer after the other."""
    shapes = _shapes(head)
    parts = flat.split([rows * width for rows, width in shapes])
    for linear, part, shape in zip(_linears(head), parts, shapes, strict=True):
        block = part.view(shape)[:, : linear.out_features]
        block[:-1], block[-1] = linear.weight.detach().T, linear.bias.detach()
        linear.weight.data, linear.bias.data = block[:-1].T, block[-1]


def _spans(head: FusionHead, layout: FeatureLayout) -> np.ndarray:
    """First column and width of the features that each layer reads, (L, modalities, 2); width 0 if it skips one."""
    columns = layout.columns()
    chosen = [[(0, 0) if i == SKIP else columns[m][i] for m, i in enumerate(row[:-1])] for row in head.configuration]
    return np.array(chosen, np.int64)


class FusedTraining:
    """Train all heads, one pass per call; see `utils.training.loop.train_and_evaluate`."""

    def __init__(self, heads: FusedHeads, settings: TrainingSettings, place: int = 0) -> None:
        """
        Args:
            place: of the first head in its step.
        """
        self.heads, self.settings, self.place = heads, settings, place
        self.optimizer = FlatAdam(heads.flat)

    def __call__(self, batches: Batches, rates: Iterator[float], seed: int) -> EpochResult:
        """Train one pass; dropout derives from the seed."""
        assert isinstance(batches.split, ArraySplit)  # a feature table
        (table,), labels, size = batches.split.inputs, batches.split.labels, batches.batch_size
        order = torch.arange(len(labels)) if batches.order is None else batches.order
        used = np.zeros(0)
        steps = max(1, min(STEPS_AT_ONCE, BYTES_AT_ONCE // (4 * self.heads.layout.total * size)))
        for number, chosen in enumerate(order.split(steps * size)):
            rows, own = table[chosen].contiguous().numpy(), labels[chosen]
            hot = own if own.ndim == 2 else F.one_hot(own, self.heads.layout.num_outputs)
            used = np.array([next(rates) for _ in range(-(-len(chosen) // size))])
            piece = (rows, hot.float().numpy(), used, number * steps, size, seed)
            for call in [self.heads.pool.submit(self._train, k, *piece) for k in range(len(self.heads.heads))]:
                call.result()
            self.optimizer.moments["step"] += len(used)
        return EpochResult(rate=float(used[-1]))

    def _train(
        self, k: int, rows: np.ndarray, targets: np.ndarray, rates: np.ndarray, batch: int, size: int, seed: int
    ) -> None:
        """Train one head for the steps from the batch number `batch` on."""
        moments, shape = self.optimizer.moments, self.heads.settings
        arrays = (self.optimizer.weights, moments["exp_avg"], moments["exp_avg_sq"])
        limit = threshold(shape.dropout) if shape.dropout > 0 else 0
        mask = (np.uint32(limit), np.float32(1 / (1 - shape.dropout)), batch, self.place + k, np.uint64(seed))
        train_steps(
            *(self.heads.split(x)[k].numpy() for x in arrays),
            self.heads.described[k],
            self.heads.make_buffers(k, size),
            rows,
            targets,
            size,
            rates,
            int(moments["step"]),
            self.settings.weight_decay,
            mask,
            shape.multi_label,
        )


def is_compiled() -> bool:
    """Return True if an earlier process left the compiled code on disk."""
    return any(Path(train_steps.stats.cache_path or "").glob("epoch.train_steps*.nbi"))
