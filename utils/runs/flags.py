"""Flags of the training and search scripts, with the published names and defaults.

Like all modules of flags, this one imports neither torch nor numpy, so that `--help` answers at once.
"""

import argparse
from pathlib import Path

from utils import cli

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
        net.add_argument("--alphas", action="store_true", help="weigh the two features of a layer by a learned number")
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
        help="also train, for comparison: the last features joined, N random configurations, and late fusion of "
        "fine-tuned networks, each in the same way as the found network; and logistic regression",
    )
    group.add_argument(
        "--no-baselines", dest="baselines", action="store_const", const=None, help="train only the found network"
    )
    group.add_argument(
        "--patience",
        type=cli.COUNT,
        default=None,
        metavar="EPOCHS",
        help="stop a training after this many epochs without a better one on dev (default: train all epochs)",
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
