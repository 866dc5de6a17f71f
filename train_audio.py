"""Train the audio network of AV-MNIST and keep its best dev epoch.

    python train_audio.py                                # after avmnist_gen.py
    python train_audio.py --datadir D --checkpointdir C --epochs 10

Writes {checkpointdir}/audio_model.pkl (a state_dict) and audio_model.json (how it came about, with every epoch).
"""

import torch

from datasets.avmnist import is_stand_in, load_avmnist
from models.lenet import AudioLeNet
from utils import cli, unimodal
from utils.batches import ArraySplit
from utils.seeds import derive_seed


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_avmnist_data(parser)
    unimodal.add_flags(parser)
    cli.add_run_flags(parser)
    args = parser.parse_args()
    device = cli.resolve_device(args.device)

    data = load_avmnist(args.datadir, args.num_outputs, args.limit_train, args.limit_dev, args.limit_test)
    splits = {name: ArraySplit((split.spectrograms,), split.labels) for name, split in data.items()}

    torch.manual_seed(derive_seed(args.seed, "audio network"))
    network = AudioLeNet(args.channels, args.num_outputs)

    run_dir = cli.open_run(args)
    path = args.checkpointdir / "audio_model.pkl"
    if args.verbose:
        print(
            f"training {type(network).__name__} on {len(splits['train'])} samples for {args.epochs} epochs on {device}"
        )
    record = unimodal.train_unimodal(network, splits, args, device, path, run_dir, is_stand_in(args.datadir))
    print(f"audio only: dev {record['dev_accuracy']:.4f}, test {record['test_accuracy']:.4f}; saved {path}")


if __name__ == "__main__":
    cli.run(main)
