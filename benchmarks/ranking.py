"""Retrain a stratified sample of a table for longer, to see how well the search score predicts the result.

    python benchmarks/ranking.py --datadir data/avmnist --checkpointdir checkpoints/avmnist \
        --table docs/results/avmnist-paper.npz --out docs/results/ranking-avmnist-paper.json

The sample has equally many configurations from each tenth of the table by accuracy. Each one trains as in a search, but
with another seed; with ten epochs; with 64 units per layer; and to the end, with the units, dropout and learning-rate
cycle of the found script, but frozen networks. With --fine_tune, main_found_avmnist.py also trains some of the latter
with all weights. Finished trainings are kept in OUT, so the command can be interrupted and repeated.
"""

import argparse
import dataclasses
import json
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import measure
import numpy as np
from task import Task, add_task_flags, open_task

from utils import cli
from utils.errors import UsageError
from utils.files import write_json
from utils.progress import Progress
from utils.reading import read_json, sha256
from utils.search.space import Configuration, as_configuration
from utils.search.table import AccuracyTable, read_table, unranked
from utils.seeds import derive_seed

TENTHS = 10
SEED = 100  # of the new trainings, which no table has
TOGETHER = 20  # configurations whose trainings are stored together
FINE_EPOCHS = 2  # of the training of all weights, after one epoch of the central weights


def variants(task: Task, epochs: int) -> dict[str, Task]:
    """The trainings by name; `epochs` of the one to the end."""
    head, training = task.head, dataclasses.replace(task.training, seed=SEED)
    end = dataclasses.replace(training, epochs=epochs, schedule="onecycle")
    found = dataclasses.replace(head, inner_size=256, dropout=0.4)
    return {
        "search": dataclasses.replace(task, training=training),
        "ten epochs": dataclasses.replace(task, training=dataclasses.replace(training, epochs=10)),
        "64 units": dataclasses.replace(task, training=training, head=dataclasses.replace(head, inner_size=64)),
        "to the end": dataclasses.replace(task, training=end, head=found),
    }


