"""Standard output and error that are closed, full, broken or ASCII; names of any characters; errors as one line."""

import contextlib
import fcntl
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from utils import cli, interrupts
from utils.training import devices

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
BYTES = os.fsdecode(b"r\xff\xc3\xa9")  # a name in no encoding
STOPPED = """
import os, signal, sys
from pathlib import Path
from utils import cli, interrupts

def main():
    with open("data", "w") as file, interrupts.gently():
        print("a line")
        print("a warning", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)
        file.write("saved")
        file.flush()
        interrupts.check()

cli.run(main)
"""


@pytest.fixture
def python(tmp_path):
    """Run Python code with `utils` in a folder of its own, by a shell that may redirect its output."""

    def run(code: str, redirect: str = "", stderr=subprocess.PIPE, **env: str) -> subprocess.CompletedProcess:
        (tmp_path / "code.py").write_text(code)
        return subprocess.run(
            ["sh", "-c", f'exec "$0" code.py {redirect}', sys.executable],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=60,
        )

    return run


@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_closed_or_full_output_stops_nothing(python, tmp_path, redirect):
    """No file of the run gets the number of a closed descriptor, and with it the messages."""
    assert python(STOPPED, redirect).returncode == 143
    assert (tmp_path / "data").read_text() == "saved"


def test_full_standard_output_is_one_line(python):
    done = python(STOPPED, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == b"error: standard output: No space left on device\n"


@pytest.mark.parametrize("kind", ["broken", "full", "full, not blocking"])
def test_a_signal_is_handled_whoever_reads_standard_error(python, tmp_path, kind):
    reader, writer = os.pipe()
    if kind == "broken":
        os.close(reader)
    else:
        flags = fcntl.fcntl(writer, fcntl.F_GETFL)
        fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(writer, bytes(4096)):
                pass
        fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_NONBLOCK * ("not" in kind))
    try:
        assert python(STOPPED, stderr=writer).returncode == 143
    finally:
        os.close(writer)
        if kind != "broken":
            os.close(reader)
    assert (tmp_path / "data").read_text() == "saved"


def test_a_reader_that_has_left_ends_the_script_quietly(python):
    done = python("from utils import cli\ncli.run(lambda: [print(i) for i in range(100_000)])", "| head -1")
    assert (done.stdout, done.stderr) == (b"0\n", b"")


@pytest.mark.parametrize("env", [{}, ASCII], ids=["", "ASCII"])
def test_names_are_printable_and_short(python, env):
    name = "\x1b[31m\r\n" + BYTES + "x" * 1_000_000
    code = f"""
from utils import cli, errors
name = {name!r}
def main():
    print(name[:9])
    raise errors.UsageError(f"{{name}} is a name; {{name}} too; take another")
cli.run(main)
"""
    done = python(code, **env)
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert line.startswith("error: \\x1b[31m r\\udcff")
    assert line.endswith("is a name; \\x1b[31m " + line.partition("is a name; \\x1b[31m ")[2])
    assert line.endswith("too; take another")
    assert line.isprintable()
    assert len(line) < 1100
    shown = done.stdout.decode()
    assert shown.startswith("\\x1b[31m")
    assert "r\\udcff" in shown


def test_a_bug_is_called_one(python):
    code = """
from utils import cli
def deeper(depth):
    return deeper(depth - 1) if depth else {}["key"]
cli.run(lambda: deeper(50))
"""
    done = python(code)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 70
    assert lines[0].startswith("Traceback")
    assert lines[-2] == "KeyError: 'key'"
    assert lines[-1].startswith("error: this is a bug; please report it")
    assert len(lines) < 15


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Path:
    """A folder with small features of two networks."""
    folder, rng = tmp_path_factory.mktemp("features"), np.random.default_rng(0)
    for split, count in (("train", 24), ("dev", 12), ("test", 12)):
        label = np.arange(count) % 3
        arrays = {f"{name}.0": label[:, None] + rng.normal(size=(count, 4)) for name in "ab"}
        np.savez(folder / f"{split}.npz", label=label, **arrays)
    return folder


def found(folder: Path, features: Path, *flags: str, **options) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        str(ROOT / "main_found_features.py"),
        "--datadir",
        str(features),
        "--epochs",
        "1",
        *flags,
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=100, **options)


@pytest.mark.parametrize("conf", ["[[0,0,0]]", str([[0, 0, 0]] * 40).replace(" ", "")], ids=["", "long"])
def test_a_run_folder_of_any_bytes_in_any_locale(features, tmp_path, conf):
    """Also the name of a checkpoint may be longer than a file system allows."""
    done = found(tmp_path, features, "--run_dir", BYTES, "--conf", conf, "--inner_representation_size", "4", env=ASCII)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / BYTES / "report.html").read_bytes()
    assert os.fsencode(BYTES) in page
    assert len(list(tmp_path.glob("checkpoints/features/best_*.checkpoint"))) == 1
    assert b"r\\udcff" in done.stdout
    assert done.stdout.isascii()


def test_tensorboard_refuses_such_names_at_the_start(features, tmp_path):
    done = found(tmp_path, features, "--run_dir", BYTES, "--conf", "[[0,0,0]]", "--tensorboard", env=ASCII)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(b"error: --tensorboard needs names in UTF-8")
    assert not (tmp_path / BYTES).exists()


@pytest.mark.parametrize("work", ["torch.zeros(10**13)", "numpy.zeros(10**13 // 2)"])
def test_lack_of_memory_names_the_amount_and_the_flag(python, work):
    code = f"""
import numpy, torch
from utils import cli
parser = cli.make_parser("Ask for much.")
parser.add_argument("--batchsize", type=cli.COUNT)
cli.run(lambda: (parser.parse_args([]), {work}))
"""
    done = python(code)
    amount = "40,000.0 GB" if "torch" in work else "36.4 TiB"
    message = f"error: out of memory: {amount} were requested at once; a smaller --batchsize needs less\n"
    assert (done.returncode, done.stderr.decode()) == (1, message)


def test_more_classes_than_memory_are_refused_before_the_training(features, tmp_path, monkeypatch, capsys):
    """The scores of the test split, and the layers of the network."""
    many = tmp_path / "many"
    many.mkdir()
    for split in ("train", "dev", "test"):
        with np.load(features / f"{split}.npz") as old:
            logits = {f"{name}.logits": np.zeros((len(old["label"]), 100_000), np.int8) for name in "ab"}
            np.savez(many / f"{split}.npz", **old, **logits)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interrupts, "install", lambda output: None)
    monkeypatch.setattr(devices, "available_memory", lambda device: 10_000_000)
    main = importlib.import_module("main_found_features").main
    for units, words in (("4", "the scores of 48 samples for 100,000 classes"), ("512", "layers of 512 units for")):
        flags = ["--datadir", str(many), "--conf", "[[0,0,0]]", "--inner_representation_size", units]
        monkeypatch.setattr(sys, "argv", ["main_found_features.py", *flags, "--run_dir", "run", "--no-verbose"])
        with pytest.raises(SystemExit) as stopped:
            cli.run(main)
        warning, line = capsys.readouterr().err.splitlines()
        assert "has no sample of 99,997 of 100,000 classes: 3, 4, 5" in warning
        assert stopped.value.code == 2
        assert line.startswith(f"error: {words}")
        assert " GB are free; use " in line
        assert not (tmp_path / "run/results.json").exists()
