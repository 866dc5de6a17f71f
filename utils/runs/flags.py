"""Flags of the training and search scripts, and the settings that they become.

Names and defaults are the published ones. `argparse.Namespace` ends here: everything below takes settings.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from models.fusion import HeadSettings
from utils import cli, distributed
from utils.errors import UsageError
from utils.runs.folder import RunSettings
from utils.training.devices import Compute, require_memory, resolve_device, use_bfloat16
from utils.training.loop import TrainingSettings

BATCHSIZE = cli.integer(1, 1_000_000)
RATE = cli.number(0, 1000, above=True)
STEPS = 3 * -(-55_000 // 32)  # of a candidate in the published search on AV-MNIST


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every script that trains: seed, device, run folder."""
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=cli.SEED, default=0, help="seed of all randomness")
    group.add_argument(
        "--device",
        type=cli.device,
        default="auto",
        help="auto (CUDA if it is available), cpu, cuda, the number of a GPU as in cuda:1, or mps",
    )
    group.add_argument(
        "--run_dir",
        type=Path,
        default=None,
        help="run folder (default: runs/SCRIPT-TIMESTAMP); a run with the same settings in it is resumed",
    )
    group.add_argument(
        "--resume", type=Path, default=None, metavar="RUN_DIR", help="resume the run in this folder, which must exist"
    )
    group.add_argument(
        "--tensorboard", action="store_true", help="also write RUN_DIR/tensorboard (needs the package tensorboard)"
    )
    group.add_argument(
        "--deterministic", action="store_true", help="on CUDA, use deterministic algorithms where they exist"
    )
    cli.add_verbosity(parser)


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


def add_amp(group: argparse._ArgumentGroup, default: str) -> None:
    group.add_argument(
        "--amp",
        nargs="?",
        const="on",
        choices=("auto", "on", "off"),
        default=default,
        help="bfloat16 autocast in training and feature extraction; auto: if the processor computes in bfloat16",
    )


def _add_training(
    parser: argparse.ArgumentParser, epochs: int | None, batchsize: int, period: float | None
) -> argparse._ArgumentGroup:
    training = parser.add_argument_group("training")
    enough = f" (default: enough for {STEPS:,} steps)" if epochs is None else ""
    training.add_argument("--epochs", type=cli.EPOCHS, default=epochs, help=f"passes over the training split{enough}")
    training.add_argument("--batchsize", type=BATCHSIZE, default=batchsize, help="samples per step")
    training.add_argument("--eta_max", type=RATE, default=1e-3, help="highest learning rate of Adam")
    training.add_argument("--eta_min", type=RATE, default=1e-6, help="lowest learning rate of Adam")
    training.add_argument(
        "--schedule",
        choices=("cosine", "onecycle"),
        default="cosine",
        help="cosine: cycles of --Ti epochs, as published; onecycle: up to eta_max and down once in all epochs",
    )
    scaled = " (default: in proportion to --epochs)" if period is None else ""
    training.add_argument(
        "--Ti", type=cli.number(0.001, 1_000_000), default=period, help=f"epochs of the first cosine cycle{scaled}"
    )
    training.add_argument(
        "--Tm", type=cli.number(0.01, 1000), default=2, help="each cycle is this many times as long as the last"
    )
    training.add_argument(
        "--weightsharing", action="store_true", help="in a search, fusion layers start from previously trained layers"
    )
    return training


def add_fusion_flags(
    parser: argparse.ArgumentParser,
    *,
    inner: int,
    epochs: int | None,
    batchsize: int,
    period: float | None,
    dropout: float,
    multitask: bool | None,
    amp: str | None = None,
) -> None:
    """Flags of the fusion network and its training; the defaults differ between the scripts.

    Args:
        epochs, period: None for `scale_epochs`.
        multitask: default of `--multitask`; None, for scripts on feature tables, leaves out what they cannot use.
        amp: default of `--amp`; None leaves the flag out.
    """
    net = parser.add_argument_group("fusion network")
    net.add_argument(
        "--inner_representation_size", type=cli.integer(1, 65_536), default=inner, help="units of a fusion layer"
    )
    net.add_argument("--drpt", type=cli.probability, default=dropout, help="dropout after every fusion layer")
    net.add_argument("--batchnorm", action="store_true", help="batch norm after every activation")
    net.add_argument(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        default=multitask is None,
        help="subtract the training split's mean from each feature column and divide by its deviation",
    )
    training = _add_training(parser, epochs, batchsize, period)
    if multitask is not None:
        net.add_argument("--alphas", action="store_true", help="one learned number per layer weighs the two features")
        net.add_argument(
            "--multitask",
            action=argparse.BooleanOptionalAction,
            default=multitask,
            help="add the unimodal losses, and predict by the sum of the three outputs",
        )
        net.add_argument("--modality", choices=("both",), default="both", help="kept from the published scripts")
        training.add_argument(
            "--use_dataparallel",
            action="store_true",
            help="spread batches over several GPUs; has no effect on cached features",
        )
    else:
        parser.set_defaults(alphas=False, multitask=False, use_dataparallel=False)
    if amp is not None:
        add_amp(training, amp)
    else:
        parser.set_defaults(amp="off")


def scale_epochs(args: argparse.Namespace, samples: int, *, epochs: int, period: float) -> None:
    """Fill in the number of epochs and the first cosine cycle, unless given, for a training split of any size.

    Args:
        epochs, period: published defaults for AV-MNIST. Smaller data gets more epochs, with cycles in proportion.
    """
    if args.epochs is None:
        args.epochs = scaled_epochs(samples, args.batchsize, epochs)
    if args.Ti is None:
        args.Ti = period * args.epochs / epochs
    if args.verbose:
        print(f"training for {args.epochs} epochs of {-(-samples // args.batchsize)} steps (--epochs)")


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


def found_settings(args: argparse.Namespace) -> TrainingSettings:
    """Settings of a found network's training."""
    balanced = args.class_weights == "balanced"
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


def add_found_flags(parser: argparse.ArgumentParser, conf: int | None) -> None:
    """Flags that choose the network to train or test; `conf` is the default, None if none is published."""
    group = parser.add_argument_group("configuration")
    if conf is None:
        group.add_argument("--conf", required=True, help="list of rows, or a search's best.json")
    else:
        group.add_argument("--conf", default=str(conf), help="published number, list of rows, or a search's best.json")
    group.add_argument(
        "--retrain_top",
        type=cli.integer(1, 5),
        default=1,
        help="train this many of the search's best configurations, and keep the best on dev",
    )
    group.add_argument("--ensemble", action="store_true", help="also average the networks of --retrain_top")
    group.add_argument(
        "--baselines",
        type=cli.integer(0, 100),
        default=1,
        metavar="N",
        help="for comparison, train the last features joined, N random configurations, and late fusion of fine-tuned "
        "networks, each like the found network, and logistic regression",
    )
    group.add_argument(
        "--no-baselines", dest="baselines", action="store_const", const=None, help="train only the found network"
    )
    group.add_argument(
        "--patience",
        type=cli.COUNT,
        default=None,
        metavar="EPOCHS",
        help="end a training after as many epochs without a better one on dev (default: train all epochs)",
    )
    group.add_argument(
        "--class_weights",
        choices=("equal", "balanced"),
        default="equal",
        help="weights of classes in the loss; balanced: inverse to their frequency in the training split",
    )
    group.add_argument("--test_cp", default="", help="only test this checkpoint (a path, or a name in checkpointdir)")
    group.add_argument(
        "--evaluate_missing", action="store_true", help="also test with each modality muted, and with noise added to it"
    )
