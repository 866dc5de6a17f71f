"""The preparation of NTU RGB+D: originals to clips, skeletons to the pack, and the command that does both."""

import os
import pickle
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.ntu.folder import NTUSettings, discover
from datasets.ntu.pack import PACK_FOLDER, TEXT_FOLDER, SkeletonPack, write_pack
from datasets.ntu.skeleton import parse_skeleton
from datasets.ntu.transcode import VideoSettings, copies, estimate, find_originals, prepare_videos, transcode
from datasets.ntu.video import read_frames
from datasets.ntu.workers import parallel
from tests.conftest import ROOT
from tests.ntu_samples import cut, draw_skeletons, sample_name, write_samples, write_skeleton
from utils.errors import DataError

NAMES = [sample_name(subject, 1) for subject in (1, 2, 3)]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (30, 120, 200)]  # BGR


def write_original(path: Path, colours=COLOURS, size=(96, 54), codec="mpeg4", rate=30) -> Path:
    """An AVI file, wider than high, one frame of each colour; the left half is darker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        for colour in colours:
            picture = np.full((size[1], size[0], 3), colour, np.uint8)
            picture[:, : size[0] // 2] //= 2
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def levels(count: int) -> list[tuple[int, int, int]]:
    """Greys that number the frames."""
    return [(20 + 8 * i,) * 3 for i in range(count)]


def number_frames(path: Path) -> list[int]:
    """The numbers of the `levels` that a clip shows, read from its right half."""
    with av.open(str(path)) as container:
        count = container.streams.video[0].frames
    frames = read_frames(path, np.arange(count))
    return [round((frame[:, frame.shape[1] * 3 // 4 :].mean() - 20) / 8) for frame in frames]


def prepare(*args: object, code: int = 0) -> subprocess.CompletedProcess:
    """Run the command as a user would, in the project's folder."""
    command = [sys.executable, "-m", "datasets.ntu_prepare", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


# Frame rates.


@given(st.integers(1, 300), st.integers(1, 120), st.integers(1, 120))
def test_copies_sum_up_to_the_same_duration(count, source_rate, rate):
    shown = [copies(i, Fraction(source_rate), Fraction(rate)) for i in range(count)]
    assert sum(shown) == int(Fraction(count * rate, source_rate) + Fraction(1, 2))
    assert max(shown) - min(shown) <= 1


def test_copies_keep_every_frame_of_the_television_rate():
    assert [copies(i, Fraction(30000, 1001), Fraction(30)) for i in range(300)] == [1] * 300


# Clips.


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
@pytest.mark.parametrize("original_codec", ["mpeg4", "mjpeg"])
def test_clip_shows_the_whole_original_in_its_colours(tmp_path, codec, original_codec):
    original = write_original(tmp_path / "original.avi", codec=original_codec)
    clip = tmp_path / "clip.avi"
    assert transcode(original, clip, VideoSettings(64, 30, codec)) == clip.stat().st_size
    frames = read_frames(clip, np.arange(len(COLOURS)), dim=64)
    for frame, colour in zip(frames, COLOURS, strict=True):
        np.testing.assert_allclose(frame[8:-8, 40:-8].mean((0, 1)), colour, atol=8)
        np.testing.assert_allclose(frame[8:-8, 8:24].mean((0, 1)), np.array(colour) // 2, atol=8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.avi", "original.avi"]


@pytest.mark.parametrize(("codec", "keys"), [("mpeg4", 2), ("mjpeg", 20)])
def test_clip_format(tmp_path, codec, keys):
    """Constant rate, no B-frames; a source of the same size whose every frame is a key frame changes nothing."""
    rng = np.random.default_rng(0)
    original, clip = tmp_path / "original.avi", tmp_path / "clip.avi"
    with av.open(str(original), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 64
        stream.codec_context.gop_size = 1
        picture = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
        for _ in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    transcode(original, clip, VideoSettings(64, 30, codec))
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.frames, stream.average_rate) == (codec, 20, 30)
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert sum(packet.is_keyframe for packet in packets) == keys
    assert [packet.dts for packet in packets] == list(range(20))


@pytest.mark.parametrize(
    ("source_rate", "rate", "shown"),
    [
        (30, 30, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (30, 15, [0, 2, 4, 6, 8]),
        (15, 30, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]),
        (25, 30, [0, 1, 2, 2, 3, 4, 5, 6, 7, 7, 8, 9]),
    ],
)
def test_clip_frame_rate(tmp_path, source_rate, rate, shown):
    original = write_original(tmp_path / "original.avi", levels(10), rate=source_rate)
    transcode(original, tmp_path / "clip.avi", VideoSettings(32, rate))
    assert number_frames(tmp_path / "clip.avi") == shown


def test_odd_size(tmp_path):
    transcode(write_original(tmp_path / "original.avi"), tmp_path / "clip.avi", VideoSettings(63))
    assert read_frames(tmp_path / "clip.avi", np.arange(6), dim=63).shape == (6, 63, 63, 3)


def test_damaged_originals_are_refused(tmp_path):
    def refused(content: bytes, said: str) -> None:
        path = tmp_path / "damaged.avi"
        path.write_bytes(content)
        with pytest.raises(DataError, match=said) as error:
            transcode(path, tmp_path / "clip.avi", VideoSettings(32))
        assert "damaged.avi" in str(error.value)
        assert "\n" not in str(error.value)

    good = write_original(tmp_path / "good.avi", levels(25), size=(320, 180)).read_bytes()
    refused(good[:-1], r"announces [\d,]+ bytes, but has [\d,]+")
    refused(b"", "is not an AVI file")
    refused(b"not a video", "is not an AVI file")
    refused(b"RIFF\4\0\0\0AVI ", "cannot be read")
    middle = good.index(b"movi") + 4 + (len(good) - good.index(b"movi")) // 3
    refused(good[:middle] + bytes(len(good) - middle), r"announces 25 frames, but \d+ could be read")
    assert not (tmp_path / "clip.avi").exists()
    with pytest.raises(DataError, match=r"missing\.avi cannot be read"):
        transcode(tmp_path / "missing.avi", tmp_path / "clip.avi", VideoSettings(32))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (20, 2**32 - 1, r"must be 1 to 1,000 frames a second, but the header states \S+e-0"),
        (24, 2**31 - 1, r"must be 1 to 1,000 frames a second, but the header states \S+e\+0"),
        (32, 2**31 - 1, r"announces 2,147,483,647 frames, but has room for"),
    ],
    ids=["slow", "fast", "many"],
)
def test_a_header_of_impossible_numbers_is_refused_at_once(tmp_path, field, value, said):
    """Time base, rate, and number of frames of the AVI header: a clip of so many frames would never end."""
    path = write_original(tmp_path / "original.avi")
    content = bytearray(path.read_bytes())
    place = content.index(b"strh") + 8 + field
    content[place : place + 4] = value.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        transcode(path, tmp_path / "clip.avi", VideoSettings(32))
    assert str(path) in str(error.value)
    if field == 32:
        with pytest.raises(DataError, match="states 2,147,483,647 frames, more than fit"):
            read_frames(path, np.arange(3))