def stratified(table: AccuracyTable, count: int) -> list[Configuration]:
    """Draw configurations of all depths, equally many from each tenth by accuracy with seed 0."""
    rng, rows = np.random.default_rng(derive_seed(0, "stratified")), table.space.rows()
    depths = range(1, table.depth + 1)
    places = [(layers, rank) for layers in depths for rank in range(len(rows) ** layers)]
    accuracies = np.concatenate([table.accuracies(layers)[0] for layers in depths])
    tenths = np.array_split(np.argsort(accuracies, kind="stable"), TENTHS)
    if count > TENTHS * len(tenths[-1]):
        raise UsageError(f"--count must be at most {TENTHS * len(tenths[-1])} with this table, but is {count}")
    chosen = np.concatenate([rng.choice(tenth, count // TENTHS, replace=False) for tenth in tenths])
    return [unranked(rank, rows, layers) for layers, rank in (places[i] for i in chosen)]


def train(task: Task, configurations: Sequence[Configuration], first: int) -> list[float]:
    """Dev accuracy of each; the first one has the place `first`."""
    return [e.accuracy for e in task.evaluator(SEED).train(configurations, 1, first)]


def best_and_random(scores: Sequence[float], count: int) -> list[int]:
    """Places of the `count` best scores and of as many random others, alternately."""
    best = np.argsort(scores, kind="stable")[::-1][:count]
    others = np.setdiff1d(np.arange(len(scores)), best)
    drawn = np.random.default_rng(derive_seed(0, "fine-tuned")).permutation(others)[:count]
    return np.stack([best, drawn], axis=1).flatten().tolist()


def fine_tune(args: argparse.Namespace, figures: dict, scores: Sequence[float]) -> None:
    """Train configurations to the end with all weights; keep their dev and test accuracies by place in the sample.

    Raises:
        UsageError: OUT holds another number of them, among which the random ones are others.
    """
    reached = figures.setdefault("fine-tuned", {"count": args.fine_tune, "rows": {}})
    if reached["count"] != args.fine_tune:
        raise UsageError(f"{args.out} has --fine_tune {reached['count']}, not {args.fine_tune}; name another --out")
    folders = ["--datadir", args.datadir, "--checkpointdir", args.work / "checkpoints"]
    training = ["--seed", SEED, "--schedule", "onecycle", "--epochs", FINE_EPOCHS, "--no-baselines"]
    for number, place in enumerate(best_and_random(scores, args.fine_tune)):
        if str(place) not in reached["rows"]:
            conf = json.dumps(figures["configurations"][place])
            name = f"{place}-{zlib.crc32(json.dumps([figures['about'], conf]).encode()):08x}"  # of this sample alone
            flags = [*folders, *training, "--conf", conf, "--run_dir", args.work / name]
            measure.step(args.work, name, "main_found_avmnist.py", flags, args.verbose)
            (row,) = (r for r in read_json(args.work / name / "results.json")["rows"] if r["name"] == "found network")
            reached["rows"][str(place)] = {"best": number % 2 == 0, "dev": row["dev"], "test": row["test"]}
            write_json(args.out, figures)


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    add_task_flags(parser)
    group = parser.add_argument_group("sample")
    group.add_argument("--table", type=Path, required=True, help="a table of benchmarks/make_table.py")
    group.add_argument("--count", type=cli.integer(TENTHS, 100_000), default=200, help="configurations")
    group.add_argument("--to_the_end", type=cli.integer(TENTHS, 100_000), default=60, help="how many train to the end")
    group.add_argument("--end_epochs", type=cli.EPOCHS, default=5, help="epochs of the training to the end")
    text = "of the latter: fine-tune this many of the best by the table's first seed, and as many random ones"
    group.add_argument("--fine_tune", type=cli.integer(0, 1000), default=0, metavar="N", help=text)
    group.add_argument("--work", type=Path, help="folder of the runs of --fine_tune")
    group.add_argument("--out", type=Path, required=True, help="configurations and accuracies, a JSON file")
    cli.add_verbosity(parser)
    args = parser.parse_args()
    if args.fine_tune and (args.features or args.work is None):
        raise UsageError("--fine_tune needs --work, and the networks of AV-MNIST: leave out --features")
    if 2 * args.fine_tune > (most := min(args.to_the_end, args.count)):
        raise UsageError(f"--fine_tune must be at most half of the {most} trained to the end, but is {args.fine_tune}")
    return args


def main() -> None:
    args = parse_args()
    task, table = open_task(args), read_table(args.table)
    about = json.loads(json.dumps({**task.facts, "table": sha256(args.table), "end_epochs": args.end_epochs}))
    sample = stratified(table, args.count)
    spread = np.argsort(np.arange(len(sample)) % (len(sample) // TENTHS), kind="stable")  # any start has all tenths
    sample = [sample[i] for i in spread]
    if args.out.exists():
        figures = read_json(args.out)
        sample = [as_configuration(configuration) for configuration in figures["configurations"]]
    else:
        figures = {"about": about, "configurations": sample, "accuracies": {}}
    if figures["about"] != about:
        raise UsageError(f"{args.out} holds a sample of other trainings: {figures['about']}; name another --out")
    works = variants(task, args.end_epochs)
    ends = {name: min(args.to_the_end, len(sample)) if name == "to the end" else len(sample) for name in works}
    with Progress(total=sum(ends.values()), desc="trainings", verbose=args.verbose) as bar:
        for name, work in works.items():
            reached = figures["accuracies"].setdefault(name, [])
            bar.update(len(reached))
            while len(reached) < ends[name]:
                some = sample[len(reached) : min(len(reached) + TOGETHER, ends[name])]
                reached += train(work, some, len(reached))
                write_json(args.out, figures)
                bar.update(len(some))
    if args.fine_tune:
        (args.work / "checkpoints").mkdir(parents=True, exist_ok=True)
        for name in ("audio_model.pkl", "image_model.pkl"):  # found networks go beside them
            shutil.copy((args.checkpointdir or args.datadir) / name, args.work / "checkpoints")
        scored = sample[: ends["to the end"]]
        fine_tune(args, figures, [table.accuracies(len(c))[0, table.rank(c)] for c in scored])


if __name__ == "__main__":
    cli.run(main)
