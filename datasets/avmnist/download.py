"""Download the originals of AV-MNIST: MNIST, the Free Spoken Digit Dataset (FSDD) and ESC-50.

Files and folders are complete or absent: a broken download is retried from the start, and an interrupted run,
started again, fetches only what is missing.
"""

import fnmatch
import shutil
import time
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from utils.errors import DataError
from utils.files import errors_name, locked, sweep, whole_file, whole_folder
from utils.progress import Progress

ATTEMPTS = 4
WAIT = 1.0  # seconds before the second attempt, doubled before each further one
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 18


@dataclass(frozen=True)
class Original:
    """A published file."""

    url: str
    checksum: str = ""  # "md5:..." or "sha256:..."; empty if the publisher states none
    members: tuple[str, ...] = ()  # of an archive: patterns of the files needed, relative to its single top folder


MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FSDD = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip"
ESC50 = "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}
ORIGINALS = {  # by path in the download folder
    **{f"mnist/{name}": Original(MNIST + name, checksum) for name, checksum in CHECKSUMS.items()},
    "fsdd.zip": Original(FSDD, members=("recordings/*.wav",)),
    "esc50.zip": Original(ESC50, members=("meta/esc50.csv", "audio/*.wav")),
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
                _fetch_archive(url, target, original.members, verbose)
            elif not target.exists():
                download(url, target, original.checksum, verbose)
            elif error := _wrong_checksum(target, original.checksum):
                raise DataError(f"{target} {error}; delete it to download it again")
    return {f"{name}_dir": folder / name for name in ("mnist", "fsdd", "esc50")}


def _fetch_archive(url: str, archive: Path, members: tuple[str, ...], verbose: bool) -> None:
    """Download a zip archive and unpack it to the folder of the same name; skip the steps already done."""
    folder = archive.with_suffix("")
    needed = sorted({pattern.split("/")[0] for pattern in members})
    if all((folder / name).is_dir() for name in needed):
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} must contain the folders {needed}, but does not; move it away")
    if not archive.exists():
        download(url, archive, "", verbose)
    try:
        unpack(archive, folder, members, verbose)
    except DataError:
        archive.unlink()
        raise
    archive.unlink()


def download(url: str, target: Path, checksum: str = "", verbose: bool = True) -> None:
    """Download `url` to `target`, which appears only once it is complete and its checksum is correct.

    Raises:
        DataError: the server refuses, the connection breaks `ATTEMPTS` times, or the checksum is wrong.
    """
    import pooch  # here, because it is slow to import and only downloads need it
    import requests

    by_hand = f"download it yourself to {target}, then run this again"
    for attempt in range(ATTEMPTS):
        time.sleep(WAIT * 2 ** (attempt - 1) if attempt else 0)
        bar = Progress(desc=target.name, unit="B", unit_scale=True, verbose=verbose)
        fetch = pooch.HTTPDownloader(bar, BLOCK, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
        try:
            with whole_file(target) as file:
                fetch(url, file, None)
                if error := _wrong_checksum(Path(file.name), checksum):
                    raise DataError(f"{url} {error}; run again, or {by_hand}")
            return
        except requests.RequestException as error:
            if (answer := error.response) is not None:
                reason = f"the server answers {answer.status_code} {answer.reason}"
                if answer.status_code < 500 and answer.status_code != 429:  # a retry would not help
                    raise DataError(f"{url}: {reason}; {by_hand}") from None
                continue
            cause = error.args[0] if error.args else error
            reason = " ".join(str(getattr(cause, "reason", cause)).split())
        finally:
            bar.close()
    raise DataError(f"{url}: {reason}, {ATTEMPTS} times; {by_hand}")


def _wrong_checksum(path: Path, checksum: str) -> str:
    """Message if a file's checksum differs from the published one; empty otherwise."""
    import pooch

    kind = checksum.partition(":")[0]
    found = f"{kind}:{pooch.file_hash(path, alg=kind)}" if checksum else ""
    return "" if found == checksum else f"must have {checksum}, but has {found}"


def unpack(archive: Path, folder: Path, members: tuple[str, ...], verbose: bool = True) -> None:
    """Unpack the needed members of a zip archive, without its single top folder; `folder` is complete or absent.

    Raises:
        DataError: the archive is damaged, lacks a needed member, or has a member that points outside its folder.
    """
    try:
        with zipfile.ZipFile(archive) as source, whole_folder(folder) as new:
            chosen = _needed(source, archive, members)
            for name, place in Progress(chosen, desc=f"unpack {archive.name}", verbose=verbose):
                (new / place).parent.mkdir(parents=True, exist_ok=True)
                with source.open(name) as member, errors_name(new / place), open(new / place, "wb") as file:
                    shutil.copyfileobj(member, file, BLOCK)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{archive} is not a valid zip archive ({error}); it was removed; run again") from None


def _needed(source: zipfile.ZipFile, archive: Path, members: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name in the archive, path in the folder) of every member that matches a pattern."""
    places = {}
    for name in source.namelist():
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or ".." in parts:
            raise DataError(f"{archive} must hold plain relative names, but has {name!r}; it was removed")
        places[name] = "/".join(parts[1:])
    for pattern in members:
        if not fnmatch.filter(places.values(), pattern):
            raise DataError(f"{archive} must hold {pattern} below one folder, but does not; it was removed")
    return [(name, place) for name, place in places.items() if any(fnmatch.fnmatchcase(place, p) for p in members)]