def test_failing_disk_is_no_fault_of_the_original(tmp_path, monkeypatch):
    original, clip = write_original(tmp_path / "original.avi"), tmp_path / "clip.avi"
    monkeypatch.setattr("utils.files.secrets.token_hex", lambda count: "0")
    clip.with_name(".clip.avi.0.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        transcode(original, clip, VideoSettings(32))
    assert error.value.filename == str(clip)
    assert list(tmp_path.iterdir()) == [original]


def test_originals_are_found_in_folders_below(tmp_path):
    for place in (f"s1/{NAMES[1]}", f"s2/nested/{NAMES[0]}", f"avi_256x256_30/{NAMES[0]}"):
        write_original(tmp_path / f"{place}_rgb.avi", COLOURS[:1])
    (tmp_path / "s1" / "readme.avi").touch()
    found = find_originals(tmp_path)
    assert list(found) == NAMES[:2]
    assert found[NAMES[0]] == tmp_path / "s2" / "nested" / f"{NAMES[0]}_rgb.avi"
    (tmp_path / f"{NAMES[1]}_rgb.avi").touch()
    with pytest.raises(DataError, match="are the same sample"):
        find_originals(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no video named like"):
        find_originals(tmp_path / "empty")
    with pytest.raises(DataError, match="is not a folder"):
        find_originals(tmp_path / "none")


def test_estimate():
    assert estimate(56_880, 0.15, 100_000, 50 * 10**9) == (
        "56,880 clips need about 2.4 h and 5.69 GB; 50.00 GB are free"
    )
    assert estimate(100, 6, 10**9, 10**9).endswith("10 min and 100.00 GB; 1.00 GB are free: NOT ENOUGH")


# The pack.


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A data folder with a pack: one and two persons, three, none in any frame."""
    datadir = tmp_path_factory.mktemp("packed")
    write_samples(datadir, subjects=1, vid_dim=16, frames=(4, 9), empty=True)
    (datadir / TEXT_FOLDER / "readme.txt").touch()
    (datadir / TEXT_FOLDER / f"{sample_name(3, 9)}.skeleton").write_text("0\n")
    report = write_pack(datadir, num_workers=2, verbose=False)
    assert (report.made, report.kept, report.failures) == (12, 0, [])
    return datadir


def test_pack_holds_what_the_text_says(packed):
    pack = SkeletonPack.open(packed)
    files = {path.stem: path for path in (packed / TEXT_FOLDER).glob("*.skeleton")}
    assert set(pack.names) == files.keys()
    assert {pack.bodies(name) for name in pack.names} == {0, 1, 2}
    for again in (pack, pickle.loads(pickle.dumps(pack))):
        for name, path in files.items():
            joints, expected = again.load(name), parse_skeleton(path)
            assert joints.dtype == np.float32
            assert joints.flags.writeable
            assert joints.flags.c_contiguous
            np.testing.assert_array_equal(joints, expected, strict=True)
            assert again.bodies(name) == expected.shape[3]
            assert again.source_size(name) == path.stat().st_size


def test_pack_is_whole_or_not_there(packed, tmp_path):
    assert SkeletonPack.open(tmp_path) is None
    folder = tmp_path / PACK_FOLDER
    folder.mkdir()
    good = {name: (packed / PACK_FOLDER / name).read_bytes() for name in ("joints.npy", "index.npz")}
    (folder / "joints.npy").write_bytes(good["joints.npy"])
    assert SkeletonPack.open(tmp_path) is None  # stopped before the index
    for name in good:
        for length in (0, 50, len(good[name]) - 4):
            for file, content in good.items():
                (folder / file).write_bytes(content[:length] if file == name else content)
            with pytest.raises(DataError, match="is damaged"):
                SkeletonPack.open(tmp_path)
    (folder / "joints.npy").unlink()
    with pytest.raises(DataError, match="is damaged"):
        SkeletonPack.open(tmp_path)


def test_pack_is_made_anew_only_when_files_change(tmp_path):
    write_samples(tmp_path, subjects={"train": 1}, vid_dim=16, frames=(4, 9), halves=False)
    index = tmp_path / PACK_FOLDER / "index.npz"
    assert not write_pack(tmp_path, 1, False).kept
    before = index.stat().st_mtime_ns
    assert write_pack(tmp_path, 1, False).kept
    assert index.stat().st_mtime_ns == before

    longer = tmp_path / TEXT_FOLDER / f"{NAMES[0]}.skeleton"
    write_skeleton(longer, draw_skeletons(np.random.default_rng(0), 0, 20, 1))
    assert not write_pack(tmp_path, 1, False).kept
    assert SkeletonPack.open(tmp_path).load(NAMES[0]).shape == (3, 20, 25, 1)
    index.write_bytes(index.read_bytes()[:100])
    assert not write_pack(tmp_path, 1, False).kept  # a damaged one is replaced

    cut(longer)
    report = write_pack(tmp_path, 1, False)
    assert (report.made, len(report.failures)) == (2, 1)
    assert f"{NAMES[0]}.skeleton, line" in report.failures[0]
    assert NAMES[0] not in SkeletonPack.open(tmp_path).names


def test_pack_needs_skeletons(tmp_path):
    (tmp_path / TEXT_FOLDER).mkdir()
    with pytest.raises(DataError, match="must hold files like"):
        write_pack(tmp_path, 1, False)


def test_pack_loads_at_least_20_times_faster_than_the_text(tmp_path):
    (tmp_path / TEXT_FOLDER).mkdir()
    for seed, name in enumerate(NAMES):
        frames = draw_skeletons(np.random.default_rng(seed), 0, 80, 1 + seed % 2)
        write_skeleton(tmp_path / TEXT_FOLDER / f"{name}.skeleton", frames)
    write_pack(tmp_path, 1, False)
    pack = SkeletonPack.open(tmp_path)

    def fastest(load) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            for name in NAMES:
                load(name)
            times.append(time.perf_counter() - started)
        return min(times)

    text = fastest(lambda name: parse_skeleton(tmp_path / TEXT_FOLDER / f"{name}.skeleton"))
    assert text > 20 * fastest(pack.load)


# Working together.


def _die(item: int) -> int:
    if item == 3:
        os._exit(1)
    return item


def test_parallel_keeps_the_order_and_reports_a_dead_worker():
    assert list(parallel(abs, range(-100, 0), 2)) == list(range(100, 0, -1))
    with pytest.raises(DataError, match="a worker process was killed"):
        list(parallel(_die, range(10), 1))


def test_left_overs_are_swept(tmp_path):
    originals = {NAMES[0]: write_original(tmp_path / f"{NAMES[0]}_rgb.avi")}
    settings = VideoSettings(32)
    folder = settings.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / f".{NAMES[0]}_rgb.avi.0123456789abcdef.tmp").write_bytes(b"half a clip")
    report = prepare_videos(originals, tmp_path, settings, 1, verbose=False)
    assert (report.made, report.kept, report.failures) == (1, 0, [])
    assert os.listdir(folder) == [f"{NAMES[0]}_rgb.avi"]


# The command.


@pytest.mark.slow
def test_command_prepares_resumes_and_names_what_failed(tmp_path):
    data, rgb = tmp_path / "data", tmp_path / "originals"
    people = (1, 16, 2, 3, 41)
    names = [sample_name(person, 1) for person in people]
    (data / TEXT_FOLDER).mkdir(parents=True)
    for name in [*names, sample_name(1, 2)]:
        write_skeleton(data / TEXT_FOLDER / f"{name}.skeleton", draw_skeletons(np.random.default_rng(0), 0, 5, 1))
    for name in [*names, sample_name(1, 3)]:
        write_original(rgb / name[:4] / f"{name}_rgb.avi")
    broken = rgb / "S001" / f"{names[0]}_rgb.avi"
    cut(broken)

    args = ("--rgb_dir", rgb, "--datadir", data, "--vid_dim", 32, "--num_workers", 2)
    done = prepare(*args, code=1)
    assert f"files that could not be used (1):\n{broken} announces" in done.stderr
    assert "6 clips need about" in done.stdout
    assert "5 videos, 6 skeletons, 4 samples with both" in done.stdout
    assert "left out: 2 without video, 1 without skeleton" in done.stdout
    clips = data / "nturgbd_rgb" / "avi_32x32_30"
    times = {path.name: path.stat().st_mtime_ns for path in clips.iterdir()}
    assert len(times) == 5

    write_original(broken)
    done = prepare(*args)
    assert "5 clips are already in" in done.stdout
    assert "the skeletons are already packed" in done.stdout
    assert "6 skeletons packed, 0 of them without a body" in done.stdout
    assert "samples by split of xsub60: train 2, trainexp 1, dev 1, test 1; in no split 1" in done.stdout
    assert {name: (clips / name).stat().st_mtime_ns for name in times} == times
    assert discover(data, NTUSettings(vid_dim=32)).names == tuple(sorted(names))

    quiet = prepare(*args, "--no-verbose")
    assert quiet.stderr == ""
    assert quiet.stdout.startswith(f"{data}:\n6 videos")


@pytest.mark.slow
def test_killed_run_leaves_whole_clips_and_no_workers(tmp_path):
    data, rgb = tmp_path / "data", tmp_path / "originals"
    names = [sample_name(1, action) for action in range(1, 31)]
    first = write_original(rgb / f"{names[0]}_rgb.avi", levels(25) * 4, size=(640, 360))
    for name in names[1:]:
        (rgb / f"{name}_rgb.avi").hardlink_to(first)
    args = ("--rgb_dir", rgb, "--datadir", data, "--num_workers", 2)
    clips = data / "nturgbd_rgb" / "avi_256x256_30"
    command = [sys.executable, "-m", "datasets.ntu_prepare", *map(str, args)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(clips.glob("S*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(_alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(_alive(worker) for worker in workers)

    made = sorted(clips.glob("S*"))
    assert 0 < len(made) < len(names)
    for clip in made:
        assert len(number_frames(clip)) == 100
    done = prepare(*args)
    assert f"{len(made)} clips are already in" in done.stdout
    assert sorted(os.listdir(clips)) == [f"{name}_rgb.avi" for name in names]


def _alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_command_refuses_what_it_cannot_do(tmp_path):
    assert "error: nothing to prepare" in prepare("--datadir", tmp_path, code=2).stderr
    file = tmp_path / "file"
    file.touch()
    write_original(tmp_path / f"{NAMES[0]}_rgb.avi")
    assert f"error: {file}" in prepare("--datadir", file, "--rgb_dir", tmp_path, code=1).stderr
