"""Train a found configuration on AV-MNIST to completion and compare it with its baselines, or test a checkpoint.

    python main_found_avmnist.py --conf runs/.../best.json            # the best of a search
    python main_found_avmnist.py --conf 3                             # a published configuration, 0 to 4
    python main_found_avmnist.py --conf "[[3,2,0],[4,1,1]]" --epochs 15
    python main_found_avmnist.py --conf 3 --test_cp best_....checkpoint

Trains the central weights for one epoch, then all weights. The best dev epoch is tested once and saved in checkpointdir
as best_<rows>_<test accuracy>.checkpoint. The run folder receives args.json, results.json and report.html.
"""

import argparse

from utils import cli
from utils.runs import data_flags, flags

# Rows of (audio feature, image feature, activation); --conf takes the index in this list.
PUBLISHED = [
    ((3, 2, 1), (3, 2, 1), (2, 0, 1), (2, 2, 0)),
    ((3, 2, 0),),
    ((1, 1, 1), (2, 0, 0), (0, 2, 0), (2, 2, 0)),
    ((1, 1, 1), (0, 2, 0), (3, 2, 1), (2, 2, 0)),
    ((2, 2, 0), (3, 1, 1), (0, 2, 0), (2, 2, 0)),
]


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    flags.add_found_flags(parser, conf=0)
    data_flags.add_avmnist_data(parser)
    data_flags.add_avmnist_checkpoints(parser)
    flags.add_fusion_flags(
        parser, inner=256, epochs=70, batchsize=32, period=5, dropout=0.4, multitask=False, amp="auto"
    )
    flags.add_run_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    import torch

    from datasets.avmnist.load import MODALITIES, data_identity, is_stand_in, load_avmnist
    from models.fusion import AudioImageNetwork
    from models.lenet import AudioLeNet, ImageLeNet
    from utils.runs.folder import open_training
    from utils.runs.found import FoundRun
    from utils.runs.found_inputs import choose_configuration, load_weights, tested_checkpoint, top_configurations
    from utils.runs.settings import check_batches, found_settings, head_settings, limits, run_settings
    from utils.search.space import Space
    from utils.seeds import derive_seed
    from utils.training.batches import ArraySplit
    from utils.training.devices import on_device

    # Settings
    run, training = run_settings(args), found_settings(args)
    head = head_settings(args, args.num_outputs)
    space = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))
    configuration, searched = choose_configuration(args.conf, space, MODALITIES, PUBLISHED)
    top = top_configurations(searched, args.retrain_top, args.ensemble)
    tested = tested_checkpoint(args.test_cp, args.checkpointdir)

    # Data
    data = load_avmnist(args.datadir, args.num_outputs, limits(args), args.dev_samples)
    splits = {name: ArraySplit((s.images, s.spectrograms), s.labels) for name, s in data.items()}
    if tested is None:
        check_batches(head, args.batchsize, len(splits["train"]), run.compute.replicas)

    # Network: the configuration's central weights over both trained networks, or the checkpoint to be tested
    checkpoints = [tested] if tested else [args.checkpointdir / args.audio_cp, args.checkpointdir / args.rgb_cp]
    torch.manual_seed(derive_seed(args.seed, "found network"))
    network = AudioImageNetwork(configuration, head, args.channels)
    inputs = {
        "configuration": configuration,
        "checkpoints": load_weights(network, tested, checkpoints),
        "data": data_identity(data, dev_samples=args.dev_samples),
    }
    on_device(network, run.device)
    facts = {"channels": args.channels, "stand_in": is_stand_in(args.datadir)}

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
