"""Draw the plots of docs/benchmark.md."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from raw_results import OTHER_NETWORKS, TASKS, Results, interquartile_mean
from searchers import EVERY

from utils.files import whole_file

SHOWN = (
    "published search",
    "random search",
    "improved search",
    "regularized evolution",
    "local search",
    "TPE",
    "greedy by level",
)
COLORS = ("#b3470f", "#6e7781", "#1b5fa8", "#2a7f3f", "#8250df", "#bf8700", "#cf5794")
LATER = 30  # trainings after which a linear axis shows all regrets
FLOOR = 0.01  # stands for a regret of zero, which has no place on a logarithmic axis
TICKS = [10.0**n * digit for n in range(-2, 2) for digit in (1, 2, 5)]  # of regrets


def draw_regrets(results: Results, path: Path) -> None:
    """Draw validation regret against trainings and seconds, and regret with other seeds: a row of panels per table."""
    if not results.regrets:
        return
    figure = Figure(figsize=(11, 3.6 * len(results.regrets)), layout="constrained")
    panels = figure.subplots(len(results.regrets), 3, squeeze=False)
    for (name, algorithms), row in zip(results.regrets.items(), panels, strict=True):
        title = TASKS[name].replace("`", "")
        for axes, kind, over in zip(
            row, ("validation", "validation", "other seeds"), (None, "seconds", None), strict=True
        ):
            words = "validation regret" if kind == "validation" else "regret, other seeds"
            axes.set_title(f"{title}: {words}", fontsize=10.5)
            if any(np.isnan(arrays[kind]).any() for arrays in algorithms.values()):
                axes.text(0.5, 0.5, "needs trainings with a second seed", ha="center", transform=axes.transAxes)
                axes.set_axis_off()
                continue
            for algorithm, color in zip(SHOWN, COLORS, strict=True):
                if algorithm in algorithms:
                    _draw(axes, algorithms[algorithm], kind, over, color, algorithm)
            if kind == "validation":
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(FixedLocator(TICKS))
                axes.yaxis.set_major_formatter(lambda x, _: "0" if x <= FLOOR else f"{x:g}")
                axes.yaxis.set_minor_locator(NullLocator())
            else:  # the first trainings would hide the rest
                values = [100 * arrays[kind][:, LATER // EVERY :].mean(0) for arrays in algorithms.values()]
                axes.set_ylim(0, 1.1 * np.max(values))
            axes.set_xlabel("seconds of training" if over else "trainings")
            axes.grid(alpha=0.25)
        row[0].set_ylabel("points below the best")
    panels[0, 0].legend(fontsize=8, frameon=False)
    with whole_file(path) as file:
        figure.savefig(file, dpi=110, format="png", metadata={"Software": None})


def _draw(axes, arrays: Mapping[str, np.ndarray], kind: str, over: str | None, color: str, name: str) -> None:
    values = 100 * arrays[kind]
    cells = np.array([interquartile_mean(own) for own in values.T])
    x = np.median(arrays[over], axis=0) if over else EVERY * np.arange(1, len(cells) + 1)
    going = np.append(True, (np.diff(arrays["seconds"]) > 0).any(0))  # a search may end early
    x, cells = x[going], np.maximum(cells, FLOOR)[going]
    axes.plot(x, cells[:, 0], color=color, label=name, linewidth=1.6)
    axes.fill_between(x, *cells[:, 1:].T, color=color, alpha=0.18, linewidth=0)


def draw_space(results: Results, path: Path) -> None:
    """Draw the distribution of accuracies by number of layers: one panel for each table."""
    if not results.tables:
        return
    tables = {name: table for name, table in results.tables.items() if name not in OTHER_NETWORKS.values()}
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        for layers, color in zip(table.correct, COLORS, strict=False):
            means = 100 * np.sort(table.accuracies(layers).mean(0))
            label = f"{layers} layer{'s' * (layers > 1)}{' (sample)' * (layers > table.depth)}"
            axes.plot(means, np.linspace(0, 1, len(means)), color=color, label=label)
        axes.set(title=TASKS[name].replace("`", ""), xlabel="dev accuracy, %")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel("share of configurations below")
    with whole_file(path) as file:
        figure.savefig(file, dpi=110, format="png", metadata={"Software": None})
