"""Read NTU RGB+D's skeleton files and convert them to network inputs.

The text format: the number of frames; for each frame the number of bodies; for each body a line of identifiers, the
number of joints (25), and a line for each joint that starts with its x, y and z in meters.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utils.errors import DataError
from utils.reading import read_bytes, shown

JOINTS, MAX_BODIES = 25, 2
CENTER_JOINT = 1  # the middle of the spine
MIN_WINDOW = 64  # fewest frames of a training crop
ENDS_EARLY = "{}, line {}: the file is truncated; it ends before the frames that line 1 announces"


def parse_skeleton(path: Path) -> np.ndarray:
    """Read the joints of a file's first two bodies: float32 (3, N, 25, M), in meters.

    N is the number of frames and M the largest number of bodies in any frame, at most 2; the joints of a missing second
    body are zeros. Numbers that are not finite become 0.

    Raises:
        DataError: the file is truncated or does not follow the format; the message names the file and the line.
    """
    lines = read_bytes(path, DataError).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    length, places, starts = _walk(path, lines)
    numbers: list[float] = []
    for at in (at for start in starts for at in range(start, start + JOINTS)):
        try:
            x, y, z = map(float, lines[at].split(None, 3)[:3])
        except ValueError:
            raise _unexpected(path, lines, at, "x, y and z of a joint") from None
        numbers += x, y, z
    values = np.array(numbers).reshape(-1, JOINTS, 3)
    if starts and places[-1, 0] == length - 1:  # the last frame has a body, so the file ends with a joint
        expected, found = len(lines[starts[0]].split()), len(lines[-1].split())
        if found != expected:
            reason = f"the line has {found} numbers, others have {expected}"
            raise DataError(f"{path}, line {len(lines)}: the file is truncated; {reason}")
    values[~(np.abs(values) < np.finfo(np.float32).max)] = 0
    frames, bodies = places.T
    joints = np.zeros((length, bodies.max(initial=-1) + 1, JOINTS, 3), np.float32)
    joints[frames, bodies] = values
    return np.ascontiguousarray(joints.transpose(3, 0, 2, 1))


def _walk(path: Path, lines: list[bytes]) -> tuple[int, np.ndarray, list[int]]:
    """Step through the counts: number of frames, (frame, body) of each kept body, and the first line of its joints."""
    length = _count(path, lines, 0, "the number of frames")
    at, places, starts = 1, [], []
    for frame in range(length):
        count = _count(path, lines, at, "the number of bodies")
        at += 1
        for body in range(count):
            joints = _count(path, lines, at + 1, "the number of joints")
            if joints != JOINTS:
                raise DataError(f"{path}, line {at + 2}: a body must have {JOINTS} joints, but this one has {joints}")
            if body < MAX_BODIES:
                places.append((frame, body))
                starts.append(at + 2)
            at += 2 + JOINTS
    if at > len(lines):
        raise DataError(ENDS_EARLY.format(path, len(lines)))
    if at < len(lines):
        raise DataError(f"{path}, line {at + 1}: the file continues after the {length} frames that line 1 announces")
    return length, np.array(places, int).reshape(-1, 2), starts


def _count(path: Path, lines: list[bytes], at: int, what: str) -> int:
    """Read the integer that stands alone on a line."""
    if at >= len(lines):
        raise DataError(ENDS_EARLY.format(path, len(lines)))
    text = lines[at].strip()
    if not text.isdigit() or len(text) > 9:
        raise _unexpected(path, lines, at, what)
    return int(text)


def _unexpected(path: Path, lines: list[bytes], at: int, what: str) -> DataError:
    text = shown(lines[at].decode("ascii", "replace"))
    return DataError(f"{path}, line {at + 1}: expected {what}, but the line is {text}")


def crop_window(count: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a training crop (start, length): half to all of `count` frames, but at least 64 if there are as many."""
    length = min(count, max(MIN_WINDOW, int(count * (0.5 + 0.5 * rng.random()))))
    return int(rng.integers(count - length + 1)), length


def prepare_skeleton(
    raw: np.ndarray, frames: int, centre: bool = True, window: tuple[int, int] | None = None
) -> Tensor:
    """Convert the joints (3, N, 25, M) of a file to the network's input: float32 (3, frames, 25, 2).

    Missing bodies are zeros. With `centre` the middle of the first body's spine is subtracted from both bodies in each
    frame (as published, also from a missing body). Time is resized linearly with half-pixel centers.
    `window` is the (start, length) of the frames to keep; None keeps all.
    """
    start, length = window or (0, raw.shape[1])
    joints = torch.zeros(MAX_BODIES, 3, length, JOINTS)
    joints[: raw.shape[3]] = torch.from_numpy(raw[:, start : start + length]).permute(3, 0, 1, 2)
    if not length:
        return torch.zeros(3, frames, JOINTS, MAX_BODIES)
    if centre:
        joints -= joints[:1, :, :, CENTER_JOINT, None].clone()
    resized = F.interpolate(joints, (frames, JOINTS), mode="bilinear", align_corners=False)
    return resized.permute(1, 2, 3, 0).contiguous()
