"""Handle SIGINT and SIGTERM: a run stops at the next safe point, other work stops at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Raised when a signal ends the process; not an `Exception`, so that no handler mistakes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class _State:
    """State of the signal handler, which is shared by the whole process."""

    process = 0
    gentle = False
    received: int | None = None


def install() -> None:
    """Install the handlers in this process; forked processes, which end with it, ignore the signals."""
    _State.process = os.getpid()
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.process:  # a worker: terminals and schedulers signal every process, but the parent decides
        return
    if not _State.gentle or _State.received is not None:
        raise Interrupted(number)
    _State.received = number
    # not print(), because the signal may have interrupted it
    os.write(2, b"\nfinishing the current step, then saving; a second signal stops at once\n")


@contextlib.contextmanager
def gently() -> Iterator[None]:
    """Delay the effect of a first signal until `check` is called."""
    _State.gentle = True
    try:
        yield
    finally:
        _State.gentle, _State.received = False, None


def check() -> None:
    """Mark a safe point, where all completed work is saved; raise Interrupted if a signal was received."""
    if _State.received is not None:
        raise Interrupted(_State.received)
