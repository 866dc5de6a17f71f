"""Training of a found configuration to the end, and the table that sets it beside its baselines."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.fusion import FusionNetwork
from utils.batches import ArraySplit
from utils.checkpoints import save_state
from utils.cli import read_json
from utils.configurations import Configuration, format_configuration
from utils.files import write_json
from utils.report import write_report
from utils.training import TrainingSettings, accuracy, predict, train_and_evaluate


@dataclasses.dataclass
class Row:
    """One line of the results table; seconds are those of all training that it took, unimodal networks included."""

    name: str
    dev: float | None
    test: float
    seconds: float | None = None
    configuration: Configuration | None = None
    candidates_trained: int | None = None


def train_found(
    network: FusionNetwork,
    model: nn.Module,
    splits: Mapping[str, ArraySplit],
    settings: TrainingSettings,
    amp: bool,
    verbose: bool,
    path: Path,
) -> list[dict[str, object]]:
    """One epoch of central weights, then `settings.epochs` of all weights (published); returns a line for every epoch.

    The best dev epoch is saved at `path` whenever there is a better one, and is what `network` holds in the end.

    Args:
        model: `network` itself or its DataParallel wrapper.
    """
    phases = [("central", network.central_parameters(), 1), ("all", list(network.parameters()), settings.epochs)]
    lines: list[dict[str, object]] = []
    best, best_state = -1.0, {}
    with tqdm(total=1 + settings.epochs, desc="epochs", disable=not verbose) as progress:
        for phase, parameters, count in phases:  # each with an optimizer and a cosine cycle of its own
            network.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            epochs = train_and_evaluate(
                model, splits, settings, parameters, network.train, ("found", phase), count, amp
            )
            for result in epochs:
                line = {
                    "epoch": len(lines),
                    "phase": phase,
                    "train_loss": float(result.loss),
                    "train_accuracy": float(result.accuracy),
                    "dev_accuracy": float(result.dev_accuracy),
                    "learning_rate": result.rate,
                }
                lines.append(line)
                if line["dev_accuracy"] > best:
                    best, best_state = line["dev_accuracy"], copy.deepcopy(network.state_dict())
                    save_state(path, best_state)
                progress.update()
                progress.set_postfix_str(f"{phase}, dev accuracy {line['dev_accuracy']:.4f}, best {best:.4f}")
    network.load_state_dict(best_state)
    return lines


def baselines(
    network: FusionNetwork,
    splits: Mapping[str, ArraySplit],
    names: Sequence[str],
    inputs: Sequence[int],
    checkpoints: Sequence[Path],
) -> list[Row]:
    """Each unimodal network alone, and both late fusions: mean of softmax and sum of log-softmax.

    Args:
        names: of the modalities, in the order of a configuration row.
        inputs: for each modality, the place of its input in a split.
        checkpoints: of the unimodal networks; the records beside them tell how long each trained.
    """
    scores: dict[str, list[Tensor]] = {}
    for split in ("dev", "test"):
        parts = [splits[split].select(place) for place in inputs]
        scores[split] = [predict(net, part) for net, part in zip(network.backbones(), parts, strict=True)]

    def row(name: str, combine: Callable[[list[Tensor]], Tensor], seconds: float | None) -> Row:
        return Row(name, *(float(accuracy(combine(scores[s]), splits[s].labels)) for s in ("dev", "test")), seconds)

    records = [path.with_suffix(".json") for path in checkpoints]
    took = [read_json(path).get("seconds") if path.exists() else None for path in records]
    both = None if None in took else sum(took)
    alone = [row(f"{name} only", lambda logits, m=m: logits[m], took[m]) for m, name in enumerate(names)]
    return [
        *reversed(alone),
        row("late fusion, mean of softmax", lambda logits: sum(x.softmax(-1) for x in logits), both),
        row("late fusion, sum of log-softmax", lambda logits: sum(x.log_softmax(-1) for x in logits), both),
    ]


def test_found(model: nn.Module, splits: Mapping[str, ArraySplit]) -> tuple[Row, list[list[int]]]:
    """Dev and test accuracy of the finished network, and its confusion matrix on test."""
    predicted = {s: predict(model, splits[s]) for s in ("dev", "test")}
    row = Row("found network", *(float(accuracy(predicted[s], splits[s].labels)) for s in ("dev", "test")))
    return row, confusion(predicted["test"], splits["test"].labels)


def write_results(
    run_dir: Path,
    results: Mapping[str, object],
    rows: Sequence[Row],
    epochs: Sequence[Mapping[str, object]],
    counts: list[list[int]],
) -> Path:
    """Print the table, write results.json and the report, and return the report's path."""
    best_epoch = max(epochs, key=lambda e: e["dev_accuracy"])["epoch"] if epochs else None
    content = {
        **results,
        "rows": [dataclasses.asdict(row) for row in rows],
        "epochs": epochs,
        "best_epoch": best_epoch,
        "confusion": counts,
    }
    write_json(run_dir / "results.json", content)
    print(format_table(rows))
    return write_report(run_dir)


def checkpoint_name(configuration: Configuration, test_accuracy: float) -> str:
    """`best_<rows>_<accuracy>.checkpoint`, as the published files are named."""
    numbers = "_".join(str(i) for row in configuration for i in row)
    return f"best_{numbers}_{test_accuracy:.4f}.checkpoint"


def confusion(predicted: Tensor, labels: Tensor) -> list[list[int]]:
    """How often each class (row) was taken for each other (column), from scores (N, C)."""
    classes = predicted.shape[-1]
    counts = torch.bincount(labels.cpu() * classes + predicted.argmax(-1).cpu(), minlength=classes**2)
    return counts.view(classes, classes).tolist()


def format_table(rows: Sequence[Row]) -> str:
    """The results as aligned text."""
    header = ["", "dev", "test", "configuration", "candidates", "seconds"]
    cells = [
        [
            row.name,
            "" if row.dev is None else f"{row.dev:.4f}",
            f"{row.test:.4f}",
            format_configuration(row.configuration) if row.configuration else "",
            "" if row.candidates_trained is None else str(row.candidates_trained),
            "" if row.seconds is None else f"{row.seconds:.0f}",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i in (0, 3) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)
