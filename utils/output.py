"""Standard output and error: printable whatever the names in it, and never in the way of a run."""

import io
import os
import select
import sys
from typing import TextIO

from utils import interrupts
from utils.errors import printable
from utils.progress import UP

PATIENCE = 3.0  # seconds that a message waits for a reader of standard error before it is dropped
STDOUT = "standard output"


class Output(io.TextIOBase):
    """Standard output or error: shows names of any characters as printable text, whatever the locale.

    Standard error never fails or holds a run up: text that nobody reads is dropped.
    """

    def __init__(self, stream: TextIO, required: bool) -> None:
        self._stream, self._required = stream, required  # the stream is kept, because libraries may hold it, too
        self._descriptor, self._waiting, self._patience = stream.fileno(), "", PATIENCE

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._waiting += text
        if not self._required or "\n" in text:  # a log file shows each line at once
            self.flush()
        return len(text)

    def flush(self) -> None:
        text, self._waiting = self._waiting, ""
        parts = text.split(UP) if self.isatty() else [text]  # a progress bar moves the cursor
        data = UP.join(printable(part, "\n\t\r") for part in parts).encode(self.encoding, "backslashreplace")
        try:
            while data and self._has_reader():
                data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]
        except OSError as error:
            if self._required:
                raise OSError(error.errno, error.strerror, STDOUT) from None

    def _has_reader(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        with interrupts.waiting():
            ready = bool(poll.poll(None if self._required else 1000 * self._patience))
        self._patience = PATIENCE if ready else 0
        return ready


def open_output() -> None:
    """Replace standard output and error by `Output`; those closed by the caller lead to /dev/null."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so that no file of the run gets it
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 - open until the end
        if type(stream) is io.TextIOWrapper:  # not a test's
            setattr(sys, name, Output(stream, required=name == "stdout"))
