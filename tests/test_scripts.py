"""The five scripts chained through their command lines on a small embedded data set; asserts on what they wrote."""

import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from models.fusion import AudioImageNetwork, HeadSettings
from tests.conftest import ROOT
from tests.reference import KEYS
from utils.training.checkpoints import save_state

pytestmark = pytest.mark.xdist_group("scripts")  # one process builds what the tests share

SEARCH = ("--epochs", 2, "--num_samples", 4, "--max_fusions", 2, "--search_iterations", 2, "--epochs_surrogate", 5)
TRAININGS = 30 + 3 * 4


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def read_journal(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scripts")


@pytest.fixture(scope="module")
def run(home, script_runner):
    """Run a script in the shared folder, where data/avmnist and checkpoints/avmnist are the default places."""
    return functools.partial(script_runner, home)


@pytest.fixture(scope="module")
def data(home, run) -> Path:
    run("avmnist_gen.py", "--source", "embedded", "--limit_train", 600, "--limit_test", 120, "--no-verbose")
    return home / "data/avmnist"


@pytest.fixture(scope="module")
def checkpoints(home, run, data) -> Path:
    for script in ("train_image.py", "train_audio.py"):
        run(script, "--epochs", 2, "--run_dir", f"runs/{script}", "--no-verbose")
    return home / "checkpoints/avmnist"


@pytest.fixture(scope="module")
def search(home, run, checkpoints) -> Path:
    run("main_searchable_avmnist.py", *SEARCH, "--run_dir", "runs/search", "--no-verbose")
    return home / "runs/search"


def test_training_keeps_the_best_dev_epoch(checkpoints, home):
    for name, keys in (("image", KEYS["lenet_c3"]), ("audio", KEYS["lenet_deeper_c3"])):
        state = torch.load(checkpoints / f"{name}_model.pkl", weights_only=True)
        assert {key: list(value.shape) for key, value in state.items()} == keys
        record = read(checkpoints / f"{name}_model.json")
        assert record == read(home / f"runs/train_{name}.py/results.json")
        epochs = record["epochs"]
        assert [e["epoch"] for e in epochs] == [0, 1]
        assert record["dev_accuracy"] == max(e["dev_accuracy"] for e in epochs)
        assert record["test_accuracy"] == epochs[record["best_epoch"]]["test_accuracy"]
        assert read(home / f"runs/train_{name}.py/args.json")["settings"]["epochs"] == 2


def test_batchnorm_checkpoints_are_tested_whatever_the_training_batches(data, home, run):
    """33 samples in batches of 32 would leave one alone, which batch norm could not train on."""
    head = HeadSettings(num_outputs=10, inner_size=8, batchnorm=True)
    save_state(home / "checkpoints/avmnist/normalised.checkpoint", AudioImageNetwork([(3, 2, 0)], head).state_dict())
    flags = ("--conf", "[[3,2,0]]", "--inner_representation_size", 8, "--batchnorm", "--limit_train", 33)
    run("main_found_avmnist.py", *flags, "--test_cp", "normalised.checkpoint", "--run_dir", "runs/normalised")
    assert 0 <= read(home / "runs/normalised/results.json")["rows"][0]["test"] <= 1
    assert "leave one over" in run("main_found_avmnist.py", *flags, code=2).stderr


def test_search_writes_journal_best_and_report(search):
    header, *lines = read_journal(search)
    assert header == {
        "kind": "header",
        "format": 1,
        "search": "sequential",
        "modalities": ["audio", "image"],
        "sizes": [5, 3],
        "activations": ["relu", "sigmoid"],
    }
    candidates = [line for line in lines if line["kind"] == "candidate"]
    steps = [line for line in lines if line["kind"] == "step"]
    assert [step["candidates"] for step in steps] == [30, 4, 4, 4]
    assert [(step["search_iteration"], step["level"]) for step in steps] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [step["temperature"] for step in steps] == pytest.approx(
        [10, *(0.2 + 9.8 * math.exp(-i * i / 16) for i in (1, 2, 3))]
    )
    assert len({str(c["configuration"]) for c in candidates[:30]}) == 30
    for candidate in candidates:
        assert len(candidate["accuracies"]) == 2
        assert all(0 <= a <= 1 for a in candidate["accuracies"])
        assert (candidate["predicted"] is None) == (candidate["step"] == 0)
    best = read(search / "best.json")
    assert best["candidates_trained"] == len(candidates) == TRAININGS
    assert len(best["configurations"]) == 5
    assert best["configurations"][0]["accuracy"] == max(max(c["accuracies"]) for c in candidates)
    assert sum(best["seconds_by_part"].values()) == pytest.approx(best["seconds"])
    assert "<svg" in (search / "report.html").read_text()


def test_a_finished_training_is_extended(data, home, run):
    """By --resume RUN_DIR --epochs N, to the results of one that had them from the start."""
    small = ("--limit_train", 64, "--limit_dev", 32, "--limit_test", 32, "--checkpointdir", "extended")
    image, whole = (("train_image.py", *small, "--run_dir", f"runs/{name}") for name in ("extended", "at_once"))
    run(*image, "--epochs", 1)
    assert "resuming" in run("train_image.py", "--resume", "runs/extended", "--epochs", 3).stdout
    run(*whole, "--epochs", 3)
    extended, at_once = (read(home / f"runs/{name}/results.json") for name in ("extended", "at_once"))
    assert extended["epochs"] == at_once["epochs"]
    assert [line["epoch"] for line in extended["epochs"]] == [0, 1, 2]
    assert all(line["dev_loss"] > 0 for line in extended["epochs"])
    assert read(home / "runs/extended/args.json")["settings"]["epochs"] == 3
    fewer = run("train_image.py", "--resume", "runs/extended", "--epochs", 2, code=2)
    assert "holds a run with epochs 3, but this command has 2" in fewer.stderr
    run("train_image.py", *small, "--schedule", "onecycle", "--epochs", 1, "--run_dir", "runs/cycle")
    cycle = run("train_image.py", "--resume", "runs/cycle", "--epochs", 3, code=2)
    assert "holds a run with epochs 1, but this command has 3" in cycle.stderr  # the rates would have been others


def test_a_finished_script_prints_the_next_command(data, home, run):
    small = ("--limit_train", 64, "--limit_dev", 32, "--limit_test", 32, "--epochs", 1)
    flags = ("--datadir", data, "--checkpointdir", "chain", "--channels", 2)
    carried = f"--datadir {data} --checkpointdir chain --channels 2"

    def shown(script: str) -> str:
        return f"next: python {os.path.relpath(ROOT / script, home)}"

    image = run("train_image.py", *small, *flags)
    assert image.stdout.splitlines()[-1] == f"{shown('train_audio.py')} {carried}"
    audio = run("train_audio.py", *small, *flags)
    assert audio.stdout.splitlines()[-1] == f"{shown('main_searchable_avmnist.py')} {carried}"
    script, *command = audio.stdout.splitlines()[-1].split()[2:]
    few = ("--limit_train", 64, "--max_fusions", 1, "--search_iterations", 1, "--epochs", 1, "--run_dir", "runs/chain")
    search = run(Path(script).name, *command, *few)
    found = search.stdout.splitlines()[-1]
    assert found == f"{shown('main_found_avmnist.py')} --conf runs/chain/best.json {carried}"
    assert "; the best dev accuracy:" in search.stdout
    last = run("main_found_avmnist.py", *found.split()[3:], *small, "--no-baselines", "--inner_representation_size", 8)
    assert re.search("^accuracy +dev +test +found leads by", last.stdout, re.MULTILINE)


def test_devices_that_are_not_there(data, run):
    gpus = torch.cuda.device_count()
    assert f"--device cuda:{gpus} " in run("train_image.py", "--device", f"cuda:{gpus}", code=2).stderr
    wrong = run("train_image.py", "--device", "cude", code=2).stderr
    assert "argument --device: must be auto, cpu, cuda, cuda:N or mps, but got cude" in wrong
    if not torch.backends.mps.is_available():
        assert "--device mps needs a Mac" in run("train_image.py", "--device", "mps", code=2).stderr


def test_no_empty_folders_are_left(data, tmp_path, script_runner):
    flags = ("--datadir", data, "--checkpointdir", "some/checkpoints", "--limit_train", 64, "--epochs", 1)
    (tmp_path / "file").touch()
    refused = script_runner(tmp_path, "train_image.py", *flags, "--run_dir", "file/run", code=1)
    assert "file" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


COMMANDS = ["utils.report", "utils.predict", "utils.study"]
COMMANDS += ["datasets.ntu_prepare", "datasets.avmnist_check", "datasets.mmimdb"]


@pytest.fixture
def run_without(tmp_path, monkeypatch):
    """Run a script or a command (as `python -m` does) where packages are missing."""

    def run(packages: Iterable[str], name: str, *flags: object) -> subprocess.CompletedProcess:
        for package in packages:
            lines = f"raise ModuleNotFoundError('No module named {package}', name='{package}')"
            (tmp_path / f"{package}.py").write_text(lines)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
        program = [str(ROOT / name)] if name.endswith(".py") else ["-m", name]
        command = [sys.executable, *program, *map(str, flags)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.parametrize("name", [*sorted(path.name for path in ROOT.glob("*.py")), *COMMANDS])
def test_help_does_not_wait_for_torch(run_without, name):
    done = run_without(["torch"], name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    called = name if name.endswith(".py") else f"python -m {name}"
    assert done.stdout.startswith(f"usage: {called} ")


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("torch", ["main_searchable_avmnist.py"]),
        ("torch", ["train_image.py"]),
        ("pooch", ["avmnist_gen.py", "--download", "--datadir", "downloaded"]),
    ],
)
def test_a_missing_package_is_named(run_without, package, command):
    done = run_without([package], *command)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: the package {package} is missing: {sys.executable} -m pip install -r {ROOT / 'requirements.txt'}"
    ]


