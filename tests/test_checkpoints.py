"""Checkpoints, and files that are either whole or absent."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import pickle
import random
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from models.fusion import AudioImageNetwork, FusionHead, HeadSettings
from models.hcn import SkeletonNet
from models.lenet import AudioLeNet, ImageLeNet
from utils.arrays import read_array, read_arrays
from utils.errors import DataError, UsageError
from utils.files import LockedError, locked, whole_file, write_json
from utils.reading import read_bytes, read_json, sha256
from utils.search.journal import FORMAT, Journal
from utils.training.checkpoints import find_checkpoint, load_into, load_state, names_file, save_state
from utils.training.mismatch import flags_that_fit
from utils.training.resume import NetworkRecord


def refused(path, reader=load_state) -> str:
    """The message with which a file is refused: one line that names it."""
    with pytest.raises(UsageError) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_network_survives_the_round_trip(tmp_path):
    first, second = ImageLeNet(), ImageLeNet()
    save_state(tmp_path / "new" / "image.pkl", first.state_dict())
    load_into(second, tmp_path / "new" / "image.pkl")
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert list(load_state(tmp_path / "new" / "image.pkl")[0]) == list(first.state_dict())


def test_the_prefix_of_dataparallel_is_stripped(tmp_path):
    network, path = ImageLeNet(), tmp_path / "image.pkl"
    state = OrderedDict((f"module.{name}", value) for name, value in network.state_dict().items())
    torch.save(state, path)
    assert list(load_state(path)[0]) == list(network.state_dict())
    load_into(ImageLeNet(), path)


class Runs:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("dump", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))])
def test_a_checkpoint_cannot_run_code(tmp_path, dump):
    path, trace = tmp_path / "evil.pkl", tmp_path / "trace"
    dump({"conv1.weight": Runs(trace)}, path)
    message = refused(path)
    assert "damaged, or holds more than tensors" in message
    assert "weights_only" not in message  # torch's advice would run the code
    assert not trace.exists()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1, 2], "list"),
        ({"epoch": 3}, "dict"),
        (torch.zeros(2), "Tensor"),
        ({0: torch.zeros(2)}, "dict"),
        ({"w": torch.zeros(2, device="meta")}, "dict"),
    ],
)
def test_a_checkpoint_of_something_else(tmp_path, value, kind):
    path = tmp_path / "other.pkl"
    torch.save(value, path)
    assert f"must hold a state_dict (tensors by name), but holds a {kind}" in refused(path)


def test_a_missing_checkpoint(tmp_path):
    assert refused(tmp_path / "none.pkl").endswith("does not exist")
    with pytest.raises(IsADirectoryError):  # a system error, which names the folder
        load_state(tmp_path)


def test_damaged_checkpoints(tmp_path):
    """Files that are cut short, changed at random (seeded), empty, or no checkpoint at all."""
    rng, path, buffers = random.Random(0), tmp_path / "damaged.pkl", (io.BytesIO(), io.BytesIO())
    for buffer, modern in zip(buffers, (True, False), strict=True):
        torch.save({"w": torch.zeros(50)}, buffer, _use_new_zipfile_serialization=modern)
    whole = [buffer.getvalue() for buffer in buffers]
    cut = [data[: len(data) * part // 5] for data in whole for part in range(5)]
    noise = [rng.randbytes(n) for n in range(1, 40)]
    for data in [*cut, *noise, b"hello world", b"<html>not found</html>\n" * 50]:
        path.write_bytes(data)
        assert re.search("is not a readable checkpoint|is damaged", refused(path))
    for _ in range(200):  # a change in the numbers alone cannot be detected
        data = bytearray(rng.choice(whole))
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert isinstance(load_state(path)[0], dict)
            except UsageError as error:
                assert str(path) in str(error)  # noqa: PT017 - most are refused, and only so


def test_a_changed_byte_is_found(tmp_path):
    """Any changed byte of our files is refused, and any of another program's files that would change the weights."""
    path, foreign = tmp_path / "model.pkl", io.BytesIO()
    saved = {"w": torch.arange(20.0)}
    save_state(path, saved)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert re.search("is not a readable checkpoint|is damaged", refused(path)), at
    torch.save(saved, foreign)
    whole = foreign.getvalue()
    start = whole.index(saved["w"].numpy().tobytes())
    for at in [*range(0, len(whole), 7), *range(start, start + 80)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            assert torch.equal(load_state(path)[0]["w"], saved["w"])
            assert not start <= at < start + 80
        except UsageError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    path, state = tmp_path / "image.pkl", ImageLeNet().state_dict()
    assert state["bn1.num_batches_tracked"].dtype == torch.int64
    state["bn2.running_var"][1] = value
    save_state(path, state)
    message = refused(path, lambda p: load_into(ImageLeNet(), p))
    assert "holds numbers that are not finite in bn2.running_var" in message


def test_the_checksum_is_of_the_bytes_that_were_loaded(tmp_path, monkeypatch):
    """Also if the file is replaced in between."""
    path, first, second = tmp_path / "image.pkl", ImageLeNet(), ImageLeNet()
    save_state(path, first.state_dict())
    known, load = hashlib.sha256(path.read_bytes()).hexdigest(), torch.load

    def replaced(*args, **kwargs):
        save_state(path, second.state_dict())
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, "load", replaced)
    loaded = ImageLeNet()
    assert load_into(loaded, path) == known != hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(loaded.conv1.weight, first.conv1.weight)


