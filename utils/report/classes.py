"""Confusion and accuracy by class of a found network; pages stay small whatever the number of classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from utils.report import plots
from utils.report.page import percent
from utils.report.plots import Bar, Figure

FEW = 50  # most classes that are shown one by one
SHOWN = 20  # bars in a figure, rows of a table


class Confusion(NamedTuple):
    """Number of test samples by true and predicted class, without pairs that do not occur."""

    classes: int
    true: np.ndarray  # (K,) int
    predicted: np.ndarray  # (K,) int
    counts: np.ndarray  # (K,)
    names: Sequence[str] = ()  # of the classes; empty if not known

    def name(self, i: int) -> str:
        return self.names[i] if len(self.names) == self.classes else f"class {i}"

    @property
    def right(self) -> np.ndarray:
        """Samples of each class that are classified correctly, shape (C,)."""
        own = self.true == self.predicted
        return np.bincount(self.true[own], self.counts[own], self.classes)

    @property
    def samples(self) -> np.ndarray:
        """Samples of each class, shape (C,)."""
        return np.bincount(self.true, self.counts, self.classes)

    def matrix(self, step: int = 1) -> np.ndarray:
        """Count by groups of `step` classes: shape (C / step, C / step), rounded up."""
        side = -(-self.classes // step)
        groups = self.true // step * side + self.predicted // step
        return np.bincount(groups, self.counts, side * side).reshape(side, side)


def read_confusion(stored: list | dict) -> Confusion:
    """Read the confusion of results.json: a matrix, or the cells that are not 0 (see `results.table.confusion`).

    Raises:
        ValueError: it is neither, or has classes that do not exist.
    """
    if isinstance(stored, dict):
        classes, cells = int(stored["classes"]), np.array(stored["cells"], float).reshape(-1, 3)
        true, predicted, counts = cells[:, 0].astype(int), cells[:, 1].astype(int), cells[:, 2]
        if min(cells.min(initial=0), classes - 1 - cells[:, :2].max(initial=0)) < 0 or classes > 2 * 10**6:
            raise ValueError("the confusion has classes that do not exist")
        return Confusion(classes, true, predicted, counts)
    counts = np.array(stored, float)
    if counts.ndim != 2 or len(counts) != counts.shape[1] or not np.isfinite(counts).all():
        raise ValueError("the confusion is not a square of numbers")
    true, predicted = counts.nonzero()
    return Confusion(len(counts), true, predicted, counts[true, predicted])


def class_content(stored: list | dict | None, names: Sequence[str] = ()) -> dict[str, object]:
    """Content of the report: a picture of the confusion, the pairs of a table, bars by class, and a summary of them.

    Args:
        names: of the classes; empty if not known.
    """
    if not stored:
        return {"confusion": None, "confused": [], "by_class": [], "class_summary": ""}
    cells = read_confusion(stored)._replace(names=names)
    many = cells.classes > FEW
    return {
        "confusion": picture(cells),
        "confused": most_confused(cells) if many else [],
        "by_class": extremes(cells) if many else by_class(cells),
        "class_summary": summary(cells) if many else "",
    }


def picture(cells: Confusion) -> Figure:
    step = -(-cells.classes // FEW)
    right, total = cells.right.sum(), cells.counts.sum()
    title = f"Confusion matrix of the found network: {right:g} of {total:g} samples on the diagonal"
    caption = "Samples by true and predicted class; shade: share of the row."
    if step > 1:
        caption = f"Samples by true and predicted class, {step} classes to a cell; shade: share of the row."
    return Figure(plots.matrix(title, cells.matrix(step).tolist(), step, cells.classes, cells.names), caption)


def most_confused(cells: Confusion) -> list[tuple[str, str, str, str]]:
    """True class, predicted class, samples, and their share of the true class, of the most frequent errors."""
    wrong = np.flatnonzero(cells.true != cells.predicted)
    samples = cells.samples
    rows = []
    for i in wrong[np.argsort(-cells.counts[wrong], kind="stable")][:SHOWN]:
        true, count = cells.true[i], cells.counts[i]
        names = cells.names or range(cells.classes)
        pair = str(names[true]), str(names[cells.predicted[i]])
        rows.append((*pair, f"{count:g}", percent(count / samples[true])))
    return rows


def _bar(cells: Confusion, i: int) -> Bar:
    share = float(cells.right[i] / cells.samples[i])
    return Bar(cells.name(i), share, f"{percent(share)} of {cells.samples[i]:g}")


def by_class(cells: Confusion) -> list[Figure]:
    """Share of each class that is classified correctly."""
    rows = [_bar(cells, int(i)) for i in cells.samples.nonzero()[0]]
    parts = [rows[start : start + SHOWN] for start in range(0, len(rows), SHOWN)]
    return [Figure(plots.bars("Accuracy by class", p), f"Classes {_short(p[0])} to {_short(p[-1])}") for p in parts]


def _short(bar: Bar) -> str:
    return bar.label.removeprefix("class ")


def extremes(cells: Confusion) -> list[Figure]:
    """Share that is classified correctly, of the least and the most accurate classes."""
    known = cells.samples.nonzero()[0]
    samples = cells.samples[known]
    shares = cells.right[known] / samples
    ends = {"Least accurate classes": shares, "Most accurate classes": -shares}
    return [
        Figure(plots.bars(name, [_bar(cells, int(i)) for i in known[np.lexsort((-samples, order))][:SHOWN]]), name)
        for name, order in ends.items()
    ]


def summary(cells: Confusion) -> str:
    known = cells.samples.nonzero()[0]
    low, middle, high = np.quantile(cells.right[known] / cells.samples[known], (0.25, 0.5, 0.75))
    return (
        f"{len(known):,} of {cells.classes:,} classes have test samples. Half reach {percent(middle)} or more, a "
        f"quarter {percent(low)} or less, and a quarter {percent(high)} or more."
    )