def test_one_cycle_has_its_own_rate_and_epochs(data, home, run):
    flags = ("--limit_train", 64, "--limit_dev", 8, "--limit_test", 8, "--checkpointdir", "elsewhere", "--no-verbose")
    run("train_image.py", "--schedule", "onecycle", *flags, "--run_dir", "runs/onecycle")
    settings = read(home / "runs/onecycle/args.json")["settings"]
    assert (settings["epochs"], settings["lr"]) == (10, 0.3)
    assert len(read(home / "runs/onecycle/results.json")["epochs"]) == 10
    run("train_image.py", "--schedule", "onecycle", *flags, "--epochs", 1, "--lr", 0.2, "--run_dir", "runs/short")
    settings = read(home / "runs/short/args.json")["settings"]
    assert (settings["epochs"], settings["lr"]) == (1, 0.2)


@pytest.mark.slow
def test_search_repeats_with_the_seed_and_reuses_the_feature_bank(run, home, search):
    again = run("main_searchable_avmnist.py", *SEARCH, "--run_dir", "runs/again")
    assert "reused" in again.stdout
    run("main_searchable_avmnist.py", *SEARCH, "--run_dir", "runs/other", "--seed", 1, "--no-verbose")

    def outcomes(run_dir: Path) -> list:
        return [
            (line["configuration"], line["accuracies"]) for line in read_journal(run_dir) if line["kind"] == "candidate"
        ]

    assert outcomes(home / "runs/again") == outcomes(search)
    assert outcomes(home / "runs/other") != outcomes(search)


