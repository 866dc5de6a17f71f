"""A full disk and a read-only one: a line that names the file, exit code 1, nothing damaged, and on it goes later."""

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.commands import COMMANDS, IMAGE, PREPARATIONS, RUNS
from tests.reliability.compare import differences, files
from tests.reliability.harness import Server

FAULTS = {  # which operations fail
    errno.ENOSPC: ("write", "fsync"),
    errno.EROFS: ("open", "folder", "rename", "truncate", "unlink"),
}


@pytest.mark.parametrize("code", FAULTS, ids=errno.errorcode.get)
@pytest.mark.parametrize("name", [*PREPARATIONS, *RUNS])
def test_operations_fail(server, homes, tally, name, code):
    """From the N-th of those operations on, all fail; N early, amid, late."""
    command = [*COMMANDS[name], "--no-verbose"]
    tally.script = name
    reference = server.reference(homes(), command)
    count = len(reference.numbers(*FAULTS[code]))
    rng = random.Random(name)
    home = homes()
    for at in sorted({0, *rng.sample(range(1, count - 1), 2), count - 1}):
        fault = {"how": "errno", "at": at, "errno": code, "kinds": FAULTS[code]}
        life = server.start(home, command, fault)
        ended = life.wait()
        if ended == 0:  # a resumed run has less to write
            break
        errors = [line for line in life.complaints if line.startswith("error: ")]
        assert (ended, len(errors)) == (1, 1), f"{at} of {count}: {life.report()}"
        assert "Traceback" not in life.errors, life.report()
        assert os.strerror(code) in errors[0]
        assert any(word in errors[0] for word in ("runs", "data", "checkpoints")), errors
        tally.injected[f"{errno.errorcode[code]} from an operation on"] += 1
    server.run(home, command)
    assert differences(reference.home, home) == []


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """A server that may mount: in a namespace of its own, whose mounts nobody else sees."""
    prefix = ["unshare", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount in a namespace of his own (unshare --mount)")
    server = Server(tmp_path_factory.mktemp("disk-logs"), prefix)
    yield server
    server.close()


@pytest.fixture
def disk(disks, tmp_path) -> Callable[[Path, str], Path]:
    """Mounts a disk of a size and copies a home to it; the mount is the new home."""
    place = tmp_path / "disk"

    def mount(home: Path, size: str) -> Path:
        place.mkdir()
        if disks.shell(f"mount -t tmpfs -o size={size} none {place}"):
            pytest.skip("no tmpfs can be mounted here")
        assert not disks.shell(f"cp -a {home}/. {place}")
        return place

    yield mount
    disks.shell(f"umount {place}")


def fails_once(disks, disk: Path, command, code: int, mend: str) -> None:
    """The command ends with one line; once the disk is mended it ends well."""
    life = disks.run(disk, command, code=1)
    (line,) = life.complaints
    assert line.startswith("error: ")
    assert os.strerror(code) in line
    assert not disks.shell(f"mount -o remount,{mend} {disk}")
    disks.run(disk, command)


def used(home: Path) -> int:
    """Bytes that the files of a home take on a disk, whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files(home).values())


@pytest.mark.parametrize("name", ["avmnist_gen", "ntu_prepare", "search, cached", "train_image", "found"])
def test_small_disk(server, homes, tally, disks, disk, tmp_path, name):
    """A real disk, which is full before the end."""
    command = [*COMMANDS[name], "--no-verbose"]
    tally.script = name
    home = homes()
    before = used(home)
    reference = server.reference(home, command)
    small = disk(homes(), str(before + (used(home) - before) * 6 // 10))
    fails_once(disks, small, command, errno.ENOSPC, "size=1g")
    tally.injected["full disk"] += 1
    assert not disks.shell(f"cp -a {small} {tmp_path}/left")
    assert differences(reference.home, tmp_path / "left") == []


def test_read_only_disk(server, new_home, tally, disks, disk, tmp_path):
    """A run that was killed, on a disk that is mounted read-only afterwards, as a system does when a disk fails."""
    command = [*IMAGE, "--no-verbose"]
    tally.script = "train_image"
    reference = server.reference(new_home(), command)
    small = disk(new_home(), "64m")
    second_state = {"how": "after", "at": 1, "kinds": ["rename"], "within": "/state.next"}
    assert disks.start(small, command, second_state).wait() == -9
    assert not disks.shell(f"mount -o remount,ro {small}")
    fails_once(disks, small, command, errno.EROFS, "rw")
    tally.injected["read-only disk"] += 1
    assert not disks.shell(f"cp -a {small} {tmp_path}/left")
    assert differences(reference.home, tmp_path / "left") == []
