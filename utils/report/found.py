"""The sections of a report that tell of a trained network, found or unimodal; "" where there is nothing to say."""

import math
from collections.abc import Mapping
from html import escape

from utils.report import plots
from utils.report.contents import RunFiles
from utils.report.page import duration, figure, grid, percent, section, table, tiles
from utils.report.search import draw_network
from utils.search.space import format_configuration

FOUND = "found network"
BARS = 20  # of a figure at most
UNFINISHED = '<p class="note">This training has not tested its network: it is unfinished.</p>'


def training_headline(files: RunFiles) -> str:
    if files.kind == "unimodal network":
        return unimodal_headline(files)
    found = found_row(files)
    if not found:
        return UNFINISHED if files.kind == "found network" else ""
    values = [(f"test {files.score} of the found network", percent(found["test"]))]
    values.append((f"dev {files.score}", percent(found["dev"])))
    late = [row for row in files.results["rows"] if row["name"].startswith("late fusion") and row["test"] is not None]
    if late and found["test"] is not None:
        best = max(late, key=lambda row: row["test"])
        values.append((f"points over {best['name']}", f"{100 * (found['test'] - best['test']):+.1f}"))
    f1 = files.results.get("f1", {})
    values += [(f"{name} F1 on test", percent(f1[name])) for name in f1 if f"{name} F1" != files.score]
    return tiles(values)


def unimodal_headline(files: RunFiles) -> str:
    results = files.results
    values = [
        ("test accuracy", percent(results.get("test_accuracy"))),
        ("dev accuracy", percent(results.get("dev_accuracy"))),
    ]
    values += [("network", results["network"]), ("time", duration(results.get("seconds")))]
    return ("" if "test_accuracy" in results else UNFINISHED) + tiles(values)


def found_row(files: RunFiles) -> dict:
    """What a run tells of the found network itself."""
    return next((row for row in files.results.get("rows", ()) if row["name"] == FOUND), {})


def results_table(files: RunFiles) -> str:
    score = files.score
    head = ("", f"dev {score}", f"test {score}", "candidates trained", "time", "configuration")
    rows = []
    for row in files.results.get("rows", ()):
        trained, configuration = row.get("candidates_trained"), row.get("configuration")
        shown = [percent(row["dev"]), percent(row["test"]), "-" if trained is None else trained]
        shown += [duration(row.get("seconds")), format_configuration(configuration) if configuration else "-"]
        rows.append((row["name"], *shown))
    words = '<p class="soft">Time: all training that it took, of the unimodal networks and in the search too.</p>'
    return table(head, rows, left=(0, 5), strong=(FOUND,)) + words if rows else ""


def significance(test: Mapping[str, object]) -> str:
    """McNemar's test of results.json in words."""
    p = "p < 0.001" if test["p"] < 0.001 else f"p = {test['p']:.3f}"
    verdict = "chance alone hardly gives" if test["p"] < 0.05 else "chance alone may give"
    return (
        f"Only the found network is right on {test['only_found_right']} of the test samples, only the baseline "
        f"({test['against']}) on {test['only_baseline_right']}. McNemar's exact test: {p}; "
        f"{verdict} a difference as large."
    )


def found_network(files: RunFiles) -> str:
    configuration = files.results.get("configuration")
    if not configuration:
        return ""
    checkpoint = files.results.get("checkpoint")
    kept = f"<p>Checkpoint: <code>{escape(checkpoint)}</code></p>" if checkpoint else ""
    small = len(files.results["modalities"]) <= 2
    return grid(figure(draw_network(files, configuration), format_configuration(configuration)), small=small) + kept


def confusion(files: RunFiles) -> str:
    counts = files.results.get("confusion")
    if not counts:
        return ""
    right, total = sum(row[i] for i, row in enumerate(counts)), sum(map(sum, counts))
    title = f"Confusion matrix of the found network: {right:g} of {total:g} samples on the diagonal"
    return grid(figure(plots.matrix(title, counts), "Samples by true and predicted class; shade: share of the row."))


