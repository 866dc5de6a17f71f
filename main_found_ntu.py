"""Train a found configuration on NTU RGB+D to completion and compare it with its baselines, or test a checkpoint.

    python main_found_ntu.py --datadir D --checkpointdir C --conf runs/.../best.json
    python main_found_ntu.py --conf 4 --inner_representation_size 128 --batchnorm      # a published one, 0 to 4
    python main_found_ntu.py --conf 4 --inner_representation_size 128 --batchnorm --test_cp best_....checkpoint

Trains the central weights for one epoch, then all weights. The best dev epoch is tested once and saved in checkpointdir
as best_<rows>_<test accuracy>.checkpoint. The run folder receives args.json, results.json and report.html.
"""

import argparse

from utils import cli
from utils.runs import data_flags, flags

# Rows of (skeleton feature, RGB feature, activation); --conf takes the index in this list.
PUBLISHED = [
    ((2, 2, 0), (1, 0, 1), (3, 2, 0), (3, 1, 1)),
    ((3, 0, 0), (1, 3, 0), (1, 1, 1), (3, 3, 0)),  # the paper's
    ((3, 2, 0), (2, 3, 1), (0, 1, 1), (3, 0, 0)),
    ((1, 1, 1), (3, 2, 0), (0, 1, 1), (3, 0, 0)),
    ((3, 1, 1), (1, 3, 0), (1, 1, 1), (3, 3, 0)),  # the best published
]
SKELETON, RGB = "skeleton_32frames_85.24", "rgb_8frames_83.91"  # the published defaults


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    flags.add_found_flags(parser, conf=1)
    data_flags.add_ntu_data(parser)
    data_flags.add_ntu_checkpoints(parser)
    flags.add_fusion_flags(parser, inner=256, epochs=70, batchsize=20, period=5, dropout=0.4, multitask=True, amp="off")
    flags.add_run_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    import torch

    from datasets.ntu.samples import MODALITIES
    from models.fusion import SkeletonRGBNetwork
    from models.hcn import SkeletonNet
    from models.inflated_resnet import InflatedResNet50
    from utils.runs.folder import open_training
    from utils.runs.found import FoundRun
    from utils.runs.found_inputs import choose_configuration, load_weights, tested_checkpoint, top_configurations
    from utils.runs.ntu_data import check_protocol, ntu_checkpoints, read_ntu
    from utils.runs.settings import check_batches, found_settings, head_settings, run_settings
    from utils.search.space import Space
    from utils.seeds import derive_seed
    from utils.training.devices import on_device

    # Settings
    run, training = run_settings(args), found_settings(args)
    head = head_settings(args, args.num_outputs)
    space = Space(sizes=(SkeletonNet.depth, InflatedResNet50.depth))
    configuration, searched = choose_configuration(args.conf, space, MODALITIES, PUBLISHED)
    top = top_configurations(searched, args.retrain_top, args.ensemble)
    tested = tested_checkpoint(args.test_cp, args.checkpointdir)

    # Data: every split to train, only the test split to test a checkpoint
    names = ("test",) if tested else ("train", "dev", "test")
    splits, fingerprints, facts = read_ntu(args, names, ("rgb", "skeleton"))
    if tested is None:
        check_batches(head, args.batchsize, len(splits["train"]), run.compute.replicas)

    # Network: the configuration's central weights over both trained networks, or the checkpoint to be tested
    checkpoints = [tested] if tested else ntu_checkpoints(args, SKELETON, RGB)
    check_protocol(checkpoints, args.protocol)
    torch.manual_seed(derive_seed(args.seed, "found network"))
    network = SkeletonRGBNetwork(configuration, head, args.vid_len[1])
    inputs = {
        "configuration": configuration,
        "checkpoints": load_weights(network, tested, checkpoints),
        "data": fingerprints,
    }
    on_device(network, run.device)
    facts = {"vid_len": args.vid_len, **facts}

    with open_training(run, inputs) as folder:
        found = FoundRun(run, folder, network, splits, MODALITIES, facts)
        if tested is None:
            found.measure_baselines(checkpoints)  # before training changes the weights of their networks
            found.add_search(searched, inputs)
            found.train(training, top, args.ensemble)  # one epoch of the central weights, then all weights
            if args.baselines is not None:
                found.train_baselines(training, args.baselines)
        found.test(args.evaluate_missing)
        found.finish(tested)


if __name__ == "__main__":
    cli.run(main)
