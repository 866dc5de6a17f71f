"""The journal of a search: an append-only file of JSON lines, each flushed to disk before the search goes on.

The first line is a header with the format's version; `features` tells what the feature bank took; each `candidate` was
trained, and a `step` ends with its own line. A search that is resumed reads what it did from here.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from utils.cli import UsageError

FORMAT = 1


def read_journal(path: Path) -> tuple[list[dict], int]:
    """The lines of a journal, and how many bytes they take: a last line without its end is left out.

    Raises:
        UsageError: another line is not one of a journal's, or the format is not known here.
    """
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = [_parse(path, number, line) for number, line in enumerate(whole.split(b"\n") if whole else [], 1)]
    if lines and (lines[0]["kind"] != "header" or lines[0].get("format") != FORMAT):
        raise UsageError(f"{path} is not a journal of format {FORMAT}: it begins with {str(lines[0])[:80]}")
    return lines, len(whole) + bool(whole)


def _parse(path: Path, number: int, line: bytes) -> dict:
    try:
        content = json.loads(line, parse_constant=lambda name: None)  # NaN: not known
        if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
            raise ValueError("it is no object with a kind")
        if content["kind"] == "candidate":
            _check_candidate(content)
        return content
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged: line {number} cannot be read ({error})") from None


def _check_candidate(line: dict) -> None:
    """Raise ValueError where a candidate's line lacks what a search goes on from."""
    configuration, accuracies = line.get("configuration"), line.get("accuracies")
    if not isinstance(line.get("step"), int) or not isinstance(line.get("seconds"), int | float):
        raise ValueError("a candidate needs a step and seconds")
    if not isinstance(configuration, list) or not all(
        isinstance(row, list) and all(isinstance(i, int) for i in row) for row in configuration
    ):
        raise ValueError("a candidate needs a configuration")
    if not isinstance(accuracies, list) or not all(isinstance(a, int | float) for a in accuracies):
        raise ValueError("a candidate needs accuracies")
    if not accuracies and not line.get("failed"):
        raise ValueError("a candidate without accuracies must have failed")


class Journal:
    """Appends lines to a journal, new or begun by an earlier process."""

    def __init__(self, path: Path, header: Mapping[str, object]) -> None:
        """Open it; a torn last line, of a process that was killed, is cut off and reported.

        Raises:
            UsageError: it is damaged, or of a search with another header.
        """
        header = json.loads(json.dumps({"kind": "header", "format": FORMAT, **header}))
        self.lines, size = read_journal(path) if path.exists() else ([], 0)
        if self.lines and self.lines[0] != header:
            raise UsageError(f"{path} is of another search: it begins with {self.lines[0]}, this one with {header}")
        self._path, self._file = path, open(path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        if self._file.seek(0, os.SEEK_END) > size:
            print(f"{path}: the last line was cut off while it was written, and is left out", file=sys.stderr)
            self._file.truncate(size)
        if not self.lines:
            self._write(header)

    def of_kind(self, kind: str) -> Iterator[dict]:
        return (line for line in self.lines if line["kind"] == kind)

    def append(self, kind: str, values: Mapping[str, object]) -> None:
        self._write({"kind": kind, **values})

    def _write(self, line: Mapping[str, object]) -> None:
        rest = json.dumps(line, allow_nan=False).encode() + b"\n"
        try:
            while rest:  # a disk that fills up takes a part first
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        self.lines.append(dict(line))

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