def by_class(files: RunFiles) -> str:
    """The share of each class that is recognised."""
    counts = files.results.get("confusion")
    if not counts:
        return ""
    rows = [
        (f"class {i}", row[i] / sum(row), f"{percent(row[i] / sum(row))} of {sum(row):g}")
        for i, row in enumerate(counts)
        if sum(row)
    ]
    figures = []
    for start in range(0, len(rows), BARS):
        part = rows[start : start + BARS]
        title = "Accuracy by class: " + ", ".join(f"{name} {words}" for name, _, words in part)
        figures.append(figure(plots.bars(title, part), f"{part[0][0].capitalize()} to {part[-1][0]}"))
    words = "Share of each class's test samples that are right, and how many there are."
    return f'<p class="soft">{words}</p>{grid(*figures, small=True)}'


def missing(files: RunFiles) -> str:
    """How the network does with each modality muted or under noise, against test with nothing missing."""
    lines, whole = files.results.get("missing"), found_row(files).get("test")
    if not lines:
        return ""
    figures = []
    for name in dict.fromkeys(line["modality"] for line in lines):
        own = [line for line in lines if line["modality"] == name]
        own.sort(key=lambda line: math.inf if line["noise"] is None else line["noise"])
        rows = [
            ("muted" if line["noise"] is None else f"noise {line['noise']:g}", line["test"], percent(line["test"]))
            for line in own
        ]
        title = f"Test {files.score} with a disturbed {name}: " + ", ".join(f"{what} {at}" for what, _, at in rows)
        figures.append(figure(plots.bars(title, rows, usual=[whole or 0] * len(rows)), f"{name} disturbed"))
    words = (
        f"Test {files.score} with noise on one modality (in standard deviations of its input), and with it muted. "
        f"Dashed: nothing disturbed, {percent(whole)}."
    )
    return f'<p class="soft">{escape(words)}</p>{grid(*figures, small=True)}'


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def curves(files: RunFiles) -> str:
    """Score and loss by epoch."""
    epochs = files.results.get("epochs") or []
    if not epochs:
        return ""
    best = files.results.get("best_epoch")
    words = "" if best is None else f"<p class='soft'>The weights of epoch {best}, the best on dev, are kept.</p>"
    splits = ("train", "dev", "test")
    scores = {f"{split} {files.score}": f"{split}_accuracy" for split in splits}
    losses = {f"{split} loss": f"{split}_loss" for split in splits}
    drawn = (curve(epochs, best, f"{files.score} (%)", scores, 100), curve(epochs, best, "loss", losses, 1))
    return words + grid(*drawn)


def curve(epochs: list[dict], best: int | None, label: str, lines: dict[str, str], scale: float) -> str:
    """One drawing over the epochs; `lines` are keys of an epoch by their names in words."""
    drawn = {name: [(e["epoch"], scale * e[key]) for e in epochs if known(e.get(key))] for name, key in lines.items()}
    drawn = {name: points for name, points in drawn.items() if points}
    x = (epochs[0]["epoch"] - 0.5, epochs[-1]["epoch"] + 0.5)
    panel = plots.Panel(44, 24, 406, 210, x, plots.bounds(y for points in drawn.values() for _, y in points))
    parts = [panel.axes("epoch", label)]
    turn = next((epoch["epoch"] for epoch in epochs if epoch.get("phase") == "all"), None)
    parts += [panel.upright(turn - 0.5, "all weights")] if turn not in (None, epochs[0]["epoch"]) else []
    for k, (name, points) in enumerate(drawn.items()):
        parts.append(panel.line(points, f"k{k}"))
        marked = points if len(points) <= 30 else [p for p in points if p[0] in (best, points[-1][0])]
        parts += [panel.mark(a, b, k, f"{name} {b:.4g}, epoch {a}") for a, b in marked]
    shown = label.removesuffix(" (%)")
    title = f"{shown[0].upper()}{shown[1:]} over {len(epochs)} epoch{'s' * (len(epochs) > 1)}"
    ends = "; ".join(f"{name} {points[-1][1]:.4g} at the end" for name, points in drawn.items())
    picture = plots.drawing(460, 274, f"{title}: {ends}", *parts)
    return figure(picture, title, list(enumerate(drawn)))


def training_sections(files: RunFiles) -> list[str]:
    test = files.results.get("mcnemar")
    return [
        training_headline(files),
        section("Results", results_table(files), f"<p>{escape(significance(test))}</p>" if test else ""),
        section("The network", found_network(files)),
        section("Missing and noisy modalities", missing(files)),
        section("Training", curves(files)),
        section("Confusion on the test split", confusion(files)),
        section("By class", by_class(files)),
    ]
