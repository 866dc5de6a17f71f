"""Worker processes that read and prepare NTU RGB+D."""

import ctypes
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, TypeVar

from utils.errors import DataError
from utils.interrupts import Interrupted

WINDOW = 16  # items submitted ahead for each worker; bounds the results held in memory
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>

Item = TypeVar("Item")
Result = TypeVar("Result")
_function: Callable[[Any], Any]  # in a worker process: the function it computes


@dataclass
class Report:
    """Result of preparing files: number made, number already present, and one message per file that failed."""

    made: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)


def parallel(function: Callable[[Item], Result], items: Iterable[Item], num_workers: int) -> Iterator[Result]:
    """Yield `function` of every item, in order, computed in `num_workers` processes (0: in this one).

    An exception raised by `function` ends the work after the items already running; a killed worker is a DataError.
    """
    if not num_workers:
        yield from map(function, items)
        return
    # Forked: a new interpreter would import the calling script, and torch with it, in every worker. Forked workers also
    # inherit `function` with all its data, so it is not sent with every item.
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
    except Interrupted:
        for worker in multiprocessing.active_children():  # one that is stuck would be waited for
            worker.kill()
        raise
    except BrokenProcessPool:
        raise DataError("a worker process was killed (out of memory?); run again with fewer") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int, function: Callable[[Any], Any]) -> None:
    """Leave Ctrl-C to the parent; exit if the parent is killed, instead of waiting for work forever."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the pool sends it to end workers; the script's handler may not exit
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _work(item: Any) -> Any:
    return _function(item)
