"""SVG charts for the pages: panels with axes, marks and lines, bars, and a matrix.

Colors are the page's: the class `k0` to `k4` of an element sets its `color`, which shapes use as `currentColor`.
Marks also differ in shape, so that nothing depends on color alone. Every element is built by `tag`, which escapes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

KINDS = 5
MOST_POINTS = 2000  # of a line, or marks of a figure
GLYPHS = "●■▲◆✚"  # legend symbols for the shapes of `Panel.mark`
SHAPES = (
    "m-3.4,0a3.4,3.4 0 1,0 6.8,0a3.4,3.4 0 1,0 -6.8,0z",
    "m-3,-3h6v6h-6z",
    "m0,-4l3.9,7h-7.8z",
    "m0,-4.2l4.2,4.2l-4.2,4.2l-4.2,-4.2z",
    "m-1.3,-4h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z",
)
Point = tuple[float, float]


class Figure(NamedTuple):
    """A drawing with a caption and a legend of (kind, symbol, words)."""

    picture: Markup
    caption: str = ""
    keys: Sequence[tuple[int, str, str]] = ()


class Bar(NamedTuple):
    """A horizontal bar: label, share of the full width, words at its end, and the share at its dashed line."""

    label: str
    share: float
    words: str
    usual: float | None = None


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """Build an element; content and attribute values are escaped unless they are `Markup`.

    In attribute names a trailing `_` is dropped (`class_`) and `_` stands for `-`.
    """
    shown = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in attributes.items()}
    pairs = "".join(f' {k.rstrip("_").replace("_", "-")}="{escape(v)}"' for k, v in shown.items())
    return Markup(f"<{name}{pairs}>{''.join(map(escape, content))}</{name}>")


def drawing(width: float, height: float, title: str, *parts: Markup) -> Markup:
    """Build a whole drawing, which scales to the available width; `title` describes it in words."""
    box, style = f"0 0 {width:g} {height:g}", f"max-width:{1.35 * width:g}px"
    return tag("svg", tag("title", title), *parts, viewBox=box, style=style, role="img", aria_label=title)


def text(x: float, y: float, words: object, anchor: str = "start", **attributes: object) -> Markup:
    return tag("text", words, x=x, y=y, text_anchor=anchor, **attributes)


def bounds(values: Iterable[float]) -> tuple[float, float]:
    """Range of the finite values plus a margin, never empty."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def stairs(points: Iterable[Point]) -> Iterator[Point]:
    """Points of a line that holds each value until the next one."""
    before = None
    for x, y in points:
        yield x, y if before is None else before
        yield x, y
        before = y


def ticks(low: float, high: float, count: int = 5, whole: bool = False) -> list[float]:
    """About `count` round numbers within [low, high]."""
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    step = max(1, round(step)) if whole else step
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def thinned(count: int) -> int:
    """The number k such that every k-th of `count` points is drawn, so that a page stays small."""
    return -(-count // MOST_POINTS) or 1


def spaced(places: Sequence[float], least: float) -> list[float]:
    """Move the places up the drawing until they are at least `least` apart."""
    moved, before = list(places), float("inf")
    for i in sorted(range(len(places)), key=lambda i: -places[i]):
        moved[i] = before = min(places[i], before - least)
    return moved


class Panel(NamedTuple):
    """A rectangle of a drawing and the ranges of data that it spans."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> Point:
        """Position of the data point (x, y) in the drawing."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def axes(self, x_label: str, y_label: str, whole_x: bool = True, y_ticks: int = 5) -> Markup:
        """Grid lines with their values, the x axis, and both labels."""
        right, bottom = self.left + self.width, self.top + self.height
        parts = [text(self.left, self.top - 8, y_label, class_="label")]
        for value in ticks(*self.y, y_ticks):
            y = self.at(self.x[0], value)[1]
            parts.append(tag("line", x1=self.left, x2=right, y1=y, y2=y, class_="rule"))
            parts.append(text(self.left - 6, y + 4, f"{value:.6g}", "end"))
        for value in ticks(*self.x, whole=whole_x):
            parts.append(text(self.at(value, self.y[0])[0], bottom + 16, f"{value:.6g}", "middle"))
        parts.append(tag("line", x1=self.left, x2=right, y1=bottom, y2=bottom, class_="axis"))
        parts.append(text(right, bottom + 33, x_label, "end", class_="label"))
        return Markup("").join(parts)

    def line(self, points: Iterable[Point], class_: str) -> Markup:
        places = [self.at(x, y) for x, y in points if math.isfinite(y)]
        places = places[: -1 : thinned(len(places))] + places[-1:]
        return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_=f"line {class_}")

    def vertical(self, x: float, words: str) -> Markup:
        """A dashed vertical line with words beside it, on the side that has room."""
        place = self.at(x, 0)[0]
        before = place > self.left + self.width / 2
        line = tag("line", x1=place, x2=place, y1=self.top, y2=self.top + self.height, class_="line dash")
        return line + text(place + (-5 if before else 5), self.top + 11, words, "end" if before else "start")

    def band(self, first: float, last: float, label: object, shaded: bool) -> Markup:
        """A background stripe from x = first to last, labeled at the top if the label fits."""
        start, end = self.at(first, 0)[0], self.at(last, 0)[0]
        parts = []
        if shaded:
            parts.append(tag("rect", x=start, y=self.top, width=end - start, height=self.height, class_="band"))
        if end - start >= 9 * len(str(label)):
            parts.append(text((start + end) / 2, self.top + 11, label, "middle", class_="faint"))
        return Markup("").join(parts)

    def mark(self, x: float, y: float, kind: int, note: str, class_: str = "") -> Markup:
        """A mark in the shape of its kind and in its color, or that of `class_`; the note shows on hovering."""
        a, b = self.at(x, y)
        class_ = f"mark {class_ or f'k{kind}'}"
        return tag("path", tag("title", note), d=f"M{a:.1f},{b:.1f}{SHAPES[kind]}", class_=class_)


