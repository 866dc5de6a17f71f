"""The files of a run folder, read back for a report."""

from pathlib import Path
from typing import NamedTuple

from utils.errors import UsageError
from utils.reading import at_least_0, conform, read_json
from utils.search.journal import SIZES, best_of, read_journal
from utils.search.space import as_configuration

# Flags that may change when a run is resumed: those without effect on the results, and those that extend the run.
FREE = {"run_dir", "resume", "verbose", "num_workers", "device", "bank_memory", "tensorboard"}
EXTENDED = {"max_candidates", "time_budget", "with_random", "evaluate_missing", "export", "baselines"}
FILES = ("args.json", "journal.jsonl", "best.json", "results.json")
FOUND = "found network"
UNIMODAL = "unimodal network"

# Forms of the files, as `utils.reading.conform` checks them: all that a report needs.
NUMBER, COUNT = (None, float), (None, at_least_0)
ARGS = {"script?": str, "command?": str, "settings?": dict, "inputs?": dict, "versions?": {...: str}}
NAMES = (None, [str])
ABOUT = {
    **{"features?": NAMES, "class_names?": NAMES, "modalities?": [str], "sizes?": SIZES},
    **{"score?": str, "stand_in?": bool},
}
LEAD = (None, {"mean": float, "low": float, "high": float, "confidence?": float, "resamples?": int})
RANKED = {"configurations": [{"configuration": as_configuration, "accuracy": float}], "candidates_trained?": COUNT}
BEST = {
    **ABOUT,
    **RANKED,
    **{"search?": str, "whole?": bool, "seconds?": COUNT, "seconds_by_part?": {...: float}},
    "advice?": (None, str),
    "baselines?": (None, [{"name": str, "dev": float, "difference?": LEAD}]),
    "random?": (None, RANKED | {"candidates_trained": int, "accuracies": [float], "difference?": LEAD}),
}
ROW = {
    **{"name": str, "dev": NUMBER, "test": NUMBER, "seconds?": COUNT, "candidates_trained?": COUNT},
    "configuration?": (None, as_configuration),
    **{"baseline?": bool, "parameters?": (None, int), "lead?": (None, {...: float})},
}
RESULTS = {
    **ABOUT,
    **{"network?": str, "configuration?": as_configuration, "checkpoint?": str, "rows?": [ROW]},
    **{"test_accuracy?": NUMBER, "dev_accuracy?": NUMBER, "seconds?": COUNT, "best_epoch?": (None, int)},
    "epochs?": [{"epoch": int, "dev_accuracy": float, "phase?": str, ...: (str, float, None)}],
    **{"f1?": {...: float}, "confusion?": (None, [[float]], {"classes": int, "cells": [[int]]})},
    "missing?": (None, [{"modality": str, "noise": NUMBER, "test": float}]),
    **{"verdict?": str, "unimodal_time?": bool, "left_out?": {...: str}},
    "mcnemar?": (None, {"against": str, "only_found_right": int, "only_baseline_right": int, "p": float}),
}


class RunFiles(NamedTuple):
    """Contents of the files, empty for those that are missing; `header`, `candidates`, `steps` are the journal's.

    Each candidate has an `accuracy`, that of its best epoch, in addition to its journal line.
    """

    args: dict
    best: dict
    results: dict
    header: dict
    candidates: list[dict]
    failed: list[dict]  # candidates without an accuracy
    steps: list[dict]
    baselines: dict[str, float]  # dev score of unimodal networks and late fusions by name, once it is known

    @property
    def kind(self) -> str:
        """`FOUND`, `UNIMODAL`, `search`, or `run` if the folder holds only settings so far."""
        if self.results:
            return UNIMODAL if "network" in self.results else FOUND
        return "search" if self.header or self.best else "run"

    @property
    def score(self) -> str:
        """Name of the score: accuracy, or weighted F1 for multi-label data."""
        return next((part["score"] for part in (self.results, self.best, self.header) if "score" in part), "accuracy")

    @property
    def stand_in(self) -> bool:
        """True if the data were made without the original recordings."""
        return bool(self.results.get("stand_in", self.best.get("stand_in")))

    @property
    def modalities(self) -> list[str]:
        """Names in the order of a configuration row."""
        return (self.header or self.results or self.best)["modalities"]

    @property
    def sizes(self) -> list[int] | None:
        """Number of features of each modality; None if not recorded."""
        return self.header.get("sizes") or self.results.get("sizes")

    @property
    def found_row(self) -> dict:
        """The results row of the found network; empty before it is tested."""
        return next((row for row in self.results.get("rows", ()) if row["name"] == FOUND), {})

    @property
    def settings(self) -> dict:
        return self.args.get("settings", {})

    def best_configurations(self) -> list[dict]:
        """Up to five {configuration, accuracy}, best first: from best.json, or else from the candidates so far."""
        return self.best["configurations"] if self.best else best_of(self.candidates)


def read_files(run_dir: Path) -> RunFiles:
    """Read those of `FILES` that exist.

    Raises:
        UsageError: the folder has none of the files, or one is not readable.
    """
    if not any((run_dir / name).is_file() for name in FILES):
        raise UsageError(f"a run folder holds at least one of {', '.join(FILES)}, but {run_dir} holds none of them")

    forms = {"args.json": ARGS, "best.json": BEST, "results.json": RESULTS}
    objects = ((run_dir / name, form) for name, form in forms.items())
    args, best, results = (read_json(path, form) if path.is_file() else {} for path, form in objects)
    journal = run_dir / "journal.jsonl"
    lines = read_journal(journal)[0] if journal.is_file() else []
    header = next((line for line in lines if line["kind"] == "header"), {})
    trained = [line for line in lines if line["kind"] == "candidate"]
    candidates = [line | {"accuracy": max(line["accuracies"])} for line in trained if "failed" not in line]
    failed = [line for line in trained if "failed" in line]
    steps = [line for line in lines if line["kind"] == "step"]
    baselines = {row["name"]: row["dev"] for row in best.get("baselines") or ()}
    for line in lines:
        if line["kind"] == "baselines":
            try:
                conform(line, {"dev": {...: float}})
            except ValueError as error:
                raise UsageError(f"{journal} is damaged: {error}") from None
            baselines = baselines or line["dev"]
    return RunFiles(args, best, results, header, candidates, failed, steps, baselines)
