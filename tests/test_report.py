"""The report is a whole, self-contained page that shows the values of the run's files."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils import svg
from utils.cli import UsageError
from utils.page import duration
from utils.report import write_report
from utils.run_files import read_files

ARGS = {
    "command": "python main_searchable_avmnist.py --datadir 'a<b>&c'",
    "settings": {"epochs": 3, "run_dir": None, "note": "<script>alert(1)</script>"},
    "versions": {"python": "3.11.7", "torch": "2.9.1"},
}
SIZES = {"audio": 5, "image": 3}


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def search_run(folder: Path, levels: int = 4, iterations: int = 3, random_search: bool = False) -> list[dict]:
    """Write the files of a search whose accuracies grow with the layers and features; returns its candidates."""
    rng = np.random.default_rng(0)
    lines = [{"kind": "header", "format": 1, "search": "random" if random_search else "sequential"}]
    lines[0] |= {"modalities": list(SIZES), "sizes": list(SIZES.values()), "activations": ["relu", "sigmoid"]}
    for step in range(levels * iterations):
        count = 15 if step else 30
        for _ in range(count):
            length = int(rng.integers(1, levels + 1)) if random_search else min(step, levels - 1) + 1
            rows = [[int(rng.integers(5)), int(rng.integers(3)), int(rng.integers(2))] for _ in range(length)]
            score = 0.5 + 0.03 * length + sum(0.02 * a + 0.03 * b for a, b, _ in rows) / length + step * 0.01
            score = float(min(score + rng.normal() * 0.03, 0.99))
            predicted = score + float(rng.normal()) * 0.04 if step and not random_search else None
            line = {"kind": "candidate", "step": step, "configuration": rows, "predicted": predicted}
            lines.append(line | {"accuracies": [score - 0.1, score, score - 0.02], "seconds": 0.4})
        line = {"kind": "step", "step": step, "search_iteration": step // levels, "level": step % levels}
        line |= {"candidates": count, "seconds": 6.0}
        if not random_search:
            line |= {
                "temperature": 0.2 + 9.8 * float(np.exp(-((step + 1) ** 2) / 16)),
                "surrogate_loss": 0.01 / (step + 1),
            }
            line |= {"rank_correlation": 0.9 - 0.5 / step if step else float("nan")}
        lines.append(line)
    write_lines(folder / "journal.jsonl", lines)
    candidates = [line for line in lines if line["kind"] == "candidate"]
    top = sorted(candidates, key=lambda line: -max(line["accuracies"]))[:5]
    best = {"configurations": [{"configuration": c["configuration"], "accuracy": max(c["accuracies"])} for c in top]}
    best |= {"candidates_trained": len(candidates), "seconds": 140.0, "modalities": list(SIZES)}
    best["seconds_by_part"] = {"extraction": 20.0, "training": 100.0, "surrogate": 15.0, "other": 5.0}
    (folder / "best.json").write_text(json.dumps(best))
    (folder / "args.json").write_text(json.dumps(ARGS))
    return candidates


def found_run(folder: Path, stand_in: bool = True, classes: int = 10) -> None:
    """Write the files of a found network's training."""
    conf = [[3, 2, 0], [3, 1, 1], [0, 2, 0], [4, 2, 0]]
    names = ["image only", "audio only", "late fusion, mean of softmax", "late fusion, sum of log-softmax"]
    rows = [
        {"name": name, "dev": dev, "test": dev - 0.0123, "seconds": 12.0, "configuration": None}
        for name, dev in zip(names, (0.73, 0.75, 0.889, 0.916), strict=True)
    ]
    found = {"name": "found network", "dev": 0.951, "test": 0.9412, "seconds": 95.0, "configuration": conf}
    epochs = [
        {"epoch": e, "phase": "all" if e else "central", "train_loss": 2 / (e + 1), "train_accuracy": 1 - 0.5 / (e + 1),
         "dev_accuracy": 0.95 - 0.5 / (e + 1), "learning_rate": 1e-3}
        for e in range(20)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    confusion = (rng.integers(0, 9, (classes, classes)) + 950 * np.eye(classes, dtype=int)).tolist()
    results = {"configuration": conf, "modalities": list(SIZES), "rows": [*rows, found | {"candidates_trained": 195}]}
    results |= {"epochs": epochs, "best_epoch": 17, "stand_in": stand_in, "checkpoint": "best_4_0.9412.checkpoint"}
    (folder / "results.json").write_text(json.dumps(results | {"confusion": confusion}))
    (folder / "args.json").write_text(json.dumps(ARGS))


class Page(HTMLParser):
    """Checks that elements nest and collects the words shown."""

    VOID = ("meta", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open, self.names, self.words = [], [], []
        self.source = path.read_text()
        self.feed(self.source)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())
        self.drawings = [ElementTree.fromstring(s) for s in re.findall(r"<svg.*?</svg>", self.source, re.S)]

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        assert not {"src", "href", "onload", "onclick"} & {name for name, _ in attributes}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def report(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    page = Page(path)
    assert not re.search(r"https?://|<script|@import|url\(", page.source)
    for drawing in page.drawings:
        assert drawing.get("role") == "img"
        assert drawing.find("title").text == drawing.get("aria-label")
        assert "nan" not in ElementTree.tostring(drawing, encoding="unicode").replace("dominant", "")
    return page


def test_search(tmp_path):
    candidates = search_run(tmp_path)
    page = report(tmp_path)
    best = max(max(c["accuracies"]) for c in candidates)
    assert f"{100 * best:.1f} %" in page.text
    assert "195" in page.text
    assert "2 min 20 s" in page.text
    assert "training 1 min 40 s, 71.4 %" in page.text
    assert "python main_searchable_avmnist.py --datadir 'a<b>&c'" in page.text
    assert "torch 2.9.1" in page.text
    assert "<script>alert(1)</script>" in page.text  # as words
    time, predicted, *rest = page.drawings
    assert len(time.findall("path")) == 195
    assert len(predicted.findall("path")) == 195 - 30 + 11  # and the rank correlations
    assert len(rest) == 3 + 5 + 1  # choices, networks, cost
    assert all(heading in page.words for heading in ("Audio feature", "Image feature", "Activation"))
    assert "stand-in" not in page.text


def test_marks_lie_where_their_values_are(tmp_path):
    lines = [
        {"kind": "header", "format": 1, "modalities": list(SIZES), "sizes": [5, 3], "activations": ["relu", "sigmoid"]}
    ]
    for score in (0.2, 0.6, 0.4):
        line = {"kind": "candidate", "step": 0, "configuration": [[0, 1, 0]], "accuracies": [0.1, score]}
        lines.append(line | {"predicted": None, "seconds": 1.0})
    write_lines(tmp_path / "journal.jsonl", lines)
    page = report(tmp_path)
    places = [mark.get("d").split("m")[0][1:].split(",") for mark in page.drawings[0].findall("path")]
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in places]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.3)
    assert y1 < y2 < y0
    assert page.drawings[0].find("path/title").text == "[[0,1,0]] 20.00 %, step 0"


