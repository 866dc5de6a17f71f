"""The code of docs/faq.md runs as printed."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/faq.md").read_text(), re.DOTALL)
FAKE = """
import contextlib, json

@contextlib.contextmanager
def start_run(run_name):
    with open("logged.json", "w") as start_run.file:
        yield

def log_metric(name, value, step):
    print(json.dumps([name, value, step]), file=start_run.file)
"""


@pytest.mark.slow
def test_features_are_written_without_this_project_and_events_are_copied(tmp_path, run_script):
    """In a project with a `utils` package of its own, and with MLflow replaced by a module that notes its calls."""
    mlflow, write = BLOCKS
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils/__init__.py").write_text("raise RuntimeError('not the one that was meant')")
    (tmp_path / "mlflow.py").write_text(FAKE)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", write], cwd=tmp_path, env=env, check=True, timeout=60)

    small = ("--max_fusions", 1, "--search_iterations", 1, "--epochs", 1, "--tensorboard", "--run_dir", "runs/own")
    run_script("main_searchable_features.py", "--datadir", "data/mine", *small)
    best = json.loads((tmp_path / "runs/own/best.json").read_text())
    assert (best["modalities"], best["sizes"]) == (["audio", "image"], [2, 1])
    assert best["configurations"][0]["accuracy"] > 0.5

    subprocess.run([sys.executable, "-c", mlflow], cwd=tmp_path, env=env, check=True, timeout=60)
    logged = [json.loads(line) for line in (tmp_path / "logged.json").read_text().splitlines()]
    steps = [step for name, _, step in logged if name == "candidates/dev_accuracy"]
    assert steps == list(range(1, best["candidates_trained"] + 1))
