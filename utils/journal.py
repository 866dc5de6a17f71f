"""The journal of a search: an append-only file of JSON lines, each flushed to disk before the search goes on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

FORMAT = 1


class Journal:
    """Appends lines to `journal.jsonl`; the first line is a header with the format version."""

    def __init__(self, path: Path, header: Mapping[str, object]) -> None:
        self._file = open(path, "w")  # noqa: SIM115 - closed by __exit__
        self.append("header", {"format": FORMAT, **header})

    def append(self, kind: str, values: Mapping[str, object]) -> None:
        self._file.write(json.dumps({"kind": kind, **values}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
