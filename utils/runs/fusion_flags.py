"""Flags that the search and the found scripts share: what the central weights look like and how they are trained."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork, HeadSettings
from utils import cli
from utils.errors import UsageError
from utils.training.checkpoints import load_into
from utils.training.loop import TrainingSettings


def add_flags(
    parser: argparse.ArgumentParser,
    *,
    inner: int,
    epochs: int,
    batchsize: int,
    period: float,
    dropout: float,
    multitask: bool | None,
    amp: str | None = None,
) -> None:
    """The published names; the defaults differ between the scripts.

    Args:
        multitask: default of `--multitask`; None, of scripts over any features, leaves out what they have no use for.
        amp: default of `--amp`; None leaves the flag out.
    """
    net = parser.add_argument_group("fusion network")
    net.add_argument(
        "--inner_representation_size", type=cli.positive_int, default=inner, help="units of a fusion layer"
    )
    net.add_argument("--drpt", type=cli.probability, default=dropout, help="dropout after every fusion layer")
    net.add_argument("--batchnorm", action="store_true", help="batch norm after every activation")
    if multitask is not None:
        net.add_argument("--alphas", action="store_true", help="one learned number a layer weighs the two features")
        net.add_argument(
            "--multitask",
            action=argparse.BooleanOptionalAction,
            default=multitask,
            help="add the unimodal losses, predict by the sum of the three outputs",
        )
        net.add_argument("--modality", choices=("both",), default="both", help="kept from the published scripts")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=cli.positive_int, default=epochs, help="passes over the training split")
    training.add_argument("--batchsize", type=cli.positive_int, default=batchsize, help="samples a step")
    training.add_argument("--eta_max", type=cli.positive_float, default=1e-3, help="highest learning rate of Adam")
    training.add_argument("--eta_min", type=cli.positive_float, default=1e-6, help="lowest learning rate of Adam")
    training.add_argument("--Ti", type=cli.positive_float, default=period, help="epochs of the first cosine cycle")
    training.add_argument("--Tm", type=cli.positive_float, default=2, help="each cycle is this many times longer")
    training.add_argument(
        "--weightsharing", action="store_true", help="in a search, fusion layers start from those trained before"
    )
    if multitask is not None:
        training.add_argument(
            "--use_dataparallel",
            action="store_true",
            help="spread batches over several GPUs; without effect on cached features",
        )
    if amp is not None:
        cli.add_amp(training, amp)


def head_settings(args: argparse.Namespace, num_outputs: int | None = None, multi_label: bool = False) -> HeadSettings:
    """
    Args:
        num_outputs: as the data tell; None: as the flag tells.
    """
    return HeadSettings(
        num_outputs=num_outputs or args.num_outputs,
        inner_size=args.inner_representation_size,
        dropout=args.drpt,
        batchnorm=args.batchnorm,
        alphas=getattr(args, "alphas", False),
        multitask=getattr(args, "multitask", False),
        multi_label=multi_label,
    )


def training_settings(args: argparse.Namespace) -> TrainingSettings:
    """
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
        seed=args.seed,
    )


def check_batches(args: argparse.Namespace, count: int, spread: bool = False) -> None:
    """Raise UsageError where batch norm would meet one of the `count` training samples alone.

    Args:
        spread: whether the central weights run on every GPU of several, with a share of the batch each.
    """
    gpus = max(1, torch.cuda.device_count()) if spread and args.device != "cpu" else 1
    batches = {min(args.batchsize, count), count % args.batchsize or args.batchsize}
    alone = any(size % -(-size // gpus) == 1 or size <= gpus for size in batches)
    if args.batchnorm and alone:
        shares = f" on {gpus} GPUs" if gpus > 1 else ""
        raise UsageError(
            f"--batchnorm needs two samples in every batch, but {count} samples in batches of {args.batchsize}{shares} "
            "leave one over; use another --batchsize or --limit_train"
        )


def load_backbones(network: FusionNetwork, paths: Sequence[Path]) -> None:
    """Load the checkpoints of the unimodal networks, first modality first."""
    for backbone, path in zip(network.backbones(), paths, strict=True):
        load_into(backbone, path)


class KeepsBfloat16(nn.Module):
    """Autocasts to bfloat16 where autocast is on: DataParallel's threads are told that it is, but not the dtype."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        kind = inputs[0].device.type
        with torch.autocast(kind, torch.bfloat16, enabled=torch.is_autocast_enabled(kind)):
            return self.network(*inputs)


def data_parallel(network: nn.Module, wanted: bool) -> nn.Module:
    """`--use_dataparallel`: a network on a GPU wrapped where several are there, else itself."""
    on_gpu = next(network.parameters()).device.type == "cuda"
    several = wanted and on_gpu and torch.cuda.device_count() > 1
    return nn.DataParallel(KeepsBfloat16(network)) if several else network
