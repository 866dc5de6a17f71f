"""Download the originals of AV-MNIST: MNIST, the Free Spoken Digit Dataset (FSDD) and ESC-50.

Files and folders are complete or absent: a broken download is retried from the start, and an interrupted run,
started again, fetches only what is missing. Time, bytes and unpacked bytes are bounded.

The publisher of MNIST states checksums. Those of FSDD and ESC-50 do not: the SHA-256 of the first download is recorded
in checksums.json beside the data, and in the manifest of the data set; a later download must have the same.
"""

import fnmatch
import http.client
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from datasets.avmnist.sources import CHECKSUMS
from utils.errors import DataError
from utils.files import errors_name, locked, sweep, whole_file, whole_folder, write_json
from utils.interrupts import Expired, deadline
from utils.progress import Progress
from utils.reading import read_json, sha256

ATTEMPTS = 4
WAIT = 1.0  # seconds before the second attempt, doubled before each further one
TIMEOUT = 30.0  # seconds without a byte
LONGEST = 4 * 3600.0  # seconds of a download, all attempts together
BLOCK = 1 << 18
LONGEST_NAME = 200  # characters of a member's name
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MEMBERS = 10_000  # most files to unpack from an archive


@dataclass(frozen=True)
class Original:
    """A published file."""

    url: str
    most: int  # bytes of the file; more are refused
    unpacked: int = 0  # bytes of all members, likewise
    checksum: str = ""  # "md5:..." or "sha256:..."; empty if the publisher states none
    members: tuple[str, ...] = ()  # of an archive: patterns of the files needed, relative to its single top folder


MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FSDD = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip"
ESC50 = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
MNIST_CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
ORIGINALS = {  # by path in the download folder
    **{f"mnist/{name}": Original(MNIST + name, 10**8, checksum=md5) for name, md5 in MNIST_CHECKSUMS.items()},
    "fsdd.zip": Original(FSDD, 10**9, 2 * 10**9, members=("recordings/*.wav",)),
    "esc50.zip": Original(ESC50, 3 * 10**9, 6 * 10**9, members=("meta/esc50.csv", "audio/*.wav")),
}


def download_originals(folder: Path, verbose: bool = True, urls: Mapping[str, str] | None = None) -> dict[str, Path]:
    """Download the three originals to `folder`, skip those already there, and return their folders.

    These are `mnist_dir`, with the four gzipped IDX files; `fsdd_dir`, with recordings/; `esc50_dir`, with
    meta/esc50.csv and audio/.

    Args:
        urls: addresses that replace the published ones, by name in `ORIGINALS`; the checksums still apply.

    Raises:
        DataError: a file cannot be downloaded or differs from the published one.
        LockedError: another process is downloading to `folder`.
    """
    with locked(folder):
        sweep(folder / "mnist", exclusive=True)
        for name, original in ORIGINALS.items():
            url, target = (urls or {}).get(name, original.url), folder / name
            if original.members:
                _fetch_archive(url, target, original, verbose)
            elif not target.exists():
                download(url, target, original.checksum, verbose, original.most)
            elif error := _wrong_checksum(target, original.checksum):
                raise DataError(f"{target} {error}; delete it to download it again")
    return {f"{name}_dir": folder / name for name in ("mnist", "fsdd", "esc50")}


def _fetch_archive(url: str, archive: Path, original: Original, verbose: bool) -> None:
    """Download a zip archive and unpack it to the folder of the same name; skip the steps already done."""
    folder, records = archive.with_suffix(""), archive.with_name(CHECKSUMS)
    needed = sorted({pattern.split("/")[0] for pattern in original.members})
    if all((folder / name).is_dir() for name in needed):
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} must contain the folders {needed}, but does not; move it away")
    if not archive.exists():
        download(url, archive, "", verbose, original.most)
    try:
        known, own = read_json(records, missing={}), f"sha256:{sha256(archive)}"
        if known.get(archive.name, own) != own:
            raise DataError(
                f"{archive} has {own}, but the first download had {known[archive.name]}; it was removed; "
                f"to accept another one, delete {records}"
            )
        unpack(archive, folder, original.members, verbose, original.unpacked)
        write_json(records, {**known, archive.name: own})
    except DataError:  # so that the next run downloads it again
        archive.unlink()
        raise
    archive.unlink()


class _Bounded:
    """A file that refuses to grow beyond a number of bytes."""

    def __init__(self, file: BinaryIO, most: int, url: str) -> None:
        self.file, self.left, self.url, self.most = file, most, url, most
        self.flush = file.flush

    def write(self, data: bytes) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"{self.url} must have at most {self.most:,} bytes, but sends more")
        return self.file.write(data)


def _check_redirect(answer: Any, **_: object) -> None:
    """Refuse a redirect to an address that is not as safe as the one asked."""
    if answer.is_redirect:
        scheme = urlsplit(answer.headers["location"]).scheme.lower()
        if scheme not in ("", "https", urlsplit(answer.url).scheme):
            raise DataError(f"{answer.url} redirects to an address that is not https: {answer.headers['location']}")


