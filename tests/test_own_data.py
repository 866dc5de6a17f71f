"""The guide to one's own data: its example runs as printed, and gives a folder that the scripts read."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from datasets.features import load_features

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "own_data.md").read_text()
SMALL = {
    "main_searchable_features.py": "--search_iterations 1 --max_fusions 2 --num_samples 3 --epochs 1",
    "main_found_features.py": "--epochs 2 --run_dir runs/found",
}
SAMPLES = {"train": 1000, "dev": 400, "test": 397}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder in which the first Python block of the guide ran."""
    folder = tmp_path_factory.mktemp("guide")
    code = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_example_writes_the_folder_that_the_guide_describes(workplace):
    folder = workplace / "data" / "digits"
    assert sorted(path.name for path in folder.iterdir()) == ["dev.npz", "test.npz", "train.npz"]
    for split, count in SAMPLES.items():
        with np.load(folder / f"{split}.npz") as arrays:
            shapes = {name: array.shape for name, array in arrays.items()}
            types = {name: array.dtype for name, array in arrays.items()}
            label = arrays["label"]
        expected = {"label": (count,)}
        for name in ("top", "bottom", "edges"):
            expected |= {f"{name}.{i}": (count, width) for i, width in enumerate((8, 16, 64))}
            expected |= {f"{name}.logits": (count, 10)}
        assert shapes == expected
        assert {types.pop("label"), *types.values()} == {np.dtype(np.int64), np.dtype(np.float32)}
        assert set(label) == set(range(10))


def test_the_examples_networks_learn_and_are_better_together(workplace):
    with np.load(workplace / "data" / "digits" / "test.npz") as arrays:
        logits = [arrays[f"{name}.logits"].astype(float) for name in ("top", "bottom", "edges")]
        label = arrays["label"]
    scores = [x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in logits]
    single = [(x.argmax(axis=1) == label).mean() for x in scores]
    assert min(single) > 0.5
    assert (sum(scores).argmax(axis=1) == label).mean() > max(single)


def test_the_reader_takes_the_examples_folder(workplace):
    data = load_features(workplace / "data" / "digits", tuple(SAMPLES), {})
    assert data.modalities == ("top", "bottom", "edges")
    assert data.widths == ((8, 16, 64),) * 3
    assert data.has_logits
    assert data.num_outputs == 10
    assert not data.multi_label


@pytest.mark.slow
def test_the_commands_of_the_guide_search_and_train_what_was_found(workplace, run_script):
    commands = re.search(r"```sh\n(.*?)```", GUIDE, re.DOTALL)[1].splitlines()
    for command, (script, small) in zip(commands, SMALL.items(), strict=True):
        python, named, *flags = shlex.split(command)
        assert (python, named) == ("python", script)
        run_script(script, *flags, *small.split(), "--no-verbose", cwd=workplace)
    best = json.loads((workplace / "runs" / "digits" / "best.json").read_text())
    assert (best["modalities"], best["sizes"]) == (["top", "bottom", "edges"], [3, 3, 3])
    found = json.loads((workplace / "runs" / "found" / "results.json").read_text())
    assert found["configuration"] == best["configurations"][0]["configuration"]
    assert all(len(row) == 4 for row in found["configuration"])
    confusion = np.array(found["confusion"])
    assert confusion.shape == (10, 10)
    assert confusion.sum() == SAMPLES["test"]
    assert (workplace / "runs" / "digits" / "report.html").stat().st_size > 1000
