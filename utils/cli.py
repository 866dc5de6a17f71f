"""What every script shares on its command line: flag groups, seed, device, run folder, exit codes."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from utils import interrupts
from utils.errors import ProjectError, UsageError


def make_parser(docstring: str) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring as written and which shows the defaults that say something."""

    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action: argparse.Action) -> str | None:
            said = action.default is not None and not isinstance(action.default, bool) and action.default != ""
            return super()._get_help_string(action) if said else action.help

    return argparse.ArgumentParser(description=docstring, formatter_class=Formatter)


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but got {value}")
    return value


def non_negative_int(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but got {value}")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, but got {value}")
    return value


def non_negative_float(text: str) -> float:
    """An argparse type: a number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be at least 0, but got {value}")
    return value


def probability(text: str) -> float:
    """An argparse type: a number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must lie in 0 <= p < 1, but got {value}")
    return value


def duration(text: str) -> float:
    """An argparse type: a time such as 90s, 30m, 2h or 1d, in seconds."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:])
    if unit is None:
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 30m, 2h or 1d, but got {text}")
    return unit * positive_float(text[:-1])


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--no-verbose",
        dest="verbose",
        action="store_false",
        help="print nothing but errors and the final result",
    )


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every script that trains: seed, device, run folder."""
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=non_negative_int, default=0, help="all randomness derives from it")
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes CUDA where there is one"
    )
    group.add_argument(
        "--run_dir",
        type=Path,
        default=None,
        help="folder of the run's files (default: runs/SCRIPT-TIMESTAMP); a run of the same settings in it is resumed",
    )
    group.add_argument("--resume", type=Path, default=None, metavar="RUN_DIR", help="the same, but there must be one")
    group.add_argument(
        "--tensorboard", action="store_true", help="write RUN_DIR/tensorboard too (needs the package tensorboard)"
    )
    group.add_argument(
        "--deterministic", action="store_true", help="on CUDA only deterministic algorithms, where there are some"
    )
    add_verbosity(parser)


def add_amp(group: argparse._ArgumentGroup, default: str = "auto") -> None:
    group.add_argument(
        "--amp",
        nargs="?",
        const="on",
        choices=("auto", "on", "off"),
        default=default,
        help="bfloat16 autocast in training and feature extraction; auto: where the processor computes in bfloat16",
    )


def use_amp(choice: str, device: torch.device) -> bool:
    """Whether to autocast: `auto` asks for hardware that computes in bfloat16, elsewhere it would be slower."""
    if choice != "auto":
        return choice == "on"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpuinfo = Path("/proc/cpuinfo")  # Linux on x86; elsewhere float32 is the safe choice
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()


def add_avmnist_data(parser: argparse.ArgumentParser) -> None:
    """Where AV-MNIST and its checkpoints lie, and how much of it to use."""
    group = parser.add_argument_group("data")
    group.add_argument("--datadir", type=Path, default=Path("data/avmnist"), help="folder made by avmnist_gen.py")
    group.add_argument("--checkpointdir", type=Path, default=Path("checkpoints/avmnist"), help="folder of checkpoints")
    group.add_argument("--num_outputs", type=positive_int, default=10, help="classes")
    group.add_argument("--channels", type=positive_int, default=3, help="channels of the first convolution")
    _add_limits(group)
    group.add_argument(
        "--dev_samples",
        type=positive_int,
        default=None,
        help="so many samples from the end of the training arrays are dev (default: a twelfth, 5000 of 60000)",
    )
    _add_workers(group, 0, "kept from the published scripts: AV-MNIST lives in memory")


