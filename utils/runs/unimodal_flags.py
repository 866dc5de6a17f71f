"""Flags of unimodal training.

The networks of AV-MNIST train at a constant learning rate, as published, or in one cycle, which reaches a higher
accuracy in a fifth of the epochs. The presets of the data set are calibrated with the constant rate.
"""

import argparse

from utils import cli
from utils.runs import flags

ONE_CYCLE = {"epochs": 10, "lr": 0.3}  # defaults of `--schedule onecycle`


def add_unimodal_flags(
    parser: argparse.ArgumentParser, *, epochs: int, batchsize: int, lr: float, schedule: str, amp: str
) -> argparse._ArgumentGroup:
    """Flags of unimodal training; `schedule` describes the learning rate in words."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=cli.EPOCHS, default=epochs, help="passes over the training split")
    group.add_argument("--batchsize", type=flags.BATCHSIZE, default=batchsize, help="samples per step")
    group.add_argument("--lr", type=flags.RATE, default=lr, help=f"learning rate, {schedule}")
    cli.add_alias(group, "--learning_rate", "lr", flags.RATE)
    group.add_argument("--weight_decay", type=cli.number(0, 1000), default=1e-4, help="L2 penalty")
    flags.add_amp(group, amp)
    parser.set_defaults(use_dataparallel=False)
    return group


def add_avmnist_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the unimodal training of AV-MNIST, with the published defaults."""
    rate = "constant, or the peak of the cycle"
    group = add_unimodal_flags(parser, epochs=50, batchsize=128, lr=0.1, schedule=rate, amp="auto")
    group.add_argument(
        "--schedule",
        choices=("constant", "onecycle"),
        default="constant",
        help="constant: plain SGD, as published; onecycle: the rate rises and falls once, with momentum 0.9, and the "
        f"defaults are --epochs {ONE_CYCLE['epochs']} --lr {ONE_CYCLE['lr']}",
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, with the defaults of its schedule."""
    args = parser.parse_args()
    if args.schedule == "onecycle":
        parser.set_defaults(**ONE_CYCLE)
        args = parser.parse_args()
    return args
