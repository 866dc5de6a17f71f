"""A small data set in NTU RGB+D's layout: AVI clips and skeleton text files whose motion depends on the class.

The class shows in both modalities: a striped figure swings in a direction of its class, its stripes along that
direction, and one limb of the skeleton swings in an axis of its class. Start, colour, speed, size, body and noise
vary by sample, so that no single pixel or number tells the class.
"""

import dataclasses
import itertools
import pickle
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from datasets.ntu.skeleton import parse_skeleton

# Written out here, not imported, so that the data do not follow a mistake in the code that they test.
SUBJECTS = {"train": (1, 16, 4, 25, 8, 27), "dev": (2, 5, 9, 14), "test": (3, 6, 7, 10)}  # 16, 25, 27: not in trainexp
LIMBS = ((4, 5, 6, 7, 21, 22), (8, 9, 10, 11, 23, 24), (12, 13, 14, 15), (16, 17, 18, 19), (2, 3))
# A standing body, metres from its spine, in NTU's order of joints (x to the side, y up).
_STANCE = """
    0 -.3  0 0  0 .35  0 .5  -.18 .25  -.25 0  -.28 -.22  -.29 -.3  .18 .25  .25 0  .28 -.22  .29 -.3
    -.08 -.32  -.1 -.7  -.1 -1.05  -.12 -1.1  .08 -.32  .1 -.7  .1 -1.05  .12 -1.1
    0 .25  -.3 -.36  -.26 -.3  .3 -.36  .26 -.3
"""
STANCE = np.array(_STANCE.split(), dtype=float).reshape(25, 2)


@dataclasses.dataclass
class Samples:
    """What was written, by sample name; `complete` has both halves, `three_bodies` and `empty` are among them."""

    complete: list[str] = dataclasses.field(default_factory=list)
    rgb_only: list[str] = dataclasses.field(default_factory=list)
    skeleton_only: list[str] = dataclasses.field(default_factory=list)
    three_bodies: list[str] = dataclasses.field(default_factory=list)
    empty: list[str] = dataclasses.field(default_factory=list)
    cut_rgb: list[str] = dataclasses.field(default_factory=list)
    cut_skeleton: list[str] = dataclasses.field(default_factory=list)


def sample_name(subject: int, action: int, repeat: int = 1, camera: int = 1) -> str:
    """The name of a sample; subject and action (the class) count from 1."""
    return f"S001C{camera:03d}P{subject:03d}R{repeat:03d}A{action:03d}"


def write_samples(
    datadir: Path,
    classes: int = 3,
    subjects: int | Mapping[str, int] = 2,
    repeats: int = 1,
    vid_dim: int = 256,
    frames: tuple[int, int] = (36, 60),
    seed: int = 0,
    vid_fr: int = 30,
    codec: str = "mpeg4",
    halves: bool = True,
    empty: bool = False,
    truncated: bool = False,
    colored: bool = False,
) -> Samples:
    """Write classes * subjects * repeats samples for each of train, dev and test (`subjects` a split, or by split).

    Half of the training subjects are in trainexp. Every second class has two persons, and the very first sample
    three. Video and skeleton of a sample have the same number of frames, drawn from `frames`.

    With `halves` there are also one sample without skeleton and one without RGB; with `empty`, one without a body in
    any frame; with `truncated`, one whose video and one whose skeleton file stops in the middle. With `colored` the
    color of the figure shows the class as well: easier for a network that trains for a few steps only.
    """
    counts = dict.fromkeys(SUBJECTS, subjects) if isinstance(subjects, int) else subjects
    people = [p for split, pool in SUBJECTS.items() for p in pool[: counts.get(split, 0)]]
    rgb = datadir / "nturgbd_rgb" / f"avi_{vid_dim}x{vid_dim}_{vid_fr}"
    skeletons = datadir / "nturgbd_skeletons"
    rgb.mkdir(parents=True, exist_ok=True)
    skeletons.mkdir(parents=True, exist_ok=True)
    written = Samples()

    def write(name: str, has_rgb: bool = True, has_skeleton: bool = True, bodies: int | None = None) -> None:
        rng = np.random.default_rng([seed, *name.encode()])
        length, label = int(rng.integers(frames[0], frames[1] + 1)), int(name[-3:]) - 1
        if has_rgb:
            clip = draw_clip(rng, label, classes, length, vid_dim, colored)
            write_video(rgb / f"{name}_rgb.avi", clip, vid_fr, codec)
        if has_skeleton:
            joints = draw_skeletons(rng, label, length, 1 + label % 2 if bodies is None else bodies)
            write_skeleton(skeletons / f"{name}.skeleton", joints)

    for person, repeat, action in itertools.product(people, range(1, repeats + 1), range(1, classes + 1)):
        name = sample_name(person, action, repeat)
        first = not written.complete
        write(name, bodies=3 if first else None)
        written.complete.append(name)
        written.three_bodies += [name] if first else []
    extra = (sample_name(1, 1, camera=camera) for camera in itertools.count(2))
    if halves:
        written.rgb_only.append(next(extra))
        write(written.rgb_only[0], has_skeleton=False)
        written.skeleton_only.append(next(extra))
        write(written.skeleton_only[0], has_rgb=False)
    if empty:
        written.empty.append(next(extra))
        write(written.empty[0], bodies=0)
    if truncated:
        for kind in ("rgb", "skeleton"):
            name = next(extra)
            write(name)
            getattr(written, f"cut_{kind}").append(name)
            cut(rgb / f"{name}_rgb.avi" if kind == "rgb" else skeletons / f"{name}.skeleton")
    written.complete += written.empty + written.cut_rgb + written.cut_skeleton
    return written


