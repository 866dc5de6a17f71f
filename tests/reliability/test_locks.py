"""Two processes on one folder: the second is refused; a lock that a dead process left is taken over."""

import os
import signal
import socket

import pytest

from tests.reliability.harness import differences
from tests.reliability.test_kill_data import EXTRACT, GENERATE, PREPARE
from tests.reliability.test_kill_search import SEARCH
from tests.reliability.test_kill_training import FOUND, IMAGE

STOP = {"how": "signal", "signal": int(signal.SIGSTOP)}


@pytest.mark.parametrize("command", [SEARCH, IMAGE, FOUND], ids=lambda command: command[0])
def test_run_folder(server, new_home, tally, command):
    """The first is held amid its work, then killed; the third goes on with it."""
    tally.script = command[0]
    reference = server.reference(new_home(), command)
    home = new_home()
    first = server.start(home, command, {**STOP, "at": len(reference.operations) // 2})
    assert first.stopped(), first.report()
    second = server.run(home, command, code=1)
    (line,) = second.complaints
    assert line.startswith("error: ")
    assert str(first.pid) in line
    assert socket.gethostname() in line
    assert "runs/" in line
    tally.injected["second process"] += 1
    first.send(signal.SIGKILL)
    assert first.wait() == -9
    tally.injected["kill of a process that holds a lock"] += 1
    server.run(home, command)
    assert differences(reference.home, home) == []


def test_second_of_a_running_one_leaves_it_alone(server, new_home):
    """The first one, let go on, ends as if nothing had been."""
    reference = server.reference(new_home(), IMAGE)
    home = new_home()
    first = server.start(home, IMAGE, {**STOP, "at": len(reference.operations) // 2})
    assert first.stopped()
    server.run(home, IMAGE, code=1)
    first.send(signal.SIGCONT)
    assert first.wait() == 0, first.report()
    assert differences(reference.home, home) == []


def test_lock_file_with_another_text(server, new_home):
    """What counts is who holds the lock, not what the file says."""
    home = new_home()
    (home / "runs/r").mkdir(parents=True)
    for content in (b"", b"\xff\x00 no text", f"process {os.getpid()} on elsewhere\n".encode()):
        (home / "runs/r/.lock").write_bytes(content)
        server.run(home, IMAGE)


def test_feature_bank(server, new_home, tally):
    """Two searches that need the same bank."""
    tally.script = "feature extraction"
    reference = server.reference(new_home(), EXTRACT)
    home = new_home()
    amid = reference.numbers("write", within=".partial")[2]
    first = server.start(home, EXTRACT, {**STOP, "at": amid})
    assert first.stopped()
    other = ["runs/t" if word == "runs/s" else word for word in EXTRACT]
    second = server.run(home, other, code=1)
    (line,) = [line for line in second.complaints if line.startswith("error: ")]
    assert str(first.pid) in line
    tally.injected["second process"] += 1
    first.send(signal.SIGKILL)
    assert first.wait() == -9
    tally.injected["kill of a process that holds a lock"] += 1
    server.run(home, other)
    server.run(home, EXTRACT)
    assert differences(reference.home, home, ignore=["runs/t/*"]) == []


@pytest.mark.parametrize("command", [GENERATE, PREPARE], ids=lambda command: command[0])
def test_data_folder(server, originals_home, ntu_home, tally, command):
    tally.script = command[0]
    make = originals_home if command is GENERATE else ntu_home
    reference = server.reference(make(), command)
    home = make()
    first = server.start(home, command, {**STOP, "at": len(reference.operations) // 2})
    assert first.stopped()
    second = server.start(home, command)
    assert second.wait() in (1, 2)
    (line,) = [line for line in second.complaints if line.startswith("error: ")]
    assert "data/" in line
    tally.injected["second process"] += 1
    first.send(signal.SIGKILL)
    assert first.wait() == -9
    tally.injected["kill of a process that holds a lock"] += 1
    server.run(home, command)
    assert differences(reference.home, home) == []
