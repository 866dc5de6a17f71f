"""Search for which features of the NTU RGB+D networks to fuse, and how.

    python main_searchable_ntu.py --datadir D --checkpointdir C
    python main_searchable_ntu.py --features live        # through both networks in train mode, as published

A configuration row is [skeleton feature 0..3, RGB feature 0..3, activation (0 ReLU, 1 sigmoid)]. Candidates train on
a part of the training split; their features are computed once per training epoch, with new random crops. The run
folder receives args.json, journal.jsonl (every trained candidate), best.json (for main_found_ntu.py --conf),
results.csv and report.html.
"""

import argparse

from utils import cli
from utils.runs import data_flags, flags, search_flags

SKELETON, RGB = "skeleton_32frames_83.42", "rgb_8frames_82.14"  # the published defaults


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    data_flags.add_ntu_data(parser)
    data_flags.add_ntu_checkpoints(parser)
    search_flags.add_search_flags(parser, search="published")
    search_flags.add_feature_flags(parser)
    flags.add_fusion_flags(parser, inner=16, epochs=3, batchsize=20, period=1, dropout=0.5, multitask=False, amp="off")
    flags.add_run_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    from datasets.ntu.samples import MODALITIES
    from models.fusion import SkeletonRGBNetwork
    from models.hcn import SkeletonNet
    from models.inflated_resnet import InflatedResNet50
    from utils.candidates.evaluators import CachedEvaluator
    from utils.candidates.live import LiveEvaluator
    from utils.runs.ntu_data import check_protocol, ntu_checkpoints, read_ntu
    from utils.runs.search import open_search
    from utils.runs.settings import (
        budget,
        check_batches,
        head_settings,
        run_settings,
        search_method,
        search_settings,
        training_settings,
    )
    from utils.search.space import Space
    from utils.training.checkpoints import load_backbones

    # Settings
    run, settings = run_settings(args), search_settings(args)
    head, training = head_settings(args, args.num_outputs), training_settings(args)

    # Data: an RGB clip, a skeleton and a label per sample; candidates train on the split trainexp
    names = {"train": "trainexp", "dev": "dev"}
    splits, fingerprints, facts = read_ntu(args, names, ("rgb", "skeleton"))
    check_batches(head, args.batchsize, len(splits["train"]))

    # Networks: both trained on their own modality; the search trains only the central weights between them
    space = Space(sizes=(SkeletonNet.depth, InflatedResNet50.depth))
    network = SkeletonRGBNetwork(space.rows()[:1], head, args.vid_len[1])
    checkpoints = ntu_checkpoints(args, SKELETON, RGB)
    check_protocol(checkpoints, args.protocol)
    inputs = {
        "checkpoints": load_backbones(network, checkpoints),
        "data": fingerprints | {"crops": args.seed},
    }

    with open_search(run, settings, space, MODALITIES, inputs, search_method(args)) as search:
        # Feature bank: what the frozen networks compute for every sample, one pass of random crops per epoch
        evaluator: CachedEvaluator | LiveEvaluator
        if args.features == "cached":
            bank, memory = search.feature_bank(network, splits, passes=args.epochs), args.bank_memory * 1e9
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
        best = search.write_best(evaluator, completed, facts)
        if args.with_random:
            best = search.compare_with_random(evaluator, best)
        search.report(best)
        cli.show_next(args.verbose, "main_found_ntu.py", "--conf", search.folder / "best.json")


if __name__ == "__main__":
    cli.run(main)
