"""Do the feature bank and the networks themselves rank configurations alike?

    python benchmarks/live_against_cached.py                                           # all samples
    python benchmarks/live_against_cached.py --limit_train 5500 --limit_dev 2500

Trains all 30 one-layer configurations, and random four-layer ones, on AV-MNIST both ways: on the feature bank (networks
in eval mode), and through both networks as published (networks in train mode). Same initial weights, same batches; a
pass through the networks serves all configurations of a group. Prints both dev accuracies, Spearman's rank correlation,
and the mean difference (live minus cached) with its standard deviation.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from datasets.avmnist.load import load_avmnist
from models.fusion import AudioImageNetwork
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli
from utils.candidates.evaluators import CachedEvaluator, LiveEvaluator
from utils.candidates.feature_bank import open_bank
from utils.files import write_json
from utils.runs import data_flags, flags
from utils.search.space import Configuration, Space, format_configuration
from utils.training.batches import ArraySplit
from utils.training.checkpoints import load_backbones
from utils.training.devices import Compute, resolve_device

SPACE = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))


def random_configurations(count: int, layers: int, seed: int) -> list[Configuration]:
    """Different configurations of `layers` layers."""
    rows, rng = SPACE.rows(), np.random.default_rng(seed)
    drawn: dict[Configuration, None] = {}
    while len(drawn) < count:
        drawn[tuple(rows[i] for i in rng.integers(len(rows), size=layers))] = None
    return list(drawn)


def compare(cached: Sequence[float], live: Sequence[float]) -> dict[str, float]:
    differences = [b - a for a, b in zip(cached, live, strict=True)]
    return {
        "spearman": float(stats.spearmanr(cached, live).statistic),
        "mean_difference": statistics.mean(differences),
        "deviation": statistics.pstdev(differences),
    }


def main() -> None:
    parser = cli.make_parser(__doc__)
    data_flags.add_avmnist_data(parser)
    data_flags.add_avmnist_checkpoints(parser)
    flags.add_fusion_flags(parser, inner=16, epochs=3, batchsize=32, period=1, dropout=0.5, multitask=False)
    flags.add_run_flags(parser)
    parser.add_argument("--random", type=cli.positive_int, default=60, help="how many four-layer configurations")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    device = resolve_device(args.device)
    head, training = flags.head_settings(args, args.num_outputs), flags.training_settings(args)
    data = load_avmnist(args.datadir, args.num_outputs, data_flags.limits(args), args.dev_samples)
    splits = {
        name: ArraySplit((data[name].images, data[name].spectrograms), data[name].labels) for name in ("train", "dev")
    }
    checkpoints = [args.checkpointdir / args.audio_cp, args.checkpointdir / args.rgb_cp]

    network = AudioImageNetwork(SPACE.rows()[:1], head, args.channels)
    load_backbones(network, checkpoints)
    groups = {
        "one layer": [(row,) for row in SPACE.rows()],
        "four layers": random_configurations(args.random, 4, args.seed),
    }
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        bank = open_bank(Path(folder), network, splits, {}, device, args.verbose)
        print(f"extraction: {time.perf_counter() - started:.0f} s, which both groups share")
        evaluators = {
            "cached": CachedEvaluator(bank, head, training, device),
            "live": LiveEvaluator(network, splits, training, Compute(device)),
        }
        for step, (name, configurations) in enumerate(groups.items()):
            trained = {way: list(evaluate(configurations, step)) for way, evaluate in evaluators.items()}
            reached = {way: [e.accuracy for e in evaluations] for way, evaluations in trained.items()}
            seconds = {way: sum(e.seconds for e in evaluations) for way, evaluations in trained.items()}
            figures[name] = compare(**reached) | {"seconds": seconds, "accuracies": reached}
            figures[name]["configurations"] = [format_configuration(c) for c in configurations]
    for name, group in figures.items():
        print(f"\n{name:34}  cached    live")
        for k in np.argsort(group["accuracies"]["cached"])[::-1]:
            shown = "".join(f"  {group['accuracies'][way][k]:.4f}" for way in ("cached", "live"))
            print(f"{group['configurations'][k]:34}{shown}")
        print(
            f"{name}: Spearman {group['spearman']:.3f}, live minus cached {group['mean_difference']:+.4f} "
            f"(deviation {group['deviation']:.4f}), {group['seconds']['cached']:.0f} s against "
            f"{group['seconds']['live']:.0f} s"
        )
    if args.out:
        write_json(args.out, figures)


if __name__ == "__main__":
    cli.run(main)