def test_scripts_use_the_checksums_of_what_was_read():
    scripts = [path for path in Path(__file__).parents[1].glob("*.py") if "sha256" in path.read_text()]
    assert scripts == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_are_converted(tmp_path, dtype):
    path, network = tmp_path / "image.pkl", ImageLeNet()
    state = ImageLeNet().to(dtype).state_dict()
    torch.save(state, path)
    load_into(network, path)
    assert network.conv1.weight.dtype == torch.float32
    assert torch.equal(network.conv1.weight, state["conv1.weight"].float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.long(), "must hold conv1.weight as torch.float32, but holds torch.int64"),
        (lambda w: w > 0, "must hold conv1.weight as torch.float32, but holds torch.bool"),
        (lambda w: w + 0j, "in which 'conv1.weight' is torch.complex64"),
        (lambda w: torch.zeros(1).expand(10**4, 10**4, 10**4, 1), "(10000, 10000, 10000, 1), stored in 4 bytes"),
        (lambda w: torch.zeros(1).expand(w.shape), "stored in 4 bytes"),
        (lambda w: torch.full_like(w, 1e300, dtype=torch.float64), "numbers that are not finite in conv1.weight"),
        (lambda w: {"nested": w}, "in which 'conv1.weight' is no dense tensor (dict)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_memory_is_taken(tmp_path, change, message):
    path, state = tmp_path / "image.pkl", ImageLeNet().state_dict()
    state["conv1.weight"] = change(state["conv1.weight"].clone())
    torch.save(state, path)
    assert path.stat().st_size < 100_000
    assert message in refused(path, lambda p: load_into(ImageLeNet(), p))


def test_a_compressed_archive_is_refused(tmp_path):
    """A few bytes of it can take any amount of memory."""
    path, plain = tmp_path / "image.pkl", io.BytesIO()
    torch.save({"w": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert "must hold its records as torch.save writes them, not compressed" in refused(path)


def test_the_state_of_another_network_is_not_resumed(tmp_path):
    def trained(network, optimizer) -> NetworkRecord:
        record = NetworkRecord(network, tmp_path)
        network(torch.zeros(2, 1, 28, 28)).sum().backward()
        optimizer.step()
        record.add({"epoch": 0, "dev_accuracy": 0.5}, optimizer)
        return record

    network = ImageLeNet()
    trained(network, torch.optim.Adam(network.parameters()))
    with pytest.raises(UsageError, match=rf"{tmp_path}/state\.checkpoint does not fit this ImageLeNet"):
        NetworkRecord(ImageLeNet(channels=4), tmp_path)
    record = NetworkRecord(ImageLeNet(), tmp_path)
    record.restore(record.network, torch.optim.Adam(record.network.parameters()))
    assert torch.equal(record.network.conv1.weight, network.conv1.weight)
    broken = {
        "another name": lambda saved: saved["state"][0].update(other=saved["state"][0].pop("exp_avg")),
        "another shape": lambda saved: saved["state"][0].update(exp_avg=torch.zeros(3)),
        "no tensor": lambda saved: saved["state"][0].update(exp_avg="none"),
        "no groups": lambda saved: saved["param_groups"].clear(),
        "odd group": lambda saved: saved["param_groups"][0].update(params=3),
    }
    for change in broken.values():
        record = NetworkRecord(ImageLeNet(), tmp_path)
        change(record.values["optimizer"])
        optimizer = torch.optim.Adam(record.network.parameters())
        with pytest.raises(UsageError, match=r"state\.checkpoint does not fit: its optimizer state"):
            record.restore(record.network, optimizer)


@pytest.mark.parametrize("read", [read_bytes, read_json, load_state, sha256, read_array, read_arrays])
def test_only_regular_files_are_read(tmp_path, read):
    path = tmp_path / "file"
    os.mkfifo(path)
    assert f"{path} must be a regular file, but is a named pipe" in refused(path, read)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert f"{path} must be a regular file, but is a device" in refused(path, read)


def test_files_are_read_by_the_readers_only():
    """Which check that the file is a regular one, its size, and the form of its content."""
    root, allowed = Path(__file__).parents[1], {"utils/reading.py", "utils/training/checkpoints.py"}
    folders = (root / name for name in ("datasets", "models", "utils"))
    for path in [*root.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]:
        if str(path.relative_to(root)) not in allowed:
            assert not re.search(r"json\.loads?\(|np\.load\(|torch\.load\(|mmap", path.read_text()), path


def test_a_full_disk_is_an_error_of_the_system(tmp_path, monkeypatch):
    path = tmp_path / "image.pkl"
    save_state(path, {"w": torch.zeros(3)})

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("builtins.open", lambda name, mode: Full(name, mode))
    with pytest.raises(OSError, match="No space left on device"):
        save_state(path, {"w": torch.ones(3)})
    monkeypatch.undo()
    assert torch.equal(load_state(path)[0]["w"], torch.zeros(3))
    assert [p.name for p in tmp_path.iterdir()] == ["image.pkl"]


@pytest.mark.parametrize(
    ("saved", "parts"),
    [
        (
            ImageLeNet(channels=8),
            ["holds conv1.weight of shape (8, 1, 5, 5) where the network has (3, 1, 5, 5)", "--channels"],
        ),
        (AudioLeNet(), ["holds bn4.bias, which the network lacks", "(0 missing, 12 unexpected, 1 of another shape)"]),
        (torch.nn.Linear(2, 2), ["lacks bn1.bias", "holds bias, which the network lacks"]),
    ],
    ids=["other channels", "other network", "foreign"],
)
def test_a_checkpoint_that_does_not_fit_names_the_first_difference(tmp_path, saved, parts):
    path, network = tmp_path / "other.pkl", ImageLeNet()
    before = network.conv1.weight.clone()
    save_state(path, saved.state_dict())
    message = refused(path, lambda p: load_into(network, p))
    assert "does not fit this ImageLeNet" in message
    for part in parts:
        assert part in message
    assert torch.equal(network.conv1.weight, before)


def test_the_checkpoint_of_a_folder(tmp_path):
    """The one that is named, else the published one, else the only one; with and without the suffix."""

    def find(named="", published="rgb_8frames_83.91"):
        return find_checkpoint(tmp_path, named, "rgb_cp", "rgb", 8, published)

    with pytest.raises(UsageError, match=r"holds no rgb_8frames_\*\.checkpoint; train one with train_rgb_ntu\.py"):
        find()
    for name in ("rgb_8frames_70.00.checkpoint", "rgb_8frames_best", "rgb_16frames_90.00.checkpoint", "other"):
        (tmp_path / name).touch()
    assert find().name == "rgb_8frames_70.00.checkpoint"
    (tmp_path / "rgb_8frames_71.50").touch()
    with pytest.raises(UsageError, match=r"70\.00\.checkpoint, rgb_8frames_71\.50; name one with --rgb_cp"):
        find()
    assert find("other.checkpoint").name == "other"
    assert find("rgb_8frames_70.00").name == "rgb_8frames_70.00.checkpoint"
    assert find("none").name == "none"  # reading it reports that it does not exist
    with pytest.raises(UsageError, match="holds several"):
        find(published="rgb_16frames_90.00")  # of other frames
    (tmp_path / "rgb_8frames_83.91.checkpoint").touch()
    assert find().name == "rgb_8frames_83.91.checkpoint"


# Whole files


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()], ids=repr)
def test_an_interrupted_file_leaves_the_old_one_and_nothing_else(tmp_path, error):
    path = tmp_path / "results.json"

    def write():
        with whole_file(path) as file:
            file.write(b"half of i")
            raise error

    with pytest.raises(type(error)):
        write()
    assert list(tmp_path.iterdir()) == []
    write_json(path, {"a": 1})
    with pytest.raises(type(error)):
        write()
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
    assert read_json(path) == {"a": 1}


def test_a_whole_file_replaces_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    with whole_file(path) as file:
        file.write(b"first")
        assert not path.exists()
    with whole_file(path) as file:
        file.write(b"second")
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second"
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(("content", "message"), [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (None, "not exist")])
def test_json_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_bytes(content)
    assert message in refused(path, read_json)


def test_the_journal_is_on_disk_line_by_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"seed": 3}) as journal:
        journal.append("candidate", {"configuration": ((1, 2, 0),), "predicted": None})
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [
        {"kind": "header", "format": FORMAT, "seed": 3},
        {"kind": "candidate", "configuration": [[1, 2, 0]], "predicted": None},
    ]


