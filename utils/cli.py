"""The command line of every script: types of flags, output, exit codes."""

import argparse
import contextlib
import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from utils import distributed, interrupts
from utils.errors import ProjectError, one_line
from utils.output import STDOUT, Output, open_output
from utils.parser import Parser, take_flag

MEMORY_FLAGS = (
    "--batchsize",
    "--inner_representation_size",
    "--channels",
    "--vid_dim",
    "--num_outputs",
    "--limit_train",
)
CARRIED = ("--datadir", "--checkpointdir", "--num_outputs", "--channels", "--vid_dim")  # from one script to the next
ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements.txt"
NO_MEMORY = re.compile(
    r"can't allocate memory|out of memory|not enough memory|alloc_failed|bad_alloc|size .*overflow", re.I
)
REQUESTED = re.compile(r"(?:tried|unable) to allocate ([\d.]*\d)\.? ?(bytes|[kmgtpe]ib)", re.I)


def show_next(verbose: bool, *words: object) -> None:
    """Print the command that comes next, with the folders and sizes that this one was given."""
    script, *flags = map(str, words)
    command = ["python", os.path.relpath(ROOT / script), *flags]
    for name in CARRIED:
        value = take_flag(name, Parser.arguments)[0]
        command += [] if value is None else [name, value]
    if verbose:
        print("next:", shlex.join(command))


def make_parser(docstring: str) -> argparse.ArgumentParser:
    """Make a parser whose help is the script's docstring, and which shows every informative default."""

    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action: argparse.Action) -> str | None:
            said = action.default is not None and not isinstance(action.default, bool) and action.default != ""
            return super()._get_help_string(action) if said else action.help

    module = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m`
    name = f"python -m {module.name.removesuffix('.__main__')}" if module else None
    return Parser(prog=name, description=docstring, formatter_class=Formatter)


def _in_range(value: float, text: str, low: float, high: float, kind: str, above: bool = False) -> None:
    if not (low < value <= high if above else low <= value <= high):  # also refuses NaN
        bounds = f"above {low:,} and up to {high:,}" if above else f"from {low:,} to {high:,}"
        raise argparse.ArgumentTypeError(f"must be {kind} {bounds}, but got {text}")


def integer(low: int, high: int) -> Callable[[str], int]:
    """Make an argparse type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value: float = int(text)
        except ValueError:
            value = float("nan")
        _in_range(value, text, low, high, "a whole number")
        return int(value)

    return parse


def number(low: float, high: float, above: bool = False) -> Callable[[str], float]:
    """Make an argparse type: a number from `low`, or `above` it, to `high`."""

    def parse(text: str) -> float:
        value = to_float(text)
        _in_range(value, text, low, high, "a number", above)
        return value

    return parse


def to_float(text: str) -> float:
    """Convert text to a number; NaN, which no range contains, if it is not one."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def probability(text: str) -> float:
    """An argparse type: a number from 0 to below 1."""
    value = to_float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must lie in 0 <= p < 1, but got {text}")
    return value


def folder(text: str) -> Path:
    """A type of flags: a folder, which need not exist."""
    path = Path(text)
    if path.is_file():
        raise argparse.ArgumentTypeError(f"{path} is not a folder; did you mean {path.parent}?")
    return path


def device(text: str) -> str:
    """An argparse type: the name of a device."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda, cuda:N or mps, but got {text}")
    return text


def duration(text: str) -> float:
    """An argparse type: a time such as 90s, 30m, 2h or 1d, in seconds."""
    unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], float("nan"))
    seconds = unit * to_float(text[:-1])
    if not 0 < seconds <= LONGEST:
        raise argparse.ArgumentTypeError(f"must be a time up to 1000d such as 90s, 30m, 2h or 1d, but got {text}")
    return seconds


SEED = integer(0, 2**63 - 1)
COUNT = integer(1, 10**9)  # of samples
EPOCHS = integer(1, 10**6)
PROCESSES = integer(1, 1024)  # or threads
SIDE = integer(1, 4096)  # of a video, in pixels
FRAME_RATE = integer(1, 1000)  # in frames per second
LONGEST = 1000 * 86400


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--no-verbose",
        dest="verbose",
        action="store_false",
        help="print only errors and the final result",
    )


def add_alias(group: argparse._ArgumentGroup, spelling: str, name: str, type_: Callable) -> None:
    """Accept a published spelling of a flag without listing it in the help."""
    group.add_argument(spelling, dest=name, type=type_, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


class Ignore(argparse.Action):
    """Accept a published flag that has no effect here or in the published scripts."""

    def __call__(self, *_) -> None:
        pass


def boolean(text: str) -> bool:
    """An argparse type: True or False."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be True or False, but got {text}")
    return text.lower() == "true"


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; a user's mistake, a failing disk or a lack of memory ends it with one line.

    Exit codes: 0, 1 (the work failed), 2 (invalid usage), 70 (a bug in this project, EX_SOFTWARE of sysexits.h, which
    a scheduler can tell from a run that may be resumed), 130 and 143 (stopped by SIGINT, SIGTERM).
    """
    open_output()
    if distributed.rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the end; process 0 says what there is to say
    try:
        interrupts.install(sys.stderr.fileno() if isinstance(sys.stderr, Output) else 2)  # a signal may be waiting
        main()
        sys.stdout.flush()
    except (Exception, interrupts.Interrupted) as error:
        message, code = _explain(error)
        print(message, end="", file=sys.stderr)
        sys.exit(code)
    finally:
        distributed.leave()
        with contextlib.suppress(OSError):
            sys.stdout.flush()


def _explain(error: BaseException) -> tuple[str, int]:
    """Return the message and the exit code for an error that ends a script."""
    if isinstance(error, interrupts.Interrupted):
        return one_line(error) + "\n", error.exit_code
    if isinstance(error, BrokenPipeError) and error.filename == STDOUT:  # the reader of our output is gone
        return "", 1
    if isinstance(error, distributed.QuietError):
        return "", error.exit_code
    if isinstance(error, ProjectError):
        return f"error: {one_line(error)}\n", error.exit_code
    if isinstance(error, ModuleNotFoundError) and not (ROOT / str(error.name).partition(".")[0]).exists():
        return f"error: the package {error.name} is missing: {sys.executable} -m pip install -r {REQUIREMENTS}\n", 1
    if _is_memory(error):
        return f"error: {_out_of_memory(str(error))}\n", 1
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"error: {one_line(f'{where}{error.strerror or error}')}\n", 1
    frames = "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-4))
    return f"{frames}error: this is a bug; please report it to the project with this text and the command\n", 70


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error))))


def _out_of_memory(reason: str) -> str:
    found = REQUESTED.search(reason)
    amount = ""
    if found:
        amount = (
            f"{float(found[1]) / 1e9:,.1f} GB" if found[2].lower() == "bytes" else f"{float(found[1]):g} {found[2]}"
        )
        amount = f": {amount} were requested at once"
    flags = [flag for flag in MEMORY_FLAGS if flag in Parser.flags]
    return f"out of memory{amount}; " + (
        f"a smaller {' or '.join(flags)} needs less" if flags else "it needs a machine with more"
    )
