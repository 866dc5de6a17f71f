"""Fetch the originals of AV-MNIST: MNIST, the Free Spoken Digit Dataset (FSDD) and ESC-50.

What lies under its final name is whole: a file downloads to `NAME.part`, an archive unpacks into a hidden
neighbour folder, and both are renamed at the end. A run that was cut goes on where it stopped.
"""

import contextlib
import fnmatch
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm import tqdm

from utils.errors import DataError

ATTEMPTS = 4
WAIT = 1.0  # seconds before the second attempt, doubled before each further one
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 18


@dataclass(frozen=True)
class Original:
    """A file that a publisher offers: its address, its checksum ("md5:..." or "sha256:...") where one is
    published, and for an archive the members needed, as patterns below its one top folder."""

    url: str
    checksum: str = ""
    members: tuple[str, ...] = ()


MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
GITHUB = "https://github.com/"
ORIGINALS = {  # by place below the download folder
    "mnist/train-images-idx3-ubyte.gz": Original(
        MNIST_URL + "train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"
    ),
    "mnist/train-labels-idx1-ubyte.gz": Original(
        MNIST_URL + "train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"
    ),
    "mnist/t10k-images-idx3-ubyte.gz": Original(
        MNIST_URL + "t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"
    ),
    "mnist/t10k-labels-idx1-ubyte.gz": Original(
        MNIST_URL + "t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c"
    ),
    "fsdd.zip": Original(
        GITHUB + "Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip",
        members=("recordings/*.wav",),
    ),
    "esc50.zip": Original(
        GITHUB + "karolpiczak/ESC-50/archive/refs/heads/master.zip", members=("meta/esc50.csv", "audio/*.wav")
    ),
}


class _Broken(Exception):
    """The connection failed in a way that another attempt may mend."""


