"""The pages in a real browser: no console message, no request, readable on a phone, light and dark."""

import json

import numpy as np
import pytest

from tests.browser import Browser, program
from tests.report_samples import found_run, search_run, unimodal_run, update
from utils.report import write_comparison, write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not program(), reason="needs chromium (apt install chromium)"),
]
WORDS_OUTSIDE = """
return [...document.querySelectorAll('svg text')].filter(words => {
  const box = words.getBoundingClientRect(), all = words.ownerSVGElement.getBoundingClientRect()
  return box.left < all.left - 1 || box.right > all.right + 1 || box.top < all.top - 2 || box.bottom > all.bottom + 2
}).map(words => words.textContent)
"""
BACKGROUND = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    home = tmp_path_factory.mktemp("pages")
    for seed in (0, 1):
        search_run(home / f"search{seed}", seed=seed)
    rows = [{"name": "audio only", "dev": 0.6, "difference": None}]
    random = {"configurations": [], "candidates_trained": 2, "accuracies": [0.5, 0.6]}
    update(home / "search0/best.json", baselines=rows, random=random)
    many = {"text": 2, "image": 6, "audio_of_the_video": 4, "depth": 3, "skeleton": 5}
    search_run(home / "many", sizes=many, activations=("relu", "leaky_relu", "gelu"), skips=True)
    found_run(home / "found", classes=60)
    missing = [{"modality": "audio", "noise": noise, "test": 0.5} for noise in (None, 0.5)]
    update(home / "found/results.json", missing=missing, f1={"macro": 0.9})
    found_run(home / "again")
    for name in ("found", "again"):
        rows = json.loads((home / name / "results.json").read_text())["rows"]
        rows[2]["name"] = "logistic regression on the last features of all the networks"
        update(home / name / "results.json", rows=rows)
        np.save(home / name / "test_correct.npy", np.random.default_rng(0).random((len(rows), 50)) < 0.8)
    unimodal_run(home / "alone")
    runs = [home / name for name in ("search0", "search1", "many", "found", "again", "alone")]
    return [*map(write_report, runs), write_comparison(runs, home / "compare.html", set())]


def test_pages_in_a_browser(pages, tmp_path):
    with Browser() as browser:
        for page in pages:
            darkness = {}
            for width, dark in ((1200, False), (390, False), (390, True)):
                browser.look(width, dark)
                browser.open(page)
                browser.run("document.querySelectorAll('details').forEach(part => { part.open = true })")
                assert browser.run("return document.documentElement.scrollWidth") <= width, page
                assert browser.run(WORDS_OUTSIDE) == [], (page, width)
                darkness[dark] = sum(browser.run(BACKGROUND))
            assert darkness[False] > 600 > 150 > darkness[True]
            assert browser.messages() == []
            assert {address.split(":")[0] for address in browser.requests()} == {"file"}
            browser.screenshot(tmp_path / "page.png")
            assert (tmp_path / "page.png").stat().st_size > 10_000


def test_the_checks_find_faults(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><svg width=50 height=20 style='overflow:visible'><text y=10>wider than its drawing</text></svg>"
        "<p style='width:500px'>wide</p><script>console.error('loud')</script><img src='http://127.0.0.1:9/a.png'>"
    )
    with Browser() as browser:
        browser.look(390, False)
        browser.open(page)
        assert browser.run("return document.documentElement.scrollWidth") > 390
        assert browser.run(WORDS_OUTSIDE) == ["wider than its drawing"]
        assert any("loud" in message for message in browser.messages())
        assert "http://127.0.0.1:9/a.png" in browser.requests()
