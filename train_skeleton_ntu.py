"""Train the skeleton network of NTU RGB+D and keep its best dev epoch.

    python train_skeleton_ntu.py --datadir D --checkpointdir C
    python train_skeleton_ntu.py --vid_len 8 16          # skeletons of 16 frames

Writes {checkpointdir}/skeleton_<frames>frames_<test accuracy in %>.checkpoint (a state_dict) and the same as .json
(how it came about, with every epoch). Adam; the rate falls along one cosine. The published code has no such script.
"""

import torch

from datasets.ntu.folder import normalise_clips
from datasets.ntu.splits import read_splits
from models.hcn import SkeletonNet
from utils import cli
from utils.runs import unimodal
from utils.seeds import derive_seed
from utils.training.batches import loaded_splits
from utils.training.rates import cosine_rates


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_ntu_data(parser)
    unimodal.add_flags(
        parser, epochs=60, batchsize=64, lr=1e-3, rate="falling along a cosine", weight_decay=1e-4, amp="off"
    )
    cli.add_run_flags(parser)
    args = parser.parse_args()
    device = cli.resolve_device(args.device)

    data, facts = read_splits(args, ("train", "dev", "test"), ("skeleton",), cli.limits(args))
    splits = loaded_splits(data, ("skeleton",), normalise_clips, args)
    splits = {name: split.to(device) for name, split in splits.items()}

    torch.manual_seed(derive_seed(args.seed, "skeleton network"))
    network = SkeletonNet(args.num_outputs, args.vid_len[1])
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), args.lr, weight_decay=args.weight_decay, fused=True)

    unimodal.train_unimodal(
        args,
        network,
        splits,
        optimizer,
        name=lambda test_accuracy: f"skeleton_{args.vid_len[1]}frames_{100 * test_accuracy:.2f}.checkpoint",
        facts={"vid_len": args.vid_len[1], **facts},
        data_identity={name: split.identity() for name, split in data.items()},
        rates=lambda batches: cosine_rates(args.lr, 0.0, args.epochs, 1, batches),
    )


if __name__ == "__main__":
    cli.run(main)
