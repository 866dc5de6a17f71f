"""Trainings of unimodal and found networks, killed: resumed, every weight is that of one go."""

import itertools
from pathlib import Path

import pytest
import torch

from tests.reliability.commands import FOUND, IMAGE, SKELETON, STATE, TRAININGS
from tests.reliability.harness import cut, differences, flip, resuming, survive
from tests.reliability.strikes import WhenGrown, strikes
from utils.errors import UsageError
from utils.training.checkpoints import read_checkpoint, write_checkpoint

LONG = [pytest.param(name, seed, marks=pytest.mark.long) for name in TRAININGS for seed in range(1, 9)]


@pytest.mark.parametrize(("name", "seed"), [*((name, 0) for name in TRAININGS), *LONG])
def test_training(server, new_home, tally, name, seed):
    tally.script = name
    command = TRAININGS[name]
    reference = server.reference(new_home(), command)
    chosen = strikes(seed, reference, STATE)
    kills = 5 if name == "train_audio" else 10  # shares its code with train_image.py
    survive(server, tally, reference, new_home, resuming(command, "runs/r"), chosen, kills)
    assert tally.kills == kills


VARIANTS = {
    "multitask": [*FOUND, "--multitask", "--alphas", "--batchnorm"],
    "weights": [*FOUND, "--conf", "[[4,2,2]]", "--drpt", 0.5, "--Ti", 2, "--baselines", 0],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_found_variants(server, new_home, tally, variant):
    tally.script = "found"
    command = VARIANTS[variant]
    reference = server.reference(new_home(), command)
    survive(server, tally, reference, new_home, resuming(command, "runs/r"), strikes(3, reference, STATE), 3)


@pytest.mark.parametrize("name", ["train_image", "found"])
def test_genuine_command(server, new_home, tally, name):
    """Commands as a user gives them, each in an interpreter of its own."""
    tally.script = name
    command = TRAININGS[name]
    reference = server.reference(new_home(), command)
    home = new_home()
    assert WhenGrown(STATE, genuine=True).strike(server, home, command).wait() == -9
    tally.injected["kill of a command of its own"] += 1
    life = server.genuine(home, command)
    assert life.wait() == 0, life.report()
    assert differences(reference.home, home) == []


def test_ntu_training(server, ntu_training_home, tally):
    """With processes that read samples, which live on a moment when the one that started them is killed."""
    tally.script = "train_skeleton_ntu"
    reference = server.reference(ntu_training_home(), SKELETON)
    chosen = itertools.chain([WhenGrown(STATE), WhenGrown(STATE, 2)], strikes(0, reference, STATE))
    survive(server, tally, reference, ntu_training_home, resuming(SKELETON, "runs/r"), chosen, 4)


DAMAGE = {
    "cut": lambda path: cut(path, path.stat().st_size // 2),
    "empty": lambda path: cut(path, path.stat().st_size),
    "first byte": lambda path: flip(path, 0),
    "a byte": lambda path: flip(path, path.stat().st_size // 2),
    "gone": Path.unlink,
}


THIRD_STATE = {"how": "after", "at": 2, "kinds": ["rename"], "within": "/state.next"}  # killed once it is saved


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["train_image", "found"])
def test_damaged_state(server, new_home, tally, name, damage):
    """The state before is used, and the epoch done again."""
    tally.script = name
    command = TRAININGS[name]
    reference = server.reference(new_home(), command)
    home = new_home()
    assert server.start(home, command, THIRD_STATE).wait() == -9
    tally.injected["kill at a file operation"] += 1
    DAMAGE[damage](home / STATE)
    tally.injected["damage to a file"] += 1
    life = server.run(home, command)
    said = any("state.checkpoint" in line for line in life.complaints)
    assert said or damage == "gone", life.report()  # gone: as between the two renames of a save
    assert differences(reference.home, home) == []


def test_no_flipped_byte_goes_unnoticed(tmp_path):
    """Whichever byte of a checkpoint is damaged: it is reported, or it is none of those that matter."""
    path = tmp_path / "state.checkpoint"
    values = {"history": [0.5], "model": {"weight": torch.arange(8.0)}, "unit": (1, 0)}
    write_checkpoint(path, values)
    for position in range(path.stat().st_size):
        flip(path, position)
        try:
            found, _ = read_checkpoint(path)
        except UsageError as error:
            assert str(path) in str(error)  # noqa: PT017 - that there is no error is right, too
        else:
            assert str(found) == str(values), position
        flip(path, position)


def test_both_states_damaged(server, new_home, tally):
    """Nothing is left to go on with: an error that names the file, or a start anew that says so."""
    tally.script = "train_image"
    reference = server.reference(new_home(), IMAGE)
    home = new_home()
    assert server.start(home, IMAGE, THIRD_STATE).wait() == -9
    for path in (home / "runs/r").glob("state*.checkpoint"):
        flip(path, path.stat().st_size // 2)
    tally.injected["damage to a file"] += 2
    life = server.start(home, IMAGE)
    code = life.wait()
    assert code in (0, 2), life.report()
    assert any("state.checkpoint" in line for line in life.complaints), life.report()
    assert code == 2 or differences(reference.home, home) == []
