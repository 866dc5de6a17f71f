"""Runs a search to its end and writes what it found: flags, journal, best.json, report. The same for all data sets."""

import argparse
import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from models.fusion import ACTIVATION_NAMES, FusionNetwork
from utils import cli, fusion_flags
from utils.batches import Split
from utils.configurations import Space, format_configuration
from utils.evaluators import CachedEvaluator, LiveEvaluator, SharedWeights
from utils.feature_bank import file_digest, open_bank
from utils.files import write_json
from utils.journal import Journal
from utils.journaled import CandidateEvaluator, JournaledEvaluator
from utils.predictor import AccuracyPredictor
from utils.report import write_report
from utils.run_folder import open_run
from utils.search import SearchSettings, Step, best_candidates, random_search, sequential_search
from utils.training_state import SavedState


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the search itself (published names and defaults)."""
    group = parser.add_argument_group("search")
    group.add_argument("--max_fusions", type=cli.positive_int, default=4, help="most fusion layers of a configuration")
    group.add_argument("--search_iterations", type=cli.positive_int, default=3, help="passes over the levels")
    group.add_argument("--num_samples", type=cli.positive_int, default=15, help="candidates trained in a step")
    group.add_argument("--initial_temperature", type=cli.positive_float, default=10, help="of the first sampling")
    group.add_argument("--final_temperature", type=cli.positive_float, default=0.2, help="approached as it cools")
    group.add_argument("--temperature_decay", type=cli.positive_float, default=4, help="larger cools more slowly")
    group.add_argument("--lr_surrogate", type=cli.positive_float, default=1e-3, help="learning rate of the surrogate")
    group.add_argument("--epochs_surrogate", type=cli.positive_int, default=50, help="epochs of the surrogate a step")
    group.add_argument("--randsearch", action="store_true", help="random search with as many trainings")
    group.add_argument(
        "--features",
        choices=("cached", "live"),
        default="cached",
        help="cached: networks fixed, their features computed once; live: as published, slow",
    )
    group.add_argument(
        "--bank_memory",
        type=cli.positive_float,
        default=4,
        help="GB that cached features may take; those of a larger set are read from disk as they are needed",
    )


def run_search(
    args: argparse.Namespace,
    space: Space,
    modalities: Sequence[str],
    network: FusionNetwork,
    splits: Mapping[str, Split],
    checkpoints: Sequence[Path],
    data_identity: object,
    facts: Mapping[str, object],
    passes: int = 1,
) -> None:
    """Search, journal every step as it ends, write best.json and the report.

    Args:
        modalities: names in the order of a configuration row.
        network: of any configuration; its unimodal weights are loaded here.
        splits: train and dev.
        checkpoints: of the unimodal networks, in the order of a row.
        data_identity: what tells this data set from another in the feature bank's key, as JSON values.
        facts: what else best.json should hold, such as {"stand_in": False}.
        passes: over the training split that differ by random crops.
    """
    device = cli.resolve_device(args.device)
    amp = cli.use_amp(args.amp, device) if "amp" in args else False
    head, training = fusion_flags.head_settings(args), fusion_flags.training_settings(args)
    fusion_flags.load_backbones(network, checkpoints)
    if args.verbose:
        sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
        print(f"searching {len(space.rows())} rows a level on {sizes} samples, {args.features} features, {device}")
    header = {
        "search": "random" if args.randsearch else "sequential",
        "modalities": list(modalities),
        "sizes": list(space.sizes),
        "activations": [ACTIVATION_NAMES[a] for a in space.activations],
    }
    with open_run(args) as run_dir, Journal(run_dir / "journal.jsonl", header) as journal:
        shared, saved = SharedWeights() if args.weightsharing else None, SavedState(run_dir)
        if args.features == "cached":
            started = time.perf_counter()
            identity = {"checkpoints": [file_digest(path) for path in checkpoints], "data": data_identity}
            folder = args.checkpointdir / "feature_bank"
            bank = open_bank(folder, network, splits, identity, device, args.verbose, passes, amp)
            if not any(journal.of_kind("features")):
                journal.append("features", {"seconds": time.perf_counter() - started})
            if args.verbose and bank.reused:
                print(f"feature bank {bank.folder} reused")
            memory = args.bank_memory * 1e9
            evaluator: CandidateEvaluator = CachedEvaluator(bank, head, training, device, shared, memory, saved)
        else:
            wrap = functools.partial(fusion_flags.data_parallel, wanted=args.use_dataparallel)
            evaluator = LiveEvaluator(network, splits, training, device, shared, amp=amp, wrap=wrap, saved=saved)
        steps = _search(args, space, evaluator, journal)
        best = _best(steps, journal) | facts
        write_json(run_dir / "best.json", best)
        _print_best(best, run_dir, write_report(run_dir))


def _search(args: argparse.Namespace, space: Space, evaluator: CandidateEvaluator, journal: Journal) -> list[Step]:
    """Run the search, or what is left of it, and journal every step as it ends."""
    settings = SearchSettings(
        max_fusions=args.max_fusions,
        search_iterations=args.search_iterations,
        num_samples=args.num_samples,
        initial_temperature=args.initial_temperature,
        final_temperature=args.final_temperature,
        temperature_decay=args.temperature_decay,
        seed=args.seed,
    )
    ended = {line["step"] for line in journal.of_kind("step")}
    done: list[Step] = []
    with tqdm(total=settings.trainings(space), desc="candidates", disable=not args.verbose) as progress:
        evaluate = JournaledEvaluator(evaluator, journal, progress)
        if args.randsearch:
            steps = random_search(space, evaluate, settings)
        else:
            predictor = AccuracyPredictor(len(space.sizes) + 1, args.seed, args.lr_surrogate, args.epochs_surrogate)
            steps = sequential_search(space, evaluate, predictor, settings)
        for step in steps:
            if step.index not in ended:
                values = {f.name: getattr(step, f.name) for f in dataclasses.fields(step) if f.name != "candidates"}
                journal.append("step", {"step": values.pop("index"), "candidates": len(step.candidates), **values})
            done.append(step)
    return done


def _best(steps: Sequence[Step], journal: Journal) -> dict:
    """The content of best.json; times are the journal's, whichever process spent them."""

    def seconds(kind: str, name: str = "seconds") -> float:
        return sum(line[name] for line in journal.of_kind(kind))

    extraction = seconds("features")
    parts = {"training": seconds("candidate"), "surrogate": seconds("step", "surrogate_seconds")}
    total = extraction + seconds("step")
    if any(journal.of_kind("features")):
        parts = {"extraction": extraction, **parts}
    header = {name: value for name, value in journal.lines[0].items() if name not in ("kind", "format")}
    return {
        **header,
        "configurations": [
            {"configuration": configuration, "accuracy": accuracy} for configuration, accuracy in best_candidates(steps)
        ],
        "candidates_trained": sum(len(step.candidates) for step in steps),
        "candidates_failed": sum(1 for line in journal.of_kind("candidate") if "failed" in line),
        "seconds": total,
        "seconds_by_part": parts | {"other": total - sum(parts.values())},
    }


def _print_best(best: dict, run_dir: Path, report: Path) -> None:
    print(f"{best['candidates_trained']} candidates trained in {best['seconds']:.1f} s; the best on dev:")
    for rank, entry in enumerate(best["configurations"], start=1):
        print(f"  {rank}. {entry['accuracy']:.4f}  {format_configuration(entry['configuration'])}")
    if best.get("stand_in"):
        print("the data set is a stand-in: these figures are not results on the real one")
    print(f"configurations: {run_dir / 'best.json'}\nreport: {report}")
