"""Who imports whom, and whether the map of `utils` names all that is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("models", "datasets", "utils", "benchmarks", "tests")
SCRIPTS = {path.stem for path in ROOT.glob("*.py")}
MAY_IMPORT = {"models": {"models"}, "datasets": {"datasets"}, "utils": {"utils", "models"}}


def imported(path: Path) -> set[str]:
    """Names of ours that a file imports, packages or scripts."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names & (SCRIPTS | set(PACKAGES))


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_lies_below_them(package):
    for path in (ROOT / package).rglob("*.py"):
        if "__main__" not in path.read_text():  # else a script, which may import all packages
            assert imported(path) <= MAY_IMPORT[package], path


def test_scripts_never_import_each_other():
    for script in SCRIPTS:
        assert imported(ROOT / f"{script}.py") <= {"models", "datasets", "utils"}, script


def test_the_map_of_utils_names_every_module():
    rows = re.findall(r"^\w+(?: \w+)?  +(.+)$", (ROOT / "utils/__init__.py").read_text(), re.MULTILINE)
    named = {name for words in rows for name in re.sub(r"\([^)]*\)", "", words).replace(",", " ").split()}
    modules = {path.stem for path in (ROOT / "utils").glob("*.py")} - {"__init__"}
    assert modules <= named
