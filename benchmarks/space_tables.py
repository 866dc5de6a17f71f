"""The parts of docs/benchmark.md that describe the search space, as Markdown tables."""

from collections.abc import Sequence

import numpy as np
from raw_results import MAIN, OTHER_NETWORKS, TASKS, Results, rank_correlation
from scipy import stats

from utils.search.space import Configuration, as_configuration, format_configuration

NOTHING = "Not measured yet."
BEST, FEWEST = 0.05, 20  # share of the best configurations, and how many there must be to say anything about them
LONGER = {  # other trainings of the sample, by their names in the raw results
    "search": "the same training, another seed",
    "ten epochs": "ten epochs, which end within a cycle",
    "64 units": "64 units per layer",
    "to the end": "to the end, frozen networks (256 units, 5 epochs, one cycle)",
}
TUNED = "with all weights (256 units, 1 + 2 epochs, one cycle)"


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
            means = table.accuracies(layers).mean(0)
            quantiles = [percent(q) for q in np.quantile(means, [0, 0.25, 0.5, 0.75, 0.99, 1])]
            best = format_configuration(table.configuration(layers, int(means.argmax())))
            rows.append([TASKS[name], str(layers), *quantiles, f"`{best}`"])
    head = ["table", "layers", "lowest", "25 %", "median", "75 %", "99 %", "highest", "best"]
    return markdown(head, rows)


def choices(results: Results) -> str:
    """Median accuracy of the deepest whole level by each choice in its last layer, and the range of these medians by
    layer.
    """
    rows = []
    for name, table in results.tables.items():
        layers, own = table.depth, np.array(table.space.rows())
        means = table.accuracies(layers).mean(0)
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
    """Share of the variance that is noise of the seed: of all, and of those that are best with another seed."""
    rows = []
    for name, table in results.tables.items():
        for layers in range(1, table.depth + 1):
            values = table.accuracies(layers)
            if len(values) > 1:
                cells, top = [_noise(values)], []
                for seed, own in enumerate(values if len(values) > 2 else ()):
                    best = own >= np.quantile(own, 1 - BEST)
                    if best.sum() >= FEWEST:
                        top.append(_noise(np.delete(values, seed, axis=0)[:, best]))
                cells += [tuple(np.mean(top, axis=0))] if top else []
                shown = [text for d, share in cells for text in (f"{100 * d:.2f}", f"{100 * share:.0f} %")]
                rows.append([TASKS[name], str(layers), *shown, *["-"] * (4 - len(shown))])
    head = ["table", "layers", "deviation over seeds, points", "share of the variance"]
    return markdown([*head, "deviation, best 5 %", "share of variance, best 5 %"], rows)


def _noise(values: np.ndarray) -> tuple[float, float]:
    """Deviation over the seeds, and its variance as a share of that of single trainings."""
    within, total = values.var(0, ddof=1).mean(), values.var(1, ddof=1).mean()
    return float(np.sqrt(within)), float(within / total)


def epochs(results: Results) -> str:
    rows = []
    for name, table in results.tables.items():
        for layers, correct in table.correct.items():
            own = table.accuracies(layers)
            first, last = correct[0, :, 0], correct[0, :, -1]
            early = stats.spearmanr(first, last).statistic
            among = _among_best(own[0], first, last)
            seeds = f"{stats.spearmanr(own[0], own[1]).statistic:.3f}" if len(own) > 1 else "-"
            rows.append([TASKS[name], str(layers), f"{early:.3f}", among, seeds])
    head = ["table", "layers", "first and last third of the training", "the same among the best 5 %", "two seeds"]
    return markdown(head, rows)


def _among_best(scores: np.ndarray, a: np.ndarray, b: np.ndarray) -> str:
    """Rank correlation of a and b among the best by their scores; "-" if these are too few."""
    best = np.argsort(-scores, kind="stable")[: int(BEST * len(scores))]
    return f"{stats.spearmanr(a[best], b[best]).statistic:.2f}" if len(best) >= FEWEST else "-"


