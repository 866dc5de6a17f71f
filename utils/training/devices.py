"""Device, precision, threads and data parallelism of the networks."""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from models.unimodal import UnimodalNetwork
from utils import distributed
from utils.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Compute:
    """Device and precision in which networks compute."""

    device: torch.device
    bfloat16: bool = False
    use_dataparallel: bool = False

    @property
    def replicas(self) -> int:
        """Number of GPUs or processes that share a batch of a network's training."""
        if distributed.world() > 1:
            return distributed.world()
        return max(1, torch.cuda.device_count()) if self.use_dataparallel and self.device.type == "cuda" else 1


def resolve_device(name: str) -> torch.device:
    """Return the device that a name such as `cuda:1` stands for; `auto` prefers CUDA.

    Raises:
        UsageError: this machine or this build of torch does not have the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.world() > 1:  # each process of the run has a GPU of its own
        name = f"cuda:{distributed.local_rank()}"
    device, gpus = torch.device(name), torch.cuda.device_count()
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"--device {name} needs a CUDA device, but torch sees none; use --device cpu or auto")
        if (device.index or 0) >= gpus:
            raise UsageError(f"--device {name} must be below cuda:{gpus}, because torch sees {gpus} CUDA devices")
        if device.index is not None:
            torch.cuda.set_device(device)  # for whatever names no device, such as the capture of a graph
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps needs a Mac and a torch that supports it; use --device cpu or auto")
    return device


def use_bfloat16(choice: str, device: torch.device) -> bool:
    """Resolve `--amp`: `auto` autocasts on hardware that computes in bfloat16; elsewhere it would be slower."""
    if choice != "auto":
        return choice == "on"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpuinfo = Path("/proc/cpuinfo")  # Linux on x86; elsewhere float32 is the safe choice
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()


def autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager:
    """Autocast to bfloat16 if enabled."""
    return torch.autocast(device.type, torch.bfloat16) if enabled else contextlib.nullcontext()


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network, and give the weights of its unimodal networks the memory layout in which they are fastest."""
    network.to(device)
    for module in network.modules():
        if isinstance(module, UnimodalNetwork):
            module.to(memory_format=module.memory_format)
    return network


def available_memory(device: torch.device) -> int:
    """Bytes of memory that are free on a device; for the CPU, also within the limit of a container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    about = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s*(\d+) kB", about.read_text() if about.exists() else "")
    limit = Path("/sys/fs/cgroup/memory.max")
    limited = limit.read_text().strip() if limit.exists() else "max"
    amounts = [1024 * int(found[1])] if found else []
    return min([*amounts, *([int(limited)] if limited.isdecimal() else [])], default=sys.maxsize)


def require_memory(needed: int, device: torch.device, what: str, fix: str) -> None:
    """Raise UsageError if `needed` bytes for something are not free on a device."""
    if needed > (free := available_memory(device)):
        raise UsageError(f"{what} need {needed / 1e9:.1f} GB of memory, but {free / 1e9:.1f} GB are free; {fix}")


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Limit the threads of a CPU operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class KeepsBfloat16(nn.Module):
    """Autocast to bfloat16 where autocast is on: DataParallel passes the flag to its threads, but not the dtype."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        kind = inputs[0].device.type
        with torch.autocast(kind, torch.bfloat16, enabled=torch.is_autocast_enabled(kind)):
            return self.network(*inputs)


def data_parallel(network: nn.Module, wanted: bool) -> nn.Module:
    """Wrap a network in DataParallel if requested (`--use_dataparallel`) and the machine has several GPUs."""
    several = wanted and next(network.parameters()).is_cuda and torch.cuda.device_count() > 1
    return nn.DataParallel(KeepsBfloat16(network)) if several else network
