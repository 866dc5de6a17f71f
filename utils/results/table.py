"""What a found network reaches, beside its baselines: the figures, the table, and results.json."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork
from utils.files import write_json
from utils.report import write_report
from utils.report.found import significance
from utils.results.baselines import baseline_scores, unimodal_logits
from utils.results.statistics import mcnemar
from utils.search.space import Configuration, format_configuration
from utils.training.batches import Split
from utils.training.loop import predict
from utils.training.metrics import accuracy, correct, f1_scores


@dataclasses.dataclass
class Row:
    """One line of the results table; seconds are those of all training that it took, unimodal networks included."""

    name: str
    dev: float | None = None
    test: float = 0.0
    seconds: float | None = None
    configuration: Configuration | None = None
    candidates_trained: int | None = None


def baselines(
    network: FusionNetwork, splits: Mapping[str, Split], names: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """Scores (N, C) of each baseline, by split and name; none where the unimodal networks' logits are not known."""
    multi_label = network.settings.multi_label
    logits = {split: unimodal_logits(network, splits[split]) for split in ("dev", "test")}
    return {split: baseline_scores(names, parts, multi_label) for split, parts in logits.items() if parts}


def baseline_rows(
    against: Mapping[str, Mapping[str, Tensor]],
    splits: Mapping[str, Split],
    names: Sequence[str],
    took: Sequence[float | None],
) -> list[Row]:
    """A line for each baseline; late fusion takes the seconds of all unimodal networks, `took` of each."""
    alone = dict(zip((f"{name} only" for name in names), took, strict=False))
    both = None if None in took or not took else sum(took)

    def reached(split: str, name: str) -> float:
        return float(accuracy(against[split][name], splits[split].labels))

    rows = against.get("test", {})
    return [Row(name, reached("dev", name), reached("test", name), alone.get(name, both)) for name in rows]


def test_found(
    row: Row, model: nn.Module, splits: Mapping[str, Split], against: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, object]:
    """Fill in the accuracy on test, and on dev where that is among the splits; returns what else test tells.

    That is F1, for single labels the confusion matrix, and McNemar's test against the baseline that is best on dev.
    """
    predicted = {s: predict(model, splits[s]) for s in ("dev", "test") if s in splits}
    labels = splits["test"].labels
    row.test = float(accuracy(predicted["test"], labels))
    row.dev = float(accuracy(predicted["dev"], splits["dev"].labels)) if "dev" in predicted else None
    figures: dict[str, object] = {"f1": f1_scores(predicted["test"], labels)}
    if labels.ndim == 2:
        return figures | {"score": "weighted F1", "multi_label": True}
    figures["confusion"] = confusion(predicted["test"], labels)
    if against:
        best = max(against["dev"], key=lambda name: float(accuracy(against["dev"][name], splits["dev"].labels)))
        pair = [correct(scores, labels).cpu().numpy() for scores in (predicted["test"], against["test"][best])]
        only_found, only_baseline, p = mcnemar(*pair)
        figures["mcnemar"] = {
            "against": best,
            "only_found_right": only_found,
            "only_baseline_right": only_baseline,
            "p": p,
        }
    return figures


def record_results(
    run_dir: Path, results: Mapping[str, object], rows: Sequence[Row], epochs: Sequence[Mapping[str, object]]
) -> None:
    """Write results.json; without rows it is of a training that goes on."""
    best_epoch = max(epochs, key=lambda e: e["dev_accuracy"])["epoch"] if epochs else None
    told = {"rows": [dataclasses.asdict(row) for row in rows], "epochs": epochs, "best_epoch": best_epoch}
    write_json(run_dir / "results.json", {**results, **told})


def write_results(
    run_dir: Path, results: Mapping[str, object], rows: Sequence[Row], epochs: Sequence[Mapping[str, object]]
) -> Path:
    """Print the table, write results.json and the report, and return the report's path."""
    record_results(run_dir, results, rows, epochs)
    print(format_table(rows))
    if "mcnemar" in results:
        print(significance(results["mcnemar"]))
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
