"""Training of a unimodal network; shared by the train_* scripts, which choose data, network and optimizer."""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn
from tqdm import tqdm

from utils import cli
from utils.batches import Split
from utils.checkpoints import load_into, names_file, save_state
from utils.files import write_json
from utils.training import evaluate, train_epoch


def add_flags(
    parser: argparse.ArgumentParser, *, epochs: int, batchsize: int, lr: float, rate: str, weight_decay: float, amp: str
) -> None:
    """Optimisation flags; `rate` says in words how the learning rate goes."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=cli.positive_int, default=epochs, help="passes over the training split")
    group.add_argument("--batchsize", type=cli.positive_int, default=batchsize, help="samples a step")
    group.add_argument("--lr", type=cli.positive_float, default=lr, help=f"learning rate, {rate}")
    group.add_argument("--weight_decay", type=cli.non_negative_float, default=weight_decay, help="L2 penalty")
    cli.add_amp(group, amp)


def train_unimodal(
    args: argparse.Namespace,
    network: nn.Module,
    splits: Mapping[str, Split],
    optimizer: torch.optim.Optimizer,
    name: Callable[[float], str],
    facts: Mapping[str, object],
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
        rates: learning rates batch by batch, given the batches of an epoch; None: constant.
        test_every_epoch: as the published fork does for AV-MNIST; the choice of the epoch never looks at it.
    """
    device = next(network.parameters()).device
    amp = cli.use_amp(args.amp, device)
    run_dir, started = cli.open_run(args), time.perf_counter()
    if args.verbose:
        print(
            f"training {type(network).__name__} on {len(splits['train'])} samples for {args.epochs} epochs on "
            f"{device}{', bfloat16' * amp}"
        )
    record: dict[str, object] = {
        "network": type(network).__name__,
        "num_outputs": args.num_outputs,
        "seed": args.seed,
        "bfloat16": amp,
        "run_dir": str(run_dir),
        **facts,
    }
    best = run_dir / "best.checkpoint"
    with names_file(best):
        for line in _epochs(args, network, splits, optimizer, rates, amp, test_every_epoch):
            if line["dev_accuracy"] > record.get("dev_accuracy", -1):
                record |= {"best_epoch": line["epoch"], "dev_accuracy": line["dev_accuracy"]}
                save_state(best, network.state_dict())
            record["epochs"] = [*record.get("epochs", []), line]
            record["seconds"] = time.perf_counter() - started
            write_json(run_dir / "results.json", record)
        load_into(network, best)
        record["test_accuracy"] = float(evaluate(network, splits["test"]))

    path = args.checkpointdir / name(record["test_accuracy"])
    save_state(path, network.state_dict())
    for place in (path.with_suffix(".json"), run_dir / "results.json"):
        write_json(place, record)
    if record.get("stand_in"):
        print("the data set is a stand-in: these figures are not results on the real one")
    print(f"dev {record['dev_accuracy']:.4f}, test {record['test_accuracy']:.4f}; saved {path}")


def _epochs(
    args: argparse.Namespace,
    network: nn.Module,
    splits: Mapping[str, Split],
    optimizer: torch.optim.Optimizer,
    rates: Callable[[int], Iterator[float]] | None,
    amp: bool,
    test_every_epoch: bool,
) -> Iterator[dict[str, float]]:
    """Train epoch by epoch; yields the figures of each."""
    schedule: Iterator[float] | None = None
    for epoch in tqdm(range(args.epochs), desc="epochs", disable=not args.verbose):
        network.train()
        batches = splits["train"].at_pass(epoch).batches(args.batchsize, (args.seed, "shuffle", epoch))
        schedule = schedule or (rates and rates(len(batches)))
        result = train_epoch(network, batches, optimizer, schedule, amp)
        line = {"epoch": epoch, "train_loss": float(result.loss), "train_accuracy": float(result.accuracy)}
        for split in ("dev", "test") if test_every_epoch else ("dev",):
            line[f"{split}_accuracy"] = float(evaluate(network, splits[split]))
        if args.verbose:
            tqdm.write("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v:3d}" for k, v in line.items()))
        yield line
