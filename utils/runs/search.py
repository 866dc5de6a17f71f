"""Runs a search to its end and writes what it found: journal, best.json, report. The same for all data sets."""

import argparse
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.fusion import ACTIVATION_NAMES, FusionNetwork, HeadSettings
from utils import cli
from utils.candidates.evaluators import CachedEvaluator, LiveEvaluator
from utils.candidates.feature_bank import FeatureBank, file_digest, open_bank
from utils.candidates.sharing import SharedWeights
from utils.errors import UsageError
from utils.files import write_json
from utils.progress import Progress
from utils.report import write_report
from utils.report.board import write_search
from utils.results.baselines import difference, search_baselines
from utils.runs import fusion_flags, search_flags
from utils.runs.folder import open_run
from utils.search.evaluate import Budget, BudgetSpent, CandidateEvaluator, JournaledEvaluator
from utils.search.journal import Journal, best_of, write_csv
from utils.search.loop import SearchError, random_search, sequential_search
from utils.search.space import Space, format_configuration
from utils.search.surrogate import AccuracyPredictor
from utils.training.batches import Split
from utils.training.resume import SavedState


@dataclasses.dataclass(frozen=True)
class Workplace:
    """What an evaluator is made with: where this search journals and saves, and the weights that are shared."""

    journal: Journal
    saved: SavedState
    shared: SharedWeights | None


@dataclasses.dataclass(frozen=True)
class EvaluatorMaker:
    """How to make an evaluator, and what tells the files that it reads from others, as JSON values by name."""

    make: Callable[[Workplace], CandidateEvaluator]
    inputs: Mapping[str, object]


def run_search(
    args: argparse.Namespace,
    space: Space,
    modalities: Sequence[str],
    maker: EvaluatorMaker,
    facts: Mapping[str, object],
) -> None:
    """Search, journal every step as it ends, write best.json, results.csv and the report.

    Args:
        modalities: names in the order of a configuration row.
        maker: of `through_networks` or `on_bank`.
        facts: what else best.json should hold, such as {"stand_in": False}.
    """
    header = {
        "search": "random" if args.randsearch else "sequential",
        "modalities": list(modalities),
        "sizes": list(space.sizes),
        "activations": [ACTIVATION_NAMES[a] for a in space.activations],
    }
    if args.randsearch and args.with_random:
        raise UsageError("--randsearch is a random search already; leave out --with_random")
    if args.verbose:
        print(f"searching {len(space.rows())} rows a level of {' and '.join(modalities)} features")
    with open_run(args, maker.inputs) as run_dir:
        with Journal(run_dir / "journal.jsonl", header) as journal:
            evaluator = maker.make(_workplace(args, run_dir, journal))
            budget = Budget(args.max_candidates, args.time_budget)
            whole = _search(args, space, evaluator, journal, budget, args.randsearch)
        best = _best(journal) | {"whole": whole, "inputs": maker.inputs} | facts
        logits, labels = evaluator.dev_logits(), evaluator.splits["dev"].labels
        best["baselines"] = search_baselines(modalities, logits, labels, run_dir / "best_dev.npy", args.seed)
        write_json(run_dir / "best.json", best)
        del evaluator  # and the features that it keeps on the device: the random search has its own
        if args.with_random:
            budget = Budget(best["candidates_trained"])
            best["random"] = _random_baseline(args, space, maker, header, run_dir, budget, labels)
        write_json(run_dir / "best.json", best)
        write_csv(run_dir / "results.csv", journal.of_kind("candidate"))
        if args.tensorboard:
            write_search(run_dir)
        _print_best(best, run_dir, write_report(run_dir))


def through_networks(
    args: argparse.Namespace,
    network: FusionNetwork,
    splits: Mapping[str, Split],
    checkpoints: Sequence[Path],
    data_identity: object,
    passes: int = 1,
) -> EvaluatorMaker:
    """Candidates over unimodal networks: on a feature bank of theirs, or live.

    Args:
        network: of any configuration; its unimodal weights are loaded here.
        splits: train and dev.
        checkpoints: of the unimodal networks, in the order of a row.
        data_identity: what tells this data set from another in the feature bank's key, as JSON values.
        passes: over the training split that differ by random crops.
    """
    device = cli.resolve_device(args.device)
    amp = cli.use_amp(args.amp, device) if "amp" in args else False
    head, training = fusion_flags.head_settings(args), fusion_flags.training_settings(args)
    fusion_flags.load_backbones(network, checkpoints)
    inputs = {"checkpoints": [file_digest(path) for path in checkpoints], "data": data_identity}
    if args.verbose:
        sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
        print(f"{sizes} samples, {args.features} features, {device}")

    def make(place: Workplace) -> CandidateEvaluator:
        if args.features == "live":
            fusion_flags.load_backbones(network, checkpoints)  # a search before may have changed their statistics
            wrap = functools.partial(fusion_flags.data_parallel, wanted=args.use_dataparallel)
            return LiveEvaluator(
                network,
                splits,
                training,
                device,
                place.shared,
                amp=amp,
                wrap=wrap,
                saved=place.saved,
                verbose=args.verbose,
            )
        folder = args.checkpointdir / "feature_bank"
        bank = open_bank(folder, network, splits, inputs, device, args.verbose, passes, amp)
        if not any(place.journal.of_kind("features")):
            place.journal.append("features", {"seconds": bank.seconds})
        if args.verbose and bank.reused:
            print(f"feature bank {bank.folder} reused")
        memory = args.bank_memory * 1e9
        return CachedEvaluator(bank, head, training, device, place.shared, memory, place.saved)

    return EvaluatorMaker(make, inputs)


