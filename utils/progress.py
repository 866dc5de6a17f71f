"""Progress on one line of a terminal, or as plain lines now and then where the output goes to a file."""

import sys
from collections.abc import Iterable
from typing import TextIO

from tqdm import tqdm

PLAIN_EVERY = 10.0  # seconds between two plain lines


class Progress(tqdm):
    """tqdm that writes whole lines, few of them, when standard error is no terminal."""

    def __init__(self, iterable: Iterable | None = None, *, verbose: bool = True, **options: object) -> None:
        self.plain = not sys.stderr.isatty()
        pace = {"mininterval": PLAIN_EVERY, "maxinterval": PLAIN_EVERY} if self.plain else {}
        super().__init__(iterable, disable=not verbose, dynamic_ncols=not self.plain, **pace, **options)

    def set_postfix_str(self, s: str = "", refresh: bool = False) -> None:
        """What stands behind the figures; shown with the next update."""
        super().set_postfix_str(s, refresh)

    @staticmethod
    def status_printer(file: TextIO):
        """Where tqdm prints from: over the line before, in a terminal."""
        if file.isatty():
            return tqdm.status_printer(file)
        return lambda line: line.strip() and print(line, file=file, flush=True)
