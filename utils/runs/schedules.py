"""The two ways to train the unimodal networks of AV-MNIST: at a constant learning rate, as published, or in one cycle.

One cycle reaches a higher accuracy in a fifth of the epochs; the presets of the data set are calibrated by the constant
rate.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator

import torch
from torch import nn

from utils.runs import flags
from utils.runs.unimodal import Plan
from utils.training.rates import onecycle_rates


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Defaults and momentum of SGD with one of the schedules."""

    epochs: int
    lr: float
    momentum: float


SCHEDULES = {
    "constant": Schedule(epochs=50, lr=0.1, momentum=0.0),
    "onecycle": Schedule(epochs=10, lr=0.3, momentum=0.9),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of unimodal training, and `--schedule`, on which the defaults of `--epochs` and `--lr` depend."""
    constant, onecycle = SCHEDULES["constant"], SCHEDULES["onecycle"]
    group = flags.add_unimodal_flags(
        parser,
        epochs=None,
        batchsize=128,
        lr=None,
        schedule=f"constant, or the peak of the cycle (default: {constant.lr}, or {onecycle.lr} in one cycle)",
        amp="auto",
        usual_epochs=f"{constant.epochs}, or {onecycle.epochs} in one cycle",
    )
    group.add_argument(
        "--schedule",
        choices=tuple(SCHEDULES),
        default="constant",
        help="constant: plain SGD, as published; onecycle: the rate rises and falls once, with momentum 0.9",
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, and complete the flags that depend on the schedule."""
    args = parser.parse_args()
    schedule = SCHEDULES[args.schedule]
    args.epochs, args.lr = args.epochs or schedule.epochs, args.lr or schedule.lr
    return args


def plan(args: argparse.Namespace) -> Plan:
    """Epochs, batches and learning rates of the training."""

    def rates(batches_per_epoch: int) -> Iterator[float]:
        if args.schedule == "constant":
            return itertools.repeat(args.lr)
        return onecycle_rates(args.lr, 0.0, args.epochs * batches_per_epoch)

    return Plan(args.epochs, args.batchsize, args.seed, rates)


def sgd(network: nn.Module, args: argparse.Namespace) -> torch.optim.SGD:
    """Make the optimizer: plain SGD at a constant rate, with Nesterov momentum in one cycle."""
    momentum = SCHEDULES[args.schedule].momentum
    return torch.optim.SGD(
        network.parameters(), args.lr, momentum=momentum, weight_decay=args.weight_decay, nesterov=momentum > 0
    )