def download_originals(folder: Path, verbose: bool = True, urls: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Bring the three originals to `folder`, skipping what is there already, and return their folders.

    `mnist_dir` holds the four IDX .gz files, `fsdd_dir` recordings/, `esc50_dir` meta/esc50.csv and audio/.
    `urls` replaces addresses, by the names in `ORIGINALS`; the published checksums stay in force.

    Raises:
        DataError: a file cannot be had, or is not what its publisher says it is.
    """
    for name, original in ORIGINALS.items():
        url, target = (urls or {}).get(name, original.url), folder / name
        if original.members:
            _fetch_archive(url, target, original.members, verbose)
        else:
            _fetch_file(url, target, original.checksum, verbose)
    return {f"{name}_dir": folder / name for name in ("mnist", "fsdd", "esc50")}


def _fetch_file(url: str, target: Path, checksum: str, verbose: bool) -> None:
    """Download one file unless it is there; either way its checksum must be right."""
    if target.exists():
        if found := _wrong_sum(target, checksum):
            raise DataError(f"{target} must have {checksum}, but has {found}; delete it to have it downloaded again")
        return
    resumed = _part(target).exists()
    download(url, target, verbose)
    if resumed and _wrong_sum(target, checksum):  # the older part was of something else
        target.unlink()
        download(url, target, verbose)
    if found := _wrong_sum(target, checksum):
        target.unlink()
        raise DataError(f"{target} from {url} must have {checksum}, but has {found}; removed it, run again")


def _fetch_archive(url: str, archive: Path, members: tuple[str, ...], verbose: bool) -> None:
    """Download a zip, unless it is there, and unpack it to the folder of its name, unless that is there."""
    folder = archive.with_suffix("")
    needed = {pattern.split("/")[0] for pattern in members}
    if all((folder / name).is_dir() for name in needed):
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} must have the folders {sorted(needed)}, but has not; move it away")
    resumed = _part(archive).exists()
    if not archive.exists():
        download(url, archive, verbose)
    try:
        unpack(archive, folder, members, verbose)
    except DataError:
        archive.unlink()
        if not resumed:
            raise
        _fetch_archive(url, archive, members, verbose)  # the older part was of something else
    archive.unlink(missing_ok=True)


def download(url: str, target: Path, verbose: bool = True) -> None:
    """Download `url` to `target` by way of `target`.part, from where that ends if the server can.

    Raises:
        DataError: the server refuses, or the connection broke `ATTEMPTS` times (what came stays in the part).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    by_hand = f"download it yourself to {target}, then run this again"
    for attempt in range(ATTEMPTS):
        try:
            _continue(url, _part(target), verbose)
            break
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:  # neither overloaded nor asking for patience
                raise DataError(f"{url}: {reason}; {by_hand}") from None
        except _Broken as error:
            reason = str(error)
        if attempt + 1 == ATTEMPTS:
            raise DataError(f"{url}: {reason}, {ATTEMPTS} times; {by_hand}")
        time.sleep(WAIT * 2**attempt)
    os.replace(_part(target), target)


def _continue(url: str, part: Path, verbose: bool) -> None:
    """Append to `part` what is missing, or write it anew where the server cannot or the part does not fit."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing lies beyond `start`
            raise
        if error.headers.get("Content-Range") != f"bytes */{start}":
            part.unlink()
            _continue(url, part, verbose)
        return
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(getattr(error, "reason", error))) from None
    with response:
        fits = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if response.status == 206 and not fits:
            part.unlink()
            return _continue(url, part, verbose)
        start = start if response.status == 206 else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        name = part.name.removesuffix(".part")
        bar = tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True, disable=not verbose)
        with _writing(part, "ab" if start else "wb") as file, bar:
            for block in _blocks(response):
                file.write(block)
                bar.update(len(block))
    size = part.stat().st_size
    if total not in (None, size):
        raise _Broken(f"the connection broke after {size} of {total} bytes")


def _blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body in blocks; an error of the connection is told apart from one of the disk."""
    try:
        while block := response.read(BLOCK):
            yield block
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(f"the connection broke ({error})") from None


@contextlib.contextmanager
def _writing(path: Path, mode: str = "wb") -> Iterator[BinaryIO]:
    """Open for writing; an error of the disk names the file, which the operating system does not."""
    try:
        with open(path, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def unpack(archive: Path, folder: Path, members: tuple[str, ...], verbose: bool = True) -> None:
    """Unpack the needed members of a zip, without its one top folder, so that `folder` is whole or not there.

    Raises:
        DataError: it is no sound zip, lacks a needed member, or has one that points out of its folder.
    """
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        with zipfile.ZipFile(archive) as source:
            chosen = _needed(source, archive, members)
            for name, place in tqdm(chosen, desc=f"unpack {archive.name}", disable=not verbose):
                target = temporary / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open(name) as member, _writing(target) as file:
                    shutil.copyfileobj(member, file, BLOCK)
        os.replace(temporary, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{archive} is not a sound zip archive ({error}); removed it, run again") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _needed(source: zipfile.ZipFile, archive: Path, members: tuple[str, ...]) -> list[tuple[str, PurePosixPath]]:
    """(name in the archive, place in the folder) of every member that a pattern asks for."""
    chosen = []
    for name in source.namelist():
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ".." in parts:
            raise DataError(f"{archive} must hold plain relative names, but has {name!r}; removed it")
        place = PurePosixPath(*parts[1:])
        if any(fnmatch.fnmatchcase(str(place), pattern) for pattern in members):
            chosen.append((name, place))
    for pattern in members:
        if not fnmatch.filter([str(place) for _, place in chosen], pattern):
            raise DataError(f"{archive} must hold {pattern} below one folder, but does not; removed it")
    return chosen


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _wrong_sum(path: Path, checksum: str) -> str:
    """The checksum that a file has where that is not the published one, otherwise ""."""
    kind = checksum.partition(":")[0]
    found = f"{kind}:{hashlib.new(kind, path.read_bytes()).hexdigest()}"
    return "" if found == checksum else found
