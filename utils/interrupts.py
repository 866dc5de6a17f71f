"""SIGINT and SIGTERM: within a run the work ends at its next safe place, elsewhere at once."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal asked the process to end; not an `Exception`, so that nothing takes it for an error of the work."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class _State:
    """Of the process: one signal handler serves all of it."""

    process = 0
    gentle = False
    received: int | None = None


def install() -> None:
    """Handle the signals from here on, in this process; those that it forks, which end with it, ignore them."""
    _State.process = os.getpid()
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.process:  # a worker: terminals and schedulers signal all, but the parent decides
        return
    if not _State.gentle or _State.received is not None:
        raise Interrupted(number)
    _State.received = number
    # not print: the signal may have come in the middle of one
    os.write(2, b"\nfinishing the current step, then saving; a second signal stops at once\n")


@contextlib.contextmanager
def gently() -> Iterator[None]:
    """Within, a first signal only takes effect where `check` is called."""
    _State.gentle = True
    try:
        yield
    finally:
        _State.gentle, _State.received = False, None


def check() -> None:
    """A safe place: everything that was done is saved.

    Raises:
        Interrupted: a signal has come.
    """
    if _State.received is not None:
        raise Interrupted(_State.received)
