"""Predict the classes of new samples with a network found on features of your own networks.

    python -m utils.predict checkpoints/features/best_....checkpoint new.npz --out predictions.csv

new.npz holds the feature arrays NAME.INDEX of the training data (docs/own_data.md); labels are not needed. The same in
Python, for features (N, D) side by side in the order of train.npz:

    network, results = load_network(Path("checkpoints/features/best_....checkpoint"))
    probabilities = network(torch.from_numpy(features)).softmax(1)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.fusion import FeatureLayout, FeatureNetwork, HeadSettings
from utils import cli
from utils.arrays import read_arrays
from utils.errors import DataError, UsageError
from utils.reading import conform, read_json
from utils.results.predictions import write_predictions
from utils.search.space import as_configuration
from utils.training.checkpoints import load_into
from utils.training.metrics import scores

FORM = {  # of the results beside a checkpoint
    **{"configuration": as_configuration, "head": dict, "modalities": [str], "widths": [[int]]},
    "class_names?": (None, [str]),
}
HEAD = {name: type(value) for name, value in vars(HeadSettings(2)).items() if name != "threshold"}
HEAD["threshold?"] = float  # since multi-label data has one
ROWS_AT_ONCE = 4096


def load_network(checkpoint: Path) -> tuple[FeatureNetwork, dict[str, Any]]:
    """Load a network that main_found_features.py trained, in eval mode, and the results beside its checkpoint.

    It takes features (N, D) as they were before standardization, one modality after another, without logits.

    Raises:
        UsageError: a file is missing or damaged, or the network was trained on raw data.
    """
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
        DataError: an array is missing, or its shape differs from what the network was trained on.
    """
    try:
        arrays, _ = read_arrays(path, DataError)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    return np.concatenate(list(_columns(path, arrays, modalities, widths)), axis=1, dtype=np.float32)


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


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="written by main_found_features.py")
    parser.add_argument("features", type=Path, help="new.npz")
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"), help="file to write")
    args = parser.parse_args()
    network, results = load_network(args.checkpoint)
    rows = torch.from_numpy(read_rows(args.features, results["modalities"], results["widths"]))
    with torch.no_grad():
        threshold = network.settings.threshold
        predicted = torch.cat([scores(network(part), threshold) for part in rows.split(ROWS_AT_ONCE)])
    write_predictions(
        args.out,
        {args.features.stem: (predicted, None)},
        network.settings,
        results.get("class_names") or (),
    )
    print(f"{len(rows)} samples: {args.out}")


if __name__ == "__main__":
    cli.run(main)
