"""What reading and preparing NTU RGB+D share: sample names, whole files, worker processes."""

import ctypes
import multiprocessing
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from utils.errors import DataError

SAMPLE = r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}"
WINDOW = 16  # items handed out ahead, for each worker: bounds the results that wait in memory
PARTIAL = re.compile(r"\.(.+)\.partial")
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>

Item = TypeVar("Item")
Result = TypeVar("Result")
_function: Callable  # in a worker process: what it computes


def sweep(folder: Path) -> None:
    """Remove the unfinished files that a killed run left in `folder`; only the holder of its lock may."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if PARTIAL.fullmatch(entry.name):
                os.unlink(entry.path)


def partial(target: Path) -> Path:
    """Where `target` is written until it is whole."""
    return target.with_name(f".{target.name}.partial")


def publish(target: Path) -> None:
    """Give the finished `partial(target)` its name, once its bytes are on the disk."""
    with open(partial(target), "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial(target), target)


def write_whole(target: Path, content: bytes | memoryview) -> None:
    """Write a file that is either not there or whole.

    Raises:
        OSError: the disk is full or fails; names the file.
    """
    try:
        partial(target).write_bytes(content)
        publish(target)
    except OSError as error:
        partial(target).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(target)) from None


def parallel(function: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> Iterator[Result]:
    """`function` of every item, in order, computed in `num_workers` processes (0: in this one).

    An exception of `function` ends the work: what has been handed out is finished first.

    Raises:
        DataError: a worker process was killed.
    """
    if not num_workers:
        yield from map(function, items)
        return
    # Forked, since a fresh interpreter would import the calling script, and torch with it, once a worker; and so the
    # workers have `function`, with all that it holds, without its being sent to them with every item.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (os.getpid(), function))
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_work, item))
            if len(waiting) >= WINDOW * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise DataError("a worker process was killed (out of memory?); run again with fewer --num_workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int, function: Callable) -> None:
    """Leave Ctrl-C to the parent, and end when the parent is killed rather than wait for work for ever."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the pool ends its workers so; a handler of the script might not
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _work(item: Item) -> Result:
    return _function(item)
