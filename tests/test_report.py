"""The report is a complete, self-contained page that shows the values of the run's files."""

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report_samples import ARGS, SIZES, found_run, report, search_run, update, write_lines
from utils.errors import UsageError
from utils.report import live, plots, write_report
from utils.report.contents import read_files
from utils.report.page import duration
from utils.search.space import format_configuration


def test_search(tmp_path):
    candidates = search_run(tmp_path)
    page = report(tmp_path)
    best = max(max(c["accuracies"]) for c in candidates)
    assert f"{100 * best:.1f} %" in page.text
    assert "195" in page.text
    assert "2 min 20 s" in page.text
    assert "training 1 min 40 s (71.4 %)" in page.text
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
    assert "surrogate's predictions" not in page.text
    assert "temperature" not in [t.text for t in page.drawings[0].findall("text")]


def test_an_interrupted_search(tmp_path):
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


def test_failed_candidates_are_listed_and_left_out_of_the_plots(tmp_path):
    candidates = search_run(tmp_path)
    journal = tmp_path / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[3] |= {"accuracies": [], "failed": "its loss <went> away"}
    write_lines(journal, lines)
    page = report(tmp_path)
    assert "1 candidates failed" in page.text
    assert "its loss <went> away" in page.text
    assert len(page.drawings[0].findall("path")) == len(candidates) - 1


def test_a_journal_with_only_a_header(tmp_path):
    write_lines(tmp_path / "journal.jsonl", [{"kind": "header", "format": 1}])
    assert "Architecture search" in report(tmp_path).text


def test_best_so_far_counts_a_repeated_configuration_once(tmp_path):
    search_run(tmp_path, levels=1, iterations=4)
    (tmp_path / "best.json").unlink()
    best = read_files(tmp_path).best_configurations()
    assert len({str(b["configuration"]) for b in best}) == 5
    assert [b["accuracy"] for b in best] == sorted((b["accuracy"] for b in best), reverse=True)


def test_baselines_of_a_search(tmp_path):
    search_run(tmp_path)
    assert "Comparison with the baselines" not in report(tmp_path).words
    difference = {"mean": 0.05, "low": 0.012, "high": -0.02, "confidence": 0.9, "resamples": 1234}
    rows = [{"name": "audio <only>", "dev": 0.6, "difference": difference}]
    rows.append({"name": "image only", "dev": 0.5, "difference": None})
    best = {"configuration": [[0, 0, 0]], "accuracy": 0.7}
    random = {
        "configurations": [best],
        "candidates_trained": 3,
        "accuracies": [0.5, 0.7, 0.7],
        "difference": difference,
    }
    update(tmp_path / "best.json", baselines=rows, random=random)
    page = report(tmp_path)
    assert "audio <only> 60.0 % +5.0 +1.2 to -2.0 image only 50.0 % - - random search, 3 candidates 70.0 %" in page.text
    assert "90 % interval" in page.words
    assert "1234 resamples" in page.text
    own, theirs = page.drawings[0].findall("polyline")
    assert len(own.get("points").split()) == 2 * 195
    assert len(theirs.get("points").split()) == 2 * 3
    update(tmp_path / "best.json", baselines=rows[1:], random=None)
    page = report(tmp_path)
    assert "image only 50.0 % best of this search, 195 candidates" in page.text
    assert "interval" not in page.text


FIVE = {"text": 2, "image": 6, "audio_of_the_video": 4, "depth": 3, "skeleton": 5}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_networks_of_many_modalities(tmp_path, count):
    sizes = dict(list(FIVE.items())[:count])
    search_run(tmp_path, sizes=sizes, activations=("relu", "gelu"), skips=True)
    best = read_files(tmp_path).best_configurations()[0]["configuration"]
    page = report(tmp_path)
    network = next(d for d in page.drawings if format_configuration(best) in d.get("aria-label"))
    read = sum(index >= 0 for row in best for index in row[:-1])
    assert read < len(best) * count  # something is left out
    assert len(network.findall("path")) == count + 1 + read
    assert len(network.findall("rect")) == sum(sizes.values()) + len(best) + 1
    width, height = map(float, network.get("viewBox").split()[2:])
    boxes = [tuple(float(box.get(key)) for key in ("x", "y", "width", "height")) for box in network.findall("rect")]
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    for i, (x, y, w, h) in enumerate(boxes):
        assert not any(x < a + b and a < x + w and y < c + d and c < y + h for a, c, b, d in boxes[:i])


