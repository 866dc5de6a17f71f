"""Shared by the benchmarks: repeated timings, runs of scripts, networks in plain PyTorch, random configurations, and a
timed split.
"""

import argparse
import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))  # also for the scripts, which import this module first

from models.lenet import LeNet
from utils.errors import UsageError
from utils.files import write_json
from utils.reading import at_least_0, read_json
from utils.search.space import Configuration, Space
from utils.training.batches import CPU, ArraySplit, Batches

ROOT = Path(__file__).parents[1]
ORIGINALS = ("mnist_dir", "fsdd_dir", "esc50_dir")


def seconds_of(work: Callable[[], object], repeats: int, device: torch.device = CPU) -> list[float]:
    """Seconds of each of the runs."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the repeats of a measurement."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Spread of the ratios of each repeat, so that a slow hour of the machine cancels out."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def machine_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def run_script(script: str, flags: Sequence[object], through: Sequence[object] = ()) -> None:
    """Run one of the project's scripts, which prints its own errors.

    Args:
        through: arguments of Python before the script.

    Raises:
        UsageError: it failed.
    """
    path = ROOT / script
    command = [sys.executable, *through, path, *flags]
    if subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL).returncode:
        raise UsageError(f"{path} failed; see above")


def step(home: Path, name: str, script: str, flags: Sequence[object], verbose: bool) -> float:
    """Run a script unless it has finished before; return the seconds of its process."""
    record = home / f"{name}.seconds.json"
    if not record.exists():
        if verbose:
            print(f"{home / name}: {script}", flush=True)
        started = time.perf_counter()
        run_script(script, flags)
        write_json(record, {"seconds": time.perf_counter() - started})
    return read_json(record, {"seconds": at_least_0})["seconds"]


def add_originals(parser: argparse.ArgumentParser) -> None:
    """Flags of the originals from which AV-MNIST is generated."""
    group = parser.add_argument_group("data")
    for name in ORIGINALS:
        group.add_argument(f"--{name}", type=Path, required=True, help="see avmnist_gen.py")
    group.add_argument("--preset", default="paper", help="see avmnist_gen.py")


def generate(args: argparse.Namespace, folder: Path) -> float:
    """Generate AV-MNIST in `folder`/data, unless that is done; return the seconds it took."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = [x for name in ORIGINALS for x in (f"--{name}", getattr(args, name))]
    flags = [*sources, "--preset", args.preset, "--datadir", folder / "data"]
    return step(folder, "generation", "avmnist_gen.py", flags, args.verbose)


def plain_pooled(net: LeNet, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Features and logits (B, C) like those of `net.pooled`, computed with PyTorch's own max-pooling."""
    features = []
    for i in range(1, net.depth + 1):
        out = F.relu(net.get_submodule(f"bn{i}")(net.get_submodule(f"conv{i}")(x)))
        x = F.max_pool2d(out, 2)
        features.append((x if i == 1 and net.first_feature_pooled else out).mean(dim=(2, 3)))
    return features, net.classifier(features[-1])


def random_configurations(space: Space, count: int, layers: int, seed: int = 0) -> list[Configuration]:
    rows = space.rows()
    drawn = np.random.default_rng(seed).integers(len(rows), size=(count, layers))
    return [tuple(rows[i] for i in places) for places in drawn]


@dataclasses.dataclass(frozen=True)
class ClockedSplit(ArraySplit):
    """Record when each pass begins; a shuffled pass ends after `steps` batches, if given."""

    steps: int | None = None
    begun: list[float] = dataclasses.field(default_factory=list)

    def to(self, device: torch.device) -> "ClockedSplit":
        moved = super().to(device)
        return dataclasses.replace(self, inputs=moved.inputs, labels=moved.labels)

    def batches(self, batch_size: int, shuffle: Sequence[int | str] | None = None) -> Batches:
        batches = super().batches(batch_size, shuffle)
        if batches.order is not None and self.steps is not None:
            batches = dataclasses.replace(batches, order=batches.order[: self.steps * batch_size])
        if self.labels.is_cuda:
            torch.cuda.synchronize()
        self.begun.append(time.perf_counter())
        return batches
