"""Clips: which frames, and that exactly those are decoded, against a full decode of the same file."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.ntu.video import clip_indices, frame_count, read_frames
from tests.ntu_samples import cut, draw_clip, write_video
from utils.errors import DataError

FRAMES = 50


def decode_all(path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)])


def packets(path) -> list[tuple[int, int]]:
    """Place and size of each frame in the file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.fixture(scope="module", params=["mpeg4", "mjpeg"])
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / f"{request.param}.avi"
    write_video(path, draw_clip(np.random.default_rng(0), 1, 3, FRAMES, 96), codec=request.param)
    return path


@pytest.fixture
def mjpeg(tmp_path):
    path = tmp_path / "clip.avi"
    write_video(path, draw_clip(np.random.default_rng(0), 1, 3, FRAMES, 64), codec="mjpeg")
    return path


def test_the_24_frames_are_those_of_a_full_decode(video):
    everything = decode_all(video)
    assert everything.shape == (FRAMES, 96, 96, 3)
    frames = read_frames(video, clip_indices(frame_count(video), 24), 96)
    assert (frames.shape, frames.dtype) == ((24, 96, 96, 3), np.uint8)
    for place, index in enumerate(np.linspace(0, FRAMES, 24).astype(int)[:-1]):
        assert np.array_equal(frames[place], everything[index])
    assert frames[:-1].reshape(23, -1).max(axis=1).min() > 0
    assert frames[-1].max() == 0  # the frame after the last


def test_uniform_sampling_reads_the_last_frame(video):
    everything = decode_all(video)
    frames = read_frames(video, lambda count: clip_indices(count, 24, "uniform"))
    assert np.array_equal(frames, everything[np.linspace(0, FRAMES - 1, 24).round().astype(int)])
    assert np.array_equal(frames[-1], everything[-1])


def test_frames_in_any_order_and_repeatedly(video):
    everything = decode_all(video)
    order = np.array([7, 49, 0, 7, 30])
    assert np.array_equal(read_frames(video, order), everything[order])
    assert read_frames(video, np.array([FRAMES])).max() == 0
    assert read_frames(video, np.array([], int)).shape == (0, 96, 96, 3)


@pytest.mark.parametrize("indices", [[0, FRAMES + 1], [-1, 3]])
def test_indices_must_lie_in_the_file(video, indices):
    with pytest.raises(ValueError, match=rf"indices must lie in 0\.\.{FRAMES}"):
        read_frames(video, np.array(indices))


@given(
    count=st.integers(1, 400),
    frames=st.integers(1, 32),
    sampling=st.sampled_from(["published", "uniform"]),
    ratio=st.floats(0.5, 1),
)
def test_clip_indices(count, frames, sampling, ratio):
    indices = clip_indices(count, frames, sampling, ratio)
    assert indices.shape == (frames,)
    assert (np.diff(indices) >= 0).all()
    assert 0 <= indices[0] <= indices[-1] <= (count if sampling == "published" else count - 1)
    whole = clip_indices(count, 24, sampling)
    begin = (24 - int(24 * ratio)) // 2
    middle = whole[begin : 24 - begin]
    assert set(indices) <= set(middle)
    assert indices[0] == middle[0]
    if frames > 1:
        assert indices[-1] == middle[-1]


def test_published_clip_of_eight():
    assert clip_indices(80, 8).tolist() == [0, 10, 20, 31, 45, 55, 66, 80]
    assert clip_indices(80, 24)[[0, 3, 6, 9, 13, 16, 19, 23]].tolist() == clip_indices(80, 8).tolist()
    assert clip_indices(80, 8, "uniform").tolist()[-1] == 79
    assert clip_indices(80, 8, ratio=0.5).tolist() == [20, 24, 31, 34, 41, 45, 52, 59]
    assert clip_indices(80, 8, ratio=13 / 24).tolist() == [
        17,
        20,
        27,
        34,
        41,
        48,
        55,
        62,
    ]  # an odd rest: one frame more
    assert clip_indices(80, 8, ratio=23 / 24).tolist()[-1] == 80  # the black frame


