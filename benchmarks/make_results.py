"""Rebuild the tables and plots of docs/benchmark.md and docs/results.md from the raw results in docs/results.

    python benchmarks/make_results.py            # rewrites both documents and docs/results/*.png
    python benchmarks/make_results.py --check    # fails if the documents are not what the results give

A table of a document stands between `<!-- NAME -->` and `<!-- end -->`. Results that do not exist are left out.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import measure
import numpy as np
import searchers
from raw_results import TASKS, Results, interquartile_difference, interquartile_mean
from result_plots import SHOWN, draw_regrets, draw_space
from searchers import EVERY
from space_tables import NOTHING, SPACE, markdown, percent

from utils import cli
from utils.errors import UsageError
from utils.files import write_text
from utils.results.over_seeds import SeedResult, Spread, in_points, summarize
from utils.results.statistics import signed
from utils.search.space import format_configuration

TRAININGS = (30, 50, 75, 100, 150)
AFTER = 100  # trainings at which searches are compared with these
RIVALS = ("random search", "published search")
PUBLISHED, IMPROVED = "best of the published search", "best of the improved search"
Blocks = Mapping[str, Callable[[Results], str]]  # tables of a document by name


def regret(results: Results, kind: str) -> str:
    sections = []
    for name, algorithms in results.regrets.items():
        rows = []
        for algorithm, arrays in algorithms.items():
            values = 100 * arrays[kind]
            if np.isnan(values).any():  # no other seeds
                break
            cells = [interquartile_mean(values[:, n // EVERY - 1]) for n in TRAININGS]
            rows.append([algorithm, *(cell.shown() for cell in cells)])
        head = [TASKS[name], *(f"{n} trainings" for n in TRAININGS)]
        sections += [markdown(head, rows)] if rows else []
    return "\n\n".join(sections) or NOTHING


def differences(results: Results) -> str:
    """Regret after 100 trainings minus that of random and of the published search in the same runs."""
    rows = []
    for name, algorithms in results.regrets.items():
        for algorithm in (own for own in SHOWN if own in algorithms):
            cells = []
            for kind in ("validation", "other seeds"):
                values = {own: 100 * arrays[kind][:, AFTER // EVERY - 1] for own, arrays in algorithms.items()}
                for rival in RIVALS:
                    known = algorithm != rival and rival in values and not np.isnan(values[rival]).any()
                    difference = interquartile_difference(values[algorithm], values[rival]) if known else None
                    cells.append(difference.shown(sign="+") if difference else "-")
            if set(cells) != {"-"}:
                rows.append([TASKS[name], algorithm, *cells])
    rivals = [rival.removesuffix(" search") for rival in RIVALS]
    kinds = [f"{kind}, minus {rival}" for kind in ("validation", "other seeds") for rival in rivals]
    return markdown(["table", "search", *kinds], rows)


def exhaustive(results: Results) -> str:
    """Regret with other seeds of what is best of all configurations with one set of seeds."""
    rows = []
    for name in results.regrets:
        table = results.tables[name]
        losses = [100 * searchers.Truth(table, run).regret_of_all() for run in range(searchers.seed_sets(table))]
        if not np.isnan(losses).any():
            rows.append([TASKS[name], f"{np.mean(losses):.2f}", f"{min(losses):.2f} to {max(losses):.2f}"])
    return markdown(["table", "mean over the seeds", "range"], rows)


def methods(results: Results, task: str) -> str:
    """Mean and deviation over the seeds of everything trained to completion, and the leads of two searches over it."""
    seeds = list(results.methods.get(task, {}).values())
    leads = [_leads(_last(seeds, name)) for name in (PUBLISHED, IMPROVED)]
    first = {row["name"]: row.get("configuration") for one in seeds[:1] for row in one.rows}
    rows = []
    for method in summarize(seeds):
        scores = [_score(score) for score in (method.dev, method.test)]
        configuration = format_configuration(first[method.name]) if first.get(method.name) else ""
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
    """Lead of the last row over each other in points, with its intervals over seeds and over seeds and samples."""
    found = {}
    for method in summarize(seeds):
        if method.lead:
            intervals = "; ".join(in_points(one) or "-" for one in (method.lead, method.sampled))
            found[method.name] = f"{signed(100 * method.lead.mean)} ({intervals})"
    return found


BENCHMARK: Blocks = {
    **SPACE,
    "validation regret": lambda results: regret(results, "validation"),
    "regret with other seeds": lambda results: regret(results, "other seeds"),
    "best of all": exhaustive,
    "differences": differences,
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
