"""Settings that the flags of a script become; `argparse.Namespace` ends here."""

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from models.fusion import HeadSettings
from utils import distributed
from utils.errors import UsageError
from utils.runs.flags import STEPS
from utils.runs.folder import RunSettings
from utils.runs.unimodal import Plan
from utils.search.evaluate import Budget
from utils.search.loop import SearchSettings
from utils.training.devices import Compute, require_memory, resolve_device, use_bfloat16
from utils.training.loop import TrainingSettings
from utils.training.rates import cosine_rates, onecycle_rates

PUBLISHED = ("initial_temperature", "final_temperature", "temperature_decay", "lr_surrogate", "epochs_surrogate")


def run_settings(args: argparse.Namespace) -> RunSettings:
    """Settings of the run; device and precision are decided here."""
    if args.use_dataparallel and distributed.world() > 1:
        raise UsageError("--use_dataparallel is for one process; under torchrun, every process has a GPU of its own")
    device = resolve_device(args.device)
    if args.use_dataparallel and device.index is not None:
        raise UsageError(f"--use_dataparallel takes all GPUs, but --device {args.device} names one; leave one out")
    compute = Compute(device, use_bfloat16(args.amp, device), args.use_dataparallel)
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    return RunSettings(
        flags={**flags, "bfloat16": compute.bfloat16},  # recorded, so that no run is resumed in another precision
        checkpointdir=args.checkpointdir,
        run_dir=args.run_dir,
        resume=args.resume,
        seed=args.seed,
        compute=compute,
        verbose=args.verbose and not distributed.rank(),
        tensorboard=args.tensorboard,
        deterministic=args.deterministic,
    )


def limits(args: argparse.Namespace) -> dict[str, int | None]:
    """Number of samples to use, by split; None: all."""
    return {"train": args.limit_train, "dev": args.limit_dev, "test": args.limit_test}


def scale_epochs(
    args: argparse.Namespace, samples: int, *, epochs: int, period: float, only_test: bool = False
) -> None:
    """Fill in the number of epochs and the first cosine cycle, unless given, for a training split of any size.

    Args:
        epochs, period: published defaults for AV-MNIST. Smaller data gets more epochs, with cycles in proportion.
        only_test: nothing will be trained.
    """
    if args.epochs is None:
        args.epochs = scaled_epochs(samples, args.batchsize, epochs)
    if args.Ti is None:
        args.Ti = period * args.epochs / epochs
    if args.verbose and not only_test:
        print(f"epochs (--epochs): {args.epochs}; steps in an epoch: {-(-samples // args.batchsize)}")


