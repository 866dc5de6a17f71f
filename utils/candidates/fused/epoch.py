"""One candidate's training as a single compiled function: gather, forward, loss, backward, dropout and Adam in one go.

With batches of 32, starting an operation of PyTorch takes longer than its arithmetic. Here a whole piece of an epoch is
one call, whose arrays stay in the cache, and which runs beside others on a thread of its own.

Notation: that of `models.fusion`. The L fusion layers and the central classifier are L + 1 products of the same kind,
Z_l = X_l W_l, where a row of X_l holds the features that layer l reads, h_(l-1), and a 1 for the bias. All W_l, their
gradients and the moments of Adam lie one after the other in flat arrays. Rows of W_l and Z_l are padded with zeros to
a multiple of LANES units, and stay zero in training.
"""

import numpy as np

from models.dropout import SAMPLES
from utils.candidates.fused.lanes import copy, element, put
from utils.candidates.fused.operations import (
    ONE,
    ZERO,
    activate,
    adam_step,
    add_product,
    compiled,
    draw_words,
    gradient_of_logits,
    padded,
)


def describe(spans: np.ndarray, activations: np.ndarray, size: int, classes: int) -> tuple[np.ndarray, ...]:
    """Describe a candidate as the functions below take it: (starts, inputs, spans, activations).

    Args:
        spans: first column and width of each feature that a layer reads, (L, modalities, 2).
        activations: index of each layer's activation, (L,).

    Returns:
        starts: place of each W_l in the flat arrays, (L + 2,): the last is their length.
        inputs: width of each X_l, (L + 1,).
    """
    depth = len(spans)
    inputs = np.append(spans[:, :, 1].sum(1) + size * (np.arange(depth) > 0) + 1, size + 1)
    widths = np.array([padded(size)] * depth + [padded(classes)])
    return np.append(0, np.cumsum(inputs * widths)), inputs, spans, activations


