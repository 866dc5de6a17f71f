"""Time the complete path on AV-MNIST, from the original files to a found network, and tabulate its accuracies.

    python benchmarks/complete_path.py --mnist_dir MNIST --fsdd_dir FSDD --esc50_dir ESC50 --out runs/path
    python benchmarks/complete_path.py ... --schedule constant --found_epochs 12        # as published, hours

Runs the project's scripts one after the other, for each seed; flags that are not listed below, such as --no-baselines,
are passed to main_found_avmnist.py. Steps that an earlier run of this command finished are kept, so it can be
interrupted; the time of a step is that of the process which finished it. Writes path.json.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from measure import add_originals, generate, step

from utils import cli
from utils.files import write_json
from utils.reading import read_json
from utils.study import check_flags


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    parser = cli.make_parser(__doc__)
    add_originals(parser)
    group = parser.add_argument_group("training")
    group.add_argument("--schedule", choices=("onecycle", "constant"), default="onecycle", help="of all trainings")
    group.add_argument("--image_epochs", type=cli.EPOCHS, help="default: that of the schedule")
    group.add_argument("--audio_epochs", type=cli.EPOCHS, help="default: that of the schedule")
    group.add_argument("--found_epochs", type=cli.EPOCHS, default=6, help="after one epoch of the central weights")
    group.add_argument("--conf", help="train this configuration (default: search for one)")
    group = parser.add_argument_group("run")
    group.add_argument("--seeds", type=cli.SEED, nargs="+", default=[0], help="each for networks, search and training")
    group.add_argument("--out", type=Path, required=True, help="folder of data, checkpoints, runs and path.json")
    cli.add_verbosity(parser)
    return parser.parse_known_args()


def path(args: argparse.Namespace, seed: int, more: Sequence[str]) -> dict:
    """Train both networks, search, and train the best configuration; return accuracies and seconds by step.

    Args:
        more: flags of the found network's training.
    """
    home, data = args.out / f"seed-{seed}", args.out / "data"
    home.mkdir(parents=True, exist_ok=True)
    both = ["--datadir", data, "--checkpointdir", home / "checkpoints", "--seed", seed]
    cycle = ["--schedule", "onecycle"] if args.schedule == "onecycle" else []
    seconds, accuracies = {}, {}
    for name in ("image", "audio"):
        epochs = getattr(args, f"{name}_epochs")
        flags = [*both, *cycle, *(["--epochs", epochs] if epochs else []), "--run_dir", home / name]
        seconds[name] = step(home, name, f"train_{name}.py", flags, args.verbose)
        results = read_json(home / name / "results.json")
        accuracies[f"{name} only"] = {"dev": results["dev_accuracy"], "test": results["test_accuracy"]}
    if not args.conf:
        flags = [*both, "--run_dir", home / "search"]
        seconds["search"] = step(home, "search", "main_searchable_avmnist.py", flags, args.verbose)
    cycle = cycle or ["--Ti", max(1, args.found_epochs // 3)]  # cosine cycles that end with the training
    flags = [*both, *cycle, "--epochs", args.found_epochs, "--conf", args.conf or home / "search" / "best.json", *more]
    seconds["found"] = step(home, "found", "main_found_avmnist.py", [*flags, "--run_dir", home / "found"], args.verbose)
    for row in read_json(home / "found" / "results.json")["rows"]:
        accuracies[row["name"]] = {"dev": row["dev"], "test": row["test"]}
    return {"seed": seed, "accuracies": accuracies, "seconds": seconds}


def print_table(paths: Sequence[dict], generation: float) -> None:
    """Print mean and deviation over the seeds."""
    print(f"{'':34}{'dev, %':>14}{'test, %':>14}")
    for name in paths[0]["accuracies"]:
        cells = []
        for split in ("dev", "test"):
            values = [100 * path["accuracies"][name][split] for path in paths]
            deviation = f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{deviation}")
        print(f"{name:34}{cells[0]:>14}{cells[1]:>14}")
    print(f"minutes: generation {generation / 60:.1f}", end="")
    for name in paths[0]["seconds"]:
        print(f", {name} {statistics.mean(path['seconds'][name] for path in paths) / 60:.1f}", end="")
    totals = [(generation + sum(path["seconds"].values())) / 60 for path in paths]
    print(f"; in all {statistics.mean(totals):.1f} ({min(totals):.1f} to {max(totals):.1f})")


def main() -> None:
    args, more = parse_args()
    check_flags("main_found_avmnist.py", more)
    generation = generate(args, args.out)
    paths = []
    for seed in args.seeds:
        paths.append(path(args, seed, more))
        write_json(args.out / "path.json", {"schedule": args.schedule, "generation": generation, "seeds": paths})
    print_table(paths, generation)


if __name__ == "__main__":
    cli.run(main)
