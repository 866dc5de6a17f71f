"""Predictions as a CSV file: one line per sample with its class and the probability of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from models.fusion import HeadSettings
from utils.files import write_csv
from utils.training.metrics import cutoff

MOST_CLASSES = 100  # whose probabilities are written; beyond, only that of the predicted class


def write_predictions(
    path: Path,
    parts: Mapping[str, tuple[Tensor, Tensor | None]],
    settings: HeadSettings,
    names: Sequence[str] = (),
) -> None:
    """Write split, sample (from 0), label if known, predicted class, and probabilities.

    Several labels of a sample are separated by semicolons.

    Args:
        parts: scores (N, C) and labels by split.
        settings: of the network.
        names: of the classes; empty: their numbers.
    """
    multi_label, classes = settings.multi_label, next(iter(parts.values()))[0].shape[1]
    called = list(names) or [str(i) for i in range(classes)]
    whole = classes <= MOST_CLASSES
    columns = [f"p({name})" for name in called] if whole else ["probability"]
    table: list[Sequence[object]] = [["split", "sample", "label", "predicted", *columns]]
    for split, (scores, labels) in parts.items():
        probabilities = (scores + cutoff(settings.threshold)).sigmoid() if multi_label else scores.softmax(1)
        chosen = _called(scores > 0 if multi_label else scores.argmax(1), called)
        truth = [""] * len(scores) if labels is None else _called(labels > 0 if multi_label else labels, called)
        shown = probabilities if whole else probabilities.amax(1, keepdim=True)
        for i, (label, predicted, row) in enumerate(zip(truth, chosen, shown.tolist(), strict=True)):
            table.append([split, i, label, predicted, *(f"{value:.6g}" for value in row)])
    write_csv(path, table)


def _called(chosen: Tensor, names: Sequence[str]) -> list[str]:
    """Name the class (N,), or the classes (N, C) of each sample."""
    if chosen.ndim == 1:
        return [names[i] for i in chosen.tolist()]
    return [";".join(name for name, one in zip(names, row, strict=True) if one) for row in chosen.tolist()]
