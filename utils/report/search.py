"""The sections of a report that tell of a search; each is markup, or "" where the run has nothing to say on it."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import accumulate, groupby
from math import prod

from models.fusion import ACTIVATION_NAMES, SKIP
from utils.report import plots
from utils.report.baselines import baselines
from utils.report.contents import RunFiles
from utils.report.page import duration, figure, grid, number, percent, section, table, tiles
from utils.search.space import format_configuration


def kind(candidate: dict) -> int:
    """Colour and shape of a candidate, by its number of fusion layers."""
    return min(len(candidate["configuration"]), plots.KINDS) - 1


def layer_keys(candidates: Sequence[dict]) -> list[tuple[int, str]]:
    longest = max(len(candidate["configuration"]) for candidate in candidates)
    names = ["1 fusion layer", *map(str, range(2, plots.KINDS)), f"{plots.KINDS}{' or more' * (longest > plots.KINDS)}"]
    return [(k, names[k]) for k in sorted({kind(candidate) for candidate in candidates})]


def activation(index: int) -> str:
    return ACTIVATION_NAMES[index].replace("_", " ")


def draw_network(files: RunFiles, configuration: Sequence[Sequence[int]]) -> str:
    """The network drawn, with as many features as the search's header or else the configuration knows of."""
    sizes = files.header.get("sizes") or files.results.get("sizes")
    sizes = sizes or [max(0, *column) + 1 for column in list(zip(*configuration, strict=True))[:-1]]
    modalities = files.modalities
    words = f"{', '.join(modalities[:-1])} and {modalities[-1]}"
    title = f"fusion network {format_configuration(configuration)} of {words} features"
    return plots.network(title, configuration, modalities, sizes, activation)


def search_headline(files: RunFiles) -> str:
    if not files.candidates and not files.best:
        return ""
    best = files.best_configurations()[0]
    count = files.best.get("candidates_trained", len(files.candidates))
    seconds = files.best.get("seconds", sum(candidate["seconds"] for candidate in files.candidates))
    values = [(f"best dev {files.score}", percent(best["accuracy"]))]
    values += [("candidates trained", str(count)), ("time", duration(seconds))]
    state = "" if files.best else "This search has not written its best.json: it is unfinished."
    state = state if files.best.get("whole", True) else "This search ended where its budget did, before its last step."
    unfinished = f'<p class="note">{state}</p>' if state else ""
    failed = "".join(
        f"<li><code>{format_configuration(line['configuration'])}</code>, step {line['step']}: "
        f"{escape(line['failed'])}</li>"
        for line in files.failed
    )
    note = f'<div class="note">{len(files.failed)} candidates failed: <ul>{failed}</ul></div>' if failed else ""
    return f"""{unfinished}{note}{tiles(values)}
<p>Best configuration: <code>{format_configuration(best["configuration"])}</code></p>"""


def search_over_time(files: RunFiles) -> str:
    """Every candidate's dev score in the order trained, the best so far, and the temperature below."""
    candidates = files.candidates
    if not candidates:
        return ""
    accuracies = [100 * candidate["accuracy"] for candidate in candidates]
    spans = [(step, [i for i, _ in group]) for step, group in groupby(enumerate(candidates, 1), lambda c: c[1]["step"])]
    low, high = plots.bounds(accuracies)
    panel = plots.Panel(44, 24, 406, 226, (0.5, len(candidates) + 0.5), (low, high + 0.1 * (high - low)))
    parts = [panel.band(g[0] - 0.5, g[-1] + 0.5, step, n % 2 == 0) for n, (step, g) in enumerate(spans)]
    parts.append(panel.axes("candidates, in the order trained", f"dev {files.score} (%)"))
    parts.append(panel.line(plots.stairs(enumerate(accumulate(accuracies, max), 1)), "ink thin"))
    for i, (candidate, value) in enumerate(zip(candidates, accuracies, strict=True), 1):
        note = f"{format_configuration(candidate['configuration'])} {value:.2f} %, step {candidate['step']}"
        parts.append(panel.mark(i, value, kind(candidate), note))
    warmth = {step["step"]: step.get("temperature") for step in files.steps}
    warm = [(i, warmth[step]) for step, g in spans if warmth.get(step) is not None for i in (g[0] - 0.5, g[-1] + 0.5)]
    if warm:
        strip = plots.Panel(44, 318, 406, 62, panel.x, (0, 1.1 * max(t for _, t in warm)))
        parts += [strip.axes("", "temperature", y_ticks=2), strip.line(warm, "ink")]
    best = f"Search over time: {len(candidates)} candidates, best dev {files.score} {max(accuracies):.2f} %"
    caption = "Each mark is a trained candidate, the line the best so far; stripes are steps, by number."
    return figure(plots.drawing(460, 404 if warm else 290, best, *parts), caption, layer_keys(candidates))