def bars(subject: str, rows: Sequence[Bar], kind: int = 0) -> Markup:
    """Draw horizontal bars, one below another."""
    left, full, pitch, longest = 86, 180, 24, 12
    parts = []
    for i, bar in enumerate(rows):
        y = pitch * i + 4
        label = bar.label if len(bar.label) <= longest else f"{bar.label[: longest - 1]}…"
        parts.append(text(left - 8, y + 13, label, "end"))
        parts.append(tag("rect", x=left, y=y, width=full * bar.share, height=16, rx=2, class_=f"bar k{kind}"))
        parts.append(text(left + full * max(bar.share, bar.usual or 0) + 7, y + 13, bar.words))
        if bar.usual is not None:
            x = left + full * bar.usual
            parts.append(tag("line", x1=x, x2=x, y1=y - 4, y2=y + 20, class_="line dash"))
    title = f"{subject}: " + ", ".join(f"{bar.label} {bar.words}" for bar in rows)
    return drawing(left + full + 120, pitch * len(rows) + 2, title, *parts)


def matrix(
    title: str, counts: Sequence[Sequence[float]], step: int = 1, classes: int = 0, named: Sequence[str] = ()
) -> Markup:
    """A confusion matrix, rows true class, columns predicted class; the shade is the share of the row.

    Args:
        step: classes that a row or column of `counts` stands for, of `classes` altogether.
        named: names of the classes, if known, for the notes of the cells.
    """
    n = len(counts)
    names = [f"{i * step} to {min((i + 1) * step, classes) - 1}" for i in range(n)]
    if step == 1:
        names = list(named) or list(map(str, range(n)))
    digits = len(str((n - 1) * step))
    left, top, cell = 34 + 7 * max(2, digits), 44, 380 / n
    parts = []
    for i, row in enumerate(counts):
        for j, value in enumerate(row):
            share = value / (sum(row) or 1)
            x, y, side, opacity = left + cell * j, top + cell * i, cell - 0.5, 0.05 + 0.95 * share
            note = tag("title", f"true {names[i]}, predicted {names[j]}: {value:g}")
            parts.append(tag("rect", note, class_="cell k0", fill_opacity=opacity, x=x, y=y, width=side, height=side))
            if n <= 12 and value:
                shade = "on" if share > 0.5 else ""
                parts.append(text(x + cell / 2, y + cell / 2 + 4, f"{value:g}", "middle", class_=shade))
    for i in range(0, n, 1 if n <= 12 else 5 if digits <= 3 else 10):
        middle = cell * (i + 0.5)
        first = i * step
        parts += [text(left + middle, top - 7, first, "middle"), text(left - 7, top + 4 + middle, first, "end")]
    parts.append(text(left, 15, "predicted class", class_="label"))
    parts.append(text(14, top + 190, "true class", "middle", class_="label", transform=f"rotate(-90 14 {top + 190})"))
    return drawing(left + 396, top + 384, title, *parts)