@pytest.mark.slow
def test_the_journal_does_not_depend_on_the_threads(run, home, search):
    """Features are extracted again, in a folder of their own."""
    journals = []
    for threads in (1, 2):
        copied = home / f"checkpoints-{threads}"
        shutil.copytree(home / "checkpoints/avmnist", copied, ignore=shutil.ignore_patterns("feature_bank"))
        flags = ("--checkpointdir", copied, "--run_dir", f"runs/threads-{threads}", "--no-verbose")
        run("main_searchable_avmnist.py", *SEARCH, *flags, threads=threads)
        lines = read_journal(home / f"runs/threads-{threads}")
        journals.append([{k: v for k, v in line.items() if "seconds" not in k} for line in lines])
    assert journals[0] == journals[1]


@pytest.mark.slow
def test_a_search_without_numba_says_so_and_finds_the_same(home, search):
    """Dropout is the same; accuracies may differ by a sample that lies between two classes."""
    code = "import runpy, sys; sys.modules['numba'] = None; runpy.run_path(sys.argv[0], run_name='__main__')"
    program = f"import sys; sys.argv = sys.argv[1:]; {code}"
    script, checkpoints = ROOT / "main_searchable_avmnist.py", home / "checkpoints-plain"
    shutil.copytree(home / "checkpoints/avmnist", checkpoints, ignore=shutil.ignore_patterns("feature_bank"))
    flags = ("--checkpointdir", checkpoints, "--run_dir", "runs/plain", "--max_candidates", 30, "--no-verbose")
    command = [sys.executable, "-c", program, script, *SEARCH, *flags]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), cwd=home, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: numba cannot be used") == 1
    ours, plain = (
        [line["accuracies"] for line in read_journal(run_dir) if line["kind"] == "candidate"][:30]
        for run_dir in (search, home / "runs/plain")
    )
    torch.testing.assert_close(torch.tensor(plain), torch.tensor(ours), rtol=0, atol=1.5 / 50)


