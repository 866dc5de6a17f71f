"""Training of a found configuration to the end, and the table that sets it beside its baselines."""

import argparse
import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.fusion import ACTIVATIONS, FusionNetwork
from utils import cli, fusion_flags, interrupts
from utils.batches import Split
from utils.checkpoints import load_into, names_file, save_state
from utils.configurations import Configuration, Space, format_configuration, parse_configuration, read_best
from utils.files import write_json
from utils.report import write_report
from utils.run_folder import open_run
from utils.seeds import derive_seed
from utils.training import ModelTraining, accuracy, adam, on_device, predict, train_and_evaluate
from utils.training_state import SavedState, restore, training_state


@dataclasses.dataclass(frozen=True)
class Task:
    """What the found scripts of two data sets differ in, besides data and networks."""

    modalities: Sequence[str]  # in the order of a configuration row
    inputs: Sequence[int]  # for each modality, the place of its input in a split
    space: Space
    published: Sequence[Configuration]


def add_flags(parser: argparse.ArgumentParser, conf: int) -> None:
    """Which network to train or to test."""
    group = parser.add_argument_group("configuration")
    group.add_argument("--conf", default=str(conf), help="published number, list of rows, or a search's best.json")
    group.add_argument("--test_cp", default="", help="only test this checkpoint (a path, or a name in checkpointdir)")


def chosen_configuration(args: argparse.Namespace, task: Task) -> Configuration:
    """The configuration that `--conf` names.

    Raises:
        UsageError: there is none such, or it has an index that does not exist.
    """
    configuration = parse_configuration(args.conf, task.published)
    searched = read_best(Path(args.conf)).get("modalities") if Path(args.conf).is_file() else None
    if searched not in (None, list(task.modalities)):
        raise cli.UsageError(
            f"{args.conf} is of a search over {searched}, but this script fuses {list(task.modalities)}"
        )
    task.space.check(configuration, len(ACTIVATIONS))
    return configuration


def run_found(
    args: argparse.Namespace,
    task: Task,
    build: Callable[[], FusionNetwork],
    splits: Mapping[str, Split],
    checkpoints: Sequence[Path],
    facts: Mapping[str, object],
) -> None:
    """Train the network and set it beside its baselines - or only test it, with `--test_cp` - and write the results.

    Args:
        build: makes the network; called with the random state that its weights derive from.
        splits: train, dev and test; with `--test_cp` the last is enough.
        checkpoints: of the unimodal networks, in the order of a row.
        facts: what else the results should hold, such as {"stand_in": False}.
    """
    device = cli.resolve_device(args.device)
    amp = cli.use_amp(args.amp, device)
    splits = {name: split.to(device) for name, split in splits.items()}
    torch.manual_seed(derive_seed(args.seed, "found network"))
    network = build()
    tested = Path(args.test_cp) if Path(args.test_cp).is_file() else args.checkpointdir / args.test_cp
    if args.test_cp:
        load_into(network, tested)
    else:
        fusion_flags.load_backbones(network, checkpoints)
    on_device(network, device)
    model = fusion_flags.data_parallel(network, args.use_dataparallel)
    with open_run(args) as run_dir:
        _run(args, task, network, model, splits, checkpoints, {"bfloat16": amp, **facts}, tested, run_dir)


