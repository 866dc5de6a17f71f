"""Small SVG drawings as text: panels with axes, marks, bars, a matrix, a fusion network.

Colours are the page's: the class `k0` to `k4` of an element sets its `color`, which shapes take as `currentColor`.
The same number gives a mark its shape, so that nothing hangs on colour alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

KINDS = 5
GLYPHS = "●■▲◆✚"  # in a legend, for the shapes of `Panel.mark`
Point = tuple[float, float]


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An element; `content` is markup, attribute values are escaped, `class_` stands for `class`, `_` for `-`."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    text = "".join(
        f' {key}="{escape(f"{value:.5g}" if isinstance(value, float) else str(value))}"' for key, value in pairs
    )
    return f"<{name}{text}>{content}</{name}>"


def drawing(width: float, height: float, title: str, *parts: str) -> str:
    """The drawing as a whole, which scales to the width it is given; `title` says in words what it shows."""
    return tag(
        "svg",
        tag("title", escape(title)) + "".join(parts),
        viewBox=f"0 0 {width:g} {height:g}",
        style=f"max-width:{1.35 * width:g}px",
        role="img",
        aria_label=title,
    )


def text(x: float, y: float, words: object, anchor: str = "start", **attributes: object) -> str:
    return tag("text", escape(str(words)), x=x, y=y, text_anchor=anchor, **attributes)


def bounds(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """The range of the finite values and a margin, never empty."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = margin * (high - low) or 0.5
    return low - room, high + room


def stairs(points: Iterable[Point]) -> Iterator[Point]:
    """The points of a line that holds each value until the next one."""
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


@dataclass(frozen=True)
class Panel:
    """A rectangle of a drawing, with the ranges of data that span it."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> Point:
        """Where in the drawing the data point (x, y) lies."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * self.width, self.top + (1 - up) * self.height

    def axes(self, x_label: str, y_label: str, whole_x: bool = True, y_ticks: int = 5) -> str:
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
        return "".join(parts)

    def line(self, points: Iterable[Point], class_: str) -> str:
        places = [self.at(x, y) for x, y in points if math.isfinite(y)]
        return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_=f"line {class_}")

    def upright(self, x: float, words: str) -> str:
        """A dashed vertical line with words beside it, on the side that has room."""
        place = self.at(x, 0)[0]
        before = place > self.left + self.width / 2
        line = tag("line", x1=place, x2=place, y1=self.top, y2=self.top + self.height, class_="line dash")
        return line + text(place + (-5 if before else 5), self.top + 11, words, "end" if before else "start")

    def band(self, first: float, last: float, label: object, shaded: bool) -> str:
        """A background stripe from x = first to last, its label on top where that has room."""
        start, end = self.at(first, 0)[0], self.at(last, 0)[0]
        box = {"x": start, "y": self.top, "width": end - start, "height": self.height}
        stripe = tag("rect", class_="band", **box) if shaded else ""
        room = end - start >= 9 * len(str(label))
        return stripe + (text((start + end) / 2, self.top + 11, label, "middle", class_="faint") if room else "")

    def mark(self, x: float, y: float, kind: int, note: str, class_: str = "") -> str:
        """A mark in the shape and colour of its kind, or of `class_`; the note shows on hovering."""
        a, b = self.at(x, y)
        shape = (
            "m-3.4,0a3.4,3.4 0 1,0 6.8,0a3.4,3.4 0 1,0 -6.8,0z",
            "m-3,-3h6v6h-6z",
            "m0,-4l3.9,7h-7.8z",
            "m0,-4.2l4.2,4.2l-4.2,4.2l-4.2,-4.2z",
            "m-1.3,-4h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7v-2.6h2.7z",
        )[kind]
        return tag(
            "path", tag("title", escape(note)), d=f"M{a:.1f},{b:.1f}{shape}", class_=f"mark {class_ or f'k{kind}'}"
        )


def bars(title: str, rows: Sequence[tuple[str, float, str]], kind: int = 0, usual: Sequence[float] = ()) -> str:
    """Horizontal bars of (label, share of the full width, words at its end); `usual` is a dashed line across each."""
    left, full, pitch = 86, 180, 24
    parts = []
    for i, (label, share, words) in enumerate(rows):
        y, mean = pitch * i + 4, usual[i] if usual else 0
        parts.append(text(left - 8, y + 13, label, "end"))
        parts.append(tag("rect", x=left, y=y, width=full * share, height=16, rx=2, class_=f"bar k{kind}"))
        parts.append(text(left + full * max(share, mean) + 7, y + 13, words))
        if usual:
            x = left + full * mean
            parts.append(tag("line", x1=x, x2=x, y1=y - 4, y2=y + 20, class_="line dash"))
    return drawing(left + full + 120, pitch * len(rows) + 2, title, *parts)


