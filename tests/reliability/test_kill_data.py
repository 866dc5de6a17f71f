"""Kill data preparation and feature extraction: the same command again ends with the same bytes."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.reliability.commands import EXTRACT, GENERATE, PREPARE
from tests.reliability.harness import Reference, differences, survive
from tests.reliability.strikes import AtOperation, Strike, WhenGrown, strikes


def whole_or_not_there(home: Path, kills: int) -> None:
    """A data set is complete or absent; one that is being replaced is in its place or beside it."""
    folder = home / "data/avmnist"
    assert not folder.exists() or (folder / "manifest.json").exists()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_avmnist_gen(server, originals_home, tally, seed):
    tally.script = "avmnist_gen"
    reference = server.reference(originals_home(), GENERATE)
    chosen = strikes(seed, reference, "data/.avmnist.partial/**/*")
    survive(server, tally, reference, originals_home, lambda home: GENERATE, chosen, 10, whole_or_not_there)
    assert tally.kills == 10


def test_avmnist_gen_replacing(server, originals_home, tally):
    """Killed around every operation that moves the new data set into the place of the old one."""
    tally.script = "avmnist_gen"
    replacing = [*GENERATE, "--seed", 1, "--force"]

    first = originals_home()
    server.run(first, GENERATE)

    def built() -> Path:
        home = originals_home()
        shutil.copytree(first / "data", home / "data")
        return home

    home = built()
    reference = server.reference(home, replacing)
    moves = [number for number in reference.numbers("rename") if "json" not in reference.operations[number][1]]
    last = len(reference.operations) - 1
    assert len(moves) == 2  # the old one out, the new one in
    faults = [(moves[0], "before"), (moves[0], "after"), (moves[1], "after"), (last, "before")]
    for number, how in faults:
        home = built()
        assert AtOperation(number, how).strike(server, home, replacing).wait() == -9
        tally.injected[AtOperation.name] += 1
        server.run(home, replacing)
        assert differences(reference.home, home) == []


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_ntu_prepare(server, ntu_home, tally, seed):
    tally.script = "ntu_prepare"
    reference = server.reference(ntu_home(), PREPARE)

    def no_half_clip(home: Path, kills: int) -> None:
        for path in (home / "data/ntu").rglob("*.avi"):
            assert path.read_bytes() == (reference.home / path.relative_to(home)).read_bytes()

    chosen = strikes(seed, reference, "data/ntu/nturgbd_rgb/*/*")
    survive(server, tally, reference, ntu_home, lambda home: PREPARE, chosen, 12, no_half_clip)
    assert tally.kills == 12


def in_extraction(seed: int, reference: Reference) -> Iterator[Strike]:
    """Before, amid and after the operations of the feature bank, in any order; then as its tables grow."""
    rng = random.Random(seed)
    bank = reference.numbers("open", "write", "fsync", "rename", "truncate", "folder", within="feature_bank")
    while True:
        yield AtOperation(rng.randrange(len(bank)), rng.choice(["before", "torn", "after"]), "feature_bank")
        yield WhenGrown("checkpoints/avmnist/feature_bank/*/*.partial", rng.randint(1, 20_000))


def test_feature_extraction(server, new_home, tally):
    """Goes on after the batches that are on the disk, and the tables are those of one go."""
    tally.script = "feature extraction"
    reference = server.reference(new_home(), EXTRACT)
    kept = []

    def rows_are_right(home: Path, kills: int) -> None:
        for partial in home.glob("checkpoints/avmnist/feature_bank/*/*.partial"):
            whole = (reference.home / partial.relative_to(home)).with_suffix(".npy").read_bytes()
            assert whole.startswith(partial.read_bytes())
            kept.append(partial.stat().st_size)

    chosen = in_extraction(0, reference)
    survive(server, tally, reference, new_home, lambda home: EXTRACT, chosen, 12, rows_are_right)
    assert tally.kills == 12
    assert max(kept) > np.lib.format.ARRAY_ALIGN * 10  # some were amid the rows
