"""The parts of a training step as compiled functions on flat arrays: products, activations, random words, loss, Adam.

Matrices have rows that are padded to a multiple of LANES columns.
"""

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

import models.dropout
import utils.training.adam
from models.dropout import KEY_STEPS, MULTIPLIERS, ROUNDS
from utils.candidates.fused.lanes import LANES, add_scaled, element, float_of_bits, load, put, store
from utils.reading import sha256
from utils.training.adam import BETA1, BETA2, EPSILON

RELU, SIGMOID, LEAKY_RELU, GELU = range(4)  # see `models.fusion.ACTIVATIONS`
ZERO, ONE = np.int64(0), np.int64(1)  # a function is compiled anew for each literal number in its calls
ROWS = 4  # of a product, whose sums fit into the registers of a processor with AVX2


def _cache_folder() -> str:
    """Folder for the compiled code, named by its sources: numba does not notice a change in another module."""
    here = Path(__file__).parent
    sources = [*sorted(here.glob("*.py")), Path(models.dropout.__file__), Path(utils.training.adam.__file__)]
    digest = sha256(b"".join(path.read_bytes() for path in sources))[:16]
    own = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else [here / "__pycache__", Path("~/.cache")]
    for place in own:
        with contextlib.suppress(OSError, RuntimeError):  # without a home
            folder = place.expanduser() / f"fused-{digest}"
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return str(folder)
    return ""


CACHE = _cache_folder()


def compiled(function: Callable) -> Any:
    """Compile a function with numba, once per machine: the code is kept on disk if there is a writable place for it."""
    result = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"})(function)
    if CACHE:
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, CACHE
        try:
            result.enable_caching()
        finally:
            numba.config.CACHE_DIR = before
    return result


