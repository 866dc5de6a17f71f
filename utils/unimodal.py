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

EVALUATION_BATCH = 64


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Optimisation flags; the defaults are the published ones."""
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=cli.positive_int, default=50, help="passes over the training split")
    group.add_argument("--batchsize", type=cli.positive_int, default=128, help="samples a step")
    group.add_argument("--lr", type=float, default=0.1, help="learning rate of SGD, constant")
    group.add_argument("--weight_decay", type=float, default=1e-4, help="L2 penalty of SGD")
    cli.add_amp(group)


def train_unimodal(
    network: nn.Module,
    splits: Mapping[str, ArraySplit],
    args: argparse.Namespace,
    device: torch.device,
    path: Path,
    run_dir: Path,
) -> dict[str, object]:
    """Train, save the best dev epoch at `path`, and return the record of the run.

    The record holds every epoch's accuracies on train (running, while it learns), dev and test; it is written beside
    the checkpoint, with the suffix .json, and to the run folder as results.json.
    """
    amp = cli.use_amp(args.amp, device)
    splits = {name: split.to(device) for name, split in splits.items()}
    network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), args.lr, weight_decay=args.weight_decay)
    best, epochs, started = -1.0, [], time.perf_counter()
    progress = tqdm(range(args.epochs), desc="epochs", disable=not args.verbose)
    for epoch in progress:
        network.train()
        result = train_epoch(
            network, splits["train"].batches(args.batchsize, (args.seed, "shuffle", epoch)), optimizer, amp=amp
        )
        line = {"epoch": epoch, "train_loss": float(result.loss), "train_accuracy": float(result.accuracy)}
        for name in ("dev", "test"):
            split = splits[name]
            line[f"{name}_accuracy"] = float(evaluate(network, split.batches(EVALUATION_BATCH), split.labels, amp))
        epochs.append(line)
        if line["dev_accuracy"] > best:
            best = line["dev_accuracy"]
            save_state(path, network.state_dict())
        if args.verbose:
            tqdm.write("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v:3d}" for k, v in line.items()))
    chosen = max(epochs, key=lambda e: e["dev_accuracy"])
    record = {
        "network": type(network).__name__,
        "run_dir": str(run_dir),
        "best_epoch": chosen["epoch"],
        "dev_accuracy": chosen["dev_accuracy"],
        "test_accuracy": chosen["test_accuracy"],
        "seconds": time.perf_counter() - started,
        "bfloat16": amp,
        "epochs": epochs,
    }
    write_json(path.with_suffix(".json"), record)
    write_json(run_dir / "results.json", record)
    return record
