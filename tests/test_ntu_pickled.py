"""Skeletons from pickles of pyskl's layout: what is read, what is refused, and that no pickle runs code."""

import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.ntu.pack import SkeletonPack, write_pack
from datasets.ntu.pickled import read_skeletons
from datasets.ntu.skeleton import parse_skeleton
from tests.ntu_samples import sample_name, write_pickle, write_samples
from utils.errors import DataError

NAMES = [sample_name(person, action) for person in (1, 2) for action in (1, 2)]


def annotation(name: str, bodies: int = 2, frames: int = 5, joints: int = 25, axes: int = 3) -> dict:
    keypoint = np.random.default_rng(list(name.encode())).normal(size=(bodies, frames, joints, axes)).astype(np.float16)
    return {"frame_dir": name, "label": int(name[-3:]) - 1, "keypoint": keypoint, "total_frames": frames}


def dump(path: Path, annotations: object, protocol: int = 2) -> Path:
    split = {"xsub_train": NAMES[:2], "xsub_val": NAMES[2:]}
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F", "big-endian"])
def test_arrays_are_read_as_they_were_written(tmp_path, protocol, order):
    written = [annotation(name, bodies) for name, bodies in zip(NAMES[::-1], (1, 2, 3, 1), strict=True)]
    for one in written:
        one["label"] = np.int64(one["label"])
        kept = one["keypoint"]
        one["keypoint"] = kept.astype(">f2") if order == "big-endian" else np.asarray(kept, order=order)
    found = read_skeletons(dump(tmp_path / "x.pkl", written, protocol))
    assert list(found) == sorted(NAMES)
    for one in written:
        np.testing.assert_array_equal(found[one["frame_dir"]], one["keypoint"])


