"""Choose the frames of a clip and decode only those.

Frames are BGR with rows first, and equal to OpenCV's in every pixel.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from utils.errors import DataError

FRAME_BYTES = 8  # of the smallest frame in a file, its header
READ_FRAMES = 24  # frames read from a file; a clip keeps some of them
_AGAIN = "prepare the video again with python -m datasets.ntu_prepare"


def clip_indices(count: int, frames: int, sampling: str = "published", ratio: float = 1.0) -> np.ndarray:
    """Indices of a clip's frames in a file of `count` frames: int64 (frames,), ascending, from 0 to `count`.

    24 frames are read from the whole file. "published" spaces them over 0..count, so that the last is `count`, which
    does not exist and stays black; "uniform" spaces them over the existing frames. Of the 24, those from begin to
    24 - begin are kept, where begin = (24 - int(24 * ratio)) // 2, and the clip is spaced over those.
    """
    if sampling == "uniform":
        read = np.linspace(0, count - 1, READ_FRAMES).round().astype(int)
    else:
        read = np.linspace(0, count, READ_FRAMES).astype(int)
    begin = (READ_FRAMES - int(READ_FRAMES * ratio)) // 2
    kept = read[begin : READ_FRAMES - begin]
    return kept[np.linspace(0, len(kept) - 1, frames).astype(int)]


def frame_count(path: Path) -> int:
    """Number of frames according to a file's header, or counted if the header states none."""
    with _open(path) as (container, stream):
        return _stated(path, stream) or sum(1 for packet in container.demux(stream) if packet.size)


def _stated(path: Path, stream: av.VideoStream) -> int:
    """Number of frames according to the header, 0 if it states none; DataError if the file has no room for so many."""
    if stream.frames > path.stat().st_size // FRAME_BYTES:
        raise DataError(f"{path} is damaged: its header states {stream.frames:,} frames, more than fit; {_AGAIN}")
    return stream.frames


def read_frames(path: Path, indices: np.ndarray | Callable[[int], np.ndarray], dim: int | None = None) -> np.ndarray:
    """Decode some frames of a file: uint8 (len(indices), H, W, 3), BGR. The index `frame_count(path)` yields black.

    Args:
        indices: the frames, in any order and possibly repeated, or a function of the number of frames.
        dim: required width and height of the frames.

    Raises:
        DataError: the file is damaged, ends before a frame that is needed, contains no video, or has another size.
    """
    with _open(path) as (container, stream):
        count = _stated(path, stream) or frame_count(path)
        if not count:
            raise DataError(f"{path} is damaged: it contains no frames")
        height, width = stream.codec_context.height, stream.codec_context.width
        if dim is not None and (height, width) != (dim, dim):
            fix = f"prepare the videos again with python -m datasets.ntu_prepare --vid_dim {dim}"
            raise DataError(f"{path}: frames must be {dim}x{dim}, but are {width}x{height}; {fix}")
        indices = np.asarray(indices(count) if callable(indices) else indices)
        if indices.min(initial=0) < 0 or indices.max(initial=0) > count:
            raise ValueError(f"indices must lie in 0..{count}, but range from {indices.min()} to {indices.max()}")
        needed = set(indices[indices < count].tolist())
        found = _decode(container, stream, needed)
    if missing := needed - found.keys():
        reason = f"it should have {count} frames, but frame {min(missing)} cannot be read"
        raise DataError(f"{path} is damaged: {reason}; {_AGAIN}")
    clip = np.zeros((len(indices), height, width, 3), np.uint8)
    for place, index in enumerate(indices.tolist()):
        if index == count:
            continue
        rows, columns, _ = found[index].shape
        if (rows, columns) != (height, width):  # every frame has a header of its own
            reason = f"frames should be {width}x{height}, but frame {index} is {columns}x{rows}"
            raise DataError(f"{path} is damaged: {reason}; {_AGAIN}")
        clip[place] = found[index]
    return clip


def _decode(container: av.container.InputContainer, stream: av.VideoStream, needed: set[int]) -> dict[int, np.ndarray]:
    """Decode the frames `needed` up to the first damaged one; decoding stops after the last one."""
    found: dict[int, np.ndarray] = {}
    last = max(needed, default=-1)
    reformatter = VideoReformatter()
    for index, frame in _numbered_frames(container, stream, needed):
        if index in needed:
            if frame.is_corrupt:
                break
            # One thread: for small frames, starting more costs ten times the conversion.
            found[index] = reformatter.reformat(frame, format="bgr24", threads=1).to_ndarray()
        if index >= last:
            break
    return found


def _numbered_frames(
    container: av.container.InputContainer, stream: av.VideoStream, needed: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield numbered frames up to the first damaged packet.

    If the codec encodes every frame independently, only those `needed` are decoded.
    """
    whole = itertools.takewhile(lambda packet: not packet.is_corrupt, container.demux(stream))
    if not stream.codec_context.codec.intra_only:  # the last packet of a complete file is empty and flushes the decoder
        yield from enumerate(frame for packet in whole for frame in packet.decode())
        return
    for index, packet in enumerate(packet for packet in whole if packet.size):
        if index in needed:
            for frame in packet.decode():
                yield index, frame


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file and its video stream for decoding in one thread; errors in the file become DataError."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.video:
                raise DataError(f"{path} contains no video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(f"{path} is damaged: its header names no known codec; {_AGAIN}")
            stream.codec_context.thread_count = 1
            yield container, stream
    except OSError as error:  # missing or unreadable, rather than damaged
        raise OSError(error.errno, error.strerror, str(path)) from None
    except av.FFmpegError as error:
        raise DataError(f"{path} is damaged: {error.strerror}; {_AGAIN}") from None
