"""Baselines of a fusion network: each unimodal network alone, and late fusion of their logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from utils.results.statistics import paired_bootstrap
from utils.seeds import derive_seed
from utils.training.metrics import accuracy, correct

CONFIDENCE, RESAMPLES = 0.95, 10_000


def baseline_scores(names: Sequence[str], logits: Sequence[Tensor], multi_label: bool = False) -> dict[str, Tensor]:
    """Scores (N, C) of each baseline, from the logits (N, C) of each modality in the order of a configuration row."""
    alone = {f"{name} only": one for name, one in zip(names, logits, strict=True)}
    if multi_label:  # a class is predicted if its score is above 0
        return {**alone, "late fusion, mean of sigmoid": _total([x.sigmoid() - 0.5 for x in logits])}
    return {
        **dict(reversed(alone.items())),
        "late fusion, mean of softmax": _total([x.softmax(-1) for x in logits]),
        "late fusion, sum of log-softmax": _total([x.log_softmax(-1) for x in logits]),
    }


def _total(parts: Sequence[Tensor]) -> Tensor:
    return sum(parts[1:], parts[0])


def search_baselines(
    modalities: Sequence[str], logits: Sequence[Tensor], labels: Tensor, best: Path, seed: int
) -> list[dict[str, object]]:
    """Dev accuracy of each baseline and by how much the best candidate exceeds it (see `difference`).

    Args:
        logits: of each unimodal network on dev, in the order of a row; without logits there are no baselines.
        best: file that records which dev samples the best candidate classifies correctly.
    """
    scores = baseline_scores(modalities, logits, labels.ndim == 2) if logits else {}
    rows: list[dict[str, object]] = []
    for name, one in scores.items():
        lead = difference(best, correct(one, labels), labels, seed)
        rows.append({"name": name, "dev": float(accuracy(one, labels)), "difference": lead})
    return rows


def difference(best: Path, other: Tensor, labels: Tensor, seed: int) -> Mapping[str, float] | None:
    """Dev accuracy of the best candidate minus that of another, with a paired bootstrap's confidence interval.

    None if `best` does not exist, and for multi-label data: weighted F1 is not a mean over samples.

    Args:
        best: file that records which dev samples the best candidate classifies correctly.
        other: the same for the other one, (N,).
    """
    if labels.ndim == 2 or not best.exists():
        return None
    draw = derive_seed(seed, "bootstrap")
    found = paired_bootstrap(np.load(best), other.cpu().numpy(), draw, RESAMPLES, CONFIDENCE)
    return {**found._asdict(), "confidence": CONFIDENCE, "resamples": RESAMPLES}
