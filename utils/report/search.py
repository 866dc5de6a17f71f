"""Content of the report on a search; a part is None or empty where the run has nothing to show."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, groupby

from markupsafe import Markup

from models.rows import ACTIVATION_NAMES, SKIP
from utils.report import plots
from utils.report.architecture import activation_name, to_svg
from utils.report.contents import RunFiles
from utils.report.page import duration, percent
from utils.report.plots import Bar, Figure, spaced
from utils.search.journal import best_of
from utils.search.space import Space, format_configuration

WIDE, HIGH = 406, 226  # of the main panels


def search_content(files: RunFiles) -> dict[str, object]:
    best = files.best_configurations()
    return {
        "top": best,
        "baselines": baselines(files),
        "against_random": against_random(files),
        "progress": search_over_time(files) if files.candidates else None,
        "predictions": predictions(files),
        "networks": [
            Figure(to_svg(files, entry["configuration"]), f"{rank}: {percent(entry['accuracy'])}")
            for rank, entry in enumerate(best, 1)
        ],
        "choices": choices(files),
        "cost": cost(files),
    }


def baselines(files: RunFiles) -> list[dict]:
    """{name, dev, difference} of unimodal networks, late fusions and random search; difference: the best's lead."""
    random = files.best.get("random")
    entries = [{"difference": None} | entry for entry in files.best.get("baselines") or ()]
    if random and random["configurations"]:
        name = f"random search, {random['candidates_trained']} candidates"
        dev, difference = random["configurations"][0]["accuracy"], random.get("difference")
        entries.append({"name": name, "dev": dev, "difference": difference})
    return entries


def against_random(files: RunFiles) -> Figure | None:
    """Best score so far of the search and of random search on the same features."""
    theirs = [100 * value for value in (files.best.get("random") or {}).get("accuracies", ())]
    own = list(accumulate((100 * candidate["accuracy"] for candidate in files.candidates), max))
    if not theirs or not own:
        return None
    panel = plots.Panel(44, 24, WIDE, 210, (0.5, max(len(own), len(theirs)) + 0.5), plots.bounds([*own, *theirs]))
    parts = [
        panel.axes("candidates trained", f"best dev {files.score} so far (%)"),
        panel.line(plots.stairs(enumerate(own, 1)), "k0"),
        panel.line(plots.stairs(enumerate(theirs, 1)), "k1 broken"),
    ]
    title = f"Best so far: this search {own[-1]:.2f} % at the end, random search {theirs[-1]:.2f} %"
    keys = [(0, "━", "this search"), (1, "╍", "random search")]
    return Figure(plots.drawing(460, 274, title, *parts), "Best so far, by number of candidates trained.", keys)


def kind(candidate: dict) -> int:
    """Color and shape of a candidate, by its number of fusion layers."""
    return min(len(candidate["configuration"]), plots.KINDS) - 1


def layer_keys(candidates: Sequence[dict]) -> list[tuple[int, str, str]]:
    """Legend of the numbers of fusion layers that occur."""
    longest = max(len(candidate["configuration"]) for candidate in candidates)
    names = ["1 fusion layer", *map(str, range(2, plots.KINDS)), f"{plots.KINDS}{' or more' * (longest > plots.KINDS)}"]
    return [(k, plots.GLYPHS[k], names[k]) for k in sorted({kind(candidate) for candidate in candidates})]


def search_over_time(files: RunFiles) -> Figure:
    """Dev score of every candidate in the order of training, the best so far, and the temperature below."""
    candidates = files.candidates
    scores = [100 * candidate["accuracy"] for candidate in candidates]
    spans = []  # step, its first and last place on the x axis
    for step, group in groupby(enumerate(candidates, 1), lambda item: item[1]["step"]):
        places = [place for place, _ in group]
        spans.append((step, places[0] - 0.5, places[-1] + 0.5))
    beside = compared(files)
    low, high = plots.bounds([*scores, *beside.values()])
    panel = plots.Panel(44, 24, WIDE, HIGH, (0.5, len(candidates) + 0.5), (low, high + 0.1 * (high - low)))
    parts = [panel.band(first, last, step, i % 2 == 0) for i, (step, first, last) in enumerate(spans)]
    parts.append(panel.axes("candidates, in the order trained", f"dev {files.score} (%)"))
    parts.append(panel.line(plots.stairs(enumerate(accumulate(scores, max), 1)), "ink thin"))
    best, every = max(scores), plots.thinned(len(scores))
    for i, (candidate, score) in enumerate(zip(candidates, scores, strict=True), 1):
        note = f"{format_configuration(candidate['configuration'])} {score:.2f} %, step {candidate['step']}"
        if i % every == 0 or score == best:
            parts.append(panel.mark(i, score, kind(candidate), note))
    parts += baseline_lines(panel, beside)
    temperatures = {step["step"]: step["temperature"] for step in files.steps if step.get("temperature") is not None}
    warm = [(x, temperatures[step]) for step, *ends in spans if step in temperatures for x in ends]
    if warm:
        strip = plots.Panel(44, 318, WIDE, 62, panel.x, (0, 1.1 * max(y for _, y in warm)))
        parts += [strip.axes("", "temperature", y_ticks=2), strip.line(warm, "ink")]
    title = f"Search over time: {len(candidates)} candidates, best dev {files.score} {max(scores):.2f} %"
    caption = "Marks: trained candidates. Line: the best so far. Stripes: steps, numbered."
    if beside:
        caption += " Dashed: baselines on dev."
        title += "; " + ", ".join(f"{name} {score:.2f} %" for name, score in beside.items())
    return Figure(plots.drawing(460, 404 if warm else 290, title, *parts), caption, layer_keys(candidates))


