"""Train a found configuration on NTU RGB+D to the end and set it beside its baselines, or test a checkpoint.

    python main_found_ntu.py --datadir D --checkpointdir C --conf runs/.../best.json
    python main_found_ntu.py --conf 4 --inner_representation_size 128 --batchnorm      # a published one, 0 to 4
    python main_found_ntu.py --conf 4 --inner_representation_size 128 --batchnorm --test_cp best_....checkpoint

One epoch of the central weights, then all weights; the best dev epoch is kept, tested once and saved in checkpointdir
as best_<rows>_<test accuracy>.checkpoint. The run folder gets args.json, results.json and report.html.
"""

from datasets.ntu.folder import normalise_clips
from datasets.ntu.samples import MODALITIES
from datasets.ntu.splits import read_splits
from models.fusion import SkeletonRGBNetwork
from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from utils import cli
from utils.runs import found, fusion_flags
from utils.search.space import Space
from utils.training.batches import loaded_splits
from utils.training.checkpoints import find_checkpoints

# Rows of (skeleton feature, RGB feature, activation); --conf takes the place in this list.
PUBLISHED = [
    ((2, 2, 0), (1, 0, 1), (3, 2, 0), (3, 1, 1)),
    ((3, 0, 0), (1, 3, 0), (1, 1, 1), (3, 3, 0)),  # the paper's
    ((3, 2, 0), (2, 3, 1), (0, 1, 1), (3, 0, 0)),
    ((1, 1, 1), (3, 2, 0), (0, 1, 1), (3, 0, 0)),
    ((3, 1, 1), (1, 3, 0), (1, 1, 1), (3, 3, 0)),  # the best published
]
CHECKPOINTS = {"skeleton": "skeleton_32frames_85.24", "rgb": "rgb_8frames_83.91"}  # the published defaults
TASK = found.Task(
    modalities=MODALITIES,
    space=Space(sizes=(SkeletonNet.depth, InflatedResNet50.depth)),
    published=PUBLISHED,
)


def main() -> None:
    parser = cli.make_parser(__doc__)
    found.add_flags(parser, conf=1)
    cli.add_ntu_data(parser)
    cli.add_ntu_checkpoints(parser)
    fusion_flags.add_flags(parser, inner=256, epochs=70, batchsize=20, period=5, dropout=0.4, multitask=True, amp="off")
    cli.add_run_flags(parser)
    args = parser.parse_args()
    head = fusion_flags.head_settings(args)
    configuration = found.chosen_configuration(args, TASK)

    names = ("test",) if args.test_cp else ("train", "dev", "test")
    data, facts = read_splits(args, names, ("rgb", "skeleton"), cli.limits(args))
    splits = loaded_splits(data, ("rgb", "skeleton"), normalise_clips, args)
    if not args.test_cp:
        fusion_flags.check_batches(args, len(splits["train"]), args.use_dataparallel)

    found.run_found(
        args,
        TASK,
        build=lambda: SkeletonRGBNetwork(configuration, head, args.vid_len[1]),
        splits=splits,
        checkpoints=[] if args.test_cp else find_checkpoints(args, CHECKPOINTS),
        facts={"vid_len": args.vid_len, **facts},
        data_identity={name: split.identity() for name, split in data.items()},
    )


if __name__ == "__main__":
    cli.run(main)
