"""Rebuild the tables and plots of docs/benchmark.md and docs/results.md from the raw results in docs/results.

    python benchmarks/make_results.py            # rewrites both documents and docs/results/*.png
    python benchmarks/make_results.py --check    # fails if the documents are not what the results give

A table of a document stands between `<!-- NAME -->` and `<!-- end -->`. Results that do not exist are left out.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import measure
import numpy as np
from raw_results import MAIN, TASKS, Results, best_epochs, interquartile_mean
from result_plots import draw_regrets, draw_space
from scipy import stats
from searchers import EVERY

from utils import cli
from utils.errors import UsageError
from utils.files import write_text
from utils.results.over_seeds import SeedResult, Spread, in_points, summarize
from utils.results.statistics import paired_bootstrap, signed
from utils.search.space import Configuration, as_configuration
from utils.search.table import AccuracyTable, unranked

TRAININGS = (30, 50, 75, 100, 150)
NOTHING = "Not measured yet."
PUBLISHED, IMPROVED = "best of the published search", "best of the improved search"
Blocks = Mapping[str, Callable[[Results], str]]  # tables of a document by name


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return NOTHING
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


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
    trainings = {names[name]: dict(enumerate(values)) for name, values in results.ranking["accuracies"].items()}
    tuned = results.ranking.get("fine-tuned", {"count": 0, "rows": {}})
    if 0 < 2 * tuned["count"] == len(tuned["rows"]):  # all of them
        places, frozen = list(map(int, tuned["rows"])), results.ranking["accuracies"]["to the end"]
        name = f"the same, the {tuned['count']} best by score and as many random ones"
        trainings[name] = {place: frozen[place] for place in places}
        trainings["these, with all weights (1 + 2 epochs)"] = {
            place: tuned["rows"][str(place)]["dev"] for place in places
        }
    for name, reached in trainings.items():
        own, values = scores[list(reached)], np.array(list(reached.values()))
        upper = own >= np.median(own)
        among = stats.spearmanr(own[upper], values[upper]).statistic
        best = values[np.argsort(-own)[: max(1, len(own) // 10)]].mean()
        ranks = [f"{stats.spearmanr(own, values).statistic:.3f}", f"{among:.2f}"]
        levels = [percent(level) for level in (best, np.median(values), values.max())]
        rows.append([name, str(len(values)), *ranks, *levels])
    head = ["training", "configurations", "Spearman", "in the better half", "best tenth by score, mean"]
    return markdown([*head, "median", "highest"], rows)


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


def methods(results: Results, task: str) -> str:
    """Mean and deviation over the seeds of everything trained to completion, and the leads of two searches over it."""
    seeds = list(results.methods.get(task, {}).values())
    leads = [_leads(_last(seeds, name)) for name in (PUBLISHED, IMPROVED)]
    first = {row["name"]: row.get("configuration") for one in seeds[:1] for row in one.rows}
    rows = []
    for method in summarize(seeds):
        scores = [_score(score) for score in (method.dev, method.test)]
        configuration = json.dumps(first[method.name]).replace(" ", "") if first.get(method.name) else ""
        rows.append([method.name, *scores, *(lead.get(method.name, "") for lead in leads), configuration])
    head = [f"seeds: {len(seeds)}", "dev, %", "test, %", "published search leads by", "improved search leads by"]
    return markdown([*head, "configuration, first seed"], rows)


def _last(seeds: Sequence[SeedResult], name: str) -> list[SeedResult]:
    """Results with the row of this name moved to the end."""
    moved = []
    for rows, correct in seeds:
        order = sorted(range(len(rows)), key=lambda i: rows[i]["name"] == name)
        moved.append(SeedResult([rows[i] for i in order], None if correct is None else correct[order]))
    return moved


def _score(score: Spread | None) -> str:
    if score is None:
        return "-"
    return percent(score.mean) + (f" ({100 * score.deviation:.1f})" if score.deviation is not None else "")


def _leads(seeds: Sequence[SeedResult]) -> dict[str, str]:
    """Lead of the last row over each other in points, with its interval over test samples and, if several, seeds."""
    found = {method.name: method.sampled for method in summarize(seeds) if method.lead}
    if len(seeds) == 1:
        ((rows, correct),) = seeds
        found = {
            row["name"]: paired_bootstrap(correct[-1], own, 0) for row, own in zip(rows[:-1], correct, strict=False)
        }
    return {name: f"{signed(100 * lead.mean)} ({in_points(lead)})" for name, lead in found.items() if lead}


BENCHMARK: Blocks = {
    "tables": tasks,
    "depths": depths,
    "choices": choices,
    "noise": noise,
    "epochs": epochs,
    "longer": longer,
    "validation regret": lambda results: regret(results, "validation"),
    "true regret": lambda results: regret(results, "true"),
}
RESULTS: Blocks = {
    "methods, paper": lambda results: methods(results, "avmnist-paper"),
    "methods, multibench": lambda results: methods(results, "avmnist-multibench"),
}
DOCUMENTS = {"benchmark.md": BENCHMARK, "results.md": RESULTS}


def filled(text: str, blocks: Blocks, results: Results) -> str:
    """Return a document with its tables regenerated."""
    for name, block in blocks.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise UsageError(f"the document has no place for <!-- {name} -->")
        content = block(results)
        text = pattern.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)
    return text


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--docs", type=Path, default=measure.ROOT / "docs", help="folder of documents and results")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    results = Results(args.docs / "results")
    for name, blocks in DOCUMENTS.items():
        before = (args.docs / name).read_text()
        text = filled(before, blocks, results)
        if not args.check:
            write_text(args.docs / name, text)
        elif text != before:
            raise UsageError(f"{args.docs / name} is not what the results give; run benchmarks/make_results.py")
    if not args.check:
        draw_regrets(results, results.folder / "regret.png")
        draw_space(results, results.folder / "space.png")


if __name__ == "__main__":
    cli.run(main)
