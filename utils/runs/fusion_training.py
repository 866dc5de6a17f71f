"""Training to completion: one epoch of the central weights, then all weights for all epochs (published)."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from models.fusion import FusionNetwork, LateFusion
from utils import distributed
from utils.progress import Progress
from utils.runs.folder import RunSettings
from utils.training.batches import Split
from utils.training.devices import data_parallel
from utils.training.loop import ModelTraining, TrainingSettings, adam, train_and_evaluate
from utils.training.metrics import balanced_weights
from utils.training.parallel import replicated
from utils.training.resume import NetworkRecord


def train_network(
    run: RunSettings,
    name: str,
    network: FusionNetwork | LateFusion,
    splits: Mapping[str, Split],
    training: TrainingSettings,
    record: NetworkRecord,
) -> Iterator[dict[str, Any]]:
    """Train a network, or resume its training, yielding the line of each new epoch once it is saved.

    The network ends with the weights of its best dev epoch.

    Args:
        name: of the network, for progress lines.
        network: on the device; a fusion network, or any other whose weights train in all epochs.
        record: its epochs so far.
    """
    model, lines, first = data_parallel(network, run.compute.use_dataparallel), record.lines, 0
    plan = phases(network, training.epochs)
    total = sum(epochs for *_, epochs in plan)
    labels, classes = splits["train"].labels, network.settings.num_outputs
    weights = balanced_weights(labels, classes) if training.balanced else None
    if run.verbose:
        bfloat16 = ", bfloat16" * run.compute.bfloat16
        print(f"training {name} on {len(splits['train'])} samples, {total} epochs, {run.device}{bfloat16}")
    with Progress(total=total, initial=len(lines), desc="epochs", verbose=run.verbose) as progress:
        for phase, parameters, epochs in plan:  # each with its own optimizer and learning-rate cycle
            schedule = dataclasses.replace(training, epochs=epochs)
            done = sum(line["phase"] == phase for line in lines)
            if is_over(lines, phase, training.patience):
                break
            network.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            optimizer = adam(parameters, training)
            if done and lines[-1]["phase"] == phase:
                record.restore(network, optimizer)
            trained = replicated(network, model)
            train_pass = ModelTraining(trained, optimizer, network.train, run.compute.bfloat16, run.verbose, weights)
            place = ("found", phase)
            for result in train_and_evaluate(
                model, splits, schedule, train_pass, place, None, first, done, weights, spread=True
            ):
                line = {"epoch": len(lines), "phase": phase, **result.figures(), "learning_rate": result.rate}
                record.add(line, optimizer)
                yield line
                distributed.check_interrupts()
                best = record.best_line["dev_accuracy"]
                progress.set_postfix_str(f"{phase}, on dev {line['dev_accuracy']:.4f}, best {best:.4f}")
                progress.update()
                if is_over(lines, phase, training.patience):
                    break
            first += epochs
    record.load_best()


def is_over(lines: Sequence[Mapping[str, Any]], phase: str, patience: int | None) -> bool:
    """Return True if the last `patience` epochs of a phase were no better on dev than the best before them."""
    scores = [line["dev_accuracy"] for line in lines if line["phase"] == phase]
    return patience is not None and len(scores) > patience and max(scores[:-patience]) >= max(scores[-patience:])


def phases(network: FusionNetwork | LateFusion, epochs: int) -> list[tuple[str, list[nn.Parameter], int]]:
    """Name, trained weights and epochs of each phase; without unimodal networks to protect there is only the last."""
    whole = [("all", list(network.parameters()), epochs)]
    if isinstance(network, FusionNetwork) and network.backbones():
        return [("central", network.central_parameters(), 1), *whole]
    return whole
