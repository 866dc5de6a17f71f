"""The rules of the house: who imports whom, where argparse ends, and how long files and functions may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
BASE = [
    "utils.errors",
    "utils.files",
    "utils.reading",
    "utils.arrays",
    "utils.array_on_disk",
    "utils.seeds",
    "utils.progress",
    "utils.interrupts",
    "utils.distributed",
    "utils.output",
]
ORDER = [  # each may import only what comes before it
    "models",
    *BASE,
    "utils.parser",
    "utils.cli",
    "datasets",
    "utils.training",
    "utils.search",
    "utils.candidates",
    "utils.results",
    "utils.report",
    "utils.runs",
    "utils.pooling",
    "utils.extract",
    "utils.predict",
    "utils.study",
]
COMMANDS = {
    "utils/report/__main__.py",
    "datasets/ntu_prepare.py",
    "datasets/avmnist_check.py",
    "datasets/mmimdb/__main__.py",
}
TRAINING = {"datasets/mmimdb/__main__.py", "datasets/mmimdb/networks.py"}  # like a script, it may import all
PRODUCT = [path for name in ("models", "datasets", "utils") for path in sorted((ROOT / name).rglob("*.py"))]


def room(module: str) -> str:
    """The package of a module, or in `utils` the package or module below it."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "utils" else parts[0]


def modules(path: Path) -> set[str]:
    """Modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{a.name}" if node.module == "utils" else node.module for a in node.names}
    return names


def imported(path: Path) -> set[str]:
    """Rooms and scripts of this project that a file imports."""
    return {room(name) for name in modules(path) if name.split(".")[0] in ("models", "datasets", "utils", *SCRIPTS)}


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_what_comes_before_them(path):
    name = path.relative_to(ROOT)
    own = room(".".join(name.with_suffix("").parts).removesuffix(".__init__"))
    if own == "utils" or str(name) in TRAINING:
        return
    allowed = {own, *ORDER[: ORDER.index(own)]}
    if own.startswith("utils.") and ORDER.index(own) < ORDER.index("utils.runs"):
        allowed -= {"datasets"}  # data sets meet the method in the scripts
    if own in ("models", "datasets", *BASE) and str(name) not in COMMANDS:
        allowed -= {"utils.cli", "utils.parser", "models"} - {own}
    assert imported(path) <= allowed


@pytest.mark.parametrize("path", [*PRODUCT, *ROOT.glob("*.py")], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_imported_by_none(path):
    assert not modules(path) & {command.removesuffix(".py").replace("/", ".") for command in COMMANDS}


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_never_import_each_other(script):
    assert not imported(ROOT / f"{script}.py") & set(SCRIPTS)


def test_argparse_ends_in_scripts_and_flags():
    users = {str(path.relative_to(ROOT)) for path in PRODUCT if "argparse" in path.read_text()}
    flags = {
        f"utils/runs/{name}.py"
        for name in ("flags", "data_flags", "search_flags", "unimodal_flags", "settings", "ntu_data", "folder")
    }
    assert users <= {"utils/cli.py", "utils/parser.py"} | flags | COMMANDS
    assert "Namespace" not in (ROOT / "utils/runs/folder.py").read_text()


@pytest.mark.parametrize("path", [*PRODUCT, *ROOT.glob("*.py")], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert source.count("\n") <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= (100 if node.name == "main" else 60), f"{node.name} has {length} lines"
