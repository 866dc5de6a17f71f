"""The parser of every script's command line."""

import argparse
import difflib
import shlex
import sys
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from utils.errors import UsageError
from utils.reading import read_json

SYNONYMS = {"--lr": "--eta_max", "--learning_rate": "--eta_max"}  # of scripts that do not have them


class Parser(argparse.ArgumentParser):
    """A parser whose errors are the project's own: one line; a flag must be written out, so that none is mistaken."""

    flags: ClassVar[set[str]] = set()  # of all parsers of this process
    arguments: ClassVar[list[str]] = []  # the last command line parsed, those of a run to resume first

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help lists all flags")

    def parse_args(self, args=None, namespace=None):
        """Parse the command line; with `--resume RUN_DIR`, on top of the command that started the run."""
        given = sys.argv[1:] if args is None else list(args)
        if unknown_flag := self._unknown(given):  # before argparse reports which flags are missing
            self._refuse(unknown_flag)
        Parser.arguments = [*self._recorded(given), *given]
        parsed, unknown = self.parse_known_args(Parser.arguments, namespace)
        if unknown:
            self._refuse(unknown[0])
        return parsed

    def _unknown(self, arguments: list[str]) -> str | None:
        """The first unknown flag."""
        flags = (word.partition("=")[0] for word in arguments if word.startswith("--"))
        return next((flag for flag in flags if flag not in self._option_string_actions), None)

    def _refuse(self, argument: str) -> NoReturn:
        """Raise UsageError for an unknown argument, with the flag that was probably meant."""
        known = {name.removeprefix("--"): name for name in self._option_string_actions if name.startswith("--")}
        wanted = argument.removeprefix("--")
        near = [SYNONYMS[argument]] if SYNONYMS.get(argument) in known.values() else []
        near += sorted((known[name] for name in known if wanted and name.startswith(wanted)), key=len)
        near += [known[name] for name in difflib.get_close_matches(wanted, known, 1)]
        if near and argument.startswith("--"):
            raise UsageError(f"unrecognized argument {argument}; did you mean {near[0]}?")
        self.error(f"unrecognized argument {argument}")

    def parse_known_args(self, args=None, namespace=None):
        Parser.flags |= self._option_string_actions.keys()
        return super().parse_known_args(args, namespace)

    def _recorded(self, given: list[str]) -> list[str]:
        """Flags of the command that started the run to resume, with the cycle that they stood for.

        Raises:
            UsageError: there is no such run of this script, or `--run_dir` names another folder.
        """
        folder = take_flag("--resume", given)[0] if "--resume" in self._option_string_actions else None
        if folder is None:
            return []
        other = take_flag("--run_dir", given)[0]
        if other is not None and Path(other) != Path(folder):
            raise UsageError(f"--resume {folder} and --run_dir {other} name two folders; leave one out")
        path, script = Path(folder) / "args.json", Path(sys.argv[0]).name
        if not path.is_file():
            raise UsageError(f"--resume takes the folder of a run, but {folder} holds no args.json")
        about = read_json(path, {"script": str, "command": str, "settings": dict})
        if about["script"] != script:
            raise UsageError(f"{folder} holds a run of {about['script']}, not of {script}")
        try:
            command = take_flag("--run_dir", shlex.split(about["command"])[2:])[1]
        except ValueError as error:
            raise UsageError(f"{path} is damaged: its command cannot be parsed ({error})") from None
        if unknown := self._unknown(command):
            raise UsageError(
                f"{path} is of another version: there is no {unknown}; give all flags, with --run_dir {folder}"
            )
        if (period := about["settings"].get("Ti")) is None:
            return command
        return ["--Ti", str(period), *take_flag("--Ti", command)[1]]  # its default depends on --epochs, which may grow


def take_flag(flag: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """Take a flag out of a command line: return its value, None if it is missing, and all other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, dest="value", nargs="?")
    taken, others = parser.parse_known_args(arguments)
    return taken.value, others
