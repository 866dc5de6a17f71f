"""Write state dicts completely or not at all, read them with `weights_only=True`, and check that they fit a network."""

import contextlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork
from utils.errors import ProjectError, UsageError, printable
from utils.files import whole_file
from utils.reading import MOST_NESTED, read_bytes, sha256, shown
from utils.training.mismatch import flags_that_fit

SUFFIX = ".checkpoint"
MADE_BY = {"audio_model.pkl": "train_audio.py", "image_model.pkl": "train_image.py"}  # default names
SEAL = b"sha256:"  # prefix of the comment of our archives, which readers of zip files, such as torch, ignore
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
PLAIN = (*FLOATS, *INTEGERS, torch.bool)
SEALED = 2 + len(SEAL) + 64  # bytes of the comment and its length, which the checksum does not cover


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state_dict that torch, and thus the published code, can read; see `write_checkpoint`."""
    write_checkpoint(path, {name: value.cpu() for name, value in state.items()})


def write_checkpoint(path: Path, values: Mapping[str, object]) -> None:
    """Write tensors and other values that `read_checkpoint` accepts, sealed with a checksum.

    Raises:
        OSError: The disk is full or fails; an existing file at `path` is kept.
    """
    content = io.BytesIO()  # to memory first, because torch hides the errors of a disk
    torch.save(values, content)
    whole = content.getbuffer()[:-2]  # without the length of the archive's comment, which is empty
    with whole_file(path) as file:
        file.write(whole)
        file.write(_seal(whole))


def _seal(whole: memoryview) -> bytes:
    """Return the end of an archive: the length of its comment, then the comment, which is a checksum of the rest."""
    comment = SEAL + sha256(whole).encode()
    return len(comment).to_bytes(2, "little") + comment


@contextlib.contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Add the file with the best network so far to the message of an error, which may come after hours of training."""
    try:
        yield
    except ProjectError as error:
        if path.exists():
            error.args = (f"{error}; the best network so far is {path}",)
        raise


def read_checkpoint(path: Path) -> tuple[object, str]:
    """Read a checkpoint file that is undamaged and that `weights_only=True` accepts, with tensors on the CPU.

    Returns:
        what it holds, and the SHA-256 of the bytes that this was read from.

    Raises:
        UsageError: The file is missing, damaged, or could run code.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        made = f"; {MADE_BY[path.name]} makes it" if path.name in MADE_BY else ""
        raise UsageError(f"checkpoint {path} does not exist{made}") from None
    _check_whole(path, content)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), sha256(content)
    except Exception as error:  # torch may raise any error here, and advise loading the file unsafely
        raise UsageError(
            f"{path} is not a readable checkpoint: it is damaged, or holds more than tensors ({type(error).__name__})"
        ) from None


def _check_whole(path: Path, content: bytes) -> None:
    """Verify checksums, which torch ignores: our seal of the whole file, or else the CRC-32 of each zip record.

    Records must be stored as torch stores them, one after the other, so that they take no more memory than the file.
    """
    if content[:2] != b"PK":
        return  # torch's old format, which has no checksums
    whole, sealed = memoryview(content)[:-SEALED], content[-SEALED:]
    if sealed[2:].startswith(SEAL) and sealed != _seal(whole):
        raise UsageError(f"{path} is damaged: its checksum is wrong")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = archive.infolist()
            stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
            if not stored or sum(record.file_size for record in records) > len(content):
                raise UsageError(f"{path} must hold its records as torch.save writes them, not compressed")
            if sealed[2:].startswith(SEAL):
                return
            damaged = archive.testzip() or next((i.filename for i in records if i.external_attr & 0x10), None)
            if damaged is not None or archive.comment:
                raise UsageError(f"{path} is damaged: the checksum of {printable(damaged or 'the archive')} is wrong")
    except UsageError:
        raise
    except Exception:  # zipfile raises almost anything on damaged bytes
        raise UsageError(f"{path} is damaged: it begins as an archive, but does not end as one") from None


def load_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a state_dict onto the CPU; a leading `module.` (DataParallel) is stripped.

    Returns:
        the tensors by name, and the SHA-256 of the file that they were read from.

    Raises:
        UsageError: See `read_checkpoint`; or the file holds anything but tensors by name.
    """
    state, checksum = read_checkpoint(path)
    if not is_state(state):
        found = type(state).__name__
        if isinstance(state, dict):
            name, value = next((name, x) for name, x in state.items() if not isinstance(name, str) or not _is_plain(x))
            found += f" in which {shown(name)} is {_described(value)}"
        raise UsageError(f"{path} must hold a state_dict (tensors by name), but holds a {found}")
    return {name.removeprefix("module."): value for name, value in state.items()}, checksum


