"""Train the image network of AV-MNIST and keep its best dev epoch.

    python train_image.py                                # after avmnist_gen.py
    python train_image.py --schedule onecycle            # in a fifth of the epochs

Writes {checkpointdir}/image_model.pkl (a state_dict) and image_model.json (settings and every epoch's results). Trains
with plain SGD at a constant learning rate, as published, unless --schedule says otherwise.
"""

import argparse

from utils import cli
from utils.runs import data_flags, flags, unimodal_flags


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    data_flags.add_avmnist_data(parser)
    unimodal_flags.add_avmnist_flags(parser)
    flags.add_run_flags(parser)
    return unimodal_flags.parse(parser)


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    import torch

    from datasets.avmnist.load import data_identity, is_stand_in, load_avmnist
    from models.lenet import ImageLeNet
    from utils.runs.folder import open_training
    from utils.runs.settings import limits, run_settings, sgd, unimodal_plan
    from utils.runs.unimodal import finish_unimodal, train_unimodal
    from utils.seeds import derive_seed
    from utils.training.batches import ArraySplit
    from utils.training.devices import on_device

    # Settings
    run = run_settings(args)
    plan = unimodal_plan(args)

    # Data
    data = load_avmnist(args.datadir, args.num_outputs, limits(args), args.dev_samples)
    splits = {name: ArraySplit((split.images,), split.labels).to(run.device) for name, split in data.items()}
    inputs = {"data": data_identity(data, modalities=["image"], dev_samples=args.dev_samples)}

    # Network and optimizer
    torch.manual_seed(derive_seed(args.seed, "image network"))
    network = on_device(ImageLeNet(args.channels, args.num_outputs), run.device)
    optimizer = sgd(network, args)

    with open_training(run, inputs) as folder:
        # Training: the network ends with the weights of its best dev epoch
        facts = {"num_outputs": args.num_outputs, "channels": args.channels, "stand_in": is_stand_in(args.datadir)}
        results = train_unimodal(run, folder, network, optimizer, splits, plan, facts, test_every_epoch=True)

        # Test, checkpoint and report
        finish_unimodal(run, folder, network, splits["test"], results, "image_model.pkl")
        made = (args.checkpointdir / "audio_model.pkl").exists()
        cli.show_next(args.verbose, "main_searchable_avmnist.py" if made else "train_audio.py")


if __name__ == "__main__":
    cli.run(main)
