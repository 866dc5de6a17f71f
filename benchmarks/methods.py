"""Train on AV-MNIST whatever a search competes with, and store which test samples each is right on (docs/results.md).

    python benchmarks/methods.py --mnist_dir MNIST --fsdd_dir FSDD --esc50_dir ESC50 \\
        --preset paper --seeds 0 1 2 --work runs/methods-paper --out docs/results/methods-avmnist-paper.npz

For each seed, this trains both unimodal networks, runs the published, random and improved searches with default flags,
and trains to completion what they found, simple baselines, the published configurations, and a fusion in the manner of
CentralNet. All trainings use one learning-rate cycle. Finished steps stay in WORK, and finished seeds in OUT, so the
command can be interrupted, repeated, and extended to more seeds.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
import numpy as np

from main_found_avmnist import PUBLISHED
from utils import cli
from utils.arrays import read_array, read_arrays
from utils.errors import UsageError
from utils.files import whole_file
from utils.reading import read_json

# Features of equal depth joined layer by layer, their weights and the losses of both networks learned with them, as in
# CentralNet (Vielzeuf et al., 2018).
CENTRALNET = ["--conf", "[[2,0,0],[3,1,0],[4,2,0]]", "--alphas", "--multitask"]
EPOCHS = ("image_epochs", "audio_epochs", "found_epochs")


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    measure.add_originals(parser)
    group = parser.add_argument_group("training")
    group.add_argument("--image_epochs", type=cli.EPOCHS, default=6, help="of the image network")
    group.add_argument("--audio_epochs", type=cli.EPOCHS, default=6, help="of the audio network")
    group.add_argument("--found_epochs", type=cli.EPOCHS, default=2, help="after one epoch of the central weights")
    group.add_argument("--random", type=cli.COUNT, default=2, help="random configurations to train")
    group = parser.add_argument_group("run")
    group.add_argument("--seeds", type=cli.SEED, nargs="+", default=[0, 1, 2], help="each for all steps")
    group.add_argument("--work", type=Path, required=True, help="folder of data, checkpoints and runs")
    group.add_argument("--out", type=Path, required=True, help="the results, an .npz file")
    cli.add_verbosity(parser)
    return parser.parse_args()


def one_seed(args: argparse.Namespace, seed: int) -> tuple[list[dict], np.ndarray]:
    """Run all steps; return the rows of the results and whether each is right on each test sample, (rows, N)."""
    home = args.work / f"seed-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    both = ["--datadir", args.work / "data", "--checkpointdir", home / "checkpoints", "--seed", seed]
    cycle = [*both, "--schedule", "onecycle"]

    def run(name: str, script: str, flags: Sequence[object]) -> Path:
        measure.step(home, name, script, [*flags, "--run_dir", home / name], args.verbose)
        return home / name

    for name, epochs in (("image", args.image_epochs), ("audio", args.audio_epochs)):
        run(name, f"train_{name}.py", [*cycle, "--epochs", epochs])
    published = run("search", "main_searchable_avmnist.py", [*both, "--with_random"]) / "best.json"
    improved = run("improved", "main_searchable_avmnist.py", [*both, "--search", "improved"]) / "best.json"
    at_random = read_json(published)["random"]["configurations"][0]["configuration"]

    networks: Mapping[str, Sequence[object]] = {
        "fusion as in CentralNet": CENTRALNET,
        **{f"published configuration {i}": ["--conf", i] for i in range(len(PUBLISHED))},
        "best of random search": ["--conf", json.dumps(at_random)],
        "best of the improved search": ["--conf", improved],
        "best of the published search": ["--conf", published],
    }
    last, found = len(networks) - 1, list[tuple[dict, np.ndarray]]()
    for place, (name, flags) in enumerate(networks.items()):
        # Baselines train once, with the flags of an ordinary network
        baselines = ["--baselines", args.random] if place == last else ["--no-baselines"]
        training = [*cycle, "--epochs", args.found_epochs, *flags, *baselines]
        folder = run(f"found-{place}", "main_found_avmnist.py", training)
        rows, correct = read_json(folder / "results.json")["rows"], read_array(folder / "test_correct.npy")
        rows[-1]["name"] = name  # the last row is the network of --conf
        own = [{key: row[key] for key in ("name", "dev", "test", "configuration")} for row in rows]
        pairs = list(zip(own, correct, strict=True))
        found = [*pairs[:-1], *found, pairs[-1]] if place == last else [*found, pairs[-1]]
    return [row for row, _ in found], np.array([right for _, right in found])


def main() -> None:
    args = parse_args()
    about = {name: getattr(args, name) for name in ("preset", *EPOCHS, "random")}
    arrays = read_arrays(args.out)[0] if args.out.exists() else {"about": np.array(json.dumps(about))}
    if (known := json.loads(str(arrays["about"]))) != about:
        raise UsageError(f"{args.out} holds trainings with other settings: {known}; name another --out")
    missing = [seed for seed in args.seeds if f"rows_{seed}" not in arrays]
    if missing:
        measure.generate(args, args.work)
    for seed in missing:
        rows, correct = one_seed(args, seed)
        arrays |= {f"rows_{seed}": np.array(json.dumps(rows)), f"correct_{seed}": correct}
        with whole_file(args.out) as file:
            np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    cli.run(main)