def on_bank(args: argparse.Namespace, bank: FeatureBank, head: HeadSettings, data_identity: object) -> EvaluatorMaker:
    """Candidates over features that are there already."""
    device, training = cli.resolve_device(args.device), fusion_flags.training_settings(args)
    return EvaluatorMaker(
        lambda place: CachedEvaluator(bank, head, training, device, place.shared, saved=place.saved),
        {"data": data_identity},
    )


def _workplace(args: argparse.Namespace, folder: Path, journal: Journal) -> Workplace:
    return Workplace(journal, SavedState(folder), SharedWeights() if args.weightsharing else None)


def _search(
    args: argparse.Namespace,
    space: Space,
    evaluator: CandidateEvaluator,
    journal: Journal,
    budget: Budget,
    at_random: bool,
) -> bool:
    """Run the search, or what is left of it, and journal every step as it ends; returns whether it came to its end."""
    settings = search_flags.search_settings(args)
    ended = {line["step"] for line in journal.of_kind("step")}
    total = settings.trainings(space)
    name = "candidates at random" if at_random else "candidates"
    # Made before the clock of the budget starts: the first optimizer of a process takes a second to import.
    predictor = AccuracyPredictor(len(space.sizes) + 1, args.seed, args.lr_surrogate, args.epochs_surrogate)
    with Progress(total=total, desc=name, verbose=args.verbose) as bar:
        evaluate = JournaledEvaluator(evaluator, journal, bar, budget)
        if at_random:
            steps = random_search(space, evaluate, settings)
        else:
            steps = sequential_search(space, evaluate, predictor, settings)
        try:
            for step in steps:
                if step.index not in ended:
                    values = {f.name: getattr(step, f.name) for f in dataclasses.fields(step) if f.name != "candidates"}
                    journal.append("step", {"step": values.pop("index"), "candidates": len(step.candidates), **values})
                    if args.tensorboard:
                        write_search(journal.path.parent)
                if step.index == 0 and step.index not in ended and args.verbose:
                    like_it = len(settings.steps()) if evaluator.at_once else total / len(step.candidates)
                    about = f"{step.seconds:.1f} s, so all may take about {like_it * step.seconds:.0f} s"
                    bar.write(f"the first step took {about}")
        except BudgetSpent:
            if not any(journal.of_kind("candidate")):
                raise SearchError("the budget was spent before a candidate was trained; give a larger one") from None
            return False
    return True


def _random_baseline(
    args: argparse.Namespace,
    space: Space,
    maker: EvaluatorMaker,
    header: Mapping[str, object],
    run_dir: Path,
    budget: Budget,
    labels: Tensor,
) -> dict[str, object]:
    """A random search on the same features, journaled in a folder of its own.

    Args:
        labels: of the dev split.
    """
    folder = run_dir / "random"
    folder.mkdir(exist_ok=True)
    with Journal(folder / "journal.jsonl", {**header, "search": "random"}) as journal:
        _search(args, space, maker.make(_workplace(args, folder, journal)), journal, budget, at_random=True)
    lines, right = list(journal.of_kind("candidate")), folder / "best_dev.npy"
    return {
        "configurations": best_of(lines),
        "candidates_trained": len(lines),
        "accuracies": list(itertools.accumulate((max(line["accuracies"], default=0.0) for line in lines), max)),
        "difference": difference(run_dir / "best_dev.npy", torch.from_numpy(np.load(right)), labels, args.seed),
    }


def _best(journal: Journal) -> dict:
    """The content of best.json; times are the journal's, whichever process spent them."""
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


def _print_best(best: dict, run_dir: Path, report: Path) -> None:
    ended = "" if best["whole"] else ", where the budget ended"
    print(f"{best['candidates_trained']} candidates trained in {best['seconds']:.1f} s{ended}; the best on dev:")
    for rank, entry in enumerate(best["configurations"], start=1):
        print(f"  {rank}. {entry['accuracy']:.4f}  {format_configuration(entry['configuration'])}")
    others = [(line["dev"], line["name"]) for line in best["baselines"]]
    if random := best.get("random"):
        reached = random["configurations"][0]["accuracy"]
        others.append((reached, f"random search, {random['candidates_trained']} candidates"))
    if others:
        print("beside them:", *(f"     {dev:.4f}  {name}" for dev, name in others), sep="\n")
    if best.get("stand_in"):
        print("the data set is a stand-in: these figures are not results on the real one")
    print(f"configurations: {run_dir / 'best.json'}\nreport: {report}")