@pytest.mark.slow
def test_random_search_trains_as_many_without_repetition(run, home, checkpoints):
    run("main_searchable_avmnist.py", *SEARCH, "--randsearch", "--run_dir", "runs/random", "--no-verbose")
    header, *lines = read_journal(home / "runs/random")
    configurations = [str(line["configuration"]) for line in lines if line["kind"] == "candidate"]
    assert header["search"] == "random"
    assert len(configurations) == len(set(configurations)) == TRAININGS
    assert (home / "runs/random/report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--alphas", "--multitask"), ("--batchnorm", "--weightsharing")], ids=" ".join)
def test_search_variants(run, home, checkpoints, flags):
    folder = f"runs/{flags[0]}"
    run("main_searchable_avmnist.py", *SEARCH, *flags, "--run_dir", folder, "--no-verbose")
    assert read(home / folder / "best.json")["candidates_trained"] == TRAININGS


@pytest.mark.slow
def test_live_search(run, home, checkpoints):
    small = ("--limit_train", 64, "--limit_dev", 32, "--epochs", 1, "--max_fusions", 1, "--search_iterations", 1)
    live = ("--features", "live", "--with_random", "--run_dir", "runs/live", "--no-verbose")
    run("main_searchable_avmnist.py", *small, *live)
    assert read(home / "runs/live/best.json")["candidates_trained"] == 30
    assert read(home / "runs/live/best.json")["random"]["candidates_trained"] == 30
    assert "extraction" not in read(home / "runs/live/best.json")["seconds_by_part"]
    run("main_searchable_avmnist.py", *small, "--run_dir", "runs/cached", "--no-verbose")
    live, cached = (read(home / f"runs/{name}/best.json")["baselines"] for name in ("live", "cached"))
    assert [(row["name"], row["dev"]) for row in live] == [(row["name"], row["dev"]) for row in cached]
    assert len(live) == 4


