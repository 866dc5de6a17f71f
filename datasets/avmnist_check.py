"""Report which copy of AV-MNIST a folder holds.

    python -m datasets.avmnist_check data/avmnist

Reads the copies that docs/data.md lists. The number of components comes from the images; the level of noise and whether
labels, images and spectrograms belong together come from two small classifiers, fitted in seconds.
"""

import argparse

from datasets.avmnist.build import PRESETS
from datasets.avmnist.check import ACCURACY, Findings, examine
from datasets.avmnist.load import image_folder, is_stand_in, read_parts
from utils import cli
from utils.errors import DataError


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    parser.prog = "python -m datasets.avmnist_check"
    parser.add_argument("datadir", type=cli.folder, help="folder of the data set")
    return parser.parse_args()


def describe(found: Findings) -> list[str]:
    """Lines that compare the findings with the presets."""
    components = ", ".join(f"{name} {PRESETS[name][0]}" for name in ACCURACY)
    reached = ", ".join(f"{name} {100 * low:.0f} to {100 * high:.0f} %" for name, (low, high) in ACCURACY.items())
    aligned = "no: " + " and ".join(found.unaligned) + " do not belong to them" if found.unaligned else "yes"
    both = [name for name in found.images if name in found.sounds]
    preset = both[0] if both else f"none; images of {_named(found.images)}, noise of {_named(found.sounds)}"
    if "spectrograms" in found.unaligned:
        preset = f"images of {_named(found.images)}; noise cannot be measured without labels"
    return [
        f"image components: {found.components} ({components})",
        f"noise: a probe reaches {100 * found.audio_probe:.1f} % ({reached})",
        f"labels aligned: {aligned} (probes on images {100 * found.image_probe:.1f} %, on spectrograms "
        f"{100 * found.audio_probe:.1f} %; guessing stays below {100 * found.chance:.1f} %)",
        f"preset: {preset}",
    ]


def _named(presets: list[str]) -> str:
    return f"preset {presets[0]}" if presets else "no preset"


def main() -> None:
    args = parse_args()
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
