"""The NTU scripts chained through their command lines on small videos and skeletons whose motion tells the class."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from models.fusion import HeadSettings, SkeletonRGBNetwork
from tests.ntu_samples import cut, write_pickle, write_samples
from utils.training.checkpoints import save_state

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ntu")]  # one process builds what the tests share

SMALL = ("--num_outputs", 2, "--vid_dim", 32, "--num_workers", 0)
CHANCE = 1 / 2


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ntu")


@pytest.fixture(scope="module")
def run(home, script_runner):
    """Run a script in the shared folder, where data/ntu and checkpoints/ntu are the default places."""
    return lambda script, *args, code=0: script_runner(home, script, *args, code=code)


@pytest.fixture(scope="module")
def samples(home):
    """Videos of 256x256, and the same made small, as a user would prepare them."""
    subjects = {"train": 6, "dev": 4, "test": 4}
    return write_samples(home / "data/ntu", classes=2, subjects=subjects, repeats=3, colored=True)


@pytest.fixture(scope="module")
def data(home, run, samples) -> Path:
    originals = home / "data/ntu/nturgbd_rgb/avi_256x256_30"
    run("datasets.ntu_prepare", "--rgb_dir", originals, "--vid_dim", 32, "--no-verbose", "--num_workers", 1)
    return home / "data/ntu"


@pytest.fixture(scope="module")
def checkpoints(home, run, data) -> Path:
    training = {"skeleton": (6, 8, 1e-3), "rgb": (5, 4, 5e-4)}
    for kind, (epochs, batch, rate) in training.items():
        flags = ("--epochs", epochs, "--batchsize", batch, "--lr", rate, "--run_dir", f"runs/{kind}", "--no-verbose")
        run(f"train_{kind}_ntu.py", *SMALL, *flags)
    return home / "checkpoints/ntu"


SEARCH = ("--num_samples", 3, "--max_fusions", 2, "--search_iterations", 1, "--epochs", 2)


@pytest.fixture(scope="module")
def search(home, run, checkpoints) -> Path:
    run("main_searchable_ntu.py", *SMALL, *SEARCH, "--run_dir", "runs/search", "--no-verbose")
    return home / "runs/search"


@pytest.mark.parametrize(("kind", "frames"), [("skeleton", 32), ("rgb", 8)])
def test_training_reaches_far_above_chance(checkpoints, home, kind, frames):
    (path,) = checkpoints.glob(f"{kind}_*.checkpoint")
    record = read(home / f"runs/{kind}/results.json")
    assert path.name == f"{kind}_{frames}frames_{100 * record['test_accuracy']:.2f}.checkpoint"
    assert read(path.with_suffix(".json")) == record
    # Over five seeds the skeleton network reached 1.00 each time, the RGB network 0.94 (standard deviation 0.04, at
    # least 0.92).
    assert record["test_accuracy"] > CHANCE + 0.2
    assert record["dev_accuracy"] == max(epoch["dev_accuracy"] for epoch in record["epochs"])


def test_search_reads_one_table_for_each_pass_and_repeats(search, home, run):
    (bank,) = (home / "checkpoints/ntu/feature_bank").iterdir()
    names = {path.name for path in bank.iterdir()}
    tables = {f"{table}.{kind}" for table in ("dev", "train-0", "train-1") for kind in ("npy", "sha256")}
    assert names == {".lock", "bank.json", "seconds.json", *tables}
    assert (bank / "train-0.npy").read_bytes() != (bank / "train-1.npy").read_bytes()  # each has its own crops
    assert read(bank / "bank.json")["counts"] == {"train": 18, "dev": 24}  # half of the training subjects
    best = read(search / "best.json")
    assert best["modalities"] == ["skeleton", "rgb"]
    assert best["sizes"] == [4, 4]
    assert best["candidates_trained"] == 32 + 3
    again = run("main_searchable_ntu.py", *SMALL, *SEARCH, "--run_dir", "runs/again")
    assert "84 samples; left out: 1 without RGB, 1 without skeleton" in again.stdout
    assert "reused" in again.stdout
    assert read(home / "runs/again/best.json")["configurations"] == best["configurations"]


def test_live_search(checkpoints, home, run):
    flags = ("--features", "live", "--randsearch", "--epochs", 1, "--max_fusions", 1, "--search_iterations", 1)
    few = ("--limit_train", 4, "--limit_dev", 3, "--use_dataparallel", "--weightsharing")
    run("main_searchable_ntu.py", *SMALL, *flags, *few, "--run_dir", "runs/live", "--no-verbose")
    assert read(home / "runs/live/best.json")["candidates_trained"] == 32


def test_found_network_is_trained_tested_and_saved(search, home, run):
    few = ("--limit_train", 10, "--limit_dev", 8)
    flags = ("--conf", "runs/search/best.json", "--epochs", 1, "--inner_representation_size", 32, *few)
    done = run("main_found_ntu.py", *SMALL, *flags, "--run_dir", "runs/found", "--no-verbose")
    results = read(home / "runs/found/results.json")
    assert [row["name"] for row in results["rows"]] == [
        "skeleton only",
        "rgb only",
        "late fusion, mean of softmax",
        "late fusion, sum of log-softmax",
        "last features joined",
        "random configuration",
        "late fusion, fine-tuned",
        "logistic regression, log-probabilities",
        "logistic regression, last features",
        "found network",
    ]
    assert results["head"]["multitask"]  # the default of NTU
    test = results["rows"][-1]["test"]
    assert test > CHANCE + 0.25  # 1.00 with each of three seeds: the skeleton network alone tells the classes apart
    assert [epoch["phase"] for epoch in results["epochs"]] == ["central", "all"]
    path = Path(results["checkpoint"])
    assert path.name.endswith(f"_{test:.4f}.checkpoint")
    assert str(path) in done.stdout

    flags = ("--conf", "runs/search/best.json", "--inner_representation_size", 32, "--test_cp", path.name)
    run("main_found_ntu.py", *SMALL, *flags, "--run_dir", "runs/tested", "--no-verbose")
    (row,) = read(home / "runs/tested/results.json")["rows"]
    assert row["test"] == test
    assert row["dev"] is None  # only the test split is read


def test_skeletons_of_a_pickle_lead_to_a_found_network(checkpoints, home, run):
    (home / "pickled").mkdir()
    (home / "pickled/nturgbd_rgb").symlink_to(home / "data/ntu/nturgbd_rgb")
    write_pickle(home / "data/ntu", home / "ntu60_3danno.pkl")
    data = ("--datadir", "pickled")
    run("datasets.ntu_prepare", "--skeleton_pickle", "ntu60_3danno.pkl", *data)
    few = ("--limit_train", 6, "--limit_dev", 6, "--epochs", 1, "--no-verbose")
    once = ("--max_fusions", 1, "--search_iterations", 1)
    run("main_searchable_ntu.py", *SMALL, *data, *few, *once, "--run_dir", "runs/pickled-search")
    flags = ("--conf", "runs/pickled-search/best.json", "--inner_representation_size", 32, "--no-baselines")
    run("main_found_ntu.py", *SMALL, *data, *few, *flags, "--limit_test", 12, "--run_dir", "runs/pickled-found")
    rows = {row["name"]: row["test"] for row in read(home / "runs/pickled-found/results.json")["rows"]}
    assert rows["skeleton only"] > CHANCE + 0.2  # the network was trained on the text files


PUBLISHED = {
    "best_3_1_1_1_3_0_1_1_1_3_3_0_0.9134.checkpoint": (
        ("--conf", 4, "--inner_representation_size", 128, "--batchnorm"),
        [[3, 1, 1], [1, 3, 0], [1, 1, 1], [3, 3, 0]],
        HeadSettings(60, 128, batchnorm=True),
    ),
    "conf_[[3_0_0]_[1_3_0]_[1_1_1]_[3_3_0]]_both_0.896888457572633.checkpoint": (
        (),
        [[3, 0, 0], [1, 3, 0], [1, 1, 1], [3, 3, 0]],
        HeadSettings(60, 256),
    ),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Four test samples of 256x256, two of each class, and checkpoints under the published names that answer A002."""
    folder = tmp_path_factory.mktemp("published")
    write_samples(folder / "D", classes=2, subjects={"train": 0, "dev": 0, "test": 2}, halves=False)
    for name, (_, configuration, settings) in PUBLISHED.items():
        torch.manual_seed(0)
        network = SkeletonRGBNetwork(configuration, settings)
        network.central_classifier.bias.data[1] = 1e4
        state = network.state_dict()
        if settings.batchnorm:  # as DataParallel saves it
            state = {f"module.{key}": value for key, value in state.items()}
        save_state(folder / "C" / name, state)
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_commands(published, script_runner, name):
    flags, configuration, _ = PUBLISHED[name]
    command = ("main_found_ntu.py", "--datadir", "D", "--checkpointdir", "C", "--use_dataparallel", "--test_cp", name)
    done = script_runner(published, *command, *flags)
    (run_dir,) = (published / "runs").iterdir()
    results = read(run_dir / "results.json")
    shutil.rmtree(run_dir)
    assert results["configuration"] == configuration
    assert results["rows"][-1]["test"] == 0.5
    assert f"checkpoint: C/{name}" in done.stdout


