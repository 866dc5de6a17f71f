"""Train a found configuration on AV-MNIST to the end and set it beside its baselines, or test a checkpoint.

    python main_found_avmnist.py --conf runs/.../best.json            # the best of a search
    python main_found_avmnist.py --conf 3                             # a published configuration, 0 to 4
    python main_found_avmnist.py --conf "[[3,2,0],[4,1,1]]" --epochs 15
    python main_found_avmnist.py --conf 3 --test_cp best_....checkpoint

One epoch of the central weights, then all weights; the best dev epoch is kept, tested once and saved in checkpointdir
as best_<rows>_<test accuracy>.checkpoint. The run folder gets args.json, results.json and report.html.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import torch

from datasets.avmnist import MODALITIES, is_stand_in, load_avmnist
from models.fusion import ACTIVATIONS, AudioImageNetwork
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli, found, fusion_flags
from utils.batches import ArraySplit
from utils.checkpoints import load_into, save_state
from utils.configurations import Configuration, Space, format_configuration, parse_configuration, read_best
from utils.files import write_json
from utils.seeds import derive_seed

PUBLISHED: list[Configuration] = [
    ((3, 2, 1), (3, 2, 1), (2, 0, 1), (2, 2, 0)),
    ((3, 2, 0),),
    ((1, 1, 1), (2, 0, 0), (0, 2, 0), (2, 2, 0)),
    ((1, 1, 1), (0, 2, 0), (3, 2, 1), (2, 2, 0)),
    ((2, 2, 0), (3, 1, 1), (0, 2, 0), (2, 2, 0)),
]
SPACE = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))
INPUTS = (1, 0)  # where audio and image, the modalities of a row, stand among the network's inputs (image, audio)


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("configuration")
    group.add_argument("--conf", default="0", help="published number, list of rows, or a search's best.json")
    group.add_argument("--test_cp", default="", help="only test this checkpoint (a path, or a name in checkpointdir)")
    cli.add_avmnist_data(parser)
    cli.add_avmnist_checkpoints(parser)
    fusion_flags.add_flags(parser, inner=256, epochs=70, batchsize=32, period=5, dropout=0.4, multitask=False)
    cli.add_amp(parser.add_argument_group("precision"))
    cli.add_run_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = cli.resolve_device(args.device)
    amp = cli.use_amp(args.amp, device)
    head, training = fusion_flags.head_settings(args), fusion_flags.training_settings(args)
    configuration = parse_configuration(args.conf, PUBLISHED)
    SPACE.check(configuration, len(ACTIVATIONS))
    searched = read_best(Path(args.conf)) if Path(args.conf).is_file() else {}

    data = load_avmnist(args.datadir, args.num_outputs, args.limit_train, args.limit_dev, args.limit_test)
    fusion_flags.check_batches(args, len(data["train"].labels))
    splits = {name: ArraySplit((s.images, s.spectrograms), s.labels).to(device) for name, s in data.items()}

    torch.manual_seed(derive_seed(args.seed, "found network"))
    network = AudioImageNetwork(configuration, head, args.channels)
    checkpoints = [args.checkpointdir / args.audio_cp, args.checkpointdir / args.rgb_cp]
    tested = Path(args.test_cp) if Path(args.test_cp).is_file() else args.checkpointdir / args.test_cp
    if args.test_cp:
        load_into(network, tested)
    else:
        fusion_flags.load_backbones(network, checkpoints)
    network.to(device, memory_format=torch.channels_last)
    model = fusion_flags.data_parallel(network, args.use_dataparallel)
    run_dir = cli.open_run(args)

    rows, lines = [], []
    if not args.test_cp:
        if args.verbose:
            sizes = f"{len(splits['train'])} samples, 1 + {args.epochs} epochs"
            print(f"training {format_configuration(configuration)} on {sizes}, {device}{', bfloat16' * amp}")
        rows = found.baselines(network, splits, MODALITIES, INPUTS, checkpoints)
        started = time.perf_counter()
        lines = found.train_found(network, model, splits, training, amp, args.verbose, run_dir / "best.checkpoint")
        spent = time.perf_counter() - started + searched.get("seconds", 0) + (rows[-1].seconds or 0)

    row, counts = found.test_found(model, splits)
    row.configuration = configuration
    if not args.test_cp:
        row.seconds, row.candidates_trained = spent, searched.get("candidates_trained")
        tested = args.checkpointdir / found.checkpoint_name(configuration, row.test)
        save_state(tested, network.state_dict())
    results = {
        "modalities": MODALITIES,
        "sizes": SPACE.sizes,
        "configuration": configuration,
        "head": dataclasses.asdict(head),
        "channels": args.channels,
        "bfloat16": amp,
        "checkpoint": str(tested),
        "stand_in": is_stand_in(args.datadir),
    }
    report = found.write_results(run_dir, results, [*rows, row], lines, counts)
    if not args.test_cp:
        write_json(tested.with_suffix(".json"), results | {"test_accuracy": row.test, "run_dir": str(run_dir)})
    if results["stand_in"]:
        print("the data set is a stand-in: these figures are not results on the real one")
    print(f"checkpoint: {tested}\nreport: {report}")


if __name__ == "__main__":
    cli.run(main)
