"""NTU RGB+D's original 1920x1080 videos to the small clips that the networks read.

As the published preparation: every frame squashed to a square, aspect ratio not kept, at a constant frame rate.
"""

import io
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
from tqdm import tqdm

from datasets.ntu.workers import SAMPLE, parallel, sweep, write_whole
from utils.errors import DataError

PIXELS = {"mpeg4": ("yuv420p", "MPEG"), "mjpeg": ("yuvj420p", "JPEG")}  # by codec: layout, and range of the values
QUANTISER = 3  # of 1 (finest) to 31
MISSING = 0.1  # of the frames that a header promises; recorders skip a frame now and then, broken files lack more
FIRST = 4  # clips made, at least, before the time and disk that all need are estimated
_VIDEO = re.compile(rf"({SAMPLE})_rgb\.avi")
_PREPARED = re.compile(r"avi_\d+x\d+_\d+")


@dataclass(frozen=True)
class VideoSettings:
    """What the clips are like: side in pixels, frames a second, codec (a key of `PIXELS`)."""

    dim: int = 256
    rate: int = 30
    codec: str = "mpeg4"

    def folder(self, datadir: Path) -> Path:
        """Where the clips go: the folder that the published scripts read."""
        return datadir / "nturgbd_rgb" / f"avi_{self.dim}x{self.dim}_{self.rate}"


@dataclass
class VideoReport:
    """What was done: clips made, clips that were there, and why each of the others could not be made."""

    made: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Outcome:
    """One original done: seconds it took and bytes written, or the reason why not."""

    seconds: float = 0.0
    size: int = 0
    reason: str = ""


def find_originals(rgb_dir: Path) -> dict[str, Path]:
    """The original video of each sample, found in `rgb_dir` and all folders below, sorted by name.

    Folders of prepared clips (avi_256x256_30) are not entered, so originals and data folder may be the same.

    Raises:
        DataError: there is no original, or there are two of one sample.
    """
    if not rgb_dir.is_dir():
        raise DataError(f"{rgb_dir} is not a folder; --rgb_dir is the one that holds NTU's original videos")
    found: dict[str, Path] = {}
    for folder, inner, files in os.walk(rgb_dir):
        inner[:] = [name for name in inner if not _PREPARED.fullmatch(name)]
        for file in files:
            match = _VIDEO.fullmatch(file)
            if match and match[1] in found:
                raise DataError(f"{found[match[1]]} and {Path(folder, file)} are the same sample; move one away")
            if match:
                found[match[1]] = Path(folder, file)
    if not found:
        raise DataError(f"{rgb_dir} holds no video named like S001C001P001R001A001_rgb.avi, nor do its folders")
    return dict(sorted(found.items()))


def copies(index: int, source_rate: Fraction, rate: Fraction) -> int:
    """How often the source's frame `index` appears at the new rate: 0 where it is dropped.

    Sums up to round(N rate / source_rate) over N frames.
    """
    ratio, half = rate / source_rate, Fraction(1, 2)
    return int((index + 1) * ratio + half) - int(index * ratio + half)


def transcode(original: Path, target: Path, settings: VideoSettings) -> int:
    """Write the clip of one original, whole or not at all; returns its size in bytes.

    Raises:
        DataError: the original is damaged or cut short.
        OSError: the target cannot be written.
    """
    _check_whole(original)
    clip = io.BytesIO()  # in memory, so that errors of reading and of writing are told apart
    try:
        with av.open(os.path.abspath(original)) as source, av.open(clip, "w", format="avi") as container:
            promised, decoded, written = _convert(source, container, settings)
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{original} cannot be read: {error.strerror or error}") from None
    if not written or decoded < promised * (1 - MISSING):
        raise DataError(f"{original} promises {promised} frames, but {decoded} could be read; fetch it again")
    write_whole(target, clip.getbuffer())
    return len(clip.getbuffer())


