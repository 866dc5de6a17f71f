"""The spectrogram as arrays against matplotlib's own drawing, and its properties."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from datasets.avmnist.spectrogram import SIZE, TRANSFORM, spectrograms, window_plan


def drawn(signal: np.ndarray) -> np.ndarray:
    """The red channel (112, 112) of what matplotlib draws for a signal (n,)."""
    i, j = window_plan(len(signal))
    figure = Figure(figsize=(1.12, 1.12), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.specgram(signal, NFFT=i, noverlap=j, pad_to=TRANSFORM, cmap="Greys")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., 0]


def differences(signals: list[np.ndarray]) -> np.ndarray:
    """Mean absolute difference in grey levels of each signal's spectrogram from its drawing."""
    pairs = [(spectrograms(signal[None])[0], drawn(signal)) for signal in signals]
    return np.array([np.abs(ours.astype(int) - theirs).mean() for ours, theirs in pairs])


# Windows of one or two samples are zero throughout, and digital silence has no dB: matplotlib warns, and draws white.
@pytest.mark.filterwarnings("ignore:(invalid|divide by zero):RuntimeWarning")
def test_twenty_synthetic_clips_look_as_matplotlib_draws_them():
    rng = np.random.default_rng(0)
    signals = []
    for n in [
        112,
        113,
        223,
        224,
        500,
        1148,
        3000,
        3499,
        8000,
        12656,
        18262,
        26000,
    ]:  # odd and even windows, up to > 223
        t = np.arange(n)
        signals.append((np.sin(0.3 * t) + 0.1 * rng.standard_normal(n)).astype(np.float32))
    for n in [600, 1500, 2500, 3500, 4500, 5500, 6500, 7500]:  # 16-bit speech has stretches of digital silence
        signal = (rng.standard_normal(n) * np.sin(np.pi * np.arange(n) / n) ** 8 * 8000).astype(np.int16)
        signals.append((signal / 32768).astype(np.float32))
    assert len(signals) == 20
    difference = differences(signals)
    assert (difference == 0).sum() >= 18
    assert difference.max() < 0.1


def test_twenty_real_clips_look_as_matplotlib_draws_them(real_data):
    paths = sorted((real_data / "fsdd" / "recordings").glob("*.wav"))
    chosen = np.random.default_rng(0).choice(len(paths), 20, replace=False)
    difference = differences([soundfile.read(paths[i], dtype="float32")[0] for i in chosen])
    assert (difference == 0).sum() >= 18
    assert difference.max() < 0.1


@given(st.integers(SIZE, 30000))
def test_window_plan_gives_112_windows_with_the_smallest_window(n):
    i, j = window_plan(n)
    assert 0 <= j < i
    assert SIZE * i - (SIZE - 1) * j <= n < (SIZE + 1) * i - SIZE * j
    assert (n - i) // (i - j) + 1 == SIZE
    smaller = np.arange(1, i)[:, None]
    steps = np.arange(1, i)[None, :]
    fits = (smaller + (SIZE - 1) * steps <= n) & (n < smaller + SIZE * steps) & (steps <= smaller)
    assert not fits.any()


def test_window_plan_refuses_short_signals():
    with pytest.raises(ValueError, match="n >= 112"):
        window_plan(111)


@settings(max_examples=20)
@given(st.integers(SIZE, 5000), st.integers(0, 2**32 - 1))
def test_a_spectrogram_does_not_depend_on_its_batch_or_level(n, seed):
    signals = np.random.default_rng(seed).standard_normal((3, n))
    together = spectrograms(signals)
    assert together.shape == (3, SIZE, SIZE)
    assert together.dtype == np.uint8
    assert (together[1] == spectrograms(signals[1:2])[0]).all()
    assert (together == spectrograms(signals * 0.25)).all()  # a power of two: no rounding


def test_high_frequencies_are_on_top_and_power_is_dark():
    t = np.arange(6000)
    low, high = spectrograms(np.stack([np.sin(2 * np.pi * 0.05 * t), np.sin(2 * np.pi * 0.45 * t)]))
    assert low[-12:].mean() + 40 < low[:12].mean()
    assert high[:12].mean() + 40 < high[-12:].mean()


def test_silence_is_white():
    assert (spectrograms(np.zeros((2, 1000))) == 255).all()
    burst = np.zeros((1, 3000))
    burst[0, 1500:1520] = 1
    assert (spectrograms(burst)[0][:, :40] == 255).all()
