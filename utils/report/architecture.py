"""The drawing of a fusion network: one layout, rendered as SVG for the pages and as pixels for TensorBoard.

Each modality's features are a column, half of the columns left and half right of the fusion layers; data flow
downward. Features that a layer reads are filled, and a modality that a layer leaves out (SKIP) has no line to it.
Lengths are in SVG units, y grows downward.
"""

import functools
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from models.rows import ACTIVATION_NAMES
from utils.report.contents import RunFiles
from utils.report.plots import KINDS, Point, drawing, tag, text
from utils.search.space import format_configuration

HEIGHT, REACH, READING = 24, 54, 56  # height of a box, half the width of a layer, room for the lines into it


class Box(NamedTuple):
    """A feature, a fusion layer or the classifier; (x, y) is the middle of the left side."""

    x: float
    y: float
    width: float
    words: str
    look: str  # "box": outlined, "box layer": outlined boldly, "bar": filled
    kind: int = 0  # color of a filled box


class Layout(NamedTuple):
    """Everything in a drawing of a fusion network, in painting order."""

    width: float
    height: float
    curves: tuple[tuple[tuple[Point, ...], int | None], ...]  # points of `smooth`, and color (None: soft)
    boxes: tuple[Box, ...]
    names: tuple[tuple[float, float, str, str, int], ...]  # x, y, words, anchor and color for each column


def smooth(*way: Point) -> tuple[Point, ...]:
    """Start, then two control points and an end for each cubic piece of a line that is horizontal at the points."""
    points = [way[0]]
    for (x, y), (end_x, end_y) in pairwise(way):
        points += [((x + end_x) / 2, y), ((x + end_x) / 2, end_y), (end_x, end_y)]
    return tuple(points)


def lay_out(configuration: Sequence[Sequence[int]], modalities: Sequence[str], sizes: Sequence[int]) -> Layout:
    """Place the features, the fusion layers below each other, the classifier, and the lines between them."""
    crowded, last = len(modalities) > 2, len(modalities) - 1
    box, gap, top, pitch, below = (30, 18, 56, 42, 26) if crowded else (46, 12, 42, 34, 18)
    on_left = (len(modalities) + 1) // 2  # columns left of the fusion layers
    center = 4 + on_left * (box + gap) - gap + READING + REACH
    starts = [4 if m < on_left else center + REACH + READING - on_left * (box + gap) for m in range(len(modalities))]
    lefts = [start + m * (box + gap) for m, start in enumerate(starts)]
    layers, depth = len(configuration), max(*sizes, len(configuration) + 1)

    def height(i: float) -> float:
        return top + pitch * i

    def reading(m: int, feature: int, y: float) -> tuple[Point, ...]:
        """The line from a feature to the layer at height y; it passes inner columns below the feature's row."""
        side, columns_between = (1, on_left - 1 - m) if m < on_left else (-1, m - on_left)
        x, end = lefts[m] + box * (side > 0), center - side * REACH
        way: list[Point] = [(x, height(feature))]
        if columns_between:
            passing = height(feature) + 18 + 6 * (m % 2)  # neighboring columns at heights of their own
            way += [(x + side * gap, passing), (end - side * READING, passing)]
        return smooth(*way, (end, y))

    curves: list[tuple[tuple[Point, ...], int | None]] = []
    boxes, names = [], []
    for m, (left, words, size) in enumerate(zip(lefts, modalities, sizes, strict=True)):
        used = {row[m] for row in configuration}
        curves.append((smooth((left + box / 2, height(0)), (left + box / 2, height(size - 1))), None))
        for i in range(size):
            boxes.append(Box(left, height(i), box, str(i), "bar" if i in used else "box", m % KINDS))
        # Outer names start or end with their column; many alternate in height.
        share, anchor = (0.0, "start") if m == 0 else (1.0, "end") if m == last else (0.5, "middle")
        short = f"{words[:9]}…" if crowded and len(words) > 10 else words
        names.append((left + share * box, 34 if crowded and m % 2 else 16, short, anchor, m % KINDS))
    heights = [height((depth - layers - 1) / 2 + i) for i in range(layers + 1)]
    curves.append((smooth((center, heights[0]), (center, heights[-1])), None))
    for i, (row, y) in enumerate(zip(configuration, heights, strict=False), 1):
        curves += [(reading(m, feature, y), m % KINDS) for m, feature in enumerate(row[:-1]) if feature >= 0]
        boxes.append(Box(center - REACH, y, 2 * REACH, f"{i} · {activation_name(row[-1])}", "box layer"))
    boxes.append(Box(center - REACH, heights[-1], 2 * REACH, "classifier", "box"))
    width = max(lefts[-1] + box, center + REACH) + 4
    return Layout(width, height(depth - 1) + below, tuple(curves), tuple(boxes), tuple(names))


