"""Samples and checkpoints of NTU RGB+D that a command line names, and weights to start from."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from datasets.ntu.folder import Selection, normalize_clips
from datasets.ntu.samples import NTUSettings
from datasets.ntu.splits import read_splits
from utils.errors import UsageError
from utils.reading import read_json
from utils.runs.settings import limits
from utils.training.batches import CPU, LoadedSplit, loaded_splits
from utils.training.checkpoints import find_checkpoint


def read_ntu(
    args: argparse.Namespace,
    names: Sequence[str] | Mapping[str, str],
    inputs: tuple[str, ...],
    device: torch.device = CPU,
) -> tuple[dict[str, LoadedSplit], dict[str, object], dict[str, object]]:
    """Find the samples of NTU RGB+D; return splits by name, their fingerprints, and facts for the results.

    Args:
        names: see `NTUFolder.splits`.
        inputs: "rgb" and "skeleton", in the order in which the network takes them.
    """
    settings = NTUSettings(args.vid_dim, args.vid_fr, tuple(args.vid_len), args.frame_sampling, not args.no_norm)
    selection = Selection(args.num_outputs, limits(args), args.no_bad_skel, args.skip_bad_samples, args.protocol)
    data, facts = read_splits(args.datadir, settings, selection, names, inputs, args.num_workers, args.verbose)
    splits = loaded_splits(data, inputs, normalize_clips, args.num_workers, args.seed, device)
    facts = {"protocol": args.protocol, **facts}
    return splits, {name: split.identity() for name, split in data.items()}, facts


def ntu_checkpoints(args: argparse.Namespace, skeleton: str, rgb: str) -> list[Path]:
    """Find the checkpoints of both networks, skeleton first, given the published script's defaults."""
    skeleton_frames, rgb_frames = args.vid_len[1], args.vid_len[0]
    return [
        find_checkpoint(args.checkpointdir, args.ske_cp, "ske_cp", "skeleton", skeleton_frames, skeleton),
        find_checkpoint(args.checkpointdir, args.rgb_cp, "rgb_cp", "rgb", rgb_frames, rgb),
    ]


def check_protocol(checkpoints: Sequence[Path], protocol: str) -> None:
    """Raise UsageError if a network was trained on another protocol, whose training samples may be test samples here.

    The results beside a checkpoint state its protocol; without them, xsub60 is assumed, as for published checkpoints.
    """
    for path in checkpoints:
        record = path.with_suffix(".json")
        stated = read_json(record, {"protocol?": str}, missing={}).get("protocol")
        if (stated or "xsub60") != protocol:
            trained = f"was trained on --protocol {stated}" if stated else "has no record of its protocol"
            fix = f'train one, in a --checkpointdir of its own, or state {{"protocol": "{protocol}"}} in {record.name}'
            raise UsageError(f"{path} {trained}, but this command has {protocol}; {fix}")


def imagenet_weights(verbose: bool) -> Mapping[str, Tensor]:
    """State dict of torchvision's ResNet-50, downloaded unless torch has it in its cache."""
    from torchvision.models import ResNet50_Weights  # only needed here

    source = ResNet50_Weights.IMAGENET1K_V1
    try:
        return source.get_state_dict(progress=verbose)
    except OSError as error:
        raise UsageError(
            f"--pretrained could not download {source.url} ({error}); "
            f"put that file into {torch.hub.get_dir()}/checkpoints, or leave --pretrained out"
        ) from None
