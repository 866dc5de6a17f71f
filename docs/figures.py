"""Draw docs/architecture.svg: the fusion network of configuration [[3,2,0],[4,1,1]] on AV-MNIST.

    python docs/figures.py

The picture opens README.md; the same code gives the same bytes.
"""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

CONFIGURATION = [(3, 2, 0), (4, 1, 1)]
ACTIVATIONS = ["ReLU", "sigmoid"]
CHANNELS = 3  # the default of --channels; each block of a network doubles them
AUDIO, IMAGE, PLAIN, IDLE = "#1b5fa8", "#b3470f", "#24292f", "#6e7781"
TINT = {AUDIO: "#eef4fb", IMAGE: "#fdf3ec"}
COLUMN = {AUDIO: 1.4, IMAGE: 8.2}  # center of each network; the figure is 9.6 wide
CENTER = 4.8
FEATURE_HEIGHTS = [1.6 + 0.74 * i for i in range(5)]
LAYER_HEIGHTS = [2.35, 3.75]
CLASSIFIER_HEIGHT = 5.1


def box(axes: Axes, x: float, y: float, width: float, height: float, edge: str, face: str = "white") -> None:
    corner, rounded = (x - width / 2, y - height / 2), "round,pad=0,rounding_size=0.09"
    axes.add_patch(FancyBboxPatch(corner, width, height, rounded, ec=edge, fc=face, linewidth=1.6, zorder=3))


def text(axes: Axes, x: float, y: float, line: str, color: str = PLAIN, size: float = 11.5, bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    axes.text(x, y, line, color=color, fontsize=size, fontweight=weight, ha="center", va="center", zorder=4)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str, width: float = 1.2) -> None:
    style = {"arrowstyle": "-|>", "color": color, "linewidth": width, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 14}
    axes.annotate("", end, start, arrowprops=style, zorder=2)


def draw_network(axes: Axes, color: str, name: str, source: str, depth: int, chosen: set[int]) -> None:
    """Draw one unimodal network upward from its input, its chosen features in color."""
    x = COLUMN[color]
    text(axes, x, 0.55, source, size=10.5)
    below = 0.72
    for i, y in enumerate(FEATURE_HEIGHTS[:depth]):
        used = i in chosen
        arrow(axes, (x, below), (x, y - 0.23), IDLE)
        box(axes, x, y, 2.3, 0.46, color if used else IDLE, TINT[color] if used else "white")
        text(axes, x, y, f"feature {i}  ({CHANNELS * 2**i} wide)", color if used else IDLE, bold=used)
        below = y + 0.23
    text(axes, x, below + 0.32, name, color, 12.5, bold=True)


def draw_layer(axes: Axes, number: int, row: tuple[int, int, int], y: float) -> None:
    """Draw one fusion layer with its row and the arrows from the two features that it reads."""
    audio, image, activation = row
    box(axes, CENTER, y, 2.7, 0.94, PLAIN, "#f6f8fa")
    text(axes, CENTER - 0.5, y + 0.2, f"fusion layer {number}:", bold=True)
    pieces = ("[", f"{audio}", ",", f"{image}", ",", f"{activation}]")
    colors = (PLAIN, AUDIO, PLAIN, IMAGE, PLAIN, PLAIN)
    for piece, color, offset in zip(pieces, colors, (0.44, 0.55, 0.65, 0.77, 0.87, 1.02), strict=True):
        text(axes, CENTER + offset, y + 0.2, piece, color, bold=True)
    text(axes, CENTER, y - 0.2, f"linear, then {ACTIVATIONS[activation]}")
    arrow(axes, (COLUMN[AUDIO] + 1.15, FEATURE_HEIGHTS[audio]), (CENTER - 1.36, y), AUDIO, 2.2)
    arrow(axes, (COLUMN[IMAGE] - 1.15, FEATURE_HEIGHTS[image]), (CENTER + 1.36, y), IMAGE, 2.2)


def draw() -> None:
    figure = Figure(figsize=(9.6, 6.0), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 9.6), ylim=(0.3, 6.3))
    axes.axis("off")
    audio_features, image_features, _ = map(set, zip(*CONFIGURATION, strict=True))
    draw_network(axes, AUDIO, "audio network", "spectrogram of a spoken digit", 5, audio_features)
    draw_network(axes, IMAGE, "image network", "image of a written digit", 3, image_features)
    for i, (row, y) in enumerate(zip(CONFIGURATION, LAYER_HEIGHTS, strict=True)):
        draw_layer(axes, i + 1, row, y)
        if i:
            arrow(axes, (CENTER, LAYER_HEIGHTS[i - 1] + 0.47), (CENTER, y - 0.48), PLAIN, 2.2)
    arrow(axes, (CENTER, LAYER_HEIGHTS[-1] + 0.47), (CENTER, CLASSIFIER_HEIGHT - 0.25), PLAIN, 2.2)
    box(axes, CENTER, CLASSIFIER_HEIGHT, 2.7, 0.48, PLAIN, "#f6f8fa")
    text(axes, CENTER, CLASSIFIER_HEIGHT, "central classifier", bold=True)
    arrow(axes, (CENTER, CLASSIFIER_HEIGHT + 0.24), (CENTER, CLASSIFIER_HEIGHT + 0.68), PLAIN, 2.2)
    text(axes, CENTER, CLASSIFIER_HEIGHT + 0.86, "digit 0 to 9")
    text(axes, CENTER, 1.15, "row of a fusion layer:", size=11)
    text(axes, CENTER, 0.85, "[audio feature, image feature, activation]", size=11)
    text(axes, CENTER, 0.55, "activation 0: ReLU, 1: sigmoid", size=11)
    with matplotlib.rc_context({"svg.hashsalt": "architecture"}):
        figure.savefig(Path(__file__).with_name("architecture.svg"), metadata={"Date": None})


if __name__ == "__main__":
    draw()
