"""The report of a run as one page that needs no network: `RUN_DIR/report.html`, from the files of the run folder."""

from html import escape
from pathlib import Path

from utils.errors import UsageError
from utils.files import write_text
from utils.report.compare import comparison
from utils.report.contents import RunFiles, read_files
from utils.report.found import training_sections
from utils.report.page import page, section, table
from utils.report.search import search_sections

STAND_IN = (
    '<p class="note">The data of this run are a stand-in, made without the original recordings: its figures '
    "show that everything works and are not results on AV-MNIST.</p>"
)
TITLES = {"search": "Architecture search", "run": "Run"}
DAMAGED = (AttributeError, KeyError, IndexError, TypeError, ValueError)


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
    except DAMAGED as error:
        raise UsageError(f"{run_dir}: its files are not as a run writes them ({error!r})") from error
    path = run_dir / "report.html"
    write_text(path, content)
    return path


def _content(files: RunFiles, name: str) -> str:
    title = f"{TITLES.get(files.kind, files.kind.capitalize())}: {name}"
    return page(
        title,
        f"<h1>{escape(title)}</h1>",
        STAND_IN if files.stand_in else "",
        *training_sections(files),
        *search_sections(files),
        section("How it was run", about(files)),
    )


def write_comparison(run_dirs: list[Path], path: Path, ignored: set[str]) -> Path:
    """Build the page that compares runs and return its path.

    Args:
        ignored: settings in which the runs of a group may differ, besides those that change no result.

    Raises:
        UsageError: one of the folders holds no files of a run, or damaged ones.
    """
    try:
        write_text(path, comparison({folder: read_files(folder) for folder in run_dirs}, ignored))
    except DAMAGED as error:
        raise UsageError(f"the files of a run are not as it writes them ({error!r})") from error
    return path
