"""Search and found network over features of one's own, through their command lines; asserts on what they wrote."""

import argparse
import csv
import importlib
import json
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from utils import predict
from utils.errors import DataError, UsageError
from utils.runs.settings import scale_epochs
from utils.search.loop import SearchError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("own data")]  # one process runs the example

SEARCH, FOUND = "main_searchable_features.py", "main_found_features.py"
DIGITS = ("--datadir", "data/digits")
NOTES = ("--datadir", "data/notes")
SMALL = ("--epochs", 1, "--search_iterations", 1)
TRAINED = ("--epochs", 35, "--inner_representation_size", 64)
BASELINES = ["top only", "bottom only", "edges only", "late fusion, mean of softmax", "late fusion, sum of log-softmax"]
TIMES = ("seconds", "surrogate_seconds", "seconds_by_part")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def read_journal(run_dir: Path, kind: str = "candidate") -> list[dict]:
    """Lines of a kind, without the times."""
    lines = [json.loads(line) for line in (run_dir / "journal.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines if line["kind"] == kind]


@pytest.fixture(scope="module")
def home(guide_example) -> Path:
    return guide_example


@pytest.fixture(scope="module")
def run(home, script_runner):
    """Run a script in the folder where the guide's example ran."""
    return lambda script, *args, code=0: script_runner(home, script, *args, code=code)


@pytest.fixture
def run_here(home, monkeypatch, capsys):
    """The same in this process, which has imported everything already; what was printed comes back."""

    def run(script: str, *args: object) -> str:
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        importlib.import_module(script.removesuffix(".py")).main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def search(home, run):
    """A search that may skip, with activations of choice, and random search beside it; its output."""
    flags = ("--activations", "gelu", "relu", "--allow_skip", "--with_random", "--tensorboard")
    flags += ("--max_fusions", 2, "--num_samples", 30, "--limit_train", 300)
    return run(SEARCH, *DIGITS, *SMALL, *flags, "--run_dir", "runs/skips")


@pytest.fixture(scope="module")
def found(home, run):
    """A network over all three views, trained, tested under noise and exported; its output."""
    flags = ("--conf", "[[2,2,1,0],[1,-1,2,3]]", "--evaluate_missing", "--export", "out/found.onnx", "--tensorboard")
    pytest.importorskip("onnxscript", reason="the optional packages onnx and onnxscript are not installed")
    return run(FOUND, *DIGITS, *TRAINED, *flags, "--run_dir", "runs/views")


# One label a sample


def test_a_search_over_three_modalities_may_skip_and_has_the_activations_asked_for(search, home):
    candidates = read_journal(home / "runs/skips")
    rows = {tuple(row) for line in candidates for row in line["configuration"]}
    different = {tuple(map(tuple, line["configuration"])) for line in candidates}
    assert len(candidates) == len(different) == (4**3 - 1) * 2 + 30
    assert {row[3] for row in rows} == {0, 3}
    assert {i for row in rows for i in row[:3]} == {-1, 0, 1, 2}
    assert all(max(row[:3]) >= 0 for row in rows)
    (header,) = read_journal(home / "runs/skips", "header")
    assert header["search"] == "improved"
    assert header["activations"] == ["relu", "gelu"]
    assert header["modalities"] == ["top", "bottom", "edges"]
    assert header["sizes"] == [3, 3, 3]
    assert "search space: 126 possible rows per fusion layer (top, bottom, edges)" in search.stdout
    assert "so the search may take about" in search.stdout


def test_progress_that_is_no_terminals_comes_in_lines(search):
    warned, lines = [], search.stderr.splitlines()
    while lines[0].startswith("warning: "):  # ReLUs that are always off are columns that do not vary
        warned.append(lines.pop(0))
    assert all(line.endswith("do not vary in the training split; they are only centered") for line in warned)
    assert lines[0].startswith("candidates:   0% 0/156 [")
    assert any(line.startswith("candidates: 100% 156/156 [") and "best on dev" in line for line in lines)
    assert any(line.startswith("candidates at random: 100% 156/156 [") for line in lines)
    assert "\r" not in search.stderr
    assert all(line.strip() for line in lines)


def test_a_search_is_set_beside_unimodal_networks_late_fusions_and_random_search(search, home):
    best, candidates = read(home / "runs/skips/best.json"), read_journal(home / "runs/skips")
    assert best["whole"] is True
    assert "score" not in best
    reached = [max(line["accuracies"]) for line in candidates]
    assert best["configurations"][0]["accuracy"] == max(reached)
    assert sorted(row["name"] for row in best["baselines"]) == sorted(BASELINES)
    right = np.load(home / "runs/skips/best_dev.npy")
    assert right.mean() == pytest.approx(max(reached), abs=1e-6)
    with np.load(home / "data/digits/dev.npz") as dev:
        alone = {name: dev[f"{name}.logits"].argmax(1) == dev["label"] for name in ("top", "bottom", "edges")}
    for row in best["baselines"]:
        assert row["difference"]["mean"] == pytest.approx(max(reached) - row["dev"], abs=1e-6)
        assert row["difference"]["low"] <= row["difference"]["mean"] <= row["difference"]["high"]
        if row["name"].endswith(" only"):
            assert row["dev"] == pytest.approx(alone[row["name"].removesuffix(" only")].mean(), abs=1e-6)
    random = best["random"]
    others = read_journal(home / "runs/skips/random")
    assert random["candidates_trained"] == len(others) == len(candidates)
    assert len({str(line["configuration"]) for line in others}) == len(others)
    assert {len(line["configuration"]) for line in others} == {1, 2}
    assert random["accuracies"] == list(np.maximum.accumulate([max(line["accuracies"]) for line in others]))
    ahead = max(reached) - random["accuracies"][-1]
    assert random["difference"]["mean"] == pytest.approx(ahead, abs=1e-6)
    page = (home / "runs/skips/report.html").read_text()
    assert all(name in page for name in (*BASELINES, "random search, 156 candidates", "gelu"))


def test_a_search_as_a_table_and_on_a_board(search, home):
    with (home / "runs/skips/results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    candidates = read_journal(home / "runs/skips")
    assert [json.loads(row["configuration"]) for row in table] == [line["configuration"] for line in candidates]
    assert [float(row["dev"]) for row in table] == [max(line["accuracies"]) for line in candidates]
    assert [row["predicted"] == "" for row in table] == [line["step"] == 0 for line in candidates]
    (events,) = (home / "runs/skips/tensorboard").iterdir()
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = accumulator.EventAccumulator(str(events), size_guidance={"scalars": 0}).Reload()
    shown = [event.value for event in board.Scalars("candidates/dev_accuracy")]
    assert shown == pytest.approx([float(row["dev"]) for row in table])


@pytest.mark.trained
def test_a_found_network_is_better_than_each_modality_alone(found, home):
    results = read(home / "runs/views/results.json")
    rows = {row["name"]: row for row in results["rows"]}
    regressions = [f"logistic regression, {what}" for what in ("log-probabilities", "last features")]
    trained = ["last features joined", "random configuration"]
    assert list(rows) == [*BASELINES, *trained, *regressions, "found network"]
    assert rows["last features joined"]["configuration"] == [[2, 2, 2, 0]]
    right = np.load(home / "runs/views/test_correct.npy")
    assert right.mean(axis=1).tolist() == pytest.approx([row["test"] for row in results["rows"]])
    for row, own in zip(results["rows"][:-1], right, strict=False):
        assert row["lead"]["mean"] == pytest.approx(right[-1].mean() - own.mean())
        assert row["lead"]["low"] <= row["lead"]["mean"] <= row["lead"]["high"]
    assert results["verdict"] in found.stdout
    best = rows["found network"]["test"]
    # Over six seeds, the example's and the training's: 0.073 better (standard deviation 0.016), macro F1 0.90 (0.005).
    assert best > max(row["test"] for name, row in rows.items() if name.endswith(" only"))
    assert np.trace(results["confusion"]) / 397 == pytest.approx(best, abs=1e-6)
    assert 0.5 < results["f1"]["macro"] <= 1
    assert 0 <= results["mcnemar"]["p"] <= 1
    best_on_dev = max((row for row in results["rows"][:-1]), key=lambda row: (row["dev"], row["test"]))
    assert results["mcnemar"]["against"] == best_on_dev["name"]
    losses = [epoch["train_loss"] for epoch in results["epochs"]]
    assert len(losses) == 35
    assert losses[-1] < losses[0]
    assert re.search(rf"\nfound network +0\.\d{{4}} +{best:.4f} +[\d,]+  \[\[2,2,1,0\],\[1,-1,2,3\]\]", found.stdout)
    state = torch.load(home / results["checkpoint"], weights_only=True)
    assert state["fusion_layers.0.0.weight"].shape == (64, 64 + 64 + 16)
    assert state["fusion_layers.1.0.weight"].shape == (64, 16 + 64 + 64)
    assert list((home / "runs/views/tensorboard").iterdir())


@pytest.mark.slow
def test_several_networks_of_a_search_are_trained_and_averaged_and_predict(search, home, run_here, monkeypatch, capsys):
    (home / "data/digits/classes.txt").write_text("\n".join(f"digit {i}" for i in range(10)))
    flags = ("--conf", "runs/skips/best.json", "--inner_representation_size", 16, "--no-verbose", "--no-baselines")
    flags += ("--retrain_top", 2, "--ensemble", "--class_weights", "balanced", "--epochs", 30, "--patience", 2)
    run_here(FOUND, *DIGITS, *flags, "--run_dir", "runs/top", "--export", "out/top.pt2")
    (home / "data/digits/classes.txt").unlink()
    results, best = read(home / "runs/top/results.json"), read(home / "runs/skips/best.json")
    ensemble, other, found = results["rows"][5:]
    assert ensemble["name"] == "ensemble of 2"
    assert not any(row["baseline"] for row in (ensemble, other, found))
    assert {str(row["configuration"]) for row in (other, found)} == {
        str(entry["configuration"]) for entry in best["configurations"][:2]
    }
    assert found["dev"] >= other["dev"]
    assert results["configuration"] == found["configuration"]
    assert ensemble["parameters"] == found["parameters"] + other["parameters"]
    scores = [line["dev_accuracy"] for line in results["epochs"]]
    assert len(scores) < 30
    assert len(scores) - 1 - scores.index(max(scores)) == 2

    assert exported_scores(home, "out/top.pt2").mean() == pytest.approx(found["test"], abs=1e-6)
    assert found["test"] != other["test"]  # or the wrong one would pass
    checkpoint = str(home / results["checkpoint"])
    monkeypatch.setattr(sys, "argv", ["predict", checkpoint, "data/digits/test.npz", "--out", "runs/predicted.csv"])
    predict.main()
    tables = {}
    for path in ("runs/top/predictions.csv", "runs/predicted.csv"):
        with (home / path).open(newline="") as file:
            tables[path] = [line for line in csv.DictReader(file) if line["split"] == "test"]
    ours, theirs = tables.values()
    assert [line["predicted"] for line in ours] == [line["predicted"] for line in theirs]
    assert ours[0]["predicted"].startswith("digit ")
    right = sum(line["predicted"] == line["label"] for line in ours)
    assert right / len(ours) == pytest.approx(found["test"], abs=1e-6)
    for one, other in zip(ours, theirs, strict=True):
        values = [float(line[f"p({line['predicted']})"]) for line in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)
    assert "digit 3" in (home / "runs/top/report.html").read_text()


@pytest.mark.parametrize(
    ("samples", "given", "epochs", "cycle"),
    [
        (55_000, {}, 3, 1.0),  # as published for AV-MNIST
        (1_000_000, {}, 3, 1.0),
        (1000, {}, 162, 54.0),  # cycles of 54 and 108 epochs
        (64, {}, 2579, 2579 / 3),
        (1000, {"epochs": 30}, 30, 10.0),
        (1000, {"Ti": 2.0}, 162, 2.0),
    ],
)
def test_smaller_data_gets_more_epochs_by_default(samples, given, epochs, cycle, capsys):
    args = argparse.Namespace(**{"epochs": None, "Ti": None, "batchsize": 32, "verbose": True, **given})
    scale_epochs(args, samples, epochs=3, period=1)
    assert (args.epochs, args.Ti) == (epochs, pytest.approx(cycle))
    assert capsys.readouterr().out == f"epochs (--epochs): {epochs}; steps in an epoch: {-(-samples // 32)}\n"


def test_a_best_candidate_below_a_baseline_is_told(home, run_here):
    flags = ("--epochs", 1, "--eta_max", 1e-5, "--search_iterations", 1, "--max_fusions", 1, "--no-verbose")
    printed = run_here(SEARCH, *DIGITS, *flags, "--run_dir", "runs/poor")
    best = read(home / "runs/poor/best.json")
    highest = max(best["baselines"], key=lambda row: row["dev"])
    assert best["advice"].startswith("The best candidate (")
    assert f"is below {highest['name']} ({100 * highest['dev']:.1f} %) on dev: try more epochs" in best["advice"]
    assert best["advice"] in printed
    assert best["advice"] in (home / "runs/poor/report.html").read_text()


@pytest.mark.trained
def test_modalities_are_muted_and_noisy(found, home):
    results = read(home / "runs/views/results.json")
    whole = results["rows"][-1]["test"]
    names = [row["modality"] for row in results["missing"]]
    assert names == [name for name in ("top", "bottom", "edges") for _ in range(4)]
    for start in range(0, 12, 4):
        muted, *noisy = [row["test"] for row in results["missing"][start : start + 4]]
        assert [row["noise"] for row in results["missing"][start : start + 4]] == [None, 0.5, 1, 2]
        # Over five seeds the least harmful muting cost 0.060 (standard deviation 0.010), more noise raised the accuracy
        # by 0.003 at most, and the most harmful noise cost 0.033 (0.012): features are standardized.
        assert muted < whole + 0.02
        assert all(stronger < weaker + 0.03 for weaker, stronger in pairwise([whole, *noisy]))
    assert min(row["test"] for row in results["missing"] if row["noise"] == 2) < whole - 0.003
    assert re.search(r"untouched +muted +noise 0\.5 +noise 1 +noise 2", found.stdout)


def exported_scores(home: Path, path: str) -> np.ndarray:
    """What an exported file makes of the test split's features, without logits."""
    with np.load(home / "data/digits/test.npz") as arrays:
        columns = [f"{name}.{i}" for name in ("top", "bottom", "edges") for i in (0, 1, 2)]
        rows = np.concatenate([arrays[name] for name in columns], axis=1)
        right = arrays["label"]
    if path.endswith(".onnx"):
        runtime = pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is not installed")
        session = runtime.InferenceSession(home / path, providers=["CPUExecutionProvider"])
        (scores,) = session.run(["logits"], {"features": rows})
    else:
        scores = torch.export.load(home / path).module()(torch.from_numpy(rows)).detach().numpy()
    return scores.argmax(1) == right


def test_a_checkpoint_tests_the_same_and_exports_the_same(found, home, run):
    trained = read(home / "runs/views/results.json")
    flags = ("--conf", "[[2,2,1,0],[1,-1,2,3]]", "--inner_representation_size", 64, "--no-verbose")
    name = Path(trained["checkpoint"]).name
    done = run(FOUND, *DIGITS, *flags, "--test_cp", name, "--export", "out/found.pt2", "--run_dir", "runs/tested")
    tested = read(home / "runs/tested/results.json")
    assert tested["rows"][-1]["test"] == trained["rows"][-1]["test"]
    assert tested["confusion"] == trained["confusion"]
    assert tested["f1"] == trained["f1"]
    assert done.stderr == ""
    for path, output in (("out/found.onnx", found.stdout), ("out/found.pt2", done.stdout)):
        assert re.search(rf"{path}: outputs equal torch's to \d", output)
        assert "columns, which are top.0 (1), top.1 (3), top.2 (6), bottom.0 (1), " in output
        assert exported_scores(home, path).mean() == pytest.approx(trained["rows"][-1]["test"], abs=1e-6)


# Several labels a sample


@pytest.fixture(scope="module")
def notes(home) -> Path:
    """Two modalities of two features, four labels a sample of which each modality tells two; no logits."""
    rng = np.random.default_rng(0)
    (home / "data/notes").mkdir()
    for split, n in (("train", 300), ("dev", 120), ("test", 150)):
        label = rng.random((n, 4)) < (0.5, 0.3, 0.6, 0.2)
        arrays = {}
        for modality, seen in (("score", label[:, :2]), ("sound", label[:, 2:])):
            for i, noise in enumerate((2.0, 0.4)):
                values = np.concatenate([seen, rng.normal(size=(n, 3))], axis=1) + noise * rng.normal(size=(n, 5))
                arrays[f"{modality}.{i}"] = values.astype(np.float32)
        np.savez(home / f"data/notes/{split}.npz", **arrays, label=label.astype(np.uint8))
    return home / "data/notes"


BUDGET = (*NOTES, *SMALL, "--max_fusions", 3, "--num_samples", 4, "--weightsharing", "--no-verbose", "--eta_max", 0.02)


@pytest.fixture(scope="module")
def whole(notes, home, run):
    """A search over several labels a sample, to its end."""
    return run(SEARCH, *BUDGET, "--run_dir", "runs/notes")


@pytest.mark.trained
def test_several_labels_are_scored_by_weighted_f1(whole, notes, home, run_here):
    best = read(home / "runs/notes/best.json")
    assert (best["score"], best["multi_label"], best["whole"]) == ("weighted F1", True, True)
    assert best["baselines"] == []
    assert "random" not in best
    assert whole.stderr == ""
    first, *lines = whole.stdout.splitlines()
    assert first.startswith("16 candidates trained in ")
    assert len(lines) == 7  # the best five, and two paths

    flags = ("--conf", "[[1,1,0]]", "--epochs", 20, "--eta_max", 0.02, "--no-verbose", "--evaluate_missing")
    printed = run_here(FOUND, *NOTES, *flags, "--run_dir", "runs/notes_found")
    assert re.search("^weighted F1 +dev +test", printed, re.MULTILINE)
    results = read(home / "runs/notes_found/results.json")
    assert (results["score"], results["multi_label"]) == ("weighted F1", True)
    assert "confusion" not in results
    assert "mcnemar" not in results
    names = ["last features joined", "random configuration", "logistic regression, last features", "found network"]
    assert [row["name"] for row in results["rows"]] == names
    row = results["rows"][-1]
    assert row["test"] == pytest.approx(results["f1"]["weighted"])
    # Over six seeds 0.84 (standard deviation 0.02), and at most 0.45 with a modality muted.
    always = np.load(notes / "test.npz")["label"].mean(axis=0)  # F1 of predicting every label always
    assert row["test"] > 0.05 + float((2 * always / (1 + always) * always).sum() / always.sum())
    assert "weighted F1" in (home / "runs/notes_found/report.html").read_text()
    muted = {row["modality"]: row["test"] for row in results["missing"] if row["noise"] is None}
    assert set(muted) == {"score", "sound"}
    assert max(muted.values()) < row["test"]


def test_a_threshold_decides_which_of_several_labels_are_predicted(notes, home, run, run_here, monkeypatch):
    cut = ("--threshold", 0.3)
    run_here(SEARCH, *NOTES, *SMALL, *cut, "--max_fusions", 1, "--no-verbose", "--run_dir", "runs/cut")
    flags = ("--conf", "[[1,1,0]]", "--epochs", 5, "--retrain_top", 1, "--no-verbose", "--checkpointdir", "cut")
    run_here(FOUND, *NOTES, *cut, *flags, "--run_dir", "runs/cut_found")
    results = read(home / "runs/cut_found/results.json")
    assert results["head"]["threshold"] == 0.3
    monkeypatch.setattr(sys, "argv", ["predict", results["checkpoint"], "data/notes/test.npz", "--out", "runs/cut.csv"])
    predict.main()
    truth = np.load(notes / "test.npz")["label"]
    for path in ("runs/cut_found/predictions.csv", "runs/cut.csv"):
        rows = [line for line in csv.DictReader((home / path).read_text().splitlines()) if line["split"] == "test"]
        probabilities = np.array([[float(line[f"p({i})"]) for i in range(4)] for line in rows])
        assert [line["predicted"] for line in rows] == [
            ";".join(map(str, np.flatnonzero(p > 0.3))) for p in probabilities
        ]
        for average in ("weighted", "macro", "samples"):
            expected = f1_score(truth, probabilities > 0.3, average=average, zero_division=0)
            assert results["f1"][average] == pytest.approx(expected, abs=1e-6)
    assert results["rows"][-1]["test"] == pytest.approx(results["f1"]["weighted"], abs=1e-6)

    error = run(FOUND, *DIGITS, *cut, "--conf", "[[0,0,0,0]]", code=2).stderr
    assert "--threshold is for multi-label data, but these samples have one class each" in error


def test_a_search_ends_at_so_many_candidates_and_goes_on_as_if_it_had_not(whole, home, run_here):
    """The budgets end it within the first step, and within a later one."""
    total = len(read_journal(home / "runs/notes"))
    assert total == 8 + 4 + 4
    for number, flags in ((5, ("--run_dir", "runs/part")), (14, ("--resume", "runs/part"))):
        printed = run_here(SEARCH, *BUDGET, *flags, "--max_candidates", number)
        best = read(home / "runs/part/best.json")
        assert (best["whole"], best["candidates_trained"]) == (False, number)
        assert f"{number} candidates trained in " in printed
        assert ", stopped by the budget; the best dev weighted F1:" in printed
        assert read_journal(home / "runs/part") == read_journal(home / "runs/notes")[:number]
        assert len((home / "runs/part/results.csv").read_text().splitlines()) == number + 1
    run_here(SEARCH, "--resume", "runs/part", "--max_candidates", 1000)  # all other flags are those of the run
    command = shlex.split(read(home / "runs/part/args.json")["command"])
    assert command[-4:] == ["--max_candidates", "1000", "--run_dir", "runs/part"]
    assert "the best dev weighted F1:" in run_here(*command[1:])  # the recorded command resumes it, too
    for kind in ("header", "candidate", "step"):
        assert read_journal(home / "runs/part", kind) == read_journal(home / "runs/notes", kind)
    ours, theirs = (read(home / "runs" / name / "best.json") for name in ("part", "notes"))
    assert {k: v for k, v in ours.items() if k not in TIMES} == {k: v for k, v in theirs.items() if k not in TIMES}
    assert np.array_equal(*(np.load(home / "runs" / name / "best_dev.npy") for name in ("part", "notes")))


def test_a_search_ends_when_its_time_is_over(notes, home, run_here):
    flags = ("--search_iterations", 9999, "--time_budget", "1s", "--with_random", "--run_dir", "runs/second")
    printed = run_here(SEARCH, *NOTES, *SMALL, *flags, "--no-verbose")
    best = read(home / "runs/second/best.json")
    assert best["whole"] is False
    assert 8 <= best["candidates_trained"] < 9999
    assert best["configurations"]
    assert best["seconds"] < 3
    assert best["random"]["candidates_trained"] == best["candidates_trained"]
    assert f"random search, {best['candidates_trained']} candidates" in printed
    assert ", stopped by the budget" in printed
    assert "This search ran out of budget" in (home / "runs/second/report.html").read_text()
    with pytest.raises(SearchError, match="the budget ran out before a candidate was trained"):
        run_here(SEARCH, *NOTES, *SMALL, "--time_budget", "0.000001s", "--run_dir", "runs/none")


def test_a_found_network_is_extended_with_its_baselines(home, run_here):
    small = ("--conf", "[[2,2,2,0]]", "--inner_representation_size", 8, "--no-verbose")
    run_here(FOUND, *DIGITS, *small, "--epochs", 2, "--run_dir", "runs/longer")
    run_here(FOUND, "--resume", "runs/longer", "--epochs", 4)  # with the same cycle, whose default is 5 / 70 of it
    run_here(FOUND, *DIGITS, *small, "--epochs", 4, "--Ti", 2 * 5 / 70, "--run_dir", "runs/long")
    longer, long = (read(home / f"runs/{name}/results.json") for name in ("longer", "long"))
    assert len(longer["epochs"]) == 4
    assert longer["epochs"] == long["epochs"]
    assert [(row["name"], row["test"]) for row in longer["rows"]] == [
        (row["name"], row["test"]) for row in long["rows"]
    ]
    scaled = ("--resume", "runs/longer", "--epochs", 5, "--Ti", 3)
    with pytest.raises(UsageError, match=r"runs/longer holds a run with Ti 0\.1\d+, but this command has 3\.0"):
        run_here(FOUND, *scaled)


def test_runs_of_equal_accuracy_keep_their_own_checkpoints(home, run_here):
    flags = ("--conf", "[[1,1,1,0]]", "--epochs", 1, "--no-baselines", "--no-verbose", "--checkpointdir", "equal")
    for name in ("one", "two", "one"):  # the last command repeats the first
        run_here(FOUND, *DIGITS, *flags, "--run_dir", f"runs/{name}")
    one, two = (Path(read(home / f"runs/{name}/results.json")["checkpoint"]) for name in ("one", "two"))
    assert two.name == f"{one.stem}-2.checkpoint"
    assert {path.name for path in (home / "equal").glob("*.checkpoint")} == {one.name, two.name}
    assert read(home / two.with_suffix(".json"))["run_dir"] == "runs/two"
    with pytest.raises(UsageError, match=f"runs/one holds a run of {FOUND}, not of {SEARCH}"):
        run_here(SEARCH, "--resume", "runs/one")
    about = home / "runs/one/args.json"
    about.write_text(about.read_text().replace("--epochs ", "--epo "))
    with pytest.raises(UsageError, match=r"args\.json is of another version: there is no --epo; give all flags"):
        run_here(FOUND, "--resume", "runs/one")


def test_a_refused_command_leaves_its_run_folder_free(notes, home, run_here):
    flags = (*NOTES, "--conf", "[[1,1,0]]", "--epochs", 1, "--no-baselines", "--run_dir", "runs/free")
    with pytest.raises(UsageError, match="--class_weights balanced is for samples of one class"):
        run_here(FOUND, *flags, "--class_weights", "balanced")
    run_here(FOUND, *flags)


def test_a_search_over_features_leaves_no_empty_folder(home, run_here):
    run_here(
        SEARCH, *DIGITS, *SMALL, "--max_fusions", 1, "--checkpointdir", "made/for/nothing", "--run_dir", "runs/alone"
    )
    assert (home / "runs/alone/best.json").exists()
    assert not (home / "made").exists()


# What is wrong


@pytest.fixture
def small(home):
    """Write features of two modalities without logits in data/NAME, with a change to the arrays of each split."""

    def write(name: str, change=lambda split, arrays: arrays) -> tuple:
        (home / "data" / name).mkdir(exist_ok=True)
        for seed, split in enumerate(("train", "dev", "test")):
            rng = np.random.default_rng(seed)
            arrays = {f"{modality}.{i}": rng.normal(size=(24, 3)) for modality in ("ear", "eye") for i in (0, 1)}
            np.savez(home / f"data/{name}/{split}.npz", **change(split, arrays | {"label": np.arange(24) % 3}))
        return "--datadir", f"data/{name}"

    return write


def relabelled(change):
    return lambda split, arrays: arrays | {"label": change(arrays["label"])}


COPIED = {f"{name}.{i}": np.arange(72.0).reshape(24, 3) for name in ("ear", "eye") for i in (0, 1)}
SILENT = {
    "one_hot": (
        relabelled(lambda label: np.eye(3)[label]),
        "data/one_hot: each sample has one of 3 labels; these look",
    ),
    "text": (relabelled(lambda label: np.array(["cat", "dog", "cow"])[label]), "label must hold integers, but holds"),
    "gaps": (relabelled(lambda label: label * 2), "data/gaps/train.npz has no sample of 2 of 5 classes: 1, 3; number"),
    "copied": (lambda split, arrays: arrays | COPIED, "data/copied: all 24 samples of dev.npz are also in train.npz"),
}


@pytest.mark.parametrize(("name", "change", "message"), [(name, *case) for name, case in SILENT.items()], ids=SILENT)
def test_what_would_go_wrong_in_silence_is_refused(small, run_here, name, change, message):
    with pytest.raises(DataError, match=re.escape(message)):
        run_here(SEARCH, *small(name, change))


def test_a_file_that_is_none_of_arrays_is_one_line(home, small, run, run_here):
    with pytest.raises(DataError, match="data/plain: --multi_label needs labels 0 and 1"):
        run_here(FOUND, *small("plain"), "--conf", "[[0,0,0]]", "--multi_label")
    data = small("no_npz")
    (home / "data/no_npz/dev.npz").write_text("ear, eye, label")
    (line,) = run(SEARCH, *data, code=2).stderr.splitlines()
    assert line.startswith("error: data/no_npz/dev.npz is not a complete .npz file, which numpy.savez writes: ")


def test_one_label_of_every_sample_may_be_meant_so_and_shared_samples_are_counted(home, small, run, run_here):
    """Multi-label data in which each sample has one label, and one sample of train in test."""
    first = {}

    def change(split, arrays):
        first.setdefault("row", {name: array[0] for name, array in arrays.items()})
        if split == "test":
            for name in arrays.keys() - {"label"}:
                arrays[name][5] = first["row"][name]
        return arrays | {"label": np.eye(3, dtype=bool)[arrays["label"]]}

    data = small("really", change)
    run_here(SEARCH, *data, *SMALL, "--multi_label", "--max_fusions", 1, "--no-verbose", "--run_dir", "runs/really")
    assert read(home / "runs/really/best.json")["multi_label"] is True
    flags = ("--conf", "runs/really/best.json", "--multi_label", "--epochs", 1, "--no-verbose")
    done = run(FOUND, *data, *flags, "--run_dir", "runs/really_found")
    shared = "warning: data/really: 1 of 24 samples of test.npz are also in train.npz (they have the same features)"
    assert done.stderr.splitlines() == [shared]
    assert read(home / "runs/really_found/results.json")["score"] == "weighted F1"


def test_a_best_json_of_other_features_is_refused(home, small, run):
    best = {"configurations": [{"configuration": [[0, 0, 0]]}], "modalities": ["ear", "eye"], "sizes": [2, 3]}
    (home / "other.json").write_text(json.dumps(best))
    done = run(FOUND, *small("plain"), "--conf", "other.json", code=2)
    message = "error: other.json is from a search over [2, 3] features of ['ear', 'eye'], but the data have [2, 2]"
    assert done.stderr.splitlines() == [message]


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        (SEARCH, ("--datadir", "data"), "train.npz is missing (data holds "),
        (SEARCH, (*DIGITS, "--search", "random", "--with_random"), "is a random search already"),
        (SEARCH, (*DIGITS, "--epochs_surrogate", 9), "is a setting of the published search; give --search published"),
        (FOUND, (*DIGITS, "--conf", "[[-1,-1,-1,0]]"), "to skip (not all), but got [-1, -1, -1, 0]"),
    ],
    ids=lambda value: str(value)[-20:],
)
def test_wrong_use_gives_one_line_and_exit_code_2(home, run, script, flags, message):
    done = run(script, *flags, code=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
