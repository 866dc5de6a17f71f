"""The report of a run as one HTML file, `RUN_DIR/report.html`, made from the files of the run folder."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import UndefinedError

from utils.errors import UsageError
from utils.files import write_text
from utils.report.compare import comparison_content
from utils.report.contents import read_files
from utils.report.found import training_content
from utils.report.page import render
from utils.report.search import search_content

TITLES = {"search": "Architecture search", "run": "Run"}
DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, UndefinedError)


def write_report(run_dir: Path, progress: str | None = None) -> Path:
    """Build `run_dir`/report.html and return its path.

    Args:
        progress: how far the run is; the page shows it and reloads itself. None: the run is not under way.

    Raises:
        UsageError: the folder holds no files of a run, or damaged ones.
    """
    path = run_dir / "report.html"
    try:
        files = read_files(run_dir)
        title = f"{TITLES.get(files.kind, files.kind.capitalize())}: {run_dir.resolve().name}"
        content = {"files": files, "training": training_content(files), "search": search_content(files)}
        write_text(path, render("run.html", title=title, progress=progress, **content))
    except DAMAGED as error:
        raise UsageError(f"{run_dir}: its files do not have the form that a run writes ({error!r})") from error
    return path


def write_comparison(
    run_dirs: list[Path],
    path: Path,
    ignored: set[str],
    labels: Mapping[Path, str] | None = None,
    title: str = "",
) -> Path:
    """Build the page that compares runs and return its path.

    Args:
        ignored: settings in which the runs of a group may differ, besides those that change no result.
        labels: names of groups, by folder.
        title: of the page; without one, it states the number of runs.

    Raises:
        UsageError: one of the folders holds no files of a run, or damaged ones, or a name in `ignored` is unknown.
    """
    title = title or f"Comparison of {len(run_dirs)} runs"
    try:
        content = comparison_content({folder: read_files(folder) for folder in run_dirs}, ignored, labels)
        write_text(path, render("comparison.html", title=title, **content))
    except DAMAGED as error:
        raise UsageError(f"the files of a run do not have the form that a run writes ({error!r})") from error
    return path
