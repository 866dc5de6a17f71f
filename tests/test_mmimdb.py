"""MM-IMDB, from a file of the published layout to a found network."""

import csv
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torchvision.models import vgg19

from datasets.features import load_features
from datasets.mmimdb.load import PIXEL_MEANS, SPLITS, load_mmimdb
from models.maxout import MaxoutMLP
from tests.mmimdb_samples import COUNTS, GENRES, write_mmimdb
from utils.errors import DataError, UsageError

TRAINED = ("--epochs", 12, "--batchsize", 32, "--lr", 0.003, "--no-verbose")
TOGETHER = pytest.mark.xdist_group("mmimdb")  # one process builds what the tests share


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mmimdb")
    write_mmimdb(folder / "multimodal_imdb.hdf5", images=False)
    return folder


@pytest.fixture(scope="module")
def run(home, script_runner):
    return lambda script, *args, code=0: script_runner(home, script, *args, code=code)


@pytest.fixture(scope="module")
def prepared(home, run) -> str:
    """The folder data/mmimdb, which is the default; what was printed comes back."""
    return run("datasets.mmimdb", "--hdf5", "multimodal_imdb.hdf5", *TRAINED).stdout


@TOGETHER
def test_features_of_both_networks_are_written(prepared, home):
    data = load_features(home / "data/mmimdb", tuple(COUNTS), {})
    assert data.multi_label
    assert data.modalities == ("text", "image")
    assert data.widths == ((64, 128), (256, 512))
    assert data.class_names == GENRES
    with h5py.File(home / "multimodal_imdb.hdf5") as file:
        genres = file["genres"][...]
    np.testing.assert_array_equal(np.concatenate([data.labels[split] for split in COUNTS]), genres)
    assert {split: len(rows) for split, rows in data.rows.items()} == COUNTS


@TOGETHER
def test_figures_are_those_of_the_logits_in_the_best_dev_epoch(prepared, home):
    recorded = read(home / "data/mmimdb/networks.json")
    assert recorded["inputs"] == {"text": "features", "image": "vgg_features"}
    for name, figures in recorded["networks"].items():
        for split in ("dev", "test"):
            arrays = np.load(home / f"data/mmimdb/{split}.npz")
            chosen = 1 / (1 + np.exp(-arrays[f"{name}.logits"])) > 0.3
            for average, value in figures[split].items():
                expected = f1_score(arrays["label"], chosen, average=average, zero_division=0)
                assert value == pytest.approx(expected, abs=1e-6)
        reached = figures["dev_weighted_f1"]
        assert figures["dev"]["weighted"] == pytest.approx(max(reached), abs=1e-6)
        assert reached[figures["best_epoch"]] == max(reached)
        assert f"{name} network, weighted F1 at 0.3: dev {100 * max(reached):.2f} %" in prepared


@TOGETHER
@pytest.mark.trained
def test_both_networks_learn(prepared, home):
    always = np.load(home / "data/mmimdb/test.npz")["label"].mean(axis=0)  # F1 of predicting every genre always
    chance = float((2 * always / (1 + always) * always).sum() / always.sum())
    for figures in read(home / "data/mmimdb/networks.json")["networks"].values():
        # Over five seeds, text 0.77 to 0.78 and image 0.73 to 0.77; predicting every genre reaches 0.54.
        assert figures["test"]["weighted"] > chance + 0.05


@TOGETHER
@pytest.mark.slow
def test_a_search_finds_a_network_at_the_threshold(prepared, home, run):
    data = ("--datadir", "data/mmimdb", "--threshold", 0.3, "--no-verbose")
    once = ("--epochs", 3, "--max_fusions", 2, "--search_iterations", 1, "--num_samples", 3)
    run("main_searchable_features.py", *data, *once, "--run_dir", "runs/search")
    best = read(home / "runs/search/best.json")
    dev = {row["name"]: row["dev"] for row in best["baselines"]}
    for name, figures in read(home / "data/mmimdb/networks.json")["networks"].items():
        assert dev[f"{name} only"] == pytest.approx(figures["dev"]["weighted"], abs=1e-6)
    run("main_found_features.py", *data, "--conf", "runs/search/best.json", "--epochs", 10, "--run_dir", "runs/found")
    results = read(home / "runs/found/results.json")
    assert results["f1"].keys() == {"weighted", "macro", "samples"}
    rows = {row["name"]: row["test"] for row in results["rows"]}
    assert rows["found network"] == pytest.approx(results["f1"]["weighted"], abs=1e-6)
    assert "late fusion, mean of sigmoid" in rows
    with open(home / "runs/found/predictions.csv") as file:
        assert set(GENRES) >= {name for line in csv.DictReader(file) for name in line["label"].split(";")} - {""}


@TOGETHER
def test_wrong_use_is_told_in_one_line(home, run):
    name = ("--hdf5", "multimodal_imdb.hdf5")
    assert "--images and --vgg_weights go together" in run("datasets.mmimdb", *name, "--images", code=2).stderr
    error = run("datasets.mmimdb", *name, "--batchsize", 239, code=2).stderr
    assert error == "error: --batchsize 239 leaves one of 240 films over; use another\n"
    error = run("datasets.mmimdb", "--hdf5", "none.hdf5", code=2).stderr
    assert error.startswith("error: none.hdf5 does not exist; docs/mmimdb.md says")
    torch.save({"features.0.weight": torch.zeros(3)}, home / "vgg.pth")
    flags = ("--images", "--vgg_weights", "vgg.pth")
    error = run("datasets.mmimdb", *name, *flags, code=2).stderr
    assert error.startswith("error: vgg.pth does not fit")


