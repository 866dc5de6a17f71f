"""The pages in a real browser: no console message, no request, readable on a phone, light and dark."""

import base64
import csv
import io
import json
import time

import numpy as np
import pytest
from matplotlib import image

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
TABLES_CUT = """
return [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length
"""
WORDS_BROKEN = """
const height = parseFloat(getComputedStyle(document.querySelector('pre')).lineHeight)
const words = [...document.querySelectorAll('pre span')]
return words.filter(word => word.getBoundingClientRect().height > 1.5 * height).length
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
                if width == 1200:
                    assert browser.run(TABLES_CUT) == 0, page
                if page.stem == "report":
                    assert browser.run(WORDS_BROKEN) == 0, page  # of the command, such as `--datadir`
                darkness[dark] = sum(browser.run(BACKGROUND))
            assert darkness[False] > 600 > 150 > darkness[True]
            assert browser.messages() == []
            assert {address.split(":")[0] for address in browser.requests()} == {"file"}
            browser.screenshot(tmp_path / "page.png")
            assert (tmp_path / "page.png").stat().st_size > 10_000


def read_table(browser: Browser, column: int) -> list[str]:
    return browser.run(f"return [...document.querySelectorAll('tbody tr')].map(row => row.cells[{column}].textContent)")


SAVED = """
const buttons = document.querySelectorAll('.save'), saved = []
URL.createObjectURL = content => { saved.push(content); return '' }
HTMLAnchorElement.prototype.click = function () { saved.push(this.download) }
buttons.forEach(button => button.click())
while (saved.length < 2 * buttons.length) await new Promise(done => setTimeout(done, 50))
const read = content => new Promise(done => {
  const reader = new FileReader()
  reader.onload = () => done(reader.result.split(',')[1])
  reader.readAsDataURL(content)
})
return Promise.all(saved.map(one => typeof one === 'string' ? one : read(one)))
"""


def test_tables_are_sorted_by_a_click(pages):
    with Browser() as browser:
        browser.open(next(page for page in pages if page.parent.name == "again"))
        browser.run("document.querySelector('details').remove()")  # the settings, another table
        before = read_table(browser, 6)
        assert (before.count("12.0 s"), before[4]) == (4, "1 min 35 s")
        click = "document.querySelectorAll('table')[0].tHead.rows[0].cells[%d].querySelector('button').click()"
        browser.run(click % 2)
        assert read_table(browser, 2)[:5] == ["71.8 %", "73.8 %", "87.7 %", "90.4 %", "94.1 %"]
        browser.run(click % 2)
        assert read_table(browser, 2)[:5] == ["94.1 %", "90.4 %", "87.7 %", "73.8 %", "71.8 %"]
        browser.run(click % 6)
        assert read_table(browser, 6)[4] == "1 min 35 s"
        browser.open(pages[-1])  # the comparison: runs stay below the head of their group
        browser.run("document.querySelectorAll('table')[1].tHead.rows[0].cells[1].querySelector('button').click()")
        names = browser.run(
            "return [...document.querySelectorAll('tr.head, tr.sub')].map(row => row.cells[0].textContent)"
        )
        assert [name.split("/")[-1] for name in names] == [
            *("C: AudioLeNet, 1 run", "alone"),
            *("A: sequential search, 3 runs", "search0", "search1", "many"),
            *("B: found network, 2 runs", "found", "again"),
        ]


def test_tables_and_plots_are_saved(pages, tmp_path):
    with Browser() as browser:
        browser.look(390, True)
        browser.open(pages[0])
        saved = browser.run(SAVED)
        files = list(zip(saved[1::2], map(base64.b64decode, saved[::2]), strict=True))
        plots = [content for name, content in files if name == "Architecture-search-search0.png"]
        tables = [content.decode("utf-8-sig") for name, content in files if name == "Architecture-search-search0.csv"]
        assert len(plots) == browser.run("return document.querySelectorAll('figure').length")
        assert len(tables) == browser.run("return document.querySelectorAll('table').length")
        assert not {address.split(":")[0] for address in browser.requests()} - {"file", "blob", "data"}
    assert list(csv.reader(tables[0].splitlines()))[:2] == [["", "dev accuracy"], ["audio only", "60.0 %"]]
    for plot in plots:
        pixels = image.imread(io.BytesIO(plot))
        assert pixels.shape[1] == 2 * (358 + 16)
        assert pixels[:, :, :3].mean() < 0.3  # dark, as the page
        assert pixels[:, :, :3].std() > 0.03  # something is drawn


def test_a_page_reloads_until_its_run_has_ended(tmp_path):
    search_run(tmp_path)
    best = (tmp_path / "best.json").read_text()
    (tmp_path / "best.json").unlink()
    with Browser() as browser:
        page = write_report(tmp_path, "step 11 of 12")
        browser.open(page)
        browser.run("document.querySelector('details').open = true")
        (tmp_path / "best.json").write_text(best)
        write_report(tmp_path)
        browser.wait("return !document.querySelector('.live') && document.readyState == 'complete'")
        assert browser.run("return document.querySelector('details').open")
        assert browser.run("return performance.getEntriesByType('navigation')[0].type") == "reload"
        browser.run("window.same = true")
        time.sleep(6)
        assert browser.run("return window.same")


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
