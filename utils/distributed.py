"""The processes of a run: one, or those that torchrun starts on one or several hosts.

Process 0 runs a script as a single process would, and alone writes the run's files; the others compute for it. In a
single process, every function here returns at once.
"""

import datetime
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from utils import interrupts
from utils.errors import ProjectError, UsageError

T = TypeVar("T")
TIMEOUT = datetime.timedelta(hours=6)  # longest wait for another process that is still alive


class LostError(ProjectError):
    """Another process of the run ended."""


class QuietError(ProjectError):
    """This process ends because of something that another one reports."""


def rank() -> int:
    """Number of this process in its run."""
    return int(os.environ["RANK"]) if _launched() else 0


def world() -> int:
    """Number of processes of the run."""
    return int(os.environ["WORLD_SIZE"]) if _launched() else 1


def local_rank() -> int:
    """Number of this process on its host, which is that of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if _launched() else 0


def _launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ  # other launchers set RANK, too


def from_first(work: Callable[[], T]) -> T:
    """Return what process 0 computes; the others wait for it. LostError if a process ended."""
    if world() == 1:
        return work()
    found = [work() if rank() == 0 else None]
    _exchange(lambda torch_distributed: torch_distributed.broadcast_object_list(found, src=0))
    return found[0]  # type: ignore[return-value]  # received from process 0


def gather(value: T) -> list[T]:
    """Return the values of all processes, by rank; LostError if one ended."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    _exchange(lambda torch_distributed: torch_distributed.all_gather_object(values, value))
    return values


def own_part(count: int) -> slice:
    """Return the slice of `count` items in order that this process works on."""
    first, end = (count * number // world() for number in (rank(), rank() + 1))
    return slice(first, end)


def _exchange(work: Callable[[Any], None]) -> None:
    import torch.distributed as torch_distributed

    try:
        join()
        work(torch_distributed)
    except RuntimeError as error:
        interrupts.check()  # a signal to all of them is the likely reason
        if rank():
            raise QuietError from None
        raise LostError(f"another process of this run ended ({str(error).splitlines()[0][:200]})") from None


def join() -> None:
    """Join the process group: gloo on CPUs, NCCL on CUDA.

    Raises:
        UsageError: torchrun would reuse its store after a restart, and a process could read the addresses of those that
            ended (PyTorch's issue 135712).
    """
    import torch

    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        if rank():
            raise QuietError
        raise UsageError("torchrun --max-restarts needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment")
    if world() > 1 and not torch.distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend, timeout=TIMEOUT)


def leave() -> None:
    """Leave the process group, if this process is in one."""
    if world() > 1:
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def check_same(facts: Mapping[str, object]) -> None:
    """Compare the facts of all processes with those of process 0.

    Raises:
        UsageError: those of this process differ.
        QuietError: those of another one do.
    """
    everyone = gather((socket.gethostname(), dict(facts)))
    first = everyone[0][1]
    wrong = [number for number, (_, own) in enumerate(everyone) if own != first]
    if not wrong:
        return
    if rank() != wrong[0]:
        raise QuietError
    host, own = everyone[rank()]
    name = next(name for name in {**first, **own} if own.get(name) != first.get(name))
    values = [f" ({value})" if isinstance(value := one.get(name), str | int | float) else "" for one in (own, first)]
    raise UsageError(
        f"process {rank()} on {host} has another {name}{values[0]} than process 0{values[1]}; start all processes with "
        "the same command, data and versions"
    )


def check_interrupts() -> None:
    """Mark a safe point that all processes reach together: a signal to one of them stops them all."""
    for number in gather(interrupts.received()):
        if number is not None:
            raise interrupts.Interrupted(number)
