"""The table of a space: made by the benchmark's command line on small features, read back, and searched."""

import dataclasses
import importlib.util
import itertools
import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.lenet import AudioLeNet, ImageLeNet
from tests.conftest import ROOT
from utils.errors import UsageError
from utils.search.loop import SearchSettings, random_search, sequential_search
from utils.search.space import Space, as_configuration
from utils.search.surrogate import AccuracyPredictor
from utils.search.table import AccuracyTable, as_arrays, place_of, read_table, unranked
from utils.training.checkpoints import save_state

sys.path.insert(0, str(ROOT / "benchmarks"))
import algorithms
import raw_results
import searchers
import space_tables

pytestmark = pytest.mark.xdist_group("tabular")  # one process makes the table
SPACE = Space((2, 1))  # four rows
USUAL = SearchSettings(max_fusions=2)
FLAGS = ["--features", "--datadir", "data", "--epochs", 3, "--out", "table.npz", "--no-verbose"]


def toy(space=SPACE, depth=2, seeds=2, dev=50) -> AccuracyTable:
    rng, count = np.random.default_rng(0), len(space.rows())
    correct = {n: rng.integers(1, dev, (seeds, count**n, 3)).astype(np.uint16) for n in range(1, depth + 1)}
    seconds = {n: rng.random(values.shape[:2], np.float32) for n, values in correct.items()}
    return AccuracyTable(space, dev, correct, seconds, np.zeros(0, int), {"widths": [[4, 8], [3]]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory, script_runner):
    """Features of two modalities, and their table with a sample of three layers."""
    folder = tmp_path_factory.mktemp("tabular")
    (folder / "data").mkdir()
    torch.manual_seed(0)
    for split, count in (("train", 96), ("dev", 40)):
        labels = torch.randint(3, (count,))
        arrays = {name: (torch.randn(count, width) + labels[:, None]).numpy() for name, width in WIDTHS.items()}
        np.savez(folder / "data" / f"{split}.npz", label=labels.numpy(), **arrays)
    script_runner(folder, "benchmarks/make_table.py", *FLAGS, "--seeds", 2, 1, "--sample", 5)
    return folder


WIDTHS = {"a.0": 4, "a.1": 6, "b.0": 5}


@pytest.fixture(scope="module")
def table(folder):
    return read_table(folder / "table.npz")


@given(st.data())
def test_ranks_number_all_configurations(data):
    space = Space((data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))))
    layers, rows = data.draw(st.integers(1, 4)), space.rows()
    rank = data.draw(st.integers(0, len(rows) ** layers - 1))
    configuration = unranked(rank, rows, layers)
    assert AccuracyTable(space, 1, {}, {}, np.zeros(0), {}).rank(configuration) == rank
    assert len(configuration) == layers


def test_no_two_trainings_share_a_place():
    places = [place_of(i, layers) for layers in (1, 2, 3) for i in range(30**layers)]
    assert len(set(places)) == len(places)
    assert all(step == 0 for step, _ in places[:30])


def test_a_table_looks_up_what_it_holds(tmp_path):
    table = toy()
    with open(tmp_path / "t.npz", "wb") as file:
        np.savez_compressed(file, **as_arrays(table))
    again = read_table(tmp_path / "t.npz")
    assert (again.space, again.depth, again.epochs, again.seeds(2)) == (SPACE, 2, 3, 2)
    assert again.facts["widths"] == [[4, 8], [3]]
    rows = SPACE.rows()
    accuracy, seconds = again((rows[1], rows[2]), epoch=2, seed=1)
    assert accuracy == pytest.approx(table.correct[2][1, 4 + 2, 1] / 50)
    assert seconds == pytest.approx(table.seconds[2][1, 6] * 2 / 3)


def test_configurations_may_be_lists(table):
    (row,) = (row for row in table.space.rows() if row == (1, 0, 1))
    assert table([[1, 0, 1]], 3, 1) == table((row,), 3, 1)


def test_the_sample_is_looked_up_like_the_rest(table):
    for place, rank in enumerate(table.sampled.tolist()):
        configuration = unranked(rank, table.space.rows(), 3)
        assert table.configuration(3, place) == configuration
        assert table(configuration, 2, 0)[0] == pytest.approx(table.correct[3][0, place, 1] / 40)
    for rank in set(range(4**3)) - set(table.sampled.tolist()):
        with pytest.raises(UsageError, match=r"1 to 2 layers .*, and 5 of 3 layers, but not"):
            table(unranked(rank, table.space.rows(), 3), 2, 0)


