"""Samples of NTU RGB+D on disk: where the halves of each lie, and how they become network inputs."""

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.ntu.pack import SkeletonPack
from datasets.ntu.skeleton import crop_window, parse_skeleton, prepare_skeleton
from datasets.ntu.video import READ_FRAMES, clip_indices, read_frames
from utils.errors import DataError

MODALITIES = ("skeleton", "rgb")  # in the order of a configuration row


@dataclasses.dataclass(frozen=True)
class NTUSettings:
    """How samples become network inputs.

    Args:
        vid_dim: width and height of the videos; names their folder, with `vid_fr`, the frames a second.
        vid_len: frames of a clip and of a skeleton.
        frame_sampling: see `clip_indices`.
        centre: see `prepare_skeleton`.
    """

    vid_dim: int = 256
    vid_fr: int = 30
    vid_len: tuple[int, int] = (8, 32)
    frame_sampling: str = "published"
    centre: bool = True


@dataclasses.dataclass(frozen=True)
class SampleFiles:
    """Where the halves of a sample lie; the pack is read where it has the sample."""

    rgb_dir: Path
    skeleton_dir: Path
    pack: SkeletonPack | None

    def rgb(self, name: str) -> Path:
        return self.rgb_dir / f"{name}_rgb.avi"

    def skeleton(self, name: str) -> Path:
        return self.skeleton_dir / f"{name}.skeleton"

    def is_packed(self, name: str) -> bool:
        return self.pack is not None and name in self.pack.names

    def joints(self, name: str) -> np.ndarray:
        """A sample's skeleton as parsed: float32 (3, N, 25, M)."""
        return self.pack.load(name) if self.is_packed(name) else parse_skeleton(self.skeleton(name))


@dataclasses.dataclass(frozen=True)
class NTUSplit:
    """Samples in the order of their names; labels (N,) int64 from 0. It can be pickled and used after a fork."""

    names: tuple[str, ...]
    labels: Tensor
    settings: NTUSettings
    files: SampleFiles

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int, modality: str, crop: int | None = None) -> Tensor:
        """One sample: "rgb" gives a uint8 clip (T, H, W, 3), "skeleton" a float32 input (3, T, 25, 2).

        Args:
            crop: seed of the training crop in time, which depends on nothing else but the sample and the modality.
                None: no crop.

        Raises:
            DataError: the file is damaged or of another size.
        """
        name, settings = self.names[index], self.settings
        seed = None if crop is None else [crop, zlib.crc32(name.encode()), MODALITIES.index(modality)]
        rng = None if seed is None else np.random.default_rng(seed)
        try:
            if modality == "rgb":
                ratio = 1.0 if rng is None else 1 - 0.5 * rng.random()
                return torch.from_numpy(self._clip(name, settings.vid_len[0], ratio))
            joints = self.files.joints(name)
        except DataError as error:
            raise DataError(f"{error}; --skip_bad_samples leaves out samples that cannot be read") from None
        window = None if rng is None else crop_window(joints.shape[1], rng)
        return prepare_skeleton(joints, settings.vid_len[1], settings.centre, window)

    def check(self, index: int, modality: str) -> None:
        """Read all of one sample's half that `load` may ever read, whatever the crop.

        Raises:
            DataError: the file is damaged or of another size.
        """
        if modality == "rgb":
            self._clip(self.names[index], READ_FRAMES)
        else:
            self.files.joints(self.names[index])

    def _clip(self, name: str, frames: int, ratio: float = 1.0) -> np.ndarray:
        sampling = self.settings.frame_sampling
        chosen = functools.partial(clip_indices, frames=frames, sampling=sampling, ratio=ratio)
        return read_frames(self.files.rgb(name), chosen, self.settings.vid_dim)

    def without(self, names: Collection[str]) -> "NTUSplit":
        """The split that lacks some samples."""
        kept = [index for index, name in enumerate(self.names) if name not in names]
        return dataclasses.replace(self, names=tuple(self.names[index] for index in kept), labels=self.labels[kept])

    def identity(self) -> dict[str, object]:
        """What tells these samples and settings from others, as JSON values: it hashes names, sizes and times."""
        digest = hashlib.sha256()
        packed = False
        for name in self.names:
            files = [self.files.rgb(name)]
            if self.files.is_packed(name):
                packed = True
            else:
                files.append(self.files.skeleton(name))
            digest.update(_stamp(files))
        if packed:  # the index holds the sizes of the text files, so packing them again changes nothing
            digest.update((self.files.pack.folder / "index.npz").read_bytes())
        return {"samples": len(self), "files": digest.hexdigest(), "settings": dataclasses.asdict(self.settings)}


def _stamp(files: Iterable[Path]) -> bytes:
    stats = [(path.name, path.stat()) for path in files]
    return repr([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]).encode()