@pytest.mark.slow
def test_posters_go_through_vgg19_once(run_script, tmp_path):
    counts = {"train": 9, "dev": 5, "test": 4}
    write_mmimdb(tmp_path / "small.hdf5", counts)
    torch.manual_seed(0)
    with torch.device("meta"):
        network = vgg19().features
    network = network.to_empty(device="cpu")
    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    torch.save({f"features.{name}": value for name, value in network.state_dict().items()}, tmp_path / "vgg19.pth")
    command = ("datasets.mmimdb", "--hdf5", "small.hdf5", "--datadir", "D", "--images", "--vgg_weights", "vgg19.pth")
    run_script(*command, "--epochs", 1, "--no-verbose")
    data = load_features(tmp_path / "D", tuple(counts), {})
    assert data.widths == ((64, 128), (512, 512, 512, 512))

    with h5py.File(tmp_path / "small.hdf5") as file:  # of the first film of dev, by hand
        x = torch.from_numpy(file["images"][9:10]).float()
    x = (x + torch.tensor(PIXEL_MEANS)[:, None, None])[:, [2, 1, 0]] / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = []
    with torch.no_grad():
        for place, layer in enumerate(network):
            x = layer(x)
            if place in (20, 26, 33, 36):
                expected.append(x.mean((2, 3)))
    start = sum(data.widths[0])
    found = torch.from_numpy(data.rows["dev"][:1, start : start + 2048])
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-3, atol=1e-4)

    tables = {path: path.stat().st_mtime_ns for path in (tmp_path / "D").glob("vgg19-*.npy")}
    assert len(tables) == 3
    run_script(*command, "--epochs", 2, "--no-verbose")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "D").glob("vgg19-*.npy")} == tables


def test_maxout_is_the_largest_of_five_linear_functions():
    torch.manual_seed(0)
    network = MaxoutMLP(7, 3, hidden=4).eval()
    x = torch.randn(6, 7)
    (first, second), logits = network.pooled(x)
    assert (first.shape, second.shape, logits.shape) == ((6, 4), (6, 8), (6, 3))
    linear = network.maxout1.linear
    each = (network.norm(x) @ linear.weight.T + linear.bias).view(6, 4, 5)
    torch.testing.assert_close(first, each.max(dim=2).values)


# The file


def changed(path: Path, change) -> Path:
    write_mmimdb(path, {"train": 9, "dev": 5, "test": 4}, images=False)
    with h5py.File(path, "a") as file:
        change(file)
    return path


def test_the_published_rows_are_the_default(tmp_path):
    assert {name: span.stop - span.start for name, span in SPLITS.items()} == {
        "train": 15552,
        "dev": 2608,
        "test": 7799,
    }
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file["genres"] = np.eye(23, dtype=np.int32)[np.arange(25_959) % 23]
    data = load_mmimdb(tmp_path / "x.hdf5")
    assert (data.spans, data.genres) == (SPLITS, None)
    assert data.labels["test"].argmax(1).tolist() == [row % 23 for row in range(18_160, 25_959)]


def test_posters_come_back_red_first(tmp_path):
    path = write_mmimdb(tmp_path / "x.hdf5", {"train": 3, "dev": 2, "test": 1})
    with h5py.File(path) as file:
        stored = file["images"][:3].astype(np.float32)
    whole = np.concatenate(list(load_mmimdb(path).posters("train", 2)))
    assert whole.shape == (3, 3, 256, 160)
    for colour, mean in zip((2, 1, 0), PIXEL_MEANS, strict=True):
        np.testing.assert_allclose(whole[:, colour], stored[:, 2 - colour] + mean, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.__delitem__("genres"), r"must hold numbers genres \(N, C\), but holds none"),
        (lambda file: file["genres"].__setitem__((0, 0), 2), "genres must be 0 or 1, but range from 0 to 2"),
        (
            lambda file: file.attrs.__delitem__("split"),
            "must follow each other in all 18 rows, but are train 0 to 15552",
        ),
        (lambda file: file.attrs.__setitem__("split", "x"), "the attribute split must list the rows"),
        (lambda file: file["genres"].attrs.__setitem__("target_names", "[1]"), "must be a JSON list of 6 names"),
    ],
)
def test_other_layouts_are_refused(tmp_path, change, said):
    with pytest.raises(DataError, match=rf"x\.hdf5.*{said}"):
        load_mmimdb(changed(tmp_path / "x.hdf5", change))


def test_missing_and_misshapen_tables_are_refused(tmp_path):
    path = changed(tmp_path / "x.hdf5", lambda file: file.__delitem__("features"))
    with pytest.raises(DataError, match=r"must hold numbers features \(18, 300\), but holds none"):
        load_mmimdb(path).table("features")
    with h5py.File(path, "a") as file:
        file["features"] = np.zeros((18, 30), np.float32)
        file["images"] = np.zeros((18, 3, 256, 160), np.uint8)
    with pytest.raises(DataError, match=r"but holds float32 \(18, 30\)"):
        load_mmimdb(path).table("features")
    with pytest.raises(DataError, match="blue first and without their mean"):
        next(load_mmimdb(path).posters("train", 4))


def test_numbers_that_are_not_finite_become_0(tmp_path, capsys):
    path = changed(tmp_path / "x.hdf5", lambda file: file["features"].__setitem__((3, 7), np.nan))
    assert load_mmimdb(path).table("features")["train"][3, 7] == 0
    assert "1 rows of features have numbers that are not finite" in capsys.readouterr().err


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_damaged_files_are_refused(tmp_path, keep):
    path = changed(tmp_path / "x.hdf5", lambda file: None)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(DataError, match=r"x\.hdf5 is not a complete HDF5 file") as error:
        load_mmimdb(path).table("features")
    assert "\n" not in str(error.value)


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match="needs the package h5py: pip install h5py"):
        load_mmimdb(tmp_path / "x.hdf5")
