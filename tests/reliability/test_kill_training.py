"""Trainings of unimodal and found networks, killed: resumed, every weight is that of one go."""

import itertools
from pathlib import Path

import pytest
import torch

from tests.reliability.harness import WhenGrown, cut, differences, flip, resuming, strikes, survive
from utils.checkpoints import read_checkpoint, write_checkpoint
from utils.cli import UsageError

IMAGE = ["train_image.py", "--run_dir", "runs/r", "--epochs", 5]
AUDIO = ["train_audio.py", "--run_dir", "runs/r", "--epochs", 3, "--limit_train", 64]
FOUND = ["main_found_avmnist.py", "--run_dir", "runs/r", "--epochs", 3, "--inner_representation_size", 8]
FOUND += ["--limit_train", 64]
SKELETON = ["train_skeleton_ntu.py", "--run_dir", "runs/r", "--epochs", 3, "--batchsize", 4, "--num_workers", 2]
SKELETON += ["--num_outputs", 2, "--vid_dim", 32]
STATE = "runs/r/state.checkpoint"

SCRIPTS = {"train_image.py": IMAGE, "train_audio.py": AUDIO, "main_found_avmnist.py": FOUND}
LONG = [pytest.param(name, seed, marks=pytest.mark.long) for name in SCRIPTS for seed in range(1, 9)]


@pytest.mark.parametrize(("script", "seed"), [("train_image.py", 0), ("train_audio.py", 0), (FOUND[0], 0), *LONG])
def test_training(server, new_home, tally, script, seed):
    tally.script = script
    command = SCRIPTS[script]
    reference = server.reference(new_home(), command)
    chosen = strikes(seed, reference, STATE)
    kills = 5 if script == "train_audio.py" else 10  # shares its code with train_image.py
    survive(server, tally, reference, new_home, resuming(command, "runs/r"), chosen, kills)
    assert tally.kills == kills


VARIANTS = {
    "multitask": [*FOUND, "--multitask", "--alphas", "--batchnorm"],
    "weights": [*FOUND, "--conf", "[[4,2,2]]", "--drpt", 0.5, "--Ti", 2],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_found_variants(server, new_home, tally, variant):
    tally.script = FOUND[0]
    command = VARIANTS[variant]
    reference = server.reference(new_home(), command)
    survive(server, tally, reference, new_home, resuming(command, "runs/r"), strikes(3, reference, STATE), 3)


@pytest.mark.parametrize("script", ["train_image.py", FOUND[0]])
def test_genuine_command(server, new_home, tally, script):
    """Commands as a user gives them, each in an interpreter of its own."""
    tally.script = script
    command = SCRIPTS[script]
    reference = server.reference(new_home(), command)
    home = new_home()
    assert WhenGrown(STATE, genuine=True).strike(server, home, command).wait() == -9
    tally.injected["kill of a command of its own"] += 1
    life = server.genuine(home, command)
    assert life.wait() == 0, life.report()
    assert differences(reference.home, home) == []


def test_ntu_training(server, ntu_training_home, tally):
    """With processes that read samples, which live on a moment when the one that started them is killed."""
    tally.script = SKELETON[0]
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


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("script", ["train_image.py", FOUND[0]])
def test_damaged_state(server, new_home, tally, script, damage):
    """The state before is used, and the epoch done again."""
    tally.script = script
    command = SCRIPTS[script]
    reference = server.reference(new_home(), command)
    third = reference.numbers("rename", within="/state.next")[2]
    home = new_home()
    assert server.start(home, command, {"how": "after", "at": third}).wait() == -9
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
            found = read_checkpoint(path)
        except UsageError as error:
            assert str(path) in str(error)  # noqa: PT017 - that there is no error is right, too
        else:
            assert str(found) == str(values), position
        flip(path, position)


def test_both_states_damaged(server, new_home, tally):
    """Nothing is left to go on with: an error that names the file, or a start anew that says so."""
    tally.script = "train_image.py"
    reference = server.reference(new_home(), IMAGE)
    third = reference.numbers("rename", within="/state.next")[2]
    home = new_home()
    assert server.start(home, IMAGE, {"how": "after", "at": third}).wait() == -9
    for path in (home / "runs/r").glob("state*.checkpoint"):
        flip(path, path.stat().st_size // 2)
    tally.injected["damage to a file"] += 2
    life = server.start(home, IMAGE)
    code = life.wait()
    assert code in (0, 2), life.report()
    assert any("state.checkpoint" in line for line in life.complaints), life.report()
    assert code == 2 or differences(reference.home, home) == []
