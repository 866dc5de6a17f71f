"""Ways to kill a process: at a file operation, at a time, as a file grows. Each ends a life, or lets it end."""

import contextlib
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.harness import Command, Life, Reference, Server


@dataclass(frozen=True)
class AtOperation:
    """Kill before, after or amid the N-th file operation, N counted from the start of the life."""

    number: int
    how: str  # before, after, torn
    within: str = ""  # only operations on paths that contain this are counted

    name = "kill at a file operation"

    def strike(self, server: Server, home: Path, command: Command) -> Life:
        return server.start(home, command, {"how": self.how, "at": self.number, "within": self.within})


@dataclass(frozen=True)
class AfterSeconds:
    """Kill at a time, counted from the start."""

    seconds: float
    name = "kill at a random time"

    def strike(self, server: Server, home: Path, command: Command) -> Life:
        life = server.start(home, command)
        if not life.ends(self.seconds):
            life.send(signal.SIGKILL)
        return life


@dataclass(frozen=True)
class WhenGrown:
    """Kill as soon as the files that a pattern matches hold `more` bytes, or lines, than at the start of the life."""

    pattern: str
    more: int = 1
    lines: bool = False
    genuine: bool = False
    name = "kill as a file grows"

    def size(self, home: Path) -> int:
        total = 0
        with contextlib.suppress(FileNotFoundError):  # they come and go while they are looked at
            for path in home.glob(self.pattern):
                total += path.read_bytes().count(b"\n") if self.lines else path.stat().st_size
        return total

    def strike(self, server: Server, home: Path, command: Command) -> Life:
        before = self.size(home)
        life = (server.genuine if self.genuine else server.start)(home, command)
        while not life.ends(0.001):
            if self.size(home) >= before + self.more:
                life.send(signal.SIGKILL)
                break
        return life


Strike = AtOperation | AfterSeconds | WhenGrown


def strikes(seed: int, reference: Reference, files: str, lines: bool = False) -> Iterator[Strike]:
    """Strikes without end, mixed: half at file operations, a quarter at times, a quarter as `files` grow.

    Early operations are likelier than late ones: every life but the first has less to do than the reference.
    """
    rng = random.Random(seed)
    count = len(reference.operations)
    while True:
        for how in ("before", "after"):
            yield AtOperation(int(count * rng.random() ** 2), rng.choice((how, "torn")))
        yield AfterSeconds(reference.seconds * rng.random() * 0.8)
        yield WhenGrown(files, rng.randint(1, 6 if lines else 5000), lines)
