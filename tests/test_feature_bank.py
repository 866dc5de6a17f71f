"""The feature bank: what its rows hold, and when it is computed anew."""

import json
import sys

import pytest
import torch

from models.fusion import AudioImageNetwork, FeatureLayout, FusionHead, HeadSettings
from models.lenet import AudioLeNet, ImageLeNet
from utils.candidates import fused
from utils.candidates.feature_bank import open_bank
from utils.candidates.fused.lenet import FusedLeNet, FusedNetwork
from utils.errors import UsageError
from utils.reading import sha256
from utils.training.batches import ArraySplit
from utils.training.devices import threads

CPU = torch.device("cpu")
HEAD = HeadSettings(num_outputs=4, inner_size=5, dropout=0.5)


@pytest.fixture(scope="module")
def splits() -> dict[str, ArraySplit]:
    torch.manual_seed(0)

    def split(count: int) -> ArraySplit:
        images, spectrograms = torch.rand(count, 1, 28, 28), torch.randint(256, (count, 1, 112, 112)).to(torch.uint8)
        return ArraySplit((images, spectrograms), torch.randint(4, (count,)))

    return {"train": split(35), "dev": split(3)}  # train takes two batches


@pytest.fixture(scope="module")
def network() -> AudioImageNetwork:
    torch.manual_seed(1)
    network = AudioImageNetwork([[4, 1, 0], [0, 2, 1]], HEAD, channels=2)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, 0, 1)
    return network


def outputs_of(network, split):
    """Features and logits of all samples in one piece, by the networks themselves."""
    with torch.no_grad():
        return network.eval().unimodal(*(x.float() for x in split.inputs))


def test_rows_hold_the_features_and_logits_of_the_networks(tmp_path, network, splits):
    network.train()
    bank = open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
    assert not bank.reused
    assert bank.layout == FeatureLayout(((2, 4, 8, 16, 32), (2, 4, 8)), 4)
    for name, split in splits.items():
        banked = bank.splits[name] if name == "dev" else bank.splits[name].at_pass(0)
        rows = banked.inputs[0][:]
        assert rows.shape == (len(split), bank.layout.total) == (len(split), 62 + 14 + 2 * 4)
        assert torch.equal(banked.labels, split.labels)
        features, logits = bank.layout.split(rows)
        theirs, their_logits = outputs_of(network, split)
        assert [len(modality) for modality in features] == [5, 3]
        torch.testing.assert_close(features, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits, their_logits, rtol=1e-4, atol=1e-4)


def test_a_head_on_the_bank_tells_what_the_whole_network_tells(tmp_path, network, splits):
    bank = open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
    head = FusionHead(network.configuration, bank.layout.widths, HEAD).eval()
    head.load_state_dict({name: value for name, value in network.state_dict().items() if name in head.state_dict()})
    with torch.no_grad():
        whole = network.eval()(*(x.float() for x in splits["dev"].inputs))
        torch.testing.assert_close(
            head(*bank.layout.split(bank.splits["dev"].inputs[0][:])), whole, rtol=1e-4, atol=1e-4
        )


def test_a_table_that_changed_is_reported_and_extracted_again(tmp_path, network, splits, capsys):
    first = open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
    path = first.folder / "train-0.npy"
    whole = path.read_bytes()
    zeroed = whole[:128] + bytes(len(whole) - 128)
    for damage in (
        lambda: path.write_bytes(zeroed),
        lambda: path.write_bytes(whole[:-4] + b"\0\0\1\0"),
        lambda: path.write_bytes(whole[:-4]),
        lambda: path.write_bytes(b""),
        path.with_suffix(".sha256").unlink,
        lambda: path.with_suffix(".sha256").write_text("no checksum"),
    ):
        damage()
        again = open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
        assert not again.reused
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"warning: {path} is damaged (")
        assert path.read_bytes() == whole
        assert open_bank(tmp_path, network, splits, {}, CPU, verbose=False).reused