def test_accuracies_are_those_of_the_best_epoch():
    table = toy()
    best = [max(table((SPACE.rows()[i],), epoch, 1)[0] for epoch in (1, 2, 3)) for i in range(4)]
    assert table.accuracies(1)[1].tolist() == best


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((((5, 0, 0),), 1, 0), "1 to 2 layers"),
        ((((0, 0, 0),) * 3, 1, 0), "1 to 2 layers"),
        ((((0, 0, 0),), 4, 0), "not epoch 4 of seed 0"),
        ((((0, 0, 0),), 0, 0), "not epoch 0 of seed 0"),
        ((((0, 0, 0),), 1, 2), "not epoch 1 of seed 2"),
        ((((0, 0, 0),), 1, -1), "not epoch 1 of seed -1"),
    ],
)
def test_what_a_table_lacks_is_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        toy()(*asked)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"facts": np.array("{}")}, "format"),
        ({"facts": np.array('{"format": 9, "sizes": [2, 1], "activations": [0, 1], "dev_samples": 5}')}, "format is 9"),
        ({"correct_2": np.zeros((2, 15, 3), np.uint16)}, "16 configurations of 2 layers"),
        ({"seconds_1": np.zeros((2, 5), np.float32)}, "4 configurations of 1 layers"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path, change, message):
    np.savez(tmp_path / "t.npz", **(as_arrays(toy()) | change))
    with pytest.raises(UsageError, match=message):
        read_table(tmp_path / "t.npz")


def test_searches_run_on_a_table():
    table, settings = toy(), SearchSettings(max_fusions=2, num_samples=3, search_iterations=2)
    surrogate = AccuracyPredictor(3, 0)
    for steps in (
        sequential_search(table.space, table.evaluator(1), surrogate, settings),
        random_search(table.space, table.evaluator(1), settings),
    ):
        for candidate in (c for step in steps for c in step.candidates):
            assert candidate.evaluation.accuracies == [table(candidate.configuration, e, 1)[0] for e in (1, 2, 3)]


def test_the_command_trains_what_was_asked(table, folder):
    assert (table.depth, table.epochs, table.dev_samples) == (2, 3, 40)
    assert [(n, values.shape) for n, values in table.correct.items()] == [
        (1, (2, 4, 3)),
        (2, (1, 16, 3)),
        (3, (1, 5, 3)),
    ]
    assert len(set(table.sampled.tolist())) == 5
    assert max(table.sampled) < 4**3
    assert all(values.min() > 0 for values in table.seconds.values())
    assert table.facts["training"]["epochs"] == 3
    assert table.facts["inputs"]["data"].keys() >= {"train.npz", "dev.npz"}


def test_one_layer_is_what_a_search_trains_first(table, folder, script_runner):
    flags = ["--datadir", "data", "--epochs", 3, "--run_dir", "run", "--max_fusions", 1, "--search_iterations", 1]
    script_runner(folder, "main_searchable_features.py", *flags, "--search", "published", "--seed", 1)
    lines = map(json.loads, (folder / "run/journal.jsonl").read_text().splitlines())
    for line in (line for line in lines if line["kind"] == "candidate"):
        configuration = tuple(map(tuple, line["configuration"]))
        tabulated = [table(configuration, epoch, seed=1)[0] for epoch in (1, 2, 3)]
        assert np.abs(np.array(tabulated) - line["accuracies"]).max() < 1.5 / 40  # kernels differ with the threads


def test_an_interrupted_table_continues(table, folder, script_runner):
    parts = sorted(path.name for path in (folder / "table.parts").iterdir())
    assert [name[:5] for name in parts] == ["1-0-0", "1-1-0", "2-0-0", "3-0-0", "facts"]
    (folder / "table.parts" / parts[2]).unlink()
    (folder / "table.npz").unlink()
    kept = (folder / "table.parts" / parts[0]).stat()
    script_runner(folder, "benchmarks/make_table.py", *FLAGS, "--seeds", 2, 1, "--sample", 5)
    assert (folder / "table.parts" / parts[0]).stat().st_mtime_ns == kept.st_mtime_ns
    again = read_table(folder / "table.npz")
    assert all(np.array_equal(again.correct[layers], values) for layers, values in table.correct.items())


