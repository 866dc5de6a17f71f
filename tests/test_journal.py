"""The journal: what a resumed search reads back, and what it refuses."""

import csv
import json
from pathlib import Path

import pytest
import torch

from utils.errors import UsageError
from utils.files import write_csv
from utils.progress import Progress
from utils.search.evaluate import JournaledEvaluator
from utils.search.journal import Journal, as_rows, best_of, read_journal
from utils.search.loop import Evaluation, SearchSettings, sequential_search
from utils.search.space import Space
from utils.search.surrogate import AccuracyPredictor

OLD = Path(__file__).parent / "fixtures" / "journal_format1.jsonl"  # of the program's first version
HEADER = {"search": "sequential", "modalities": ["audio", "image"], "sizes": [5, 3], "activations": ["relu", "sigmoid"]}
SETTINGS = SearchSettings(max_fusions=2, search_iterations=2, num_samples=4)


class Trains:
    """Trains nothing, but notes what it should have: the steps, and how many of their candidates were known."""

    together = 256

    def __init__(self):
        self.asked = []

    def __call__(self, configurations, step, known):
        self.asked.append((step, known))
        yield from (Evaluation([0.25], 1.0, correct=torch.ones(5)) for _ in configurations[known:])

    def restore_shared(self, configurations, step, known):
        pass


def replay(path: Path) -> tuple[list, Trains, list[dict]]:
    """The steps of the old journal's search on `path`, what was trained, and the journal's lines in the end."""
    trains = Trains()
    with Journal(path, HEADER) as journal, Progress(verbose=False) as progress:
        evaluate = JournaledEvaluator(trains, journal, progress)
        steps = list(sequential_search(Space((5, 3)), evaluate, AccuracyPredictor(3, 0, epochs=5), SETTINGS))
    return steps, trains, read_journal(path)[0]


def old_lines() -> list[str]:
    return OLD.read_text().splitlines(keepends=True)


def test_an_old_journal_replays_without_training(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(OLD.read_text())
    steps, trains, lines = replay(path)
    assert not trains.asked
    assert path.read_text() == OLD.read_text()
    candidates = [line for line in lines if line["kind"] == "candidate"]
    told = [(s.index, c.configuration, c.evaluation.accuracies) for s in steps for c in s.candidates]
    assert told == [(line["step"], tuple(map(tuple, line["configuration"])), line["accuracies"]) for line in candidates]


@pytest.mark.parametrize(("kept", "asked"), [(1, (0, 0)), (20, (0, 19)), (31, (1, 0)), (32, (1, 0)), (35, (1, 3))])
def test_a_search_goes_on_where_its_journal_ends(tmp_path, kept, asked):
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(old_lines()[:kept]))
    steps, trains, lines = replay(path)
    assert trains.asked[0] == asked
    assert [step for step, _ in trains.asked] == list(range(asked[0], 4))
    assert [s.index for s in steps] == [0, 1, 2, 3]
    assert sum(line["kind"] == "candidate" for line in lines) == SETTINGS.trainings(Space((5, 3)))
    assert path.read_text().startswith("".join(old_lines()[:kept]))


@pytest.mark.parametrize("rest", [b'{"kind": "cand', b"{", b"\0\0\0", old_lines()[5].rstrip().encode()])
def test_a_torn_last_line_is_cut_off_and_reported(tmp_path, capsys, rest):
    path = tmp_path / "journal.jsonl"
    path.write_bytes("".join(old_lines()[:5]).encode() + rest)
    with Journal(path, HEADER) as journal:
        assert len(journal.lines) == 5
        journal.append("features", {"seconds": 1.0})
    assert "cut off" in capsys.readouterr().err
    lines = path.read_text().splitlines(keepends=True)
    assert lines[:5] == old_lines()[:5]
    assert json.loads(lines[5]) == {"kind": "features", "seconds": 1.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "candidate", "step": 0', "line 3"),
        ("[1]", "it must be an object"),
        ('{"kind": "candidate", "step": 0, "configuration": [[0]], "accuracies": [], "seconds": 1}', "have failed"),
        ('{"kind": "candidate", "step": 0, "configuration": "x", "accuracies": [0.1], "seconds": 1}', "configuration"),
        ('{"kind": "candidate", "step": 0, "configuration": [[0]], "accuracies": [NaN], "seconds": 1}', "accuracies"),
    ],
)
def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path, line, message):
    path = tmp_path / "journal.jsonl"
    lines = old_lines()[:5]
    lines[2] = line + "\n"
    path.write_text("".join(lines))
    with pytest.raises(UsageError, match=message) as caught:
        Journal(path, HEADER)
    assert "line 3" in str(caught.value)
    assert path.read_text() == "".join(lines)


def test_the_journal_of_another_search_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text(OLD.read_text())
    with pytest.raises(UsageError, match="another search"):
        Journal(path, HEADER | {"sizes": [4, 4]})
    path.write_text(OLD.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(UsageError, match="not a journal of format 1"):
        Journal(path, HEADER)
    lines = old_lines()
    lines[2], lines[3] = lines[3], lines[2]
    path.write_text("".join(lines))
    with pytest.raises(UsageError, match="lists different candidates for step 0 than this search"):
        replay(path)


def test_the_best_keep_their_maximum_and_ties_their_order():
    def line(place: int, *accuracies: float) -> dict:
        return {"configuration": [[place, 0, 0]], "accuracies": accuracies} | ({} if accuracies else {"failed": "why"})

    lines = [line(0, 0.2, 0.6), line(1, 0.9, 0.5), line(2, 0.6), line(0, 0.1), line(2, 0.3), line(3, 0.7), line(4)]
    ranked = [(entry["configuration"][0][0], entry["accuracy"]) for entry in best_of(lines)]
    assert ranked == [(1, 0.9), (3, 0.7), (0, 0.6), (2, 0.6)]
    assert best_of(lines, count=1) == [{"configuration": ((1, 0, 0),), "accuracy": 0.9}]
    assert best_of([]) == []


def test_results_as_a_table(tmp_path):
    lines = [json.loads(line) for line in old_lines()[1:31]]
    lines[3] |= {"accuracies": [], "failed": "its loss, away"}
    write_csv(tmp_path / "results.csv", as_rows(lines))
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert len(rows) == 30
    assert rows[0]["configuration"] == "[[0,0,0]]"
    assert float(rows[0]["dev"]) == max(lines[0]["accuracies"])
    assert (rows[3]["dev"], rows[3]["failed"]) == ("", "its loss, away")
    assert [row["number"] for row in rows] == [str(n) for n in range(1, 31)]
