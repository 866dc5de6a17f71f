"""The report of a run as one HTML file, `RUN_DIR/report.html`, made from the files of the run folder."""

from pathlib import Path

from utils.errors import UsageError
from utils.files import write_text
from utils.report.compare import comparison_content
from utils.report.contents import RunFiles, read_files
from utils.report.found import training_content
from utils.report.page import Table, render
from utils.report.search import search_content

TITLES = {"search": "Architecture search", "run": "Run"}
DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def write_report(run_dir: Path) -> Path:
    """Build `run_dir`/report.html and return its path.

    Raises:
        UsageError: the folder holds no files of a run, or damaged ones.
    """
    path = run_dir / "report.html"
    try:
        write_text(path, render("run.html", **_content(read_files(run_dir), run_dir.resolve().name)))
    except DAMAGED as error:
        raise UsageError(f"{run_dir}: its files are not as a run writes them ({error!r})") from error
    return path


def _content(files: RunFiles, name: str) -> dict[str, object]:
    return {
        "title": f"{TITLES.get(files.kind, files.kind.capitalize())}: {name}",
        "stand_in": files.stand_in,
        "score": files.score,
        "training": training_content(files),
        "search": search_content(files),
        "args": _command(files) if files.args else None,
    }


def _command(files: RunFiles) -> dict[str, object]:
    """Command, versions and all settings."""
    settings = [(name, "-" if value is None else value) for name, value in sorted(files.settings.items())]
    return {
        "command": files.args.get("command", ""),
        "versions": ", ".join(f"{name} {version}" for name, version in files.args.get("versions", {}).items()),
        "settings": Table(("setting", "value"), settings, left=(0, 1)),
    }


def write_comparison(run_dirs: list[Path], path: Path, ignored: set[str]) -> Path:
    """Build the page that compares runs and return its path.

    Args:
        ignored: settings in which the runs of a group may differ, besides those that change no result.

    Raises:
        UsageError: one of the folders holds no files of a run, or damaged ones.
    """
    try:
        content = comparison_content({folder: read_files(folder) for folder in run_dirs}, ignored)
        write_text(path, render("comparison.html", **content))
    except DAMAGED as error:
        raise UsageError(f"the files of a run are not as a run writes them ({error!r})") from error
    return path
