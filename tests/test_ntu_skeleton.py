"""Skeleton files: the official format read back, every way to damage one, and the network's input."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.ntu.skeleton import crop_window, parse_skeleton, prepare_skeleton
from tests.ntu_samples import draw_skeletons, write_skeleton
from utils.errors import DataError


def bodies_of(counts: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1, (count, 25, 3)) for count in counts]


def expected_joints(frames: list[np.ndarray]) -> np.ndarray:
    """(3, N, 25, M), the first two bodies of each frame."""
    most = min(2, max(map(len, frames), default=0))
    joints = np.zeros((3, len(frames), 25, most))
    for number, frame in enumerate(frames):
        for body, points in enumerate(frame[:2]):
            joints[:, number, :, body] = points.T
    return joints


@settings(max_examples=40)
@given(counts=st.lists(st.integers(0, 4), max_size=6))
def test_what_was_written_is_read(tmp_path_factory, counts):
    path = tmp_path_factory.mktemp("skeleton") / "x.skeleton"
    frames = bodies_of(counts)
    write_skeleton(path, frames)
    joints = parse_skeleton(path)
    assert joints.dtype == np.float32
    assert joints.shape == expected_joints(frames).shape
    np.testing.assert_allclose(joints, expected_joints(frames), rtol=1e-6)


def test_the_format_of_the_published_files(tmp_path):
    """One frame as the recordings have it, with the exponents and the carriage returns that occur."""
    lines = ["1", "1", "72057594037931101 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
    lines += [f"0.{i}125 -1.5e-0{1 + i % 3} 3.{i} 277.4 191.8 1036.2 519.1 -0.2 0.05 0.96 -0.12 2" for i in range(25)]
    path = tmp_path / "x.skeleton"
    path.write_bytes("\r\n".join([*lines, "", ""]).encode())
    joints = parse_skeleton(path)
    assert joints.shape == (3, 1, 25, 1)
    assert joints[:, 0, 7, 0] == pytest.approx([0.7125, -0.015, 3.7])
    assert joints[:, 0, 24, 0] == pytest.approx([0.24125, -0.15, 3.24])


@pytest.mark.parametrize("value", ["nan", "NaN", "-nan", "inf", "-inf", "1e39", "1e999"])
def test_numbers_that_are_not_finite_become_0(tmp_path, value):
    path = tmp_path / "x.skeleton"
    frames = bodies_of([1, 1])
    write_skeleton(path, frames)
    lines = path.read_text().splitlines()
    lines[6] = " ".join([lines[6].split()[0], value, *lines[6].split()[2:]])  # the third joint of the first frame
    path.write_text("\n".join(lines))
    joints, expected = parse_skeleton(path), expected_joints(frames)
    expected[1, 0, 2, 0] = 0
    np.testing.assert_allclose(joints, expected, rtol=1e-6)


@pytest.mark.parametrize("counts", [[1, 2], [2, 3], [1, 0], [0, 0]])
def test_a_file_that_was_cut_anywhere_is_named(tmp_path, counts):
    path = tmp_path / "cut.skeleton"
    write_skeleton(path, bodies_of(counts))
    content = path.read_bytes()
    places = range(len(content.rstrip())) if len(content) < 100 else [*range(0, len(content), 29)]
    for size in [*places, *range(max(0, len(content) - 100), len(content) - 1)]:
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"cut\.skeleton, line \d+: "):
            parse_skeleton(path)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "many", "line 1: expected the number of frames, but the line is 'many'"),
        (1, "-2", "line 1: expected the number of frames, but the line is '-2'"),
        (1, "1", "line 30: the file continues after the 1 frames that line 1 announces"),
        (1, "3", "line 84: the file is truncated; it ends before the frames that line 1 announces"),
        (1, "9" * 5000, "line 1: expected the number of frames"),
        (2, "", "line 2: expected the number of bodies, but the line is ''"),
        (2, "1.0", "line 2: expected the number of bodies, but the line is '1.0'"),
        (4, "20", "line 4: a body must have 25 joints, but this one has 20"),
        (4, "0.1 0.2 0.3", "line 4: expected the number of joints"),
        (9, "0.1 0.2", "line 9: expected x, y and z of a joint, but the line is '0.1 0.2'"),
        (9, "", "line 9: expected x, y and z of a joint, but the line is ''"),
        (84, "0.1 x 0.3 4 5 6 7 8 9 10 11 2", "line 84: expected x, y and z of a joint"),
        (84, "0.1 0.2 0.3", "line 84: the file is truncated; the line has 3 numbers, others have 12"),
        (30, "2\x00", "line 30: expected the number of bodies"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, line, text, message):
    path = tmp_path / "x.skeleton"
    write_skeleton(path, bodies_of([1, 2]))
    lines = path.read_text().splitlines()
    assert len(lines) == 84
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError) as caught:
        parse_skeleton(path)
    assert f"{path}, {message}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 150


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "x.skeleton").touch()
    with pytest.raises(DataError, match=r"x\.skeleton, line 0: the file is truncated"):
        parse_skeleton(tmp_path / "x.skeleton")


def resized(joints: np.ndarray, frames: int) -> np.ndarray:
    """Linear interpolation along the second axis, the frames being the middles of equal intervals."""
    count = joints.shape[1]
    places = ((np.arange(frames) + 0.5) * count / frames - 0.5).clip(0, count - 1)
    below = np.floor(places).astype(int)
    above = np.minimum(below + 1, count - 1)
    share = (places - below)[None, :, None, None]
    return joints[:, below] * (1 - share) + joints[:, above] * share


@settings(max_examples=30)
@given(count=st.integers(1, 90), frames=st.sampled_from([8, 20, 32]), bodies=st.integers(1, 2), centre=st.booleans())
def test_the_input_is_centred_and_resized(count, frames, bodies, centre):
    raw = np.random.default_rng(count).normal(0, 1, (3, count, 25, bodies)).astype(np.float32)
    before = raw.copy()
    padded = np.concatenate([raw, np.zeros((3, count, 25, 2 - bodies))], axis=3)
    if centre:
        padded = padded - padded[:, :, 1:2, :1]
    result = prepare_skeleton(raw, frames, centre)
    assert result.dtype == torch.float32
    assert result.shape == (3, frames, 25, 2)
    np.testing.assert_allclose(result.numpy(), resized(padded, frames), atol=1e-4)
    assert np.array_equal(raw, before)
    if centre:
        assert result[:, :, 1, 0].abs().max() == 0


def test_the_window_is_all_that_is_seen():
    raw = np.random.default_rng(0).normal(0, 1, (3, 90, 25, 2)).astype(np.float32)
    cropped = prepare_skeleton(raw, 32, window=(11, 70))
    assert torch.equal(cropped, prepare_skeleton(raw[:, 11:81], 32))
    assert not torch.allclose(cropped, prepare_skeleton(raw, 32))


@pytest.mark.parametrize("shape", [(3, 0, 25, 0), (3, 40, 25, 0), (3, 0, 25, 2)])
def test_without_frames_or_bodies_the_input_is_zeros(shape):
    result = prepare_skeleton(np.zeros(shape, np.float32), 32, window=(0, shape[1]))
    assert torch.equal(result, torch.zeros(3, 32, 25, 2))


@given(count=st.integers(0, 300), seed=st.integers(0, 2**63))
def test_crop_windows(count, seed):
    start, length = crop_window(count, np.random.default_rng(seed))
    assert 0 <= start <= start + length <= count
    assert length >= min(count, max(64, count // 2))


def test_crop_windows_reach_both_ends():
    windows = [crop_window(200, np.random.default_rng(seed)) for seed in range(2000)]
    lengths = [length for _, length in windows]
    assert min(lengths) < 105
    assert max(lengths) > 195
    assert min(start for start, _ in windows) == 0
    assert max(start + length for start, length in windows) == 200


def test_the_samples_have_the_classes_motion():
    """The limb of the class moves most: what the training tests rely on."""
    for label in range(3):
        frames = draw_skeletons(np.random.default_rng(label), label, 60, 1)
        moved = expected_joints(frames)[:, :-3].std(axis=1)[0, :, 0]
        assert moved.argmax() in [(4, 5, 6, 7, 21, 22), (8, 9, 10, 11, 23, 24), (12, 13, 14, 15)][label]
