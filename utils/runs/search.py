"""A search, from its settings to its files: journal, best.json, results.csv and report. The same for all data sets."""

import contextlib
import dataclasses
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.fusion import FusionNetwork
from models.rows import ACTIVATION_NAMES
from utils import distributed
from utils.candidates.evaluators import PopulationEvaluator
from utils.candidates.feature_bank import FeatureBank, open_bank
from utils.files import write_csv, write_json
from utils.progress import Progress
from utils.report import write_report
from utils.report.board import write_search
from utils.report.live import LiveReport
from utils.report.page import duration
from utils.results.baselines import advice, baseline_scores, difference, read_correct, search_baselines
from utils.runs.folder import RunSettings, open_run, warn_of_stand_in
from utils.search.evaluate import Budget, BudgetSpent, JournaledEvaluator
from utils.search.improved import GaussianProcess, improved_search
from utils.search.journal import Journal, as_rows, best_of
from utils.search.loop import Evaluator, SearchError, SearchSettings, Step, random_search, sequential_search
from utils.search.space import Space, format_configuration
from utils.search.surrogate import AccuracyPredictor
from utils.training.batches import Split
from utils.training.metrics import accuracy


@dataclasses.dataclass(frozen=True)
class SearchRun:
    """One search in its run folder."""

    run: RunSettings
    settings: SearchSettings
    space: Space
    modalities: Sequence[str]  # in the order of a configuration row
    inputs: Mapping[str, object]  # fingerprints of data and checkpoints
    folder: Path
    journal: Journal
    method: str  # sequential, improved or random
    features: Sequence[str]  # names of all features, if known
    live: LiveReport

    def feature_bank(self, network: FusionNetwork, splits: Mapping[str, Split], passes: int = 1) -> FeatureBank:
        """Open the feature bank in checkpointdir, extract what is missing, and journal the duration of the extraction.

        Args:
            passes: passes over the training split that differ in their random crops.
        """
        run = self.run
        folder = run.checkpointdir / "feature_bank"
        bank = open_bank(folder, network, splits, self.inputs, run.device, run.verbose, passes, run.compute.bfloat16)
        if not any(self.journal.of_kind("features")):
            self.journal.append("features", {"seconds": bank.seconds})
        if run.verbose and bank.reused:
            print(f"feature bank {bank.folder} reused")
        return bank.standardized(self.modalities) if network.settings.standardize else bank

    def carry_out(self, evaluator: PopulationEvaluator, budget: Budget) -> bool:
        """Run the search, or the rest of it, and journal every step; return False if the budget ran out.

        All processes but process 0 train what it asks for, and exit when the search ends.
        """
        if distributed.rank():
            evaluator.serve()
            raise SystemExit
        settings, space, journal = self.settings, self.space, self.journal
        ended = {line["step"] for line in journal.of_kind("step")}
        total, steps_in_all = settings.trainings(space), len(settings.steps())
        if self.method != "sequential":
            total = min(total, space.configurations(settings.max_fusions))
            steps_in_all = -(-total // settings.num_samples)
        limit = min(total, budget.candidates or total)
        self._journal_baselines(evaluator)
        name = "candidates at random" if self.method == "random" else "candidates"
        with Progress(total=limit, desc=name, verbose=self.run.verbose) as bar:
            evaluate = JournaledEvaluator(evaluator, journal, bar, budget)
            steps = self._steps(evaluate)
            try:
                for step in steps:
                    if step.index in ended:
                        continue
                    journal.append("step", step.record())
                    if self.run.tensorboard:
                        write_search(self.folder)
                    self.live.update(f"{name}, step {step.index + 1} of {steps_in_all}")
                    if step.index == 0 and self.run.verbose:
                        steps_like_it = steps_in_all if evaluator.together > 1 else total / len(step.candidates)
                        about = min(steps_like_it * step.seconds * limit / total, budget.seconds or math.inf)
                        took = duration(step.seconds)
                        bar.write(f"the first step took {took}, so the search may take about {duration(about)}")
            except BudgetSpent:
                if not any(journal.of_kind("candidate")):
                    raise SearchError("the budget ran out before a candidate was trained; give a larger one") from None
                return False
        return True

    def _journal_baselines(self, evaluator: PopulationEvaluator) -> None:
        """Journal the dev accuracy of each unimodal network and late fusion once, for the report's curve."""
        if any(self.journal.of_kind("baselines")):
            return
        if logits := evaluator.dev_logits():
            labels = evaluator.splits["dev"].labels
            scores = baseline_scores(self.modalities, logits, labels.ndim == 2, evaluator.head.threshold)
            reached = {name: float(accuracy(one, labels)) for name, one in scores.items()}
            known = {name: dev for name, dev in reached.items() if math.isfinite(dev)}
            self.journal.append("baselines", {"dev": known})

    def _steps(self, evaluate: Evaluator) -> Iterator[Step]:
        """Steps of the search by its method."""
        settings, space = self.settings, self.space
        if self.method == "random":
            return random_search(space, evaluate, settings)
        if self.method == "improved":
            return improved_search(space, evaluate, GaussianProcess(space, settings.max_fusions), settings)
        row_size = len(space.sizes) + 1
        surrogate = AccuracyPredictor(row_size, settings.seed, settings.lr_surrogate, settings.epochs_surrogate)
        return sequential_search(space, evaluate, surrogate, settings)

    def write_best(self, evaluator: PopulationEvaluator, completed: bool, facts: Mapping[str, object]) -> dict:
        """Write best.json: the best configurations beside the baselines.

        Args:
            completed: False if the budget ran out.
            facts: further entries, such as {"stand_in": False}.
        """
        labels, correct = evaluator.splits["dev"].labels, self.folder / "best_dev.npy"
        logits, threshold = evaluator.dev_logits(), evaluator.head.threshold
        baselines = search_baselines(self.modalities, logits, labels, correct, self.settings.seed, threshold)
        best = summary(self.journal) | {"whole": completed, "inputs": self.inputs, **facts, "baselines": baselines}
        best["advice"] = advice(best["configurations"][0]["accuracy"], baselines) if best["configurations"] else None
        write_json(self.folder / "best.json", best)
        return best

    def compare_with_random(self, evaluator: PopulationEvaluator, best: dict) -> dict:
        """Add a random search to best.json, with as many trainings on the same features, in a folder of its own."""
        folder = self.folder / "random"
        folder.mkdir(exist_ok=True)
        with Journal(
            folder / "journal.jsonl", _header(self.space, self.modalities, self.features, "random")
        ) as journal:
            beside = dataclasses.replace(self, folder=folder, journal=journal, method="random")
            beside.carry_out(evaluator.beside(folder), Budget(best["candidates_trained"]))
        lines = list(journal.of_kind("candidate"))
        labels = evaluator.splits["dev"].labels
        ours, theirs, lead = self.folder / "best_dev.npy", folder / "best_dev.npy", None
        if theirs.exists():  # unless all of its candidates failed
            lead = difference(ours, torch.from_numpy(read_correct(theirs, labels)), labels, self.settings.seed)
        random = {
            "configurations": best_of(lines),
            "candidates_trained": len(lines),
            "accuracies": list(itertools.accumulate(map(_reached, lines), max)),
            "difference": lead,
        }
        write_json(self.folder / "best.json", best | {"random": random})
        return best | {"random": random}

    def report(self, best: Mapping[str, Any]) -> None:
        """Write results.csv and the report, and print the best configurations."""
        write_csv(self.folder / "results.csv", as_rows(self.journal.of_kind("candidate")))
        if self.run.tensorboard:
            write_search(self.folder)
        _print_best(best, self.folder, write_report(self.folder))


def _reached(line: Mapping[str, Any]) -> float:
    """Best dev accuracy of a candidate's line; 0 if it failed."""
    return 0.0 if line.get("failed") else max(line["accuracies"])


@contextlib.contextmanager
def open_search(
    run: RunSettings,
    settings: SearchSettings,
    space: Space,
    modalities: Sequence[str],
    inputs: Mapping[str, object],
    method: str,
    features: Sequence[str] = (),
) -> Iterator[SearchRun]:
    """Open the run folder and the journal of a new or resumed search.

    Args:
        features: names of all features, for the journal and the report.
    """
    if run.verbose:
        print(f"search space: {len(space.rows())} possible rows per fusion layer ({', '.join(modalities)})")
    header = _header(space, modalities, features, method)
    with open_run(run, inputs) as folder, contextlib.ExitStack() as stack:
        home = folder
        if distributed.rank():  # process 0 keeps the journal; that of any other is thrown away
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        journal = stack.enter_context(Journal(home / "journal.jsonl", header))
        live = LiveReport(folder)
        yield SearchRun(run, settings, space, modalities, inputs, folder, journal, method, features, live)
        distributed.from_first(lambda: None)  # there is no more to train


def _header(space: Space, modalities: Sequence[str], features: Sequence[str], method: str) -> dict[str, object]:
    named = {"features": list(features)} if features else {}
    return named | {
        "search": method,
        "modalities": list(modalities),
        "sizes": list(space.sizes),
        "activations": [ACTIVATION_NAMES[a] for a in space.activations],
    }


def summary(journal: Journal) -> dict[str, Any]:
    """Best configurations and cost of a search so far, over all processes that worked on it."""
    candidates = list(journal.of_kind("candidate"))
    extraction = journal.seconds("features")
    parts = {"training": journal.seconds("candidate"), "surrogate": journal.seconds("step", "surrogate_seconds")}
    if any(journal.of_kind("features")):
        parts = {"extraction": extraction, **parts}
    total = max(extraction + journal.seconds("step"), sum(parts.values()))
    header = {name: value for name, value in journal.lines[0].items() if name not in ("kind", "format")}
    return {
        **header,
        "configurations": best_of(candidates),
        "candidates_trained": len(candidates),
        "candidates_failed": sum("failed" in line for line in candidates),
        "seconds": total,
        "seconds_by_part": parts | {"other": total - sum(parts.values())},
    }


def _print_best(best: Mapping[str, Any], folder: Path, report: Path) -> None:
    ended = "" if best["whole"] else ", stopped by the budget"
    score, took = best.get("score", "accuracy"), duration(best["seconds"])
    print(f"{best['candidates_trained']} candidates trained in {took}{ended}; the best dev {score}:")
    for rank, entry in enumerate(best["configurations"], start=1):
        print(f"  {rank}. {entry['accuracy']:.4f}  {format_configuration(entry['configuration'])}")
    others = [(line["dev"], line["name"]) for line in best["baselines"]]
    if (random := best.get("random")) and random["configurations"]:
        reached = random["configurations"][0]["accuracy"]
        others.append((reached, f"random search, {random['candidates_trained']} candidates"))
    if others:
        print("for comparison:", *(f"     {dev:.4f}  {name}" for dev, name in others), sep="\n")
    if best["advice"]:
        print(best["advice"])
    warn_of_stand_in(best)
    print(f"configurations: {folder / 'best.json'}\nreport: {report}")
