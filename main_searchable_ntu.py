"""Search which features of the NTU RGB+D networks to fuse, and how.

    python main_searchable_ntu.py --datadir D --checkpointdir C
    python main_searchable_ntu.py --features live        # through both networks in train mode, as published

A configuration row is [skeleton feature 0..3, RGB feature 0..3, activation (0 ReLU, 1 sigmoid)]. Candidates train on
seven of the training subjects; their features are computed once a training epoch, each with its own random crops. The
run folder gets args.json, journal.jsonl (every trained candidate), best.json (give it to main_found_ntu.py --conf) and
report.html.
"""

from datasets.ntu.folder import normalise_clips
from datasets.ntu.samples import MODALITIES
from datasets.ntu.splits import read_splits
from models.fusion import SkeletonRGBNetwork
from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from utils import cli
from utils.runs import fusion_flags, search_flags
from utils.runs import search as search_run
from utils.search.space import Space
from utils.training.batches import loaded_splits
from utils.training.checkpoints import find_checkpoints

CHECKPOINTS = {"skeleton": "skeleton_32frames_83.42", "rgb": "rgb_8frames_82.14"}  # the published defaults


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_ntu_data(parser)
    cli.add_ntu_checkpoints(parser)
    search_flags.add_flags(parser)
    search_flags.add_network_flags(parser)
    fusion_flags.add_flags(parser, inner=16, epochs=3, batchsize=20, period=1, dropout=0.5, multitask=False, amp="off")
    cli.add_run_flags(parser)
    args = parser.parse_args()
    head = fusion_flags.head_settings(args)

    data, facts = read_splits(args, {"train": "trainexp", "dev": "dev"}, ("rgb", "skeleton"), cli.limits(args))
    splits = loaded_splits(data, ("rgb", "skeleton"), normalise_clips, args)
    fusion_flags.check_batches(args, len(splits["train"]))

    space = Space(sizes=(SkeletonNet.depth, InflatedResNet50.depth))
    maker = search_run.through_networks(
        args,
        network=SkeletonRGBNetwork(space.rows()[:1], head, args.vid_len[1]),
        splits=splits,
        checkpoints=find_checkpoints(args, CHECKPOINTS),
        data_identity={name: split.identity() for name, split in data.items()} | {"crops": args.seed},
        passes=args.epochs,
    )
    search_run.run_search(args, space, MODALITIES, maker, facts)


if __name__ == "__main__":
    cli.run(main)