def test_a_finished_table_is_extended(table, folder, script_runner, tmp_path):
    for name in ("data", "table.npz"):
        (tmp_path / name).symlink_to(folder / name) if name == "data" else shutil.copy(folder / name, tmp_path)
    script_runner(tmp_path, "benchmarks/make_table.py", *FLAGS, "--seeds", 2, 2, "--sample", 5)
    again = read_table(tmp_path / "table.npz")
    assert [name.name[:5] for name in (tmp_path / "table.parts").glob("*-*")] == ["2-1-0"]
    assert np.array_equal(again.correct[2][:1], table.correct[2])
    assert (again.seeds(2), again.seeds(3)) == (2, 1)
    flags = [*FLAGS, "--seeds", 2, 2, "--sample", 5]
    flags[flags.index("--epochs") + 1] = 4
    done = script_runner(tmp_path, "benchmarks/make_table.py", *flags, code=2)
    assert "table.npz holds trainings with training" in done.stderr
    done = script_runner(tmp_path, "benchmarks/make_table.py", *FLAGS, "--seeds", 1, 2, "--sample", 5, code=2)
    assert "holds 2 seeds of 1 layers, but --seeds asks for 1" in done.stderr
    done = script_runner(tmp_path, "benchmarks/make_table.py", *FLAGS, "--seeds", 2, 2, "--sample", 6, code=2)
    assert "holds a sample of 5, not 6" in done.stderr


def test_trained_alone_a_configuration_has_the_accuracy_of_the_table(folder, script_runner):
    done = script_runner(folder, "benchmarks/make_table.py", *FLAGS, "--check", 4)
    assert "4 of 4 equal; largest difference: 0 of 40 dev samples" in done.stdout
    assert "gives the same journal" in done.stdout


def test_all_algorithms_search_the_table_and_record_their_regret(folder, script_runner):
    flags = ["--table", "table.npz", "--runs", 3, "--trainings", 12, "--processes", 1, "--no-verbose"]
    script_runner(folder, "benchmarks/searchers.py", *flags, "--searchers", *ALGORITHMS, "--out", "results/regret.npz")
    arrays = np.load(folder / "results/regret.npz")
    for name in ALGORITHMS:
        validation, others, seconds = arrays[name].swapaxes(0, 1)
        assert validation.shape == others.shape == seconds.shape == (3, 2)
        assert (validation >= 0).all()
        assert np.isnan(others).any()  # with two layers, there is one seed
        assert (np.diff(validation) <= 0).all()  # the best so far
        assert (np.diff(seconds) >= 0).all()
    assert (arrays["local search"][:, 0, -1] < arrays["local search"][:, 0, 0]).any()
    before = (folder / "results/regret.npz").stat()
    script_runner(folder, "benchmarks/searchers.py", *flags, "--searchers", *ALGORITHMS, "--out", "results/regret.npz")
    assert (folder / "results/regret.npz").stat().st_mtime_ns == before.st_mtime_ns  # nothing was missing
    fewer = [2 if flag == 3 else flag for flag in flags]
    script_runner(folder, "benchmarks/searchers.py", *fewer, "--searchers", *ALGORITHMS, "--out", "results/regret.npz")
    assert (folder / "results/regret.npz").stat().st_mtime_ns == before.st_mtime_ns  # nor too many
    flags[flags.index(12)] = 13
    flags += ["--searchers", *ALGORITHMS]
    done = script_runner(folder, "benchmarks/searchers.py", *flags, "--out", "results/regret.npz", code=2)
    assert "holds runs on another table or of another length" in done.stderr


def test_tpe_needs_optuna_and_says_so(folder, script_runner):
    flags = ["--table", "table.npz", "--runs", 1, "--trainings", 5, "--processes", 1, "--no-verbose"]
    flags += ["--searchers", "TPE", "--out", "results/tpe.npz"]
    if importlib.util.find_spec("optuna"):
        script_runner(folder, "benchmarks/searchers.py", *flags)
        assert np.load(folder / "results/tpe.npz")["TPE"].shape == (1, 3, 1)
    else:
        done = script_runner(folder, "benchmarks/searchers.py", *flags, code=2)
        assert "pip install -r benchmarks/requirements.txt" in done.stderr


def test_the_published_search_cools_as_in_its_script():
    run = algorithms.settings(toy(), 7)
    steps = list(sequential_search(SPACE, toy().evaluator(0), algorithms.NoPredictor(toy(), 7), run))
    usual = list(sequential_search(SPACE, toy().evaluator(0), algorithms.NoPredictor(toy(), 7), USUAL))
    assert [step.temperature for step in steps] == [step.temperature for step in usual]


