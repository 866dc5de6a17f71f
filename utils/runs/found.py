"""Training of a found configuration to the end, and the table that sets it beside its baselines."""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from models.fusion import ACTIVATIONS, FusionNetwork
from utils import cli, interrupts
from utils.candidates.feature_bank import file_digest
from utils.errors import UsageError
from utils.files import read_json, write_json
from utils.progress import Progress
from utils.report.board import write_training
from utils.results.robustness import evaluate_missing, format_missing
from utils.results.table import (
    Row,
    baseline_rows,
    baselines,
    checkpoint_name,
    record_results,
    test_found,
    write_results,
)
from utils.runs import fusion_flags
from utils.runs.folder import open_run
from utils.search.space import Configuration, Space, format_configuration, parse_configuration, read_search
from utils.seeds import derive_seed
from utils.training.batches import Split
from utils.training.checkpoints import load_into, names_file, save_state
from utils.training.loop import ModelTraining, adam, on_device, train_and_evaluate
from utils.training.record import TrainingRecord


@dataclasses.dataclass(frozen=True)
class Task:
    """What the found scripts differ in, besides data and networks."""

    modalities: Sequence[str]  # in the order of a configuration row
    space: Space
    published: Sequence[Configuration]


def add_flags(parser: argparse.ArgumentParser, conf: int | None) -> None:
    """Which network to train or to test; `conf` is the default number, None where none is published."""
    group = parser.add_argument_group("configuration")
    if conf is None:
        group.add_argument("--conf", required=True, help="list of rows, or a search's best.json")
    else:
        group.add_argument("--conf", default=str(conf), help="published number, list of rows, or a search's best.json")
    group.add_argument("--test_cp", default="", help="only test this checkpoint (a path, or a name in checkpointdir)")
    group.add_argument(
        "--evaluate_missing", action="store_true", help="test also with each modality muted, and with noise on it"
    )


def chosen_configuration(args: argparse.Namespace, task: Task) -> Configuration:
    """The configuration that `--conf` names.

    Raises:
        UsageError: there is none such, or it has an index that does not exist.
    """
    configuration = parse_configuration(args.conf, task.published)
    searched = read_search(args.conf).get("modalities")
    if searched not in (None, list(task.modalities)):
        raise UsageError(f"{args.conf} is of a search over {searched}, but this script fuses {list(task.modalities)}")
    task.space.check(configuration, len(ACTIVATIONS))
    return configuration


def run_found(
    args: argparse.Namespace,
    task: Task,
    build: Callable[[], FusionNetwork],
    splits: Mapping[str, Split],
    checkpoints: Sequence[Path],
    facts: Mapping[str, object],
    data_identity: object,
    export: Callable[[FusionNetwork], str] | None = None,
) -> None:
    """Train the network and set it beside its baselines - or only test it, with `--test_cp` - and write the results.

    Args:
        build: makes the network; called with the random state that its weights derive from.
        splits: train, dev and test; with `--test_cp` the last is enough.
        checkpoints: of the unimodal networks, in the order of a row.
        facts: what else the results should hold, such as {"stand_in": False}.
        data_identity: what tells this data set from another, as JSON values.
        export: writes the network, on the CPU, for other programs; returns what to say of it.
    """
    device = cli.resolve_device(args.device)
    amp = cli.use_amp(args.amp, device) if "amp" in args else False
    splits = {name: split.to(device) for name, split in splits.items()}
    tested = _tested(args)
    torch.manual_seed(derive_seed(args.seed, "found network"))
    network = on_device(_loaded(build(), tested, checkpoints), device)
    model = fusion_flags.data_parallel(network, getattr(args, "use_dataparallel", False))

    digests = [file_digest(path) for path in ([tested] if tested else checkpoints)]
    inputs = {"configuration": network.configuration, "checkpoints": digests, "data": data_identity}
    results = {
        "modalities": task.modalities,
        "sizes": task.space.sizes,
        "configuration": network.configuration,
        "head": dataclasses.asdict(network.settings),
        "bfloat16": amp,
        **facts,
    }
    row, rows, against, lines = Row("found network", configuration=network.configuration), [], {}, []
    with open_run(args, inputs) as run_dir, names_file(run_dir / "best.checkpoint"):
        if not tested:
            took, searched = recorded_seconds(checkpoints), read_search(args.conf)
            if searched.get("inputs", {}).get("checkpoints", digests) != digests:
                print(f"warning: the search of {args.conf} fused other unimodal networks than these", file=sys.stderr)
            if args.verbose:
                name, count = format_configuration(network.configuration), sum(n for *_, n in phases(network, args))
                print(
                    f"training {name} on {len(splits['train'])} samples, {count} epochs, {device}{', bfloat16' * amp}"
                )
            against = baselines(network, splits, task.modalities)  # before their networks are trained further
            rows = baseline_rows(against, splits, task.modalities, took)
            tell = functools.partial(record_results, run_dir, results, ())
            lines, row.seconds = train_found(network, model, splits, args, amp, run_dir, tell)
            row.seconds += searched.get("seconds", 0) + sum(value or 0 for value in took)
            row.candidates_trained = searched.get("candidates_trained")
        results |= test_found(row, model, splits, against)
        if args.evaluate_missing:
            results["missing"] = evaluate_missing(network, model, splits["test"], task.modalities, args.seed)
        finish(args, results, [*rows, row], lines, network, tested, run_dir)
        if export:
            print(export(network.cpu()))