CONFIGURATION = [[3, 1, 1], [1, 3, 0], [1, 1, 1], [3, 3, 0]]
WIDTHS = ((128, 256, 1024, 512), (512, 1024, 2048, 2048))


@pytest.mark.parametrize(
    ("changed", "flags"),
    [
        ({"inner_size": 128, "batchnorm": True}, ["--inner_representation_size 128", "--batchnorm"]),
        ({"num_outputs": 7}, ["--num_outputs 7"]),
        ({"alphas": True, "dropout": 0.0}, []),  # these change no shape
    ],
)
def test_flags_that_make_a_checkpoint_fit(changed, flags):
    settings = HeadSettings(num_outputs=60, inner_size=256)
    own = FusionHead(CONFIGURATION, WIDTHS, settings)
    other = FusionHead(CONFIGURATION, WIDTHS, dataclasses.replace(settings, **changed))
    assert flags_that_fit(own, other.state_dict()) == flags
    assert flags_that_fit(other, other.state_dict()) == []


def test_flags_of_another_configuration_and_of_other_networks():
    settings = HeadSettings(num_outputs=10, batchnorm=True)
    own = AudioImageNetwork([[0, 0, 0], [1, 1, 0]], settings)
    (flag,) = flags_that_fit(own, AudioImageNetwork([[0, 0, 0], [1, 2, 0]], settings).state_dict())
    assert flag == "a --conf of 2 layers that read 6, 18 features, not 2 layers that read 6, 12"
    wider = AudioImageNetwork([[0, 0, 0], [1, 1, 0]], dataclasses.replace(settings, batchnorm=False), channels=6)
    assert flags_that_fit(own, wider.state_dict()) == ["--channels 6", "no --batchnorm"]
    assert flags_that_fit(ImageLeNet(3), ImageLeNet(4).state_dict()) == ["--channels 4"]
    vectors = {name: value.flatten() for name, value in wider.state_dict().items()}
    assert flags_that_fit(own, vectors) == []
    assert flags_that_fit(SkeletonNet(60), SkeletonNet(60, 16).state_dict()) == ["--vid_len 8 16"]


def test_one_process_at_a_time_works_in_a_folder(tmp_path):
    busy = pytest.raises(LockedError, match=rf"^this process is already working in {tmp_path}/run")
    with locked(tmp_path / "run"), busy, locked(tmp_path / "run"):
        pass
    with locked(tmp_path / "run"):
        pass


def test_a_data_error_names_the_file_of_the_best_network(tmp_path):
    path = tmp_path / "best.checkpoint"
    for there in (False, True):
        with pytest.raises(DataError) as caught, names_file(path):
            raise DataError("a file is damaged")
        assert (str(path) in str(caught.value)) == there
        path.touch()