def test_a_table_that_changes_while_it_is_in_use_is_an_error(tmp_path, network, splits):
    bank = open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
    path = bank.folder / "train-0.npy"
    path.write_bytes(path.read_bytes()[:-4])  # a map would kill the process here
    for use in (lambda: bank.on(CPU), lambda: bank.on(CPU, 0)["train"].inputs[0][torch.tensor([34])]):
        with pytest.raises((UsageError, OSError), match=r"cut short|was changed while it was in use"):
            use()


def test_a_second_opening_computes_nothing(tmp_path, network, splits):
    first = open_bank(tmp_path, network, splits, {"audio": "aa"}, CPU, verbose=False)
    times = {path: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert {path.name for path in times} == {
        *("train-0.npy", "train-0.sha256", "dev.npy", "dev.sha256", "bank.json", "seconds.json", ".lock")
    }
    first.splits["dev"].inputs[0][:].zero_()  # a copy in memory, the file stays
    second = open_bank(tmp_path, network, splits, {"audio": "aa"}, CPU, verbose=False)
    assert second.reused
    assert second.folder == first.folder
    assert {path: path.stat().st_mtime_ns for path in second.folder.iterdir()} == times
    assert second.splits["dev"].inputs[0][:].any()
    assert json.loads((first.folder / "bank.json").read_text())["audio"] == "aa"
    assert second.seconds == first.seconds > 0


def test_the_seconds_are_those_of_all_that_worked_on_it(tmp_path, network, splits, monkeypatch):
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("utils.candidates.extraction.interrupts.check", stop)
        with pytest.raises(Stopped):
            open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
    (path,) = tmp_path.glob("*/seconds.json")
    path.write_text('{"seconds": 1000}')
    bank = open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
    assert not bank.reused
    assert 1000 < bank.seconds < 2000


def test_whatever_the_features_depend_on_gives_another_folder(tmp_path, network, splits):
    def folder(network=network, splits=splits, **identity):
        bank = open_bank(tmp_path, network, splits, {"audio": "aa", "data": "bb"} | identity, CPU, verbose=False)
        assert not bank.reused
        return bank.folder

    fewer = splits | {"dev": ArraySplit(tuple(x[:2] for x in splits["dev"].inputs), splits["dev"].labels[:2])}
    wider = AudioImageNetwork([[0, 0, 0]], HEAD, channels=1)
    folders = [folder(), folder(audio="cc"), folder(data="cc"), folder(splits=fewer), folder(network=wider)]
    assert len(set(folders)) == 5
    assert all(path.parent == tmp_path for path in folders)


def test_an_unfinished_bank_is_computed_anew(tmp_path, network, splits):
    bank = open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
    for name in ("bank.json", "train-0.npy"):
        (bank.folder / name).unlink()
    again = open_bank(tmp_path, network, splits, {}, CPU, verbose=False)
    assert not again.reused
    assert torch.equal(again.splits["train"].inputs[0][:], bank.splits["train"].inputs[0][:])


def last(split: ArraySplit, count: int) -> ArraySplit:
    return ArraySplit(tuple(x[-count:] for x in split.inputs), split.labels[-count:])


@pytest.mark.trained  # on other kernels, too, though nothing is trained
def test_batches_side_by_side_give_the_same_bank(tmp_path, network):
    torch.manual_seed(3)
    inputs = torch.rand(300, 1, 28, 28), torch.randint(256, (300, 1, 112, 112)).to(torch.uint8)
    split = ArraySplit(inputs, torch.zeros(300, dtype=torch.int64))
    tables = []
    for count in (1, 3):
        with threads(count):
            bank = open_bank(tmp_path / str(count), network, {"train": split, "dev": last(split, 10)}, {}, CPU, False)
        tables.append(bank.splits["train"].at_pass(0).inputs[0][:])
    assert torch.equal(*tables)


def test_sha256(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_sha256_of_a_large_file_reads_blocks_at_equal_distances(tmp_path):
    path, block = tmp_path / "table", bytes(range(256)) * 4096
    path.write_bytes(4 * block + b"end")
    read = {place: sha256(path, most=2 << 20) for place in range(5)}
    for place in range(5):
        path.write_bytes(place * block + block[::-1] + (3 - place) * block + b"end")
        assert (sha256(path, most=2 << 20) != read[place]) == (place in (0, 3))
        assert sha256(path) != sha256(4 * block + b"end")


def test_an_extraction_that_was_cut_off_goes_on_where_it_stopped(tmp_path, network):
    """Cut at any byte: what is kept are whole batches, and the bank ends as one that was never cut."""
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(70, 1, 28, 28, generator=generator)
    spectrograms = torch.randint(256, (70, 1, 112, 112), generator=generator).to(torch.uint8)
    split = ArraySplit((images, spectrograms), torch.zeros(70, dtype=torch.int64))
    splits = {"train": split, "dev": last(split, 10)}
    whole = open_bank(tmp_path / "whole", network, splits, {}, CPU, verbose=False).folder
    table = (whole / "train-0.npy").read_bytes()
    row = 4 * FeatureLayout(((2, 4, 8, 16, 32), (2, 4, 8)), 4).total
    for size in (0, 50, 128, 128 + 31 * row, 128 + 33 * row + 1, len(table)):
        home = tmp_path / f"cut-{size}" / whole.name
        home.mkdir(parents=True)
        (home / "train-0.partial").write_bytes(table[:size])
        bank = open_bank(home.parent, network, splits, {}, CPU, verbose=False)
        assert bank.folder == home
        assert (home / "train-0.npy").read_bytes() == table
        assert {path.name for path in home.iterdir()} == {
            *("train-0.npy", "train-0.sha256", "dev.npy", "dev.sha256", "bank.json", "seconds.json", ".lock")
        }


def test_an_extraction_goes_on_without_computing_what_is_there(tmp_path, network, splits, monkeypatch):
    whole = open_bank(tmp_path / "whole", network, splits, {}, CPU, verbose=False).folder
    computed, compute = [], FusedNetwork.feature_rows
    monkeypatch.setattr(
        FusedNetwork,
        "feature_rows",
        lambda network, *inputs: computed.append(len(inputs[0])) or compute(network, *inputs),
    )
    home = tmp_path / "cut" / whole.name
    home.mkdir(parents=True)
    (home / "train-0.partial").write_bytes((whole / "train-0.npy").read_bytes()[:-1])
    open_bank(home.parent, network, splits, {}, CPU, verbose=False)
    assert sorted(computed) == [3, 3]  # the dev split, and the last batch of the training split


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 27, 29), (5, 8, 35), (4, 112, 112)])
def test_compiled_features_are_those_of_the_networks(channels, height, width):
    """Also with odd rows and columns, which max-pooling drops, and with channels that do not fill a register."""
    torch.manual_seed(0)
    x = torch.randint(256, (6, 1, height, width)).float()
    for network in (ImageLeNet(channels), AudioLeNet(channels))[: 1 if min(height, width) < 32 else 2]:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # statistics of the batches seen, so that no feature is all zeros
                torch.nn.init.uniform_(module.weight, 0.5, 2)
                torch.nn.init.normal_(module.bias)
        network(x)
        features, logits = FusedLeNet(network.eval()).pooled(x)
        with torch.no_grad():
            expected, expected_logits = network.pooled(x)
        assert min(feature.std() for feature in expected) > 0
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)


def test_without_numba_the_networks_themselves_are_used(tmp_path, network, splits, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "numba", None)
    fused.usable.cache_clear()
    plain = open_bank(tmp_path / "plain", network, splits, {}, CPU, verbose=False)
    fused.usable.cache_clear()
    assert capsys.readouterr().err.count("warning: numba cannot be used") == 1
    monkeypatch.undo()
    compiled = open_bank(tmp_path / "compiled", network, splits, {}, CPU, verbose=False)
    torch.testing.assert_close(plain.dev.inputs[0][:], compiled.dev.inputs[0][:], rtol=1e-4, atol=1e-4)
