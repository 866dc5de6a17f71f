"""Search which features of the AV-MNIST networks to fuse, and how.

    python main_searchable_avmnist.py                    # after train_image.py and train_audio.py
    python main_searchable_avmnist.py --randsearch       # random search with as many trainings
    python main_searchable_avmnist.py --features live    # through both networks in train mode, as published

A configuration row is [audio feature 0..4, image feature 0..2, activation (0 ReLU, 1 sigmoid)]. The run folder gets
args.json, journal.jsonl (every trained candidate), best.json (give it to main_found_avmnist.py --conf) and report.html.
"""

import argparse

from datasets.avmnist.load import MODALITIES, is_stand_in, load_avmnist, train_files
from models.fusion import AudioImageNetwork
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli
from utils.candidates.feature_bank import data_identity
from utils.runs import fusion_flags, search_flags
from utils.runs import search as search_run
from utils.search.space import Space
from utils.training.batches import ArraySplit


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_avmnist_data(parser)
    cli.add_avmnist_checkpoints(parser)
    search_flags.add_flags(parser)
    search_flags.add_network_flags(parser)
    fusion_flags.add_flags(parser, inner=16, epochs=3, batchsize=32, period=1, dropout=0.5, multitask=False)
    cli.add_run_flags(parser)
    for flag in ("--vid_dim", "--vid_fr", "--vid_len"):  # of the published script, which does not use them
        parser.add_argument(flag, action=cli.Ignore, nargs="+", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    head = fusion_flags.head_settings(args)

    data = load_avmnist(args.datadir, args.num_outputs, **cli.limits(args, "limit_"), dev_samples=args.dev_samples)
    fusion_flags.check_batches(args, len(data["train"].labels))
    splits = {
        name: ArraySplit((data[name].images, data[name].spectrograms), data[name].labels, data[name].release)
        for name in ("train", "dev")
    }

    space = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))
    maker = search_run.through_networks(
        args,
        network=AudioImageNetwork(space.rows()[:1], head, args.channels),
        splits=splits,
        checkpoints=[args.checkpointdir / args.audio_cp, args.checkpointdir / args.rgb_cp],
        data_identity=data_identity(args.datadir, train_files(args.datadir), dev_samples=args.dev_samples),
    )
    search_run.run_search(args, space, MODALITIES, maker, facts={"stand_in": is_stand_in(args.datadir)})


if __name__ == "__main__":
    cli.run(main)
