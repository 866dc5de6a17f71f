"""Search for which features of the AV-MNIST networks to fuse, and how.

    python main_searchable_avmnist.py                    # after train_image.py and train_audio.py
    python main_searchable_avmnist.py --search random    # random search with as many trainings
    python main_searchable_avmnist.py --features live    # through both networks in train mode, as published

A configuration row is [audio feature 0..4, image feature 0..2, activation (0 ReLU, 1 sigmoid)]. The run folder receives
args.json, journal.jsonl (every trained candidate), best.json (for main_found_avmnist.py --conf), results.csv
and report.html.
"""

import argparse

from utils import cli
from utils.runs import data_flags, flags, search_flags


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    data_flags.add_avmnist_data(parser)
    data_flags.add_avmnist_checkpoints(parser)
    search_flags.add_search_flags(parser, search="published")
    search_flags.add_feature_flags(parser)
    flags.add_fusion_flags(parser, inner=16, epochs=3, batchsize=32, period=1, dropout=0.5, multitask=False)
    flags.add_run_flags(parser)
    for flag in ("--vid_dim", "--vid_fr", "--vid_len"):  # accepted and unused, as in the published script
        parser.add_argument(flag, action=cli.Ignore, nargs="+", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    from datasets.avmnist.load import MODALITIES, data_identity, is_stand_in, load_avmnist
    from models.fusion import AudioImageNetwork
    from models.lenet import AudioLeNet, ImageLeNet
    from utils.candidates.evaluators import CachedEvaluator
    from utils.candidates.live import LiveEvaluator
    from utils.runs.search import open_search
    from utils.runs.settings import (
        budget,
        check_batches,
        head_settings,
        limits,
        run_settings,
        search_method,
        search_settings,
        training_settings,
    )
    from utils.search.space import Space
    from utils.training.batches import ArraySplit
    from utils.training.checkpoints import load_backbones

    # Settings
    run, settings = run_settings(args), search_settings(args)
    head, training = head_settings(args, args.num_outputs), training_settings(args)

    # Data: an image, a spectrogram and a label per sample
    data = load_avmnist(args.datadir, args.num_outputs, limits(args), args.dev_samples)
    check_batches(head, args.batchsize, len(data["train"].labels))
    splits = {
        name: ArraySplit((data[name].images, data[name].spectrograms), data[name].labels) for name in ("train", "dev")
    }

    # Networks: both trained on their own modality; the search trains only the central weights between them
    space = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))
    network = AudioImageNetwork(space.rows()[:1], head, args.channels)
    checkpoints = [args.checkpointdir / args.audio_cp, args.checkpointdir / args.rgb_cp]
    inputs = {
        "checkpoints": load_backbones(network, checkpoints),
        "data": data_identity(data, ["train"], dev_samples=args.dev_samples),
    }

    with open_search(run, settings, space, MODALITIES, inputs, search_method(args)) as search:
        # Feature bank: what the frozen networks compute for every sample, once for all candidates
        evaluator: CachedEvaluator | LiveEvaluator
        if args.features == "cached":
            bank, memory = search.feature_bank(network, splits), args.bank_memory * 1e9
            evaluator = CachedEvaluator(
                bank, head, training, run.device, args.weightsharing, search.folder, memory, run.verbose
            )
        else:  # or the networks themselves, in every epoch of every step
            evaluator = LiveEvaluator(
                network, splits, training, run.compute, args.weightsharing, search.folder, verbose=run.verbose
            )

        # Search: unfold, predict, sample, train, update the surrogate, cool down
        completed = search.carry_out(evaluator, budget(args))

        # Best network, baselines and report
        best = search.write_best(evaluator, completed, {"stand_in": is_stand_in(args.datadir)})
        if args.with_random:
            best = search.compare_with_random(evaluator, best)
        search.report(best)
        cli.show_next(args.verbose, "main_found_avmnist.py", "--conf", search.folder / "best.json")


if __name__ == "__main__":
    cli.run(main)
