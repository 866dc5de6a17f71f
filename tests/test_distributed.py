"""Several processes under torchrun: the same search, the same bank, exact training, and refusals in one line."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from models.lenet import ImageLeNet
from tests.conftest import ROOT
from utils.training.batches import ArraySplit

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("distributed")]

DATA = ["--datadir", "data", "--checkpointdir", "checkpoints"]
SEARCH = ["main_searchable_avmnist.py", *DATA, "--max_fusions", 2, "--search_iterations", 1, "--epochs", 1, "--seed", 3]


def torchrun(folder: Path, processes: int, script: str | Path, *args: object, code: int = 0, **env: str):
    """Run a script in several processes of one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*command, ROOT / script, *map(str, args)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode == 0) == (code == 0), done.stderr
    return done


def journal(path: Path) -> list[dict]:
    """Lines without times."""
    lines = map(json.loads, (path / "journal.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines]


@pytest.fixture(scope="module")
def home(tmp_path_factory, script_runner) -> Path:
    """A folder with the embedded data set, two networks, and a search by one process."""
    home = tmp_path_factory.mktemp("distributed")
    limits = ["--limit_train", 600, "--limit_test", 60]
    script_runner(home, "avmnist_gen.py", "--source", "embedded", "--datadir", "data", *limits)
    for name in ("image", "audio"):
        script_runner(home, f"train_{name}.py", *DATA, "--epochs", 1, "--run_dir", name)
    script_runner(home, *SEARCH, "--run_dir", "one", "--with_random")
    return home


def test_searches_and_banks_of_several_processes_are_those_of_one(home):
    (bank,) = (home / "checkpoints/feature_bank").iterdir()
    for processes in (2, 3):
        shutil.move(bank, home / f"bank-{processes}")
        torchrun(home, processes, *SEARCH, "--run_dir", f"run-{processes}", "--with_random")
        for name in (".", "random"):
            assert journal(home / f"run-{processes}" / name) == journal(home / "one" / name)
        for name in ("dev.npy", "train-0.npy", "train-0.sha256", "dev.sha256"):
            assert (bank / name).read_bytes() == (home / f"bank-{processes}" / name).read_bytes()
        assert {path.name for path in bank.iterdir()} == {path.name for path in (home / f"bank-{processes}").iterdir()}
    left = {path.name for path in (home / "run-2").iterdir()} - {path.name for path in (home / "one").iterdir()}
    assert not left


def test_processes_are_compared(home, script_runner):
    flags = [*DATA, "--processes", 1, 2, "--repeats", 1, "--out", "processes.json"]
    done = script_runner(home, "benchmarks/processes.py", *flags)
    figures = json.loads((home / "processes.json").read_text())
    for part in ("extraction", "training", "both"):
        one, two = (figures[f"{part}, {n}"]["seconds"]["median"] for n in (1, 2))
        assert figures[f"{part}, 2"]["speed-up"]["median"] == pytest.approx(one / two)
    assert f"training, 2 {figures['training, 2']['seconds']['median']:13.1f} s" in done.stdout


EMULATED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from models.lenet import ImageLeNet
from utils import distributed
from utils.training.batches import ArraySplit
from utils.training.evaluation import judge
from utils.training.loop import ModelTraining
from utils.training.parallel import replicated, share_statistics

inputs, labels = torch.load("samples.pt")
split = ArraySplit((inputs,), labels)
network = ImageLeNet(channels=2, num_outputs=3)
network.load_state_dict(torch.load("start.pt"))
optimizer = torch.optim.SGD(network.parameters(), 0.1)
training = ModelTraining(replicated(network, network), optimizer, network.train)
result = training(split.batches(5, (0,)), iter([0.1] * 9), seed=0)
share_statistics(network)
accuracy, right, dev_loss = judge(network, split, 4, spread=True)
if not distributed.rank():
    torch.save((network.state_dict(), result.loss, result.accuracy, accuracy, right, dev_loss), "end.pt")
distributed.leave()
"""


def test_training_equals_replicas_in_one_process(tmp_path):
    """11 samples in batches of 5 over 3 processes: parts of 2, 2 and 1, and a last batch of 1."""
    torch.manual_seed(0)
    network = ImageLeNet(channels=2, num_outputs=3)
    inputs, labels = torch.randn(11, 1, 28, 28), torch.randint(3, (11,))
    torch.save((inputs, labels), tmp_path / "samples.pt")
    torch.save(network.state_dict(), tmp_path / "start.pt")
    (tmp_path / "train.py").write_text(EMULATED)
    torchrun(tmp_path, 3, tmp_path / "train.py", ROOT)
    state, loss, accuracy, judged, right, dev_loss = torch.load(tmp_path / "end.pt")

    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    split = ArraySplit((inputs,), labels)
    losses, correct = 0.0, 0
    for (own,), target in split.batches(5, (0,)):
        optimizer.zero_grad()
        statistics = None
        for x, y in zip(own.split(-(-len(own) // 3)), target.split(-(-len(own) // 3)), strict=True):
            before = [buffer.clone() for buffer in network.buffers()]
            outputs = network.train()(x)
            (F.cross_entropy(outputs, y, reduction="sum") / len(target)).backward()
            losses += float(F.cross_entropy(outputs.detach(), y, reduction="sum"))
            correct += int((outputs.argmax(1) == y).sum())
            statistics = statistics or [buffer.clone() for buffer in network.buffers()]  # those of the first part
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)
        for buffer, value in zip(network.buffers(), statistics, strict=True):
            buffer.copy_(value)
        optimizer.step()
    assert loss == pytest.approx(losses / 11, rel=1e-5)
    assert accuracy == pytest.approx(correct / 11)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=1e-5, atol=1e-5)
    outputs = network.eval()(inputs)
    assert dev_loss == pytest.approx(float(F.cross_entropy(outputs.detach(), labels)), rel=1e-5)
    expected = outputs.argmax(1) == labels
    assert right.tolist() == expected.tolist()
    assert judged == pytest.approx(float(expected.float().mean()))


WRONG = {
    "seed": ("sys.argv[sys.argv.index('--seed') + 1] = '4'", "has another seed (4) than process 0 (3)"),
    "data": (
        "sys.argv[sys.argv.index('--datadir') + 1] = 'other'",
        "has another datadir (other) than process 0 (data)",
    ),
    "changed": ("import os; os.chdir('elsewhere')", "has another data than process 0"),
    "version": ("import torch; torch.__version__ = '1.0'", "has another torch (1.0) than process 0"),
    "folder": ("import os; os.chdir('copy')", "does not see run; name a --run_dir that all hosts share"),
}


@pytest.fixture(scope="module")
def mistaken(home) -> Path:
    """Other data sets, and a program that makes the mistake of `WRONG` in process 1 before it runs the search."""
    for name in ("elsewhere", "copy"):
        (home / name).mkdir()
        shutil.copytree(home / "checkpoints", home / name / "checkpoints")
        shutil.copytree(home / "data", home / name / "data")
    shutil.copytree(home / "data", home / "other")
    labels = np.load(home / "elsewhere/data/train_labels.npy")
    np.save(home / "elsewhere/data/train_labels.npy", np.roll(labels, 1))
    return home


@pytest.mark.parametrize("case", WRONG)
def test_processes_that_differ_are_refused_in_one_line(case, mistaken):
    mistake, message = WRONG[case]
    program = f"""
import os, runpy, sys
sys.path.insert(0, {str(ROOT)!r})
if os.environ["RANK"] == "1":
    {mistake}
sys.argv[0] = {str(ROOT / SEARCH[0])!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    (mistaken / f"{case}.py").write_text(program)
    done = torchrun(mistaken, 2, mistaken / f"{case}.py", *SEARCH[1:], "--run_dir", "run", code=1)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (mistaken / "run/journal.jsonl").exists()
    shutil.rmtree(mistaken / "run", ignore_errors=True)


def test_what_needs_one_process_is_refused(home):
    for flag in ("--weightsharing", "--use_dataparallel"):
        done = torchrun(home, 2, *SEARCH, "--run_dir", "refused", flag, code=1)
        assert f"error: {flag}" in done.stderr


LONGER = [*SEARCH, "--search_iterations", 4, "--num_samples", 3, "--run_dir", "search"]
TRAINING = ["train_image.py", *DATA[:2], "--checkpointdir", "own", "--epochs", 20, "--seed", 3, "--run_dir", "training"]
PROGRESS = {"search": "journal.jsonl", "training": "state.checkpoint"}  # file that grows or changes as a run proceeds
FAULTS = {"worker": [1], "first": [0], "host": [0, 1]}  # ranks of the processes that are killed


PAIR = ["--standalone", "--nproc-per-node=2"]


def start(
    home: Path, command: list, errors: Path, options: list[str] = PAIR, host: int | None = None
) -> subprocess.Popen:
    """Start an agent, on one of the `hosts` if there are several."""
    inside = [] if host is None else ["ip", "netns", "exec", f"mfas{host}"]
    agent = [sys.executable, "-m", "torch.distributed.run", "--max-restarts=20", *options]
    own = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with errors.open("a") as file:
        return subprocess.Popen(
            [*inside, *agent, ROOT / command[0], *map(str, command[1:])],
            cwd=home,
            env=os.environ | own | ({} if host is None else {"GLOO_SOCKET_IFNAME": "eth0"}),
            stdout=subprocess.DEVNULL,
            stderr=file,
        )


def workers(agent: subprocess.Popen) -> dict[int, int]:
    """Process IDs of an agent's workers by rank."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            rank = re.search(rb"\0RANK=(\d+)\0", (path / "environ").read_bytes())
            if parent == agent.pid and rank:
                found[int(rank[1])] = int(path.name)
    return found


def until_at_work(path: Path, agent: subprocess.Popen, before: dict[int, int], count: int = 2) -> dict[int, int]:
    """Wait for `count` other workers than before and a change of the file; return their process IDs."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert agent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def changed() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    wait(lambda: len(set(workers(agent).values()) - set(before.values())) == count)
    running, last = workers(agent), changed()
    wait(lambda: changed() != last)
    return running


def outcome(name: str, home: Path) -> object:
    if name == "search":
        return journal(home / "search"), (home / "search/best_dev.npy").read_bytes()
    lines = json.loads((home / "training/results.json").read_text())["epochs"]
    return lines, (home / "own/image_model.pkl").read_bytes()


@pytest.mark.parametrize(("name", "command"), [("search", LONGER), ("training", TRAINING)])
def test_a_run_survives_the_loss_of_processes(name, command, home, tmp_path):
    torchrun(home, 2, *command)
    expected = outcome(name, home)
    for left in (name, "own"):
        shutil.rmtree(home / left, ignore_errors=True)
    rng, running = random.Random(name), dict[int, int]()
    agent = start(home, command, tmp_path / "errors")
    for fault in ("worker", "first", "host", "worker", "first"):
        running = until_at_work(home / name / PROGRESS[name], agent, running)
        time.sleep(rng.uniform(0, 0.1))
        if fault == "host":
            agent.kill()
        for rank in FAULTS[fault]:
            os.kill(running[rank], signal.SIGKILL)
        if fault == "host":
            agent.wait()
            agent = start(home, command, tmp_path / "errors")
    assert agent.wait(200) == 0, (tmp_path / "errors").read_text()
    assert outcome(name, home) == expected


def test_a_signal_stops_all_processes_after_the_epoch(home, tmp_path):
    command, state = [*TRAINING[:-1], "stopped", "--epochs", 1000], home / "stopped/state.checkpoint"
    agent = start(home, command, tmp_path / "errors")
    first = until_at_work(state, agent, {})
    os.kill(first[1], signal.SIGTERM)  # of one process: the other stops with it, and torchrun starts both again
    until_at_work(state, agent, first)
    agent.terminate()
    assert agent.wait(60) != 0
    assert not workers(agent)
    errors = (tmp_path / "errors").read_text()
    assert errors.count("stopped by SIGTERM; to resume: python") == 2
    assert "another process of this run ended" not in errors


HOSTS = 3


@pytest.fixture
def hosts():
    """Three network namespaces on a bridge, as hosts on one machine, 10.77.0.1 to 3."""

    def ip(*words: object) -> bool:
        return not subprocess.run(["ip", *map(str, words)], capture_output=True).returncode

    def remove() -> None:
        for i in range(HOSTS):
            ip("netns", "del", f"mfas{i}")
        ip("link", "del", "mfas")

    if not shutil.which("ip") or not ip("link", "add", "mfas", "type", "bridge"):
        pytest.skip("network namespaces need the program ip and the right to use it")
    try:
        assert ip("link", "set", "mfas", "up")
        for i in range(HOSTS):
            assert ip("netns", "add", f"mfas{i}")
            assert ip("link", "add", f"mfas{i}", "type", "veth", "peer", "name", "eth0", "netns", f"mfas{i}")
            assert ip("link", "set", f"mfas{i}", "master", "mfas", "up")
            assert ip("-n", f"mfas{i}", "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
            for name in ("eth0", "lo"):
                assert ip("-n", f"mfas{i}", "link", "set", name, "up")
        yield lambda i, state: ip("link", "set", f"mfas{i}", state)
    finally:
        remove()


def test_a_search_on_three_hosts_survives_the_loss_of_one(hosts, home, tmp_path):
    """A host is cut off, its processes end unnoticed, and it comes back; the results are those of one process."""
    command, folder = [*LONGER[:-1], "hosts", "--search_iterations", 8], home / "hosts"
    torchrun(home, 1, *command[:-3], "alone", *command[-2:])

    def begin(i: int) -> subprocess.Popen:
        conf = f"--rdzv-conf=is_host={int(i == 0)},last_call_timeout=3,keep_alive_interval=1"
        options = ["--nnodes=2:3", "--rdzv-backend=c10d", "--rdzv-id=test", "--rdzv-endpoint=10.77.0.1:29500", conf]
        return start(home, command, tmp_path / f"errors-{i}", [*options, f"--local-addr=10.77.0.{i + 1}"], i)

    agents = [begin(i) for i in range(HOSTS)]
    lost = until_at_work(folder / "journal.jsonl", agents[2], {}, 1)
    assert hosts(2, "down")
    agents[2].kill()
    for pid in lost.values():
        os.kill(pid, signal.SIGKILL)
    agents[2].wait()
    time.sleep(1)
    assert hosts(2, "up")
    agents[2] = begin(2)
    assert [agent.wait(200) for agent in agents] == [0] * HOSTS, (tmp_path / "errors-0").read_text()
    assert journal(folder) == journal(home / "alone")


def test_the_examples_for_clusters_are_complete():
    assert not subprocess.run(["bash", "-n", ROOT / "examples/slurm.sbatch"]).returncode
    service, job = yaml.safe_load_all((ROOT / "examples/kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert f"--nnodes={job['spec']['completions']}" in container["args"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    for text in ((ROOT / "examples/slurm.sbatch").read_text(), str(container["env"])):
        assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" in text