def test_channels_are_bgr_and_rows_come_first(tmp_path):
    clip = np.zeros((3, 64, 96, 3), np.uint8)
    clip[:, :32, :, 0] = 255  # the upper half is red
    write_video(tmp_path / "red.avi", clip)
    frame = read_frames(tmp_path / "red.avi", np.array([1]))[0]
    assert frame.shape == (64, 96, 3)
    assert frame[4:28].reshape(-1, 3).mean(axis=0) == pytest.approx([0, 0, 255], abs=6)
    assert frame[36:60].max() < 6


def test_frames_that_are_not_needed_are_not_decoded_where_all_are_key_frames(mjpeg):
    everything, places = decode_all(mjpeg), packets(mjpeg)
    content = bytearray(mjpeg.read_bytes())
    for index in (3, 20):
        start, size = places[index]
        content[start : start + size] = bytes(size)
    mjpeg.write_bytes(content)
    assert np.array_equal(read_frames(mjpeg, np.array([2, 4, 30])), everything[[2, 4, 30]])
    with pytest.raises(DataError, match=r"clip\.avi is damaged"):
        read_frames(mjpeg, np.array([2, 3, 30]))


def test_a_file_that_was_cut_serves_the_frames_before(video, tmp_path):
    path = tmp_path / "cut.avi"
    path.write_bytes(video.read_bytes())
    cut(path, 0.5)
    assert np.array_equal(read_frames(path, np.arange(5)), decode_all(video)[:5])
    with pytest.raises(DataError, match=rf"cut\.avi is damaged: it should have {FRAMES} frames, but frame \d+ cannot"):
        read_frames(path, clip_indices(FRAMES, 8))


def test_a_frame_that_was_cut_is_not_served(mjpeg):
    start, size = packets(mjpeg)[10]
    mjpeg.write_bytes(mjpeg.read_bytes()[: start + size // 2])
    assert read_frames(mjpeg, np.arange(10)).shape[0] == 10
    with pytest.raises(DataError, match="damaged"):
        read_frames(mjpeg, np.arange(11))


def test_frames_are_counted_where_the_header_has_no_count(tmp_path):
    clip = draw_clip(np.random.default_rng(0), 0, 3, 30, 64)
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height = stream.width = 64
        for array in clip:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
    assert frame_count(path) == 30
    frames = read_frames(path, lambda count: clip_indices(count, 24))
    assert np.array_equal(frames[:-1], decode_all(path)[clip_indices(30, 24)[:-1]])


@pytest.mark.parametrize("sampling", ["published", "uniform"])
def test_a_video_without_frames_is_an_error(tmp_path, sampling):
    path = tmp_path / "none.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.height = stream.width = 64
        container.start_encoding()
    with pytest.raises(DataError, match=r"none\.avi"):
        read_frames(path, lambda count: clip_indices(count, 8, sampling))


def test_a_wrong_size_names_the_fix(video):
    with pytest.raises(DataError, match=r"must be 256x256, but are 96x96; .*datasets\.ntu_prepare --vid_dim 256"):
        read_frames(video, np.array([0]), 256)


@pytest.mark.parametrize("content", [b"", b"no video at all", b"RIFF\x00\x00\x00\x00AVI LIST"])
def test_what_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "S001_rgb.avi"
    path.write_bytes(content)
    for read in (frame_count, lambda p: read_frames(p, np.array([0]))):
        with pytest.raises(DataError, match=r"S001_rgb\.avi"):
            read(path)


def test_a_sound_file_holds_no_video(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(DataError, match=r"sound\.wav contains no video"):
        frame_count(path)


def test_a_missing_file_stays_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        frame_count(tmp_path / "none.avi")
    assert caught.value.filename == str(tmp_path / "none.avi")