def test_regret_with_other_seeds_uses_those_that_the_run_did_not_see():
    table = toy()
    truth, best = searchers.Truth(table, run=3), table.correct[2].max(2) / 50  # run 3 sees seed 1
    assert truth.other((SPACE.rows()[1], SPACE.rows()[2])) == pytest.approx(best[0, 6])
    assert truth.best_other() == pytest.approx(max(best[0].max(), table.correct[1].max(2)[0].max() / 50))
    assert truth.best() == pytest.approx(max(best[1].max(), table.correct[1].max(2)[1].max() / 50))
    assert table.accuracies(1)[1].argmax() == 0
    assert table.accuracies(1)[1, 0] > best[1].max()
    assert truth.regret_of_all() == pytest.approx(truth.best_other() - table.accuracies(1)[0, 0])


@pytest.mark.parametrize("name", ["regularized evolution", "local search", "greedy by level", "improved search"])
def test_no_configuration_costs_twice(name):
    table = toy()
    trained = list(itertools.islice(algorithms.SEARCHERS[name](table, table.evaluator(0), 0), 30))
    assert len(trained) == len(set(trained)) == SPACE.configurations(2)


ALGORITHMS = [
    "published search",
    "random search",
    "improved search",
    "regularized evolution",
    "local search",
    "greedy by level",
    "published, without surrogate",
    "published, perfect surrogate",
    "published, K = 5",
    "improved, posterior draws",
    "improved, layers compared apart",
]


def test_a_sample_trains_longer_and_wider_in_pieces(folder, script_runner):
    flags = ["--features", "--datadir", "data", "--epochs", 3, "--table", "table.npz", "--out", "ranking.json"]
    flags += ["--count", 10, "--to_the_end", 10, "--end_epochs", 2, "--no-verbose"]
    script_runner(folder, "benchmarks/ranking.py", *flags)
    figures = json.loads((folder / "ranking.json").read_text())
    assert len({json.dumps(c) for c in figures["configurations"]}) == 10
    assert list(figures["accuracies"]) == ["search", "ten epochs", "64 units", "to the end"]
    assert all(len(values) == 10 for values in figures["accuracies"].values())
    assert all(0 < value <= 1 for values in figures["accuracies"].values() for value in values)
    whole = dict(figures["accuracies"])
    figures["accuracies"] |= {"64 units": [], "to the end": []}
    (folder / "ranking.json").write_text(json.dumps(figures))
    script_runner(folder, "benchmarks/ranking.py", *flags)
    assert json.loads((folder / "ranking.json").read_text())["accuracies"] == whole


@pytest.mark.slow
def test_the_best_and_random_ones_of_a_sample_are_fine_tuned(run_script, tmp_path):
    run_script("avmnist_gen.py", "--source", "embedded", "--limit_train", 120, "--limit_test", 20, "--datadir", "data")
    for name, network in (("audio", AudioLeNet()), ("image", ImageLeNet())):
        save_state(tmp_path / f"networks/{name}_model.pkl", network.state_dict())
    folders = ["--datadir", "data", "--checkpointdir", "networks", "--no-verbose"]
    command = ["benchmarks/make_table.py", *folders, "--seeds", 1, "--out", "table.npz"]
    assert "--sample must be at most 900," in run_script(*command, code=2).stderr
    run_script(*command, "--sample", 0)
    flags = [*folders, "--table", "table.npz", "--count", 10, "--to_the_end", 10, "--end_epochs", 1]
    flags += ["--out", "ranking.json", "--fine_tune", 1]
    done = run_script("benchmarks/ranking.py", *flags, code=2)
    assert "--fine_tune needs --work" in done.stderr
    run_script("benchmarks/ranking.py", *flags, "--work", "work")
    figures = json.loads((tmp_path / "ranking.json").read_text())
    table, tuned = read_table(tmp_path / "table.npz"), figures["fine-tuned"]["rows"]
    scores = [table.correct[1][0, table.rank(as_configuration(c))].max() for c in figures["configurations"]]
    assert len(tuned) == 2
    assert max(scores) in [scores[int(place)] for place in tuned]
    for place, row in tuned.items():
        (path,) = (tmp_path / "work").glob(f"{place}-*/results.json")
        results = json.loads(path.read_text())
        assert results["configuration"] == figures["configurations"][int(place)]
        assert [row["dev"], row["test"]] == [results["rows"][-1][split] for split in ("dev", "test")]
    assert [scores[int(place)] for place, row in tuned.items() if row["best"]] == [max(scores)]
    flags[-1] = 2
    done = run_script("benchmarks/ranking.py", *flags, "--work", "work", code=2)
    assert "ranking.json has --fine_tune 1, not 2" in done.stderr
    flags[-1] = 6
    done = run_script("benchmarks/ranking.py", *flags, "--work", "work", code=2)
    assert "--fine_tune must be at most half of the 10 trained to the end, but is 6" in done.stderr
    assert sorted(path.name for path in (tmp_path / "networks").glob("*.*")) == ["audio_model.pkl", "image_model.pkl"]


