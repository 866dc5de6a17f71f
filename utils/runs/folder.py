"""The folder of a run: it belongs to one command, which one process at a time starts, or goes on with."""

import argparse
import contextlib
import itertools
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from utils import interrupts
from utils.errors import UsageError
from utils.files import locked, read_json, sweep, write_json
from utils.report.board import check_board
from utils.report.contents import EXTENDED, FREE


@contextlib.contextmanager
def open_run(args: argparse.Namespace, inputs: Mapping[str, object]) -> Iterator[Path]:
    """The run folder, locked, with `args.json`: the command that reproduces the run, settings, inputs and versions.

    A folder that holds a run of the same settings is gone on with. Within, signals take effect at safe places.

    Args:
        inputs: what tells the data and files that the run reads from others, as JSON values by name.

    Raises:
        UsageError: `--resume` names no run, or the folder holds a run of other settings or inputs.
        LockedError: another process works in it.
    """
    run_dir = _folder(args)
    if args.tensorboard:
        check_board()
    for folder in (run_dir, args.checkpointdir):  # better now than after hours of training
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS asks for
        torch.use_deterministic_algorithms(True, warn_only=True)
    with locked(run_dir):
        sweep(args.checkpointdir)
        if _describe(run_dir, args, inputs) and args.verbose:
            print(f"going on with the run in {run_dir}")
        with _tells_how_to_resume(run_dir), interrupts.gently():
            yield run_dir


def _folder(args: argparse.Namespace) -> Path:
    if args.resume is None:
        return args.run_dir or _fresh(Path("runs") / f"{Path(sys.argv[0]).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    if args.run_dir is not None and args.run_dir != args.resume:
        raise UsageError(f"--resume {args.resume} and --run_dir {args.run_dir} name two folders; leave one out")
    if not (args.resume / "args.json").is_file():
        raise UsageError(f"--resume takes the folder of a run, but {args.resume} holds no args.json")
    return args.resume


def _fresh(wanted: Path) -> Path:
    """Make a folder of this name, or where several runs start at once, of the next like it."""
    for name in itertools.chain([wanted.name], (f"{wanted.name}-{i}" for i in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            wanted.with_name(name).mkdir(parents=True)
            return wanted.with_name(name)


def _describe(run_dir: Path, args: argparse.Namespace, inputs: Mapping[str, object]) -> bool:
    """Write args.json, or compare with the one that is there; returns whether there was one."""
    path = run_dir / "args.json"
    script = Path(sys.argv[0]).name
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__}
    if not path.exists():
        for name in ("journal.jsonl", "results.json", "best.json"):
            if (run_dir / name).exists():
                raise UsageError(f"{run_dir} holds {name} of another run; name another --run_dir")
        about = {"script": script, "command": _command(script), "settings": settings}
        write_json(path, {**about, "inputs": inputs, "versions": versions})
        return False
    before = read_json(path)
    if before.get("script") != script:
        raise UsageError(f"{run_dir} holds a run of {before.get('script')}, not of {script}; name another --run_dir")
    if not isinstance(before.get("settings"), dict) or not isinstance(before.get("versions"), dict):
        raise UsageError(f"{path} is damaged: it lacks settings or versions; name another --run_dir")
    settings, inputs = json.loads(json.dumps(settings)), json.loads(json.dumps(inputs))
    for name, value in before["settings"].items():
        if name not in FREE | EXTENDED and name in settings and settings[name] != value:
            raise UsageError(
                f"{run_dir} holds a run with {name} {value}, but this command has {settings[name]}; "
                "give the same flags, or name another --run_dir"
            )
    for name, value in before.get("inputs", {}).items():
        if inputs.get(name) != value:
            raise UsageError(
                f"{run_dir} holds a run with another {name}, which has changed since it began; name another --run_dir"
            )
    if any(before["settings"].get(name) != settings[name] for name in EXTENDED & settings.keys()):
        write_json(path, {**before, "command": _command(script), "settings": settings})
    for name, version in before["versions"].items():
        if versions.get(name) != version:
            print(f"{run_dir} was begun with {name} {version}, this is {versions.get(name)}", file=sys.stderr)
    return True


def _command(script: str) -> str:
    """The command without `--resume RUN_DIR`, which asks for a run that is there."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume")
    return shlex.join(["python", script, *parser.parse_known_args()[1]])


@contextlib.contextmanager
def _tells_how_to_resume(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except interrupts.Interrupted as stop:
        stop.args = (f"{stop}; to go on, give the same command with --resume {run_dir}",)
        raise