def download(url: str, target: Path, checksum: str = "", verbose: bool = True, most: int = 10**9) -> None:
    """Download `url` to `target`, which appears only once it is complete and its checksum is correct.

    Args:
        most: bytes that the file may have.

    Raises:
        DataError: the server refuses, the connection breaks `ATTEMPTS` times, the download takes longer than `LONGEST`,
            or the file is too large or has a wrong checksum.
    """
    try:
        with deadline(LONGEST):
            _try_download(url, target, checksum, verbose, most)
    except Expired:
        raise DataError(f"{url} takes longer than {LONGEST / 3600:g} hours; download it yourself to {target}") from None


def _try_download(url: str, target: Path, checksum: str, verbose: bool, most: int) -> None:
    import pooch  # here, because it is slow to import and only downloads need it
    import requests
    import urllib3

    failures = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError)
    options = {"headers": {"Accept-Encoding": "identity"}, "hooks": {"response": _check_redirect}}
    by_hand = f"download it yourself to {target}, then run this again"
    for attempt in range(ATTEMPTS):
        time.sleep(WAIT * 2 ** (attempt - 1) if attempt else 0)
        bar = Progress(desc=target.name, unit="B", unit_scale=True, verbose=verbose)
        fetch = pooch.HTTPDownloader(bar, BLOCK, timeout=TIMEOUT, **options)
        try:
            with whole_file(target) as file:
                fetch(url, _Bounded(file, most, url), None)
                if error := _wrong_checksum(Path(file.name), checksum):
                    raise DataError(f"{url} {error}; run again, or {by_hand}")
            return
        except failures as error:
            if (answer := getattr(error, "response", None)) is not None:
                reason = f"the server answers {answer.status_code} {answer.reason}"
                if answer.status_code < 500 and answer.status_code != 429:  # a retry would not help
                    raise DataError(f"{url}: {reason}; {by_hand}") from None
                continue
            cause = error.args[0] if error.args else error
            reason = " ".join(str(getattr(cause, "reason", cause)).split())
            if isinstance(error, ValueError):  # an address or a header without meaning: a retry would not help
                raise DataError(f"{url}: {reason}; {by_hand}") from None
        finally:
            bar.close()
    raise DataError(f"{url}: {reason}, {ATTEMPTS} times; {by_hand}")


def _wrong_checksum(path: Path, checksum: str) -> str:
    """Message if a file's checksum differs from the published one; empty otherwise."""
    import pooch

    kind = checksum.partition(":")[0]
    found = f"{kind}:{pooch.file_hash(path, alg=kind)}" if checksum else ""
    return "" if found == checksum else f"must have {checksum}, but has {found}"


def unpack(archive: Path, folder: Path, members: tuple[str, ...], verbose: bool = True, most: int = 10**10) -> None:
    """Unpack the needed members of a zip archive, without its single top folder; `folder` is complete or absent.

    Args:
        most: bytes that the members may have altogether.

    Raises:
        DataError: the archive is damaged, lacks a needed member, has a member that points outside its folder, or is
            larger than expected.
    """
    try:
        with zipfile.ZipFile(archive) as source, whole_folder(folder) as new:
            chosen = _needed(source, archive, members, most)
            for info, place in Progress(chosen, desc=f"unpack {archive.name}", verbose=verbose):
                (new / place).parent.mkdir(parents=True, exist_ok=True)
                with source.open(info) as member, errors_name(new / place), open(new / place, "wb") as file:
                    shutil.copyfileobj(member, file, BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, struct.error) as error:
        raise DataError(f"{archive} is not a valid zip archive ({error}); it was removed; run again") from None


def _needed(
    source: zipfile.ZipFile, archive: Path, members: tuple[str, ...], most: int
) -> list[tuple[zipfile.ZipInfo, str]]:
    """(member, path in the folder) of every member that matches a pattern."""
    places = {}
    for name, info in source.NameToInfo.items():
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ".." in parts or max(map(len, parts), default=0) > LONGEST_NAME:
            raise DataError(f"{archive} must hold plain relative names, but has {name!r}; it was removed")
        places[info] = "/".join(parts[1:])
    for pattern in members:
        if not any(_matches(place, pattern) for place in places.values()):
            raise DataError(f"{archive} must hold {pattern} below one folder, but does not; it was removed")
    found = [(info, place) for info, place in places.items() if any(_matches(place, pattern) for pattern in members)]
    size = sum(info.file_size for info, _ in found)
    if size > most or len(found) > MEMBERS:
        limits = f"at most {MEMBERS:,} files of {most:,} bytes altogether"
        raise DataError(f"{archive} must hold {limits}, but has {len(found):,} of {size:,}; it was removed")
    if unknown := [info.filename for info, _ in found if info.compress_type not in COMPRESSIONS]:
        raise DataError(f"{archive}: {unknown[0]!r} is compressed in an unexpected way; it was removed")
    return found


def _matches(place: str, pattern: str) -> bool:
    """Whether a plain name matches, folder by folder: `*` stands for no slash."""
    return place.isascii() and place.count("/") == pattern.count("/") and fnmatch.fnmatchcase(place, pattern)
