"""Several runs on one page: groups of runs that differ only in their seed, mean and deviation, differences."""

import json
import re
from itertools import pairwise
from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report_samples import checked, found_run, search_run, unimodal_run, update
from utils.errors import UsageError
from utils.report import write_comparison
from utils.report.compare import group_runs
from utils.report.contents import read_files
from utils.report.page import percentages
from utils.report.plots import spaced


@pytest.fixture
def runs(tmp_path):
    for seed in (0, 1, 2):
        search_run(tmp_path / f"search{seed}", seed=seed)
    search_run(tmp_path / "random", random_search=True, seed=0, iterations=2)
    unimodal_run(tmp_path / "alone0", seed=0, test=0.6)
    unimodal_run(tmp_path / "alone1", seed=1, test=0.7)
    found_run(tmp_path / "found")
    names = ["search0", "search1", "search2", "random", "alone0", "alone1", "found"]
    return [tmp_path / name for name in names]


def test_runs_on_a_stand_in_are_marked(runs, tmp_path):
    for folders, marked in ((runs[:3], False), ([runs[0], tmp_path / "found"], True)):
        page = write_comparison(folders, tmp_path / "pages.html", set()).read_text()
        assert ("use a stand-in for AV-MNIST" in page) == marked


def test_groups_are_runs_that_differ_in_their_seed(runs):
    groups = group_runs({folder: read_files(folder) for folder in runs}, ())
    assert [(g.letter, g.kind, len(g.runs)) for g in groups] == [
        ("A", "sequential search", 3),
        ("B", "random search", 1),
        ("C", "AudioLeNet", 2),
        ("D", "found network", 1),
    ]
    best = [json.loads((folder / "best.json").read_text())["configurations"][0]["accuracy"] for folder in runs[:3]]
    assert [run.dev for run in groups[0].runs] == best == [run.curve[-1] for run in groups[0].runs]


def test_settings_make_groups_unless_they_are_ignored(runs):
    settings = json.loads((runs[1] / "args.json").read_text())["settings"]
    update(runs[1] / "args.json", settings=settings | {"epochs": 5, "num_workers": 3})
    page = checked(write_comparison(runs[:3], runs[0] / "compare.html", {"epochs"}))
    assert "apart from seed, epochs and" in page.text
    files = {folder: read_files(folder) for folder in runs[:3]}
    assert [len(g.runs) for g in group_runs(files, ())] == [2, 1]
    assert [len(g.runs) for g in group_runs(files, {"epochs"})] == [3]


def test_the_page(runs, tmp_path):
    page = checked(write_comparison(runs, tmp_path / "compare.html", set()))
    best = [100 * run.dev for run in group_runs({f: read_files(f) for f in runs[:3]}, ())[0].runs]
    assert f"A: sequential search, 3 runs {mean(best):.1f} ± {stdev(best):.1f} % - 195 2 min 20 s ± 0.0 s" in page.text
    assert f"{runs[0]} {best[0]:.1f} % - 195 2 min 20 s" in page.text
    assert "C: AudioLeNet, 2 runs 70.0 ± 0.0 % 65.0 ± 7.1 % - 12.0 s ± 0.0 s" in page.text
    assert "D: found network, 1 run 95.1 % 94.1 % 195 1 min 35 s" in page.text
    assert (
        "group kind script A sequential search search.py B random search search.py C AudioLeNet train.py" in page.text
    )
    assert page.text.endswith("setting of search.py A B randsearch False True")  # nothing else differs
    searches, trainings = page.drawings
    lines = [line.get("class").split() for line in searches.findall("polyline")]
    assert [("bold" in line, line[1]) for line in lines] == [(False, "k0")] * 3 + [(True, "k0"), (True, "k1")]
    assert len(searches.findall("polyline")[-1].get("points").split()) == 2 * (30 + 7 * 15)
    assert [t.text for t in trainings.findall("text")][-2:] == ["C", "D"]


