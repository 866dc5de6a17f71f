"""The report of a run that is under way: the page reloads itself, and costs the run little time."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from utils.report import write_report

SHARE = 0.03  # of the time of a run, at most, goes into its live report


class LiveReport:
    """Rewrites a run's report as the run proceeds, as often as `SHARE` allows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._due = 0.0

    def update(self, progress: str) -> None:
        """Rewrite the report if it is due; `progress` says how far the run is."""
        started = time.monotonic()
        if started >= self._due:
            _write(self.folder, progress)
            ended = time.monotonic()
            self._due = ended + (ended - started) * (1 / SHARE - 1)


@contextlib.contextmanager
def reported(folder: Path) -> Iterator[None]:
    """Report on a run from its start; if it is stopped, leave a report that no longer reloads itself."""
    _write(folder, "starting")
    try:
        yield
    except BaseException:
        _write(folder, None)
        raise


def _write(folder: Path, progress: str | None) -> None:
    with contextlib.suppress(Exception):  # never ends the run: at its end the report is written once more
        write_report(folder, progress)
