"""Progress on one line of a terminal, or as plain lines now and then where the output goes to a file."""

import sys
from collections.abc import Collection, Iterable
from typing import TextIO

from tqdm import tqdm

PLAIN_EVERY = 10.0  # seconds between two plain lines
UP = "\x1b[A"  # moves a terminal's cursor back to the bar above


class Progress(tqdm):
    """tqdm that writes whole lines, few of them, when standard error is no terminal."""

    def __init__(self, iterable: Iterable | None = None, *, verbose: bool = True, **options: object) -> None:
        if not sys.stderr.isatty():
            options |= {"file": _Lines(sys.stderr), "ncols": 0, "mininterval": PLAIN_EVERY, "maxinterval": PLAIN_EVERY}
        super().__init__(iterable, disable=not verbose, dynamic_ncols="ncols" not in options, **options)

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        """What stands behind the figures; shown with the next update."""
        super().set_postfix_str(s, refresh)


def show_batches(batches: Collection, verbose: bool) -> Progress:
    """The batches of one pass, shown while it goes on if it takes longer than some seconds."""
    return Progress(batches, desc="batches of this epoch", leave=False, delay=PLAIN_EVERY, verbose=verbose)


class _Lines:
    """Takes what is meant to overwrite lines before, and writes what says something new on a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.before = file, ""

    def write(self, text: str) -> None:
        line = text.replace(UP, "").strip()
        if line and line != self.before:
            print(line, file=self.file, flush=True)
            self.before = line

    def flush(self) -> None:
        self.file.flush()