def test_the_mean_line_is_the_mean_of_the_lines(tmp_path):
    for seed, last in ((0, 0.7), (1, 0.9)):
        unimodal_run(tmp_path / str(seed), seed=seed)
        epochs = [{"epoch": 0, "dev_accuracy": 0.5}, {"epoch": 1, "dev_accuracy": last}]
        update(tmp_path / str(seed) / "results.json", epochs=epochs)
    page = checked(write_comparison([tmp_path / "0", tmp_path / "1"], tmp_path / "compare.html", set()))
    first, second, bold = [line.get("points").split() for line in page.drawings[0].findall("polyline")]
    ends = [float(points[-1].split(",")[1]) for points in (first, second, bold)]
    assert ends[2] == pytest.approx((ends[0] + ends[1]) / 2, abs=0.11)
    assert "mean at the end: A 80.00 %" in page.drawings[0].get("aria-label")


def test_the_command_writes_all_reports_and_the_comparison(runs, run_script, tmp_path):
    update(runs[3] / "args.json", settings={"seed": 7})
    done = run_script("utils.report", *runs[:4], "--out", tmp_path / "pages.html")
    written = [*(folder / "report.html" for folder in runs[:4]), tmp_path / "pages.html"]
    assert done.stdout.split() == list(map(str, written))
    assert all(path.read_text().startswith("<!doctype html>") for path in written)
    done = run_script("utils.report", runs[0], runs[0], code=2)
    assert done.stderr == f"error: each run is compared once, but {runs[0]} is given more than once\n"


def test_runs_without_results_are_listed(tmp_path):
    search_run(tmp_path / "begun")
    (tmp_path / "begun/best.json").unlink()
    (tmp_path / "begun/journal.jsonl").unlink()
    unimodal_run(tmp_path / "alone")
    page = checked(write_comparison([tmp_path / "begun", tmp_path / "alone"], tmp_path / "compare.html", set()))
    assert "A: run, 1 run - - - -" in page.text
    assert "A run search.py B AudioLeNet train.py" in page.text


def found_pair(home, name: str, conf: str, **searched: object) -> list:
    """Two found runs with a search each, of seeds 0 and 1; `conf` is formatted with the search's folder."""
    folders = []
    for seed in (0, 1):
        search, folder = home / f"{name}-search{seed}", home / f"{name}-found{seed}"
        search_run(search, levels=1, iterations=1, seed=seed)
        settings = json.loads((search / "args.json").read_text())["settings"]
        update(search / "args.json", settings=settings | searched)
        found_run(folder, stand_in=False)
        update(folder / "args.json", settings={"seed": seed, "conf": conf.format(search), "epochs": 3})
        rows = json.loads((folder / "results.json").read_text())["rows"]
        for row in rows[:-1]:
            row["test"] -= 0.01 * seed
        update(folder / "results.json", rows=rows)
        rng = np.random.default_rng(seed)
        np.save(folder / "test_correct.npy", rng.random((len(rows), 200)) < [[row["test"]] for row in rows])
        folders.append(folder)
    return folders


def sizes(folders, ignored=(), labels=None) -> list[int]:
    return [len(g.runs) for g in group_runs({folder: read_files(folder) for folder in folders}, ignored, labels)]


def test_found_runs_of_several_seeds_belong_together_whatever_the_path_of_their_search(tmp_path):
    runs = found_pair(tmp_path, "a", "{}/best.json") + found_pair(tmp_path, "b", "{}")
    assert sizes(runs) == [4]
    others = found_pair(tmp_path, "c", "{}/best.json", drpt=0.1)  # another search
    assert sizes([*runs, *others]) == [4, 2]
    assert sizes([*runs, *others], {"search.drpt"}) == [6]
    page = checked(write_comparison([*runs, *others], tmp_path / "compare.html", set()))
    assert "search.drpt - 0.1" in page.text
    gone = found_pair(tmp_path, "d", "elsewhere/best.json")
    assert sizes(gone) == [2]


def test_a_configuration_makes_a_group_however_it_was_given(tmp_path):
    number, rows = found_pair(tmp_path, "a", "0"), found_pair(tmp_path, "b", "[[3, 2, 0]]")
    assert sizes([*number, *rows]) == [4]  # their results.json hold the same configuration
    for folder in rows:
        update(folder / "results.json", configuration=[[3, 2, 0]])
    assert sizes([*number, *rows]) == [2, 2]
    for folder in rows:
        (folder / "results.json").unlink()
    assert sizes(rows) == [2]


