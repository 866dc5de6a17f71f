"""Results of a found network and its baselines: the scores, the printed table, and results.json."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from models.fusion import FusionNetwork
from utils.results.baselines import baseline_scores
from utils.results.statistics import mcnemar
from utils.search.space import Configuration, format_configuration
from utils.training.batches import Split
from utils.training.loop import predict, unimodal_logits
from utils.training.metrics import accuracy, correct


@dataclasses.dataclass
class Row:
    """One line of the results table; seconds include all training that it needs, also of the unimodal networks."""

    name: str
    dev: float | None = None
    test: float = 0.0
    seconds: float | None = None
    configuration: Configuration | None = None
    candidates_trained: int | None = None


def baselines(
    network: FusionNetwork, splits: Mapping[str, Split], names: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """Scores (N, C) of each baseline, by split and name; empty if the unimodal networks' logits are unknown."""
    multi_label = network.settings.multi_label
    logits = {split: unimodal_logits(network, splits[split]) for split in ("dev", "test")}
    return {split: baseline_scores(names, parts, multi_label) for split, parts in logits.items() if parts}


def baseline_rows(
    against: Mapping[str, Mapping[str, Tensor]],
    splits: Mapping[str, Split],
    names: Sequence[str],
    took: Sequence[float | None],
) -> list[Row]:
    """One line per baseline.

    Args:
        took: training seconds of each unimodal network (None: unknown); late fusion needs all of them.
    """
    alone = dict(zip((f"{name} only" for name in names), took, strict=False))
    known = [seconds for seconds in took if seconds is not None]
    both = sum(known) if known and len(known) == len(took) else None

    def reached(split: str, name: str) -> float:
        return float(accuracy(against[split][name], splits[split].labels))

    rows = against.get("test", {})
    return [Row(name, reached("dev", name), reached("test", name), alone.get(name, both)) for name in rows]


def test_found(
    row: Row, model: nn.Module, splits: Mapping[str, Split], against: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, object]:
    """Fill in the row's accuracy on test, and on dev if that split is given; return the other results on test.

    These are F1 and, for single labels, the confusion matrix and McNemar's test against the baseline with the best
    dev accuracy.
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
        right = {"only_found_right": only_found, "only_baseline_right": only_baseline}
        figures["mcnemar"] = {"against": best, **right, "p": p}
    return figures


def checkpoint_name(configuration: Configuration, test_accuracy: float) -> str:
    """`best_<rows>_<accuracy>.checkpoint`, as the published files are named."""
    numbers = "_".join(str(i) for row in configuration for i in row)
    return f"best_{numbers}_{test_accuracy:.4f}.checkpoint"


def confusion(predicted: Tensor, labels: Tensor) -> list[list[int]]:
    """Number of samples by true class (row) and predicted class (column), from scores (N, C)."""
    from sklearn.metrics import confusion_matrix

    classes = np.arange(predicted.shape[-1])
    return confusion_matrix(labels.cpu().numpy(), predicted.argmax(-1).cpu().numpy(), labels=classes).tolist()


def f1_scores(predicted: Tensor, labels: Tensor) -> dict[str, float]:
    """Macro and weighted F1 from scores (N, C); a class that neither occurs nor is predicted counts as 0."""
    from sklearn.metrics import f1_score

    multi_label, classes = labels.ndim == 2, predicted.shape[-1]
    chosen, right = (predicted > 0, labels > 0) if multi_label else (predicted.argmax(-1), labels)
    counted = [1] if multi_label and classes == 1 else range(classes)  # scikit-learn sees one column as two classes

    def f1(average: str) -> float:
        truth, guess = right.cpu().numpy(), chosen.cpu().numpy()
        return float(f1_score(truth, guess, labels=counted, average=average, zero_division=0))

    return {"macro": f1("macro"), "weighted": f1("weighted")}


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
