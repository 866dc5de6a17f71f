"""Logistic regression on what frozen unimodal networks compute, as a baseline of fusion networks."""

import time
import warnings
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from models.fusion import FusionNetwork
from utils.training.batches import Split
from utils.training.evaluation import unimodal_outputs

MOST_ITERATIONS = 500
MOST_PRODUCTS = 1e10  # of one iteration: samples x columns x classes


def regressions(
    network: FusionNetwork, splits: Mapping[str, Split], balanced: bool
) -> Iterator[tuple[str, int, dict[str, Tensor], float]]:
    """Fit on train; yield name, number of weights, scores (N, C) by split (above 0 if predicted), and seconds.

    One regression is on the log-probabilities of all networks if they are known, one on their last features, joined. A
    regression that would take far longer than the rest is left out.
    """
    labels, classes = splits["train"].labels.cpu(), network.settings.num_outputs
    outputs = {name: unimodal_outputs(network, split) for name, split in splits.items()}
    inputs = {"last features": {name: torch.cat(last, dim=1) for name, (last, _) in outputs.items()}}
    if network.feature_layout.has_logits:
        known = F.logsigmoid if network.settings.multi_label else lambda x: F.log_softmax(x, -1)
        joined = {name: torch.cat([known(x) for x in logits], dim=1) for name, (_, logits) in outputs.items()}
        inputs = {"log-probabilities": joined, **inputs}
    for what, table in inputs.items():
        if len(labels) * table["train"].shape[1] * classes > MOST_PRODUCTS:
            continue
        weights = (table["train"].shape[1] + 1) * classes
        started = time.perf_counter()
        scores = _fit_and_predict(table, labels, classes, balanced, network.settings.threshold)
        yield f"logistic regression, {what}", weights, scores, time.perf_counter() - started


def _fit_and_predict(
    table: Mapping[str, Tensor], labels: Tensor, classes: int, balanced: bool, threshold: float
) -> dict[str, Tensor]:
    # Imported when used: scikit-learn takes a second
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(max_iter=MOST_ITERATIONS, class_weight="balanced" if balanced else None)
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(regression) if labels.ndim == 2 else regression)
    scores = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged within the iterations, or a class that all samples have
        model.fit(table["train"].cpu().double().numpy(), labels.numpy())
        for name in table.keys() - {"train"}:
            inputs = table[name].cpu().double().numpy()
            if labels.ndim == 2:  # of a single class, there are two columns: without and with it
                scores[name] = torch.from_numpy(model.predict_proba(inputs))[:, -classes:].float() - threshold
            else:
                hot = F.one_hot(torch.from_numpy(model.predict(inputs)).long(), classes)
                scores[name] = hot.float() * 2 - 1
    return scores
