"""A study over seeds: its statistics against scipy and simulation, its command on tiny features."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from utils.errors import UsageError
from utils.interrupts import Interrupted, run_script
from utils.results.over_seeds import (
    SeedResult,
    crossed_bootstrap,
    in_points,
    read_test_correct,
    spread_of,
    summarize,
    verdict,
)
from utils.study import ScriptError, as_rows, as_text, carry_out, check_inputs, joined, planned, words

ROOT = Path(__file__).parents[1]
SHARE = st.floats(0, 1)


def row(name: str, dev: float | None, test: float | None, seconds: float | None = None) -> dict:
    return {"name": name, "dev": dev, "test": test, "seconds": seconds}


def seed_results(leads: list[float], samples: int = 0) -> list[SeedResult]:
    """One run a seed: the found network ahead of late fusion by a lead, and of one modality by more."""
    results = []
    for lead in leads:
        tests = (0.5, 0.8, 0.8 + lead)
        names = ("audio only", "late fusion", "found network")
        rows = [row(name, test, test, 2.0) for name, test in zip(names, tests, strict=True)]
        shares = (np.arange(samples) + 0.5) / samples if samples else np.array([])
        correct = np.stack([shares < test for test in tests]) if samples else None
        results.append(SeedResult(rows, correct))
    return results


# Statistics


@given(st.lists(SHARE, min_size=2, max_size=8))
def test_an_interval_over_seeds_is_students_t(values):
    found = spread_of([*values, None])
    assert found.seeds == len(values)
    assert found.mean == pytest.approx(np.mean(values))
    if np.std(values, ddof=1) < 1e-9:
        assert found[2:] == (0, None, None)  # equal values do not say how much others would differ
    else:
        assert found.deviation == pytest.approx(np.std(values, ddof=1))
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_has_no_interval_and_none_nothing():
    assert spread_of([0.5, None]) == (1, 0.5, None, None, None)
    assert spread_of([None]) is None


@given(st.lists(st.tuples(SHARE, SHARE), min_size=2, max_size=6))
def test_a_lead_is_paired_by_seed(pairs):
    results = [SeedResult([row("other", a, a), row("found network", b, b)], None) for a, b in pairs]
    other, found = summarize(results)
    assert found.lead is None
    ours, theirs = np.array([b for _, b in pairs]), np.array([a for a, _ in pairs])
    assert other.lead.mean == pytest.approx(ours.mean() - theirs.mean())
    if np.std(ours - theirs) > 1e-6:
        interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        assert (other.lead.low, other.lead.high) == pytest.approx((interval.low, interval.high))


def test_methods_of_some_seeds_only_are_paired_where_they_exist():
    with_it = SeedResult([row("a", 0.1, 0.2), row("b", None, None), row("found network", 0.5, 0.6)], None)
    without = SeedResult([row("b", 0.3, 0.3), row("found network", 0.7, 0.9)], None)
    a, b, found = summarize([with_it, without])
    assert (a.lead.seeds, a.lead.mean) == (1, pytest.approx(0.4))
    assert (b.lead.seeds, b.lead.mean) == (1, pytest.approx(0.6))
    assert (found.test.seeds, found.test.mean) == (2, pytest.approx(0.75))
    assert summarize([]) == []


@given(st.integers(1, 4), st.integers(1, 30), st.data())
def test_the_bootstrap_holds_the_mean(seeds, samples, data):
    values = data.draw(st.lists(st.integers(-1, 1), min_size=seeds * samples, max_size=seeds * samples))
    differences = np.array(values, dtype=np.int8).reshape(seeds, samples)
    found = crossed_bootstrap(differences, seed=0, resamples=200)
    assert found.mean == pytest.approx(differences.mean())
    assert -1 <= found.low <= found.high <= 1
    if len(set(values)) == 1:
        assert found.low == pytest.approx(found.high) == pytest.approx(values[0])
    assert found == crossed_bootstrap(differences, seed=0, resamples=200)


def test_the_bootstrap_draws_seeds_and_samples():
    """Compared with a plain loop; and a sample that is hard in all seeds is drawn for all of them together."""
    rng = np.random.default_rng(0)
    hard = rng.integers(-1, 2, 60)
    differences = np.where(rng.random((3, 60)) < 0.7, hard, rng.integers(-1, 2, (3, 60))).astype(np.int8)
    plain = [differences[rng.integers(0, 3, 3)[:, None], rng.integers(0, 60, 60)[None]].mean() for _ in range(20_000)]
    found = crossed_bootstrap(differences, seed=1)
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.02)
    same = crossed_bootstrap(np.repeat(differences[:1], 5, axis=0), seed=1)
    one = crossed_bootstrap(differences[:1], seed=1)
    assert (same.low, same.high) == pytest.approx((one.low, one.high), abs=0.02)  # copies are no more evidence
    for shape in ((3,), (0, 5), (5, 0)):
        with pytest.raises(ValueError, match="for each seed and sample"):
            crossed_bootstrap(np.zeros(shape, np.int8), seed=0)


@pytest.mark.parametrize(
    ("leads", "samples", "words"),
    [
        ([0.05, 0.06, 0.07], 0, "Over 3 seeds, the found network is ahead of the best simple baseline (late fusion) by "
         "6.0 points (95 % interval over seeds +3.5 to +8.5): a clear gain."),
        ([-0.05, -0.06, -0.07], 0, "is behind the best simple baseline (late fusion) by 6.0 points (95 % interval over "
         "seeds -8.5 to -3.5): a clear loss."),
        ([0.01, 0.05], 0, "by 3.0 points (95 % interval over seeds -22.4 to +28.4): no clear gain."),
        ([-0.01, -0.05], 0, "by 3.0 points (95 % interval over seeds -28.4 to +22.4): no clear loss."),
        ([0.01, -0.01], 0, "is level with the best simple baseline (late fusion) (95 % interval over seeds "
         "-12.7 to +12.7): no clear gain."),
        ([0.04], 0, "With one seed, the found network is ahead of the best simple baseline (late fusion) by 4.0 "
         "points; an interval over seeds needs two."),
        ([0.02, 0.02, 0.02], 50, "by 2.0 points (95 % interval over seeds and samples +0.0 to "
         "+6.0): no clear gain."),
        ([0.02, 0.02], 0, "by 2.0 points, the same with each seed; an interval needs more seeds."),
    ],
)  # fmt: skip
def test_the_verdict_is_one_sentence(leads, samples, words):
    sentence = verdict(summarize(seed_results(leads, samples)))
    assert words in sentence
    assert "\n" not in sentence


def test_a_verdict_without_baselines():
    results = [SeedResult([row("found network", 0.5, 0.5)], None)]
    assert verdict(summarize(results)) == "There is no baseline to compare the found network with."
    assert in_points(None) == ""


def test_pairing_over_samples_needs_all_seeds_and_single_labels(tmp_path):
    one, two = seed_results([0.01, 0.02], samples=40)
    assert all(m.sampled for m in summarize([one, two])[:-1])
    for other in (two._replace(correct=None), two._replace(correct=two.correct[:, 1:])):
        assert not any(m.sampled for m in summarize([one, other]))
    assert read_test_correct(tmp_path, 3) is None
    np.save(tmp_path / "test_correct.npy", one.correct)
    assert np.array_equal(read_test_correct(tmp_path, 3), one.correct)
    with pytest.raises(UsageError, match=r"for each of 4 rows of results.json and each test sample, but holds bool"):
        read_test_correct(tmp_path, 4)
    np.save(tmp_path / "test_correct.npy", one.correct.astype(np.float32))
    assert read_test_correct(tmp_path, 3) is None
    np.save(tmp_path / "test_correct.npy", one.correct.astype(int))
    with pytest.raises(UsageError, match="but holds int64"):
        read_test_correct(tmp_path, 3)


def test_the_tables_of_one_seed():
    methods = summarize(seed_results([0.04]))
    first, *lines = list(as_rows(methods))
    assert {len(line) for line in lines} == {len(first)}
    assert lines[1][:6] == ["late fusion", 1, 0.8, None, None, None]
    assert "late fusion         80.0  80.0                    +4.0" in as_text(methods)


# The command


def test_flags_reach_their_scripts():
    given = ["features", "--found_flags", "--schedule", "--datadir", "D", "--search_flags"]
    assert joined(given) == ["features", "--found_flags=--schedule", "--datadir", "D", "--search_flags"]
    assert words("--note 'a b' --x 1") == ["--note", "a b", "--x", "1"]
    with pytest.raises(UsageError, match="quoted as in a shell"):
        words("--note 'a")
    ((search, found),) = planned("ntu", [3], Path("o"), ["--a"], ["--b", "1"])
    assert search == ["main_searchable_ntu.py", "--a", "--seed", "3", "--run_dir", "o/seed-3/search"]
    assert found[:7] == ["main_found_ntu.py", "--b", "1", "--seed", "3", "--run_dir", "o/seed-3/found"]
    assert found[7:] == ["--conf", "o/seed-3/search/best.json"]


def test_what_has_run_is_not_run_again(tmp_path, monkeypatch, capsys):
    ran, failing = [], set()

    def run(command):
        folder = Path(command[-1])
        if folder.name in failing:
            return 3
        folder.mkdir(exist_ok=True)
        (folder / "args.json").touch()
        ran.append(folder.name)
        return 0

    monkeypatch.setattr("utils.interrupts.run_script", run)
    runs = [[[f"{part}.py", "--run_dir", str(tmp_path / f"{part}{seed}")] for part in "ab"] for seed in (0, 1)]
    failing.add("b0")
    with pytest.raises(ScriptError, match=r"b\.py --run_dir \S+b0 ended with exit code 3; the same") as failed:
        carry_out(runs, tmp_path / "study.json")
    assert failed.value.exit_code == 3
    failing.clear()
    carry_out(runs, tmp_path / "study.json")
    assert ran == ["a0", "b0", "a1", "b1"]
    assert "[1/4] finished: python" in capsys.readouterr().out
    (tmp_path / "a1/args.json").unlink()  # its search is to be run again, so what was found is, too
    carry_out(runs, tmp_path / "study.json")
    assert ran[4:] == ["a1", "b1"]
    monkeypatch.setattr("utils.interrupts.run_script", lambda command: -signal.SIGKILL)
    runs[0][0].insert(1, "--more")
    with pytest.raises(ScriptError, match="was killed by SIGKILL") as failed:
        carry_out(runs, tmp_path / "study.json")
    assert failed.value.exit_code == 1


def test_seeds_of_different_data_are_not_compared(tmp_path):
    for name, data in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        inputs = {"data": data, "configuration": name}
        (tmp_path / name / "args.json").write_text(json.dumps({"inputs": inputs}))
    check_inputs([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UsageError, match=r"/a and \S+/c read different data or checkpoints"):
        check_inputs([tmp_path / name for name in "abc"])


CHILD = """
import time
from utils import cli, interrupts
def main():
    with interrupts.gently():
        print("ready", flush=True)
        for _ in range(600):
            time.sleep(0.05)
            interrupts.check()
