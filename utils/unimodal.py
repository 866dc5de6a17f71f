"""Training of a unimodal network with plain SGD, as the published fork does; shared by train_image and train_audio."""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from utils import cli
from utils.batches import ArraySplit
from utils.checkpoints import save_state
from utils.files import write_json
from utils.training import evaluate, train_epoch


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Optimisation flags; the defaults are the published ones."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=cli.positive_int, default=50, help="passes over the training split")
    group.add_argument("--batchsize", type=cli.positive_int, default=128, help="samples a step")
    group.add_argument("--lr", type=cli.positive_float, default=0.1, help="learning rate of SGD, constant")
    group.add_argument("--weight_decay", type=cli.non_negative_float, default=1e-4, help="L2 penalty of SGD")
    cli.add_amp(group)


def train_unimodal(
    network: nn.Module,
    splits: Mapping[str, ArraySplit],
    args: argparse.Namespace,
    device: torch.device,
    path: Path,
    run_dir: Path,
    stand_in: bool,
) -> dict[str, object]:
    """Train, save the best dev epoch at `path`, and return the record of the run.

    The record holds every epoch's accuracies on train (running, while it learns), dev and test, and what rebuilds the
    network; it is written beside the checkpoint, with the suffix .json, and to the run folder as results.json.

    Args:
        stand_in: whether the data are, whose figures say nothing about the real ones.
    """
    amp = cli.use_amp(args.amp, device)
    splits = {name: split.to(device) for name, split in splits.items()}
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), args.lr, weight_decay=args.weight_decay)
    best, epochs, started = -1.0, [], time.perf_counter()
    record: dict[str, object] = {
        "network": type(network).__name__,
        "channels": args.channels,
        "num_outputs": args.num_outputs,
        "seed": args.seed,
        "stand_in": stand_in,
        "bfloat16": amp,
        "run_dir": str(run_dir),
    }
    for epoch in tqdm(range(args.epochs), desc="epochs", disable=not args.verbose):
        network.train()
        batches = splits["train"].batches(args.batchsize, (args.seed, "shuffle", epoch))
        result = train_epoch(network, batches, optimizer, amp=amp)
        line = {"epoch": epoch, "train_loss": float(result.loss), "train_accuracy": float(result.accuracy)}
        line |= {f"{name}_accuracy": float(evaluate(network, splits[name])) for name in ("dev", "test")}
        epochs.append(line)
        if args.verbose:
            tqdm.write("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v:3d}" for k, v in line.items()))
        if line["dev_accuracy"] > best:
            best = line["dev_accuracy"]
            record |= {"best_epoch": epoch, "dev_accuracy": best, "test_accuracy": line["test_accuracy"]}
            save_state(path, network.state_dict())
        record |= {"seconds": time.perf_counter() - started, "epochs": epochs}
        for place in (path.with_suffix(".json"), run_dir / "results.json"):
            write_json(place, record)
    if stand_in:
        print("the data set is a stand-in: these figures are not results on the real one")
    return record
