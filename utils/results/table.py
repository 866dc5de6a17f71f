"""Results of a found network and its baselines: the scores, the printed table, and results.json."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork
from utils.results.baselines import baseline_scores
from utils.results.statistics import mcnemar
from utils.search.space import Configuration, format_configuration
from utils.training.batches import Split
from utils.training.devices import require_memory
from utils.training.loop import evaluate, predict, unimodal_logits
from utils.training.metrics import accuracy, correct

LARGEST_MATRIX = 200  # classes
LONGEST_NAME = 100  # characters of a configuration in a file name


@dataclasses.dataclass
class Row:
    """One line of the results table; seconds include all training that it needs, unimodal networks included."""

    name: str
    dev: float | None = None
    test: float = 0.0
    seconds: float | None = None
    configuration: Configuration | None = None
    candidates_trained: int | None = None


def check_memory(network: FusionNetwork, splits: Mapping[str, Split], device: torch.device) -> None:
    """Raise UsageError if the scores of a test do not fit into memory, which would only show after the training."""
    classes, modalities = network.settings.num_outputs, len(network.feature_layout.widths)
    count = {name: len(split) for name, split in splits.items()}
    scores = 3 * count["test"]  # (N, C) in batches, as a whole, and compared
    if network.feature_layout.has_logits:
        scores += (2 * modalities + 2) * (count.get("dev", 0) + count["test"])  # logits and baselines
    what = f"the scores of {sum(count.values()):,} samples for {classes:,} classes"
    require_memory(4 * classes * scores, device, what, "use fewer classes, or --limit_dev and --limit_test")


def baselines(
    network: FusionNetwork, splits: Mapping[str, Split], names: Sequence[str]
) -> dict[str, dict[str, Tensor]]:
    """Scores (N, C) of each baseline, by split and name; empty if the unimodal networks' logits are unknown."""
    logits = {split: unimodal_logits(network, splits[split]) for split in ("dev", "test")}
    multi_label = network.settings.multi_label
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
    alone = {f"{name} only": seconds for name, seconds in zip(names, took, strict=False)}
    known = [seconds for seconds in took if seconds is not None]
    whole = sum(known) if known and len(known) == len(took) else None
    rows = []
    for name in against.get("test", {}):
        dev, test = (float(accuracy(against[split][name], splits[split].labels)) for split in ("dev", "test"))
        rows.append(Row(name, dev, test, alone.get(name, whole)))
    return rows


def test_found(
    row: Row, model: nn.Module, splits: Mapping[str, Split], against: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, object]:
    """Fill in the row's accuracy on test, and on dev if that split is given; return the other results on test.

    These are F1 and, for single labels, the confusion matrix and McNemar's test against the baseline with the best
    dev accuracy.
    """
    predicted, labels = predict(model, splits["test"]), splits["test"].labels
    row.test = float(accuracy(predicted, labels))
    row.dev = float(evaluate(model, splits["dev"])) if "dev" in splits else None
    figures: dict[str, object] = {"f1": f1_scores(predicted, labels)}
    if labels.ndim == 2:
        return figures | {"score": "weighted F1", "multi_label": True}
    figures["confusion"] = confusion(predicted, labels)
    if against:
        best = max(against["dev"], key=lambda name: float(accuracy(against["dev"][name], splits["dev"].labels)))
        own, other = (correct(scores, labels).cpu().numpy() for scores in (predicted, against["test"][best]))
        found, baseline, p = mcnemar(own, other)
        figures["mcnemar"] = {"against": best, "only_found_right": found, "only_baseline_right": baseline, "p": p}
    return figures


def checkpoint_name(configuration: Configuration, test_accuracy: float) -> str:
    """`best_<rows>_<accuracy>.checkpoint`, as the published files are named; the end of many rows becomes a hash."""
    numbers = "_".join(str(i) for row in configuration for i in row)
    if len(numbers) > LONGEST_NAME:  # file systems allow 255 bytes, of which a temporary file needs some
        numbers = f"{numbers[:LONGEST_NAME]}_{hashlib.sha256(numbers.encode()).hexdigest()[:16]}"
    return f"best_{numbers}_{test_accuracy:.4f}.checkpoint"


def confusion(predicted: Tensor, labels: Tensor) -> list[list[int]] | dict[str, object]:
    """Number of samples by true class (row) and predicted class (column), from scores (N, C).

    With more than `LARGEST_MATRIX` classes, only cells that are not 0 are listed, as [true, predicted, count].
    """
    classes = predicted.shape[-1]
    cells = labels * classes + predicted.argmax(-1)
    if classes <= LARGEST_MATRIX:
        return cells.bincount(minlength=classes**2).view(classes, classes).tolist()
    found, counts = cells.unique(return_counts=True)
    return {"classes": classes, "cells": torch.stack((found // classes, found % classes, counts), 1).tolist()}


def f1_scores(predicted: Tensor, labels: Tensor) -> dict[str, float]:
    """Macro and weighted F1 from scores (N, C); a class that neither occurs nor is predicted counts as 0."""
    from sklearn.metrics import f1_score

    multi_label, classes = labels.ndim == 2, predicted.shape[-1]
    pair = (labels > 0, predicted > 0) if multi_label else (labels, predicted.argmax(-1))
    truth, guess = (x.cpu().numpy() for x in pair)
    counted = [1] if multi_label and classes == 1 else range(classes)  # scikit-learn sees one column as two classes
    averages = ("macro", "weighted")
    return {name: float(f1_score(truth, guess, labels=counted, average=name, zero_division=0)) for name in averages}


def format_table(rows: Sequence[Row]) -> str:
    """The results as aligned text."""
    header = ["", "dev", "test", "configuration", "candidates", "seconds"]

    def number(value: float | None, digits: int = 0) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    cells = []
    for row in rows:
        scores, cost = (number(row.dev, 4), number(row.test, 4)), (number(row.candidates_trained), number(row.seconds))
        layers = format_configuration(row.configuration) if row.configuration else ""
        cells.append([row.name, *scores, layers, *cost])
    name, dev, test, configuration, candidates, seconds = (max(map(len, c)) for c in zip(header, *cells, strict=True))
    form = f"{{:{name}}}  {{:>{dev}}}  {{:>{test}}}  {{:{configuration}}}  {{:>{candidates}}}  {{:>{seconds}}}"
    return "\n".join(form.format(*line).rstrip() for line in [header, *cells])
