"""Convert NTU RGB+D's original 1920x1080 videos to the small clips that the networks read.

As in the published preparation, every frame is resized to a square without keeping the aspect ratio, at a constant
frame rate.
"""

import io
import os
import re
import shutil
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from datasets.ntu import SAMPLE, scan
from datasets.ntu.video import FRAME_BYTES
from datasets.ntu.workers import Report, parallel
from utils.errors import DataError
from utils.files import sweep, whole_file
from utils.progress import Progress

PIXELS = {"mpeg4": ("yuv420p", "MPEG"), "mjpeg": ("yuvj420p", "JPEG")}  # by codec: pixel format and range of the values
QUANTIZER = 3  # from 1 (finest) to 31
MISSING = 0.1  # tolerated share of missing frames; recorders skip a few, damaged files lack more
MOST_RATE = 1000  # frames a second
FIRST = 4  # fewest clips converted before time and disk space are estimated
_VIDEO = re.compile(rf"({SAMPLE})_rgb\.avi")
_PREPARED = re.compile(r"avi_\d+x\d+_\d+")


@dataclass(frozen=True)
class VideoSettings:
    """Format of the clips: width and height in pixels, frames per second, codec (a key of `PIXELS`)."""

    dim: int = 256
    rate: int = 30
    codec: str = "mpeg4"

    def folder(self, datadir: Path) -> Path:
        """Folder of the clips, the one that the published scripts read."""
        return datadir / "nturgbd_rgb" / f"avi_{self.dim}x{self.dim}_{self.rate}"


def find_originals(rgb_dir: Path) -> dict[str, Path]:
    """Find the original video of each sample in `rgb_dir` and all its subfolders, sorted by name.

    Folders of prepared clips (avi_256x256_30) are skipped, so originals and data folder may be the same. DataError if
    there is no original, or a sample has two.
    """
    if not rgb_dir.is_dir():
        raise DataError(f"{rgb_dir} is not a folder; name the folder of NTU's original videos with --rgb_dir")
    found: dict[str, Path] = {}
    for folder, inner, files in os.walk(rgb_dir):
        inner[:] = [name for name in inner if not _PREPARED.fullmatch(name)]
        for file in files:
            if match := _VIDEO.fullmatch(file):
                if match[1] in found:
                    raise DataError(f"{found[match[1]]} and {Path(folder, file)} are the same sample; move one away")
                found[match[1]] = Path(folder, file)
    if not found:
        raise DataError(f"{rgb_dir} holds no video named like S001C001P001R001A001_rgb.avi, nor do its subfolders")
    return dict(sorted(found.items()))


def copies(index: int, source_rate: Fraction, rate: Fraction) -> int:
    """Number of copies of the source's frame `index` at the new rate; 0 if it is dropped.

    The copies of N frames add up to round(N rate / source_rate).
    """
    ratio, half = rate / source_rate, Fraction(1, 2)
    return int((index + 1) * ratio + half) - int(index * ratio + half)


def transcode(original: Path, target: Path, settings: VideoSettings) -> int:
    """Convert one original to a clip and return the clip's size in bytes.

    Raises:
        DataError: the original is damaged or truncated.
        OSError: the target cannot be written.
    """
    clip = io.BytesIO()  # in memory, to distinguish errors of reading from errors of writing
    try:
        _check_whole(original)
        with av.open(os.path.abspath(original)) as source, av.open(clip, "w", format="avi") as container:
            _check_header(original, source)
            promised, decoded, written = _convert(source, container, settings)
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{original} cannot be read: {error.strerror or error}") from None
    if not written or decoded < promised * (1 - MISSING):
        raise DataError(f"{original} announces {promised} frames, but {decoded} could be read; download it again")
    with whole_file(target) as file:
        return file.write(clip.getbuffer())


def _check_whole(original: Path) -> None:
    """Compare the size with that in the AVI header, since FFmpeg reads truncated files without an error."""
    with open(original, "rb") as file:
        head = file.read(8)
    size, promised = original.stat().st_size, int.from_bytes(head[4:], "little") + 8
    if head[:4] != b"RIFF" or size < promised:
        reason = f"announces {promised:,} bytes" if head[:4] == b"RIFF" else "is not an AVI file"
        raise DataError(f"{original} {reason}, but has {size:,}; download it again")