def test_random_search_without_surrogate(tmp_path):
    search_run(tmp_path, random_search=True)
    page = report(tmp_path)
    assert "surrogate predicted" not in page.text
    assert "temperature" not in [t.text for t in page.drawings[0].findall("text")]


def test_a_search_that_was_cut_off(tmp_path):
    search_run(tmp_path)
    (tmp_path / "best.json").unlink()
    journal = tmp_path / "journal.jsonl"
    journal.write_text("\n".join(journal.read_text().splitlines()[:20]) + '\n{"kind": "cand')
    page = report(tmp_path)
    assert "unfinished" in page.text
    assert "Where the time went" not in page.text
    assert len(page.drawings[0].findall("path")) == 19
    journal.write_text(journal.read_text().replace("candidate", '"', 1))
    with pytest.raises(UsageError, match=r"journal.jsonl is damaged: line 2 "):
        write_report(tmp_path)


def test_failed_candidates_are_told_and_left_out_of_the_plots(tmp_path):
    candidates = search_run(tmp_path)
    journal = tmp_path / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[3] |= {"accuracies": [], "failed": "its loss <went> away"}
    write_lines(journal, lines)
    page = report(tmp_path)
    assert "1 candidates failed" in page.text
    assert "its loss <went> away" in page.text
    assert len(page.drawings[0].findall("path")) == len(candidates) - 1