def test_arrays_of_numpy_before_2_are_read(tmp_path):
    path = dump(tmp_path / "x.pkl", [annotation(NAMES[0])])
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    path.write_bytes(content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert read_skeletons(path).keys() == {NAMES[0]}


def test_the_pack_holds_the_first_two_bodies(tmp_path):
    written = [annotation(name, bodies) for name, bodies in zip(NAMES, (1, 2, 3, 1), strict=True)]
    written[0]["keypoint"][0, 1, 2, 0] = np.nan
    path = dump(tmp_path / "x.pkl", written)
    assert write_pack(tmp_path, 1, False, path).made == 4
    pack = SkeletonPack.open(tmp_path)
    for one in written:
        expected = np.nan_to_num(one["keypoint"][:2].astype(np.float32)).transpose(3, 1, 2, 0)
        np.testing.assert_array_equal(pack.load(one["frame_dir"]), expected)
    assert write_pack(tmp_path, 1, False, path).kept == 4


def test_text_and_pickle_give_the_same_skeletons(tmp_path):
    """But for float16, which pyskl stores."""
    write_samples(tmp_path, classes=2, vid_dim=16, frames=(4, 9), halves=False)
    write_pack(tmp_path, 1, False, write_pickle(tmp_path, tmp_path / "ntu60_3danno.pkl"))
    pack = SkeletonPack.open(tmp_path)
    texts = list((tmp_path / "nturgbd_skeletons").iterdir())
    assert pack.names == {path.stem for path in texts}
    for path in texts:
        np.testing.assert_allclose(pack.load(path.stem), parse_skeleton(path), rtol=1e-3)


class Calls:
    """Pickled as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["alone", "in an annotation", "as a keypoint"])
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.mkdir, "posix.mkdir"),
        (eval, "eval"),
        (getattr, "getattr"),
        (np.load, "load"),
        (np.fromfile, "fromfile"),
        (pickle.loads, "loads"),
    ],
)
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, monkeypatch, protocol, place, function, named):
    monkeypatch.chdir(tmp_path)
    arguments = {eval: ("__import__('os').mkdir('ran')",), os.mkdir: ("ran",)}.get(function, ("x.pkl", "y"))
    call = Calls(function, *arguments)
    if place == "alone":
        Path("x.pkl").write_bytes(pickle.dumps(call, protocol))
    else:
        dump(
            Path("x.pkl"), [annotation(NAMES[0]) | {"keypoint" if place == "as a keypoint" else "more": call}], protocol
        )
    with pytest.raises(DataError, match=rf"x\.pkl asks for '.*{named}', but only arrays"):
        read_skeletons(Path("x.pkl"))
    assert os.listdir() == ["x.pkl"]


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nmkdir\n(S'ran'\ntR.",  # GLOBAL and REDUCE
        b"(S'ran'\nios\nmkdir\n.",  # INST
        b"(cos\nmkdir\nS'ran'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x03ran\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile.x\x93.",  # a dotted name
        b"cnumpy\nndarray\n(S'ran'\ntb.",  # BUILD on a class
        b"cnumpy\ndtype\n(S'O'\ntR.",  # arrays of objects
        b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(S'f8'\ntRS'x'\ntR.",
        b"Pran\n.",  # a persistent object
        b"\x82\x01.",  # an extension
        b"]" * 5000 + b".",
        b"N.",
        b"",
    ],
)
def test_other_ways_to_build_objects_are_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    Path("x.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.pkl ") as error:
        read_skeletons(Path("x.pkl"))
    assert "\n" not in str(error.value)
    assert os.listdir() == ["x.pkl"]


@given(st.data())
def test_damaged_pickles_are_refused_or_hold_skeletons(tmp_path_factory, data):
    path = dump(tmp_path_factory.getbasetemp() / "damaged.pkl", [annotation(NAMES[0], 1, 2)])
    content = bytearray(path.read_bytes())
    opcodes = [place for _, _, place in pickletools.genops(bytes(content))]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.sampled_from(opcodes) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        found = read_skeletons(path)
    except DataError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
    else:
        assert all(values.shape[2:] == (25, 3) for values in found.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (annotation(NAMES[1], joints=17, axes=2), r"\(2, 5, 17, 2\); 2D skeletons, such as \*_hrnet.pkl, do not fit"),
        (
            annotation(NAMES[1], joints=17),
            r"must hold numbers \(bodies, frames, 25, 3\), but is float16 \(2, 5, 17, 3\)$",
        ),
        (annotation(NAMES[1]) | {"label": 7}, f"{NAMES[1]} must have label 1, but has 7"),
        (
            annotation(NAMES[1]) | {"frame_dir": "v_ApplyEyeMakeup_g01_c01"},
            "must be a name such as S001C001P001R001A001",
        ),
        (annotation(NAMES[0]), "occurs twice"),
        ({"frame_dir": NAMES[1]}, "must hold frame_dir, label and keypoint"),
        (annotation(NAMES[1]) | {"keypoint": [1.0]}, "must hold numbers"),
    ],
)
def test_other_skeletons_are_refused_with_the_reason(tmp_path, change, said):
    with pytest.raises(DataError, match=rf"x\.pkl, annotation 1: .*{said}"):
        read_skeletons(dump(tmp_path / "x.pkl", [annotation(NAMES[0]), change]))


def test_the_command_packs_a_pickle_and_names_what_is_wrong(run_script, tmp_path):
    path = dump(tmp_path / "ntu60_3danno.pkl", [annotation(name) for name in NAMES])
    done = run_script("datasets.ntu_prepare", "--skeleton_pickle", path, "--datadir", "D")
    assert "4 skeletons packed, 0 of them without a body" in done.stdout
    assert "packing the skeletons of" in done.stdout
    wrong = dump(tmp_path / "ntu60_hrnet.pkl", [annotation(name, joints=17, axes=2) for name in NAMES])
    error = run_script("datasets.ntu_prepare", "--skeleton_pickle", wrong, "--datadir", "D", code=2).stderr
    assert "2D skeletons, such as *_hrnet.pkl, do not fit the skeleton network" in error
    assert len(error.splitlines()) == 1
    assert len(SkeletonPack.open(tmp_path / "D").names) == 4  # the pack before it remains
    error = run_script("datasets.ntu_prepare", "--skeleton_pickle", "none.pkl", "--datadir", "D", code=1).stderr
    assert "error: none.pkl: No such file" in error
    error = run_script("datasets.ntu_prepare", "--skeleton_pickle", path, "--skeletons", code=2).stderr
    assert "--skeleton_pickle and --skeletons name two sources" in error
