"""Files and folders that are either complete or absent, and locks on folders.

A file is written under a temporary name, flushed to disk and renamed; a folder is built beside its final place and
moved there. A process that is killed leaves only temporaries, which the next process to lock the folder removes.
Files are read by `utils.reading`.
"""

import contextlib
import csv
import fcntl
import io
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from utils.errors import ProjectError

LOCK = ".lock"  # file in a locked folder that names the process holding it
_HELD: set[Path] = set()  # folders locked by this process


class LockedError(ProjectError):
    """Another process is working in the folder."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbor for writing; it replaces `path` on success and is removed on any error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with errors_name(path), _open_temporary(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # while the file is locked, so that it is not swept
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_temporary(path: Path) -> BinaryIO:
    """Open a temporary file for writing and lock it, which shows `sweep` that its writer lives.

    A process ID would not show that: another container on the same disk has other processes.
    """
    while True:
        file = open(path, "wb")  # noqa: SIM115 - closed by the caller
        with contextlib.suppress(OSError):  # a file system without such locks; there, nothing is swept
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept before it was locked


def sweep(folder: Path, exclusive: bool = False) -> None:
    """Remove temporary files left in `folder` by processes that were killed.

    With `exclusive` no other process may write to the folder, and all temporaries are removed. Needed for files written
    by workers, which may end a moment after the process that held the lock.
    """
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[0-9a-f]{16}\.tmp", path.name) and (exclusive or not _is_locked(path)):
            path.unlink(missing_ok=True)


def _is_locked(path: Path) -> bool:
    """Return True if a process is writing the file, or if that cannot be determined."""
    try:
        with open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Create a temporary folder to build in; it replaces `target` on success and is removed on any error.

    The caller makes sure that `target` may be replaced. LockedError if another process is building it.
    """
    workspace = restore_folder(target)
    with locked(workspace), errors_name(workspace):
        try:
            (workspace / "new").mkdir()
            yield workspace / "new"
            for path in (*workspace.rglob("*"), workspace):
                _fsync(path)
            if target.exists():
                target.rename(workspace / "old")
            (workspace / "new").rename(target)
            _fsync(target.parent)
        finally:
            _clear(workspace, target)


def restore_folder(target: Path) -> Path:
    """Clear the remains of a process that was killed while it built `target`; restore an old folder moved aside.

    Returns the place beside `target` where a new folder is built, and the old one waits until the new one is complete.
    """
    workspace = target.with_name(f".{target.name}.partial")
    if workspace.is_dir():
        with locked(workspace):
            _clear(workspace, target)
    return workspace


def _clear(workspace: Path, target: Path) -> None:
    if (workspace / "old").is_dir() and not target.exists():
        (workspace / "old").rename(target)
    shutil.rmtree(workspace, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process and sweep it; the folder is created if missing.

    The lock ends with the process, however it ends. LockedError if another process holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, own = folder / LOCK, folder.resolve()
    if own in _HELD:  # the system would grant it, and closing the file again would end the first lock
        raise LockedError(f"this process is already working in {folder}")
    # A record lock belongs to one process: workers do not inherit it, so it ends with the process even if they live on.
    # It is taken on a file opened for writing because network file systems lock nothing else.
    with open(path, "ab+", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise LockedError(f"{holder} is working in {folder} (it holds {path}); wait for it, or stop it") from None
        with errors_name(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        sweep(folder)
        _HELD.add(own)
        try:
            yield
        finally:
            _HELD.discard(own)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with errors_name(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Add `path` to an OSError that names no file, such as that of a failed write."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a whole text file."""
    with whole_file(path) as file:
        file.write(text.encode(errors="surrogateescape"))  # file names of any bytes


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a whole CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: Path, value: object) -> None:
    """Write a whole JSON file."""
    write_text(path, json.dumps(value, indent=2) + "\n")