def test_only_a_header_yet(tmp_path):
    write_lines(tmp_path / "journal.jsonl", [{"kind": "header", "format": 1}])
    assert "Architecture search" in report(tmp_path).text


def test_best_so_far_counts_a_repeated_configuration_once(tmp_path):
    search_run(tmp_path, levels=1, iterations=4)
    (tmp_path / "best.json").unlink()
    best = read_files(tmp_path).best_configurations()
    assert len({str(b["configuration"]) for b in best}) == 5
    assert [b["accuracy"] for b in best] == sorted((b["accuracy"] for b in best), reverse=True)


def test_found_network(tmp_path):
    found_run(tmp_path)
    page = report(tmp_path)
    assert "are a stand-in" in page.text
    assert "late fusion, sum of log-softmax 91.6 % 90.4 % - 12.0 s" in page.text
    assert "found network 95.1 % 94.1 % 195 1 min 35 s [[3,2,0],[3,1,1],[0,2,0],[4,2,0]]" in page.text
    assert "+3.7 points over late fusion, sum of log-softmax" in page.text
    assert "best_4_0.9412.checkpoint" in page.text
    assert "epoch 17" in page.text
    network, accuracy, loss, confusion = page.drawings
    assert [t.text for t in network.findall("text")].count("classifier") == 1
    assert "2 · sigmoid" in [t.text for t in network.findall("text")]
    assert len(network.findall("path")) == 2 + 1 + 8  # two backbones, the fusion layers, two features for each
    assert len(accuracy.findall("polyline")) == 2
    assert len(loss.findall("polyline")) == 1
    assert len(confusion.findall("rect")) == 100
    assert "Samples" in page.text


def test_parts_that_are_missing_are_left_out(tmp_path):
    found_run(tmp_path, stand_in=False, classes=60)
    assert len(report(tmp_path).drawings[-1].findall("rect")) == 3600
    results = json.loads((tmp_path / "results.json").read_text())
    kept = {key: results[key] for key in ("configuration", "modalities", "rows", "stand_in")}
    (tmp_path / "results.json").write_text(json.dumps(kept))
    (tmp_path / "args.json").unlink()
    page = report(tmp_path)
    assert page.text.count("found network") >= 1
    assert not {"Training", "Confusion on the test split", "How it was run", "Search"} & set(page.words)
    assert "stand-in" not in page.text


def test_a_training_that_diverged_after_one_epoch(tmp_path):
    found_run(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    results["epochs"] = [
        {"epoch": 0, "phase": "central", "train_loss": float("nan"), "dev_loss": None, "dev_accuracy": 0.1}
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    accuracy, loss = report(tmp_path).drawings[1:3]
    assert len(accuracy.findall("polyline")) == 1
    assert loss.findall("polyline") == []


def test_settings_alone_make_a_report(tmp_path):
    (tmp_path / "args.json").write_text(json.dumps(ARGS))
    page = report(tmp_path)
    assert f"Run: {tmp_path.name}" in page.words
    assert page.drawings == []


def run_module(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "utils.report", str(folder)]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=60)


def test_the_command_names_the_report(tmp_path):
    found_run(tmp_path)
    done = run_module(tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'report.html'}\n")


def test_a_folder_without_a_run(tmp_path):
    done = run_module(tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: a run folder holds at least one of args.json, journal.jsonl, best.json, results.json, "
        f"but {tmp_path} holds none of them\n"
    )


@pytest.mark.parametrize("content", ["[1]", '{"rows": [{"name": "found network"}]}', "{"])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UsageError, match=re.escape(str(tmp_path))):
        write_report(tmp_path)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_and_inside(low, span):
    high = low + span
    values = svg.ticks(low, high)
    assert 1 <= len(values) <= 7
    assert all(low - 1e-5 * span <= v <= high + 1e-5 * span for v in values)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (12.04, "12.0 s"), (59.99, "1 min 00 s"), (140, "2 min 20 s"), (3600, "1 h 00 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
