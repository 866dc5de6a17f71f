"""Progress overwrites one line of a terminal, and writes few whole ones elsewhere."""

import fcntl
import os
import select
import struct
import sys
import termios
from pathlib import Path

import pytest

from utils.progress import Progress, show_batches


def show(monkeypatch, descriptor: int, verbose: bool = True) -> None:
    """Three steps, with standard error at a file descriptor."""
    with os.fdopen(descriptor, "w") as errors, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", errors)
        with Progress(total=3, desc="things", verbose=verbose) as bar:
            for number in range(3):
                bar.set_postfix_str(f"best {number}")
                bar.update()
                if number == 0:
                    bar.write("a line between")


@pytest.fixture
def terminal():
    """Both ends of a pseudo-terminal of 80 columns."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    yield leader, follower
    os.close(leader)


def read(leader: int) -> str:
    """All that the terminal was sent; the kernel hands it on in pieces."""
    parts = []
    while select.select([leader], [], [], 0.5)[0]:
        parts.append(os.read(leader, 100_000))
    return b"".join(parts).decode()


def test_a_terminal_has_one_line_that_is_overwritten(terminal, monkeypatch, capsys):
    leader, follower = terminal
    monkeypatch.setattr(Progress, "monitor_interval", 0)
    with os.fdopen(os.dup(follower), "w"):  # keeps the terminal open until it is read
        show(monkeypatch, follower)
        shown = read(leader).replace("\r\n", "\n")
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    first, *_, last = [part for part in shown.split("\r") if part.strip()]
    assert first.startswith("things:   0%|")
    assert last.startswith("things: 100%|█")
    assert "3/3" in last
    assert "best 2" in last
    assert max(map(len, shown.split("\r"))) <= 80
    assert capsys.readouterr().out == "a line between\n"


def test_a_file_has_whole_lines_of_words(tmp_path, monkeypatch, capsys):
    path = tmp_path / "log"
    show(monkeypatch, os.open(path, os.O_CREAT | os.O_WRONLY))
    content = path.read_bytes().decode()
    assert "\r" not in content
    assert content.isascii()
    first, last = content.splitlines()
    assert first.startswith("things:   0% 0/3 [")
    assert last.startswith("things: 100% 3/3 [")
    assert last.endswith("best 2]")
    assert capsys.readouterr().out == "a line between\n"


def test_lines_of_a_file_come_every_ten_seconds(tmp_path, monkeypatch):
    """300 steps of a second each, by a clock that is set: a line at the start, at the end, and 29 or 30 between."""
    path, clock = tmp_path / "log", [0.0]
    monkeypatch.setattr(Progress, "monitor_interval", 0)
    with path.open("w") as errors, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", errors)
        with Progress(total=300) as bar:
            bar._time = lambda: clock[0]
            bar.start_t = bar.last_print_t = 0.0
            for _ in range(300):
                clock[0] += 1
                bar.update()
    assert 29 <= len(path.read_text().splitlines()) <= 32


@pytest.mark.parametrize("at_terminal", [False, True])
def test_quiet_is_quiet(at_terminal, terminal, tmp_path: Path, monkeypatch):
    leader, follower = terminal
    path = tmp_path / "log"
    with os.fdopen(os.dup(follower), "w"):
        show(monkeypatch, follower if at_terminal else os.open(path, os.O_CREAT | os.O_WRONLY), verbose=False)
        assert read(leader) == ""
    assert at_terminal or path.read_bytes() == b""


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.01, 0, 0), (1, 25, 30)])
def test_only_passes_that_take_long_show_their_batches(tmp_path, monkeypatch, seconds, least, most):
    """300 batches by a clock that is set."""
    path, clock = tmp_path / "log", [0.0]
    monkeypatch.setattr(Progress, "monitor_interval", 0)
    with path.open("w") as errors, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", errors)
        bar = show_batches(range(300), verbose=True, total=300)
        bar._time, bar.start_t, bar.last_print_t = lambda: clock[0], 0.0, 0.0
        for _ in bar:
            clock[0] += seconds
    lines = path.read_text().splitlines()
    assert least <= len(lines) <= most
    assert all(line.startswith("batches of this epoch: ") for line in lines)
