"""The report of a run as one page that needs no network: `RUN_DIR/report.html`, from the files of the run folder.

python -m utils.report runs/main_searchable_avmnist-20250101-120000
"""

import math
from html import escape
from pathlib import Path

from utils import svg
from utils.cli import UsageError, make_parser, run
from utils.configurations import format_configuration
from utils.files import write_text
from utils.page import duration, figure, grid, page, percent, section, table, tiles
from utils.report_search import (
    choices,
    cost,
    draw_network,
    predictions,
    search_headline,
    search_over_time,
    steps_table,
    top_five,
)
from utils.run_files import RunFiles, read_files

STAND_IN = (
    '<p class="note">The data of this run are a stand-in, made without the original recordings: its figures '
    "show that everything works and are not results on AV-MNIST.</p>"
)


def found_headline(files: RunFiles) -> str:
    rows = {row["name"]: row for row in files.results.get("rows", ())}
    found = rows.get("found network")
    if found is None:
        return ""
    late = {
        name: row["test"] for name, row in rows.items() if name.startswith("late fusion") and row["test"] is not None
    }
    values = [("test accuracy of the found network", percent(found["test"])), ("dev accuracy", percent(found["dev"]))]
    if late and found["test"] is not None:
        gap = 100 * (found["test"] - max(late.values()))
        values.append((f"points over {max(late, key=late.get)}", f"{gap:+.1f}"))
    return tiles(values)


def results_table(files: RunFiles) -> str:
    head = ("", "dev accuracy", "test accuracy", "candidates trained", "time", "configuration")
    rows = []
    for row in files.results.get("rows", ()):
        trained, configuration = row.get("candidates_trained"), row.get("configuration")
        shown = [percent(row["dev"]), percent(row["test"]), "-" if trained is None else trained]
        shown += [duration(row.get("seconds")), format_configuration(configuration) if configuration else "-"]
        rows.append((row["name"], *shown))
    return table(head, rows, left=(0, 5), strong="found network") if rows else ""


def found_network(files: RunFiles) -> str:
    configuration = files.results.get("configuration")
    if not configuration:
        return ""
    checkpoint = files.results.get("checkpoint")
    kept = f"<p>Checkpoint: <code>{escape(checkpoint)}</code></p>" if checkpoint else ""
    return grid(figure(draw_network(files, configuration), format_configuration(configuration)), small=True) + kept


def confusion(files: RunFiles) -> str:
    counts = files.results.get("confusion")
    if not counts:
        return ""
    right, total = sum(row[i] for i, row in enumerate(counts)), sum(map(sum, counts))
    title = f"Confusion matrix of the found network: {right:g} of {total:g} samples on the diagonal"
    return grid(figure(svg.matrix(title, counts), "Samples by true and predicted class; shade: share of the row."))


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def curves(files: RunFiles) -> str:
    """Accuracy and loss by epoch."""
    epochs = files.results.get("epochs") or []
    if not epochs:
        return ""
    best = files.results.get("best_epoch")
    turn = next((epoch["epoch"] for epoch in epochs if epoch.get("phase") == "all"), None)
    figures = []
    for label, lines in (("accuracy (%)", ("train_accuracy", "dev_accuracy")), ("loss", ("train_loss", "dev_loss"))):
        scale = 100 if "%" in label else 1
        drawn = {key: [(e["epoch"], scale * e[key]) for e in epochs if known(e.get(key))] for key in lines}
        drawn = {key: points for key, points in drawn.items() if points}
        x = (epochs[0]["epoch"] - 0.5, epochs[-1]["epoch"] + 0.5)
        panel = svg.Panel(44, 24, 406, 210, x, svg.bounds(y for points in drawn.values() for _, y in points))
        parts = [panel.axes("epoch", label)]
        parts += [panel.upright(turn - 0.5, "all weights")] if turn not in (None, epochs[0]["epoch"]) else []
        for k, (key, points) in enumerate(drawn.items()):
            parts.append(panel.line(points, f"k{k}"))
            marked = points if len(points) <= 30 else [p for p in points if p[0] == best]
            parts += [panel.mark(a, b, k, f"{key.replace('_', ' ')} {b:.4g}, epoch {a}") for a, b in marked]
        keys = [(k, key.replace("_", " ")) for k, key in enumerate(drawn)]
        title = f"{label.split()[0].capitalize()} over {len(epochs)} epochs"
        figures.append(figure(svg.drawing(460, 274, title, *parts), title, keys))
    words = "" if best is None else f"<p class='soft'>The weights of epoch {best}, the best on dev, are kept.</p>"
    return words + grid(*figures)


def about(files: RunFiles) -> str:
    """Command, versions and every setting."""
    args = files.args
    if not args:
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in args.get("versions", {}).items())
    settings = [(name, "-" if value is None else value) for name, value in sorted(args.get("settings", {}).items())]
    listed = table(("setting", "value"), settings, left=(0, 1))
    return (
        f"<pre><code>{escape(args.get('command', ''))}</code></pre><p class='soft'>{escape(versions)}</p>"
        f"<details><summary>All {len(settings)} settings</summary>{listed}</details>"
    )


def write_report(run_dir: Path) -> Path:
    """Build `run_dir`/report.html and return its path.

    Raises:
        UsageError: the folder holds no files of a run, or damaged ones.
    """
    try:
        content = _content(read_files(run_dir), run_dir.resolve().name)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UsageError(f"{run_dir}: its files are not as a run writes them ({error!r})") from error
    path = run_dir / "report.html"
    write_text(path, content)
    return path


def _content(files: RunFiles, name: str) -> str:
    kind = "Found network" if files.results else "Architecture search" if files.header or files.best else "Run"
    title = f"{kind}: {name}"
    return page(
        title,
        f"<h1>{escape(title)}</h1>",
        STAND_IN if files.results.get("stand_in", files.best.get("stand_in")) else "",
        found_headline(files),
        section("Results", results_table(files)),
        section("The network", found_network(files)),
        section("Training", curves(files)),
        section("Confusion on the test split", confusion(files)),
        search_headline(files),
        section("Search", grid(search_over_time(files), predictions(files)), steps_table(files)),
        section("Best configurations", top_five(files)),
        section("What the best have in common", choices(files)),
        section("Where the time went", cost(files)),
        section("How it was run", about(files)),
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a search or of a found network's training")
    print(write_report(parser.parse_args().run_dir))


if __name__ == "__main__":
    run(main)