def _run(
    args: argparse.Namespace,
    task: Task,
    network: FusionNetwork,
    model: nn.Module,
    splits: Mapping[str, Split],
    checkpoints: Sequence[Path],
    facts: Mapping[str, object],
    tested: Path,
    run_dir: Path,
) -> None:
    """`run_found` once the run folder is open."""
    rows, lines = [], []
    if not args.test_cp:
        if args.verbose:
            sizes = f"{len(splits['train'])} samples, 1 + {args.epochs} epochs"
            name, device = format_configuration(network.configuration), next(network.parameters()).device
            print(f"training {name} on {sizes}, {device}{', bfloat16' * facts['bfloat16']}")
        rows = baselines(network, splits, task.modalities, task.inputs, checkpoints)
        with names_file(run_dir / "best.checkpoint"):
            lines, spent = train_found(network, model, splits, args, facts["bfloat16"], run_dir)
        searched = read_best(Path(args.conf)) if Path(args.conf).is_file() else {}
        spent += searched.get("seconds", 0) + (rows[-1].seconds or 0)

    with names_file(run_dir / "best.checkpoint"):
        row, counts = test_found(model, splits)
    row.configuration = network.configuration
    if not args.test_cp:
        row.seconds, row.candidates_trained = spent, searched.get("candidates_trained")
        tested = args.checkpointdir / checkpoint_name(network.configuration, row.test)
        save_state(tested, network.state_dict())
    results = {
        "modalities": task.modalities,
        "sizes": task.space.sizes,
        "configuration": network.configuration,
        "head": dataclasses.asdict(network.settings),
        "checkpoint": str(tested),
        **facts,
    }
    report = write_results(run_dir, results, [*rows, row], lines, counts)
    if not args.test_cp:
        write_json(tested.with_suffix(".json"), results | {"test_accuracy": row.test, "run_dir": str(run_dir)})
    if results.get("stand_in"):
        print("the data set is a stand-in: these figures are not results on the real one")
    print(f"checkpoint: {tested}\nreport: {report}")


@dataclasses.dataclass
class Row:
    """One line of the results table; seconds are those of all training that it took, unimodal networks included."""

    name: str
    dev: float | None
    test: float
    seconds: float | None = None
    configuration: Configuration | None = None
    candidates_trained: int | None = None


def train_found(
    network: FusionNetwork,
    model: nn.Module,
    splits: Mapping[str, Split],
    args: argparse.Namespace,
    amp: bool,
    run_dir: Path,
) -> tuple[list[dict[str, object]], float]:
    """One epoch of central weights, then `--epochs` of all weights (published), or what an earlier process left of it.

    Returns a line for every epoch, and the seconds of all. The best dev epoch is saved as best.checkpoint whenever
    there is a better one, and is what `network` holds in the end.

    Args:
        model: `network` itself or its DataParallel wrapper.
    """
    settings = fusion_flags.training_settings(args)
    saved, started = SavedState(run_dir), time.perf_counter()
    state = saved.load()
    lines, best, before = state.get("lines", []), state.get("best", {}), state.get("seconds", 0.0)
    phases = [("central", network.central_parameters(), 1), ("all", list(network.parameters()), settings.epochs)]
    with tqdm(total=1 + settings.epochs, initial=len(lines), desc="epochs", disable=not args.verbose) as progress:
        for phase, parameters, count in phases:  # each with an optimizer and a cosine cycle of its own
            done = sum(line["phase"] == phase for line in lines)
            network.requires_grad_(False)
            for parameter in parameters:
                parameter.requires_grad_(True)
            train_pass = ModelTraining(model, adam(parameters, settings), network.train, amp)
            if done and lines[-1]["phase"] == phase:
                restore(network, train_pass.optimizer, state)
            first = 0 if phase == "central" else 1
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
                if not best or line["dev_accuracy"] > max(earlier["dev_accuracy"] for earlier in lines):
                    best = copy.deepcopy(network.state_dict())
                    save_state(run_dir / "best.checkpoint", best)
                lines.append(line)
                values = {"lines": lines, "best": best, "seconds": before + time.perf_counter() - started}
                saved.save(values | training_state(network, train_pass.optimizer))
                interrupts.check()
                progress.update()
                reached = max(line["dev_accuracy"] for line in lines)
                progress.set_postfix_str(f"{phase}, dev accuracy {line['dev_accuracy']:.4f}, best {reached:.4f}")
    network.load_state_dict(best)
    return lines, before + time.perf_counter() - started


