"""Shared by all tests: one thread a process, the scripts' command line, the real data where it is present."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.reliability.harness import Server

LONGEST = 600  # seconds that a script may take
TEST_DEVICE = os.environ.get("MFAS_TEST_DEVICE", "")  # on which scripts train; see `make test-cuda`
ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "own_data.md").read_text()
torch.set_num_threads(1)
settings.register_profile("project", deadline=None)  # no test asserts on time
settings.load_profile("project")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Forks a process for each script, which saves the seconds that imports take."""
    server = Server(tmp_path_factory.mktemp("logs"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def script_runner(server):
    """Run one of the project's scripts in a folder, as a user would: (folder, script, *arguments, code=0, threads=1).

    `code` is the exit code that is expected; the finished process comes back, its output as text. The process is
    forked, unless the number of threads or the environment is to be another.
    """
    before = _environment()

    def run(cwd: Path, script: str, *args: object, code: int = 0, threads: int = 1) -> subprocess.CompletedProcess:
        if TEST_DEVICE and script.startswith(("main_", "train_")) and "--device" not in args:
            args = (*args, "--device", TEST_DEVICE)
        own = threads > 1 or _environment() != before
        if own:
            program = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
            command = [sys.executable, *program, *map(str, args)]
            env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
            done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=LONGEST)
        else:
            life = server.start(cwd, [script, *args])
            done = subprocess.CompletedProcess([script, *args], life.wait(LONGEST), life.output, life.errors)
        assert done.returncode == code, f"{done.args} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        if code:
            assert "Traceback" not in done.stderr
        return done

    return run


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}


@pytest.fixture
def run_script(tmp_path, script_runner):
    """Run one of the project's scripts in the test's own folder, or in `cwd`."""

    def run(script: str, *args: object, code: int = 0, cwd: Path = tmp_path) -> subprocess.CompletedProcess:
        return script_runner(cwd, script, *args, code=code)

    return run


@pytest.fixture(scope="session")
def guide_example(tmp_path_factory) -> Path:
    """A folder in which the first Python block of docs/own_data.md ran; its data/digits has features of three views."""
    folder = tmp_path_factory.mktemp("guide")
    code = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with mnist/, fsdd/recordings/ and esc50/: MFAS_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("MFAS_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"the real recordings are not at {folder}; set MFAS_DATA to their folder")
    return folder