def padded(units: int) -> int:
    """Return the width of a row of `units`."""
    return -(-units // LANES) * LANES


@compiled
def add_product(sums, left, row_step, inner_step, right, starts, shift, rows, inner, width):
    """Add the product of two matrices in flat arrays to `sums` (rows, width); width is a multiple of LANES.

    Element (i, k) of the left one is at i `row_step` + k `inner_step`; row k of the right one begins at `starts[k]` +
    `shift`.
    """
    whole = rows - rows % ROWS
    for column in range(0, width, LANES):
        for i in range(0, whole, ROWS):
            at = i * width + column
            a, b = load(sums, at), load(sums, at + width)
            c, d = load(sums, at + 2 * width), load(sums, at + 3 * width)
            for k in range(inner):
                p = i * row_step + k * inner_step
                values = load(right, element(starts, k) + shift + column)
                a = add_scaled(a, element(left, p), values)
                b = add_scaled(b, element(left, p + row_step), values)
                c = add_scaled(c, element(left, p + 2 * row_step), values)
                d = add_scaled(d, element(left, p + 3 * row_step), values)
            store(sums, at, a)
            store(sums, at + width, b)
            store(sums, at + 2 * width, c)
            store(sums, at + 3 * width, d)
        for i in range(whole, rows):
            at = i * width + column
            a = load(sums, at)
            for k in range(inner):
                values = load(right, element(starts, k) + shift + column)
                a = add_scaled(a, element(left, i * row_step + k * inner_step), values)
            store(sums, at, a)


@compiled
def exponential(x):
    """e^x to float32 precision, clamped to the range of float32; written out, so that loops of it are vectorized."""
    x = np.float32(min(max(x, np.float32(-87.0)), np.float32(88.0)))
    n = math.floor(x * np.float32(1.44269504) + np.float32(0.5))
    r = x - np.float32(n) * np.float32(0.693359375) + np.float32(n) * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@compiled
def draw_words(words, blocks, batch, layer, place, key):
    """Fill `words`, four times `blocks`, with Philox blocks, the same that `models.dropout.philox` draws."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    for block in range(blocks):
        a, b, c, d = np.uint64(block), np.uint64(batch), np.uint64(layer), np.uint64(place)
        first, second = key & low, key >> half
        for _ in range(ROUNDS):
            p, q = a * np.uint64(MULTIPLIERS[0]), c * np.uint64(MULTIPLIERS[1])
            a, b, c, d = (q >> half) ^ b ^ first, q & low, (p >> half) ^ d ^ second, p & low
            first, second = (first + np.uint64(KEY_STEPS[0])) & low, (second + np.uint64(KEY_STEPS[1])) & low
        put(words, block, np.uint32(a))
        put(words, blocks + block, np.uint32(b))
        put(words, 2 * blocks + block, np.uint32(c))
        put(words, 3 * blocks + block, np.uint32(d))


@compiled
def activate(z, slopes, kind):
    """Replace z by its activation, and write the activation's derivative to `slopes`."""
    one, half = np.float32(1), np.float32(0.5)
    if kind == RELU:
        for i in range(len(z)):
            slopes[i] = one if z[i] > 0 else np.float32(0)
            z[i] = z[i] if z[i] > 0 else np.float32(0)
    elif kind == SIGMOID:
        for i in range(len(z)):
            h = one / (one + exponential(-z[i]))
            slopes[i] = h * (one - h)
            z[i] = h
    elif kind == LEAKY_RELU:
        for i in range(len(z)):
            slopes[i] = one if z[i] > 0 else np.float32(0.01)
            z[i] = z[i] * slopes[i]
    else:  # GELU by the error function of Abramowitz and Stegun, 7.1.26, exact to 1.5e-7
        for i in range(len(z)):
            x = abs(z[i]) * np.float32(0.70710678)
            t = one / (one + np.float32(0.3275911) * x)
            p = np.float32(1.061405429) * t - np.float32(1.453152027)
            p = (p * t + np.float32(1.421413741)) * t - np.float32(0.284496736)
            density = exponential(-x * x)
            tail = half * (p * t + np.float32(0.254829592)) * t * density  # P(Z > |z|)
            below = tail if z[i] < 0 else one - tail
            slopes[i] = below + z[i] * np.float32(0.39894228) * density
            z[i] = z[i] * below


@compiled
def gradient_of_logits(logits, targets, first, count, classes, width, multi_label):
    """Replace logits (count, width) by the gradient of their mean loss; `targets` are those of all samples, (N, C)."""
    one = np.float32(1)
    if multi_label:
        for i in range(count * width):
            logits[i] = one / (one + exponential(-logits[i]))
    else:
        for i in range(count):
            highest = element(logits, i * width)
            for c in range(classes):
                highest = max(highest, element(logits, i * width + c))
            for c in range(classes):
                put(logits, i * width + c, element(logits, i * width + c) - highest)
        for i in range(count * width):
            logits[i] = exponential(logits[i])
        for i in range(count):
            total = np.float32(0)
            for c in range(classes):
                total += element(logits, i * width + c)
            for c in range(classes):
                put(logits, i * width + c, element(logits, i * width + c) / total)
    share = np.float32(1 / (count * classes if multi_label else count))
    for i in range(count):
        for c in range(classes):
            target = element(targets, (first + i) * classes + c)
            put(logits, i * width + c, (element(logits, i * width + c) - target) * share)
        for c in range(classes, width):
            put(logits, i * width + c, np.float32(0))


@compiled
def adam_step(weights, mean, square, gradient, rate, decay, step):
    """Take the step number `step` of Adam; see `utils.training.adam`."""
    scale = np.float32(rate / (1 - BETA1**step))
    root = np.float32(1 / math.sqrt(1 - BETA2**step))
    decay, epsilon = np.float32(decay), np.float32(EPSILON)
    for i in range(len(weights)):
        g = gradient[i] + decay * weights[i]
        mean[i] += np.float32(1 - BETA1) * (g - mean[i])
        square[i] = np.float32(BETA2) * square[i] + np.float32(1 - BETA2) * g * g
        weights[i] -= scale * mean[i] / (np.sqrt(square[i]) * root + epsilon)
