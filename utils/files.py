"""Files that are either whole or not there (temporary name, fsync, rename), and folders that one process works in."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from utils.errors import ProjectError, UsageError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbour for writing; on success it becomes `path`, on any error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")
    try:
        with tells_name(path), open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


_HELD: set[Path] = set()  # folders that this process has locked


def sweep(folder: Path) -> None:
    """Remove what processes of this machine that were killed left of files that they wrote whole."""
    for path in folder.glob(".*.tmp"):
        match = re.fullmatch(r"\..+\.(\d{1,9})@(.+)\.tmp", path.name)
        if match and match[2] == socket.gethostname() and not _lives(int(match[1])):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in `folder`, which is made where it is missing; the lock ends with the process.

    What killed processes left there is removed.

    Raises:
        LockedError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, own = folder / ".lock", folder.resolve()
    if own in _HELD:  # to the system that is no conflict, and closing the file again would end the lock
        raise LockedError(f"this process is working in {folder} already")
    # A record lock is one process's own: workers do not inherit it, so it ends with the process even if they live on.
    # On a file, opened for writing: network file systems lock nothing else.
    with open(path, "ab+", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "another process"
            raise LockedError(f"{holder} is working in {folder} (it holds {path}); wait for it, or stop it") from None
        with tells_name(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        sweep(folder)
        _HELD.add(own)
        try:
            yield
        finally:
            _HELD.discard(own)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def tells_name(path: Path) -> Iterator[None]:
    """Errors of a file that do not tell its name, as a failed write's, tell it."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class LockedError(ProjectError):
    """Two processes must not work in one folder."""


def write_text(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        UsageError: there is no such file, or it is not JSON.
    """
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise UsageError(f"{path} must hold a JSON object, but holds a {type(content).__name__}")
        return content
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
