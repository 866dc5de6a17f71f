"""State dicts on disk: written whole, read with `weights_only=True`, checked against the network that takes them."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.cli import UsageError
from utils.files import whole_file
from utils.misfit import flags_that_fit


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state_dict that any torch reads, ours and the published code alike."""
    with whole_file(path) as file:
        torch.save({name: value.cpu() for name, value in state.items()}, file)


@contextlib.contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Where the data fail after hours of training, the error tells which file holds the network so far."""
    try:
        yield
    except Exception as error:
        if hasattr(error, "exit_code") and path.exists():
            error.args = (f"{error}; the best network so far is {path}",)
        raise


def load_state(path: Path) -> dict[str, Tensor]:
    """Read a state_dict onto the CPU; a leading `module.` (DataParallel) is stripped.

    Raises:
        UsageError: the file is missing, damaged, or holds anything but tensors by name.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"checkpoint {path} does not exist") from None
    except OSError:
        raise
    except Exception as error:  # torch raises almost anything here, and advises to load the file unsafely
        raise UsageError(
            f"{path} is not a readable checkpoint: it is damaged, or holds more than tensors ({type(error).__name__})"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UsageError(f"{path} must hold a state_dict (tensors by name), but holds a {type(state).__name__}")
    return {name.removeprefix("module."): value for name, value in state.items()}


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


def find_checkpoints(args: argparse.Namespace) -> list[Path]:
    """The checkpoints of NTU's unimodal networks, skeleton first: those named, else the only ones in the folder.

    Raises:
        UsageError: none is named, and the folder holds none or several.
    """
    folder = args.checkpointdir
    paths = []
    for flag, kind, frames in (("ske_cp", "skeleton", args.vid_len[1]), ("rgb_cp", "rgb", args.vid_len[0])):
        pattern = f"{kind}_{frames}frames_*.checkpoint"
        found = [folder / getattr(args, flag)] if getattr(args, flag) else sorted(folder.glob(pattern))
        if not found:
            raise UsageError(
                f"{folder} holds no {pattern}; train one with train_{kind}_ntu.py, or name a file with --{flag}"
            )
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise UsageError(f"{folder} holds several {pattern}: {names}; name one with --{flag}")
        paths.append(found[0])
    return paths
