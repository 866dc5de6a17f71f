"""NTU RGB+D: which samples there are, and the published splits.

The folder: DATADIR/nturgbd_rgb/avi_256x256_30/S001C001P001R001A001_rgb.avi and so on, and for each of these
DATADIR/nturgbd_skeletons/S001C001P001R001A001.skeleton, or the pack of them that `datasets.ntu_prepare` makes.
"""

import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from datasets.ntu.pack import SkeletonPack
from datasets.ntu.samples import NTUSettings, NTUSplit, SampleFiles
from datasets.ntu.skeleton import parse_skeleton
from datasets.ntu.workers import SAMPLE
from utils.errors import DataError

SUBJECTS = {
    "train": (1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38),
    "trainexp": (1, 4, 8, 13, 15, 17, 19),
    "dev": (2, 5, 9, 14),
    "test": (3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of B, G, R in this order, as the published weights expect
EMPTY_BELOW = 16 << 10  # a skeleton file without a body has a few bytes a frame


def normalise_clips(clips: Tensor) -> Tensor:
    """Clips uint8 (..., 3) as the network reads them: float32, scaled to [0, 1] and normalised, on the same device."""
    factor, shift = _normalisation(clips.device)
    return clips.float().mul_(factor).sub_(shift)


@functools.cache  # copied to a device once, not with every batch
def _normalisation(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (1 / (255 * std)).to(device), (mean / std).to(device)


def subject_of(name: str) -> int:
    """The subject of a sample, from 1."""
    return int(name[9:12])


def class_of(name: str) -> int:
    """The class of a sample, from 1."""
    return int(name[17:20])


@dataclasses.dataclass(frozen=True)
class NTUFolder:
    """A data folder: the samples that have both halves, and those that have one only; all sorted."""

    datadir: Path
    settings: NTUSettings
    files: SampleFiles
    names: tuple[str, ...]
    without_rgb: tuple[str, ...]
    without_skeleton: tuple[str, ...]
    skip_damaged: bool = False  # damaged files are no concern of `bad_skeletons`

    def report(self, no_bad_skel: bool = False) -> str:
        """One line such as "56,880 samples; left out: 3 without RGB, 302 without skeleton"."""
        bad = self.bad_skeletons if no_bad_skel else ()
        known = {subject for subjects in SUBJECTS.values() for subject in subjects}
        unknown = sum(subject_of(name) not in known and name not in bad for name in self.names)
        reasons = [
            f"{count:,} {why}"
            for count, why in (
                (len(self.without_rgb), "without RGB"),
                (len(self.without_skeleton), "without skeleton"),
                (len(bad), "with bad skeletons"),
                (unknown, "of subjects that are in no split"),
            )
            if count
        ]
        kept = len(self.names) - len(bad) - unknown
        return f"{kept:,} samples" + ("; left out: " + ", ".join(reasons) if reasons else "")

    @functools.cached_property
    def bad_skeletons(self) -> set[str]:
        """The samples that are named in bad_skel.txt, or whose skeleton has no body in any frame."""
        listed = set()
        path = bad_list(self.datadir)
        if path is not None:
            listed = set(re.findall(SAMPLE, path.read_text(errors="replace")))
        return {name for name in self.names if name in listed or self._is_empty(name)}

    def _is_empty(self, name: str) -> bool:
        if self.files.is_packed(name):
            return self.files.pack.bodies(name) == 0
        path = self.files.skeleton(name)
        try:
            return path.stat().st_size < EMPTY_BELOW and parse_skeleton(path).shape[3] == 0
        except (DataError, OSError):
            if self.skip_damaged:
                return False
            raise

    def splits(
        self,
        names: Iterable[str] | Mapping[str, str],
        num_outputs: int = 60,
        limits: Mapping[str, int | None] | None = None,
        no_bad_skel: bool = False,
    ) -> dict[str, NTUSplit]:
        """Splits by name.

        Args:
            names: keys of SUBJECTS; or {name in the result: key of SUBJECTS}, as a search trains on "trainexp".
            limits: by name in the result, how many samples to keep, the first; None: all.

        Raises:
            DataError: a split is empty, or a class in it exceeds `num_outputs`.
        """
        bad = self.bad_skeletons if no_bad_skel else set()
        splits = {}
        for split, key in names.items() if isinstance(names, Mapping) else ((name, name) for name in names):
            chosen = [n for n in self.names if subject_of(n) in SUBJECTS[key] and n not in bad]
            chosen = chosen[: (limits or {}).get(split)]
            if not chosen:
                raise DataError(
                    f"{self.datadir}: the {split} split is empty; "
                    f"it takes samples of the subjects {', '.join(map(str, SUBJECTS[key]))}"
                )
            highest = max(chosen, key=class_of)
            if class_of(highest) > num_outputs:
                raise DataError(
                    f"{self.datadir}: classes must lie in 1..{num_outputs}, but {highest} is of class "
                    f"{class_of(highest)}; leave it out, or give --num_outputs {class_of(highest)}"
                )
            if min(num_outputs, len(chosen)) > 1 and len(set(map(class_of, chosen))) == 1:
                raise DataError(
                    f"{self.datadir}: all {len(chosen):,} samples of the {split} split are of class "
                    f"{class_of(highest)}; there is nothing to tell apart"
                )
            labels = torch.tensor([class_of(name) - 1 for name in chosen])
            splits[split] = NTUSplit(tuple(chosen), labels, self.settings, self.files)
        return splits


def bad_list(datadir: Path) -> Path | None:
    """bad_skel.txt, the list of samples with missing skeletons: in the data folder, else in the working folder."""
    return next((path for path in (datadir / "bad_skel.txt", Path("bad_skel.txt")) if path.is_file()), None)


def discover(datadir: Path, settings: NTUSettings | None = None, skip_damaged: bool = False) -> NTUFolder:
    """Pair videos and skeletons by name.

    Args:
        settings: None: the published ones.
        skip_damaged: `bad_skeletons` passes over files that cannot be read, which is an error otherwise.

    Raises:
        DataError: no sample has both halves, or the pack is damaged.
    """
    settings = settings or NTUSettings()
    rgb_dir = datadir / "nturgbd_rgb" / f"avi_{settings.vid_dim}x{settings.vid_dim}_{settings.vid_fr}"
    files = SampleFiles(rgb_dir, datadir / "nturgbd_skeletons", SkeletonPack.open(datadir))
    videos = _scan(files.rgb_dir, r"_rgb\.avi")
    skeletons = _scan(files.skeleton_dir, r"\.skeleton") | set(files.pack.names if files.pack else ())
    if not videos & skeletons:
        raise DataError(
            f"{datadir}: no sample has both {files.rgb('NAME')} and {files.skeleton('NAME')}, with NAME such as "
            f"S001C001P001R001A001; found {len(videos):,} videos and {len(skeletons):,} skeletons"
            + _other_videos(rgb_dir)
        )
    complete, without_rgb, without_skeleton = videos & skeletons, skeletons - videos, videos - skeletons
    sets = map(tuple, map(sorted, (complete, without_rgb, without_skeleton)))
    return NTUFolder(datadir, settings, files, *sets, skip_damaged)


def _scan(folder: Path, suffix: str) -> set[str]:
    """The names of the samples that have a file in a folder; empty where there is no folder."""
    pattern = re.compile(f"({SAMPLE}){suffix}")
    try:
        with os.scandir(folder) as entries:
            return {match[1] for entry in entries if (match := pattern.fullmatch(entry.name))}
    except FileNotFoundError:
        return set()


def _other_videos(rgb_dir: Path) -> str:
    """A hint to the flags where the videos are of another size or frame rate."""
    others = sorted(path.name for path in rgb_dir.parent.glob("avi_*") if path.is_dir() and path != rgb_dir)
    return f"; there are also {', '.join(others)}, which --vid_dim and --vid_fr select" if others else ""
