"""Two processes on one folder: the second is refused; a lock that a dead process left is taken over."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.commands import COMMANDS, EXTRACT, IMAGE, PREPARATIONS, SKELETON
from tests.reliability.harness import differences
from utils.files import sweep, whole_file

STOP = {"how": "signal", "signal": int(signal.SIGSTOP)}


@pytest.mark.parametrize("name", ["search, cached", "train_image", "found", "train_skeleton_ntu"])
def test_run_folder(server, homes, tally, name):
    """The first is held amid its work, then killed; the third goes on with it."""
    tally.script, command = name, [*COMMANDS[name], "--no-verbose"]
    reference = server.reference(homes(), command)
    home = homes()
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


def test_processes_that_read_samples_do_not_hold_the_lock(server, ntu_training_home, tally):
    """Killed while they are busy, so that they outlive the process that started them."""
    tally.script = "train_skeleton_ntu"
    reference = server.reference(ntu_training_home(), SKELETON)
    home = ntu_training_home()
    first = server.start(home, SKELETON)
    readers: list[str] = []
    while len(readers) < 2 and not first.ends(0.0005):
        with contextlib.suppress(FileNotFoundError):
            readers = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    handles = [os.pidfd_open(int(reader)) for reader in readers]
    assert handles
    try:
        for handle in handles:
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
        first.send(signal.SIGKILL)
        assert first.wait() == -9
        tally.injected["kill of a process that holds a lock"] += 1
        server.run(home, SKELETON)
    finally:
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
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
    other = ["runs/t" if word == "runs/r" else word for word in EXTRACT]
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


@pytest.mark.parametrize("name", PREPARATIONS)
def test_data_folder(server, homes, tally, name):
    tally.script, command = name, PREPARATIONS[name]
    reference = server.reference(homes(), command)
    home = homes()
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


def test_a_file_that_is_being_written_is_not_swept(tmp_path, monkeypatch):
    """Not even where its writer's number is that of no process here, as with two containers on one disk."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    path = tmp_path / "results.json"
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead.pid)
        writing = whole_file(path)
        file = writing.__enter__()
    file.write(b"whole")
    sweep(tmp_path)
    writing.__exit__(None, None, None)
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_whose_writer_was_killed_is_swept(tmp_path):
    code = "import pathlib, sys, time; from utils.files import whole_file\n"
    code += "with whole_file(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path / "results.json")]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    writer.stdout.readline()
    sweep(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    writer.kill()
    writer.communicate()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
