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
    activate,
    adam_step,
    add_product,
    compiled,
    draw_words,
    gradient_of_logits,
    padded_,
)

PREDICTED = 64  # samples that `predict` computes at once


@compiled
def places(spans, size, classes):
    """Width of each X_l, (L + 1,), and place of each W_l in the flat arrays, (L + 2,): the last is their length."""
    depth = len(spans)
    inputs, starts = np.full(depth + 1, size + 1), np.zeros(depth + 2, np.int64)
    for layer in range(depth):
        inputs[layer] = spans[layer, :, 1].sum() + size * (layer > 0) + 1
        starts[layer + 1] = starts[layer] + inputs[layer] * padded_(size)
    starts[depth + 1] = starts[depth] + inputs[depth] * padded_(classes)
    return inputs, starts


@compiled
def make_room(inputs, batch, size, classes):
    """Arrays for one batch: X_l, Z_l and slopes of every layer, each flat; random words; and where rows begin.

    A slope is the derivative of a unit's activation, times its dropout mask. The last array, (2, any number), holds the
    starts of rows of a fusion layer's width and of the classifier's.
    """
    narrow, wide = padded_(size), padded_(classes)
    longest = max(inputs.max(), batch, classes)
    xs = np.zeros((len(inputs), batch * inputs.max()), np.float32)
    zs = np.zeros((len(inputs), batch * max(narrow, wide)), np.float32)
    words = np.zeros(4 * -(-batch // SAMPLES) * size, np.uint32)
    return xs, zs, np.zeros_like(zs), words, np.stack((np.arange(longest) * narrow, np.arange(longest) * wide))


@compiled
def forward(weights, starts, inputs, room, rows, columns, first, count, spans, activations, size, mask):
    """Fill X_l, Z_l and the slopes of all layers; the last Z holds the logits.

    Args:
        weights, starts: all W_l, and the place of each, (L + 2,).
        inputs: width of each X_l, (L + 1,).
        room: see `make_room`.
        rows, columns: feature rows, flat, and the width of one; this batch is the `count` rows from `first` on.
        spans: first column and width of each feature that a layer reads, (L, modalities, 2).
        activations: index of each layer's activation, (L,).
        mask: (dropout threshold, factor, batch number, place, seed); threshold 0: no dropout.
    """
    depth = len(activations)
    xs, zs, slopes, words, grid = room
    limit, factor, batch, place, key = mask
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
        add_product(z, x, own, 1, weights, grid[int(layer == depth)], starts[layer], count, own, width)
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
def backward(gradient, weights, starts, inputs, room, d_h, transposed, count, size, classes):
    """Add the gradient of all W_l, given that of the logits in the last Z; the other Z_l become gradients, too.

    Args:
        d_h, transposed: room for the gradient of h_l, and for the transpose of the part of W_l that reads h_(l-1).
        Others as in `forward`.
    """
    depth, narrow = len(inputs) - 1, padded_(size)
    xs, zs, slopes, _, grid = room
    for layer in range(depth, -1, -1):
        own, d_z, units = inputs[layer], zs[layer], size if layer < depth else classes
        width = padded_(units)
        if layer < depth:
            slope = slopes[layer]
            for i in range(count * width):
                d_z[i] = d_h[i] * slope[i]
        add_product(gradient[starts[layer] :], xs[layer], 1, own, d_z, grid[int(layer == depth)], 0, own, count, width)
        if layer:
            first = starts[layer + 1] - (size + 1) * width
            for s in range(size):
                for u in range(units):
                    put(transposed, u * narrow + s, element(weights, first + s * width + u))
            d_h[: count * narrow] = 0
            add_product(d_h, d_z, width, 1, transposed, grid[0], 0, count, units, narrow)


@compiled
def train_steps(
    weights, mean, square, rows, targets, spans, activations, size, batch, rates, done, decay, mask, multi_label
):
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
    (samples, columns), classes, depth = rows.shape, targets.shape[1], len(activations)
    inputs, starts = places(spans, size, classes)
    room = make_room(inputs, batch, size, classes)
    narrow, logits = padded_(size), room[1][depth]
    d_h, transposed = np.zeros(batch * narrow, np.float32), np.zeros(max(size, classes) * narrow, np.float32)
    gradient, flat_rows, flat_targets = np.zeros_like(weights), rows.ravel(), targets.ravel()
    limit, factor, number, place, key = mask
    for step in range(len(rates)):
        first = step * batch
        count = min(batch, samples - first)
        now = (limit, factor, number + step, place, key)
        forward(weights, starts, inputs, room, flat_rows, columns, first, count, spans, activations, size, now)
        gradient_of_logits(logits, flat_targets, first, count, classes, multi_label)
        gradient[:] = 0
        backward(gradient, weights, starts, inputs, room, d_h, transposed, count, size, classes)
        adam_step(weights, mean, square, gradient, rates[step], decay, done + step + 1)


@compiled
def predict(weights, rows, spans, activations, size, classes):
    """Logits (N, C) of one candidate for feature rows (N, D), without dropout."""
    (samples, columns), depth, width = rows.shape, len(activations), padded_(classes)
    inputs, starts = places(spans, size, classes)
    room = make_room(inputs, PREDICTED, size, classes)
    logits, flat_rows = np.empty(samples * classes, np.float32), rows.ravel()
    none = (np.uint32(0), np.float32(1), 0, 0, np.uint64(0))
    for first in range(0, samples, PREDICTED):
        count = min(PREDICTED, samples - first)
        forward(weights, starts, inputs, room, flat_rows, columns, first, count, spans, activations, size, none)
        for i in range(count):
            copy(logits, (first + i) * classes, room[1][depth], i * width, classes)
    return logits.reshape(samples, classes)
