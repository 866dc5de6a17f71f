"""Train the RGB network of NTU RGB+D and keep its best dev epoch.

    python train_rgb_ntu.py --datadir D --checkpointdir C
    python train_rgb_ntu.py --pretrained centre          # start from ImageNet (torchvision downloads the weights)

Writes {checkpointdir}/rgb_<frames>frames_<test accuracy in %>.checkpoint (a state_dict) and the same as .json
(how it came about, with every epoch). Adam; the rate falls along one cosine. The published code has no such script.
"""

import torch

from datasets.ntu.folder import normalise_clips
from datasets.ntu.splits import read_splits
from models.inflated_resnet import InflatedResNet50, inflate
from utils import cli
from utils.errors import UsageError
from utils.runs import unimodal
from utils.seeds import derive_seed
from utils.training.batches import loaded_splits
from utils.training.rates import cosine_rates


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_ntu_data(parser)
    unimodal.add_flags(
        parser, epochs=30, batchsize=16, lr=1e-4, rate="falling along a cosine", weight_decay=1e-4, amp="off"
    )
    parser.add_argument_group("start").add_argument(
        "--pretrained",
        choices=("none", "centre", "average"),
        default="none",
        help="start from torchvision's ResNet-50, 3x3 kernels on the middle frame or spread over three",
    )
    cli.add_run_flags(parser)
    args = parser.parse_args()
    device = cli.resolve_device(args.device)

    data, facts = read_splits(args, ("train", "dev", "test"), ("rgb",), cli.limits(args))
    splits = loaded_splits(data, ("rgb",), normalise_clips, args)
    splits = {name: split.to(device) for name, split in splits.items()}

    torch.manual_seed(derive_seed(args.seed, "rgb network"))
    network = InflatedResNet50(args.num_outputs)
    if args.pretrained != "none":
        from torchvision.models import ResNet50_Weights  # only here: a download, unless torch has it in its cache

        source = ResNet50_Weights.IMAGENET1K_V1
        try:
            weights = source.get_state_dict(progress=args.verbose)
        except OSError as error:
            raise UsageError(
                f"--pretrained could not fetch {source.url} ({error}); "
                f"put that file into {torch.hub.get_dir()}/checkpoints, or leave --pretrained out"
            ) from None
        network.cnn.load_state_dict(inflate(weights, args.pretrained))
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), args.lr, weight_decay=args.weight_decay, fused=True)

    unimodal.train_unimodal(
        args,
        network,
        splits,
        optimizer,
        name=lambda test_accuracy: f"rgb_{args.vid_len[0]}frames_{100 * test_accuracy:.2f}.checkpoint",
        facts={"vid_len": args.vid_len[0], "pretrained": args.pretrained, **facts},
        data_identity={name: split.identity() for name, split in data.items()},
        rates=lambda batches: cosine_rates(args.lr, 0.0, args.epochs, 1, batches),
    )


if __name__ == "__main__":
    cli.run(main)
