"""Training of a unimodal network; shared by the train_* scripts, which choose data, network and optimizer."""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from utils import cli, interrupts
from utils.files import write_json
from utils.progress import Progress
from utils.report import write_report
from utils.report.board import write_training
from utils.runs.folder import open_run
from utils.training.batches import Split
from utils.training.checkpoints import names_file, save_state
from utils.training.loop import ModelTraining, evaluate, train_and_evaluate
from utils.training.record import TrainingRecord


def add_flags(
    parser: argparse.ArgumentParser, *, epochs: int, batchsize: int, lr: float, rate: str, weight_decay: float, amp: str
) -> None:
    """Optimisation flags; `rate` says in words how the learning rate goes."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=cli.positive_int, default=epochs, help="passes over the training split")
    group.add_argument("--batchsize", type=cli.positive_int, default=batchsize, help="samples a step")
    group.add_argument("--lr", type=cli.positive_float, default=lr, help=f"learning rate, {rate}")
    cli.add_alias(group, "--learning_rate", "lr", cli.positive_float)
    group.add_argument("--weight_decay", type=cli.non_negative_float, default=weight_decay, help="L2 penalty")
    cli.add_amp(group, amp)


def train_unimodal(
    args: argparse.Namespace,
    network: nn.Module,
    splits: Mapping[str, Split],
    optimizer: torch.optim.Optimizer,
    name: Callable[[float], str],
    facts: Mapping[str, object],
    data_identity: object,
    rates: Callable[[int], Iterator[float]] | None = None,
    test_every_epoch: bool = False,
) -> None:
    """Train, test the best dev epoch and save it in `--checkpointdir`.

    The record of the run holds every epoch's accuracies - on train the running one, while it learns - and is written
    beside the checkpoint, with the suffix .json, and to the run folder as results.json.

    Args:
        network: on the device of the splits.
        name: of the checkpoint, given the test accuracy.
        facts: what else the record should hold, such as {"stand_in": False}.
        data_identity: what tells this data set from another, as JSON values.
        rates: learning rates batch by batch, given the batches of an epoch; None: constant.
        test_every_epoch: as the published fork does for AV-MNIST; the choice of the epoch never looks at it.
    """
    device = next(network.parameters()).device
    amp = cli.use_amp(args.amp, device)
    if args.verbose:
        print(
            f"training {type(network).__name__} on {len(splits['train'])} samples for {args.epochs} epochs on "
            f"{device}{', bfloat16' * amp}"
        )
    with open_run(args, {"data": data_identity}) as run_dir:
        record: dict[str, object] = {
            "network": type(network).__name__,
            "num_outputs": args.num_outputs,
            "seed": args.seed,
            "bfloat16": amp,
            "run_dir": str(run_dir),
            **facts,
        }
        train_pass = ModelTraining(network, optimizer, network.train, amp, args.verbose)
        with names_file(run_dir / "best.checkpoint"):
            record |= _train(args, network, splits, train_pass, rates, test_every_epoch, run_dir, record)
            record["test_accuracy"] = float(evaluate(network, splits["test"]))

        path = args.checkpointdir / name(record["test_accuracy"])
        save_state(path, network.state_dict())
        for place in (path.with_suffix(".json"), run_dir / "results.json"):
            write_json(place, record)
        if record.get("stand_in"):
            print("the data set is a stand-in: these figures are not results on the real one")
        print(f"dev {record['dev_accuracy']:.4f}, test {record['test_accuracy']:.4f}; saved {path}")
        print(f"report: {write_report(run_dir)}")


@dataclasses.dataclass(frozen=True)
class _Schedule:
    """See `utils.training.loop.Schedule`."""

    seed: int
    batchsize: int
    rates: Callable[[int], Iterator[float]]


def _train(
    args: argparse.Namespace,
    network: nn.Module,
    splits: Mapping[str, Split],
    train_pass: ModelTraining,
    rates: Callable[[int], Iterator[float]] | None,
    test_every_epoch: bool,
    run_dir: Path,
    record: Mapping[str, object],
) -> dict[str, object]:
    """Train all epochs, or those that an earlier process left; returns what the record should tell of them.

    The best dev epoch is what `network` holds in the end.
    """
    kept = TrainingRecord(network, run_dir)
    kept.restore(train_pass.optimizer)
    schedule = _Schedule(args.seed, args.batchsize, rates or (lambda batches: itertools.repeat(args.lr)))
    done = len(kept.lines)
    epochs = train_and_evaluate(network, splits, schedule, train_pass, (), args.epochs, done=done)
    progress = Progress(epochs, desc="epochs", total=args.epochs, initial=done, verbose=args.verbose)
    for epoch, result in enumerate(progress, done):
        line = {
            "epoch": epoch,
            "train_loss": float(result.loss),
            "train_accuracy": float(result.accuracy),
            "dev_accuracy": float(result.dev_accuracy),
        }
        if test_every_epoch:
            line["test_accuracy"] = float(evaluate(network, splits["test"]))
        if args.verbose:
            progress.write(
                "  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v:3d}" for k, v in line.items())
            )
        kept.add(line, train_pass.optimizer)
        write_json(run_dir / "results.json", {**record, **_told(kept)})
        if args.tensorboard:
            write_training(run_dir)
        interrupts.check()
    kept.keep_best()
    return _told(kept)


def _told(kept: TrainingRecord) -> dict[str, object]:
    """What the record of the run says of its epochs."""
    best = kept.best_line
    told = {"best_epoch": best["epoch"], "dev_accuracy": best["dev_accuracy"]}
    return {"epochs": kept.lines, "seconds": kept.seconds, **told}
