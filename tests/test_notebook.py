"""docs/own_data.ipynb runs from its first cell to its last, and is stored with its pictures."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "own_data.ipynb"
PICTURES = 4


def outputs(notebook: nbformat.NotebookNode) -> tuple[str, int]:
    """What its cells printed, and the number of their pictures."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in found if output.output_type == "error"]
    printed = "".join(output.text for output in found if output.output_type == "stream")
    return printed, sum("image/png" in output.get("data", {}) for output in found)


def test_it_is_stored_as_it_ran():
    printed, pictures = outputs(nbformat.read(NOTEBOOK, 4))
    assert pictures == PICTURES
    assert "75 candidates trained" in printed
    assert str(ROOT) not in printed


@pytest.mark.slow
@pytest.mark.trained
def test_it_runs(tmp_path, monkeypatch):
    for path in [*ROOT.glob("*.py"), ROOT / "models", ROOT / "datasets", ROOT / "utils"]:
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "docs").mkdir()
    shutil.copy(NOTEBOOK, tmp_path / "docs")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(tmp_path / "docs" / NOTEBOOK.name, 4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
    where = {"metadata": {"path": str(tmp_path / "docs")}}
    NotebookClient(notebook, timeout=600, resources=where).execute()
    printed, pictures = outputs(notebook)
    assert pictures == PICTURES
    work = tmp_path / "runs" / "own_data"
    results = json.loads((work / "found" / "results.json").read_text())
    assert results["verdict"] in printed
    test = results["rows"][-1]["test"]
    assert f"{test:.1%} of 397 test samples are classified correctly" in printed  # by the loaded checkpoint, too
    assert test > 0.85  # 0.914; the best single network reached 0.839
    assert sorted(path.name for path in Path(work).iterdir()) == ["checkpoints", "data", "found", "search"]