print("started", flush=True)
time.sleep(0.5)  # as the import of torch takes
cli.run(main)
"""
PARENT = "import sys; from utils import cli, interrupts; cli.run(lambda: sys.exit(interrupts.run_script(sys.argv[1:])))"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("early", [True, False])
def test_a_signal_reaches_the_script_once_even_before_it_is_ready(number, code, early):
    """Sent to the whole group, as a terminal does; a second one would end the script at once."""
    command = [sys.executable, "-c", PARENT, sys.executable, "-c", CHILD]
    study = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert study.stdout.readline() == "started\n"
    if not early:
        assert study.stdout.readline() == "ready\n"
    os.killpg(study.pid, number)
    _, errors = study.communicate(timeout=60)
    assert study.returncode == code, errors
    assert "Traceback" not in errors
    assert errors.count("finishing the current step") == (not early)


def test_the_exit_code_comes_back_and_handlers_are_kept():
    before = signal.getsignal(signal.SIGINT)
    assert run_script([sys.executable, "-c", "raise SystemExit(5)"]) == 5
    with pytest.raises(FileNotFoundError):
        run_script(["/no/such/program"])
    with pytest.raises(Interrupted):
        run_script([sys.executable, "-c", f"import os, signal; os.kill({os.getpid()}, signal.SIGTERM)"])
    assert signal.getsignal(signal.SIGINT) is before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder whose data/ has features of two modalities and three classes."""
    home, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    (home / "data").mkdir()
    for split, count in (("train", 150), ("dev", 60), ("test", 70)):
        labels = np.arange(count) % 3
        arrays = {"label": labels}
        for name in ("sound", "sight"):
            scores = (np.eye(3)[labels] + rng.normal(0, 0.9, (count, 3))).astype(np.float32)
            arrays |= {f"{name}.0": scores, f"{name}.1": np.abs(scores), f"{name}.logits": 2 * scores}
        np.savez(home / "data" / f"{split}.npz", **arrays)
    return home


