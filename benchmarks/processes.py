"""Time a search by one and by several processes of one thread each, from the networks to the last candidate.

    python benchmarks/processes.py --datadir data/avmnist --checkpointdir checkpoints/avmnist --out processes.json

Each repeat runs main_searchable_avmnist.py under torchrun once with each number of processes, with a new feature bank.
Reported are the seconds of the extraction and of the steps without the surrogate, and the speed-up over one process
within a repeat. Starting the processes and compiling are not counted.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from measure import ratios, run_script, spread

from utils import cli
from utils.files import write_json
from utils.reading import parse_json


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--datadir", type=Path, required=True, help="folder made by avmnist_gen.py")
    parser.add_argument("--checkpointdir", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--processes", type=cli.PROCESSES, nargs="+", default=[1, 2], help="numbers of processes")
    parser.add_argument("--repeats", type=cli.COUNT, default=3, help="runs with each number")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    return parser.parse_args()


def one_search(args: argparse.Namespace, processes: int) -> dict[str, float]:
    """Seconds of the extraction and of the training in one search."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("audio_model.pkl", "image_model.pkl"):
            shutil.copy(args.checkpointdir / name, folder)
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        flags = ["--datadir", args.datadir, "--checkpointdir", folder, "--run_dir", f"{folder}/run", "--no-verbose"]
        run_script("main_searchable_avmnist.py", flags, launch)
        lines = [parse_json(line) for line in (Path(folder) / "run/journal.jsonl").read_text().splitlines()]
    steps = [line["seconds"] - line["surrogate_seconds"] for line in lines if line["kind"] == "step"]
    (extraction,) = (line["seconds"] for line in lines if line["kind"] == "features")
    return {"extraction": extraction, "training": sum(steps), "both": extraction + sum(steps)}


def main() -> None:
    args = parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found = [{n: one_search(args, n) for n in args.processes} for _ in range(args.repeats)]
    figures = {}
    for n in args.processes:
        for part in ("extraction", "training", "both"):
            own, one = ([repeat[count][part] for repeat in found] for count in (n, args.processes[0]))
            figures[f"{part}, {n}"] = {"seconds": spread(own), "speed-up": ratios(one, own)}
    for name, figure in figures.items():
        median, low, high = figure["speed-up"].values()
        print(f"{name:16} {figure['seconds']['median']:8.1f} s   {median:.2f} ({low:.2f} to {high:.2f})")
    if args.out:
        write_json(args.out, figures)


if __name__ == "__main__":
    cli.run(main)