def is_state(value: object) -> TypeGuard[dict[str, Tensor]]:
    """Return True for a state_dict of plain tensors: dense numbers in memory, each stored once."""
    return isinstance(value, dict) and all(isinstance(name, str) and _is_plain(x) for name, x in value.items())


def check_plain(value: object, depth: int = MOST_NESTED) -> None:
    """Check that a value is built of numbers, text, None and plain tensors in dicts, lists and tuples.

    Raises:
        ValueError: it holds something else, or is nested more than `depth` deep.
    """
    if isinstance(value, dict | list | tuple):
        if depth == 0:
            raise ValueError(f"it is nested more than {MOST_NESTED} deep")
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            check_plain(one, depth - 1)
    elif not isinstance(value, int | float | str | None) and not _is_plain(value):
        raise ValueError(f"it holds {_described(value)}")


def _described(value: object) -> str:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_nested or value.device.type != "cpu":
        return f"no dense tensor ({type(value).__name__})"
    return f"{value.dtype} {tuple(value.shape)}, stored in {value.untyped_storage().nbytes()} bytes"


def _is_plain(value: object) -> bool:
    if not isinstance(value, Tensor):
        return False
    if value.device.type != "cpu" or value.layout != torch.strided or value.is_nested or value.dtype not in PLAIN:
        return False
    return value.nbytes <= value.untyped_storage().nbytes()  # an expanded tensor can pretend to be of any size


def check_fit(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Check that a state_dict has the names, shapes and kinds of numbers of a network's, whatever the precision.

    Raises:
        UsageError: A name, a shape or a kind differs. The message names the first difference.
    """
    own = module.state_dict()
    missing = [f"lacks {name}" for name in sorted(own.keys() - state.keys())]
    unexpected = [f"holds {name}, which the network lacks" for name in sorted(state.keys() - own.keys())]
    shapes = [
        f"holds {name} of shape {tuple(state[name].shape)} where the network has {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems := missing[:1] + unexpected[:1] + shapes[:1]:
        advice = "it may be the checkpoint of another network; pass this network's own"
        if flags := flags_that_fit(module, state):
            advice = f"it was trained with {', '.join(flags)}"
        raise UsageError(
            f"{path} does not fit this {type(module).__name__}: it {'; '.join(problems)} "
            f"({len(missing)} missing, {len(unexpected)} unexpected, {len(shapes)} of another shape); {advice}"
        )
    for name, value in own.items():
        if state[name].dtype not in (FLOATS if value.is_floating_point() else INTEGERS):
            raise UsageError(f"{path} must hold {name} as {value.dtype}, but holds {state[name].dtype}")


def load_into(module: nn.Module, path: Path) -> str:
    """Load a checkpoint file into a network, which it must fit exactly; return the file's SHA-256.

    Raises:
        UsageError: See `load_state` and `check_fit`; or a number is not finite in the network's precision.
    """
    state, checksum = load_state(path)
    check_fit(module, state, path)
    state = {name: state[name].to(value.dtype) for name, value in module.state_dict().items()}
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise UsageError(f"{path} holds numbers that are not finite in {name}: the training that wrote it diverged")
    module.load_state_dict(state)
    return checksum


def load_backbones(network: FusionNetwork, paths: Sequence[Path]) -> list[str]:
    """Load the checkpoints of the unimodal networks, first modality first; return the SHA-256 of each file."""
    return [load_into(backbone, path) for backbone, path in zip(network.backbones(), paths, strict=True)]


def find_checkpoint(folder: Path, named: str, flag: str, kind: str, frames: int, published: str) -> Path:
    """Find the checkpoint of one of NTU's unimodal networks: the named, the published, or the only one in the folder.

    A name may come with or without the suffix `.checkpoint`, because the published scripts spell it both ways.

    Args:
        named: value of the flag, a name in the folder or a path; may be empty.
        flag: name of the flag, without dashes.
        kind: "skeleton" or "rgb".
        published: the published script's default, used if it is for the same kind and number of frames.

    Raises:
        UsageError: No file is named or published, and the folder holds none or several.
    """
    prefix = f"{kind}_{frames}frames_"
    for name in filter(None, (named, published if published.startswith(prefix) else "")):
        for path in (folder / name, folder / f"{name}{SUFFIX}", folder / name.removesuffix(SUFFIX)):
            if path.is_file():
                return path
        if name == named:
            return folder / named  # reading it reports that it does not exist
    pattern = rf"{prefix}(.*\{SUFFIX}|[\d.]*\d)"
    found = sorted(path for path in folder.glob(f"{prefix}*") if re.fullmatch(pattern, path.name))
    if not found:
        raise UsageError(
            f"{folder} holds no {prefix}*{SUFFIX}; train one with train_{kind}_ntu.py, or name a file with --{flag}"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{folder} holds several {prefix}*{SUFFIX}: {names}; name one with --{flag}")
    return found[0]
