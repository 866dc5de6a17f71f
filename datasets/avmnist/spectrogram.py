"""Compute the 112 x 112 gray spectrogram that the published generator draws with `matplotlib.specgram`.

Notation: n samples of signal, window of i samples, neighboring windows overlap by j, step s = i - j. The window is
the smallest i for which some 0 <= j < i gives exactly 112 windows: i + 111 s <= n < i + 112 s. A 223-point transform
of each window has 112 bins up to half the rate. One-sided power in dB, scaled between its own minimum and maximum,
goes through the red channel of matplotlib's `Greys` map (high power is dark); the highest frequency is the top row.
"""

import functools

import matplotlib
import numpy as np

SIZE = 112  # windows, and bins
TRANSFORM = 2 * SIZE - 1  # points of the Fourier transform
GREYS = matplotlib.colormaps["Greys"](np.arange(256), bytes=True)[:, 0].copy()  # level -> gray, (256,) uint8


@functools.cache
def window_plan(n: int) -> tuple[int, int]:
    """Window length i and overlap j for a signal of `n` samples, n >= 112.

    If several overlaps fit the smallest window, the smallest overlap is used.
    """
    if n < SIZE:
        raise ValueError(f"a spectrogram needs n >= {SIZE} samples, but got n={n}")
    for i in range(1, n):
        step = min(i, (n - i) // (SIZE - 1))
        if step >= 1 and i + SIZE * step > n:
            return i, i - step
    raise AssertionError(f"i={n - SIZE + 1} with step 1 always fits, n={n}")


@functools.lru_cache(maxsize=256)
def _transform(i: int) -> np.ndarray:
    """Hann window and one-sided Fourier transform as one matrix (min(i, 223), 224): real parts, then imaginary.

    Windows are shorter than the transform (about n / 112 samples), so this product is cheaper than an FFT of 223
    points, a prime. Longer windows are cut to 223 samples, as `numpy.fft` does for matplotlib.
    """
    k = np.arange(min(i, TRANSFORM))
    angle = np.outer(k, np.arange(SIZE)) % TRANSFORM * (2 * np.pi / TRANSFORM)
    one_sided = np.full(SIZE, np.sqrt(2.0))
    one_sided[0] = 1.0
    if i % 2 == 0:  # matplotlib treats the last bin of an even window as the one at half the rate
        one_sided[-1] = 1.0
    window = np.hanning(i)[: len(k), None]
    return np.hstack([np.cos(angle) * one_sided, -np.sin(angle) * one_sided]) * window


def spectrograms(signals: np.ndarray) -> np.ndarray:
    """Compute spectrograms of signals of equal length: (B, n) -> (B, 112, 112) uint8.

    Signals are computed independently, so the bytes do not depend on the batch. Bins with no power (digital
    silence) are ignored for the minimum and are white.
    """
    i, j = window_plan(signals.shape[1])
    windows = np.lib.stride_tricks.sliding_window_view(signals, i, axis=1)[:, :: i - j, :TRANSFORM]
    spectrum = np.ascontiguousarray(windows, dtype=np.float64) @ _transform(i)  # (B, 112, 224)
    np.square(spectrum, out=spectrum)
    level = spectrum[..., :SIZE] + spectrum[..., SIZE:]  # (B, window, bin): power
    with np.errstate(divide="ignore"):
        np.log(level, out=level)  # the factor 10 / ln 10 of dB cancels in the scaling
    top, bottom = level.max(axis=(1, 2)), level.min(axis=(1, 2))
    for b in np.flatnonzero(np.isneginf(bottom)):
        bottom[b] = np.min(level[b], where=np.isfinite(level[b]), initial=np.inf)
    span = top - bottom
    flat = ~(np.isfinite(span) & (span > 0))  # silent, or of constant power
    bottom[flat], span[flat] = np.inf, 1.0  # all levels become 0
    level -= bottom[:, None, None]
    level *= (256 / span)[:, None, None]
    np.clip(level, 0, 255, out=level)
    return GREYS[level.astype(np.uint8)[:, :, ::-1].swapaxes(1, 2)]
