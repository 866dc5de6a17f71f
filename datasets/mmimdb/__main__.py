"""Train a network of the plots and one of the posters of MM-IMDB, and write their features for a search.

    python -m datasets.mmimdb --hdf5 multimodal_imdb.hdf5 --datadir data/mmimdb
    python -m datasets.mmimdb --hdf5 multimodal_imdb.hdf5 --images --vgg_weights vgg19-dcbb9e9d.pth
    python main_searchable_features.py --datadir data/mmimdb --threshold 0.3

The text network is a Maxout MLP on the mean word2vec of a plot. The image network is another Maxout MLP, on the
file's VGG-16 features, or, with --images, a linear classifier on frozen VGG-19.
Both keep their best dev epoch by weighted F1.
docs/mmimdb.md describes the file and lists published figures. DATADIR receives train.npz, dev.npz and test.npz, and
networks.json with the F1 of both networks.
"""

import argparse
from pathlib import Path

from utils import cli
from utils.errors import UsageError
from utils.runs import unimodal_flags

ROWS = 4096  # samples whose features are computed at once


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("data")
    group.add_argument("--hdf5", type=Path, required=True, help="multimodal_imdb.hdf5")
    group.add_argument("--datadir", type=cli.folder, default=Path("data/mmimdb"), help="folder of the features")

    group = parser.add_argument_group("image network")
    text = "read the posters with VGG-19, rather than the file's VGG-16 features"
    group.add_argument("--images", action="store_true", help=text)
    text = "torchvision's ImageNet weights: vgg19-dcbb9e9d.pth, or the word download"
    group.add_argument("--vgg_weights", metavar="FILE", help=text)

    schedule = "decreasing along a cosine"
    training = unimodal_flags.add_unimodal_flags(
        parser, epochs=30, batchsize=128, lr=1e-3, schedule=schedule, amp="off"
    )
    text = "probability above which a genre is predicted"
    training.add_argument("--threshold", type=cli.number(0.001, 0.999), default=0.3, help=text)

    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=cli.SEED, default=0, help="seed of all randomness")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA if available")
    cli.add_verbosity(parser)
    args = parser.parse_args()
    if args.images != (args.vgg_weights is not None):
        raise UsageError("--images and --vgg_weights go together: VGG-19 needs weights, of a file or to download")
    return args


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    from datasets.mmimdb.load import load_mmimdb
    from datasets.mmimdb.networks import Training, build, poster_features, train
    from utils.extract import Extractor, write_features
    from utils.files import locked, write_json
    from utils.runs.settings import half_cosine_plan
    from utils.training.devices import Compute, resolve_device, use_bfloat16

    # Settings
    device = resolve_device(args.device)
    compute = Compute(device, use_bfloat16(args.amp, device))
    settings = Training(half_cosine_plan(args), args.weight_decay, compute, args.threshold, args.verbose)

    # Data
    data = load_mmimdb(args.hdf5)
    count, classes = data.labels["train"].shape
    if count % args.batchsize == 1:  # which batch norm cannot normalize
        raise UsageError(f"--batchsize {args.batchsize} leaves one of {count:,} films over; use another")

    with locked(args.datadir):
        # Inputs of the networks: vectors, of the file or computed once
        kinds = {"text": "features", "image": "images" if args.images else "vgg_features"}
        if args.images:
            posters = poster_features(data, args.vgg_weights, compute, args.datadir, args.verbose)
        else:
            posters = data.table("vgg_features")
        inputs = {"text": data.table("features"), "image": posters}

        # Networks
        extractors, figures = {}, {}
        for name, kind in kinds.items():
            network, layers = build(kind, classes, args.seed)
            figures[name] = train(name, network, inputs[name], data, settings)
            extractors[name] = Extractor(network, layers, logits="")

        # Features
        for split, labels in data.labels.items():
            parts = [slice(i, i + ROWS) for i in range(0, len(labels), ROWS)]
            batches = [(*(rows[split][part] for rows in inputs.values()), labels[part]) for part in parts]
            write_features(args.datadir, split, extractors, batches, data.genres)
        about = {"hdf5": str(args.hdf5), "inputs": kinds, "threshold": args.threshold, "seed": args.seed}
        write_json(args.datadir / "networks.json", about | {"networks": figures})
    flags = f"--datadir {args.datadir} --threshold {args.threshold:g}"
    print(f"features: {args.datadir}; search them with main_searchable_features.py {flags}")


if __name__ == "__main__":
    cli.run(main)