def networks(results: Results) -> str:
    """Rank correlation of the mean accuracies with two pairs of networks, and what the best with one pair loses with
    the other.
    """
    rows = []
    for name, other in OTHER_NETWORKS.items():
        if other not in results.tables:
            continue
        tables = results.tables[name], results.tables[other]
        for layers in range(1, min(table.depth for table in tables) + 1):
            first, second = (table.accuracies(layers).mean(0) for table in tables)
            among = _among_best(first, first, second)
            losses = [second.max() - second[first.argmax()], first.max() - first[second.argmax()]]
            lost = " and ".join(f"{100 * loss:.2f}" for loss in losses)
            rows.append([TASKS[other], str(layers), f"{stats.spearmanr(first, second).statistic:.3f}", among, lost])
    head = ["compared", "layers", "Spearman", "among the best 5 %", "regret of the other's best, points"]
    return markdown(head, rows)


def longer(results: Results) -> str:
    """Rank correlations of a single score in the table with other trainings of a stratified sample."""
    if not results.ranking:
        return NOTHING
    (_, scores), rows = _sample(results), []
    for name, reached in _trainings(results).items():
        own, values = scores[list(reached)], np.array(list(reached.values()))
        upper = own >= np.median(own)
        best = values[np.argsort(-own)[: max(1, len(own) // 10)]].mean()
        ranks = [rank_correlation(own, values).shown(), rank_correlation(own[upper], values[upper]).shown()]
        levels = [percent(level) for level in (best, np.median(values), values.max())]
        rows.append([name, str(len(values)), *ranks, *levels])
    head = ["training", "configurations", "Spearman", "in the better half", "best tenth by score, mean"]
    return markdown([*head, "median", "highest"], rows)


def _sample(results: Results) -> tuple[list[Configuration], np.ndarray]:
    """Configurations of the sample, and their scores in the table."""
    table = results.tables[MAIN]
    configurations = [as_configuration(c) for c in results.ranking["configurations"]]
    return configurations, np.array([table.accuracies(len(c))[0, table.rank(c)] for c in configurations])


def _trainings(results: Results) -> dict[str, dict[int, float]]:
    """Accuracies of the sample's other trainings, by place in the sample."""
    reached = results.ranking["accuracies"]
    trainings = {name: dict(enumerate(reached[key])) for key, name in LONGER.items() if key in reached}
    tuned = results.ranking.get("fine-tuned", {"count": 0, "rows": {}})
    if 0 < 2 * tuned["count"] == len(tuned["rows"]):  # all of them
        rows = {int(place): row["dev"] for place, row in tuned["rows"].items()}
        name = f"the same, the {tuned['count']} best by score and as many random ones"
        trainings |= {name: {place: reached["to the end"][place] for place in rows}, TUNED: rows}
    return trainings


def last_features(results: Results) -> str:
    """Accuracies of the sample by where a configuration reads the last features of all networks."""
    if not results.ranking:
        return NOTHING
    configurations, scores = _sample(results)
    last = [size - 1 for size in results.tables[MAIN].space.sizes]
    groups: dict[str, list[int]] = {"both, in the last layer": [], "both, elsewhere": [], "not both": []}
    for place, layers in enumerate(configurations):
        columns = list(zip(*layers, strict=True))
        both = all(i in column for i, column in zip(last, columns, strict=False))
        at_the_end = list(layers[-1][:-1]) == last
        groups["both, in the last layer" if at_the_end else "both, elsewhere" if both else "not both"].append(place)
    rows = []
    trainings = {"as in a search": dict(enumerate(scores)), **_trainings(results)}
    for name in ("as in a search", LONGER["to the end"], TUNED):
        reached = trainings.get(name, {})
        for group, places in groups.items():
            if values := [reached[place] for place in places if place in reached]:
                levels = [percent(level) for level in np.quantile(values, [0, 0.5, 1])]
                rows.append([name, group, str(len(values)), *levels])
    head = ["training", "last features read", "configurations", "lowest", "median", "highest"]
    return markdown(head, rows)


SPACE = {
    "tables": tasks,
    "depths": depths,
    "choices": choices,
    "noise": noise,
    "epochs": epochs,
    "networks": networks,
    "longer": longer,
    "last features": last_features,
}