def _tested(args: argparse.Namespace) -> Path | None:
    """The checkpoint that `--test_cp` names; None: a network is to be trained."""
    if not args.test_cp:
        return None
    return Path(args.test_cp) if Path(args.test_cp).is_file() else args.checkpointdir / args.test_cp


def _loaded(network: FusionNetwork, tested: Path | None, checkpoints: Sequence[Path]) -> FusionNetwork:
    """The network with the weights of the checkpoint to be tested, or with those of its unimodal networks.

    Raises:
        UsageError: a checkpoint does not fit, or the record beside it tells another configuration.
    """
    if tested is None:
        fusion_flags.load_backbones(network, checkpoints)
        return network
    record, own = tested.with_suffix(".json"), [list(row) for row in network.configuration]
    trained = read_json(record).get("configuration", own) if record.exists() else own
    if trained != own:  # the weights do not tell activations
        raise UsageError(f"{tested} was trained with --conf {json.dumps(trained)}, not {json.dumps(own)}")
    load_into(network, tested)
    return network


def recorded_seconds(checkpoints: Sequence[Path]) -> list[float | None]:
    """Seconds that each unimodal network trained, as the record beside its checkpoint tells; None: not known.

    Raises:
        UsageError: a record is damaged.
    """
    took = []
    for path in checkpoints:
        record = path.with_suffix(".json")
        took.append(read_json(record).get("seconds") if record.exists() else None)
        if not isinstance(took[-1], int | float | None):
            raise UsageError(f"{record} is damaged: seconds must be a number, but is {took[-1]!r}")
    return took


def finish(
    args: argparse.Namespace,
    results: dict[str, object],
    rows: Sequence[Row],
    lines: Sequence[Mapping[str, object]],
    network: FusionNetwork,
    tested: Path | None,
    run_dir: Path,
) -> None:
    """Save the network unless it was only tested, write the results, print them."""
    checkpoint = tested or args.checkpointdir / checkpoint_name(network.configuration, rows[-1].test)
    if not tested:
        save_state(checkpoint, network.state_dict())
    results["checkpoint"] = str(checkpoint)
    if args.evaluate_missing:
        print(format_missing(results["missing"], rows[-1].test))
    report = write_results(run_dir, results, rows, lines)
    if args.tensorboard:
        write_training(run_dir)
    if not tested:
        write_json(checkpoint.with_suffix(".json"), results | {"test_accuracy": rows[-1].test, "run_dir": str(run_dir)})
    if results.get("stand_in"):
        print("the data set is a stand-in: these figures are not results on the real one")
    print(f"checkpoint: {checkpoint}\nreport: {report}")


def phases(network: FusionNetwork, args: argparse.Namespace) -> list[tuple[str, list[nn.Parameter], int]]:
    """Name, trained weights and epochs of each phase: one epoch of central weights first where there are others."""
    everything = list(network.parameters())
    first = [("central", network.central_parameters(), 1)] if network.backbones() else []
    return [*first, ("all", everything, args.epochs)]


def train_found(
    network: FusionNetwork,
    model: nn.Module,
    splits: Mapping[str, Split],
    args: argparse.Namespace,
    amp: bool,
    run_dir: Path,
    tell: Callable[[Sequence[Mapping[str, object]]], None],
) -> tuple[list[dict[str, object]], float]:
    """One epoch of central weights, then `--epochs` of all weights (published), or what an earlier process left of it.

    Returns a line for every epoch, and the seconds of all. The best dev epoch is saved as best.checkpoint whenever
    there is a better one, and is what `network` holds in the end.

    Args:
        model: `network` itself or its DataParallel wrapper.
        tell: called with the lines so far after every epoch.
    """
    settings, kept = fusion_flags.training_settings(args), TrainingRecord(network, run_dir)
    lines, plan = kept.lines, phases(network, args)
    total, first = sum(count for *_, count in plan), 0
    with Progress(total=total, initial=len(lines), desc="epochs", verbose=args.verbose) as progress:
        for phase, parameters, count in plan:  # each with an optimizer and a cosine cycle of its own
            done = sum(line["phase"] == phase for line in lines)
            network.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            train_pass = ModelTraining(model, adam(parameters, settings), network.train, amp, args.verbose)
            if done and lines[-1]["phase"] == phase:
                kept.restore(train_pass.optimizer)
            epochs = train_and_evaluate(
                model, splits, settings, train_pass, ("found", phase), count, first_pass=first, done=done
            )
            for result in epochs:
                line = {
                    "epoch": len(lines),
                    "phase": phase,
                    "train_loss": float(result.loss),
                    "train_accuracy": float(result.accuracy),
                    "dev_accuracy": float(result.dev_accuracy),
                    "learning_rate": result.rate,
                }
                kept.add(line, train_pass.optimizer)
                tell(lines)
                interrupts.check()
                best = kept.best_line["dev_accuracy"]
                progress.set_postfix_str(f"{phase}, on dev {line['dev_accuracy']:.4f}, best {best:.4f}")
                progress.update()
            first += count
    kept.keep_best()
    return lines, kept.seconds
