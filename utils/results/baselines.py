"""What a fusion network is measured against: each unimodal network alone, and both late fusions of their logits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.fusion import FusionNetwork
from utils.results.statistics import paired_bootstrap
from utils.seeds import derive_seed
from utils.training.batches import Split
from utils.training.loop import eval_mode
from utils.training.metrics import accuracy, correct

CONFIDENCE, RESAMPLES = 0.95, 10_000


def baseline_scores(names: Sequence[str], logits: Sequence[Tensor], multi_label: bool = False) -> dict[str, Tensor]:
    """Scores (N, C) of each baseline, from the logits (N, C) of each modality in the order of a configuration row."""
    alone = {f"{name} only": one for name, one in zip(names, logits, strict=True)}
    if multi_label:  # scores above 0 are predicted
        return {**alone, "late fusion, mean of sigmoid": sum(x.sigmoid() - 0.5 for x in logits)}
    return {
        **dict(reversed(alone.items())),
        "late fusion, mean of softmax": sum(x.softmax(-1) for x in logits),
        "late fusion, sum of log-softmax": sum(x.log_softmax(-1) for x in logits),
    }


@torch.no_grad()
def unimodal_logits(network: FusionNetwork, split: Split) -> list[Tensor]:
    """The logits (N, C) of each unimodal network, first modality first, in eval mode; empty where there are none."""
    with eval_mode(network):
        parts = [network.unimodal(*inputs)[1] for inputs, _ in split.batches(split.evaluation_batch)]
    return [torch.cat(modality) for modality in zip(*parts, strict=True)]


def search_baselines(
    modalities: Sequence[str], logits: Sequence[Tensor], labels: Tensor, best: Path, seed: int
) -> list[dict[str, object]]:
    """Dev accuracy of the baselines, each with how much better the best candidate is: see `difference`.

    Args:
        logits: of each unimodal network on dev, in the order of a row; none gives no baselines.
        best: the file that tells which dev samples that candidate has right.
    """
    scores = baseline_scores(modalities, logits, labels.ndim == 2) if logits else {}
    return [
        {
            "name": name,
            "dev": float(accuracy(one, labels)),
            "difference": difference(best, correct(one, labels), labels, seed),
        }
        for name, one in scores.items()
    ]


def difference(best: Path, other: Tensor, labels: Tensor, seed: int) -> Mapping[str, float] | None:
    """By how much the best candidate is better than another on dev, with a paired bootstrap's confidence interval.

    None where there is none such: weighted F1 of several labels a sample is no mean over samples.

    Args:
        best: the file that tells which dev samples that candidate has right; an older version's search has none.
        other: which of them the other has right, (N,).
    """
    if labels.ndim == 2 or not best.exists():
        return None
    draw = derive_seed(seed, "bootstrap")
    found = paired_bootstrap(np.load(best), other.cpu().numpy(), draw, RESAMPLES, CONFIDENCE)
    return {**found._asdict(), "confidence": CONFIDENCE, "resamples": RESAMPLES}
