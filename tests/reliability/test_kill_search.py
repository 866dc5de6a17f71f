"""Searches, killed: resumed by --run_dir or --resume, they end with the journal and the result of one go."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from tests.reliability.commands import IMPROVED, JOURNAL, LIVE, SEARCH, STATE
from tests.reliability.compare import without_times
from tests.reliability.harness import Command, Server, cut, differences, flip, read_whole_lines, resuming, survive
from tests.reliability.strikes import AtOperation, WhenGrown, strikes


def kill(server: Server, tally, new_home: Callable[[], Path], command: Command, seed: int, kills: int) -> None:
    """Kill a search; after every kill its journal is the beginning of the reference's."""
    reference = server.reference(new_home(), command)
    expected = read_whole_lines(reference.home / JOURNAL)

    def begins_alike(home: Path, kills: int) -> None:
        lines = read_whole_lines(home / JOURNAL)
        assert without_times(lines) == without_times(expected[: len(lines)])

    chosen = strikes(seed, reference, JOURNAL, lines=True)
    if "--tensorboard" in command:
        assert reference.numbers("write", within="r/tensorboard/events")
        chosen = chain([AtOperation(3, "torn", "r/tensorboard/events")], chosen)
    names = ["*/tensorboard/events*"]  # named after the time
    survive(server, tally, reference, new_home, resuming(command, "runs/r"), chosen, kills, begins_alike, names)
    assert tally.kills == kills


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(s, marks=pytest.mark.long) for s in range(2, 22))])
def test_cached_search(server, new_home, tally, seed):
    tally.script = "search, cached"
    kill(server, tally, new_home, SEARCH, seed, 13)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in range(1, 11))])
def test_live_search(server, new_home, tally, seed):
    tally.script = "search, live"
    kill(server, tally, new_home, LIVE, seed, 12)


VARIANTS = {
    "random": (SEARCH, "--randsearch"),
    "improved": (IMPROVED,),
    "shared weights": (SEARCH, "--weightsharing", "--batchnorm"),
    "alphas": (SEARCH, "--alphas", "--multitask", "--drpt", 0),
    "tensorboard": (SEARCH, "--tensorboard"),
    "live, shared weights": (LIVE, "--weightsharing", "--batchnorm", "--alphas"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_search_variants(server, new_home, tally, variant):
    tally.script = "search, variants"
    command, *flags = VARIANTS[variant]
    kill(server, tally, new_home, [*command, *flags], 7, 3)


def test_genuine_command(server, new_home, tally):
    """Commands as a user gives them, each in an interpreter of its own."""
    tally.script = "search, cached"
    reference = server.reference(new_home(), SEARCH)
    home = new_home()
    assert WhenGrown(JOURNAL, 33, lines=True, genuine=True).strike(server, home, SEARCH).wait() == -9
    tally.injected["kill of a command of its own"] += 1
    life = server.genuine(home, resuming(SEARCH, "runs/r")(home))
    assert life.wait() == 0, life.report()
    assert differences(reference.home, home) == []


def test_report_while_a_search_runs(server, new_home, tally):
    """It is there from the start, under way, and shows the baselines beside the candidates of whole steps."""
    tally.script = "search, cached"
    home = new_home()
    for at, words in enumerate(("starting.", "candidates, step 1 of 4.")):
        fault = {"how": "after", "at": at, "kinds": ["rename"], "within": "report.html"}
        assert server.start(home, SEARCH, fault).wait() == -9
        tally.injected["kill at a file operation"] += 1
        page = (home / "runs/r/report.html").read_text()
        assert f"This run is under way: {words}" in page
    assert "late fusion" in page
    server.run(home, SEARCH)
    assert "This run is under way" not in (home / "runs/r/report.html").read_text()


DAMAGE = {
    "journal, last byte": (JOURNAL, lambda path: cut(path, 1)),
    "journal, half a line": (JOURNAL, lambda path: cut(path, 40)),
    "journal, zeros": (JOURNAL, lambda path: path.write_bytes(path.read_bytes() + bytes(100))),
    "state, cut": (STATE, lambda path: cut(path, path.stat().st_size // 2)),
    "state, empty": (STATE, lambda path: cut(path, path.stat().st_size)),
    "state, first byte": (STATE, lambda path: flip(path, 0)),
    "state, a byte": (STATE, lambda path: flip(path, path.stat().st_size // 3)),
}


@pytest.mark.parametrize("flags", [(), ("--weightsharing",)], ids=["", "shared"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_between(server, new_home, tally, damage, flags):
    """A torn line and a damaged state are reported and done without; the result is the same."""
    tally.script = "search, cached"
    command = [*SEARCH, *flags]
    reference = server.reference(new_home(), command)
    file, change = DAMAGE[damage]
    home = new_home()
    written = {"at": 34, "kinds": ["write"], "within": "journal"}
    saved = {"at": 1, "kinds": ["rename"], "within": "/state.next"}
    fault = {"how": "after", **(written if file == JOURNAL else saved)}
    assert server.start(home, command, fault).wait() == -9
    tally.injected["kill at a file operation"] += 1
    change(home / file)
    tally.injected["damage to a file"] += 1
    life = server.run(home, command)
    assert any(Path(file).name in line for line in life.complaints), life.report()
    assert differences(reference.home, home) == []


def test_damage_amid_the_journal(server, new_home, tally):
    """A damaged line that is not the last is an error that names it; nothing is changed."""
    tally.script = "search, cached"
    home = new_home()
    server.run(home, SEARCH)
    path = home / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], lines[5][:-9] + b"\n", *lines[6:]]))
    before = path.read_bytes()
    life = server.run(home, SEARCH, code=2)
    tally.injected["damage to a file"] += 1
    assert "line 6" in life.complaints[-1]
    assert path.read_bytes() == before


def test_finished_search_trains_nothing(server, new_home):
    home = new_home()
    server.run(home, SEARCH)
    journal = (home / JOURNAL).read_bytes()
    best = (home / "runs/r/best.json").read_bytes()
    (home / "runs/r/best.json").unlink()
    server.run(home, SEARCH)
    assert (home / JOURNAL).read_bytes() == journal
    assert without_times(json.loads(best)) == without_times(json.loads((home / "runs/r/best.json").read_text()))


def test_other_settings_are_refused(server, new_home):
    home = new_home()
    server.run(home, SEARCH)
    journal = (home / JOURNAL).read_bytes()
    life = server.run(home, [*SEARCH, "--eta_max", 0.01], code=2)
    assert all(word in life.complaints[-1] for word in ("eta_max", "0.01", "0.001"))
    life = server.run(home, ["main_found_avmnist.py", "--run_dir", "runs/r"], code=2)
    assert "main_searchable_avmnist" in life.complaints[-1]
    assert (home / JOURNAL).read_bytes() == journal
