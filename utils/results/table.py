"""Results of a found network and its baselines: the scores, the printed table, and results.json."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.fusion import FusionNetwork
from utils.reading import sha256
from utils.results.statistics import best_baseline, format_lead, format_p, paired, verdict
from utils.search.space import Configuration, format_configuration
from utils.seeds import derive_seed
from utils.training.batches import Split
from utils.training.devices import require_memory
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
    baseline: bool = True  # False for the found network and others of the search
    parameters: int | None = None  # of all networks that it needs
    lead: dict[str, float] | None = None  # of the found network over this row on test; see `statistics.paired`
    correct: np.ndarray | None = None  # of each test sample, see `metrics.correct`; in test_correct.npy

    def judge(self, scores: Mapping[str, Tensor], splits: Mapping[str, Split]) -> "Row":
        """Fill in the results from scores (N, C) on test and, if known, on dev."""
        labels = splits["test"].labels
        self.test = float(accuracy(scores["test"], labels))
        self.correct = correct(scores["test"], labels).cpu().numpy()
        if "dev" in scores:
            self.dev = float(accuracy(scores["dev"], splits["dev"].labels))
        return self

    def record(self) -> dict[str, object]:
        """The row in results.json."""
        return {name: value for name, value in vars(self).items() if name != "correct"}


def compare(found: Row, others: Sequence[Row], seed: int) -> dict[str, object]:
    """Fill in the leads of the found network; return the verdict and McNemar's test against the baseline best on dev.

    Multi-label data has no leads: weighted F1 is not a mean over samples.
    """
    for row in others:
        if found.correct is not None and row.correct is not None and found.correct.dtype == bool:
            row.lead = paired(found.correct, row.correct, derive_seed(seed, "bootstrap"))
    best = best_baseline(map(vars, others))
    if best is None:
        return {}
    name, lead = best["name"], best["lead"]
    said: dict[str, object] = {"verdict": verdict(name, best["test"], found.test, lead)}
    if lead is None:
        return said
    test = {key: lead[key] for key in ("only_found_right", "only_baseline_right", "p")}
    return said | {"mcnemar": {"against": name, **test}}


def check_memory(network: FusionNetwork, splits: Mapping[str, Split], device: torch.device) -> None:
    """Raise UsageError if the scores of a test do not fit into memory, which would only show after the training."""
    classes, modalities = network.settings.num_outputs, len(network.feature_layout.widths)
    count = {name: len(split) for name, split in splits.items()}
    scores = 3 * count["test"]  # (N, C) in batches, as a whole, and compared
    if network.feature_layout.has_logits:
        scores += (2 * modalities + 2) * (count.get("dev", 0) + count["test"])  # logits and baselines
    what = f"the scores of {sum(count.values()):,} samples for {classes:,} classes"
    require_memory(4 * classes * scores, device, what, "use fewer classes, or --limit_dev and --limit_test")


def checkpoint_name(configuration: Configuration, test_accuracy: float) -> str:
    """`best_<rows>_<accuracy>.checkpoint`, as the published files are named; the end of many rows becomes a hash."""
    numbers = "_".join(str(i) for row in configuration for i in row)
    if len(numbers) > LONGEST_NAME:  # file systems allow 255 bytes, of which a temporary file needs some
        numbers = f"{numbers[:LONGEST_NAME]}_{sha256(numbers.encode())[:16]}"
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
    """Macro and weighted F1 from scores (N, C); a class that neither occurs nor is predicted counts as 0.

    Multi-label data also has the mean F1 of a sample ("samples").
    """
    from sklearn.metrics import f1_score

    multi_label, classes = labels.ndim == 2, predicted.shape[-1]
    pair = (labels > 0, predicted > 0) if multi_label else (labels, predicted.argmax(-1))
    truth, guess = (x.cpu().numpy() for x in pair)
    counted = [1] if multi_label and classes == 1 else range(classes)  # scikit-learn sees one column as two classes
    averages = ("macro", "weighted")
    found = {name: float(f1_score(truth, guess, labels=counted, average=name, zero_division=0)) for name in averages}
    if multi_label:
        by_sample = 2 * (truth & guess).sum(1) / np.maximum(truth.sum(1) + guess.sum(1), 1)
        found["samples"] = float(by_sample.mean())
    return found


def format_table(rows: Sequence[Row], score: str = "accuracy") -> str:
    """The results as aligned text; `score` names that on dev and test."""
    header = [
        score,
        "dev",
        "test",
        "found leads by (95 %)",
        "p",
        "parameters",
        "configuration",
        "candidates",
        "seconds",
    ]
    cells = [header, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = {0, header.index("configuration")}
    lines = (
        [cell.ljust(w) if i in left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        for line in cells
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _cells(row: Row) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    lead, p = ("", "") if row.lead is None else (format_lead(row.lead), format_p(row.lead["p"]))
    layers = format_configuration(row.configuration) if row.configuration else ""
    cost = [number(row.candidates_trained, ""), number(row.seconds, ".0f")]
    return [row.name, number(row.dev, ".4f"), f"{row.test:.4f}", lead, p, number(row.parameters, ","), layers, *cost]