def make_buffers(inputs: np.ndarray, batch: int, size: int, classes: int) -> tuple[np.ndarray, ...]:
    """Make the arrays for one batch: X_l, Z_l and slopes of every layer, each flat; random words; and a grid.

    A slope is the derivative of a unit's activation, times its dropout mask. The grid, (2, any number), says where rows
    of a fusion layer's width begin in a flat array, and rows of the classifier's.
    """
    narrow, wide = padded(size), padded(classes)
    xs = np.zeros((len(inputs), batch * inputs.max()), np.float32)
    zs = np.zeros((len(inputs), batch * max(narrow, wide)), np.float32)
    words = np.zeros(4 * -(-batch // SAMPLES) * size, np.uint32)
    grid = np.outer([narrow, wide], np.arange(max(inputs.max(), batch, narrow, wide)))
    return xs, zs, np.zeros_like(zs), words, grid


@compiled
def forward(weights, head, buffers, rows, columns, first, count, mask):
    """Fill X_l, Z_l and the slopes of all layers; the last Z holds the logits.

    Args:
        weights: all W_l, flat.
        head, buffers: see `describe` and `make_buffers`.
        rows, columns: feature rows, flat, and the width of one; this batch is the `count` rows from `first` on.
        mask: (dropout threshold, factor, batch number, place, seed); threshold 0: no dropout.
    """
    starts, inputs, spans, activations = head
    xs, zs, slopes, words, grid = buffers
    limit, factor, batch, place, key = mask
    depth, size = len(activations), inputs[-1] - 1
    blocks = -(-count // SAMPLES) * size
    for layer in range(depth + 1):
        x, z, own = xs[layer], zs[layer], inputs[layer]
        width = (starts[layer + 1] - starts[layer]) // own
        for i in range(count):
            at = i * own
            if layer < depth:
                for m in range(spans.shape[1]):
                    copy(x, at, rows, (first + i) * columns + spans[layer, m, 0], spans[layer, m, 1])
                    at += spans[layer, m, 1]
            put(x, (i + 1) * own - 1, np.float32(1))
        z[: count * width] = 0
        add_product(z, x, own, ONE, weights, grid[int(layer == depth)], starts[layer], count, own, width)
        if layer == depth:
            break
        slope = slopes[layer]
        activate(z[: count * width], slope[: count * width], activations[layer])
        if limit:
            draw_words(words, blocks, batch, layer, place, key)
        for i in range(count):
            at = i * width
            if limit:
                drawn, shift = i % SAMPLES // 2 * blocks + i // SAMPLES * size, np.uint32(16 * (i % 2))
                for s in range(size):
                    number = element(words, drawn + s) >> shift & np.uint32(0xFFFF)
                    kept = factor if number >= limit else np.float32(0)
                    put(z, at + s, element(z, at + s) * kept)
                    put(slope, at + s, element(slope, at + s) * kept)
            copy(xs[layer + 1], (i + 1) * inputs[layer + 1] - 1 - size, z, at, size)


@compiled
def backward(gradient, weights, head, buffers, d_h, transposed, count):
    """Add the gradient of all W_l, given that of the logits in the last Z; the other Z_l become gradients, too.

    Args:
        d_h, transposed: buffers for the gradient of h_l, and for the transpose of the part of W_l that reads h_(l-1).
        Others as in `forward`.
    """
    starts, inputs, _, _ = head
    xs, zs, slopes, _, grid = buffers
    depth, size, narrow = len(inputs) - 1, inputs[-1] - 1, starts[1] // inputs[0]
    for layer in range(depth, -1, -1):
        own, d_z = inputs[layer], zs[layer]
        width = (starts[layer + 1] - starts[layer]) // own
        if layer < depth:
            slope = slopes[layer]
            for i in range(count * width):
                d_z[i] = d_h[i] * slope[i]
        add_product(
            gradient[starts[layer] :], xs[layer], ONE, own, d_z, grid[int(layer == depth)], ZERO, own, count, width
        )
        if layer:
            first = starts[layer + 1] - (size + 1) * width
            for s in range(size):
                for u in range(width):
                    put(transposed, u * narrow + s, element(weights, first + s * width + u))
            d_h[: count * narrow] = 0
            add_product(d_h, d_z, width, ONE, transposed, grid[0], ZERO, count, width, narrow)


@compiled
def train_steps(weights, mean, square, head, buffers, rows, targets, batch, rates, done, decay, mask, multi_label):
    """Train one candidate for the steps that `rows` hold.

    Args:
        weights, mean, square: all W_l and the moments of their gradients, flat; changed in place.
        rows, targets: of the samples in order, (N, D) and (N, C).
        batch: samples of a batch; the last one may be smaller.
        rates: learning rate of each step.
        done: steps of this training before these.
        decay: weight decay.
        mask: (dropout threshold, factor, number of the first batch, place, seed).
        Others as in `forward`.
    """
    starts, inputs, _, activations = head
    logits, classes = buffers[1][len(activations)], targets.shape[1]
    narrow, wide = starts[1] // inputs[0], (starts[-1] - starts[-2]) // inputs[-1]
    d_h, transposed = np.zeros(batch * narrow, np.float32), np.zeros(max(narrow, wide) * narrow, np.float32)
    gradient, flat_rows, flat_targets = np.zeros_like(weights), rows.ravel(), targets.ravel()
    limit, factor, number, place, key = mask
    for step in range(len(rates)):
        first = step * batch
        count = min(batch, len(rows) - first)
        now = (limit, factor, number + step, place, key)
        forward(weights, head, buffers, flat_rows, rows.shape[1], first, count, now)
        gradient_of_logits(logits, flat_targets, first, count, classes, wide, multi_label)
        gradient[:] = 0
        backward(gradient, weights, head, buffers, d_h, transposed, count)
        adam_step(weights, mean, square, gradient, rates[step], decay, done + step + 1)


@compiled
def predict(logits, weights, head, buffers, rows, batch):
    """Fill the logits (N, C) of one candidate for feature rows (N, D), without dropout; see `train_steps`."""
    starts, inputs, _, activations = head
    (samples, classes), width = logits.shape, (starts[-1] - starts[-2]) // inputs[-1]
    flat_rows, flat_logits = rows.ravel(), logits.ravel()
    none = (np.uint32(0), np.float32(1), ZERO, ZERO, np.uint64(0))
    for first in range(0, samples, batch):
        count = min(batch, samples - first)
        forward(weights, head, buffers, flat_rows, rows.shape[1], first, count, none)
        for i in range(count):
            copy(flat_logits, (first + i) * classes, buffers[1][len(activations)], i * width, classes)