def baselines(
    network: FusionNetwork,
    splits: Mapping[str, Split],
    names: Sequence[str],
    inputs: Sequence[int],
    checkpoints: Sequence[Path],
) -> list[Row]:
    """Each unimodal network alone, and both late fusions: mean of softmax and sum of log-softmax.

    Args:
        names: of the modalities, in the order of a configuration row.
        inputs: for each modality, the place of its input in a split.
        checkpoints: of the unimodal networks; the records beside them tell how long each trained.
    """
    scores: dict[str, list[Tensor]] = {}
    for split in ("dev", "test"):
        parts = [splits[split].select(place) for place in inputs]
        scores[split] = [predict(net, part) for net, part in zip(network.backbones(), parts, strict=True)]

    def row(name: str, combine: Callable[[list[Tensor]], Tensor], seconds: float | None) -> Row:
        return Row(name, *(float(accuracy(combine(scores[s]), splits[s].labels)) for s in ("dev", "test")), seconds)

    records = [path.with_suffix(".json") for path in checkpoints]
    took = [cli.read_json(path).get("seconds") if path.exists() else None for path in records]
    both = None if None in took else sum(took)
    alone = [row(f"{name} only", lambda logits, m=m: logits[m], took[m]) for m, name in enumerate(names)]
    return [
        *reversed(alone),
        row("late fusion, mean of softmax", lambda logits: sum(x.softmax(-1) for x in logits), both),
        row("late fusion, sum of log-softmax", lambda logits: sum(x.log_softmax(-1) for x in logits), both),
    ]


def test_found(model: nn.Module, splits: Mapping[str, Split]) -> tuple[Row, list[list[int]]]:
    """Accuracy of the finished network on test, and on dev where that is among the splits; confusion matrix on test."""
    predicted = {s: predict(model, splits[s]) for s in ("dev", "test") if s in splits}
    reached = {s: float(accuracy(scores, splits[s].labels)) for s, scores in predicted.items()}
    row = Row("found network", reached.get("dev"), reached["test"])
    return row, confusion(predicted["test"], splits["test"].labels)


def write_results(
    run_dir: Path,
    results: Mapping[str, object],
    rows: Sequence[Row],
    epochs: Sequence[Mapping[str, object]],
    counts: list[list[int]],
) -> Path:
    """Print the table, write results.json and the report, and return the report's path."""
    best_epoch = max(epochs, key=lambda e: e["dev_accuracy"])["epoch"] if epochs else None
    content = {
        **results,
        "rows": [dataclasses.asdict(row) for row in rows],
        "epochs": epochs,
        "best_epoch": best_epoch,
        "confusion": counts,
    }
    write_json(run_dir / "results.json", content)
    print(format_table(rows))
    return write_report(run_dir)


def checkpoint_name(configuration: Configuration, test_accuracy: float) -> str:
    """`best_<rows>_<accuracy>.checkpoint`, as the published files are named."""
    numbers = "_".join(str(i) for row in configuration for i in row)
    return f"best_{numbers}_{test_accuracy:.4f}.checkpoint"


def confusion(predicted: Tensor, labels: Tensor) -> list[list[int]]:
    """How often each class (row) was taken for each other (column), from scores (N, C)."""
    classes = predicted.shape[-1]
    counts = torch.bincount(labels.cpu() * classes + predicted.argmax(-1).cpu(), minlength=classes**2)
    return counts.view(classes, classes).tolist()


def format_table(rows: Sequence[Row]) -> str:
    """The results as aligned text."""
    header = ["", "dev", "test", "configuration", "candidates", "seconds"]
    cells = [
        [
            row.name,
            "" if row.dev is None else f"{row.dev:.4f}",
            f"{row.test:.4f}",
            format_configuration(row.configuration) if row.configuration else "",
            "" if row.candidates_trained is None else str(row.candidates_trained),
            "" if row.seconds is None else f"{row.seconds:.0f}",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if i in (0, 3) else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *cells]
    ]
    return "\n".join(line.rstrip() for line in lines)
