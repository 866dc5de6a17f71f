"""Build AV-MNIST: handwritten digits, reduced by PCA, each with a spectrogram of the same digit spoken in noise.

    python avmnist_gen.py --download                              # fetch the originals, build the paper's data set
    python avmnist_gen.py --mnist_dir MNIST --fsdd_dir FSDD --esc50_dir ESC-50 --preset multibench
    python avmnist_gen.py --source embedded                       # a stand-in that needs no files

The folder --datadir appears whole or not at all; docs/data.md describes it.
"""

import argparse
import os
import time
from pathlib import Path

from datasets.avmnist.build import PRESETS, Settings, build
from datasets.avmnist.download import download_originals
from utils import cli
from utils.errors import UsageError

ORIGINALS = ("mnist_dir", "fsdd_dir", "esc50_dir")


def snr(text: str) -> float | None:
    """An argparse type: a level in dB, or `none`."""
    if text.lower() == "none":
        return None
    value = float(text)
    if not abs(value) <= 100:
        raise argparse.ArgumentTypeError(f"must lie in -100..100 dB, or be none, but got {text}")
    return value


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("source")
    group.add_argument(
        "--source",
        choices=("files", "embedded"),
        default="files",
        help="files: MNIST, FSDD and ESC-50; embedded: a stand-in made of scikit-learn's digits and telephone tones",
    )
    group.add_argument("--mnist_dir", type=Path, help="folder of the four IDX files, gzipped or not")
    group.add_argument(
        "--fsdd_dir", type=Path, help="folder of the recordings DIGIT_SPEAKER_INDEX.wav, or the one above"
    )
    group.add_argument("--esc50_dir", type=Path, help="folder that holds meta/esc50.csv and audio/")
    group.add_argument("--download", action="store_true", help="fetch the three originals to data/originals first")

    group = parser.add_argument_group("data set")
    group.add_argument("--datadir", type=Path, default=Path("data/avmnist"), help="folder to build")
    group.add_argument(
        "--preset",
        choices=[name for name in PRESETS if name != "embedded"],
        help="how hard the two modalities are: as in the paper, as in MultiBench, as the published generator ran "
        "(default: paper; --source embedded has its own)",
    )
    group.add_argument("--image_components", type=cli.positive_int, help="PCA components kept (default: the preset's)")
    group.add_argument(
        "--snr_db",
        type=snr,
        default=argparse.SUPPRESS,
        help="level of speech over noise in dB, or none (default: the preset's)",
    )
    group.add_argument("--seed", type=cli.non_negative_int, default=0, help="all randomness derives from it")
    group.add_argument("--limit_train", type=cli.positive_int, help="use only the first so many training digits")
    group.add_argument("--limit_test", type=cli.positive_int, help="use only the first so many test digits")
    group.add_argument("--force", action="store_true", help="replace a data set that is already in --datadir")

    group = parser.add_argument_group("work")
    group.add_argument(
        "--num_workers", type=cli.positive_int, default=os.cpu_count() or 1, help="threads; the output is the same"
    )
    cli.add_verbosity(parser)
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Refuse flags that contradict each other."""
    given = [f"--{name}" for name in ORIGINALS if getattr(args, name) is not None]
    if args.source == "embedded":
        given += [flag for flag, used in (("--preset", args.preset), ("--download", args.download)) if used]
        if given:
            raise UsageError(f"--source embedded reads no files and has its own preset; leave out {given[0]}")
    elif args.download and given:
        raise UsageError(f"--download fetches the originals itself; leave out {given[0]}")


def originals(args: argparse.Namespace, snr_db: float | None) -> dict[str, Path]:
    """The folders of the originals; ESC-50 is not needed where no noise is mixed in."""
    if args.source == "embedded":
        return {}
    if args.download:
        return download_originals(Path("data/originals"), args.verbose)
    folders = {name: getattr(args, name) for name in ORIGINALS}
    missing = [f"--{name}" for name, folder in folders.items() if folder is None]
    if snr_db is None:
        missing = [flag for flag in missing if flag != "--esc50_dir"]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: name the originals' folders, or use --download")
    return {name: folder for name, folder in folders.items() if folder is not None}


def main() -> None:
    args = parse_args()
    check(args)
    started = time.perf_counter()

    # What is to be built.
    name = "embedded" if args.source == "embedded" else args.preset or "paper"
    preset = PRESETS[name]
    components = args.image_components or preset.image_components
    snr_db = getattr(args, "snr_db", preset.snr_db)
    folders = originals(args, snr_db)
    settings = Settings(
        source=args.source,
        preset=name,
        image_components=components,
        snr_db=snr_db,
        seed=args.seed,
        limit_train=args.limit_train,
        limit_test=args.limit_test,
        **{key: str(folder) for key, folder in folders.items()},
    )
    if args.verbose:
        noise = "no noise" if snr_db is None else f"noise at {snr_db:g} dB"
        print(f"{args.datadir}: preset {name}, {components} image components, {noise}, seed {args.seed}")
        if args.source == "embedded":
            print("this is a stand-in for AV-MNIST: its figures do not compare with published ones")

    # Build, or find it built.
    manifest, built = build(args.datadir, settings, args.num_workers, args.force, args.verbose)

    # Report.
    counts = ", ".join(f"{split['count']:,} {key}" for key, split in manifest["splits"].items())
    if built:
        print(f"{args.datadir}: {counts} samples in {time.perf_counter() - started:.1f} s")
    else:
        print(f"{args.datadir}: {counts} samples, already built with these settings (--force builds again)")


if __name__ == "__main__":
    cli.run(main)