def test_a_checkpoint_that_does_not_fit_names_the_flags(published, script_runner):
    name = next(iter(PUBLISHED))
    command = ("main_found_ntu.py", "--datadir", "D", "--checkpointdir", "C", "--test_cp", name, "--conf", 4)
    error = script_runner(published, *command, code=2).stderr
    assert "it was trained with --inner_representation_size 128, --batchnorm" in error
    assert len(error.splitlines()) == 1


@pytest.fixture
def damaged(tmp_path) -> dict[str, str]:
    """By half, the name of a training sample that is damaged in a small data set, data/ntu of the test's folder."""
    written = write_samples(tmp_path / "data/ntu", classes=2, vid_dim=32, halves=False, truncated=True)
    return {"rgb": written.cut_rgb[0], "skeleton": written.cut_skeleton[0]}


def skipping(run: str) -> tuple:
    return (*SMALL[:-1], 2, "--skip_bad_samples", "--run_dir", f"runs/{run}")


@pytest.mark.parametrize("half", ["rgb", "skeleton"])
def test_training_leaves_out_what_is_damaged_in_its_modality(damaged, run_script, tmp_path, half):
    one = ("--epochs", 1, "--batchsize", 6, "--no-verbose")
    done = run_script(f"train_{half}_ntu.py", *skipping(half), *one)
    assert done.stderr.startswith("skipped 1 damaged of 14 samples:\n  data/ntu/nturgbd_")
    assert damaged[half] in done.stderr
    skipped = read(tmp_path / f"runs/{half}/results.json")["skipped_samples"]
    assert skipped.keys() == {damaged[half]}
    assert skipped[damaged[half]] in done.stderr

    done = run_script(f"train_{half}_ntu.py", *SMALL, *one, "--run_dir", "runs/strict", code=2)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert damaged[half] in error
    assert "--skip_bad_samples" in error