def scaled_epochs(samples: int, batchsize: int, least: int) -> int:
    """Number of epochs that have the steps of a published search on AV-MNIST, and at least `least`."""
    return max(least, -(-STEPS // -(-samples // batchsize)))


def head_settings(
    args: argparse.Namespace, num_outputs: int, multi_label: bool = False, threshold: float = 0.5
) -> HeadSettings:
    """Settings of the central weights.

    Raises:
        UsageError: they do not fit into memory, or there is a threshold for samples of one class.
    """
    if threshold != 0.5 and not multi_label:
        raise UsageError("--threshold is for multi-label data, but these samples have one class each; leave it out")
    inner = args.inner_representation_size
    weights = 20 * inner * (inner + num_outputs)  # bytes of two layers, their gradients, Adam's moments, the best epoch
    what = f"layers of {inner:,} units for {num_outputs:,} classes"
    require_memory(weights, torch.device("cpu"), what, "use a smaller --inner_representation_size")
    return HeadSettings(
        num_outputs=num_outputs,
        inner_size=args.inner_representation_size,
        dropout=args.drpt,
        batchnorm=args.batchnorm,
        alphas=args.alphas,
        multitask=args.multitask,
        multi_label=multi_label,
        threshold=threshold,
        standardize=args.standardize,
    )


def training_settings(args: argparse.Namespace) -> TrainingSettings:
    """Settings of a fusion network's training.

    Raises:
        UsageError: the learning rates are in the wrong order.
    """
    if args.eta_min > args.eta_max:
        raise UsageError(f"eta_min <= eta_max must hold, but got eta_min={args.eta_min}, eta_max={args.eta_max}")
    return TrainingSettings(
        epochs=args.epochs,
        batchsize=args.batchsize,
        eta_max=args.eta_max,
        eta_min=args.eta_min,
        Ti=args.Ti,
        Tm=args.Tm,
        schedule=args.schedule,
        seed=args.seed,
    )


def found_settings(args: argparse.Namespace, multi_label: bool = False) -> TrainingSettings:
    """Settings of a found network's training.

    Raises:
        UsageError: see `training_settings`; or classes are to be balanced where a sample may have several.
    """
    balanced = args.class_weights == "balanced"
    if balanced and multi_label:
        raise UsageError("--class_weights balanced is for samples of one class; these may have several")
    return dataclasses.replace(training_settings(args), patience=args.patience, balanced=balanced)


def check_batches(head: HeadSettings, batchsize: int, count: int, gpus: int = 1) -> None:
    """Raise UsageError if batch norm would see one of the `count` training samples alone.

    Args:
        gpus: number of GPUs that share a batch.
    """
    batches = {min(batchsize, count), count % batchsize or batchsize}
    alone = any(size % -(-size // gpus) == 1 or size <= gpus for size in batches)
    if head.batchnorm and alone:
        shares = f" on {gpus} GPUs" if gpus > 1 else ""
        raise UsageError(
            f"--batchnorm needs two samples in every batch, but {count} samples in batches of {batchsize}{shares} "
            "leave one over; use another --batchsize or --limit_train"
        )


def search_method(args: argparse.Namespace) -> str:
    """Name of the search in its journal: sequential (the published one), improved or random."""
    return "random" if args.randsearch else {"published": "sequential"}.get(args.search, args.search)


def search_settings(args: argparse.Namespace) -> SearchSettings:
    """Settings of the search.

    Raises:
        UsageError: `--with_random` is given to a random search, or a setting of the published search to the improved.
    """
    for name in PUBLISHED if search_method(args) == "improved" else ():
        if getattr(args, name) != getattr(SearchSettings, name):
            raise UsageError(f"--{name} is a setting of the published search; give --search published, or leave it out")
    if search_method(args) == "random" and args.with_random:
        raise UsageError("this is a random search already; leave out --with_random")
    return SearchSettings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(SearchSettings)})


def budget(args: argparse.Namespace) -> Budget:
    """Limits of the search."""
    return Budget(args.max_candidates, args.time_budget)


def unimodal_plan(args: argparse.Namespace) -> Plan:
    """Epochs, batches and learning rates of the training."""

    def rates(batches_per_epoch: int) -> Iterator[float]:
        if args.schedule == "constant":
            return itertools.repeat(args.lr)
        return onecycle_rates(args.lr, 0.0, args.epochs * batches_per_epoch)

    return Plan(args.epochs, args.batchsize, args.seed, rates)


def half_cosine_plan(args: argparse.Namespace) -> Plan:
    """Epochs and batches of a training whose learning rate falls along half a cosine."""
    rates = functools.partial(cosine_rates, args.lr, 0.0, args.epochs, 1)
    return Plan(args.epochs, args.batchsize, args.seed, rates)


def sgd(network: nn.Module, args: argparse.Namespace) -> torch.optim.SGD:
    """Make the optimizer: plain SGD at a constant rate, with Nesterov momentum in one cycle."""
    momentum = 0.9 if args.schedule == "onecycle" else 0.0
    return torch.optim.SGD(
        network.parameters(), args.lr, momentum=momentum, weight_decay=args.weight_decay, nesterov=momentum > 0
    )
