"""Progress on one line of a terminal, or as occasional plain lines when the output goes to a file."""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

PLAIN_EVERY = 10.0  # seconds between two plain lines
UP = "\x1b[A"  # moves a terminal's cursor up to the previous bar


class Progress(tqdm):
    """tqdm that writes a few whole lines when standard error is not a terminal."""

    def __init__(self, iterable: Iterable | None = None, *, verbose: bool = True, **options: Any) -> None:
        if not sys.stderr.isatty():
            options |= {"file": _Lines(sys.stderr), "ncols": 0, "mininterval": PLAIN_EVERY, "maxinterval": PLAIN_EVERY}
        super().__init__(iterable, disable=not verbose, dynamic_ncols="ncols" not in options, **options)

    def __bool__(self) -> bool:
        """True even before the total is known, which is an error for tqdm."""
        return True

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        """Set the text after the figures; it is shown with the next update."""
        super().set_postfix_str(s, refresh)


def show_batches(batches: Iterable, verbose: bool, total: int) -> Progress:
    """Iterate over the batches of one pass; progress is shown if the pass takes longer than a few seconds."""
    desc = "batches of this epoch"
    return Progress(batches, desc=desc, total=total, leave=False, delay=PLAIN_EVERY, verbose=verbose)


class _Lines:
    """Stream that turns tqdm's overwritten lines into lines of their own, without repetitions."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.before = file, ""

    def write(self, text: str) -> None:
        line = text.replace(UP, "").strip()
        if line and line != self.before:
            print(line, file=self.file, flush=True)
            self.before = line

    def flush(self) -> None:
        self.file.flush()