@pytest.mark.slow
def test_found_trains_the_best_and_its_checkpoint_tests_the_same(run, home, search):
    found = ("--conf", "runs/search/best.json", "--inner_representation_size", 32)
    done = run("main_found_avmnist.py", *found, "--epochs", 2, "--run_dir", "runs/found")
    results = read(home / "runs/found/results.json")
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == [
        "audio only",
        "image only",
        "late fusion, mean of softmax",
        "late fusion, sum of log-softmax",
        "last features joined",
        "random configuration",
        "late fusion, fine-tuned",
        "logistic regression, log-probabilities",
        "logistic regression, last features",
        "found network",
    ]
    record = read(home / "checkpoints/avmnist/image_model.json")
    assert rows["image only"]["test"] == pytest.approx(record["test_accuracy"])
    best = read(search / "best.json")
    row = rows["found network"]
    assert row["configuration"] == results["configuration"] == best["configurations"][0]["configuration"]
    assert row["candidates_trained"] == TRAININGS
    assert row["seconds"] > best["seconds"]
    assert [line["phase"] for line in results["epochs"]] == ["central", "all", "all"]
    assert row["dev"] == pytest.approx(max(line["dev_accuracy"] for line in results["epochs"]))
    assert sum(map(sum, results["confusion"])) == 120
    assert results["stand_in"]
    assert "stand-in" in done.stdout
    assert "<svg" in (home / "runs/found/report.html").read_text()

    numbers = "_".join(str(i) for r in row["configuration"] for i in r)
    checkpoint = f"best_{numbers}_{row['test']:.4f}.checkpoint"
    assert Path(results["checkpoint"]).name == checkpoint
    assert read(home / "checkpoints/avmnist" / checkpoint.replace(".checkpoint", ".json"))["head"]["inner_size"] == 32
    run("main_found_avmnist.py", *found, "--test_cp", checkpoint, "--run_dir", "runs/tested")
    assert read(home / "runs/tested/results.json")["rows"][0]["test"] == row["test"]
    other = [[*r[:-1], 1 - r[-1]] for r in row["configuration"]]  # its weights have the same shapes
    refused = run("main_found_avmnist.py", "--conf", other, *found[2:], "--test_cp", checkpoint, code=2)
    assert f"was trained with --conf {row['configuration']}, not {other}" in refused.stderr
    for flag in ("alphas", "multitask"):  # nor do alphas and multitask change any shape
        refused = run("main_found_avmnist.py", *found, f"--{flag}", "--test_cp", checkpoint, code=2)
        assert f"was trained with {flag}=False, but this command has {flag}=True" in refused.stderr


@pytest.mark.slow
def test_found_tells_of_networks_that_are_not_those_of_the_search(run, home, search):
    few = ("--conf", "runs/search", "--inner_representation_size", 8, "--epochs", 1, "--limit_train", 64)
    few += ("--no-baselines",)
    same = run("main_found_avmnist.py", *few, "--run_dir", "runs/same", "--no-verbose")
    state = torch.load(home / "checkpoints/avmnist/image_model.pkl", weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, home / "checkpoints/avmnist/other.pkl")
    other = run("main_found_avmnist.py", *few, "--rgb_cp", "other.pkl", "--run_dir", "runs/other_nets", "--no-verbose")
    assert "warning" not in same.stderr
    assert "fused unimodal networks other than these" in other.stderr
    assert "McNemar" in other.stdout


@pytest.mark.slow
def test_found_takes_published_numbers_and_lists(run, home, checkpoints):
    small = ("--limit_train", 64, "--limit_dev", 32, "--limit_test", 32, "--epochs", 1, "--no-verbose")
    run("main_found_avmnist.py", "--conf", 3, "--multitask", *small, "--run_dir", "runs/three")
    assert read(home / "runs/three/results.json")["configuration"] == [[1, 1, 1], [0, 2, 0], [3, 2, 1], [2, 2, 0]]
    flags = ("--alphas", "--batchnorm", "--schedule", "onecycle", "--epochs", 2, "--batchsize", 8)
    run("main_found_avmnist.py", "--conf", "[[4,2,2]]", *small, *flags, "--run_dir", "runs/list")
    results = read(home / "runs/list/results.json")
    assert results["configuration"] == [[4, 2, 2]]
    rates = [line["learning_rate"] for line in results["epochs"]]  # of the last batch: each phase is one cycle
    assert rates[0] == rates[2] == 1e-6
    assert rates[0] < rates[1] <= 1e-3


