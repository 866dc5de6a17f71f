"""All skeletons of NTU RGB+D in one archive that is memory-mapped: no text is parsed while training.

`nturgbd_skeletons_packed/` holds `joints.npy`, float32 (rows, 25, 3), a row for each frame and kept body of a sample
(frame by frame), and `index.npz` with, for each sample: names, starts (its first row), frames, bodies, and sizes (of
the text file in bytes). The index is written last: without it there is no pack.
"""

import io
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, KeysView
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.ntu.skeleton import JOINTS, parse_skeleton
from datasets.ntu.workers import SAMPLE, parallel, partial, publish, sweep, write_whole
from utils.errors import DataError

TEXT_FOLDER, PACK_FOLDER = "nturgbd_skeletons", "nturgbd_skeletons_packed"
_FIELDS = ("names", "starts", "frames", "bodies", "sizes")
_TEXT = re.compile(rf"({SAMPLE})\.skeleton")


class SkeletonPack:
    """The packed skeletons of a data folder. Workers that receive a pickled one open the files anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            with np.load(folder / "index.npz") as index:
                names, self._starts, self._frames, self._bodies, self._sizes = (index[key] for key in _FIELDS)
            joints = np.load(folder / "joints.npy", mmap_mode="r")
            rows = int((self._frames.astype(np.int64) * self._bodies).sum())
            if joints.dtype != np.float32 or joints.shape != (rows, JOINTS, 3):
                raise ValueError(f"joints.npy holds {joints.dtype} {joints.shape}, but the index tells of {rows} rows")
        except PermissionError:
            raise
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{folder} is damaged ({error}); remove it, and pack again if you like") from None
        self._joints = np.asarray(joints)  # slicing the plain view of the map is faster
        self._numbers = {str(name): number for number, name in enumerate(names)}

    @classmethod
    def open(cls, datadir: Path) -> "SkeletonPack | None":
        """The pack of a data folder; None where there is none.

        Raises:
            DataError: it is damaged.
        """
        folder = datadir / PACK_FOLDER
        return cls(folder) if (folder / "index.npz").exists() else None

    def __reduce__(self) -> tuple:
        return SkeletonPack, (self.folder,)

    @property
    def names(self) -> KeysView[str]:
        """The samples in the pack, as a set."""
        return self._numbers.keys()

    def load(self, name: str) -> np.ndarray:
        """What `parse_skeleton` gives for the sample's file: float32 (3, N, 25, M), a copy."""
        number = self._numbers[name]
        start, frames, bodies = (int(array[number]) for array in (self._starts, self._frames, self._bodies))
        rows = self._joints[start : start + frames * bodies]
        return rows.reshape(frames, bodies, JOINTS, 3).transpose(3, 0, 2, 1).copy()

    def bodies(self, name: str) -> int:
        """M: the most bodies in any frame, 2 at most."""
        return int(self._bodies[self._numbers[name]])

    def source_size(self, name: str) -> int:
        """Bytes of the text file that was packed."""
        return int(self._sizes[self._numbers[name]])


@dataclass
class PackReport:
    """What was done: samples in the pack, whether it was there already, why each missing one could not be read."""

    samples: int
    kept: bool = False
    failures: list[str] = field(default_factory=list)


def skeleton_files(datadir: Path) -> dict[str, tuple[Path, int]]:
    """(file, bytes) of every sample's skeleton text in a data folder, sorted by name; empty without that folder."""
    folder = datadir / TEXT_FOLDER
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        found = {
            match[1]: (Path(entry.path), entry.stat().st_size)
            for entry in entries
            if (match := _TEXT.fullmatch(entry.name))
        }
    return dict(sorted(found.items()))


def write_pack(datadir: Path, num_workers: int, verbose: bool) -> PackReport:
    """Pack all skeletons of a data folder, unless a pack of the same files is there; the caller holds its lock.

    Raises:
        DataError: there are no skeleton files.
        OSError: the pack cannot be written; the one before it stays, or there is none.
    """
    files = skeleton_files(datadir)
    if not files:
        raise DataError(f"{datadir / TEXT_FOLDER} must hold files like S001C001P001R001A001.skeleton, but has none")
    folder = datadir / PACK_FOLDER
    if _is_current(datadir, files):
        return PackReport(len(files), kept=True)
    folder.mkdir(exist_ok=True)
    sweep(folder)
    report, entries = PackReport(0), []

    def joints() -> Iterator[np.ndarray]:
        """The rows (N * M, 25, 3) of one sample after the other; their places are noted in `entries`."""
        start = 0
        parsed = parallel(_parse, [path for path, _ in files.values()], num_workers)
        bar = tqdm(parsed, desc="skeletons", total=len(files), unit="file", disable=not verbose)
        for (name, (_, size)), result in zip(files.items(), bar, strict=True):
            if isinstance(result, str):
                report.failures.append(result)
                continue
            frames, bodies = result.shape[:2]
            entries.append((name, start, frames, bodies, size))
            start += frames * bodies
            yield result.reshape(-1, JOINTS, 3)

    _write_rows(folder / "joints.npy", joints())
    report.samples = len(entries)
    index = io.BytesIO()
    np.savez(index, **{key: np.array([entry[i] for entry in entries]) for i, key in enumerate(_FIELDS)})
    (folder / "index.npz").unlink(missing_ok=True)  # from here until the new index is there, there is no pack
    publish(folder / "joints.npy")
    write_whole(folder / "index.npz", index.getbuffer())
    return report


def _is_current(datadir: Path, files: dict[str, tuple[Path, int]]) -> bool:
    """Whether the pack holds exactly these files, as far as names and sizes tell."""
    try:
        pack = SkeletonPack.open(datadir)
    except DataError:
        return False
    return pack is not None and {name: pack.source_size(name) for name in pack.names} == {
        name: size for name, (_, size) in files.items()
    }


def _parse(path: Path) -> np.ndarray | str:
    """The joints of a file as float32 (N, M, 25, 3), or why they cannot be read."""
    try:
        return np.ascontiguousarray(parse_skeleton(path).transpose(1, 3, 2, 0))
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def _write_rows(target: Path, blocks: Iterable[np.ndarray]) -> None:
    """Write float32 blocks (n, 25, 3) as one .npy file, not yet published; its length is known at the end only."""
    rows = 0
    try:
        with open(partial(target), "wb") as file:
            _write_header(file, rows)
            begin = file.tell()
            for block in blocks:
                file.write(block.data)
                rows += len(block)
            file.seek(0)
            _write_header(file, rows)
            assert file.tell() == begin  # numpy leaves room for the first axis to grow
    except OSError as error:
        partial(target).unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(target)) from None


def _write_header(file: io.BufferedWriter, rows: int) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, JOINTS, 3)}
    np.lib.format.write_array_header_1_0(file, header)
