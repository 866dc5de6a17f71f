"""SIGINT and SIGTERM: the epoch or batch is finished and saved, exit 130 or 143; resumed, the end is the same."""

import random
import signal

import pytest

from tests.reliability.commands import IMAGE, PREPARATIONS, RUNS, TRAININGS
from tests.reliability.harness import differences

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("name", RUNS)
def test_run_is_stopped_and_goes_on(server, homes, tally, name, number):
    """Sent at random operations of the run; every life does at least an epoch, so the run ends."""
    command = RUNS[name]
    tally.script = name
    reference = server.reference(homes(), command)
    rng, home = random.Random(int(number)), homes()
    first = max(reference.numbers("rename", within="args.json")) + 2
    at, sent = rng.randrange(first, len(reference.operations) // 2), 0
    while True:
        fault = {"how": "signal", "signal": int(number), "at": at}
        life = server.start(home, command, fault)
        code = life.wait()
        assert "Traceback" not in life.errors, life.report()
        if code == 0:
            break
        assert code == CODES[number], life.report()
        assert "--resume runs/r" in life.complaints[-1], life.report()
        page = (home / "runs/r/report.html").read_text()
        assert "This run is under way" not in page
        if name in TRAININGS:
            assert "it is unfinished" in page
        tally.injected[number.name] += 1
        sent += 1
        assert sent < 20
        at = rng.randrange(first, len(reference.operations))
    assert sent
    assert differences(reference.home, home) == []


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_second_signal_ends_at_once(server, new_home, tally, number):
    """Held amid an epoch, two signals, let go: no further epoch is written; the run goes on to the same end."""
    tally.script = "train_image"
    reference = server.reference(new_home(), IMAGE)
    home = new_home()
    fault = {"how": "signal", "signal": int(signal.SIGSTOP), "at": 1, "kinds": ["write"], "within": "state.next"}
    life = server.start(home, IMAGE, fault)
    assert life.stopped()
    life.send(number)
    life.send(number)  # of the same kind: both are pending as one
    life.send(signal.SIGTERM if number == signal.SIGINT else signal.SIGINT)
    life.send(signal.SIGCONT)
    assert life.wait() in CODES.values(), life.report()
    assert "Traceback" not in life.errors, life.report()
    tally.injected["two signals"] += 1
    server.run(home, IMAGE)
    assert differences(reference.home, home) == []


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
@pytest.mark.parametrize("name", PREPARATIONS)
def test_preparation_is_stopped(server, homes, tally, name, number):
    """At once; what is whole stays, and the same command ends with the same bytes."""
    tally.script, command = name, PREPARATIONS[name]
    reference = server.reference(homes(), command)
    home = homes()
    at = len(reference.operations) // 2
    life = server.run(home, command, CODES[number], {"how": "signal", "signal": int(number), "at": at})
    messages = [line for line in life.complaints if not line.endswith("/s]")]  # besides those of progress
    assert messages == [f"stopped by {number.name}"], life.report()
    tally.injected[number.name] += 1
    server.run(home, command)
    assert differences(reference.home, home) == []


@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_before_anything_is_written(server, new_home, number):
    fault = {"how": "signal", "signal": int(number), "at": 0}
    life = server.run(new_home(), IMAGE, CODES[number], fault)
    assert len(life.complaints) <= 1, life.report()
