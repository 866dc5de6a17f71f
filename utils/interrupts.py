"""Handle SIGINT and SIGTERM: a run stops at the next safe point, other work stops at once."""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Sequence
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 10.0  # seconds that a run which was asked to stop waits for data


class Interrupted(BaseException):
    """Raised when a signal ends the process; not an `Exception`, so that no handler mistakes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class _State:
    """State of the signal handler, which is shared by the whole process."""

    process = 0
    output = 2
    gentle = False
    waiting = False
    received: int | None = None


def install(output: int = 2) -> None:
    """Install the handlers in this process; forked processes, which end with it, ignore the signals.

    Args:
        output: descriptor of standard error.
    """
    _State.process, _State.output = os.getpid(), output
    for number in SIGNALS:
        signal.signal(number, _handle)
    signal.signal(signal.SIGALRM, _lose_patience)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # which `run_script` leaves blocked


def run_script(command: Sequence[str]) -> int:
    """Run one of the project's scripts, to which signals are passed on; return its exit code.

    It has a session of its own, so that Ctrl-C reaches it once: from here.

    Raises:
        Interrupted: a signal was received; the script has ended.
    """
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        script.send_signal(number)

    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # here until `script` is known, and there until it is ready
    try:
        script = subprocess.Popen(command, start_new_session=True)
        before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        code = script.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise Interrupted(received[0])
    return code


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.process:  # a worker: terminals and schedulers signal every process, but the parent decides
        return
    if not _State.gentle or _State.received is not None:
        raise Interrupted(number)
    _State.received = number
    _set_alarm()
    # Not print(), because the signal may have interrupted it; and a message that nobody reads must not hold up the run.
    with contextlib.suppress(OSError):
        poll = select.poll()
        poll.register(_State.output, select.POLLOUT)
        if poll.poll(0):
            os.write(_State.output, b"\nfinishing the current step, then saving; a second signal stops at once\n")


@contextlib.contextmanager
def gently() -> Iterator[None]:
    """Delay the effect of a first signal until `check` is called."""
    _State.gentle = True
    try:
        yield
    finally:
        _State.gentle, _State.received = False, None


def received() -> int | None:
    """Return the signal whose effect is delayed, if any."""
    return _State.received


def check() -> None:
    """Mark a safe point, where all completed work is saved; raise Interrupted if a signal was received."""
    if _State.received is not None:
        raise Interrupted(_State.received)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Wait for something that may never come: after a first signal, for no longer than `PATIENCE`."""
    before, _State.waiting = _State.waiting, True
    _set_alarm()
    try:
        yield
    finally:
        _State.waiting = before


class Expired(BaseException):
    """Raised when the time of `deadline` is over; not an `Exception`, so that no library retries on it."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise `Expired` after some seconds, whatever the main thread waits for; not to be nested."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise Expired

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _set_alarm() -> None:
    if _State.waiting and _State.received is not None:
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)


def _lose_patience(number: int, frame: FrameType | None) -> None:
    if _State.waiting and _State.gentle and os.getpid() == _State.process:
        check()
