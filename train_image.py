"""Train the image network of AV-MNIST and keep its best dev epoch.

    python train_image.py                                # after avmnist_gen.py
    python train_image.py --datadir D --checkpointdir C --epochs 10

Writes {checkpointdir}/image_model.pkl (a state_dict) and image_model.json (how it came about, with every epoch). Plain
SGD at a constant rate, as published.
"""

import torch

from datasets.avmnist.load import is_stand_in, load_avmnist, train_files
from models.lenet import ImageLeNet
from utils import cli
from utils.candidates.feature_bank import data_identity
from utils.runs import unimodal
from utils.seeds import derive_seed
from utils.training.batches import ArraySplit
from utils.training.loop import on_device


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_avmnist_data(parser)
    unimodal.add_flags(parser, epochs=50, batchsize=128, lr=0.1, rate="constant", weight_decay=1e-4, amp="auto")
    cli.add_run_flags(parser)
    args = parser.parse_args()
    device = cli.resolve_device(args.device)

    data = load_avmnist(args.datadir, args.num_outputs, **cli.limits(args, "limit_"), dev_samples=args.dev_samples)
    splits = {name: ArraySplit((split.images,), split.labels).to(device) for name, split in data.items()}

    torch.manual_seed(derive_seed(args.seed, "image network"))
    network = on_device(ImageLeNet(args.channels, args.num_outputs), device)
    optimizer = torch.optim.SGD(network.parameters(), args.lr, weight_decay=args.weight_decay)

    unimodal.train_unimodal(
        args,
        network,
        splits,
        optimizer,
        name=lambda test_accuracy: "image_model.pkl",
        facts={"channels": args.channels, "stand_in": is_stand_in(args.datadir)},
        data_identity=data_identity(args.datadir, train_files(args.datadir, ["image"]), dev_samples=args.dev_samples),
        test_every_epoch=True,
    )


if __name__ == "__main__":
    cli.run(main)
