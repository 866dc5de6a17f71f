"""Flags of unimodal training, and what they become.

The networks of AV-MNIST train at a constant learning rate, as published, by which the presets of the data set are
calibrated; or in one cycle, which reaches a higher accuracy in a fifth of the epochs.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator

import torch
from torch import nn

from utils import cli
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


def add_unimodal_flags(
    parser: argparse.ArgumentParser,
    *,
    epochs: int | None,
    batchsize: int,
    lr: float | None,
    schedule: str,
    amp: str,
    usual_epochs: str = "",
) -> argparse._ArgumentGroup:
    """Flags of unimodal training.

    Args:
        schedule: the learning rate in words.
        usual_epochs: default of the epochs in words, if it depends on another flag.
    """
    group = parser.add_argument_group("training")
    usual = f" (default: {usual_epochs})" if usual_epochs else ""
    group.add_argument("--epochs", type=cli.EPOCHS, default=epochs, help="passes over the training split" + usual)
    group.add_argument("--batchsize", type=flags.BATCHSIZE, default=batchsize, help="samples per step")
    group.add_argument("--lr", type=flags.RATE, default=lr, help=f"learning rate, {schedule}")
    cli.add_alias(group, "--learning_rate", "lr", flags.RATE)
    group.add_argument("--weight_decay", type=cli.number(0, 1000), default=1e-4, help="L2 penalty")
    flags.add_amp(group, amp)
    parser.set_defaults(use_dataparallel=False)
    return group


def add_avmnist_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of unimodal training, and `--schedule`, on which the defaults of `--epochs` and `--lr` depend."""
    constant, onecycle = SCHEDULES["constant"], SCHEDULES["onecycle"]
    group = add_unimodal_flags(
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
