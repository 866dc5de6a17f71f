"""The splits that an NTU script's command line asks for; with --skip_bad_samples, without their damaged samples."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence

from tqdm import tqdm

from datasets.ntu.folder import discover
from datasets.ntu.samples import NTUSettings, NTUSplit
from datasets.ntu.workers import parallel
from utils.errors import DataError

SHOWN = 20  # damaged samples that are printed


def read_splits(
    args: argparse.Namespace,
    names: Iterable[str] | Mapping[str, str],
    modalities: Sequence[str],
    limits: Mapping[str, int | None],
) -> tuple[dict[str, NTUSplit], dict[str, object]]:
    """Splits by name, and what the results should say of them: with --skip_bad_samples the "skipped_samples".

    Args:
        args: with the flags of `utils.cli.add_ntu_data`, and `verbose`.
        names: see `NTUFolder.splits`.
        modalities: those that the script reads; the other half of a sample may be damaged.
        limits: see `NTUFolder.splits`; with --skip_bad_samples, fewer may remain.

    Raises:
        DataError: there are no samples, or none that can be read.
    """
    settings = NTUSettings(args.vid_dim, args.vid_fr, tuple(args.vid_len), args.frame_sampling, not args.no_norm)
    folder = discover(args.datadir, settings, args.skip_bad_samples)
    splits = folder.splits(names, args.num_outputs, limits, args.no_bad_skel)
    if args.verbose:
        print(f"{args.datadir}: {folder.report(args.no_bad_skel)}")
    if not args.skip_bad_samples:
        return splits, {}
    damaged = damaged_samples(splits, modalities, args.num_workers, args.verbose)
    if damaged:
        rest = len(damaged) - SHOWN
        lines = [*list(damaged.values())[:SHOWN], *([f"and {rest:,} more"] if rest > 0 else [])]
        total = sum(map(len, splits.values()))
        print(f"skipped {len(damaged):,} damaged of {total:,} samples:", *lines, sep="\n  ", file=sys.stderr)
    elif args.verbose:
        print("none of the samples in use is damaged")
    for name, split in splits.items():
        splits[name] = split.without(damaged)
        if not len(splits[name]):
            raise DataError(f"{args.datadir}: the {name} split is empty: all its {len(split):,} samples are damaged")
    return splits, {"skipped_samples": damaged}


def damaged_samples(
    splits: Mapping[str, NTUSplit], modalities: Sequence[str], num_workers: int, verbose: bool = False
) -> dict[str, str]:
    """Why each sample that cannot be read cannot be, by name; `num_workers` processes read them all (0: this one)."""

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
    bar = tqdm(reasons, desc="checking samples", total=len(places), unit="sample", disable=not verbose)
    return {splits[name].names[index]: why for (name, index), why in zip(places, bar, strict=True) if why}
