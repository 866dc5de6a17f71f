"""What the tests that kill share: small data, counts of faults.

With MFAS_FAULTS naming a file, each test that injects faults appends a line of JSON to it; then
`python -m tests.reliability.summary FILE` prints the table of docs/reliability.md.
"""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ntu_samples import write_samples
from tests.reliability.harness import Tally
from tests.test_avmnist_gen import originals  # noqa: F401 - a fixture here too

TALLY = pytest.StashKey[Tally]()


@pytest.fixture(scope="session")
def avmnist(server, tmp_path_factory) -> Path:
    """A home with a small data/avmnist, and checkpoints/avmnist of one epoch."""
    home = tmp_path_factory.mktemp("avmnist")
    server.run(home, ["avmnist_gen.py", "--source", "embedded", "--limit_train", 240, "--limit_test", 60])
    for script in ("train_image.py", "train_audio.py"):
        server.run(home, [script, "--epochs", 1, "--run_dir", f"runs/{script}"])
    shutil.rmtree(home / "runs")
    return home


@pytest.fixture(scope="session")
def ntu_originals(tmp_path_factory) -> Path:
    """A folder with a few videos and skeleton files in NTU's format: nturgbd_rgb and nturgbd_skeletons."""
    folder = tmp_path_factory.mktemp("ntu")
    write_samples(folder, classes=2, subjects={"train": 2, "dev": 1, "test": 1}, vid_dim=64, frames=(8, 12))
    return folder


@pytest.fixture(scope="session")
def ntu_samples(tmp_path_factory) -> Path:
    """A small data set in NTU's format, prepared for --vid_dim 32."""
    folder = tmp_path_factory.mktemp("ntu-samples")
    write_samples(folder, classes=2, subjects={"train": 4, "dev": 2, "test": 2}, vid_dim=32, frames=(10, 14))
    return folder


def _maker(tmp_path: Path, fill: Callable[[Path], None]) -> Callable[[], Path]:
    numbers = itertools.count(1)

    def make() -> Path:
        home = tmp_path / f"home-{next(numbers)}"
        home.mkdir()
        fill(home)
        return home

    return make


@pytest.fixture
def new_home(avmnist, tmp_path) -> Callable[[], Path]:
    """Makes homes with the data (a link) and the checkpoints (a copy)."""

    def fill(home: Path) -> None:
        (home / "data").symlink_to(avmnist / "data")
        shutil.copytree(avmnist / "checkpoints", home / "checkpoints")

    return _maker(tmp_path, fill)


@pytest.fixture
def ntu_home(ntu_originals, tmp_path) -> Callable[[], Path]:
    """Makes homes whose data/ntu has the skeleton files (a link), beside the original videos (a link)."""

    def fill(home: Path) -> None:
        (home / "data/ntu").mkdir(parents=True)
        (home / "originals").symlink_to(ntu_originals / "nturgbd_rgb/avi_64x64_30")
        (home / "data/ntu/nturgbd_skeletons").symlink_to(ntu_originals / "nturgbd_skeletons")

    return _maker(tmp_path, fill)


@pytest.fixture
def ntu_training_home(ntu_samples, tmp_path) -> Callable[[], Path]:
    """Makes homes with data/ntu (a link)."""

    def fill(home: Path) -> None:
        (home / "data").mkdir()
        (home / "data/ntu").symlink_to(ntu_samples)

    return _maker(tmp_path, fill)


@pytest.fixture
def originals_home(originals, tmp_path) -> Callable[[], Path]:  # noqa: F811
    """Makes homes with small MNIST, FSDD and ESC-50 (a link)."""
    return _maker(tmp_path, lambda home: (home / "originals").symlink_to(originals))


@pytest.fixture
def homes(request, name) -> Callable[[], Path]:
    """Makes homes for the command `name`, of `commands.COMMANDS`, that a test is parametrized with."""
    makers = {"avmnist_gen": "originals_home", "ntu_prepare": "ntu_home", "train_skeleton_ntu": "ntu_training_home"}
    return request.getfixturevalue(makers.get(name, "new_home"))


@pytest.fixture
def tally(request) -> Tally:
    """Counts the faults of a test; those of a test that passes were survived."""
    request.node.stash[TALLY] = tally = Tally()
    return tally


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    tally, path = item.stash.get(TALLY, None), os.environ.get("MFAS_FAULTS")
    if report.when == "call" and tally and tally.injected and path:
        line = {"test": item.name, "script": tally.script, "passed": report.passed, "injected": dict(tally.injected)}
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")
    return report


def pytest_collection_modifyitems(items):
    """All of this folder but the quick tests of bad numbers are left out by `make test-fast`."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.stem != "test_bad_numbers":
            item.add_marker(pytest.mark.slow)
