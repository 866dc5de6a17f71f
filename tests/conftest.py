"""Shared by all tests: one thread a process, the scripts' command line, the real data where it is present."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "own_data.md").read_text()
torch.set_num_threads(1)
settings.register_profile("project", deadline=None)  # no test asserts on time
settings.load_profile("project")


def _run_script(cwd: Path, script: str, *args: object, code: int = 0, threads: int = 1) -> subprocess.CompletedProcess:
    program = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    command = [sys.executable, *program, *map(str, args)]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
    if code:
        assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="session")
def script_runner():
    """Run one of the project's scripts in a folder, as a user would: (folder, script, *arguments, code=0, threads=1).

    `code` is the exit code that is expected; the finished process comes back, its output as text.
    """
    return _run_script


@pytest.fixture
def run_script(tmp_path):
    """Run one of the project's scripts in the test's own folder, or in `cwd`."""

    def run(script: str, *args: object, code: int = 0, cwd: Path = tmp_path) -> subprocess.CompletedProcess:
        return _run_script(cwd, script, *args, code=code)

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
