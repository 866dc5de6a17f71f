"""Which copy of AV-MNIST a folder holds, as the command reports it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("check")]  # one process builds what the tests share


@pytest.fixture(scope="module")
def check(script_runner, tmp_path_factory):
    home = tmp_path_factory.mktemp("check")

    def run(datadir: Path, code: int = 0) -> dict[str, str]:
        """Lines of the report by what they begin with; the first is the folder's."""
        done = script_runner(home, "datasets.avmnist_check", datadir, code=code)
        if code:
            return {"error": done.stderr}
        first, *lines = done.stdout.splitlines()
        return {"": first, **dict(re.match(r"([\w ]+): (.*)", line).groups() for line in lines)}

    return run


@pytest.fixture(scope="module")
def stand_in(script_runner, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stand_in")
    script_runner(folder, "avmnist_gen.py", "--source", "embedded", "--no-verbose")
    return folder / "data/avmnist"


def change(path: Path, function) -> None:
    np.save(path, function(np.load(path)))


@pytest.fixture
def copied(stand_in, tmp_path) -> Path:
    """The stand-in as other programs write it: without a manifest, for a test to change."""
    shutil.copytree(stand_in, tmp_path / "D")
    (tmp_path / "D/manifest.json").unlink()
    return tmp_path / "D"


@pytest.mark.parametrize(("preset", "components"), [("paper", 5), ("multibench", 4), ("fork", 3)])
def test_presets_are_recognized(real_data, script_runner, tmp_path, check, preset, components):
    sources = ("--mnist_dir", real_data / "mnist", "--fsdd_dir", real_data / "fsdd", "--esc50_dir", real_data / "esc50")
    few = ("--limit_train", 12_000, "--limit_test", 2000, "--seed", 3)
    script_runner(tmp_path, "avmnist_gen.py", *sources, "--preset", preset, *few, "--no-verbose")
    report = check(tmp_path / "data/avmnist")
    assert report["image components"].startswith(f"{components} (")
    assert report["labels aligned"].startswith("yes (")
    assert report["preset"] == preset


def test_the_stand_in_is_named(stand_in, check):
    report = check(stand_in)
    assert report[""].endswith("images float32 in image/; the embedded stand-in, not AV-MNIST")
    assert report["image components"].startswith("3 (")


def test_a_mixture_is_no_preset(copied, check):
    report = check(copied)
    assert "6,000 train and 1,000 test samples" in report[""]
    assert "stand-in" not in report[""]
    assert report["labels aligned"].startswith("yes (")
    assert report["preset"].startswith("none; images of preset fork, noise of ")


def test_the_folder_of_the_mfas_authors_and_other_types_are_read(copied, check):
    (copied / "image").rename(copied / "images")
    change(copied / "images/train_data.npy", lambda x: x.astype(np.float64) / 255)
    change(copied / "images/test_data.npy", lambda x: x.astype(np.float64) / 255)
    report = check(copied)
    assert report[""].endswith("images float64 in images/")
    assert report["image components"].startswith("3 (")


def test_the_folder_of_the_mfas_authors_leads_to_a_found_network(copied, run_script, tmp_path):
    (copied / "image").rename(copied / "images")
    data = ("--datadir", "D", "--checkpointdir", "C", "--limit_train", 500, "--dev_samples", 500, "--no-verbose")
    for network in ("image", "audio"):
        run_script(f"train_{network}.py", *data, "--epochs", 1, "--run_dir", f"runs/{network}")
    once = ("--epochs", 1, "--max_fusions", 1, "--search_iterations", 1)
    run_script("main_searchable_avmnist.py", *data, *once, "--run_dir", "runs/search")
    flags = ("--conf", "runs/search/best.json", "--epochs", 1, "--no-baselines", "--run_dir", "runs/found")
    run_script("main_found_avmnist.py", *data, *flags)
    results = json.loads((tmp_path / "runs/found/results.json").read_text())
    assert results["rows"][-1]["name"] == "found network"


@pytest.mark.parametrize(
    ("file", "said", "preset"),
    [
        (
            "audio/train_data.npy",
            "no: spectrograms do not",
            "images of preset fork; noise cannot be measured without labels",
        ),
        ("image/train_data.npy", "no: images do not", "none; images of preset fork"),
        ("train_labels.npy", "no: images and spectrograms do not", "images of preset fork; noise cannot be measured"),
    ],
)
def test_shuffled_samples_are_reported(copied, check, file, said, preset):
    """As by the published generator, whose processes shuffled labels and spectrograms."""
    change(copied / file, np.random.default_rng(0).permutation)
    report = check(copied)
    assert report["labels aligned"].startswith(said)
    assert report["preset"].startswith(preset)


def test_images_that_were_not_reduced_are_reported(copied, check):
    change(copied / "image/train_data.npy", lambda x: x + np.random.default_rng(0).normal(size=x.shape).astype("f4"))
    report = check(copied)
    assert report["image components"].startswith("784 (")
    assert report["preset"].startswith("none; images of no preset")


def test_what_cannot_be_checked_is_told_in_one_line(copied, check, tmp_path):
    for file in ("image/test_data.npy", "audio/test_data.npy", "test_labels.npy"):
        change(copied / file, lambda x: x[:500])
    error = check(copied, code=2)["error"]
    assert error.startswith(f"error: {copied}: the check needs 1,000 training and 1,000 test samples or more")
    (tmp_path / "empty").mkdir()
    assert "train_data.npy is missing" in check(tmp_path / "empty", code=2)["error"]
