"""Build AV-MNIST: handwritten digits, reduced by PCA, each paired with a spectrogram of the same digit spoken in noise.

    python avmnist_gen.py --download                              # download the originals, build the paper's data set
    python avmnist_gen.py --mnist_dir MNIST --fsdd_dir FSDD --esc50_dir ESC-50 --preset multibench
    python avmnist_gen.py --source embedded                       # a stand-in that needs no files

The folder --datadir is complete or absent; docs/data.md describes it.
"""

import argparse
import math
import os
import time
from pathlib import Path

from datasets.avmnist.presets import PRESETS
from utils import cli
from utils.errors import UsageError


def noise_level(text: str) -> float:
    """An argparse type: a level in dB; infinite for `none`."""
    if text.lower() == "none":
        return math.inf
    value = cli.to_float(text)
    if not abs(value) <= 100:
        raise argparse.ArgumentTypeError(f"must lie in -100..100 dB, or be none, but got {text}")
    return value


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("source")
    text = "files: MNIST, FSDD and ESC-50; embedded: a stand-in made of scikit-learn's digits and telephone tones"
    group.add_argument("--source", choices=("files", "embedded"), default="files", help=text)
    group.add_argument("--mnist_dir", type=Path, help="folder of the four IDX files, gzipped or not")
    group.add_argument("--fsdd_dir", type=Path, help="folder of the files DIGIT_SPEAKER_INDEX.wav, or its parent")
    group.add_argument("--esc50_dir", type=Path, help="folder that contains meta/esc50.csv and audio/")
    group.add_argument("--download", action="store_true", help="download the three originals to data/originals first")

    group = parser.add_argument_group("data set")
    group.add_argument("--datadir", type=Path, default=Path("data/avmnist"), help="folder to build")
    text = (
        "difficulty of the two modalities: that of the paper, of MultiBench, or of the published generator "
        "(default: paper; --source embedded has its own)"
    )
    group.add_argument("--preset", choices=[name for name in PRESETS if name != "embedded"], help=text)
    group.add_argument(
        "--image_components", type=cli.integer(1, 784), help="PCA components to keep (default: set by the preset)"
    )
    text = "level of speech over noise in dB, or none (default: set by the preset)"
    group.add_argument("--snr_db", type=noise_level, help=text)
    group.add_argument("--seed", type=cli.SEED, default=0, help="seed of all random choices")
    group.add_argument("--limit_train", type=cli.COUNT, help="use only this many training digits, from the start")
    group.add_argument("--limit_test", type=cli.COUNT, help="use only this many test digits, from the start")
    group.add_argument("--force", action="store_true", help="replace the data set in --datadir")

    group = parser.add_argument_group("work")
    text = "threads; their number does not change the output"
    group.add_argument("--num_workers", type=cli.PROCESSES, default=os.cpu_count() or 1, help=text)
    cli.add_verbosity(parser)
    return parser.parse_args()


def find_originals(args: argparse.Namespace, noisy: bool) -> dict[str, Path]:
    """Folders of the originals by flag, after downloading them if asked to; ESC-50 is only needed for noise."""
    folders = {"mnist_dir": args.mnist_dir, "fsdd_dir": args.fsdd_dir, "esc50_dir": args.esc50_dir}
    given = {name: folder for name, folder in folders.items() if folder is not None}
    if args.source == "embedded":
        for name, value in {**given, "preset": args.preset, "download": args.download}.items():
            if value:
                raise UsageError(f"--source embedded reads no files and has its own preset; leave out --{name}")
        return {}
    if args.download:
        if given:
            raise UsageError(f"--download fetches the originals itself; leave out --{next(iter(given))}")
        from datasets.avmnist.download import download_originals

        return download_originals(Path("data/originals"), args.verbose)
    missing = [f"--{name}" for name in folders if name not in given and (noisy or name != "esc50_dir")]
    if missing:
        raise UsageError(f"{', '.join(missing)} missing: name the folders of the originals, or use --download")
    return given


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    from datasets.avmnist.build import Settings, build

    started = time.perf_counter()

    # Settings: those of the preset, unless given.
    name = "embedded" if args.source == "embedded" else args.preset or "paper"
    components, snr_db = PRESETS[name]
    components = args.image_components or components
    if args.snr_db is not None:
        snr_db = None if args.snr_db == math.inf else args.snr_db

    # Originals.
    folders = find_originals(args, noisy=snr_db is not None)
    texts = {key: str(folder) for key, folder in folders.items()}
    settings = Settings(args.source, name, components, snr_db, args.seed, args.limit_train, args.limit_test, **texts)
    if args.verbose:
        noise = "no noise" if snr_db is None else f"noise at {snr_db:g} dB"
        print(f"{args.datadir}: preset {name}, {components} image components, {noise}, seed {args.seed}")
        if args.source == "embedded":
            print("this is a stand-in for AV-MNIST: its figures are not comparable to published ones")

    # Build, unless the same data set is there.
    manifest, built = build(args.datadir, settings, args.num_workers, args.force, args.verbose)

    # Report.
    counts = ", ".join(f"{split['count']:,} {key}" for key, split in manifest["splits"].items())
    took = f" in {time.perf_counter() - started:.1f} s"
    kept = ", already built with these settings (--force builds again)"
    print(f"{args.datadir}: {counts} samples{took if built else kept}")
    cli.show_next(args.verbose, "train_image.py")


if __name__ == "__main__":
    cli.run(main)
