"""The run folder: it belongs to one command, which one process at a time starts or resumes."""

import contextlib
import dataclasses
import itertools
import json
import os
import secrets
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils import distributed, interrupts
from utils.errors import UsageError
from utils.files import locked, sweep, write_json
from utils.parser import Parser, take_flag
from utils.reading import parse_json, read_json
from utils.report.board import check_board
from utils.report.contents import ARGS, EXTENDED, FREE
from utils.report.live import reported
from utils.training.checkpoints import names_file
from utils.training.devices import Compute


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Settings of a run that do not belong to the method."""

    flags: Mapping[str, object]  # all flags by name, JSON-serializable
    checkpointdir: Path
    run_dir: Path | None
    resume: Path | None
    seed: int
    compute: Compute
    verbose: bool
    tensorboard: bool
    deterministic: bool

    @property
    def device(self) -> torch.device:
        return self.compute.device


def warn_of_stand_in(results: Mapping[str, Any]) -> None:
    """Print that the results are those of a stand-in for the data set, if they say so."""
    if results.get("stand_in"):
        print("the data set is a stand-in: these figures are not results on the real one")


@contextlib.contextmanager
def open_run(run: RunSettings, inputs: Mapping[str, object], extensible: bool = False) -> Iterator[Path]:
    """Open and lock the run folder, and write `args.json`: command, settings, inputs and versions.

    A folder that holds a run with the same settings is resumed. Within the context, signals take effect at safe points.

    Args:
        inputs: fingerprints of the data and files that the run reads (JSON-serializable), by name.
        extensible: the run may be resumed with more epochs.

    Raises:
        UsageError: `--resume` names no run, or the folder holds a run of other settings or inputs.
        LockedError: another process is working in it.
    """
    if run.tensorboard:
        check_board([str(run.run_dir or run.resume), *run.flags.values()])
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        torch.use_deterministic_algorithms(True, warn_only=True)
    with contextlib.ExitStack() as stack:
        if not distributed.rank():
            stack.enter_context(_writable(run.checkpointdir))
        folder = distributed.from_first(lambda: _folder(run))
        distributed.check_same(dict(itertools.chain(*(part.items() for part in _facts(run.flags, inputs).values()))))
        if not distributed.rank():
            stack.enter_context(_writable(folder))
            stack.enter_context(locked(folder))
            sweep(run.checkpointdir)
            if _describe(folder, run.flags, inputs, extensible) and run.verbose:
                print(f"resuming the run in {folder}")
            stack.enter_context(_advise_to_resume(folder))
            stack.enter_context(reported(folder))
        _check_shared(folder)
        with interrupts.gently():
            yield folder


@contextlib.contextmanager
def open_training(run: RunSettings, inputs: Mapping[str, object]) -> Iterator[Path]:
    """Open the run folder of one network's training; errors name the checkpoint of its best epoch so far.

    The training may be extended if its learning rates do not depend on the number of epochs.
    """
    extensible = run.flags.get("schedule") in ("constant", "cosine")
    with open_run(run, inputs, extensible) as folder, names_file(folder / "best.checkpoint"):
        yield folder


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Create a folder and write to it, to fail now rather than after hours; what stays empty is removed at the end."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        yield
    finally:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def _folder(run: RunSettings) -> Path:
    if run.resume is None:
        return run.run_dir or _fresh(Path("runs") / f"{Path(sys.argv[0]).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    return run.resume


def _fresh(wanted: Path) -> Path:
    """Make a folder of this name, with a number appended if several runs start at once."""
    for number in itertools.count(1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError("unreachable")


def _check_shared(folder: Path) -> None:
    """Raise UsageError if a process of the run does not see the folder of process 0."""
    if distributed.world() > 1:
        mark = folder / distributed.from_first(lambda: f".seen.{secrets.token_hex(8)}.tmp")  # which `sweep` removes
        if distributed.rank() == 0:
            mark.touch()
        distributed.gather(None)
        hosts = [host for host, seen in distributed.gather((socket.gethostname(), mark.exists())) if not seen]
        if distributed.rank() == 0:
            mark.unlink()
        if hosts and distributed.rank():
            raise distributed.QuietError
        if hosts:
            raise UsageError(f"{hosts[0]} does not see {folder}; name a --run_dir that all hosts share")


def _facts(flags: Mapping[str, object], inputs: Mapping[str, object]) -> dict[str, Any]:
    """Settings, inputs and versions, which must be equal in all processes of a run and when it is resumed."""
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__}
    return parse_json(json.dumps({"settings": flags, "inputs": inputs, "versions": versions}))


def _describe(run_dir: Path, flags: Mapping[str, object], inputs: Mapping[str, object], extensible: bool) -> bool:
    """Write args.json, or compare with the existing one; return True if there was one."""
    path, script = run_dir / "args.json", Path(sys.argv[0]).name
    about = {"script": script, "command": _command(script), **_facts(flags, inputs)}
    versions = about["versions"]
    if not path.exists():
        for name in ("journal.jsonl", "results.json", "best.json"):
            if (run_dir / name).exists():
                raise UsageError(f"{run_dir} holds {name} of another run; name another --run_dir")
        write_json(path, about)
        return False
    before = read_json(path, ARGS)
    _check_same(path, before, about, extensible)
    settings = about["settings"]
    if any(before["settings"].get(name) != settings[name] for name in (EXTENDED | {"epochs"}) & settings.keys()):
        write_json(path, {**before, "command": about["command"], "settings": settings})
    for name, version in before["versions"].items():
        if versions.get(name) != version:
            print(f"{run_dir} was started with {name} {version}, this is {versions.get(name)}", file=sys.stderr)
    return True


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], extensible: bool) -> None:
    """Raise UsageError if a run with this args.json cannot be resumed by a command with that one."""
    run_dir = path.parent
    if before.get("script") != now["script"]:
        raise UsageError(
            f"{run_dir} holds a run of {before.get('script')}, not of {now['script']}; name another --run_dir"
        )
    if not isinstance(before.get("settings"), dict) or not isinstance(before.get("versions"), dict):
        raise UsageError(f"{path} is damaged: it lacks settings or versions; name another --run_dir")
    for name, value in before["settings"].items():
        if name == "epochs" and extensible and isinstance(value, int) and now["settings"]["epochs"] > value:
            continue
        if name not in FREE | EXTENDED and now["settings"].get(name, value) != value:
            raise UsageError(
                f"{run_dir} holds a run with {name} {value}, but this command has {now['settings'][name]}; "
                "give the same flags, or name another --run_dir"
            )
    for name, value in before.get("inputs", {}).items():
        if now["inputs"].get(name) != value:
            raise UsageError(
                f"{run_dir} holds a run with other inputs ({name}) than this command; name another --run_dir"
            )


def _command(script: str) -> str:
    """The command with `--run_dir RUN_DIR` for `--resume RUN_DIR`, which needs an existing run."""
    folder, arguments = take_flag("--resume", Parser.arguments)
    return shlex.join(["python", script, *arguments, *(["--run_dir", folder] if folder else [])])


@contextlib.contextmanager
def _advise_to_resume(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except interrupts.Interrupted as stop:
        stop.args = (f"{stop}; to resume: python {sys.argv[0]} --resume {run_dir}",)
        raise
