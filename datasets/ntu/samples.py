"""Load samples of NTU RGB+D from disk as network inputs."""

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.ntu.pack import SkeletonPack
from datasets.ntu.skeleton import crop_window, parse_skeleton, prepare_skeleton
from datasets.ntu.video import READ_FRAMES, clip_indices, read_frames
from utils.errors import DataError

MODALITIES = ("skeleton", "rgb")  # the columns of a configuration


@dataclasses.dataclass(frozen=True)
class NTUSettings:
    """How samples become network inputs; `vid_dim` and `vid_fr` name the folder of the videos."""

    vid_dim: int = 256  # width and height
    vid_fr: int = 30  # frames per second
    vid_len: tuple[int, int] = (8, 32)  # frames of a clip and of a skeleton
    frame_sampling: str = "published"  # see `clip_indices`
    centre: bool = True  # see `prepare_skeleton`


@dataclasses.dataclass(frozen=True)
class SampleFiles:
    """Files of the samples; a skeleton comes from the pack if that contains it."""

    rgb_dir: Path
    skeleton_dir: Path
    pack: SkeletonPack | None

    def rgb(self, name: str) -> Path:
        return self.rgb_dir / f"{name}_rgb.avi"

    def skeleton(self, name: str) -> Path:
        return self.skeleton_dir / f"{name}.skeleton"

    def pack_with(self, name: str) -> SkeletonPack | None:
        """The pack, if it contains a sample's skeleton."""
        return self.pack if self.pack is not None and name in self.pack.names else None

    def joints(self, name: str) -> np.ndarray:
        """Read a sample's skeleton: float32 (3, N, 25, M)."""
        pack = self.pack_with(name)
        return pack.load(name) if pack else parse_skeleton(self.skeleton(name))


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@dataclasses.dataclass
class NTUSplit:
    """Samples in the order of their names, with labels (N,) int64 from 0; implements `SampleSource`.

    It can be pickled, and used after a fork.
    """

    names: tuple[str, ...]
    labels: Tensor
    settings: NTUSettings
    files: SampleFiles
    known: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)  # size and time of files, by name

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, modality: str, crop: int | None = None) -> Tensor:
        """Load one input of a sample: "rgb" returns a uint8 clip (T, H, W, 3), "skeleton" float32 (3, T, 25, 2).

        `crop` is the seed of the training crop in time, which otherwise depends only on the sample and the modality;
        None disables cropping. DataError if the file is damaged or of another size, or is not the one whose fingerprint
        was taken.
        """
        name, settings, rng = self.names[index], self.settings, None
        if crop is not None:
            rng = np.random.default_rng([crop, zlib.crc32(name.encode()), MODALITIES.index(modality)])
        try:
            if modality == "rgb":
                ratio = 1.0 if rng is None else 1 - 0.5 * rng.random()
                clip = self._clip(name, settings.vid_len[0], ratio)
            else:
                joints = self.files.joints(name)
        except DataError as error:
            raise DataError(f"{error}; --skip_bad_samples leaves out samples that cannot be read") from None
        if modality == "rgb":
            self._check_unchanged(self.files.rgb(name))
            return torch.from_numpy(clip)
        self._check_unchanged(self.files.skeleton(name))
        window = None if rng is None else crop_window(joints.shape[1], rng)
        return prepare_skeleton(joints, settings.vid_len[1], settings.centre, window)

    def _check_unchanged(self, path: Path) -> None:
        """Compare a file that was read with the one whose fingerprint was taken."""
        known = self.known.get(path.name)
        if known and known != _size_and_time(path):
            raise DataError(f"{path} was changed while it was in use; start again")

    def check(self, index: int, modality: str) -> None:
        """Read all that `load` may read for one input, regardless of the crop; raises the same errors."""
        if modality == "rgb":
            self._clip(self.names[index], READ_FRAMES)
        else:
            self.files.joints(self.names[index])

    def _clip(self, name: str, frames: int, ratio: float = 1.0) -> np.ndarray:
        sampling = self.settings.frame_sampling
        chosen = functools.partial(clip_indices, frames=frames, sampling=sampling, ratio=ratio)
        return read_frames(self.files.rgb(name), chosen, self.settings.vid_dim)

    def without(self, names: Collection[str]) -> "NTUSplit":
        """The split without the given samples."""
        kept = [index for index, name in enumerate(self.names) if name not in names]
        return dataclasses.replace(self, names=tuple(self.names[index] for index in kept), labels=self.labels[kept])

    def identity(self) -> dict[str, object]:
        """Fingerprint of the samples and settings (JSON-serializable).

        It hashes names, sizes and times of the videos and of skeletons in text, which are too many to be read each
        time, and the content of the packed skeletons.
        """
        digest = hashlib.sha256()
        used = None
        for name in self.names:
            pack = self.files.pack_with(name)
            used = used or pack
            paths = [self.files.rgb(name)] if pack else [self.files.rgb(name), self.files.skeleton(name)]
            self.known |= {path.name: _size_and_time(path) for path in paths}
            digest.update(repr([(path.name, *self.known[path.name]) for path in paths]).encode())
        if used:  # packing the same files again changes nothing
            digest.update(used.checksum.encode())
        return {"samples": len(self), "files": digest.hexdigest(), "settings": dataclasses.asdict(self.settings)}