STUDY = ("features", "--out", "studies/tiny", "--datadir", "data", "--no-verbose")
SEARCH = "--epochs 1 --search_iterations 1 --max_fusions 1"
FLAGS = (*STUDY, "--search_flags", SEARCH, "--found_flags", "--epochs 3")


@pytest.mark.slow
def test_a_study_is_interrupted_and_resumed(home, run_script):
    command = [sys.executable, "-m", "utils.study", *FLAGS, "--seeds", "0", "1"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    study = subprocess.Popen(command, cwd=home, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "main_found_features.py" not in study.stdout.readline():
        pass
    study.send_signal(signal.SIGTERM)
    _, errors = study.communicate(timeout=120)
    assert study.returncode == 143, errors
    assert errors.splitlines()[-1] == "stopped by SIGTERM; the same command resumes the study"
    assert "Traceback" not in errors
    assert not (home / "studies/tiny/study.csv").exists()

    printed = run_script("utils.study", *FLAGS, "--seeds", 0, 1, cwd=home).stdout
    commands = [line for line in printed.splitlines() if line.startswith("[")]
    assert ["finished" in line for line in commands] == [True, False, False, False]
    folders = [home / f"studies/tiny/seed-{seed}/found" for seed in (0, 1)]
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    with (home / "studies/tiny/study.csv").open(newline="") as file:
        table = {line["method"]: line for line in csv.DictReader(file)}
    assert list(table) == [one["name"] for one in results[0]["rows"]]
    assert len({json.loads((folder / "args.json").read_text())["settings"]["seed"] for folder in folders}) == 2
    found = np.array([one["rows"][-1]["test"] for one in results])
    for name, line in table.items():
        tests = np.array([one["test"] for result in results for one in result["rows"] if one["name"] == name])
        assert float(line["test_mean"]) == pytest.approx(tests.mean())
        assert float(line["test_deviation"]) == pytest.approx(tests.std(ddof=1))
        half = stats.t.ppf(0.975, 1) * tests.std(ddof=1) / np.sqrt(2)
        assert float(line["test_high"] or tests.mean()) - tests.mean() == pytest.approx(half)
        if name != "found network":
            assert float(line["lead_mean"]) == pytest.approx((found - tests).mean())
    sentence = next(line for line in printed.splitlines() if line.startswith("Over 2 seeds, the found network is "))
    page = (home / "studies/tiny/study.html").read_text()
    assert sentence in page
    assert "found network, 2 runs" in page  # one group, although each has a best.json of its own


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--seeds", 0, 0), "each seed is run once, but --seeds has 0 0"),
        (("--seeds", 0, "--seed", 1), "the study chooses --seed itself; leave it out"),
        (("--seeds", 0, "--found_flags", "--conf=[[0,0,0]]"), "the study chooses --conf itself; leave it out"),
        (
            ("--seeds", 0, "--found_flags", "--epohs 3"),
            "main_found_features.py: unrecognized argument --epohs; did",
        ),
    ],
)
def test_wrong_use_shows_before_anything_runs(flags, message, monkeypatch, tmp_path):
    from utils import study

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["utils.study", *STUDY, *map(str, flags)])
    with pytest.raises(UsageError) as error:
        study.main()
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []
