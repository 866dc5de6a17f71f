"""Train the skeleton network of NTU RGB+D and keep its best dev epoch.

    python train_skeleton_ntu.py --datadir D --checkpointdir C
    python train_skeleton_ntu.py --vid_len 8 16          # skeletons of 16 frames

Writes {checkpointdir}/skeleton_<frames>frames_<test accuracy in %>.checkpoint (a state_dict), and a .json beside it
with settings and every epoch's results. Trains with Adam at a learning rate that decreases along one cosine. The
published code has no such script.
"""

import argparse

from utils import cli
from utils.runs import data_flags, flags, unimodal_flags


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    data_flags.add_ntu_data(parser)
    unimodal_flags.add_unimodal_flags(
        parser, epochs=60, batchsize=64, lr=1e-3, schedule="decreasing along a cosine", amp="off"
    )
    flags.add_run_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    import torch

    from models.hcn import SkeletonNet
    from utils.runs.folder import open_training
    from utils.runs.ntu_data import read_ntu
    from utils.runs.settings import half_cosine_plan, run_settings
    from utils.runs.unimodal import finish_unimodal, train_unimodal
    from utils.seeds import derive_seed

    # Settings
    run = run_settings(args)
    frames = args.vid_len[1]
    plan = half_cosine_plan(args)

    # Data
    splits, fingerprints, facts = read_ntu(args, ("train", "dev", "test"), ("skeleton",), run.device)

    # Network and optimizer
    torch.manual_seed(derive_seed(args.seed, "skeleton network"))
    network = SkeletonNet(args.num_outputs, frames).to(run.device)
    optimizer = torch.optim.Adam(network.parameters(), args.lr, weight_decay=args.weight_decay, fused=True)

    with open_training(run, {"data": fingerprints}) as folder:
        # Training: the network ends with the weights of its best dev epoch
        results = train_unimodal(
            run, folder, network, optimizer, splits, plan, {"num_outputs": args.num_outputs, "vid_len": frames, **facts}
        )

        # Test, checkpoint and report
        name = f"skeleton_{frames}frames_{{accuracy}}.checkpoint"
        finish_unimodal(run, folder, network, splits["test"], results, name)
        cli.show_next(args.verbose, "train_rgb_ntu.py", "--pretrained", "centre")


if __name__ == "__main__":
    cli.run(main)
