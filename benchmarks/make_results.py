"""Rebuild every table and plot of docs/benchmark.md from the raw results in docs/results.

    python benchmarks/make_results.py            # rewrites docs/benchmark.md and docs/results/*.png
    python benchmarks/make_results.py --check    # fails if docs/benchmark.md is not what the results give

A table of the document stands between `<!-- NAME -->` and `<!-- end -->`. Results that do not exist are left out.
"""

import argparse
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import measure
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from scipy import stats
from searchers import EVERY, SEARCHERS

from utils import cli
from utils.arrays import read_arrays
from utils.errors import UsageError
from utils.files import whole_file, write_text
from utils.reading import sha256
from utils.search.space import Configuration, as_configuration
from utils.search.table import AccuracyTable, read_table, unranked

TASKS = {  # by file name: title
    "avmnist-paper": "AV-MNIST, `paper`",
    "avmnist-multibench": "AV-MNIST, `multibench`",
    "noisy-views": "digits, noisy views",
}
MAIN = "avmnist-paper"
TRAININGS = (30, 50, 75, 100, 150)
SHOWN = ("published search", "random search", "improved search", "regularized evolution", "local search", "TPE")
COLORS = ("#b3470f", "#6e7781", "#1b5fa8", "#2a7f3f", "#8250df", "#bf8700")
RESAMPLES = 2000
TICKS = [10.0**n * digit for n in range(-2, 2) for digit in (1, 2, 5)]  # of regrets
NOTHING = "Not measured yet."


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return NOTHING
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