def test_unknown_settings_to_ignore_are_refused(tmp_path):
    runs = found_pair(tmp_path, "a", "{}/best.json")
    assert sizes(runs, {"seed"}) == [2]
    with pytest.raises(UsageError, match=r"no run has 'epohcs'; near it: epochs"):
        sizes(runs, {"epohcs"})
    with pytest.raises(UsageError, match=r"no run has 'zzz'; there are .*conf, epochs, "):
        sizes(runs, {"zzz"})


def test_labels_name_groups(tmp_path, run_script):
    first, second = found_pair(tmp_path, "a", "{}/best.json"), found_pair(tmp_path, "b", "{}/best.json")
    labels = dict.fromkeys(first, "mine") | dict.fromkeys(second, "theirs")
    assert sizes([*first, *second]) == [4]
    assert sizes([*first, *second], (), labels) == [2, 2]
    run_script("utils.report", second[0], "--label", "mine", *first, "--out", tmp_path / "pages.html")
    page = checked(tmp_path / "pages.html")
    assert "A: found network, 1 run" in page.text
    assert "B: mine (found network), 2 runs" in page.text


def test_labels_that_name_nothing_are_refused(tmp_path, monkeypatch):
    from utils.report import __main__ as command

    run = found_pair(tmp_path, "a", "0")[0]
    cases = (
        (["--label", "mine"], "--label takes a name and the folders of its runs, but mine is followed by none"),
        ([], "name the folder of at least one run"),
        ([str(run), "--label", "mine", str(run)], "is given more than once"),
    )
    for arguments, message in cases:
        monkeypatch.setattr("sys.argv", ["utils.report", *arguments])
        with pytest.raises(UsageError, match=re.escape(message)):
            command.main()


def test_the_found_network_is_set_beside_its_baselines_over_seeds(tmp_path):
    runs = found_pair(tmp_path, "a", "{}/best.json")
    page = checked(write_comparison(runs, tmp_path / "compare.html", set()))
    assert (
        "Over 2 seeds, the found network is ahead of the best simple baseline (late fusion, sum of log-softmax) by 4.2 "
        "points (95 % interval over seeds -2.1 to +10.6, over seeds and samples "
    ) in page.text
    row = "late fusion, sum of log-softmax 91.6 ± 0.0 % 89.9 ± 0.7 % 83.5 to 96.2 +4.2 -2.1 to +10.6 over"
    assert re.search(rf"{re.escape(row)} seeds and samples: \S+ to \S+ 12\.0 s ± 0\.0 s", page.text)
    assert "found network 95.1 ± 0.0 % 94.1 ± 0.0 % - 1 min 35 s ± 0.0 s" in page.text
    leads = page.drawings[0]
    assert "late fusion, sum of log-softmax +4.2" in leads.get("aria-label")
    assert len(leads.findall("polyline")) == 8
    for folder in runs:
        (folder / "test_correct.npy").unlink()
    page = checked(write_comparison(runs, tmp_path / "compare.html", set()))
    assert "over seeds and samples:" not in page.text
    assert len(page.drawings[0].findall("polyline")) == 4
    page = checked(write_comparison([runs[0], runs[0].with_name("a-search0")], tmp_path / "compare.html", set()))
    assert "an interval over seeds needs two." in page.text
    assert "Lead of the found network over" not in page.text


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8))
def test_labels_are_moved_apart_in_their_order(places):
    moved = spaced(places, 10)
    assert all(new <= old for new, old in zip(moved, places, strict=True))
    ordered = sorted(moved)
    assert all(b - a >= 10 - 1e-9 for a, b in pairwise(ordered))
    assert [x for _, x in sorted(zip(moved, places, strict=True))] == sorted(places)


def test_spread_ignores_what_is_unknown():
    assert percentages([0.5, None, 0.7]) == "60.0 ± 14.1 %"
    assert percentages([0.5, None]) == "50.0 %"
    assert percentages([None]) == "-"
