"""Presets of AV-MNIST: PCA components of the images, and the level of speech over noise in dB (None: no noise)."""

PRESETS: dict[str, tuple[int, float | None]] = {
    "paper": (5, -10.0),
    "multibench": (4, -19.0),
    "fork": (3, None),
    "embedded": (3, -10.0),
}
