"""Runs a search to its end and writes what it found: flags, journal, best.json, report. The same for all data sets."""

import argparse
import dataclasses
import functools
import time
from collections.abc import Iterable, Mapping, Sequence
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
from utils.predictor import AccuracyPredictor
from utils.report import write_report
from utils.search import Evaluator, SearchSettings, Step, best_candidates, random_search, sequential_search


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
    stand_in: bool = False,
    passes: int = 1,
) -> None:
    """Search, journal every step as it ends, write best.json and the report.

    Args:
        modalities: names in the order of a configuration row.
        network: of any configuration; its unimodal weights are loaded here.
        splits: train and dev.
        checkpoints: of the unimodal networks, in the order of a row.
        data_identity: what tells this data set from another in the feature bank's key, as JSON values.
        stand_in: whether the data are, whose figures say nothing about the real ones.
        passes: over the training split that differ by random crops.
    """
    device = cli.resolve_device(args.device)
    amp = cli.use_amp(args.amp, device) if "amp" in args else False
    head, training = fusion_flags.head_settings(args), fusion_flags.training_settings(args)
    fusion_flags.load_backbones(network, checkpoints)
    run_dir = cli.open_run(args)
    if args.verbose:
        sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
        print(f"searching {len(space.rows())} rows a level on {sizes} samples, {args.features} features, {device}")
    shared = SharedWeights() if args.weightsharing else None
    seconds: dict[str, float] = {}
    if args.features == "cached":
        started = time.perf_counter()
        identity = {"checkpoints": [file_digest(path) for path in checkpoints], "data": data_identity}
        folder = args.checkpointdir / "feature_bank"
        bank = open_bank(folder, network, splits, identity, device, args.verbose, passes, amp)
        seconds["extraction"] = time.perf_counter() - started
        if args.verbose and bank.reused:
            print(f"feature bank {bank.folder} reused")
        evaluator = CachedEvaluator(bank, head, training, device, shared, args.bank_memory * 1e9)
    else:
        wrap = functools.partial(fusion_flags.data_parallel, wanted=args.use_dataparallel)
        evaluator = LiveEvaluator(network, splits, training, device, shared, amp=amp, wrap=wrap)
    _search(args, run_dir, space, modalities, evaluator, seconds, stand_in)


def _search(
    args: argparse.Namespace,
    run_dir: Path,
    space: Space,
    modalities: Sequence[str],
    evaluate: Evaluator,
    seconds_by_part: dict[str, float],
    stand_in: bool,
) -> None:
    """Run the loop with what tells accuracies; `seconds_by_part` is what was spent before, the rest is added."""
    settings = SearchSettings(
        max_fusions=args.max_fusions,
        search_iterations=args.search_iterations,
        num_samples=args.num_samples,
        initial_temperature=args.initial_temperature,
        final_temperature=args.final_temperature,
        temperature_decay=args.temperature_decay,
        seed=args.seed,
    )
    if args.randsearch:
        steps = random_search(space, evaluate, settings)
    else:
        predictor = AccuracyPredictor(len(space.sizes) + 1, args.seed, args.lr_surrogate, args.epochs_surrogate)
        steps = sequential_search(space, evaluate, predictor, settings)
    header = {
        "search": "random" if args.randsearch else "sequential",
        "modalities": list(modalities),
        "sizes": list(space.sizes),
        "activations": [ACTIVATION_NAMES[a] for a in space.activations],
    }
    started = time.perf_counter()
    with Journal(run_dir / "journal.jsonl", header) as journal:
        done = _record(steps, journal, settings.trainings(space), args.verbose)
    training = sum(c.evaluation.seconds for step in done for c in step.candidates)
    surrogate = sum(step.surrogate_seconds for step in done)
    parts = seconds_by_part | {"training": training, "surrogate": surrogate}
    total = time.perf_counter() - started + sum(seconds_by_part.values())
    best = {
        **header,
        "configurations": [
            {"configuration": configuration, "accuracy": accuracy} for configuration, accuracy in best_candidates(done)
        ],
        "candidates_trained": sum(len(step.candidates) for step in done),
        "seconds": total,
        "seconds_by_part": parts | {"other": total - sum(parts.values())},
        "stand_in": stand_in,
    }
    write_json(run_dir / "best.json", best)
    report = write_report(run_dir)
    _print_best(best, run_dir, report)


def _record(steps: Iterable[Step], journal: Journal, trainings: int, verbose: bool) -> list[Step]:
    """Journal each step as it comes; a line for every candidate, then one for the step."""
    done: list[Step] = []
    best = 0.0
    with tqdm(total=trainings, desc="candidates", disable=not verbose) as progress:
        for step in steps:
            for candidate in step.candidates:
                best = max(best, candidate.evaluation.accuracy)
                journal.append(
                    "candidate",
                    {
                        "step": step.index,
                        "configuration": candidate.configuration,
                        "accuracies": candidate.evaluation.accuracies,
                        "predicted": candidate.predicted,
                        "seconds": candidate.evaluation.seconds,
                    },
                )
            values = {f.name: getattr(step, f.name) for f in dataclasses.fields(step) if f.name != "candidates"}
            journal.append("step", {"step": values.pop("index"), "candidates": len(step.candidates), **values})
            done.append(step)
            progress.update(len(step.candidates))
            progress.set_postfix_str(f"step {step.index}, best dev accuracy {best:.4f}")
    return done


def _print_best(best: dict, run_dir: Path, report: Path) -> None:
    print(f"{best['candidates_trained']} candidates trained in {best['seconds']:.1f} s; the best on dev:")
    for rank, entry in enumerate(best["configurations"], start=1):
        print(f"  {rank}. {entry['accuracy']:.4f}  {format_configuration(entry['configuration'])}")
    if best["stand_in"]:
        print("the data set is a stand-in: these figures are not results on the real one")
    print(f"configurations: {run_dir / 'best.json'}\nreport: {report}")
