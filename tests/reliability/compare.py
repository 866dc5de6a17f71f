"""Whether two folders that runs of the same command left hold the same, but for times."""

import csv
import fnmatch
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

TIMES = {"seconds", "surrogate_seconds", "seconds_by_part"}  # keys in records
FREE = ("*.html", "*/args.json", "*.lock")  # a report shows times, args.json the last command; a lock, the process
CHECKPOINTS = (".pkl", ".checkpoint")


def files(home: Path) -> dict[str, Path]:
    """All files below a folder, by relative name; links to folders are not entered."""
    return {str(path.relative_to(home)): path for path in sorted(home.rglob("*")) if path.is_file()}


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def read_lines(path: Path) -> list[dict]:
    return [without_times(json.loads(line)) for line in path.read_text().splitlines()]


def _unequal(a: Any, b: Any, where: str) -> Iterator[str]:
    """Where two checkpoints differ; tensors bit for bit, so that NaN equals NaN and 0 is not -0."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if (a.shape, a.dtype) != (b.shape, b.dtype) or a.numpy().tobytes() != b.numpy().tobytes():
            yield f"{where}: tensors differ"
    elif isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            yield f"{where}: keys {a.keys() ^ b.keys()}"
        for key in (a.keys() & b.keys()) - TIMES:
            yield from _unequal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _unequal(x, y, f"{where}[{i}]")
    elif type(a) is not type(b) or a != b:
        yield f"{where}: {a!r} and {b!r}"


def _unlike(a: Path, b: Path) -> list[str]:
    if a.read_bytes() == b.read_bytes():
        return []
    if a.suffix == ".jsonl":
        return list(_unequal(read_lines(a), read_lines(b), ""))
    if a.suffix == ".json":
        return list(_unequal(without_times(json.loads(a.read_text())), without_times(json.loads(b.read_text())), ""))
    if a.suffix == ".csv":
        tables = [list(csv.DictReader(path.read_text().splitlines())) for path in (a, b)]
        return list(_unequal(*map(without_times, tables), ""))
    if a.suffix in CHECKPOINTS:
        return list(_unequal(*(torch.load(path, weights_only=True) for path in (a, b)), ""))
    return ["bytes differ"]


def differences(expected: Path, found: Path, ignore: Sequence[str] = ()) -> list[str]:
    """What differs, a line each: files missing, files too many, contents apart from times. Empty: nothing."""
    ours, theirs = (
        {name: path for name, path in files(home).items() if not any(fnmatch.fnmatch(name, p) for p in ignore)}
        for home in (expected, found)
    )
    lines = [f"{name}: missing" for name in ours.keys() - theirs.keys()]
    lines += [f"{name}: left over" for name in theirs.keys() - ours.keys()]
    for name in sorted(ours.keys() & theirs.keys()):
        if not any(fnmatch.fnmatch(name, pattern) for pattern in FREE):
            lines += [f"{name}: {line}" for line in _unlike(ours[name], theirs[name])[:3]]
    return lines
