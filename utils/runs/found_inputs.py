"""Choose the configuration of a found network, and load the weights that it starts from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.fusion import ACTIVATIONS, FusionNetwork
from utils.errors import UsageError
from utils.reading import at_least_0, read_json
from utils.search.space import Configuration, Space, parse_configuration, read_search
from utils.training.checkpoints import load_backbones, load_into


def choose_configuration(
    conf: str, space: Space, modalities: Sequence[str], published: Sequence[Configuration]
) -> tuple[Configuration, dict[str, Any]]:
    """Return the configuration that `--conf` names, and the best.json that it comes from (empty if it is none).

    Raises:
        UsageError: there is no such configuration, or it has an index that does not exist.
    """
    configuration = parse_configuration(conf, published)
    searched = read_search(conf)
    if searched.get("modalities") not in (None, list(modalities)):
        raise UsageError(
            f"{conf} is from a search over {searched['modalities']}, but this script fuses {list(modalities)}"
        )
    if searched.get("sizes") not in (None, list(space.sizes)):
        raise UsageError(
            f"{conf} is from a search over {searched['sizes']} features of {list(modalities)}, "
            f"but the data have {list(space.sizes)}"
        )
    space.check(configuration, len(ACTIVATIONS))
    return configuration, searched


def tested_checkpoint(test_cp: str, checkpointdir: Path) -> Path | None:
    """Path of the checkpoint that `--test_cp` names; None if a network is to be trained."""
    if not test_cp:
        return None
    return Path(test_cp) if Path(test_cp).is_file() else checkpointdir / test_cp


def load_weights(network: FusionNetwork, tested: Path | None, checkpoints: Sequence[Path]) -> list[str]:
    """Load the checkpoint to be tested, or those of the unimodal networks, first modality first.

    Returns:
        SHA-256 of the files that were read.

    Raises:
        UsageError: a checkpoint does not fit, or the results beside it are of another configuration.
    """
    if tested is None:
        return load_backbones(network, checkpoints)
    _check_results(tested.with_suffix(".json"), tested, network)
    return [load_into(network, tested)]


def _check_results(path: Path, tested: Path, network: FusionNetwork) -> None:
    """Compare the settings that the weights alone do not identify with those in the results beside a checkpoint."""
    results = read_json(path, {"configuration?": list, "head?": dict}, missing={})
    own = [list(row) for row in network.configuration]
    trained = results.get("configuration", own)
    if trained != own:
        raise UsageError(f"{tested} was trained with --conf {json.dumps(trained)}, not {json.dumps(own)}")
    head = results.get("head", {})
    for flag in ("alphas", "multitask", "standardize"):
        wanted, had = getattr(network.settings, flag), head.get(flag, False)
        if head and had != wanted:
            raise UsageError(
                f"{tested} was trained with {flag}={had}, but this command has {flag}={wanted}; "
                f"{'give --' if had else 'leave out --' if flag == 'alphas' else 'give --no-'}{flag}"
            )


def recorded_seconds(checkpoints: Sequence[Path]) -> list[float | None]:
    """Training seconds of each unimodal network, from the results beside its checkpoint; None if not known.

    Raises:
        UsageError: a file of results is damaged.
    """
    form, records = {"seconds?": (None, at_least_0)}, [path.with_suffix(".json") for path in checkpoints]
    return [read_json(record, form, missing={}).get("seconds") for record in records]


def top_configurations(searched: Mapping[str, Any], count: int, ensemble: bool) -> list[Configuration]:
    """Return the configurations after the best that `--retrain_top` trains, from the best.json of a search.

    Raises:
        UsageError: the file holds fewer, or `--ensemble` would average a single network.
    """
    if ensemble and count == 1:
        raise UsageError("--ensemble averages the networks of --retrain_top, which must be 2 or more, but got 1")
    listed = [entry["configuration"] for entry in searched.get("configurations", ())]
    if count > max(1, len(listed)):
        what = f"lists {len(listed)}" if listed else "is not one"
        raise UsageError(f"--retrain_top {count} needs a search's best.json with as many configurations; --conf {what}")
    return listed[1:count]
