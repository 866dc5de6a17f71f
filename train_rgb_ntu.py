"""Train the RGB network of NTU RGB+D and keep its best dev epoch.

    python train_rgb_ntu.py --datadir D --checkpointdir C
    python train_rgb_ntu.py --pretrained centre          # start from ImageNet (torchvision downloads the weights)

Writes {checkpointdir}/rgb_<frames>frames_<test accuracy in %>.checkpoint (a state_dict), and a .json beside it
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
        parser, epochs=30, batchsize=16, lr=1e-4, schedule="decreasing along a cosine", amp="off"
    )
    parser.add_argument_group("start").add_argument(
        "--pretrained",
        choices=("none", "centre", "average"),
        default="none",
        help="start from torchvision's ResNet-50: 3x3 kernels on the middle frame, or spread over three; none: random",
    )
    flags.add_run_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    import torch

    from models.inflated_resnet import InflatedResNet50, inflate
    from utils.runs.folder import open_training
    from utils.runs.ntu_data import imagenet_weights, read_ntu
    from utils.runs.settings import half_cosine_plan, run_settings
    from utils.runs.unimodal import finish_unimodal, train_unimodal
    from utils.seeds import derive_seed

    # Settings
    run = run_settings(args)
    frames = args.vid_len[0]
    plan = half_cosine_plan(args)

    # Data
    splits, fingerprints, facts = read_ntu(args, ("train", "dev", "test"), ("rgb",), run.device)

    # Network and optimizer
    torch.manual_seed(derive_seed(args.seed, "rgb network"))
    network = InflatedResNet50(args.num_outputs)
    if args.pretrained != "none":
        network.cnn.load_state_dict(inflate(imagenet_weights(run.verbose), args.pretrained))
    network.to(run.device)
    optimizer = torch.optim.Adam(network.parameters(), args.lr, weight_decay=args.weight_decay, fused=True)

    with open_training(run, {"data": fingerprints}) as folder:
        # Training: the network ends with the weights of its best dev epoch
        facts = {"num_outputs": args.num_outputs, "vid_len": frames, "pretrained": args.pretrained, **facts}
        results = train_unimodal(run, folder, network, optimizer, splits, plan, facts)

        # Test, checkpoint and report
        finish_unimodal(run, folder, network, splits["test"], results, f"rgb_{frames}frames_{{accuracy}}.checkpoint")
        cli.show_next(args.verbose, "main_searchable_ntu.py")


if __name__ == "__main__":
    cli.run(main)
