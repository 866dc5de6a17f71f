"""Splits: slices of arrays, and samples that worker processes read."""

import dataclasses
import multiprocessing.queues
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from utils.errors import DataError
from utils.training.batches import LoadedSplit, WorkerError


@dataclasses.dataclass(frozen=True)
class Source:
    """Seven samples: a uint8 clip that tells index and crop, and a float that tells the index."""

    labels: torch.Tensor
    broken: int | str | None = None

    def __len__(self):
        return len(self.labels)

    def load(self, index, modality, crop=None):
        if index == self.broken:
            raise DataError(f"sample {index} is damaged")
        if self.broken == "stuck":
            time.sleep(1000)
        if self.broken == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif isinstance(self.broken, str):
            Path(self.broken).read_bytes()
        if modality == "rgb":
            return torch.tensor([index, 0 if crop is None else 1 + crop % 200]).to(torch.uint8)
        return torch.tensor([float(index)])


def split(workers=0, crop_seed=None, broken=None) -> LoadedSplit:
    source = Source(torch.arange(7) * 10, broken)
    return LoadedSplit(source, ("rgb", "skeleton"), lambda x: x.float() / 2, workers, crop_seed)


def content(batches) -> list:
    return [([x.tolist() for x in inputs], labels.tolist()) for inputs, labels in batches]


def test_batches_in_order_are_prepared_and_labelled():
    batches = split().batches(3)
    assert len(batches) == 3
    (first, *_, last) = content(batches)
    assert first == ([[[0, 0], [0.5, 0], [1, 0]], [[0], [1], [2]]], [0, 10, 20])
    assert last == ([[[3, 0]], [[6]]], [60])


def test_workers_change_nothing():
    for shuffle in (None, (3, "shuffle", 0)):
        alone = content(split(0, crop_seed=5).at_pass(1).batches(2, shuffle))
        assert content(split(2, crop_seed=5).at_pass(1).batches(2, shuffle)) == alone


def test_shuffled_batches_hold_every_sample_once_with_its_own_label():
    batches = content(split().batches(2, (0, "shuffle", 1)))
    labels = [label for _, part in batches for label in part]
    assert sorted(labels) == list(range(0, 70, 10)) != labels
    assert labels == [10 * index for inputs, _ in batches for (index,) in inputs[1]]


def test_crops_differ_from_pass_to_pass_and_only_where_asked_for():
    cropped = split(crop_seed=5)
    passes = [content(cropped.at_pass(number).batches(7)) for number in (0, 1, 0)]
    assert passes[0] == passes[2] != passes[1]
    assert content(cropped.batches(7)) == content(split().at_pass(1).batches(7)) == content(split().batches(7))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_arrives_as_it_was_raised(workers):
    with pytest.raises(DataError) as caught:
        list(split(workers, broken=4).batches(2))
    assert str(caught.value) == "sample 4 is damaged"


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_system_arrives_as_it_was_raised(workers):
    with pytest.raises(FileNotFoundError, match=re.escape("'gone.avi'")):
        list(split(workers, broken="gone.avi").batches(2))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_told_in_one_line(workers):
    with pytest.raises(WorkerError, match="use fewer --num_workers"):
        list(split(workers, broken="killed").batches(2))


def test_a_worker_that_cannot_hand_over_a_batch_ends_the_wait(monkeypatch):
    """Its queue's thread meets the error, such as that of a full /dev/shm, where Python only prints it."""
    dumps, parent = multiprocessing.queues._ForkingPickler.dumps, os.getpid()

    def refuse(*args):
        if os.getpid() == parent:
            return dumps(*args)
        raise RuntimeError("unable to allocate shared memory")

    monkeypatch.setattr(multiprocessing.queues._ForkingPickler, "dumps", refuse)
    with pytest.raises(WorkerError, match=r"/dev/shm.*--num_workers 0"):
        list(split(2).batches(2))


WAITS = """
from tests.test_batches import split
from utils import cli, interrupts

interrupts.PATIENCE = 0.5

def main():
    with interrupts.gently():
        for _ in split(2, broken="stuck").batches(2):
            pass

cli.run(main)
"""
POOL = """
import time
from datasets.ntu.workers import parallel
from utils import cli

cli.run(lambda: list(parallel(time.sleep, [1000, 1000], 2)))
"""
BIG = """
import torch
from tests.test_batches import Source, split
from utils import cli

Source.load = lambda *args: torch.zeros(9_000_000, dtype=torch.uint8)
cli.run(lambda: list(split(2).batches(2)))
"""


def start(code: str, *prefix: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*prefix, sys.executable, "-c", code]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(process: subprocess.Popen, count: int) -> list[int]:
    """Processes that a process has started, once there are `count`."""
    while process.poll() is None:
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if len(found) == count:
            return [int(pid) for pid in found]
        time.sleep(0.05)
    raise AssertionError(process.stderr.read())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_wait_for_stuck_workers_ends(number):
    """By a signal to the process itself, though it would first finish its epoch, or by the death of a worker."""
    with start(WAITS) as process:
        workers = workers_of(process, 2)
        time.sleep(0.5)
        os.kill(workers[0] if number == signal.SIGKILL else process.pid, number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == (1 if number == signal.SIGKILL else 128 + number), errors
        assert ("a process that reads samples ended" if number == signal.SIGKILL else "stopped by") in errors
        assert "Traceback" not in errors


@pytest.mark.slow
def test_a_preparation_with_stuck_workers_is_stopped():
    with start(POOL) as process:
        workers_of(process, 2)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (143, "stopped by SIGTERM\n")


@pytest.mark.slow
def test_little_shared_memory_is_told_in_one_line():
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount += ['mount -t tmpfs -o size=16m none /dev/shm || exit 77; exec "$@"', "sh"]
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    with start(BIG, *mount) as process:
        _, errors = process.communicate(timeout=60)
        if process.returncode == 77 or "unshare" in errors:
            pytest.skip("this system lets nobody mount a small /dev/shm in a namespace of his own")
        (line,) = errors.splitlines()
        assert process.returncode == 1
        assert "/dev/shm" in line
        assert "--num_workers 0" in line


def test_reading_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(split(crop_seed=1).at_pass(0).batches(2, (0, "shuffle", 0)))
    assert torch.equal(torch.rand(3), expected)
