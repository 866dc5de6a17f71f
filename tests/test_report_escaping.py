"""Nothing from a file, a folder's name or a flag becomes markup: it is shown as text, or refused."""

import json
from collections.abc import Iterator
from copy import deepcopy
from html.parser import HTMLParser
from itertools import chain
from pathlib import Path

import pytest

from tests.report_samples import found_run, search_run, unimodal_run, update, write_lines
from utils.errors import UsageError
from utils.report import write_comparison, write_report

MARKUP = "<img src=x onerror=\"alert('1')\">\"'"
POISONS = (MARKUP, [MARKUP], {MARKUP: MARKUP})
DIFFERENCE = {"mean": 0.05, "low": 0.01, "high": 0.09, "confidence": 0.95, "resamples": 100}


class Elements(HTMLParser):
    """The (element, attribute) pairs of a page; an empty attribute stands for the element itself."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found |= {(tag, ""), *((tag, name) for name, _ in attributes)}
        assert not any("<" in (value or "") and name in ("class", "style", "id") for name, value in attributes)


def elements(page: Path) -> set[tuple[str, str]]:
    return Elements(page.read_text()).found


def poisoned(value: object, poison: object) -> Iterator[object]:
    """Copies of a JSON value, each with one leaf replaced or one key renamed."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from ({**value, key: changed} for changed in poisoned(part, poison))
            yield {str(poison) if k == key else k: v for k, v in value.items()}
    elif isinstance(value, list) and value:
        for i, part in enumerate(value):
            yield from ([*value[:i], changed, *value[i + 1 :]] for changed in poisoned(part, poison))
    else:
        yield poison


def small_search(folder: Path) -> None:
    """A search with few candidates but every part of a page."""
    search_run(folder, levels=1, iterations=2)
    entry = {"configuration": [[0, 0, 0]], "accuracy": 0.7}
    random = {"configurations": [entry], "candidates_trained": 2, "accuracies": [0.5, 0.7], "difference": DIFFERENCE}
    update(
        folder / "best.json", random=random, baselines=[{"name": "audio only", "dev": 0.6, "difference": DIFFERENCE}]
    )
    best = json.loads((folder / "best.json").read_text())
    update(
        folder / "best.json", configurations=best["configurations"][:1], whole=False, stand_in=True, score="accuracy"
    )
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    lines[-3] |= {"accuracies": [], "failed": "its loss is not finite"}
    write_lines(folder / "journal.jsonl", lines)


def small_training(folder: Path) -> None:
    found_run(folder, classes=2)
    results = json.loads((folder / "results.json").read_text())
    results |= {"rows": results["rows"][2:], "epochs": results["epochs"][:2], "f1": {"macro": 0.9}, "sizes": [5, 3]}
    results |= {"missing": [{"modality": "audio", "noise": noise, "test": 0.5} for noise in (None, 0.5)]}
    results["mcnemar"] = {"against": "audio only", "only_found_right": 31, "only_baseline_right": 12, "p": 0.005}
    (folder / "results.json").write_text(json.dumps(results))


def many_classes(folder: Path) -> None:
    """A training whose confusion lists pairs of more classes than a page shows one by one."""
    found_run(folder, classes=2)
    rows = json.loads((folder / "results.json").read_text())["rows"][-1:]
    results = {"rows": rows, "confusion": {"classes": 60, "cells": [[0, 0, 5], [1, 2, 3]]}}
    (folder / "results.json").write_text(json.dumps(results))


def both_pages(folder: Path) -> tuple[Path, Path]:
    """The report, and a comparison with a run whose settings differ."""
    return write_report(folder), write_comparison([folder, folder.parent / "other"], folder / "compare.html", set())


def check(folder: Path, clean: list[set]) -> bool:
    """Write both pages of poisoned files; returns whether they were accepted."""
    try:
        pages = both_pages(folder)
    except UsageError:
        return False
    for page, known in zip(pages, clean, strict=True):
        assert elements(page) <= known, page.read_text()
    return True


@pytest.mark.parametrize("make", [small_search, small_training, many_classes, unimodal_run])
def test_values_and_keys_of_files_are_text(tmp_path, make):
    folder = tmp_path / "run"
    make(folder)
    make(tmp_path / "other")
    update(tmp_path / "other/args.json", settings={"epochs": 4})
    clean = [elements(page) for page in both_pages(folder)]
    accepted = 0
    for path in folder.glob("*.json"):
        content = path.read_text()
        for poison in POISONS:
            for changed in poisoned(json.loads(content), poison):
                path.write_text(json.dumps(changed))
                accepted += check(folder, clean)
        path.write_text(content)
    assert accepted > 30


def test_values_of_journal_lines_are_text(tmp_path):
    folder = tmp_path / "run"
    small_search(folder)
    small_search(tmp_path / "other")
    clean = [elements(page) for page in both_pages(folder)]
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    accepted = 0
    for i in (0, 1, len(lines) - 3, len(lines) - 2, len(lines) - 1):  # header, candidates, one failed, step
        for changed in chain(*(poisoned(lines[i], poison) for poison in POISONS)):
            written = deepcopy(lines)
            written[i] = changed
            write_lines(folder / "journal.jsonl", written)
            accepted += check(folder, clean)
    assert accepted > 10


def test_folders_and_flags_are_text(tmp_path):
    runs = [tmp_path / "run", tmp_path / MARKUP]
    for seed, folder in enumerate(runs):
        search_run(folder, levels=1, iterations=1, seed=seed)
    plain, named = map(write_report, runs)
    assert elements(named) == elements(plain)
    clean = elements(write_comparison(runs[:1] * 2, tmp_path / "clean.html", set()))
    page = write_comparison(runs, tmp_path / "compare.html", set())
    assert elements(page) == clean
    assert page.read_text().count("&lt;img") == 1  # the folder


def test_the_check_sees_markup():
    assert ("img", "onerror") in Elements(f"<p>{MARKUP}</p>").found
    assert ("p", "onclick") in Elements('<p title="" onclick="x">').found