def predictions(files: RunFiles) -> str:
    """What the surrogate predicted against what came out, and their rank correlation by step."""
    predicted = [candidate for candidate in files.candidates if candidate.get("predicted") is not None]
    if not predicted:
        return ""
    values = [(100 * candidate["predicted"], 100 * candidate["accuracy"]) for candidate in predicted]
    panel = plots.Panel(44, 24, 406, 226, plots.bounds(x for x, _ in values), plots.bounds(y for _, y in values))
    parts = [panel.axes("predicted (%)", f"dev {files.score} (%)", whole_x=False)]
    low, high = max(panel.x[0], panel.y[0]), min(panel.x[1], panel.y[1])
    if low < high:
        parts.append(panel.line([(low, low), (high, high)], "dash"))
    for candidate, (x, y) in zip(predicted, values, strict=True):
        note = f"{format_configuration(candidate['configuration'])} predicted {x:.1f} %, came to {y:.1f} %"
        parts.append(panel.mark(x, y, kind(candidate), note))
    ranks = [
        (step["step"], step["rank_correlation"]) for step in files.steps if step.get("rank_correlation") is not None
    ]
    if ranks:
        steps = (ranks[0][0] - 0.5, ranks[-1][0] + 0.5)
        strip = plots.Panel(44, 318, 406, 62, steps, (min(0, *(r for _, r in ranks)) - 0.1, 1.05))
        parts += [strip.axes("step", "rank correlation", y_ticks=3), strip.line(ranks, "ink")]
        parts += [strip.mark(step, rank, 0, f"step {step}: {rank:.2f}", "ink") for step, rank in ranks]
    title = f"The surrogate's predictions against the outcome for {len(predicted)} candidates"
    caption = "What the surrogate predicted before training, and what came out; on the dashed line both agree."
    picture = plots.drawing(460, 418 if ranks else 290, title, *parts)
    return figure(picture, caption, layer_keys(predicted))


def steps_table(files: RunFiles) -> str:
    head = ("step", "iteration", "level", "candidates", "best", "temperature", "surrogate loss", "rank corr.", "time")
    rows = []
    for step in files.steps:
        own = [candidate["accuracy"] for candidate in files.candidates if candidate["step"] == step["step"]]
        values = [step.get(key) for key in ("step", "search_iteration", "level", "candidates")]
        row = ["-" if value is None else value for value in values]
        row += [percent(max(own, default=None)), number(step.get("temperature")), number(step.get("surrogate_loss"), 4)]
        rows.append([*row, number(step.get("rank_correlation")), duration(step.get("seconds"))])
    return (
        f"<details><summary>All {len(rows)} steps as a table</summary>{table(head, rows, left=())}</details>"
        if rows
        else ""
    )


def choices(files: RunFiles) -> str:
    """How often the best tenth of the configurations (five at least) use each feature and activation."""
    scores: dict[tuple, float] = {}
    for candidate in files.candidates:
        key = tuple(map(tuple, candidate["configuration"]))
        scores[key] = max(candidate["accuracy"], scores.get(key, 0.0))
    if len(scores) < 10:
        return ""
    count = max(5, len(scores) // 10)
    layers = [row for key in sorted(scores, key=scores.get, reverse=True)[:count] for row in key]
    figures = []
    for column, (name, chances) in enumerate(chances_of(files)):
        uses, feature = Counter(row[column] for row in layers), column < len(files.modalities)
        labels = ["left out" if i == SKIP else f"{name} {i}" if feature else activation(i) for i in chances]
        labels = [label if len(label) <= 12 else str(i) for label, i in zip(labels, chances, strict=True)]
        rows = [
            (label, uses[i] / len(layers), f"{uses[i]} of {len(layers)}")
            for label, i in zip(labels, chances, strict=True)
        ]
        title = f"{name} of the best: " + ", ".join(f"{label} {words}" for label, _, words in rows)
        heading = f"{name[0].upper()}{name[1:]} feature" if feature else "Activation"
        figures.append(figure(plots.bars(title, rows, column % plots.KINDS, list(chances.values())), heading))
    words = (
        f"The best {count} of {len(scores)} configurations have {len(layers)} fusion layers; the bars count how many "
        "of these use each choice. Dashed: what choosing at random would give."
    )
    return f'<p class="soft">{words}</p>{grid(*figures, small=True)}'


def chances_of(files: RunFiles) -> list[tuple[str, dict[int, float]]]:
    """For each column of a row its name, and the share of all possible rows that have each index in it."""
    header = files.header
    skips = any(SKIP in row[:-1] for candidate in files.candidates for row in candidate["configuration"])
    sizes = [size + skips for size in header["sizes"]]
    total, chances = prod(sizes) - skips, []  # a row that leaves out all modalities is none
    for name, size, options in zip(files.modalities, header["sizes"], sizes, strict=True):
        others = prod(sizes) // options
        chances.append((name, {i: (others - (i == SKIP)) / total for i in range(-skips, size)}))
    activations = [ACTIVATION_NAMES.index(name) for name in header["activations"]]
    return [*chances, ("activation", {i: 1 / len(activations) for i in activations})]


def top_five(files: RunFiles) -> str:
    best = files.best_configurations() if files.best or files.candidates else []
    if not best:
        return ""
    rows = [(i, percent(b["accuracy"]), format_configuration(b["configuration"])) for i, b in enumerate(best, 1)]
    drawn = [
        figure(draw_network(files, b["configuration"]), f"{r[0]}: {r[1]}") for b, r in zip(best, rows, strict=True)
    ]
    words = "Columns: each backbone's features, deeper ones lower; filled where a fusion layer reads them."
    listed = table(("rank", f"dev {files.score}", "configuration"), rows, left=(2,))
    return f'{listed}<p class="soft">{words}</p>{grid(*drawn, small=len(files.modalities) <= 2)}'


def cost(files: RunFiles) -> str:
    parts = files.best.get("seconds_by_part") or {}
    total = sum(parts.values())
    if not total:
        return ""
    rows = [
        (name, seconds / total, f"{duration(seconds)}, {percent(seconds / total)}") for name, seconds in parts.items()
    ]
    title = "Time by part: " + "; ".join(f"{name} {words}" for name, _, words in rows)
    return grid(plots.bars(title, rows), small=True)


def search_sections(files: RunFiles) -> list[str]:
    return [
        search_headline(files),
        section("Beside its baselines", baselines(files)),
        section("Search", grid(search_over_time(files), predictions(files)), steps_table(files)),
        section("Best configurations", top_five(files)),
        section("What the best have in common", choices(files)),
        section("Where the time went", cost(files)),
    ]