@pytest.mark.slow
def test_features_of_networks_are_standardized_if_asked(run, home, search):
    bank = set((home / "checkpoints/avmnist/feature_bank").iterdir())
    flags = ("--epochs", 1, "--max_fusions", 1, "--search_iterations", 1, "--standardize", "--no-verbose")
    run("main_searchable_avmnist.py", *flags, "--run_dir", "runs/standard")
    assert set((home / "checkpoints/avmnist/feature_bank").iterdir()) == bank  # which holds features as they are
    plain, standard = (
        [line["accuracies"][0] for line in read_journal(folder) if line["kind"] == "candidate"][:30]
        for folder in (search, home / "runs/standard")
    )
    assert plain != standard
    small = ("--inner_representation_size", 8, "--no-verbose")
    found = ("--conf", "[[4,2,0]]", "--epochs", 1, "--limit_train", 64, "--standardize", "--no-baselines")
    run("main_found_avmnist.py", *found, *small, "--run_dir", "runs/standard_found")
    results = read(home / "runs/standard_found/results.json")
    state = torch.load(home / results["checkpoint"], weights_only=True)
    assert state["feature_mean"].shape == state["feature_scale"].shape == (93 + 21,)
    test = ("--conf", "[[4,2,0]]", *small, "--test_cp", results["checkpoint"])
    run("main_found_avmnist.py", *test, "--standardize", "--run_dir", "runs/standard_tested")
    assert read(home / "runs/standard_tested/results.json")["rows"][0]["test"] == results["rows"][-1]["test"]
    refused = run("main_found_avmnist.py", *test, code=2).stderr
    assert "was trained with standardize=True, but this command has standardize=False; give --standardize" in refused


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("main_searchable_avmnist.py", ("--features", "live", "--standardize"), "use it with --features cached"),
        ("main_found_avmnist.py", ("--retrain_top", "2"), "needs a search's best.json"),
        ("main_found_avmnist.py", ("--ensemble",), "--ensemble averages the networks of --retrain_top"),
        ("main_found_avmnist.py", ("--conf", "9"), "published configurations 0 to 4"),
        ("main_found_avmnist.py", ("--conf", "[[5,0,0]]"), "a configuration row is 3 numbers, 0 to 4, 0 to 2, 0 to 3,"),
        ("main_found_avmnist.py", ("--conf", "nowhere.json"), "nowhere.json"),
        ("main_found_avmnist.py", ("--test_cp", "nowhere.checkpoint"), "nowhere.checkpoint does not exist"),
        ("main_found_avmnist.py", ("--batchnorm", "--limit_train", "33"), "leave one over"),
        ("main_searchable_avmnist.py", ("--run_dir", "runs/train_image.py"), "holds a run of train_image.py"),
        ("main_found_avmnist.py", ("--eta_min", "1"), "eta_min <= eta_max must hold"),
        ("main_searchable_avmnist.py", ("--datadir", "nowhere"), "avmnist_gen.py --datadir nowhere"),
        (
            "main_searchable_avmnist.py",
            ("--checkpointdir", "nowhere"),
            "audio_model.pkl does not exist; train_audio.py makes it",
        ),
        ("main_searchable_avmnist.py", ("--channels", "4"), "--channels"),
        ("main_searchable_avmnist.py", ("--drpt", "1"), "0 <= p < 1"),
        ("main_searchable_avmnist.py", ("--num_outputs", "5"), "labels must lie in 0..4"),
        ("train_image.py", ("--epochs", "0"), "from 1 to 1,000,000"),
        ("train_image.py", ("--lr", "-1"), "must be a number above 0"),
        ("train_audio.py", ("--limit_train", "many"), "from 1 to"),
    ],
)
def test_wrong_use_gives_one_line_and_exit_code_2(run, checkpoints, script, flags, message):
    done = run(script, *flags, code=2)
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "script",
    ["avmnist_gen.py", "train_image.py", "train_audio.py", "main_searchable_avmnist.py", "main_found_avmnist.py"],
)
def test_help_explains_every_flag(run, script):
    text = run(script, "--help").stdout
    assert "python " + script in text
    assert "default:" in text
    options = re.split(r"\n  (?=-)", text.split("\n\noptions:", 1)[1])[1:]
    assert len(options) > 10
    for option in options:  # flags, then their help after two blanks or on the next line
        flags, *words = re.split(r"\s{2,}", option.strip(), maxsplit=1)
        assert len("".join(words)) > 5, flags