def _check_whole(original: Path) -> None:
    """An AVI file says at its beginning how long it is; FFmpeg reads one that was cut without complaint."""
    try:
        with open(original, "rb") as file:
            head = file.read(8)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{original} cannot be read: {error.strerror}") from None
    promised = int.from_bytes(head[4:], "little") + 8
    if head[:4] != b"RIFF" or size < promised:
        said = f"promises {promised:,} bytes" if head[:4] == b"RIFF" else "is no AVI file"
        raise DataError(f"{original} {said}, and has {size:,}; fetch it again")


def _convert(
    source: av.container.InputContainer, container: av.container.OutputContainer, settings: VideoSettings
) -> tuple[int, int, int]:
    """Decode, squash and encode the whole of `source`; returns frames promised by it, decoded and written."""
    if not source.streams.video:
        return 0, 0, 0
    video = source.streams.video[0]
    video.codec_context.thread_count = 1  # the processes are the parallelism
    rate = Fraction(settings.rate)
    source_rate = video.average_rate or rate
    stream = container.add_stream(settings.codec, rate=settings.rate)
    stream.width = stream.height = settings.dim
    stream.pix_fmt, value_range = PIXELS[settings.codec]
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"qmin": str(QUANTISER), "qmax": str(QUANTISER), "bf": "0"}
    decoded = written = 0
    for frame in source.decode(video):
        repeats = copies(decoded, source_rate, rate)
        decoded += 1
        if repeats:  # bicubic, as FFmpeg's own command has it; the range is converted only where it is named
            small = frame.reformat(
                stream.width,
                stream.height,
                stream.pix_fmt,
                interpolation="BICUBIC",
                dst_color_range=value_range,
                threads=1,
            )
            small.pict_type = 0  # the encoder chooses, whatever it was in the original
            small.time_base = 1 / rate
        for _ in range(repeats):
            small.pts = written
            written += 1
            container.mux(stream.encode(small))
    container.mux(stream.encode())
    return video.frames, decoded, written


def _work(task: tuple[Path, Path, VideoSettings]) -> _Outcome:
    original, target, settings = task
    started = time.perf_counter()
    try:
        size = transcode(original, target, settings)
    except DataError as error:
        return _Outcome(reason=str(error))
    return _Outcome(time.perf_counter() - started, size)


def prepare_videos(
    originals: dict[str, Path], datadir: Path, settings: VideoSettings, num_workers: int, verbose: bool
) -> VideoReport:
    """Make the clip of every original that has none yet; the caller holds the lock of `datadir`.

    Prints an estimate of the whole once a few are done.

    Raises:
        OSError: a clip cannot be written; those made before it stay.
    """
    folder = settings.folder(datadir)
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    present = set(os.listdir(folder))
    tasks = [
        (original, folder / f"{name}_rgb.avi", settings)
        for name, original in originals.items()
        if f"{name}_rgb.avi" not in present
    ]
    report = VideoReport(kept=len(originals) - len(tasks))
    if verbose and report.kept:
        print(f"{report.kept:,} clips are in {folder} already; to make them anew, move it away")
    done: list[_Outcome] = []
    with tqdm(total=len(tasks), desc="videos", unit="clip", disable=not (verbose and tasks)) as bar:
        for outcome in parallel(_work, tasks, num_workers):
            bar.update()
            if outcome.reason:
                report.failures.append(outcome.reason)
                continue
            done.append(outcome)
            if len(done) == max(FIRST, num_workers) and not bar.disable:
                seconds = sum(one.seconds for one in done) / len(done) / num_workers
                size = sum(one.size for one in done) / len(done)
                bar.write(estimate(len(tasks), seconds, size, shutil.disk_usage(folder).free))
    report.made = len(done)
    return report


def estimate(count: int, seconds: float, size: float, free: int) -> str:
    """One line on what `count` clips cost at `seconds` and `size` bytes a clip, with `free` bytes on the disk."""
    minutes = count * seconds / 60
    took = f"{max(1, round(minutes))} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    short = ": NOT ENOUGH" if count * size > free else ""
    return f"{count:,} clips need about {took} and {count * size / 1e9:.2f} GB; {free / 1e9:.2f} GB are free{short}"