def compared(files: RunFiles) -> dict[str, float]:
    """Dev score (%) of each unimodal network and of the better late fusion, as far as they are known."""
    late = {name: dev for name, dev in files.baselines.items() if name.startswith("late fusion")}
    alone = {name: dev for name, dev in files.baselines.items() if name not in late}
    return {name: 100 * dev for name, dev in (alone | ({"late fusion": max(late.values())} if late else {})).items()}


def baseline_lines(panel: plots.Panel, scores: dict[str, float]) -> Iterator[Markup]:
    """A dashed line for each baseline, with its name above its right end."""
    right = panel.left + panel.width
    places = [panel.at(0, score)[1] for score in scores.values()]
    for name, y, words in zip(scores, places, spaced(places, 13), strict=True):
        yield plots.tag("line", x1=panel.left, x2=right, y1=y, y2=y, class_="line dash")
        yield plots.text(right - 2, words - 4, name, "end", class_="faint clear")


def predictions(files: RunFiles) -> Figure | None:
    """Predicted against reached accuracy, and their rank correlation by step below."""
    predicted = [candidate for candidate in files.candidates if candidate.get("predicted") is not None]
    if not predicted:
        return None
    values = [(100 * candidate["predicted"], 100 * candidate["accuracy"]) for candidate in predicted]
    panel = plots.Panel(44, 24, WIDE, HIGH, plots.bounds(x for x, _ in values), plots.bounds(y for _, y in values))
    parts = [panel.axes("predicted (%)", f"dev {files.score} (%)", whole_x=False)]
    low, high = max(panel.x[0], panel.y[0]), min(panel.x[1], panel.y[1])
    if low < high:
        parts.append(panel.line([(low, low), (high, high)], "dash"))
    for candidate, (x, y) in list(zip(predicted, values, strict=True))[:: plots.thinned(len(values))]:
        note = f"{format_configuration(candidate['configuration'])} predicted {x:.1f} %, reached {y:.1f} %"
        parts.append(panel.mark(x, y, kind(candidate), note))
    known = [step for step in files.steps if step.get("rank_correlation") is not None]
    ranks: list[plots.Point] = [(step["step"], step["rank_correlation"]) for step in known]
    if ranks:
        steps = (ranks[0][0] - 0.5, ranks[-1][0] + 0.5)
        strip = plots.Panel(44, 318, WIDE, 62, steps, (min(0, *(r for _, r in ranks)) - 0.1, 1.05))
        parts += [strip.axes("step", "rank correlation", y_ticks=3), strip.line(ranks, "ink")]
        parts += [strip.mark(step, rank, 0, f"step {step}: {rank:.2f}", "ink") for step, rank in ranks]
    title = f"Predicted and reached dev {files.score} of {len(predicted)} candidates"
    caption = "The surrogate's predictions and the results. Dashed: both agree."
    return Figure(plots.drawing(460, 418 if ranks else 290, title, *parts), caption, layer_keys(predicted))


def choices(files: RunFiles) -> dict[str, object] | None:
    """How often the best tenth of the configurations (five at least) use each feature and activation."""
    ranked = [entry["configuration"] for entry in best_of(files.candidates, len(files.candidates))]
    if len(ranked) < 10:
        return None
    best = max(5, len(ranked) // 10)
    layers = list(chain(*ranked[:best]))
    skips = any(SKIP in row[:-1] for row in chain(*ranked))
    activations = tuple(ACTIVATION_NAMES.index(name) for name in files.header["activations"])
    possible = Space(tuple(files.header["sizes"]), activations, skips).rows()
    figures = []
    for column, name in enumerate([*files.modalities, "activation"]):
        feature, bars = column < len(files.modalities), []
        for i in sorted({row[column] for row in possible}):
            label = "left out" if i == SKIP else f"{name} {i}" if feature else activation_name(i)
            uses, chance = (sum(row[column] == i for row in rows) for rows in (layers, possible))
            short, words = label if len(label) <= 12 else str(i), f"{uses} of {len(layers)}"
            bars.append(Bar(short, uses / len(layers), words, chance / len(possible)))
        picture = plots.bars(f"{name} of the best", bars, column % plots.KINDS)
        figures.append(Figure(picture, f"{name[0].upper()}{name[1:]} feature" if feature else "Activation"))
    return {"best": best, "configurations": len(ranked), "layers": len(layers), "figures": figures}


def cost(files: RunFiles) -> Figure | None:
    """Seconds of each part of the search."""
    parts = files.best.get("seconds_by_part") or {}
    total = sum(parts.values())
    if not total:
        return None
    rows = [Bar(name, s / total, f"{duration(s)} ({percent(s / total)})") for name, s in parts.items()]
    return Figure(plots.bars("Time by part", rows))