def matrix(title: str, counts: Sequence[Sequence[float]]) -> str:
    """A confusion matrix, rows true class, columns predicted; the shade is the share of the row."""
    n = len(counts)
    left, top, cell = 48, 44, 380 / n
    parts = []
    for i, row in enumerate(counts):
        for j, value in enumerate(row):
            share = value / (sum(row) or 1)
            x, y = left + cell * j, top + cell * i
            note = tag("title", f"true {i}, predicted {j}: {value:g}")
            box = {"x": x, "y": y, "width": cell - 0.5, "height": cell - 0.5}
            parts.append(tag("rect", note, class_="cell k0", fill_opacity=0.05 + 0.95 * share, **box))
            if n <= 12 and value:
                shade = "on" if share > 0.5 else ""
                parts.append(text(x + cell / 2, y + cell / 2 + 4, f"{value:g}", "middle", class_=shade))
    for i in range(0, n, 1 if n <= 12 else 5):
        middle = cell * (i + 0.5)
        parts += [text(left + middle, top - 7, i, "middle"), text(left - 7, top + 4 + middle, i, "end")]
    parts.append(text(left, 15, "predicted class", class_="label"))
    parts.append(text(14, top + 190, "true class", "middle", class_="label", transform=f"rotate(-90 14 {top + 190})"))
    return drawing(left + 384, top + 384, title, *parts)


def network(
    title: str,
    configuration: Sequence[Sequence[int]],
    modalities: Sequence[str],
    sizes: Sequence[int],
    activation: Callable[[int], str],
) -> str:
    """A fusion network: each backbone's features are a column, half of them left and half right of the fusion layers;
    data flow downwards. Features that a layer reads are filled; a line from an outer column passes between the
    features of the inner ones. A negative index draws nothing: that layer leaves the modality out."""
    many = len(modalities) > 2
    box, gap, pitch = (30, 18, 42) if many else (46, 12, 34)  # widths of a feature, between columns, between rows
    reach, reading = 54, 56  # half the width of a layer; room for the lines into it
    on_left = (len(modalities) + 1) // 2
    centre = 4 + on_left * (box + gap) - gap + reading + reach
    lefts = [4 + m * (box + gap) for m in range(on_left)]
    lefts += [centre + reach + reading + m * (box + gap) for m in range(len(modalities) - on_left)]
    top, deepest = 56 if many else 42, max(*sizes, len(configuration) + 1)
    lines, boxes = [], []

    def block(x: float, y: float, width: float, words: object, class_: str) -> None:
        boxes.append(tag("rect", x=x, y=y - 12, width=width, height=24, rx=5, class_=class_))
        boxes.append(text(x + width / 2, y + 4.5, words, "middle", class_="on" if "bar" in class_ else ""))

    def row(i: float) -> float:
        return top + pitch * i

    def read(m: int, feature: int, y: float) -> str:
        """The line from a feature to the layer at height y."""
        side, outwards = (1, on_left - 1 - m) if m < on_left else (-1, m - on_left)
        start, end = lefts[m] + (box if side > 0 else 0), centre - side * reach
        path, height = f"M{start},{row(feature)}", row(feature)
        if outwards:  # below its row, each column's lines at a height of their own
            turn, height = start + side * gap, row(feature) + pitch / 2 - 3 + 6 * (m % 2)
            path += f"C{(start + turn) / 2},{row(feature)} {(start + turn) / 2},{height} {turn},{height}"
            start = centre - side * (reach + reading)
            path += f"H{start}"
        return f"{path}C{(start + end) / 2},{height} {(start + end) / 2},{y} {end},{y}"

    for m, (name, size, left) in enumerate(zip(modalities, sizes, lefts, strict=True)):
        x, anchor = left + box / 2, "middle"
        if m in (0, len(modalities) - 1):
            x, anchor = (left, "start") if m == 0 else (left + box, "end")
        short = name if not many or len(name) <= 10 else f"{name[:9]}…"
        boxes.append(text(x, 34 if many and m % 2 else 16, short, anchor, class_="label"))
        lines.append(tag("path", d=f"M{left + box / 2},{row(0)}V{row(size - 1)}", class_="line soft"))
        used = {layer[m] for layer in configuration}
        for i in range(size):
            block(left, row(i), box, i, f"bar k{m % KINDS}" if i in used else "box")
    start = (deepest - len(configuration) - 1) / 2
    places = [row(start + i) for i in range(len(configuration) + 1)]
    lines.append(tag("path", d=f"M{centre},{places[0]}V{places[-1]}", class_="line soft"))
    for i, (layer, y) in enumerate(zip(configuration, places, strict=False)):
        for m, feature in enumerate(layer[:-1]):
            if feature >= 0:
                lines.append(tag("path", d=read(m, feature, y), class_=f"line k{m % KINDS}"))
        block(centre - reach, y, 2 * reach, f"{i + 1} · {activation(layer[-1])}", "box layer")
    block(centre - reach, places[-1], 2 * reach, "classifier", "box")
    width = max(lefts[-1] + box, centre + reach) + 4
    return drawing(width, row(deepest - 1) + (26 if many else 18), title, *lines, *boxes)