def test_the_documents_are_filled_from_the_results(folder, script_runner, tmp_path):
    results = tmp_path / "docs/results"
    results.mkdir(parents=True)
    (results / "noisy-views.npz").write_bytes((folder / "table.npz").read_bytes())
    arrays = {}
    for seed, right in enumerate(([0, 1, 1, 1], [1, 1, 0, 1])):
        correct = np.array([[1, 0, 0, 0], [1, 1, 1, 1], right], bool)
        names = ("audio only", "best of the improved search", "best of the published search")
        rows = [{"name": name, "dev": 0.5, "test": c.mean()} for name, c in zip(names, correct, strict=True)]
        arrays |= {f"rows_{seed}": json.dumps(rows), f"correct_{seed}": correct}
    np.savez(results / "methods-avmnist-paper.npz", **arrays)
    for name in ("benchmark.md", "results.md"):
        (tmp_path / "docs" / name).write_text((ROOT / "docs" / name).read_text())
    script_runner(tmp_path, "benchmarks/make_results.py", "--docs", "docs")
    text = (tmp_path / "docs/benchmark.md").read_text()
    assert "| digits, noisy views (`noisy-views.npz`) | 2 x 1 x 2 | 96 + 40 |" in text
    assert (results / "space.png").read_bytes().startswith(b"\x89PNG")
    cells = [line.split(" | ") for line in (tmp_path / "docs/results.md").read_text().splitlines()]
    (row,) = (row for row in cells if row[:3] == ["| audio only", "50.0 (0.0)", "25.0 (0.0)"])
    assert [cell.split(" ")[0] for cell in row[3:5]] == ["+50.0", "+75.0"]  # leads of the published and improved search
    assert row[3].startswith("+50.0 (-; ")  # the seeds are equal: no interval over them, but one over samples
    (row,) = (row for row in cells if row[:3] == ["| best of the improved search", "50.0 (0.0)", "100.0 (0.0)"])
    assert row[3].split(" ")[0] == "-25.0"
    script_runner(tmp_path, "benchmarks/make_results.py", "--docs", "docs", "--check")
    (tmp_path / "docs/benchmark.md").write_text(text.replace("96 + 40", "96 + 41"))
    done = script_runner(tmp_path, "benchmarks/make_results.py", "--docs", "docs", "--check", code=2)
    assert "benchmark.md is not what the results give" in done.stderr


def summaries(**parts: object) -> raw_results.Results:
    """Raw results that are made up."""
    results = raw_results.Results(ROOT)
    vars(results).update(parts)
    return results


def cells(text: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]


def test_rank_correlations_and_differences_have_intervals():
    rng = np.random.default_rng(0)
    a = rng.random(40)
    b = np.round(a + rng.random(40), 1)  # with ties
    found = raw_results.rank_correlation(a, b)
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic)
    assert found.low < found.value < found.high <= 1
    values = np.arange(8.0)
    assert raw_results.interquartile_mean(values).value == 3.5
    assert raw_results.interquartile_difference(values, values[::-1] - 1).value == 1
    assert raw_results.interquartile_difference(values + 2, values) == (2, 2, 2)  # paired
    assert raw_results.interquartile_difference(values, values + 2).shown(sign="+") == "-2.00 (-2.00 to -2.00)"


def test_the_noise_among_the_best_is_judged_by_other_seeds():
    space, rng = Space((10, 4)), np.random.default_rng(1)
    quality, dev = rng.integers(1000, 9000, 80**2), 10_000
    for deviation, share in ((0, "0 %"), (4000, None)):
        noise = np.round(deviation * rng.standard_normal((3, 80**2, 1)))
        counts = np.clip(quality[None, :, None] + noise, 1, dev).astype(np.uint16)
        correct = {1: np.full((3, 80, 1), 5000, np.uint16) + np.arange(80)[None, :, None].astype(np.uint16), 2: counts}
        table = AccuracyTable(space, dev, correct, {}, np.zeros(0, int), {})
        one, two = cells(space_tables.noise(summaries(tables={"noisy-views": table})))
        assert one[4:] == ["-", "-"]  # the best 5 % of 80 are too few
        shares = [float(two[i].removesuffix(" %")) for i in (3, 5)]
        if share:
            assert shares == [0, 0]
        else:
            assert 40 < shares[0] < shares[1] < 100


