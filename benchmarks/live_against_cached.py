"""Compare how the feature bank and live networks rank configurations.

    python benchmarks/live_against_cached.py                                           # all samples
    python benchmarks/live_against_cached.py --limit_train 5500 --limit_dev 2500

Trains all 30 one-layer configurations, and random four-layer ones, on AV-MNIST both ways: on the feature bank (networks
in eval mode), and through both networks as published (networks in train mode). Same initial weights, same batches; a
pass through the networks serves all configurations of a group. Prints both dev accuracies, Spearman's rank correlation,
and the mean difference (live minus cached) with its standard deviation.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import random_configurations
from scipy import stats

from datasets.avmnist.load import load_avmnist
from models.fusion import AudioImageNetwork
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli
from utils.candidates.evaluators import CachedEvaluator
from utils.candidates.feature_bank import open_bank
from utils.candidates.live import LiveEvaluator
from utils.files import write_json
from utils.runs import data_flags, flags
from utils.runs.settings import head_settings, limits, training_settings
from utils.search.space import Configuration, Space, format_configuration
from utils.training.batches import ArraySplit
from utils.training.checkpoints import load_backbones
from utils.training.devices import Compute, resolve_device

SPACE = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))


def main() -> None:
    parser = cli.make_parser(__doc__)
    data_flags.add_avmnist_data(parser)
    data_flags.add_avmnist_checkpoints(parser)
    flags.add_fusion_flags(parser, inner=16, epochs=3, batchsize=32, period=1, dropout=0.5, multitask=False)
    flags.add_run_flags(parser)
    parser.add_argument("--random", type=cli.COUNT, default=60, help="how many four-layer configurations")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    device = resolve_device(args.device)
    head, training = head_settings(args, args.num_outputs), training_settings(args)
    data = load_avmnist(args.datadir, args.num_outputs, limits(args), args.dev_samples)
    splits = {n: ArraySplit((data[n].images, data[n].spectrograms), data[n].labels) for n in ("train", "dev")}

    network = AudioImageNetwork(SPACE.rows()[:1], head, args.channels)
    load_backbones(network, [args.checkpointdir / args.audio_cp, args.checkpointdir / args.rgb_cp])
    drawn = random_configurations(SPACE, 2 * args.random, 4, args.seed)
    groups: dict[str, list[Configuration]] = {
        "one layer": [(row,) for row in SPACE.rows()],
        "four layers": list(dict.fromkeys(drawn))[: args.random],  # distinct
    }
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        bank = open_bank(Path(folder), network, splits, {}, device, args.verbose)
        print(f"extraction: {time.perf_counter() - started:.0f} s, which both groups share")
        cached = CachedEvaluator(bank, head, training, device)
        live = LiveEvaluator(network, splits, training, Compute(device))
        for step, (name, configurations) in enumerate(groups.items()):
            trained = {"cached": list(cached(configurations, step)), "live": list(live(configurations, step))}
            reached = {way: [e.accuracy for e in evaluations] for way, evaluations in trained.items()}
            seconds = {way: sum(e.seconds for e in evaluations) for way, evaluations in trained.items()}
            differences = [b - a for a, b in zip(*reached.values(), strict=True)]
            figures[name] = {
                "spearman": float(stats.spearmanr(*reached.values()).statistic),
                "mean_difference": statistics.mean(differences),
                "deviation": statistics.pstdev(differences),
                "seconds": seconds,
                "accuracies": reached,
                "configurations": [format_configuration(c) for c in configurations],
            }
    for name, group in figures.items():
        print(f"\n{name:34}  cached    live")
        cached, live = group["accuracies"]["cached"], group["accuracies"]["live"]
        for k in np.argsort(cached)[::-1]:
            print(f"{group['configurations'][k]:34}  {cached[k]:.4f}  {live[k]:.4f}")
        print(
            "{}: Spearman {spearman:.3f}, live minus cached {mean_difference:+.4f} (deviation {deviation:.4f}), "
            "{seconds[cached]:.0f} s against {seconds[live]:.0f} s".format(name, **group)
        )
    if args.out:
        write_json(args.out, figures)


if __name__ == "__main__":
    cli.run(main)
