"""Read the splits that an NTU script requests, optionally without the samples whose files are damaged."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets.ntu.folder import Selection, discover
from datasets.ntu.samples import NTUSettings, NTUSplit
from datasets.ntu.workers import parallel
from utils.errors import DataError
from utils.progress import Progress

SHOWN = 20  # most damaged samples to print


def read_splits(
    datadir: Path,
    settings: NTUSettings,
    selection: Selection,
    names: Iterable[str] | Mapping[str, str],
    modalities: Sequence[str],
    num_workers: int,
    verbose: bool,
) -> tuple[dict[str, NTUSplit], dict[str, object]]:
    """Read splits by name (see `NTUFolder.splits`), and return them with facts to record in the results.

    With `selection.skip_damaged` these are {"skipped_samples": {name: reason}}, otherwise none. Only the inputs in
    `modalities` are checked. DataError if a split has no samples, or none that can be read.
    """
    folder = discover(datadir, settings, selection)
    splits = folder.splits(names)
    if verbose:
        print(f"{datadir}: {folder.report()}")
    if not selection.skip_damaged:
        return splits, {}
    damaged = damaged_samples(splits, modalities, num_workers, verbose)
    if damaged:
        lines = list(damaged.values())[:SHOWN]
        if len(damaged) > SHOWN:
            lines.append(f"and {len(damaged) - SHOWN:,} more")
        total = sum(map(len, splits.values()))
        print(f"skipped {len(damaged):,} damaged of {total:,} samples:", *lines, sep="\n  ", file=sys.stderr)
    elif verbose:
        print("none of the samples in use is damaged")
    kept = {name: split.without(damaged) for name, split in splits.items()}
    for name, split in kept.items():
        if not len(split):
            raise DataError(f"{datadir}: the {name} split is empty: all its {len(splits[name]):,} samples are damaged")
    return kept, {"skipped_samples": damaged}


def damaged_samples(
    splits: Mapping[str, NTUSplit], modalities: Sequence[str], num_workers: int, verbose: bool = False
) -> dict[str, str]:
    """Read all samples in `num_workers` processes (0: this one) and return {name: reason} of those that fail."""

    def damage(place: tuple[str, int]) -> str | None:
        name, index = place
        try:
            for modality in modalities:
                splits[name].check(index, modality)
        except DataError as error:
            return str(error)
        except OSError as error:
            return f"{error.filename} cannot be read: {error.strerror}"
        return None

    places = [(name, index) for name, split in splits.items() for index in range(len(split))]
    reasons = parallel(damage, places, min(num_workers, len(places)))
    bar = Progress(reasons, desc="checking samples", total=len(places), unit="sample", verbose=verbose)
    return {splits[name].names[index]: why for (name, index), why in zip(places, bar, strict=True) if why}