def add_avmnist_checkpoints(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("unimodal networks")
    group.add_argument("--audio_cp", default="audio_model.pkl", help="file in checkpointdir, from train_audio.py")
    group.add_argument("--rgb_cp", default="image_model.pkl", help="file in checkpointdir, from train_image.py")


class _VideoLengths(argparse.Action):
    """Frames of the RGB network, then of the skeleton network, whose pooling needs 8."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: list[int], *_) -> None:
        if values[1] < 8:
            parser.error(f"argument --vid_len: a skeleton needs at least 8 frames, but got {values[1]}")
        setattr(namespace, self.dest, values)


def add_ntu_data(parser: argparse.ArgumentParser) -> None:
    """Where NTU RGB+D and its checkpoints lie, how it is read, and how much of it to use."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--datadir", type=Path, default=Path("data/ntu"), help="folder of nturgbd_rgb and nturgbd_skeletons"
    )
    group.add_argument("--checkpointdir", type=Path, default=Path("checkpoints/ntu"), help="folder of checkpoints")
    group.add_argument("--num_outputs", type=positive_int, default=60, help="classes")
    group.add_argument("--vid_dim", type=positive_int, default=256, help="side of the prepared videos, pixels")
    group.add_argument("--vid_fr", type=positive_int, default=30, help="frame rate of the prepared videos")
    group.add_argument(
        "--vid_len",
        action=_VideoLengths,
        type=positive_int,
        nargs=2,
        default=[8, 32],
        metavar=("RGB", "SKELETON"),
        help="frames that the networks see; skeletons at least 8",
    )
    group.add_argument(
        "--frame_sampling",
        choices=("published", "uniform"),
        default="published",
        help="published: the last of the frames is black, which the published weights saw",
    )
    group.add_argument("--no_norm", action="store_true", help="leave skeletons where they are in the room")
    group.add_argument(
        "--no_bad_skel", action="store_true", help="leave out samples of bad_skel.txt and those without a body"
    )
    group.add_argument(
        "--skip_bad_samples",
        action="store_true",
        help="first read all samples (after --limit_*) and leave out, and list, those whose files are damaged",
    )
    _add_limits(group)
    _add_workers(group, min(8, os.cpu_count() or 1), "processes that read samples; 0 reads in the main process")


def add_ntu_checkpoints(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("unimodal networks")
    for flag, kind, script in (("ske_cp", "skeleton", "train_skeleton_ntu.py"), ("rgb_cp", "rgb", "train_rgb_ntu.py")):
        group.add_argument(
            f"--{flag}",
            default="",
            help=f"file in checkpointdir, from {script} (default: the published one, or the only "
            f"{kind}_<frames>frames_*.checkpoint there)",
        )


def add_feature_data(parser: argparse.ArgumentParser) -> None:
    """Where features of one's own networks lie, and how many samples of them to use."""
    group = parser.add_argument_group("data")
    group.add_argument("--datadir", type=Path, required=True, help="folder of train.npz, dev.npz and test.npz")
    group.add_argument("--checkpointdir", type=Path, default=Path("checkpoints/features"), help="folder of checkpoints")
    _add_limits(group)


def _add_limits(group: argparse._ArgumentGroup) -> None:
    for split in ("train", "dev", "test"):
        without = ", which a search does not read" if split == "test" else ""
        words = f"use only the first so many samples of {split}{without}"
        group.add_argument(f"--limit_{split}", type=positive_int, default=None, help=words)


def limits(args: argparse.Namespace, prefix: str = "") -> dict[str, int | None]:
    """How many samples of each split to use, by its name after `prefix`; None: all."""
    return {f"{prefix}{split}": getattr(args, f"limit_{split}") for split in ("train", "dev", "test")}


def _add_workers(group: argparse._ArgumentGroup, default: int, text: str) -> None:
    group.add_argument("--num_workers", "--j", type=non_negative_int, default=default, help=text)
    add_alias(group, "--workers_num", "num_workers", non_negative_int)


def add_alias(group: argparse._ArgumentGroup, spelling: str, name: str, type_: Callable) -> None:
    """Accept a published spelling of a flag without listing it in the help."""
    group.add_argument(spelling, dest=name, type=type_, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


class Ignore(argparse.Action):
    """A published flag that has no effect, there as here."""

    def __call__(self, *_) -> None:
        pass


def boolean(text: str) -> bool:
    """An argparse type: True or False."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be True or False, but got {text}")
    return text.lower() == "true"


def resolve_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device.

    Raises:
        UsageError: `cuda` was asked for and this machine or this build of torch has none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda needs a CUDA device, but torch sees none; use --device cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`: a mistake of the user's or a failing disk gives one line, not a traceback.

    Exit codes: 0, 1 (the work failed), 2 (wrong use), 130 and 143 (stopped by SIGINT, SIGTERM).
    """
    sys.stdout.reconfigure(line_buffering=True)  # a log file shows each line as it comes
    interrupts.install()
    try:
        main()
    except interrupts.Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except BrokenPipeError:  # the reader of our output went away: nothing left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, torch.OutOfMemoryError):
        print("error: out of memory; a smaller --batchsize needs less", file=sys.stderr)
        sys.exit(1)
    except ProjectError as error:
        print("error:", *str(error).splitlines(), file=sys.stderr)  # whatever a file is called, one line
        sys.exit(error.exit_code)
