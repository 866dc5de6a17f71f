"""The journal of a search: an append-only file of JSON lines, each flushed to disk before the search continues.

The first line is a header with the version of the format. A `features` line records the cost of the feature bank, a
`candidate` line each trained candidate, and a `step` line the end of each step. A resumed search replays the journal.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from utils.errors import UsageError
from utils.files import errors_name
from utils.reading import conform, parse_json, read_json_bytes, shown
from utils.search.space import MOST_FEATURES, Configuration, as_configuration, format_configuration

FORMAT = 1
OPTIONAL = (None, float)


def _share(value: object) -> None:
    """A schema: a number from 0 to 1."""
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ValueError(f"must lie in 0..1, but is {shown(value)}")


def _size(value: object) -> None:
    """A schema: a number of features."""
    if type(value) is not int or not 0 < value <= MOST_FEATURES:
        raise ValueError(f"must be an integer from 1 to {MOST_FEATURES}, but is {shown(value)}")


SIZES = [_size]
FORMS: dict[str, dict] = {  # by kind of line
    "header": {"search?": str, "score?": str, "modalities?": [str], "sizes?": SIZES, "activations?": [str]},
    "features": {"seconds": float},
    "candidate": {
        **{"step": int, "configuration": as_configuration, "accuracies": [_share], "seconds": float},
        **{"predicted?": OPTIONAL, "failed?": str},
    },
    "step": {
        **{"step": int, "seconds": float, "surrogate_seconds?": float, "temperature?": OPTIONAL},
        **{"candidates?": int, "search_iteration?": (None, int), "level?": (None, int)},
        **{"surrogate_loss?": OPTIONAL, "rank_correlation?": OPTIONAL},
    },
}


def read_journal(path: Path) -> tuple[list[dict], int]:
    """Read the lines of a journal and return them with their size in bytes; an incomplete last line is left out.

    Raises:
        UsageError: another line is damaged, or the format is unknown.
    """
    content = read_json_bytes(path)
    end = content.rfind(b"\n") + 1
    lines: list[dict] = []
    for number, line in enumerate(content[:end].split(b"\n")[:-1], 1):
        try:
            lines.append(_parse(line))
        except ValueError as error:
            raise UsageError(f"{path} is damaged: line {number} cannot be read ({error})") from None
    if lines and (lines[0]["kind"] != "header" or lines[0].get("format") != FORMAT):
        raise UsageError(f"{path} is not a journal of format {FORMAT}: it begins with {str(lines[0])[:80]}")
    return lines, end


def _parse(line: bytes) -> dict:
    """Parse a line; raise ValueError if it lacks what a resumed search needs."""
    content = parse_json(line)
    conform(content, {"kind": str})
    conform(content, FORMS.get(content["kind"], {}))
    if content["kind"] == "candidate" and not content["accuracies"] and not content.get("failed"):
        raise ValueError("a candidate without accuracies must have failed")
    return content


def best_of(candidates: Iterable[Mapping], count: int = 5) -> list[dict]:
    """Return the best {configuration, accuracy} among candidates' lines; ties keep the order of training."""
    best: dict[Configuration, float] = {}
    for line in candidates:
        if not line.get("failed"):
            configuration, accuracy = as_configuration(line["configuration"]), max(line["accuracies"])
            if accuracy > best.get(configuration, -1.0):
                best.pop(configuration, None)  # its place is that of the candidate that reached the accuracy
                best[configuration] = accuracy
    ranked = sorted(best.items(), key=lambda item: -item[1])[:count]
    return [{"configuration": configuration, "accuracy": accuracy} for configuration, accuracy in ranked]


class Journal(contextlib.AbstractContextManager):
    """Append lines to a new or existing journal."""

    def __init__(self, path: Path, header: Mapping[str, object]) -> None:
        """Open the journal; an incomplete last line, from a killed process, is cut off and reported.

        Raises:
            UsageError: it is damaged, or belongs to a search with another header.
        """
        header = parse_json(json.dumps({"kind": "header", "format": FORMAT, **header}))
        self.lines, size = read_journal(path) if path.exists() else ([], 0)
        if self.lines and self.lines[0] != header:
            raise UsageError(
                f"{path} belongs to another search: it begins with {self.lines[0]}, this one with {header}"
            )
        self.path, self._file = path, open(path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        if self._file.seek(0, os.SEEK_END) > size:
            print(f"{path}: the last line was cut off while it was written, and is left out", file=sys.stderr)
            with errors_name(path):
                self._file.truncate(size)
        if not self.lines:
            self.append("header", header)

    def of_kind(self, kind: str) -> Iterator[dict]:
        return (line for line in self.lines if line["kind"] == kind)

    def seconds(self, kind: str, name: str = "seconds") -> float:
        """Sum a duration over all lines of a kind."""
        return sum(line.get(name, 0) for line in self.of_kind(kind))

    def append(self, kind: str, values: Mapping[str, object]) -> None:
        line = {"kind": kind, **values}
        rest = json.dumps(line, allow_nan=False).encode() + b"\n"
        with errors_name(self.path):
            while rest:  # a disk that fills up first writes only a part
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        self.lines.append(line)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def as_rows(candidates: Iterable[Mapping]) -> Iterator[Sequence[object]]:
    """The candidates as a table for spreadsheets, in the order of training."""
    yield ["number", "step", "configuration", "layers", "dev", "predicted", "seconds", "failed"]
    for number, line in enumerate(candidates, 1):
        configuration, dev = line["configuration"], max(line["accuracies"], default="")
        shown = format_configuration(configuration), len(configuration), dev, line.get("predicted")
        yield [number, line["step"], *shown, line["seconds"], line.get("failed", "")]
