"""Faults in a process's own file operations: killed before, after or amid the N-th one, or refused from the N-th on.

`install` replaces `open` and the functions of `os` that change files, for this process and those it forks. An
operation is counted where its path lies under the root; the count is shared with forked workers. Extension modules
that write by themselves (numpy's `tofile`, FFmpeg) are not seen.
"""

import builtins
import io
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_open, _write, _kill = builtins.open, os.write, os.kill


class Hooks:
    """What happens at which operation; see `install`."""

    def __init__(self, root: str, log: str | None, fault: dict[str, Any] | None) -> None:
        self.root = os.path.realpath(root) + os.sep
        self.fault = fault or {}
        self.kinds, self.within = self.fault.get("kinds"), self.fault.get("within", "")
        self.victim = os.getpid()
        self.count = mmap.mmap(-1, 8)  # shared with forked workers
        self.lock = threading.Lock()
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else None

    def operation(self, kind: str, path: str, act: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Count and do one operation; `half` does the first half of it."""
        ours = path.startswith(self.root) and self.within in path.removeprefix(self.root)
        if not ours or (self.kinds and kind not in self.kinds):
            return act()
        with self.lock:
            (number,) = struct.unpack("q", self.count[:8])
            self.count[:8] = struct.pack("q", number + 1)
        if self.log is not None:
            _write(self.log, f"{kind} {path.removeprefix(self.root)}\n".encode())
        how, at = self.fault.get("how"), self.fault.get("at")
        if how == "errno" and number >= at:
            code = self.fault["errno"]  # as the system: no name where there is only a descriptor
            raise OSError(code, os.strerror(code), *([] if kind in ("write", "fsync", "truncate") else [path]))
        if number != at or how == "errno":
            return act()
        if how == "before":
            self.die()
        if how == "torn" and half:
            half()
            self.die()
        try:
            return act()
        finally:  # also where it failed by itself, such as a folder that is there already
            if how == "signal":
                _kill(self.victim, self.fault["signal"])
            else:
                self.die()

    def die(self) -> None:
        """SIGKILL the process that was started; its workers go with it."""
        _kill(self.victim, signal.SIGKILL)
        while True:  # a worker: until it is killed
            time.sleep(1)


def _place(path: Any, dir_fd: int | None = None) -> str:
    """The real path behind a name or a descriptor; a link itself is not followed."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    parent = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd else ""
    folder, name = os.path.split(os.path.join(parent, os.fsdecode(path)))  # TensorBoard names files by bytes
    return os.path.join(os.path.realpath(folder or "."), name)


def install(root: str, log: str | None, fault: dict[str, Any] | None) -> None:
    """Watch the operations on files under `root`.

    Args:
        log: file that gets a line `KIND PATH` for each operation.
        fault: {"how": HOW, "at": N}, counted from 0. "before", "after", "torn" kill; "signal" sends "signal" after the
            operation (SIGSTOP holds the process there); "errno" refuses from the N-th on with "errno". "kinds" and
            "within" (a part of the path) say which operations count.
    """
    hooks = Hooks(root, log, fault)

    class HookedFile(io.FileIO):
        """A file whose writes are counted as they reach the system, after buffering."""

        def write(self, data: Any) -> int:
            half = memoryview(data).cast("B")[: len(data) // 2]
            write = super().write
            return hooks.operation("write", self.place, lambda: write(data), lambda: write(half))

        def truncate(self, size: int | None = None) -> int:
            truncate = super().truncate
            return hooks.operation("truncate", self.place, lambda: truncate(size))

    def hooked_open(
        file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None
    ) -> Any:
        if isinstance(file, int) or opener or not set("wax+") & set(mode):
            return _open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        place = _place(file)
        raw = hooks.operation("open", place, lambda: HookedFile(file, mode.replace("b", "").replace("t", "")))
        raw.place = place
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

    def hooked(kind: str, original: Callable) -> Callable:
        def wrapper(path, *args, **kwargs):
            place = _place(path, kwargs.get("dir_fd"))
            if original is mkdir and os.path.lexists(place):  # changes nothing, whatever the disk
                return original(path, *args, **kwargs)
            return hooks.operation(kind, place, lambda: original(path, *args, **kwargs))

        return wrapper

    mkdir, pwrite = os.mkdir, os.pwrite

    def hooked_pwrite(descriptor: int, data: Any, offset: int) -> int:
        half = memoryview(data).cast("B")[: len(data) // 2]
        place = _place(descriptor)
        return hooks.operation(
            "write", place, lambda: pwrite(descriptor, data, offset), lambda: pwrite(descriptor, half, offset)
        )

    builtins.open = io.open = hooked_open
    os.pwrite = hooked_pwrite
    for kind, names in {
        "fsync": ["fsync", "fdatasync"],
        "rename": ["rename", "replace"],
        "truncate": ["truncate", "ftruncate"],
        "unlink": ["unlink", "remove"],
        "folder": ["mkdir", "rmdir"],
    }.items():
        for name in names:
            setattr(os, name, hooked(kind, getattr(os, name)))


def operations(log: Path) -> list[tuple[str, str]]:
    """(kind, path under the root) of each operation in a log."""
    return [tuple(line.split(" ", 1)) for line in log.read_text().splitlines()]
