"""What a run wrote to its folder, read back for a report."""

from dataclasses import dataclass
from pathlib import Path

from utils.errors import UsageError
from utils.files import read_json
from utils.search.journal import best_of, read_journal

# Flags that may differ when a run goes on: those that leave the results as they are, and those that extend them.
FREE = {"run_dir", "resume", "verbose", "num_workers", "device", "bank_memory", "tensorboard"}
EXTENDED = {"max_candidates", "time_budget", "with_random", "evaluate_missing", "export"}
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
    failed: list[dict]  # candidates without an accuracy
    steps: list[dict]

    @property
    def kind(self) -> str:
        """`found network`, `unimodal network`, `search`, or `run` of which there is nothing but settings yet."""
        if self.results:
            return "unimodal network" if "network" in self.results else "found network"
        return "search" if self.header or self.best else "run"

    @property
    def score(self) -> str:
        """What accuracies are in words: those of multi-label data are weighted F1."""
        return next((part["score"] for part in (self.results, self.best, self.header) if "score" in part), "accuracy")

    @property
    def stand_in(self) -> bool:
        """Whether its data are made without the original recordings."""
        return bool(self.results.get("stand_in", self.best.get("stand_in")))

    @property
    def modalities(self) -> list[str]:
        """Their names, in the order of a configuration row."""
        return (self.header or self.results or self.best)["modalities"]

    def best_configurations(self) -> list[dict]:
        """The best, best first, as {configuration, accuracy}: of best.json, or of the candidates so far."""
        return self.best["configurations"] if self.best else best_of(self.candidates)


def read_files(run_dir: Path) -> RunFiles:
    """Read what there is of `FILES`.

    Raises:
        UsageError: the folder has none of the files, or one that is not readable as what it should be.
    """
    if not any((run_dir / name).is_file() for name in FILES):
        raise UsageError(f"a run folder holds at least one of {', '.join(FILES)}, but {run_dir} holds none of them")
    paths = [run_dir / name for name in FILES if name.endswith(".json")]
    objects = {path.stem: read_json(path) if path.is_file() else {} for path in paths}
    journal = run_dir / "journal.jsonl"
    lines = read_journal(journal)[0] if journal.is_file() else []
    kinds = {kind: [line for line in lines if line["kind"] == kind] for kind in ("header", "candidate", "step")}
    failed = [candidate for candidate in kinds["candidate"] if "failed" in candidate]
    candidates = [candidate for candidate in kinds["candidate"] if "failed" not in candidate]
    for candidate in candidates:
        candidate["accuracy"] = max(candidate["accuracies"])
    header = kinds["header"][0] if kinds["header"] else {}
    return RunFiles(**objects, header=header, candidates=candidates, failed=failed, steps=kinds["step"])