def activation_name(index: int) -> str:
    return ACTIVATION_NAMES[index].replace("_", " ")


def layout_of(files: RunFiles, configuration: Sequence[Sequence[int]]) -> Layout:
    """Lay out a network of a run; where the run records no sizes, columns end at the last feature that is read."""
    sizes = files.sizes or [max(0, *column) + 1 for column in list(zip(*configuration, strict=True))[:-1]]
    return lay_out(configuration, files.modalities, sizes)


def to_svg(files: RunFiles, configuration: Sequence[Sequence[int]]) -> Markup:
    """Draw a network of a run for a page."""
    layout = layout_of(files, configuration)
    parts = []
    for points, kind in layout.curves:
        start, *rest = (f"{x:g},{y:g}" for x, y in points)
        look = "soft" if kind is None else f"k{kind}"
        parts.append(tag("path", d=f"M{start}C{' '.join(rest)}", class_=f"line {look}"))
    for box in layout.boxes:
        look, words = (f"bar k{box.kind}", "on") if box.look == "bar" else (box.look, "")
        top = box.y - HEIGHT / 2
        parts.append(tag("rect", x=box.x, y=top, width=box.width, height=HEIGHT, rx=5, class_=look))
        parts.append(text(box.x + box.width / 2, box.y + 4.5, box.words, "middle", class_=words))
    parts += [text(x, y, words, anchor, class_=f"letter k{kind}") for x, y, words, anchor, kind in layout.names]
    named = f"{', '.join(files.modalities[:-1])} and {files.modalities[-1]}"
    title = f"fusion network {format_configuration(configuration)} of {named} features"
    return drawing(layout.width, layout.height, title, *parts)


@functools.lru_cache(maxsize=32)  # the best networks of a search stay the same for many steps
def to_pixels(layout: Layout, heading: str) -> np.ndarray:
    """Draw a network for TensorBoard, shape (H, W, 3) uint8, with a caption above it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path

    lines = [part for line in heading.splitlines() for part in textwrap.wrap(line, int(layout.width / 6.5))]
    above = 16 * len(lines) + 8
    figure = Figure((layout.width / 72, (layout.height + above) / 72), dpi=110)  # a unit is a point
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(layout.height, -above))
    axes.axis("off")
    axes.text(layout.width / 2, 6 - above, "\n".join(lines), fontsize=10, ha="center", va="top")
    for points, kind in layout.curves:
        path = Path(points, [Path.MOVETO, *[Path.CURVE4] * (len(points) - 1)])
        axes.add_patch(PathPatch(path, fill=False, edgecolor="0.8" if kind is None else f"C{kind}", lw=1.8))
    for box in layout.boxes:
        face, color = (f"C{box.kind}", "white") if box.look == "bar" else ("white", "black")
        corner, style = (box.x, box.y - HEIGHT / 2), "round,pad=0,rounding_size=5"
        axes.add_patch(FancyBboxPatch(corner, box.width, HEIGHT, style, zorder=2, ec="0.5", fc=face))
        axes.text(box.x + box.width / 2, box.y, box.words, fontsize=10, ha="center", va="center", color=color)
    anchors = {"start": "left", "middle": "center", "end": "right"}
    for x, y, words, anchor, kind in layout.names:
        axes.text(x, y, words, fontsize=10, ha=anchors[anchor], color=f"C{kind}")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
