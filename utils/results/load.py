"""Load a network found on features, and the features of new samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.fusion import FeatureLayout, FeatureNetwork, HeadSettings
from utils.arrays import read_arrays
from utils.errors import DataError, UsageError
from utils.reading import conform, read_json
from utils.search.space import as_configuration
from utils.training.checkpoints import load_into

FORM = {  # of the results beside a checkpoint
    **{"configuration": as_configuration, "head": dict, "modalities": [str], "widths": [[int]]},
    "class_names?": (None, [str]),
}
HEAD = {name: type(value) for name, value in vars(HeadSettings(2)).items() if name != "threshold"}
HEAD["threshold?"] = float  # since multi-label data has one


def load_network(checkpoint: Path) -> tuple[FeatureNetwork, dict[str, Any]]:
    """Load a network that main_found_features.py trained, in eval mode, and the results beside its checkpoint.

    It takes features (N, D) as they were before standardization, one modality after another, without logits.

    Raises:
        UsageError: a file is missing or damaged, or the network was trained on raw data.
    """
    if checkpoint.is_dir():
        raise UsageError(
            f"{checkpoint} is a folder; name the checkpoint that main_found_features.py printed at its end"
        )
    path = checkpoint.with_suffix(".json")
    if not path.exists():
        raise UsageError(f"{path} does not exist; main_found_features.py writes it beside the checkpoint")
    results = read_json(path, {})
    try:
        conform(results, FORM)
        conform(results["head"], HEAD)
    except ValueError as error:
        raise UsageError(f"{path} is not of a network that main_found_features.py trained: {error}") from None
    head = HeadSettings(**results["head"])
    layout = FeatureLayout(tuple(map(tuple, results["widths"])), head.num_outputs, has_logits=False)
    network = FeatureNetwork(as_configuration(results["configuration"]), layout, head)
    load_into(network, checkpoint)
    return network.eval(), results


def read_rows(path: Path, modalities: Sequence[str], widths: Sequence[Sequence[int]]) -> np.ndarray:
    """Read features (N, D) float32, side by side.

    Raises:
        DataError: an array is missing or empty, or its shape differs from what the network was trained on.
    """
    try:
        arrays, _ = read_arrays(path, DataError)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    rows = np.concatenate(list(_columns(path, arrays, modalities, widths)), axis=1, dtype=np.float32)
    if not len(rows):
        raise DataError(f"{path} holds no samples")
    return rows


def _columns(path: Path, arrays: Mapping[str, np.ndarray], modalities: Sequence[str], widths: Sequence[Sequence[int]]):
    count = None
    for modality, sizes in zip(modalities, widths, strict=True):
        for i, width in enumerate(sizes):
            name = f"{modality}.{i}"
            if name not in arrays:
                raise DataError(f"{path} has no array {name}, which the network was trained on")
            array = arrays[name]
            count = len(array) if count is None and array.ndim else count
            if array.shape != (count, width) or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
                rule = f"{name} must hold finite numbers of shape ({count}, {width})"
                raise DataError(f"{path}: {rule}, but holds {array.dtype} {array.shape}")
            yield array
