"""Prepare NTU RGB+D: small square clips of the original videos, and one archive of all skeletons.

    python -m datasets.ntu_prepare --rgb_dir ORIGINALS --datadir data/ntu    # both; put the skeleton files there first
    python -m datasets.ntu_prepare --datadir data/ntu                        # the skeletons only
    python -m datasets.ntu_prepare --skeleton_pickle ntu60_3danno.pkl        # the skeletons of pyskl and mmaction2

Skeleton files are read from DATADIR/nturgbd_skeletons; clips are written to DATADIR/nturgbd_rgb. The same command
resumes an interrupted run; docs/ntu.md describes the folders.
"""

import argparse
import os
import sys
from pathlib import Path

from datasets.ntu import PACK_FOLDER, TEXT_FOLDER, scan
from datasets.ntu.protocols import FIRST_SETUPS, PROTOCOLS
from datasets.ntu.transcode import PIXELS, VideoSettings, find_originals, prepare_videos
from utils import cli
from utils.errors import UsageError
from utils.files import locked


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("data")
    group.add_argument("--rgb_dir", type=Path, help="folder of the original videos, which may be in subfolders")
    group.add_argument("--datadir", type=Path, default=Path("data/ntu"), help="folder of the prepared data set")

    group = parser.add_argument_group("clips")
    group.add_argument("--vid_dim", type=cli.SIDE, default=256, help="width and height in pixels")
    group.add_argument("--vid_fr", type=cli.FRAME_RATE, default=30, help="frames per second")
    text = "mpeg4: small files; mjpeg: every frame is a key frame"
    group.add_argument("--codec", choices=tuple(PIXELS), default="mpeg4", help=text)

    group = parser.add_argument_group("skeletons")
    text = f"pack DATADIR/{TEXT_FOLDER} into one archive that loads far faster (default: if the folder exists)"
    group.add_argument("--skeletons", action=argparse.BooleanOptionalAction, help=text)
    text = "pack the skeletons of this file instead: ntu60_3danno.pkl or ntu120_3danno.pkl of pyskl or mmaction2"
    group.add_argument("--skeleton_pickle", type=Path, help=text)

    group = parser.add_argument_group("work")
    text = "processes; their number does not change the output"
    group.add_argument("--num_workers", type=cli.PROCESSES, default=os.cpu_count() or 1, help=text)
    cli.add_verbosity(parser)
    return parser.parse_args()


def counts(datadir: Path, clips: Path) -> str:
    """Summarize the data folder in lines to compare with the published numbers."""
    from datasets.ntu.pack import SkeletonPack

    videos, pack = scan(clips, r"_rgb\.avi").keys(), SkeletonPack.open(datadir)
    skeletons = scan(datadir / TEXT_FOLDER, r"\.skeleton").keys() | (pack.names if pack else set())
    both = videos & skeletons
    lines = [f"{len(videos):,} videos, {len(skeletons):,} skeletons, {len(both):,} samples with both"]
    lines.append(f"left out: {len(skeletons - videos):,} without video, {len(videos - skeletons):,} without skeleton")
    if pack:
        bodiless = sum(pack.bodies(name) == 0 for name in pack.names)
        lines.append(f"{len(pack.names):,} skeletons packed, {bodiless:,} of them without a body in any frame")
    newer = any(int(name[1:4]) not in FIRST_SETUPS for name in both)
    shown = {name: one for name, one in PROTOCOLS.items() if newer or one.classes == 60}
    lines += [f"samples by split of {name}: {one.counts(both)}" for name, one in shown.items()]
    lines.append("(all of NTU RGB+D 60 is 56,880 samples; NTU lists 302 of them as missing skeletons)")
    if newer:
        lines.append("(all of NTU RGB+D 120 is 114,480 samples; NTU lists 535 of them as missing skeletons)")
    return "\n".join(lines)


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    from datasets.ntu.pack import write_pack

    settings = VideoSettings(args.vid_dim, args.vid_fr, args.codec)
    clips, text = settings.folder(args.datadir), args.datadir / TEXT_FOLDER

    # Settings and originals.
    pickled = args.skeleton_pickle
    if pickled and args.skeletons is not None:
        raise UsageError("--skeleton_pickle and --skeletons name two sources of skeletons; leave one out")
    skeletons = bool(pickled) or (text.is_dir() if args.skeletons is None else args.skeletons)
    if not skeletons and args.rgb_dir is None:
        raise UsageError(f"nothing to prepare: name the original videos with --rgb_dir, or put skeletons in {text}")
    originals = {} if args.rgb_dir is None else find_originals(args.rgb_dir)
    if args.verbose and skeletons:
        print(f"packing the skeletons of {pickled or text} into {args.datadir / PACK_FOLDER}")
    if args.verbose and originals:
        print(f"making {args.codec} clips of {len(originals):,} videos in {clips}, {args.num_workers} at a time")

    # Convert: first the skeletons, which take minutes, then the videos, which take hours.
    failures = []
    with locked(args.datadir):
        if skeletons:
            packed = write_pack(args.datadir, args.num_workers, args.verbose, pickled)
            failures += packed.failures
            if args.verbose and packed.kept:
                print("the skeletons are already packed")
        if originals:
            failures += prepare_videos(originals, args.datadir, settings, args.num_workers, args.verbose).failures

    # Report.
    print(f"{args.datadir}:\n{counts(args.datadir, clips)}")
    if failures:
        print(f"files that could not be used ({len(failures):,}):", *failures, sep="\n", file=sys.stderr)
        sys.exit(1)
    cli.show_next(args.verbose, "train_skeleton_ntu.py")


if __name__ == "__main__":
    cli.run(main)
