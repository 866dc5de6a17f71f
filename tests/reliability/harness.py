"""Starts real scripts, kills them, starts them again, and compares what they leave with an uninterrupted run.

A home is a folder to run in, so that the reference and the killed runs name the same relative paths. `survive` is the
loop: strike a life, look at what is there, start the next one, until the script ends by itself.
"""

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.reliability.compare import differences
from tests.reliability.hooks import operations

ROOT = Path(__file__).parents[2]
TIMEOUT = 120  # seconds that no script here should take
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT)}
Command = Sequence[object]


class Life:
    """A running process of a script, from its start to its end."""

    def __init__(self, pid: int, out: Path, err: Path, reap: Callable[[], int]) -> None:
        self.pid, self._out, self._err, self._reap = pid, out, err, reap
        self._handle = os.pidfd_open(pid)  # no signal can hit another process that got the same number
        self.code: int | None = None

    def ends(self, within: float) -> bool:
        """Whether it ends within so many seconds."""
        return bool(select.select([self._handle], [], [], within)[0])

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Its exit code; below 0 the signal that killed it."""
        if self.code is None:
            if not self.ends(timeout):
                self.send(signal.SIGKILL)
                raise AssertionError(f"no end after {timeout} s\n{self.output}\n{self.errors}")
            self.code = self._reap()
            os.close(self._handle)
        return self.code

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._err.read_text()

    @property
    def complaints(self) -> list[str]:
        """What it said on its error output, without the progress bars."""
        return [line for line in self.errors.splitlines() if line.strip() and not re.search(r"\d+%\|", line)]

    def stopped(self) -> bool:
        """Whether a signal holds it, so that it is neither running nor ended; waits for it to come to that."""
        while not self.ends(0.002):
            if Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T":
                return True
        return False

    def report(self) -> str:
        return "\n".join([f"exit code {self.code}", self.output[-2000:], *self.complaints])


class Server:
    """Forks a process for each script; see `tests.reliability.server`."""

    def __init__(self, logs: Path, prefix: Sequence[str] = ()) -> None:
        """Start it; `prefix` is a command that starts another one, such as unshare."""
        self.logs, self.started = logs, 0
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.reliability.server"],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, request: dict) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, home: Path, command: Command, fault: dict | None = None, log: bool = False) -> Life:
        """Start `[SCRIPT, flag, ...]` in the folder `home`; `fault` and `log` are those of `hooks.install`."""
        out, err = self._outputs()
        pid = self._ask(
            {
                "command": [str(word) for word in command],
                "cwd": str(home),
                "stdout": str(out),
                "stderr": str(err),
                "fault": fault,
                "log": str(out.with_suffix(".log")) if log else None,
            }
        )
        return Life(pid, out, err, lambda: self._ask({"wait": pid}))

    def shell(self, text: str) -> int:
        """Run a line of shell where the server is; returns its exit code."""
        return self._ask({"shell": text})

    def run(self, home: Path, command: Command, code: int = 0, fault: dict | None = None) -> Life:
        """Run a script to its end, which must have this exit code."""
        life = self.start(home, command, fault)
        assert life.wait() == code, life.report()
        assert "Traceback" not in life.errors, life.errors
        return life

    def reference(self, home: Path, command: Command) -> "Reference":
        """Run a script to its end, uninterrupted, and say what it did on the way."""
        started = time.perf_counter()
        life = self.start(home, command, log=True)
        assert life.wait() == 0, life.report()
        log = self.logs / f"{life._out.stem}.log"
        return Reference(home, time.perf_counter() - started, operations(log))

    def genuine(self, home: Path, command: Command) -> Life:
        """As `start`, by a command line of its own and without hooks: as a user would, seconds slower."""
        out, err = self._outputs()
        script, *arguments = map(str, command)
        program = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
        with open(out, "w") as stdout, open(err, "w") as stderr:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                cwd=home,
                env=os.environ | ENVIRONMENT,
                stdout=stdout,
                stderr=stderr,
            )
        return Life(process.pid, out, err, process.wait)

    def _outputs(self) -> tuple[Path, Path]:
        self.started += 1
        return self.logs / f"{self.started}.out", self.logs / f"{self.started}.err"


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run: its folder, the seconds it took, and its file operations (kind, path)."""

    home: Path
    seconds: float
    operations: list[tuple[str, str]]

    def numbers(self, *kinds: str, within: str = "") -> list[int]:
        """Which operations are of some kinds, on a path that contains `within`."""
        return [i for i, (kind, path) in enumerate(self.operations) if kind in kinds and within in path]


@dataclass
class Tally:
    """Faults injected by a test, by what was done, and of which script."""

    script: str = ""
    injected: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.injected.items() if what.startswith("kill"))


class Strike(Protocol):
    """A way to kill a process; see `tests.reliability.strikes`."""

    name: str

    def strike(self, server: Server, home: Path, command: Command) -> Life: ...


def survive(
    server: Server,
    tally: Tally,
    reference: Reference,
    new_home: Callable[[], Path],
    command: Callable[[Path], Command],
    strikes: Iterator[Strike],
    kills: int,
    between: Callable[[Path, int], None] = lambda home, kills: None,
    ignore: Sequence[str] = (),
) -> None:
    """Kill lives of a script `kills` times; each time that one ends by itself, what it left must equal the reference.

    Args:
        new_home: a folder as it was before the reference ran.
        command: given the folder; may be another one once there is something to resume.
        strikes: some may miss, when a life ends before.
        between: looks at a folder after each kill, and may damage it.
        ignore: patterns of files that may differ.
    """
    struck, home = 0, new_home()
    while True:
        if struck < kills:
            strike = next(strikes)
            life = strike.strike(server, home, command(home))
        else:
            life = server.start(home, command(home))
        code = life.wait()
        if code == -signal.SIGKILL:
            struck += 1
            tally.injected[strike.name] += 1
            between(home, struck)
            continue
        assert code == 0, f"{command(home)} after {struck} kills: {life.report()}"
        assert "Traceback" not in life.errors, life.errors
        unlike = differences(reference.home, home, ignore)
        assert not unlike, f"after {struck} kills, the last {strike}: {unlike}\n{life.report()}"
        shutil.rmtree(home)
        if struck == kills:
            return
        home = new_home()


def resuming(command: Command, run_dir: str) -> Callable[[Path], Command]:
    """Every other time that there is a run to resume, the command with --resume in place of --run_dir."""
    place, times = list(command).index("--run_dir"), 0

    def choose(home: Path) -> Command:
        nonlocal times
        there = (home / run_dir / "args.json").exists()
        times += there
        return [*command[:place], "--resume", *command[place + 1 :]] if there and times % 2 else command

    return choose


def read_whole_lines(path: Path) -> list[dict]:
    """The lines of a journal, without a last one that has no end; none where there is no file."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


# Damage.


def cut(path: Path, count: int) -> None:
    """Cut the last bytes off a file."""
    with open(path, "rb+") as file:
        file.truncate(max(0, path.stat().st_size - count))


def flip(path: Path, position: int) -> None:
    """Flip all bits of one byte."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
