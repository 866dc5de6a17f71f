"""Train a found configuration on AV-MNIST to the end and set it beside its baselines, or test a checkpoint.

    python main_found_avmnist.py --conf runs/.../best.json            # the best of a search
    python main_found_avmnist.py --conf 3                             # a published configuration, 0 to 4
    python main_found_avmnist.py --conf "[[3,2,0],[4,1,1]]" --epochs 15
    python main_found_avmnist.py --conf 3 --test_cp best_....checkpoint

One epoch of the central weights, then all weights; the best dev epoch is kept, tested once and saved in checkpointdir
as best_<rows>_<test accuracy>.checkpoint. The run folder gets args.json, results.json and report.html.
"""

from datasets.avmnist.load import MODALITIES, is_stand_in, load_avmnist, train_files
from models.fusion import AudioImageNetwork
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli
from utils.candidates.feature_bank import data_identity
from utils.runs import found, fusion_flags
from utils.search.space import Space
from utils.training.batches import ArraySplit

# Rows of (audio feature, image feature, activation); --conf takes the place in this list.
PUBLISHED = [
    ((3, 2, 1), (3, 2, 1), (2, 0, 1), (2, 2, 0)),
    ((3, 2, 0),),
    ((1, 1, 1), (2, 0, 0), (0, 2, 0), (2, 2, 0)),
    ((1, 1, 1), (0, 2, 0), (3, 2, 1), (2, 2, 0)),
    ((2, 2, 0), (3, 1, 1), (0, 2, 0), (2, 2, 0)),
]
TASK = found.Task(
    modalities=MODALITIES,
    space=Space(sizes=(AudioLeNet.depth, ImageLeNet.depth)),
    published=PUBLISHED,
)


def main() -> None:
    parser = cli.make_parser(__doc__)
    found.add_flags(parser, conf=0)
    cli.add_avmnist_data(parser)
    cli.add_avmnist_checkpoints(parser)
    fusion_flags.add_flags(
        parser, inner=256, epochs=70, batchsize=32, period=5, dropout=0.4, multitask=False, amp="auto"
    )
    cli.add_run_flags(parser)
    args = parser.parse_args()
    head = fusion_flags.head_settings(args)
    configuration = found.chosen_configuration(args, TASK)

    data = load_avmnist(args.datadir, args.num_outputs, **cli.limits(args, "limit_"), dev_samples=args.dev_samples)
    if not args.test_cp:
        fusion_flags.check_batches(args, len(data["train"].labels), args.use_dataparallel)
    splits = {name: ArraySplit((s.images, s.spectrograms), s.labels) for name, s in data.items()}

    found.run_found(
        args,
        TASK,
        build=lambda: AudioImageNetwork(configuration, head, args.channels),
        splits=splits,
        checkpoints=[args.checkpointdir / args.audio_cp, args.checkpointdir / args.rgb_cp],
        facts={"channels": args.channels, "stand_in": is_stand_in(args.datadir)},
        data_identity=data_identity(args.datadir, train_files(args.datadir), dev_samples=args.dev_samples),
    )


if __name__ == "__main__":
    cli.run(main)