def write_pickle(datadir: Path, path: Path) -> Path:
    """Write the skeletons of a data folder's text files as pyskl does, in the layout of ntu60_3danno.pkl."""
    annotations = []
    for file in sorted((datadir / "nturgbd_skeletons").glob("*.skeleton")):
        keypoint = parse_skeleton(file).transpose(3, 1, 2, 0).astype(np.float16)  # (M, T, 25, 3)
        label, frames = int(file.stem[-3:]) - 1, keypoint.shape[1]
        annotations.append({"frame_dir": file.stem, "label": label, "keypoint": keypoint, "total_frames": frames})
    names = [one["frame_dir"] for one in annotations]
    split = {"xsub_train": names[::2], "xsub_val": names[1::2], "xview_train": names[::2], "xview_val": names[1::2]}
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}, 2))
    return path


def cut(path: Path, part: float = 0.5) -> None:
    """Keep the first part of a file only."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def promise_more_frames(path: Path, count: int) -> None:
    """Let the header of an AVI file promise `count` frames."""
    content = bytearray(path.read_bytes())
    length = content.index(b"strh") + 8 + 32  # of the first stream's header, behind its name and size
    content[length : length + 4] = count.to_bytes(4, "little")
    path.write_bytes(content)


def draw_clip(
    rng: np.random.Generator, label: int, classes: int, length: int, dim: int, colored: bool = False
) -> np.ndarray:
    """A striped square that swings along its class's direction: uint8 (length, dim, dim, 3)."""
    angle = np.pi * label / classes + rng.normal(0, 0.05)
    direction = np.array([np.sin(angle), np.cos(angle)])  # rows, columns
    half = int(dim * rng.uniform(0.14, 0.2))
    swing = dim * rng.uniform(0.2, 0.28) * np.sin(_phases(rng, length))
    centres = dim * rng.uniform(0.45, 0.55, 2) + swing[:, None] * direction
    corners = np.clip(centres - half, 0, dim - 2 * half - 1).astype(int)

    rows, columns = np.mgrid[-half:half, -half:half]
    across = direction[0] * columns - direction[1] * rows
    stripes = np.sin(2 * np.pi * across / (dim / 16) + rng.uniform(0, 2 * np.pi)) > 0
    figure = np.where(stripes[..., None], rng.integers(170, 256, 3), rng.integers(0, 70, 3)).astype(np.uint8)
    if colored:  # one channel of the class, which varies as before, and none of the others
        figure *= (np.arange(3) == label % 3).astype(np.uint8)
    backdrop = rng.integers(60, 150, 3) + rng.normal(0, 8, (dim // 8, dim // 8, 3))
    clip = np.repeat(np.repeat(backdrop, 8, axis=0), 8, axis=1).clip(0, 255).astype(np.uint8)
    clip = np.pad(clip, ((0, dim % 8), (0, dim % 8), (0, 0)), mode="edge")[None].repeat(length, axis=0)
    for frame, (top, left) in zip(clip, corners, strict=True):
        frame[top : top + 2 * half, left : left + 2 * half] = figure
    return clip


def draw_skeletons(rng: np.random.Generator, label: int, length: int, bodies: int) -> list[np.ndarray]:
    """Standing bodies of which one limb swings in an axis of the class: one (bodies, 25, 3) array a frame, metres.

    The second and later bodies come and go: a frame near the end has the first only.
    """
    limb, axis = LIMBS[label % len(LIMBS)], label // len(LIMBS) % 3
    joints = np.zeros((length, bodies, 25, 3))
    for body in range(bodies):
        joints[:, body, :, :2] = STANCE * rng.uniform(0.85, 1.15)
        joints[:, body, limb, axis] += rng.uniform(0.25, 0.4) * np.sin(_phases(rng, length))[:, None]
        drift = np.linspace(0, rng.uniform(-0.3, 0.3), length)
        joints[:, body] += np.array([body - bodies / 2, rng.uniform(-0.1, 0.1), rng.uniform(2.5, 4)])
        joints[:, body, :, 0] += drift[:, None]
    joints += rng.normal(0, 0.01, joints.shape)
    return [frame[:1] if i >= length - 3 else frame for i, frame in enumerate(joints)]


def _phases(rng: np.random.Generator, length: int) -> np.ndarray:
    return rng.uniform(0, 2 * np.pi) + 2 * np.pi * rng.uniform(1, 2) * np.arange(length) / length


def write_video(path: Path, clip: np.ndarray, rate: int = 30, codec: str = "mpeg4") -> None:
    """Encode uint8 RGB frames (T, H, W, 3) as an AVI file."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.qmin = stream.codec_context.qmax = 3
        for array in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())


def write_skeleton(path: Path, frames: list[np.ndarray]) -> None:
    """Write bodies (M, 25, 3), one array a frame, in NTU's official text format (M may differ by frame)."""
    path.write_text("".join(f"{line}\n" for line in _skeleton_lines(frames)))


def _skeleton_lines(frames: list[np.ndarray]) -> Iterator[str]:
    yield str(len(frames))
    for bodies in frames:
        yield str(len(bodies))
        for number, joints in enumerate(bodies):
            # body, clipped edges, hands' confidences and states, restricted, lean x and y, tracking state
            yield f"7205759403792{number:04d} 0 1 0 1 0 0 0.01234 -0.0567 2"
            yield str(len(joints))
            for x, y, z in joints:
                # position; its place in the depth and the colour image; orientation w x y z; tracking state
                yield f"{x:.7g} {y:.7g} {z:.7g} 277.419 191.8218 1036.233 519.1677 -0.20594 0.0535 0.9692 -0.1239 2"
