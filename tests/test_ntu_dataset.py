"""NTU RGB+D as a folder: pairing, splits, crops, and what tells one data set from another."""

import os
import pickle
import shutil
import signal
import time

import av
import numpy as np
import pytest
import torch

from datasets.ntu import splits as ntu_splits
from datasets.ntu.folder import MEAN, STD, SUBJECTS, Selection, discover, normalize_clips
from datasets.ntu.pack import write_pack
from datasets.ntu.samples import MODALITIES, NTUSettings, NTUSplit
from datasets.ntu.skeleton import parse_skeleton, prepare_skeleton
from datasets.ntu.splits import damaged_samples
from datasets.ntu.video import clip_indices, frame_count, read_frames
from tests.ntu_samples import cut, promise_more_frames, sample_name, write_samples, write_skeleton, write_video
from utils.errors import DataError

SETTINGS = NTUSettings(vid_dim=64)
NO_BAD = Selection(no_bad_skel=True)
ALL = ("train", "trainexp", "dev", "test")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A data set of 2 classes x 2 subjects a split, and what is in it; not to be changed."""
    datadir = tmp_path_factory.mktemp("ntu")
    return datadir, write_samples(datadir, 2, 2, vid_dim=64, frames=(80, 100), empty=True, truncated=True)


@pytest.fixture
def copied(written, tmp_path):
    """The same, for a test to change."""
    shutil.copytree(written[0], tmp_path / "ntu")
    return tmp_path / "ntu", written[1]


def rgb(datadir, name):
    return datadir / "nturgbd_rgb" / "avi_64x64_30" / f"{name}_rgb.avi"


def skeleton(datadir, name):
    return datadir / "nturgbd_skeletons" / f"{name}.skeleton"


def test_the_published_subjects():
    train, dev, test = (set(SUBJECTS[split]) for split in ("train", "dev", "test"))
    assert train | dev | test == set(range(1, 41))
    assert len(train) + len(dev) + len(test) == 40
    assert set(SUBJECTS["trainexp"]) < train
    assert [len(SUBJECTS[split]) for split in ALL] == [16, 7, 4, 20]


def test_halves_are_paired_by_name(written):
    datadir, samples = written
    folder = discover(datadir, SETTINGS)
    assert folder.names == tuple(sorted(samples.complete))
    assert folder.without_rgb == tuple(samples.skeleton_only)
    assert folder.without_skeleton == tuple(samples.rgb_only)
    assert folder.report() == "15 samples; left out: 1 without RGB, 1 without skeleton"


def test_other_files_are_no_samples(copied):
    datadir, samples = copied
    name = samples.rgb_only[0]
    for other in (f"{name}.skeleton.tmp", f".{name}.skeleton", f"x{name}.skeleton", f"{name}_rgb.skeleton"):
        (skeleton(datadir, name).parent / other).write_text("0\n")
    assert discover(datadir, SETTINGS).without_skeleton == (name,)


def test_splits_follow_subjects_and_classes(written):
    splits = discover(written[0], SETTINGS, Selection(2)).splits(ALL)
    assert {name: sorted({int(n[9:12]) for n in split.names}) for name, split in splits.items()} == {
        "train": [1, 16],
        "trainexp": [1],
        "dev": [2, 5],
        "test": [3, 6],
    }
    for split in splits.values():
        assert list(split.names) == sorted(split.names)
        assert split.labels.dtype == torch.int64
        assert split.labels.tolist() == [int(name[-3:]) - 1 for name in split.names]
        assert len(split) == len(split.names) == len(split.labels)


def test_limits_keep_the_first_samples(written):
    whole = discover(written[0], SETTINGS, Selection(2)).splits(ALL)
    selection = Selection(2, {"train": 3, "dev": 1, "test": None})
    limited = discover(written[0], SETTINGS, selection).splits(ALL)
    assert {name: len(split) for name, split in limited.items()} == {
        "train": 3,
        "trainexp": len(whole["trainexp"]),
        "dev": 1,
        "test": len(whole["test"]),
    }
    assert limited["train"].names == whole["train"].names[:3]


def test_a_split_can_go_by_another_name(written):
    folder = discover(written[0], SETTINGS, Selection(2, {"train": 2}))
    named = folder.splits({"train": "trainexp", "dev": "dev"})
    assert list(named) == ["train", "dev"]
    assert named["train"].names == folder.splits(("trainexp",))["trainexp"].names[:2]


def test_a_class_above_num_outputs_is_an_error(written):
    folder = discover(written[0], SETTINGS, Selection(1))
    with pytest.raises(DataError, match=r"classes must lie in 1\.\.1, but S\w+A002 is of class 2.*--num_outputs 2"):
        folder.splits(("train",))


def test_an_empty_split_is_an_error(copied):
    datadir, samples = copied
    for name in samples.complete:
        if "P002" in name or "P005" in name:
            rgb(datadir, name).unlink()
    folder = discover(datadir, SETTINGS)
    assert len(folder.splits(("train", "test"))) == 2
    with pytest.raises(DataError, match="the dev split is empty; it takes samples of the subjects 2, 5, 9, 14"):
        folder.splits(ALL)


def test_subjects_of_no_split_are_reported(copied):
    datadir, samples = copied
    for half in (rgb, skeleton):
        shutil.copy(half(datadir, samples.complete[1]), half(datadir, sample_name(41, 1)))
    folder = discover(datadir, SETTINGS)
    assert folder.report().startswith("15 samples; ")
    assert folder.report().endswith(", 1 in no split of xsub60")
    assert all("P041" not in name for split in folder.splits(ALL).values() for name in split.names)


@pytest.mark.parametrize("place", ["data folder", "working folder"])
def test_bad_skeletons_are_left_out(copied, tmp_path, monkeypatch, place):
    datadir, samples = copied
    listed = samples.complete[2]
    content = f"The missing skeletons:\n\n{listed}\nS001C003P009R001A060\nnothing here\n"
    monkeypatch.chdir(tmp_path)
    if place == "data folder":
        (tmp_path / "bad_skel.txt").write_text(samples.complete[0])  # not read, since the data folder has one
    ((datadir if place == "data folder" else tmp_path) / "bad_skel.txt").write_text(content)
    skeleton(datadir, samples.cut_skeleton[0]).unlink()
    folder = discover(datadir, SETTINGS, NO_BAD)
    assert folder.excluded == {listed, *samples.empty}
    kept = {name for split in folder.splits(ALL).values() for name in split.names}
    assert kept == set(folder.names) - {listed, *samples.empty}
    everything = discover(datadir, SETTINGS).splits(ALL)
    assert {name for split in everything.values() for name in split.names} == set(folder.names)


def test_a_large_file_without_bodies_costs_no_parsing(copied):
    datadir, samples = copied
    name = samples.complete[0]
    skeleton(datadir, name).write_text("broken " * 5000)
    assert name not in discover(datadir, SETTINGS, NO_BAD).excluded


@pytest.mark.parametrize("prepare", ["nothing", "rgb only", "no common name"])
def test_a_folder_without_samples_tells_the_layout(tmp_path, prepare):
    if prepare != "nothing":
        rgb(tmp_path, "").parent.mkdir(parents=True)
        rgb(tmp_path, sample_name(1, 1)).touch()
    if prepare == "no common name":
        skeleton(tmp_path, "").parent.mkdir()
        skeleton(tmp_path, sample_name(2, 1)).touch()
    with pytest.raises(DataError) as caught:
        discover(tmp_path, SETTINGS)
    for part in ("nturgbd_rgb/avi_64x64_30/NAME_rgb.avi", "nturgbd_skeletons/NAME.skeleton", "S001C001P001R001A001"):
        assert part in str(caught.value)


def test_videos_of_another_size_are_pointed_out(written):
    with pytest.raises(DataError, match="there are also avi_64x64_30, which --vid_dim and --vid_fr select"):
        discover(written[0])


def test_samples_without_crop(written):
    datadir = written[0]
    split = discover(datadir, SETTINGS, Selection(2)).splits(("dev",))["dev"]
    for index, name in enumerate(split.names):
        clip = split.load(index, "rgb")
        assert clip.dtype == torch.uint8
        path = rgb(datadir, name)
        expected = read_frames(path, lambda count: clip_indices(count, 8))
        assert np.array_equal(clip.numpy(), expected)
        joints = parse_skeleton(skeleton(datadir, name))
        assert torch.equal(split.load(index, "skeleton"), prepare_skeleton(joints, 32))
        assert joints.shape[3] == 1 + int(split.labels[index])


def test_settings_reach_the_samples(written):
    settings = NTUSettings(vid_dim=64, vid_len=(5, 20), frame_sampling="uniform", centre=False)
    split = discover(written[0], settings, Selection(2)).splits(("test",))["test"]
    clip, joints = split.load(0, "rgb"), split.load(0, "skeleton")
    assert clip.shape == (5, 64, 64, 3)
    assert clip[-1].max() > 0  # the published sampling ends with a black frame
    assert joints.shape == (3, 20, 25, 2)
    assert joints[2, :, 1, 0].abs().min() > 1  # metres from the camera


@pytest.mark.parametrize("modality", MODALITIES)
def test_crops_depend_on_seed_and_sample_only(written, modality):
    folder = discover(written[0], SETTINGS)
    split = folder.splits(("test",))["test"]
    crops = [split.load(1, modality, seed) for seed in range(12)]
    assert len({crop.numpy().tobytes() for crop in crops}) > 3
    again = pickle.loads(pickle.dumps(split))
    np.random.seed(5)  # noqa: NPY002 - global state must not matter
    for seed in (4, 0):
        assert torch.equal(again.load(1, modality, seed), crops[seed])
    assert not torch.equal(crops[8], split.load(1, modality))  # half of the video; seed 0 keeps almost all of it


def test_rgb_crops_are_centred_in_time(written):
    datadir, _ = written
    split = discover(datadir, SETTINGS, Selection(2)).splits(("test",))["test"]
    path = rgb(datadir, split.names[0])
    count = frame_count(path)
    choices = [read_frames(path, clip_indices(count, 8, ratio=kept / 24)) for kept in range(12, 25)]
    for seed in range(8):
        crop = split.load(0, "rgb", seed).numpy()
        assert any(np.array_equal(crop, choice) for choice in choices)


def test_workers_load_the_same(written):
    split = discover(written[0], SETTINGS, Selection(2)).splits(("dev",))["dev"]

    class Crops(torch.utils.data.Dataset):
        def __len__(self):
            return len(split)

        def __getitem__(self, index):
            return split.load(index, "rgb", 9), split.load(index, "skeleton", 9)

    loader = torch.utils.data.DataLoader(Crops(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    clips, joints = (torch.cat(parts) for parts in zip(*loader, strict=True))
    for index in range(len(split)):
        assert torch.equal(clips[index], split.load(index, "rgb", 9))
        assert torch.equal(joints[index], split.load(index, "skeleton", 9))


def test_damaged_samples_are_named(written):
    datadir, samples = written
    split = discover(datadir, SETTINGS, Selection(2)).splits(("train",))["train"]
    for name, modality in ((samples.cut_rgb[0], "rgb"), (samples.cut_skeleton[0], "skeleton")):
        with pytest.raises(DataError, match=rf"{name}.*; --skip_bad_samples leaves out"):
            split.load(split.names.index(name), modality)


def shrink_a_frame(path):
    """A clip of 30 frames of 64x64, of which the one with number 10 has 32x32."""
    small = path.with_suffix(".small.avi")
    write_video(path, np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8), codec="mjpeg")
    write_video(small, np.zeros((30, 32, 32, 3), np.uint8), codec="mjpeg")
    packets = []
    for file in (path, small):
        with av.open(str(file)) as container:
            packets.append([packet for packet in container.demux(video=0) if packet.size][10])
    content, (place, size) = bytearray(path.read_bytes()), (packets[0].pos, packets[0].size)
    start = content.index(bytes(packets[0]), place)
    content[start : start + size] = bytes(packets[1]).ljust(size, b"\0")
    path.write_bytes(content)
    small.unlink()


@pytest.fixture
def damaged(copied):
    """The folder, and what is wrong with each damaged file: (half, sample, part of the message)."""
    datadir, samples = copied
    whole = [name for name in samples.complete if name not in samples.cut_rgb + samples.cut_skeleton + samples.empty]
    other_size, promising, other_frames, empty, gone = whole[:5]
    write_video(rgb(datadir, other_size), np.zeros((30, 32, 32, 3), np.uint8))
    promise_more_frames(rgb(datadir, promising), 200)
    shrink_a_frame(rgb(datadir, other_frames))
    skeleton(datadir, empty).write_bytes(b"")
    skeleton(datadir, gone).unlink()
    skeleton(datadir, gone).symlink_to(datadir / "nowhere")
    return datadir, [
        ("rgb", samples.cut_rgb[0], "is damaged"),
        ("rgb", other_size, "frames must be 64x64, but are 32x32"),
        ("rgb", promising, "it should have 200 frames, but frame "),
        ("rgb", other_frames, "frames should be 64x64, but frame 10 is 32x32"),
        ("skeleton", samples.cut_skeleton[0], "line "),
        ("skeleton", empty, "truncated"),
        ("skeleton", gone, "cannot be read: No such file or directory"),
    ]


@pytest.mark.parametrize("modalities", [("rgb",), ("skeleton",), ("rgb", "skeleton")])
def test_damaged_samples_are_found_however_many_processes_look(damaged, modalities):
    datadir, wrong = damaged
    splits = discover(datadir, SETTINGS).splits(("train", "dev", "test"))
    expected = {name: message for half, name, message in wrong if half in modalities}
    found = damaged_samples(splits, modalities, 0)
    assert found.keys() == expected.keys()
    for name, reason in found.items():
        assert name in reason
        assert expected[name] in reason
        assert "--skip_bad_samples" not in reason
    assert list(damaged_samples(splits, modalities, 2).items()) == list(found.items())


def test_what_is_not_found_damaged_can_be_read_with_any_crop(copied):
    datadir, _ = copied
    split = discover(datadir, SETTINGS).splits(("test",))["test"]
    for index, part in enumerate((0.7, 0.87, 0.88, 0.99)):  # the middle two lack frames that few crops need
        cut(rgb(datadir, split.names[index]), part)
    damaged = damaged_samples({"test": split}, ("rgb",), 0)
    assert split.names[0] in damaged
    assert split.names[3] not in damaged
    kept = split.without(damaged)
    assert kept.names == tuple(name for name in split.names if name not in damaged)
    assert kept.labels.tolist() == [int(name[-3:]) - 1 for name in kept.names]
    for index in range(len(kept)):
        assert all(len(kept.load(index, "rgb", crop)) == 8 for crop in (None, *range(60)))


def test_a_damaged_skeleton_is_not_taken_for_one_without_bodies(damaged):
    datadir, wrong = damaged
    with pytest.raises((DataError, FileNotFoundError)):
        _ = discover(datadir, SETTINGS, NO_BAD).excluded
    kept = discover(datadir, SETTINGS, Selection(no_bad_skel=True, skip_damaged=True))
    assert kept.excluded.isdisjoint(name for _, name, _ in wrong)


def test_the_first_damaged_samples_are_printed_and_all_returned(damaged, monkeypatch, capsys):
    monkeypatch.setattr(ntu_splits, "SHOWN", 2)
    selection = Selection(limits={"train": None}, skip_damaged=True)
    names = ("train", "dev", "test")
    splits, facts = ntu_splits.read_splits(damaged[0], SETTINGS, selection, names, MODALITIES, 0, verbose=False)
    output = capsys.readouterr()
    assert output.out == ""
    first, *lines, last = output.err.splitlines()
    assert first == "skipped 7 damaged of 15 samples:"
    assert [line.strip() for line in lines] == list(facts["skipped_samples"].values())[:2]
    assert last.strip() == "and 5 more"
    assert facts["skipped_samples"].keys() == {name for _, name, _ in damaged[1]}
    assert {name for split in splits.values() for name in split.names}.isdisjoint(facts["skipped_samples"])


def test_a_killed_process_ends_the_check(written, monkeypatch):
    splits = discover(written[0], SETTINGS).splits(("dev",))

    def check(self, index, modality):
        if index == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)

    monkeypatch.setattr(NTUSplit, "check", check)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # a script that goes on after the signal for a while
    try:
        with pytest.raises(DataError, match="a worker process was killed"):
            damaged_samples(splits, MODALITIES, 2)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_pack_is_read_where_it_has_the_sample(copied):
    datadir, samples = copied
    before = discover(datadir, SETTINGS, Selection(2)).splits(ALL)
    loaded = [before["dev"].load(index, "skeleton", 1) for index in range(len(before["dev"]))]
    write_pack(datadir, 1, False)
    name = before["dev"].names[0]
    skeleton(datadir, name).unlink()
    skeleton(datadir, before["dev"].names[1]).write_text("overwritten")
    added = sample_name(5, 1, repeat=2)
    shutil.copy(rgb(datadir, name), rgb(datadir, added))
    write_skeleton(skeleton(datadir, added), [np.ones((1, 25, 3))] * 40)

    folder = discover(datadir, SETTINGS, NO_BAD)
    assert name in folder.names
    dev = discover(datadir, SETTINGS).splits(("dev",))["dev"]
    assert set(dev.names) == {*before["dev"].names, added}
    for packed, expected in zip(before["dev"].names, loaded, strict=True):
        assert torch.equal(dev.load(dev.names.index(packed), "skeleton", 1), expected)
    assert dev.load(dev.names.index(added), "skeleton")[..., 1].unique().tolist() == [-1]  # from the text
    assert folder.excluded == set(samples.empty)
    assert torch.equal(pickle.loads(pickle.dumps(dev)).load(0, "skeleton"), dev.load(0, "skeleton"))


def test_identity(copied):
    datadir, _ = copied

    def identity(settings=SETTINGS, limit=None):
        return discover(datadir, settings, Selection(2, {"dev": limit})).splits(("dev",))["dev"].identity()

    first = identity()
    assert identity() == first
    others = [identity(NTUSettings(vid_dim=64, centre=False)), identity(limit=2)]
    name = discover(datadir, SETTINGS).splits(("dev",))["dev"].names[1]
    for half in (rgb, skeleton):
        os.utime(half(datadir, name), (1, 1))
        others.append(identity())
    write_pack(datadir, 1, False)
    others.append(identity())
    joints = datadir / "nturgbd_skeletons_packed" / "joints.npy"
    stat, content = joints.stat(), bytearray(joints.read_bytes())
    content[-1] ^= 1  # nothing but the content differs
    joints.write_bytes(content)
    os.utime(joints, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    others.append(identity())
    everything = [first, *others]
    assert all(a != b for number, a in enumerate(everything) for b in everything[:number])


@pytest.mark.parametrize(("modality", "half"), [("rgb", rgb), ("skeleton", skeleton)])
def test_a_sample_that_changed_since_its_fingerprint_was_taken_is_an_error(copied, modality, half):
    datadir, _ = copied
    dev = discover(datadir, SETTINGS).splits(("dev",))["dev"]
    dev.identity()
    dev.load(0, modality)
    os.utime(half(datadir, dev.names[0]), (1, 1))
    with pytest.raises(DataError, match="was changed while it was in use; start again"):
        dev.load(0, modality)
    dev.load(1, modality)


def test_a_pack_that_is_cut_while_it_is_in_use_is_an_error(copied):
    datadir, _ = copied
    write_pack(datadir, 1, False)
    dev = discover(datadir, SETTINGS).splits(("dev",))["dev"]
    with open(datadir / "nturgbd_skeletons_packed" / "joints.npy", "rb+") as file:
        file.truncate(128)  # a map would kill the process here
    with pytest.raises((DataError, OSError), match=r"cut short|was changed while it was in use"):
        dev.load(0, "skeleton")


def test_normalized_clips():
    clips = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 5, 4, 3), dtype=np.uint8))
    expected = (clips.double() / 255 - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
    result = normalize_clips(clips)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=1e-6, rtol=1e-5)