class Results:
    """The raw results in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def tables(self) -> dict[str, AccuracyTable]:
        paths = {name: self.folder / f"{name}.npz" for name in TASKS}
        return {name: read_table(path) for name, path in paths.items() if path.exists()}

    @functools.cached_property
    def regrets(self) -> dict[str, dict[str, dict[str, np.ndarray]]]:
        """By task, algorithm, and kind (validation, true, seconds): (runs, trainings // 5).

        Raises:
            UsageError: the runs used another table.
        """
        found = {}
        for name in self.tables:
            path = self.folder / f"regret-{name}.npz"
            if path.exists():
                arrays, _ = read_arrays(path)
                if str(arrays["table"]) != sha256(self.folder / f"{name}.npz"):
                    raise UsageError(f"{path} is of another {name}.npz; run benchmarks/searchers.py again")
                runs = {name: values for name, values in arrays.items() if values.ndim == 3}
                kinds = ("validation", "true", "seconds")
                known = [algorithm for algorithm in SEARCHERS if algorithm in runs]
                found[name] = {own: dict(zip(kinds, runs[own].swapaxes(0, 1), strict=True)) for own in known}
        return found

    @functools.cached_property
    def ranking(self) -> dict:
        path = self.folder / f"ranking-{MAIN}.json"
        return json.loads(path.read_text()) if path.exists() else {}


def best_epochs(table: AccuracyTable, layers: int) -> np.ndarray:
    """Accuracy of the best epoch, (seeds, configurations)."""
    return table.correct[layers].max(2) / table.dev_samples


def tasks(results: Results) -> str:
    rows = []
    for name, table in results.tables.items():
        counts = ", ".join(f"{n} layers: {c.shape[1]:,} x {c.shape[0]}" for n, c in table.correct.items())
        sizes = " x ".join(map(str, [*table.space.sizes, len(table.space.activations)]))
        samples = f"{table.facts['train_samples']:,} + {table.dev_samples:,}"
        rows.append([f"{TASKS[name]} (`{name}.npz`)", sizes, samples, counts.replace("1 layers", "1 layer")])
    return markdown(["table", "rows of a level", "train + dev samples", "configurations x seeds"], rows)


def depths(results: Results) -> str:
    rows = []
    for name, table in results.tables.items():
        for layers in table.correct:
            means = best_epochs(table, layers).mean(0)
            quantiles = [percent(q) for q in np.quantile(means, [0, 0.25, 0.5, 0.75, 0.99, 1])]
            best = _configuration(table, layers, int(means.argmax()))
            rows.append([TASKS[name], str(layers), *quantiles, f"`{json.dumps(best).replace(' ', '')}`"])
    head = ["table", "layers", "lowest", "25 %", "median", "75 %", "99 %", "highest", "best"]
    return markdown(head, rows)


def _configuration(table: AccuracyTable, layers: int, place: int) -> Configuration:
    rank = place if layers <= table.depth else int(table.sampled[place])
    return unranked(rank, table.space.rows(), layers)


def choices(results: Results) -> str:
    """Median accuracy of the deepest whole level by each choice in its last layer, and the range of these medians by
    layer.
    """
    rows = []
    for name, table in results.tables.items():
        layers, own = table.depth, np.array(table.space.rows())
        means = best_epochs(table, layers).mean(0)
        for column, entry in enumerate([*table.facts["modalities"], "activation"]):
            medians = []
            for layer in range(layers):
                values = own[np.arange(len(means)) // len(own) ** (layers - 1 - layer) % len(own), column]
                medians.append({v: np.median(means[values == v]) for v in sorted(set(values.tolist()))})
            ranges = [percent(max(m.values()) - min(m.values())) for m in medians]
            last = ", ".join(f"{value}: {percent(median)}" for value, median in medians[-1].items())
            rows.append([TASKS[name], entry, last, " / ".join(ranges)])
    head = ["table", "entry", "median by its value in the last layer, %", "range of the medians, first to last layer"]
    return markdown(head, rows)


def noise(results: Results) -> str:
    """Share of the variance that is noise of the seed, in all and in the best twentieth."""
    rows = []
    for name, table in results.tables.items():
        for layers in range(1, table.depth + 1):
            values = best_epochs(table, layers)
            if len(values) > 1:
                top = values[:, values.mean(0) >= np.quantile(values.mean(0), 0.95)]
                within, share = _noise(values)
                deviation, top_share = _noise(top)
                best = [f"{100 * deviation:.2f}", f"{100 * top_share:.0f} %"] if top.shape[1] > 2 else ["-", "-"]
                rows.append([TASKS[name], str(layers), f"{100 * within:.2f}", f"{100 * share:.0f} %", *best])
    head = ["table", "layers", "deviation over seeds, points", "share of the variance"]
    return markdown([*head, "deviation, best 5 %", "share of variance, best 5 %"], rows)


def _noise(values: np.ndarray) -> tuple[float, float]:
    """Deviation over the seeds, and its variance as a share of that of single trainings."""
    within = values.var(0, ddof=1).mean()
    total = values.var(1, ddof=1).mean() if values.shape[1] > 1 else np.nan
    return float(np.sqrt(within)), float(min(1, within / total))


def epochs(results: Results) -> str:
    rows = []
    for name, table in results.tables.items():
        for layers, correct in table.correct.items():
            own = best_epochs(table, layers)
            first, last = correct[0, :, 0], correct[0, :, -1]
            early = stats.spearmanr(first, last).statistic
            best = np.argsort(-own[0], kind="stable")[: max(5, len(own[0]) // 20)]
            among = stats.spearmanr(first[best], last[best]).statistic
            seeds = f"{stats.spearmanr(own[0], own[1]).statistic:.3f}" if len(own) > 1 else "-"
            rows.append([TASKS[name], str(layers), f"{early:.3f}", f"{among:.2f}", seeds])
    head = ["table", "layers", "first and last third of the training", "the same among the best 5 %", "two seeds"]
    return markdown(head, rows)


def longer(results: Results) -> str:
    """Rank correlations of a single score in the table with other trainings of a stratified sample."""
    if not results.ranking:
        return NOTHING
    table, rows = results.tables[MAIN], []
    configurations = [as_configuration(c) for c in results.ranking["configurations"]]
    scores = np.array([best_epochs(table, len(c))[0, table.rank(c)] for c in configurations])
    names = {
        "search": "the same training, another seed",
        "ten epochs": "ten epochs",
        "64 units": "64 units per layer",
        "to the end": "to the end, frozen networks (256 units, 5 epochs, one cycle)",
    }
    for name, reached in results.ranking["accuracies"].items():
        own, values = scores[: len(reached)], np.array(reached)
        upper = own >= np.median(own)
        among = stats.spearmanr(own[upper], values[upper]).statistic
        best = values[np.argsort(-own)[: len(own) // 10]].mean()
        ranks = [f"{stats.spearmanr(own, values).statistic:.3f}", f"{among:.2f}"]
        levels = [percent(level) for level in (best, np.median(values), values.max())]
        rows.append([names[name], str(len(values)), *ranks, *levels])
    head = ["training", "configurations", "Spearman", "in the better half", "best tenth by score, mean"]
    return markdown([*head, "median", "highest"], rows)


def interquartile_mean(values: np.ndarray) -> tuple[float, float, float]:
    """Interquartile mean over the runs, and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    resampled = values[rng.integers(len(values), size=(RESAMPLES, len(values)))]
    low, high = np.quantile(stats.trim_mean(resampled, 0.25, axis=1), [0.025, 0.975])
    return float(stats.trim_mean(values, 0.25)), float(low), float(high)


def regret(results: Results, kind: str) -> str:
    sections = []
    for name, algorithms in results.regrets.items():
        rows = []
        for algorithm, arrays in algorithms.items():
            values = 100 * arrays[kind]
            if np.isnan(values).any():  # no other seeds
                break
            cells = [interquartile_mean(values[:, n // EVERY - 1]) for n in TRAININGS]
            rows.append([algorithm, *(f"{mean:.2f} ({low:.2f} to {high:.2f})" for mean, low, high in cells)])
        head = [TASKS[name], *(f"{n} trainings" for n in TRAININGS)]
        sections += [markdown(head, rows)] if rows else []
    return "\n\n".join(sections) or NOTHING


def draw_regrets(results: Results, path: Path) -> None:
    """Draw validation regret against trainings and seconds, and true regret: one row of panels for each table."""
    if not results.regrets:
        return
    figure = Figure(figsize=(11, 3.6 * len(results.regrets)), layout="constrained")
    panels = figure.subplots(len(results.regrets), 3, squeeze=False)
    for (name, algorithms), row in zip(results.regrets.items(), panels, strict=True):
        title = TASKS[name].replace("`", "")
        for axes, kind, over in zip(row, ("validation", "validation", "true"), (None, "seconds", None), strict=True):
            axes.set_title(f"{title}: {kind} regret")
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
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_locator(NullLocator())
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
    floor = 0.01  # a regret of zero has no place on a logarithmic axis
    axes.plot(x, np.maximum(cells[:, 0], floor), color=color, label=name, linewidth=1.6)
    axes.fill_between(x, *np.maximum(cells[:, 1:], floor).T, color=color, alpha=0.18, linewidth=0)


def draw_space(results: Results, path: Path) -> None:
    """Draw the distribution of accuracies by number of layers: one panel for each table."""
    if not results.tables:
        return
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = figure.subplots(1, len(results.tables), squeeze=False)[0]
    for axes, (name, table) in zip(panels, results.tables.items(), strict=True):
        for layers, color in zip(table.correct, COLORS, strict=False):
            means = 100 * np.sort(best_epochs(table, layers).mean(0))
            label = f"{layers} layer{'s' * (layers > 1)}{' (sample)' * (layers > table.depth)}"
            axes.plot(means, np.linspace(0, 1, len(means)), color=color, label=label)
        axes.set(title=TASKS[name].replace("`", ""), xlabel="dev accuracy, %")
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    panels[0].set_ylabel("share of configurations below")
    with whole_file(path) as file:
        figure.savefig(file, dpi=110, format="png", metadata={"Software": None})


BLOCKS: dict[str, Callable[[Results], str]] = {
    "tables": tasks,
    "depths": depths,
    "choices": choices,
    "noise": noise,
    "epochs": epochs,
    "longer": longer,
    "validation regret": lambda results: regret(results, "validation"),
    "true regret": lambda results: regret(results, "true"),
}


def filled(text: str, results: Results) -> str:
    """Return the document with its tables regenerated."""
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise UsageError(f"the document has no place for <!-- {name} -->")
        content = block(results)
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    return text


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--results", type=Path, default=measure.ROOT / "docs/results", help="folder of raw results")
    parser.add_argument("--document", type=Path, default=measure.ROOT / "docs/benchmark.md", help="document to fill")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    results, before = Results(args.results), args.document.read_text()
    text = filled(before, results)
    if args.check:
        if text != before:
            raise UsageError(f"{args.document} is not what the results give; run benchmarks/make_results.py")
        return
    write_text(args.document, text)
    draw_regrets(results, args.results / "regret.png")
    draw_space(results, args.results / "space.png")


if __name__ == "__main__":
    cli.run(main)
