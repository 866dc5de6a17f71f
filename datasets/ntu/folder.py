"""Find the samples of an NTU RGB+D data folder and divide them into the splits of a protocol.

The folder holds DATADIR/nturgbd_rgb/avi_256x256_30/S001C001P001R001A001_rgb.avi and so on, and for each of these
DATADIR/nturgbd_skeletons/S001C001P001R001A001.skeleton, or the pack of skeletons that `datasets.ntu_prepare` writes.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from datasets.ntu import SAMPLE, scan
from datasets.ntu.pack import SkeletonPack
from datasets.ntu.protocols import PROTOCOLS, Part
from datasets.ntu.protocols import SUBJECTS as SUBJECTS
from datasets.ntu.samples import NTUSettings, NTUSplit, SampleFiles
from datasets.ntu.skeleton import parse_skeleton
from utils.errors import DataError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # applied to B, G, R, as the published weights expect
EMPTY_BELOW = 16 << 10  # bytes; a skeleton file without a body has a few bytes per frame


def normalize_clips(clips: Tensor) -> Tensor:
    """Convert clips uint8 (..., 3) to network inputs: float32, scaled to [0, 1] and normalized, on the same device."""
    factor, shift = _normalization(clips.device)
    return clips.float().mul_(factor).sub_(shift)


@functools.cache  # copied to a device only once
def _normalization(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (1 / (255 * std)).to(device), (mean / std).to(device)


@dataclasses.dataclass(frozen=True)
class Selection:
    """Samples of the data folder that a script uses."""

    num_outputs: int = 60  # number of classes
    limits: Mapping[str, int | None] = dataclasses.field(default_factory=dict)  # first samples of a split; None: all
    no_bad_skel: bool = False  # exclude samples with missing skeletons
    skip_damaged: bool = False  # exclude samples whose files are damaged
    protocol: str = "xsub60"  # key of PROTOCOLS


@dataclasses.dataclass(frozen=True)
class NTUFolder:
    """Samples of a data folder by name, sorted: with both video and skeleton, and with only one of them."""

    datadir: Path
    settings: NTUSettings
    selection: Selection
    files: SampleFiles
    names: tuple[str, ...]
    without_rgb: tuple[str, ...]
    without_skeleton: tuple[str, ...]

    def report(self) -> str:
        """One line such as "56,880 samples; left out: 3 without RGB, 302 without skeleton"."""
        bad = self.excluded
        parts = PROTOCOLS[self.selection.protocol].splits.values()
        unknown = sum(name not in bad and not any(name in part for part in parts) for name in self.names)
        counts = {
            "without RGB": len(self.without_rgb),
            "without skeleton": len(self.without_skeleton),
            "with bad skeletons": len(bad),
            f"in no split of {self.selection.protocol}": unknown,
        }
        reasons = [f"{count:,} {reason}" for reason, count in counts.items() if count]
        kept = len(self.names) - len(bad) - unknown
        return f"{kept:,} samples" + (f"; left out: {', '.join(reasons)}" if reasons else "")

    @functools.cached_property
    def excluded(self) -> set[str]:
        """Samples with bad skeletons if `no_bad_skel`: those in bad_skel.txt, or without a body in any frame.

        The list of missing skeletons is read from the data folder, or else from the working directory.
        """
        if not self.selection.no_bad_skel:
            return set()
        lists = [path for path in (self.datadir / "bad_skel.txt", Path("bad_skel.txt")) if path.is_file()]
        listed = set(re.findall(SAMPLE, lists[0].read_text(errors="replace"))) if lists else set()
        return {name for name in self.names if name in listed or self._is_empty(name)}

    def _is_empty(self, name: str) -> bool:
        if pack := self.files.pack_with(name):
            return pack.bodies(name) == 0
        path = self.files.skeleton(name)
        try:
            return path.stat().st_size < EMPTY_BELOW and parse_skeleton(path).shape[3] == 0
        except (DataError, OSError):
            if self.selection.skip_damaged:
                return False
            raise

    def splits(self, names: Iterable[str] | Mapping[str, str]) -> dict[str, NTUSplit]:
        """Splits of the protocol by name; a mapping renames them, such as {"train": "trainexp"} in a search.

        Raises:
            DataError: a split is empty, has samples of one class only, or has a class above `num_outputs`.
        """
        keys = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
        parts = PROTOCOLS[self.selection.protocol].splits
        return {split: self._split(split, parts[key]) for split, key in keys.items()}

    def _split(self, split: str, part: Part) -> NTUSplit:
        num_outputs = self.selection.num_outputs
        chosen = [name for name in self.names if name in part and name not in self.excluded]
        chosen = chosen[: self.selection.limits.get(split)]
        if not chosen:
            raise DataError(f"{self.datadir}: the {split} split is empty; it takes samples of {part}")
        classes = torch.tensor([int(name[17:20]) for name in chosen])  # from 1
        highest = int(classes.max())
        if highest > num_outputs:
            found = f"{chosen[int(classes.argmax())]} is of class {highest}"
            fix = f"leave it out, or give --num_outputs {highest}"
            raise DataError(f"{self.datadir}: classes must lie in 1..{num_outputs}, but {found}; {fix}")
        if min(num_outputs, len(chosen)) > 1 and (classes == highest).all():
            found = f"all its {len(chosen):,} samples are of class {highest}"
            raise DataError(f"{self.datadir}: the {split} split must hold two classes or more, but {found}")
        return NTUSplit(tuple(chosen), classes - 1, self.settings, self.files)


def discover(datadir: Path, settings: NTUSettings | None = None, selection: Selection | None = None) -> NTUFolder:
    """Pair videos and skeletons by name; the published settings and all samples are the default.

    DataError if no sample has both, or the pack is damaged.
    """
    settings, selection = settings or NTUSettings(), selection or Selection()
    rgb_dir = datadir / "nturgbd_rgb" / f"avi_{settings.vid_dim}x{settings.vid_dim}_{settings.vid_fr}"
    files = SampleFiles(rgb_dir, datadir / "nturgbd_skeletons", SkeletonPack.open(datadir))
    videos = scan(rgb_dir, r"_rgb\.avi").keys()
    skeletons = scan(files.skeleton_dir, r"\.skeleton").keys() | (files.pack.names if files.pack else set())
    if not videos & skeletons:
        others = sorted(path.name for path in rgb_dir.parent.glob("avi_*") if path.is_dir() and path != rgb_dir)
        hint = f"; there are also {', '.join(others)}, which --vid_dim and --vid_fr select" if others else ""
        raise DataError(
            f"{datadir}: no sample has both {files.rgb('NAME')} and {files.skeleton('NAME')}, with NAME such as "
            f"S001C001P001R001A001; found {len(videos):,} videos and {len(skeletons):,} skeletons{hint}"
        )
    names = (tuple(sorted(some)) for some in (videos & skeletons, skeletons - videos, videos - skeletons))
    return NTUFolder(datadir, settings, selection, files, *names)