def test_two_pairs_of_networks_are_compared():
    table = toy()
    same = {"avmnist-multibench": table, "avmnist-multibench-2": table}
    assert [row[2:] for row in cells(space_tables.networks(summaries(tables=same)))] == [
        ["1.000", "-", "0.00 and 0.00"]
    ] * 2
    other = dataclasses.replace(
        table, correct={n: np.repeat(c.max(2)[..., None], 3, 2) for n, c in table.correct.items()}
    )
    worst = dataclasses.replace(other, correct={n: 50 - c for n, c in other.correct.items()})
    rows = cells(space_tables.networks(summaries(tables={"avmnist-multibench": other, "avmnist-multibench-2": worst})))
    spans = [100 * float(np.ptp(other.accuracies(n).mean(0))) for n in (1, 2)]
    assert [row[2] for row in rows] == ["-1.000", "-1.000"]
    assert [row[4] for row in rows] == [f"{span:.2f} and {span:.2f}" for span in spans]


def test_a_sample_is_grouped_by_the_last_features_that_it_reads():
    table = toy(Space((2, 2)))
    sample = [[[1, 1, 0]], [[1, 0, 0], [0, 1, 0]], [[1, 1, 0], [0, 0, 1]], [[0, 1, 0]]]
    ranking = {"configurations": sample, "accuracies": {"to the end": [0.9, 0.8, 0.7]}}
    rows = cells(space_tables.last_features(summaries(tables={"avmnist-paper": table}, ranking=ranking)))
    scores = [100 * table.accuracies(len(c))[0, table.rank(as_configuration(c))] for c in sample]
    assert [row[1:3] for row in rows[:3]] == [
        ["both, in the last layer", "1"],
        ["both, elsewhere", "2"],
        ["not both", "1"],
    ]
    assert [float(row[3]) for row in rows[:3]] == pytest.approx([scores[0], min(scores[1:3]), scores[3]], abs=0.06)
    assert [row[1:] for row in rows[3:]] == [
        ["both, in the last layer", "1", "90.0", "90.0", "90.0"],
        ["both, elsewhere", "2", "70.0", "75.0", "80.0"],
    ]


@pytest.mark.filterwarnings("ignore")  # two configurations have no interval
def test_a_fine_tuned_sample_is_shown_when_it_is_complete(tmp_path):
    (tmp_path / "avmnist-paper.npz").symlink_to(ROOT / "docs/results/avmnist-paper.npz")
    figures = json.loads((ROOT / "docs/results/ranking-avmnist-paper.json").read_text())
    rows = {"3": {"best": True, "dev": 0.91, "test": 0.9}, "8": {"best": False, "dev": 0.81, "test": 0.8}}
    for kept in (1, 2):
        figures["fine-tuned"] = {"count": 1, "rows": dict(list(rows.items())[:kept])}
        (tmp_path / "ranking-avmnist-paper.json").write_text(json.dumps(figures))
        text = space_tables.longer(raw_results.Results(tmp_path))
        assert ("the same, the 1 best by score and as many random ones | 2 |" in text) == (kept == 2)
    (row,) = (line.split(" | ") for line in text.splitlines() if "with all weights" in line)
    assert (row[1], row[5:]) == ("2", ["86.0", "91.0 |"])  # number, median and highest


def test_the_example_compares_two_searches(monkeypatch, capsys):
    compared, published = re.findall(r"```python\n(.*?)```", (ROOT / "docs/benchmark.md").read_text(), re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(compile(compared, "docs/benchmark.md", "exec"), names)
    random, mutations = (float(line.split()[1]) for line in capsys.readouterr().out.splitlines())
    assert 0 < mutations < random < 0.1
    exec(compile(published, "docs/benchmark.md", "exec"), names)
    steps = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(step) for step, _ in steps] == list(range(9))
    assert all(0.5 < float(best) < 1 for _, best in steps)


def test_the_document_shows_the_results_as_they_are(script_runner, tmp_path):
    script_runner(tmp_path, "benchmarks/make_results.py", "--check")
