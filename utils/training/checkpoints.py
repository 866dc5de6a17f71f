"""State dicts on disk: written whole, read with `weights_only=True`, checked against the network that takes them."""

import argparse
import contextlib
import errno
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork
from utils.errors import ProjectError, UsageError
from utils.files import whole_file
from utils.training.mismatch import flags_that_fit

SUFFIX = ".checkpoint"
SEAL = b"sha256:"  # begins the comment of our archives; any reader of zip files, torch among them, takes such a file
SEALED = 2 + len(SEAL) + 64  # bytes of the comment and its length, of which the checksum tells nothing


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state_dict that any torch reads, ours and the published code alike; see `write_checkpoint`."""
    write_checkpoint(path, {name: value.cpu() for name, value in state.items()})


def write_checkpoint(path: Path, values: Mapping[str, object]) -> None:
    """Write tensors, and what else `read_checkpoint` takes.

    Raises:
        OSError: the disk is full or fails; what was at `path` stays.
    """
    content = io.BytesIO()  # first, as torch turns the errors of a disk into others
    torch.save(values, content)
    whole = content.getbuffer()[:-2]  # up to the length of the archive's comment, which is none
    with whole_file(path) as file:
        file.write(whole)
        file.write(_seal(hashlib.sha256(whole).hexdigest()))


def _seal(digest: str) -> bytes:
    """The end of an archive: the length of its comment, then that."""
    comment = SEAL + digest.encode()
    return len(comment).to_bytes(2, "little") + comment


@contextlib.contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Where the data fail after hours of training, the error tells which file holds the network so far."""
    try:
        yield
    except ProjectError as error:
        if path.exists():
            error.args = (f"{error}; the best network so far is {path}",)
        raise


def read_checkpoint(path: Path) -> object:
    """What a checkpoint file holds, tensors on the CPU: only what `weights_only=True` admits, and only undamaged.

    Raises:
        UsageError: the file is missing, damaged, or holds what could run code.
    """
    try:
        _check_whole(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"checkpoint {path} does not exist") from None
    except UsageError:
        raise
    except Exception as error:  # torch raises almost anything here, and advises to load the file unsafely
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a place outside it
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise UsageError(
            f"{path} is not a readable checkpoint: it is damaged, or holds more than tensors ({type(error).__name__})"
        ) from None


def _check_whole(path: Path) -> None:
    """Compare an archive's checksums, which torch itself ignores: ours of the whole file, else a CRC-32 a record.

    Raises:
        UsageError: one is wrong.
    """
    with open(path, "rb") as file:
        if file.read(2) != b"PK":
            return  # the format of old versions has none
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - SEALED))
        sealed = file.read()
        if sealed[2:].startswith(SEAL):
            file.seek(0)
            digest, left = hashlib.sha256(), size - SEALED
            while block := file.read(min(left, 1 << 20)):
                digest.update(block)
                left -= len(block)
            if sealed != _seal(digest.hexdigest()):
                raise UsageError(f"{path} is damaged: its checksum is wrong")
            return
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is damaged: it begins as an archive, but does not end as one")
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip() or next((i.filename for i in archive.infolist() if i.external_attr & 0x10), None)
        if damaged is not None or archive.comment:
            raise UsageError(f"{path} is damaged: the checksum of {damaged or 'the archive'} is wrong")


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state_dict onto the CPU; a leading `module.` (DataParallel) is stripped.

    Raises:
        UsageError: see `read_checkpoint`; or the file holds anything but finite tensors by name.
    """
    state = read_checkpoint(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and _is_plain(v) for k, v in state.items()):
        raise UsageError(f"{path} must hold a state_dict (tensors by name), but holds a {type(state).__name__}")
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise UsageError(f"{path} holds numbers that are not finite in {name}: the training that wrote it diverged")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _is_plain(value: object) -> bool:
    """Whether it is a tensor that has its numbers in memory, one beside the other."""
    return (
        isinstance(value, Tensor)
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and not value.is_quantized
    )


def load_into(module: nn.Module, path: Path) -> None:
    """Load a checkpoint file into a network that it must fit exactly.

    Raises:
        UsageError: see `load_state`; or a name or a shape does not fit, told with the first difference.
    """
    state, own = load_state(path), module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"holds {name} of shape {tuple(state[name].shape)} where the network has {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    problems = (
        [f"lacks {name}" for name in missing[:1]]
        + [f"holds {name}, which the network lacks" for name in unexpected[:1]]
        + shapes[:1]
    )
    if problems:
        flags = flags_that_fit(module, state)
        advice = (
            f"it was trained with {', '.join(flags)}"
            if flags
            else "it may be the checkpoint of another network; give the one that belongs here"
        )
        raise UsageError(
            f"{path} does not fit this {type(module).__name__}: it {'; '.join(problems)} "
            f"({len(missing)} missing, {len(unexpected)} unexpected, {len(shapes)} of another shape); {advice}"
        )
    module.load_state_dict(state)


def load_backbones(network: FusionNetwork, paths: Sequence[Path]) -> None:
    """Load the checkpoints of the unimodal networks, first modality first."""
    for backbone, path in zip(network.backbones(), paths, strict=True):
        load_into(backbone, path)


def find_checkpoints(args: argparse.Namespace, published: Mapping[str, str]) -> list[Path]:
    """The checkpoints of NTU's unimodal networks, skeleton first.

    Those that `--ske_cp` and `--rgb_cp` name; otherwise the published ones; otherwise the only ones in the folder. A
    name is found with and without its suffix `.checkpoint`: the published scripts spell it both ways.

    Args:
        published: the defaults of the published script, by network and without suffix.

    Raises:
        UsageError: none is named or published, and the folder holds none or several.
    """
    return [
        _find_checkpoint(args.checkpointdir, getattr(args, flag), flag, f"{kind}_{frames}frames_", published[kind])
        for flag, kind, frames in (("ske_cp", "skeleton", args.vid_len[1]), ("rgb_cp", "rgb", args.vid_len[0]))
    ]


def _find_checkpoint(folder: Path, named: str, flag: str, prefix: str, published: str) -> Path:
    for name in filter(None, (named, published if published.startswith(prefix) else "")):
        for path in (folder / name, folder / f"{name}{SUFFIX}", folder / name.removesuffix(SUFFIX)):
            if path.is_file():
                return path
        if name == named:
            return folder / named  # reading it says that it does not exist
    pattern = re.compile(rf"{prefix}(.*\{SUFFIX}|[\d.]*\d)")
    found = sorted(path for path in folder.glob(f"{prefix}*") if pattern.fullmatch(path.name))
    if not found:
        script = f"train_{prefix.partition('_')[0]}_ntu.py"
        raise UsageError(f"{folder} holds no {prefix}*{SUFFIX}; train one with {script}, or name a file with --{flag}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{folder} holds several {prefix}*{SUFFIX}: {names}; name one with --{flag}")
    return found[0]
