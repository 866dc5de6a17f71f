"""Report which copy of AV-MNIST a folder holds.

    python -m datasets.avmnist_check data/avmnist

Reads the copies that docs/data.md lists. The number of components comes from the images; the level of noise and whether
labels, images and spectrograms belong together come from two small classifiers, fitted in seconds.
"""

import argparse

from utils import cli
from utils.errors import DataError


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.add_argument("datadir", type=cli.folder, help="folder of the data set")
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    from datasets.avmnist.check import describe, examine
    from datasets.avmnist.load import image_folder, is_stand_in, read_parts

    parts = read_parts(args.datadir)
    try:
        lines = describe(examine(parts))
    except DataError as error:
        raise DataError(f"{args.datadir}: {error}") from None
    counts = " and ".join(f"{len(part.labels):,} {name}" for name, part in parts.items())
    images = parts["train"].images[:1].numpy().dtype
    stand_in = "; the embedded stand-in, not AV-MNIST" if is_stand_in(args.datadir) else ""
    print(
        f"{args.datadir}: {counts} samples, images {images} in {image_folder(args.datadir)}/{stand_in}",
        *lines,
        sep="\n",
    )


if __name__ == "__main__":
    cli.run(main)