def test_search_leaves_out_what_is_damaged(damaged, checkpoints, run_script, tmp_path):
    (tmp_path / "C").mkdir()
    for path in checkpoints.glob("*.checkpoint"):
        (tmp_path / "C" / path.name).symlink_to(path)
    few = ("--max_fusions", 1, "--search_iterations", 1, "--epochs", 1, "--limit_dev", 1, "--no-verbose")
    done = run_script("main_searchable_ntu.py", *skipping("search"), *few, "--checkpointdir", "C")
    assert "skipped 2 damaged of 5 samples:" in done.stderr  # one of the two subjects is in trainexp
    assert all(name in done.stderr for name in damaged.values())
    (bank,) = (tmp_path / "C/feature_bank").glob("*/bank.json")
    assert read(bank)["counts"] == {"train": 2, "dev": 1}


def test_found_leaves_out_what_is_damaged(damaged, published, run_script, tmp_path):
    (tmp_path / "data/ntu/nturgbd_skeletons/S001C001P003R001A001.skeleton").write_text("1\n")
    name = next(iter(PUBLISHED))
    tested = ("--checkpointdir", published / "C", "--test_cp", name, *PUBLISHED[name][0], "--num_outputs", 60)
    done = run_script("main_found_ntu.py", *skipping("tested"), *tested, "--no-verbose")
    assert "skipped 1 damaged of 4 samples:" in done.stderr
    results = read(tmp_path / "runs/tested/results.json")
    assert results["skipped_samples"].keys() == {"S001C001P003R001A001"}
    assert sum(map(sum, results["confusion"])) == 3


def test_nothing_left_is_an_error(damaged, run_script, tmp_path):
    texts = list((tmp_path / "data/ntu/nturgbd_skeletons").glob("*P00[25]*"))
    for path in texts:
        cut(path)
    done = run_script("train_skeleton_ntu.py", *skipping("none"), "--no_bad_skel", code=2)
    assert done.stdout.startswith("data/ntu: 14 samples\n")
    assert "skipped 5 damaged of 14 samples" in done.stderr
    assert "error: data/ntu: the dev split is empty: all its 4 samples are damaged" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_wrong_use_is_told_in_one_line(home, run, samples, tmp_path):
    error = run("main_found_ntu.py", "--datadir", tmp_path, code=2).stderr
    assert "no sample has both" in error
    error = run("main_found_ntu.py", "--checkpointdir", tmp_path, code=2).stderr
    assert "holds no skeleton_32frames_*.checkpoint; train one with train_skeleton_ntu.py" in error
    for accuracy in ("80.00", "85.24"):
        (tmp_path / f"skeleton_32frames_{accuracy}.checkpoint").touch()
    error = run("main_searchable_ntu.py", "--checkpointdir", tmp_path, code=2).stderr
    assert "skeleton_32frames_80.00.checkpoint, skeleton_32frames_85.24.checkpoint; name one with --ske_cp" in error
    for script, accuracy in (("main_found_ntu.py", "85.24"), ("main_searchable_ntu.py", "83.42")):
        published = tmp_path / f"skeleton_32frames_{accuracy}"  # without its suffix, as the published search has it
        published.touch()
        error = run(script, "--checkpointdir", tmp_path, code=2).stderr
        assert "holds no rgb_8frames_*.checkpoint" in error  # the published default is taken among several
    error = run("train_skeleton_ntu.py", "--vid_len", 8, 4, code=2).stderr
    assert "at least 8 frames" in error
    error = run("train_skeleton_ntu.py", "--num_outputs", 1, code=2).stderr
    assert "is of class 2" in error


def test_a_search_of_other_modalities_is_refused(home, run, samples, tmp_path):
    best = {"modalities": ["audio", "image"], "configurations": [{"configuration": [[3, 2, 0]], "accuracy": 0.9}]}
    (tmp_path / "best.json").write_text(json.dumps(best))
    error = run("main_found_ntu.py", "--conf", tmp_path / "best.json", code=2).stderr
    assert "is from a search over ['audio', 'image'], but this script fuses ['skeleton', 'rgb']" in error
