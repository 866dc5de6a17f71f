"""NTU RGB+D: RGB videos and skeletons of 60 actions."""

import os
import re
from pathlib import Path

TEXT_FOLDER, PACK_FOLDER = "nturgbd_skeletons", "nturgbd_skeletons_packed"  # in DATADIR
SAMPLE = r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}"  # name of a sample: setup, camera, subject, repetition, action


def scan(folder: Path, suffix: str) -> dict[str, os.DirEntry]:
    """Files NAME + `suffix` (a pattern) of a folder by sample, sorted by name; empty if there is no such folder."""
    pattern = re.compile(f"({SAMPLE}){suffix}")
    try:
        with os.scandir(folder) as entries:
            found = {match[1]: entry for entry in entries if (match := pattern.fullmatch(entry.name))}
    except FileNotFoundError:
        return {}
    return dict(sorted(found.items()))
