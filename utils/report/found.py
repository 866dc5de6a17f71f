"""Content of the report on a trained network; a part is None or empty where the run has nothing to show."""

import math

from utils.report import plots
from utils.report.architecture import to_svg
from utils.report.classes import class_content
from utils.report.contents import FOUND, RunFiles
from utils.report.page import percent
from utils.report.plots import Bar, Figure
from utils.results.statistics import best_baseline, significance
from utils.search.space import format_configuration

SPLITS = ("train", "dev", "test")


def training_content(files: RunFiles) -> dict[str, object]:
    results = files.results
    configuration, test = results.get("configuration"), results.get("mcnemar")
    return {
        "lead": lead(files),
        "mcnemar": significance(test) if test else None,
        "network": Figure(to_svg(files, configuration), format_configuration(configuration)) if configuration else None,
        "missing": missing(files),
        "curves": curves(files) if results.get("epochs") else [],
        **class_content(results.get("confusion"), results.get("class_names") or ()),
    }


def lead(files: RunFiles) -> tuple[float, str] | None:
    """Test score of the found network minus that of the baseline that is best on dev, and the name of the latter."""
    found, rows = files.found_row, files.results.get("rows", ())
    best = best_baseline(row for row in rows if row["name"] != FOUND)
    return None if best is None or found.get("test") is None else (found["test"] - best["test"], best["name"])


def missing(files: RunFiles) -> list[Figure]:
    """Test score with each modality muted or noisy, compared with undisturbed inputs."""
    lines, whole = files.results.get("missing") or [], files.found_row.get("test") or 0
    figures = []
    for name in dict.fromkeys(line["modality"] for line in lines):
        own = {math.inf if line["noise"] is None else line["noise"]: line for line in lines if line["modality"] == name}
        labels = {level: "muted" if level == math.inf else f"noise {level:g}" for level in sorted(own)}
        rows = [Bar(label, own[k]["test"], percent(own[k]["test"]), whole) for k, label in labels.items()]
        figures.append(Figure(plots.bars(f"Test {files.score} with a disturbed {name}", rows), f"{name} disturbed"))
    return figures


def curves(files: RunFiles) -> list[Figure]:
    """Score and loss by epoch."""
    return [curve(files, files.score, "accuracy", "%"), curve(files, "loss", "loss")]


def curve(files: RunFiles, shown: str, key: str, unit: str = "") -> Figure:
    """Draw one figure of each split over the epochs; the epochs' keys are SPLIT_KEY."""
    epochs, best = files.results["epochs"], files.results.get("best_epoch")
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    drawn: dict[str, list[plots.Point]] = {}
    for split in SPLITS:
        values = [(epoch["epoch"], epoch.get(f"{split}_{key}")) for epoch in epochs]
        if points := [(x, 100 * y if unit else y) for x, y in values if y is not None and math.isfinite(y)]:
            drawn[f"{split} {shown}"] = points
    heights = plots.bounds(y for points in drawn.values() for _, y in points)
    panel = plots.Panel(44, 24, 406, 210, (first - 0.5, last + 0.5), heights)
    parts = [panel.axes("epoch", f"{shown} ({unit})" if unit else shown)]
    turn = next((epoch["epoch"] for epoch in epochs if epoch.get("phase") == "all"), first)
    if turn != first:
        parts.append(panel.vertical(turn - 0.5, "all weights"))
    for k, (name, points) in enumerate(drawn.items()):
        parts.append(panel.line(points, f"k{k}"))
        marked = points if len(points) <= 30 else [p for p in points if p[0] in (best, points[-1][0])]
        parts += [panel.mark(x, y, k, f"{name} {y:.4g}, epoch {x}") for x, y in marked]
    title = f"{shown[0].upper()}{shown[1:]} over {len(epochs)} epoch{'s' * (len(epochs) > 1)}"
    ends = "; ".join(f"{name} {points[-1][1]:.4g} at the end" for name, points in drawn.items())
    keys = [(k, plots.GLYPHS[k], name) for k, name in enumerate(drawn)]
    return Figure(plots.drawing(460, 274, f"{title}: {ends}", *parts), title, keys)