def test_choices_count_what_is_left_out_and_activations_by_name(tmp_path):
    search_run(tmp_path, activations=("relu", "gelu"), skips=True)
    page = report(tmp_path)
    audio, _, activation = [d for d in page.drawings if " of the best: " in d.get("aria-label")]
    words = [t.text for t in audio.findall("text")]
    assert words[::2] == ["left out", *(f"audio {i}" for i in range(5))]
    assert [t.text for t in activation.findall("text")][::2] == ["relu", "gelu"]
    counts = [int(words.split()[0]) for words in words[1::2]]
    assert sum(counts) == int(words[1].split()[-1])
    bars = audio.findall("rect")
    chances = [(float(line.get("x1")) - float(bars[0].get("x"))) / 180 for line in audio.findall("line")]
    assert chances == pytest.approx([3 / 23, *[4 / 23] * 5], abs=1e-3)  # 6 x 4 rows but the empty one


def test_baselines_are_lines_in_the_curve_of_the_search(tmp_path):
    """From the journal while the search runs, and from best.json at its end; of the late fusions the better one."""
    search_run(tmp_path)
    journal = tmp_path / "journal.jsonl"
    known = {"audio only": 0.7, "image only": 0.65, "late fusion, sum": 0.92, "late fusion, mean": 0.9}
    lines = journal.read_text().splitlines()
    lines.insert(1, json.dumps({"kind": "baselines", "dev": known}))
    journal.write_text("\n".join(lines) + "\n")
    curve = report(tmp_path, "step 12 of 12").drawings[0]
    assert "audio only 70.00 %, image only 65.00 %, late fusion 92.00 %" in curve.get("aria-label")
    dashed = [float(line.get("y1")) for line in curve.findall("line") if line.get("class") == "line dash"]
    audio, image, late = dashed
    assert (image - late) / (image - audio) == pytest.approx(27 / 5, rel=0.01)
    update(tmp_path / "best.json", baselines=[{"name": "late fusion, mean", "dev": 0.8}])
    label = report(tmp_path).drawings[0].get("aria-label")
    assert "late fusion 80.00 %" in label
    assert "audio only" not in label
    journal.write_text(journal.read_text().replace('only": 0.65', 'only": "much"'))
    with pytest.raises(UsageError, match=r"journal.jsonl is damaged: dev.*image only.* must be a number"):
        write_report(tmp_path)


def test_a_run_under_way_says_how_far_it_is(tmp_path):
    search_run(tmp_path)
    (tmp_path / "best.json").unlink()
    page = report(tmp_path, "candidates, step 3 of 12")
    assert "This run is under way: candidates, step 3 of 12." in page.text
    assert "unfinished" not in page.text
    assert "under way" not in report(tmp_path).text


def test_a_live_report_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    """By the clock of the run: 2 s a report, so that at 3 % the next one is due 65 s later."""
    now, written = [0.0], []

    def slow(folder: Path, progress: str | None) -> None:
        now[0] += 2
        written.append(progress)
        raise OSError("no space left")  # does not end the run

    monkeypatch.setattr(live, "write_report", slow)
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    report = live.LiveReport(tmp_path)
    for step in range(200):
        now[0] += 1
        report.update(f"step {step}")
    assert len(written) == 4
    assert 2 * len(written) / now[0] < 0.05


@pytest.mark.parametrize(("fails", "states"), [(False, ["starting"]), (True, ["starting", None])])
def test_a_run_that_is_stopped_is_not_under_way(tmp_path, monkeypatch, fails, states):
    written = []
    monkeypatch.setattr(live, "write_report", lambda folder, progress: written.append(progress))
    with contextlib.suppress(KeyboardInterrupt), live.reported(tmp_path):
        if fails:
            raise KeyboardInterrupt
    assert written == states


def test_settings_read_as_on_the_command_line(tmp_path):
    settings = {"activations": ["relu", "sigmoid"], "limit": None}
    (tmp_path / "args.json").write_text(json.dumps(ARGS | {"settings": settings}))
    assert "activations relu sigmoid limit -" in report(tmp_path).text


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
    values = plots.ticks(low, high)
    assert 1 <= len(values) <= 7
    assert all(low - 1e-5 * span <= v <= high + 1e-5 * span for v in values)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "-"), (12.04, "12.0 s"), (59.99, "1 min 00 s"), (140, "2 min 20 s"), (3600, "1 h 00 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
