"""Baselines of a fusion network: each unimodal network alone, and late fusion of their logits."""

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.arrays import read_array
from utils.errors import UsageError
from utils.results.statistics import CONFIDENCE, RESAMPLES, paired_bootstrap
from utils.seeds import derive_seed
from utils.training.metrics import accuracy, correct, cutoff, scores


def baseline_scores(
    names: Sequence[str], logits: Sequence[Tensor], multi_label: bool = False, threshold: float = 0.5
) -> dict[str, Tensor]:
    """Scores (N, C) of each baseline, from the logits (N, C) of each modality in the order of a configuration row.

    Args:
        threshold: probability above which a class is predicted, if multi-label; its score is then above 0.
    """
    alone = {f"{name} only": scores(one, threshold) for name, one in zip(names, logits, strict=True)}
    if multi_label:
        return {**alone, "late fusion, mean of sigmoid": reduce(add, [x.sigmoid() - threshold for x in logits])}
    return {
        **alone,
        "late fusion, mean of softmax": reduce(add, [x.softmax(-1) for x in logits]),
        "late fusion, sum of log-softmax": reduce(add, [x.log_softmax(-1) for x in logits]),
    }


def ensemble_scores(
    members: Sequence[Mapping[str, Tensor]], multi_label: bool, threshold: float = 0.5
) -> dict[str, Tensor]:
    """Mean probability (N, C) by split, from the scores of each member; if multi-label, minus the threshold."""
    cut = cutoff(threshold)
    probability = (lambda x: (x + cut).sigmoid() - threshold) if multi_label else (lambda x: x.softmax(-1))
    return {name: torch.stack([probability(member[name]) for member in members]).mean(0) for name in members[0]}


def search_baselines(
    modalities: Sequence[str], logits: Sequence[Tensor], labels: Tensor, best: Path, seed: int, threshold: float = 0.5
) -> list[dict[str, object]]:
    """Dev accuracy of each baseline and by how much the best candidate exceeds it (see `difference`).

    Args:
        logits: of each unimodal network on dev, in the order of a row; without logits there are no baselines.
        threshold: see `baseline_scores`.
    """
    found = baseline_scores(modalities, logits, labels.ndim == 2, threshold) if logits else {}
    leads = {name: difference(best, correct(one, labels), labels, seed) for name, one in found.items()}
    return [{"name": n, "dev": float(accuracy(found[n], labels)), "difference": lead} for n, lead in leads.items()]


def advice(best: float, baselines: Sequence[Mapping[str, Any]]) -> str | None:
    """Say what to try if the best candidate is below a baseline on dev; None if it is not."""
    highest = max((row for row in baselines if math.isfinite(row["dev"])), key=lambda row: row["dev"], default=None)
    if highest is None or best >= highest["dev"]:
        return None
    return (
        f"The best candidate ({100 * best:.1f} %) is below {highest['name']} ({100 * highest['dev']:.1f} %) on dev: "
        "try more epochs (--epochs), wider layers (--inner_representation_size), or less dropout (--drpt)."
    )


def difference(best: Path, other: Tensor, labels: Tensor, seed: int) -> Mapping[str, float] | None:
    """Dev accuracy of the best candidate minus that of another, with a paired bootstrap's confidence interval.

    None if `best` does not exist, and for multi-label data: weighted F1 is not a mean over samples.

    Args:
        best: file that records which dev samples the best candidate classifies correctly.
        other: the same for the other one, (N,).
    """
    if labels.ndim == 2 or not best.exists():
        return None
    found = paired_bootstrap(read_correct(best, labels), other.cpu().numpy(), derive_seed(seed, "bootstrap"))
    return {**found._asdict(), "confidence": CONFIDENCE, "resamples": RESAMPLES}


def read_correct(path: Path, labels: Tensor) -> np.ndarray:
    """Read how well a candidate classifies each sample, (N,): true or false, or a number for multi-label data.

    Raises:
        UsageError: the file is damaged, or of other samples.
    """
    found = read_array(path)
    if found.dtype not in (bool, np.float32) or found.shape != (len(labels),) or not np.isfinite(found).all():
        rule = f"must hold a finite number or a truth value for each of {len(labels)} samples"
        raise UsageError(f"{path} {rule}, but holds {found.dtype} {found.shape}")
    return found
