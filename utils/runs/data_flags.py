"""Flags for data sets and checkpoints."""

import argparse
import os
from pathlib import Path

from datasets.ntu.protocols import PROTOCOLS
from utils import cli

WORKERS = cli.integer(0, 1024)


def add_avmnist_data(parser: argparse.ArgumentParser) -> None:
    """Folders of AV-MNIST and its checkpoints, and how many samples to use."""
    group = parser.add_argument_group("data")
    group.add_argument("--datadir", type=cli.folder, default=Path("data/avmnist"), help="folder made by avmnist_gen.py")
    group.add_argument("--checkpointdir", type=Path, default=Path("checkpoints/avmnist"), help="folder of checkpoints")
    group.add_argument("--num_outputs", type=cli.integer(1, 100_000), default=10, help="number of classes")
    group.add_argument("--channels", type=cli.integer(1, 1024), default=3, help="channels of the first convolution")
    _add_limits(group)
    group.add_argument(
        "--dev_samples",
        type=cli.COUNT,
        default=None,
        help="samples at the end of the training arrays that form the dev split (default: a twelfth, 5000 of 60000)",
    )
    _add_workers(group, 0, "kept from the published scripts: AV-MNIST is held in memory")


def add_avmnist_checkpoints(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("unimodal networks")
    group.add_argument("--audio_cp", default="audio_model.pkl", help="file in checkpointdir, from train_audio.py")
    group.add_argument("--rgb_cp", default="image_model.pkl", help="file in checkpointdir, from train_image.py")


class _VideoLengths(argparse.Action):
    """Frames of the RGB network, then of the skeleton network, whose pooling needs 8."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if values[1] < 8:
            parser.error(f"argument --vid_len: a skeleton needs at least 8 frames, but got {values[1]}")
        setattr(namespace, self.dest, values)


class _Protocol(argparse.Action):
    """Set the protocol, and its number of classes unless --num_outputs is a number that no protocol has."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values)
        if namespace.num_outputs in {protocol.classes for protocol in PROTOCOLS.values()}:
            namespace.num_outputs = PROTOCOLS[values].classes


def add_ntu_data(parser: argparse.ArgumentParser) -> None:
    """Folders of NTU RGB+D and its checkpoints, how samples are read, and how many to use."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--datadir", type=cli.folder, default=Path("data/ntu"), help="folder of nturgbd_rgb and nturgbd_skeletons"
    )
    group.add_argument("--checkpointdir", type=Path, default=Path("checkpoints/ntu"), help="folder of checkpoints")
    group.add_argument(
        "--num_outputs", type=cli.integer(1, 100_000), default=60, help="number of classes (120 in xsub120 and xset120)"
    )
    group.add_argument(
        "--protocol",
        action=_Protocol,
        choices=tuple(PROTOCOLS),
        default="xsub60",
        help="which samples train and which test: cross-subject or cross-view of NTU RGB+D 60, cross-subject or "
        "cross-setup of 120",
    )
    group.add_argument("--vid_dim", type=cli.SIDE, default=256, help="side of the prepared videos in pixels")
    group.add_argument("--vid_fr", type=cli.FRAME_RATE, default=30, help="frame rate of the prepared videos")
    group.add_argument(
        "--vid_len",
        action=_VideoLengths,
        type=cli.integer(1, 1024),
        nargs=2,
        default=[8, 32],
        metavar=("RGB", "SKELETON"),
        help="frames that the two networks see; skeletons need at least 8",
    )
    group.add_argument(
        "--frame_sampling",
        choices=("published", "uniform"),
        default="published",
        help="published: the last frame is black, as the published weights expect",
    )
    group.add_argument("--no_norm", action="store_true", help="do not center skeletons")
    group.add_argument(
        "--no_bad_skel", action="store_true", help="leave out the samples in bad_skel.txt and those without a body"
    )
    group.add_argument(
        "--skip_bad_samples",
        action="store_true",
        help="read all samples first (after --limit_*), and leave out and list those with damaged files",
    )
    _add_limits(group)
    _add_workers(group, min(8, os.cpu_count() or 1), "processes that read samples; 0 reads in the main process")


def add_ntu_checkpoints(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("unimodal networks")
    for flag, kind, script in (("ske_cp", "skeleton", "train_skeleton_ntu.py"), ("rgb_cp", "rgb", "train_rgb_ntu.py")):
        group.add_argument(
            f"--{flag}",
            default="",
            help=f"file in checkpointdir, from {script} (default: the published one, or the only "
            f"{kind}_<frames>frames_*.checkpoint in it)",
        )


def add_feature_data(parser: argparse.ArgumentParser) -> None:
    """Folders of feature tables and checkpoints, and how many samples to use."""
    group = parser.add_argument_group("data")
    group.add_argument("--datadir", type=cli.folder, required=True, help="folder of train.npz, dev.npz and test.npz")
    group.add_argument("--checkpointdir", type=Path, default=Path("checkpoints/features"), help="folder of checkpoints")
    group.add_argument(
        "--multi_label",
        action="store_true",
        help="treat labels 0 and 1 (N, C) as multi-label even if every sample has exactly one, like one-hot classes",
    )
    group.add_argument(
        "--threshold",
        type=cli.number(0.001, 0.999),
        default=0.5,
        help="probability above which a class of multi-label data is predicted",
    )
    _add_limits(group)


def _add_limits(group: argparse._ArgumentGroup) -> None:
    for split in ("train", "dev", "test"):
        unused = "; a search does not read them" if split == "test" else ""
        text = f"use only this many {split} samples, from the start{unused}"
        group.add_argument(f"--limit_{split}", type=cli.COUNT, default=None, help=text)


def _add_workers(group: argparse._ArgumentGroup, default: int, text: str) -> None:
    group.add_argument("--num_workers", "--j", type=WORKERS, default=default, help=text)
    cli.add_alias(group, "--workers_num", "num_workers", WORKERS)
