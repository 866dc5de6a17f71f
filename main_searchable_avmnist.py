"""Search which features of the AV-MNIST networks to fuse, and how.

    python main_searchable_avmnist.py                    # after train_image.py and train_audio.py
    python main_searchable_avmnist.py --randsearch       # random search with as many trainings
    python main_searchable_avmnist.py --features live    # both networks run for every candidate, as published

A configuration row is [audio feature 0..4, image feature 0..2, activation (0 ReLU, 1 sigmoid)]. The run folder gets
args.json, journal.jsonl (every trained candidate), best.json (give it to main_found_avmnist.py --conf) and report.html.
"""

import functools
import time

from datasets.avmnist import MODALITIES, is_stand_in, load_avmnist
from models.fusion import AudioImageNetwork
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli, fusion_flags, search_run
from utils.batches import ArraySplit
from utils.configurations import Configuration, Space
from utils.evaluators import CachedEvaluator, LiveEvaluator, SharedWeights
from utils.feature_bank import data_identity, file_digest, open_bank


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_avmnist_data(parser)
    cli.add_avmnist_checkpoints(parser)
    search_run.add_flags(parser)
    fusion_flags.add_flags(parser, inner=16, epochs=3, batchsize=32, period=1, dropout=0.5, multitask=False)
    cli.add_run_flags(parser)
    args = parser.parse_args()
    device = cli.resolve_device(args.device)
    head, training = fusion_flags.head_settings(args), fusion_flags.training_settings(args)

    data = load_avmnist(args.datadir, args.num_outputs, args.limit_train, args.limit_dev, args.limit_test)
    fusion_flags.check_batches(args, len(data["train"].labels))
    splits = {
        name: ArraySplit((data[name].images, data[name].spectrograms), data[name].labels) for name in ("train", "dev")
    }

    checkpoints = [args.checkpointdir / args.audio_cp, args.checkpointdir / args.rgb_cp]

    def build(configuration: Configuration) -> AudioImageNetwork:
        network = AudioImageNetwork(configuration, head, args.channels)
        fusion_flags.load_backbones(network, checkpoints)
        return network

    space = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))
    network = build(space.rows()[:1])  # any configuration: only its unimodal networks are used
    run_dir = cli.open_run(args)
    if args.verbose:
        sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
        print(f"searching {len(space.rows())} rows a level on {sizes} samples, {args.features} features, {device}")

    shared = SharedWeights() if args.weightsharing else None
    seconds: dict[str, float] = {}
    if args.features == "cached":
        started = time.perf_counter()
        identity = {
            "checkpoints": [file_digest(path) for path in checkpoints],
            "data": data_identity(args.datadir, ["image/train_data.npy", "audio/train_data.npy", "train_labels.npy"]),
        }
        bank = open_bank(args.checkpointdir / "feature_bank", network, splits, identity, device, args.verbose)
        seconds["extraction"] = time.perf_counter() - started
        if args.verbose and bank.reused:
            print(f"feature bank {bank.folder} reused")
        evaluator = CachedEvaluator(bank, head, training, device, shared)
    else:
        wrap = functools.partial(fusion_flags.data_parallel, wanted=args.use_dataparallel)
        evaluator = LiveEvaluator(build, splits, training, device, shared, wrap=wrap)
    search_run.run_search(args, run_dir, space, MODALITIES, evaluator, seconds, is_stand_in(args.datadir))


if __name__ == "__main__":
    cli.run(main)
