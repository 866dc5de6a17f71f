"""What a run wrote to its folder, read back for a report."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.cli import UsageError, read_json
from utils.configurations import format_configuration

FILES = ("args.json", "journal.jsonl", "best.json", "results.json")


@dataclass(frozen=True)
class RunFiles:
    """The content of the files, empty where there is none; `header`, `candidates`, `steps` are the journal's.

    A candidate has its best epoch as `accuracy` besides what the journal says.
    """

    args: dict
    best: dict
    results: dict
    header: dict
    candidates: list[dict]
    steps: list[dict]

    def best_configurations(self) -> list[dict]:
        """The best, best first, as {configuration, accuracy}: of best.json, or of the candidates so far."""
        if self.best:
            return self.best["configurations"]
        found: dict[str, dict] = {}
        for candidate in sorted(self.candidates, key=lambda candidate: candidate["accuracy"]):
            found[format_configuration(candidate["configuration"])] = candidate
        return sorted(found.values(), key=lambda candidate: -candidate["accuracy"])[:5]


def read_files(run_dir: Path) -> RunFiles:
    """Read what there is of `FILES`.

    Raises:
        UsageError: the folder has none of the files, or one that is not readable as what it should be.
    """
    if not any((run_dir / name).is_file() for name in FILES):
        raise UsageError(f"a run folder holds at least one of {', '.join(FILES)}, but {run_dir} holds none of them")
    paths = [run_dir / name for name in FILES if name.endswith(".json")]
    objects = {path.stem: read_json(path) if path.is_file() else {} for path in paths}
    lines = list(_journal(run_dir / "journal.jsonl"))
    kinds = {kind: [line for line in lines if line["kind"] == kind] for kind in ("header", "candidate", "step")}
    for candidate in kinds["candidate"]:
        candidate["accuracy"] = max(candidate["accuracies"])
    header = kinds["header"][0] if kinds["header"] else {}
    return RunFiles(**objects, header=header, candidates=kinds["candidate"], steps=kinds["step"])


def _journal(path: Path) -> Iterator[dict]:
    """The lines of a journal; a last one that was cut off is left out."""
    lines = path.read_text().splitlines() if path.is_file() else []
    for count, line in enumerate(lines, 1):
        try:
            yield json.loads(line, parse_constant=lambda name: None)  # no NaN: not known
        except json.JSONDecodeError as error:
            if count < len(lines):
                raise UsageError(f"{path}: line {count} is not JSON: {error}") from None
