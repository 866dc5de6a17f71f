"""The command line of every script: parser, types of flags, exit codes."""

import argparse
import io
import os
import sys
from collections.abc import Callable

import torch

from utils import interrupts
from utils.errors import ProjectError


def make_parser(docstring: str) -> argparse.ArgumentParser:
    """Make a parser whose help is the script's docstring, and which shows every informative default."""

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
        help="print only errors and the final result",
    )


def add_alias(group: argparse._ArgumentGroup, spelling: str, name: str, type_: Callable) -> None:
    """Accept a published spelling of a flag without listing it in the help."""
    group.add_argument(spelling, dest=name, type=type_, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


class Ignore(argparse.Action):
    """Accept a published flag that has no effect, neither here nor in the published scripts."""

    def __call__(self, *_) -> None:
        pass


def boolean(text: str) -> bool:
    """An argparse type: True or False."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be True or False, but got {text}")
    return text.lower() == "true"


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; a user's mistake or a failing disk ends it with one line instead of a traceback.

    Exit codes: 0, 1 (the work failed), 2 (invalid usage), 130 and 143 (stopped by SIGINT, SIGTERM).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so that a log file shows each line at once
    interrupts.install()
    try:
        main()
    except interrupts.Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except BrokenPipeError:  # the reader of our output is gone
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
        print("error:", *str(error).splitlines(), file=sys.stderr)  # one line, whatever the file's name
        sys.exit(error.exit_code)
