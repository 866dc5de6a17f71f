"""Training of a unimodal network, from its settings to its files; the scripts choose data, network and optimizer."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from utils import distributed
from utils.files import write_json
from utils.progress import Progress
from utils.report import write_report
from utils.report.board import write_training
from utils.report.live import LiveReport
from utils.runs.folder import RunSettings, warn_of_stand_in
from utils.training.batches import Split
from utils.training.checkpoints import save_state
from utils.training.evaluation import evaluate
from utils.training.loop import ModelTraining, train_and_evaluate
from utils.training.parallel import replicated
from utils.training.resume import NetworkRecord


@dataclasses.dataclass(frozen=True)
class Plan:
    """Epochs, batches and learning rates of a unimodal training."""

    epochs: int
    batchsize: int
    seed: int
    rates: Callable[[int], Iterator[float]]  # learning rate of each batch, given the number of batches per epoch


def train_unimodal(
    run: RunSettings,
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    splits: Mapping[str, Split],
    plan: Plan,
    facts: Mapping[str, object],
    test_every_epoch: bool = False,
) -> dict[str, Any]:
    """Train a network, or resume its training, and load the weights of its best dev epoch into it.

    The results, with every epoch's accuracies (on train while it learns), are written to results.json.

    Args:
        network: on the device of the splits.
        facts: further entries of the results, such as {"stand_in": False}.
        test_every_epoch: also report the test accuracy of every epoch, as the published fork does for AV-MNIST; the
            choice of the epoch never depends on it.
    """
    name, bfloat16 = type(network).__name__, ", bfloat16" * run.compute.bfloat16
    if run.verbose:
        samples = len(splits["train"])
        print(f"training {name} on {samples} samples for {plan.epochs} epochs on {run.device}{bfloat16}")
    results: dict[str, Any] = {
        "network": name,
        "seed": run.seed,
        "bfloat16": run.compute.bfloat16,
        "run_dir": str(folder),
        **facts,
    }
    record = NetworkRecord(network, folder)
    if record.values:
        record.restore(network, optimizer)
    done = len(record.lines)
    trained = replicated(network, network)
    train_pass = ModelTraining(trained, optimizer, network.train, run.compute.bfloat16, run.verbose)
    epochs = train_and_evaluate(network, splits, plan, train_pass, (), done=done, spread=True)
    live = LiveReport(folder)
    progress = Progress(epochs, desc="epochs", total=plan.epochs, initial=done, verbose=run.verbose)
    for epoch, result in enumerate(progress, done):
        line = {"epoch": epoch, **result.figures()}
        if test_every_epoch:
            line["test_accuracy"] = float(evaluate(network, splits["test"], spread=True))
        if run.verbose:
            progress.write(
                "  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v:3d}" for k, v in line.items())
            )
        record.add(line, optimizer)
        if not distributed.rank():
            write_json(folder / "results.json", results | _figures(record))
            if run.tensorboard:
                write_training(folder)
            live.update(f"epoch {epoch + 1} of {plan.epochs}")
        distributed.check_interrupts()
    record.load_best()
    return results | _figures(record)


def _figures(record: NetworkRecord) -> dict[str, object]:
    best = record.best_line
    figures = {"best_epoch": best["epoch"], "dev_accuracy": best["dev_accuracy"]}
    return {"epochs": record.lines, "seconds": record.seconds, **figures}


def finish_unimodal(
    run: RunSettings, folder: Path, network: nn.Module, test: Split, results: dict[str, Any], name: str
) -> None:
    """Test the network; write its checkpoint, the results beside it and in the run folder, and the report.

    Args:
        name: file name of the checkpoint; `{accuracy}` in it becomes the test accuracy in %.
    """
    results["test_accuracy"] = float(evaluate(network, test, spread=True))
    if distributed.rank():
        return
    path = run.checkpointdir / name.format(accuracy=f"{100 * results['test_accuracy']:.2f}")
    save_state(path, network.state_dict())
    for place in (path.with_suffix(".json"), folder / "results.json"):
        write_json(place, results)
    warn_of_stand_in(results)
    print(f"dev {results['dev_accuracy']:.4f}, test {results['test_accuracy']:.4f}; saved {path}")
    print(f"report: {write_report(folder)}")