def _check_header(original: Path, source: av.container.InputContainer) -> None:
    """Refuse a frame rate or a number of frames that no camera has: clips would be as long as they say."""
    for video in source.streams.video[:1]:
        rate, most = video.average_rate or 1, original.stat().st_size // FRAME_BYTES
        if not 1 <= rate <= MOST_RATE:
            rule = f"the frame rate must be 1 to {MOST_RATE:,} frames a second"
            raise DataError(
                f"{original} is damaged: {rule}, but the header states {float(rate):.3g}; download it again"
            )
        if video.frames > most:
            found = f"announces {video.frames:,} frames, but has room for {most:,}"
            raise DataError(f"{original} {found}; download it again")


def _convert(
    source: av.container.InputContainer, container: av.container.OutputContainer, settings: VideoSettings
) -> tuple[int, int, int]:
    """Decode, resize and encode all of `source`; returns the number of frames announced, decoded and written."""
    if not source.streams.video:
        return 0, 0, 0
    video = source.streams.video[0]
    video.codec_context.thread_count = 1  # the processes already run in parallel
    rate = Fraction(settings.rate)
    source_rate = video.average_rate or rate
    stream = cast(av.VideoStream, container.add_stream(settings.codec, rate=settings.rate))
    stream.width = stream.height = settings.dim
    stream.pix_fmt, value_range = PIXELS[settings.codec]
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"qmin": str(QUANTIZER), "qmax": str(QUANTIZER), "bf": "0"}
    decoded = written = 0
    for frame in source.decode(video):
        repeats = copies(decoded, source_rate, rate)
        decoded += 1
        if repeats:  # bicubic is the default of FFmpeg's command; the range must be stated to be converted
            size = (stream.width, stream.height, stream.pix_fmt)
            small = frame.reformat(*size, interpolation="BICUBIC", dst_color_range=value_range, threads=1)
            small.pict_type = 0  # let the encoder choose
            small.time_base = 1 / rate
        for _ in range(repeats):
            small.pts = written
            written += 1
            container.mux(stream.encode(small))
    container.mux(stream.encode())
    return video.frames, decoded, written


def _work(task: tuple[Path, Path, VideoSettings]) -> tuple[float, int] | str:
    """Convert one original: (seconds, bytes) of the clip, or a message if the original is damaged."""
    started = time.perf_counter()
    try:
        size = transcode(*task)
    except DataError as error:
        return str(error)
    return time.perf_counter() - started, size


def prepare_videos(
    originals: dict[str, Path], datadir: Path, settings: VideoSettings, num_workers: int, verbose: bool
) -> Report:
    """Convert every original that has no clip yet; the caller holds the lock of `datadir`.

    Prints an estimate of the total after the first few. If a clip cannot be written, the earlier ones remain.
    """
    folder = settings.folder(datadir)
    sweep(folder, exclusive=True)
    missing = originals.keys() - scan(folder, r"_rgb\.avi").keys()
    tasks = [(originals[name], folder / f"{name}_rgb.avi", settings) for name in sorted(missing)]
    report = Report(kept=len(originals) - len(tasks))
    if verbose and report.kept:
        print(f"{report.kept:,} clips are already in {folder}; move the folder away to make them again")
    costs: list[tuple[float, int]] = []
    with Progress(total=len(tasks), desc="videos", unit="clip", verbose=verbose and bool(tasks)) as bar:
        for outcome in parallel(_work, tasks, num_workers):
            bar.update()
            if isinstance(outcome, str):
                report.failures.append(outcome)
                continue
            costs.append(outcome)
            if verbose and len(costs) == max(FIRST, num_workers):
                seconds, size = np.mean(costs, axis=0)
                bar.write(estimate(len(tasks), seconds / num_workers, size, shutil.disk_usage(folder).free))
    report.made = len(costs)
    return report


def estimate(count: int, seconds: float, size: float, free: int) -> str:
    """One line with the cost of `count` clips at `seconds` and `size` bytes per clip, with `free` bytes on the disk."""
    minutes = count * seconds / 60
    took = f"{max(1, round(minutes))} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    short = ": NOT ENOUGH" if count * size > free else ""
    return f"{count:,} clips need about {took} and {count * size / 1e9:.2f} GB; {free / 1e9:.2f} GB are free{short}"
