"""The branches that only CUDA takes: with stand-ins for its calls on any machine, and for real where there is a device.

`make test-cuda` runs the fast tests with `--device cuda`. MFAS_TEST_DEVICE=cpu runs the real ones here on the CPU.
"""

import copy
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.fusion import FeatureLayout, FusionHead, HeadSettings
from models.population import Population
from tests.conftest import TEST_DEVICE
from utils import distributed
from utils.candidates.population_training import PopulationTraining
from utils.errors import UsageError
from utils.extract import Extractor
from utils.training import batches
from utils.training.batches import ArraySplit, LoadedSplit
from utils.training.devices import available_memory, data_parallel, resolve_device, use_bfloat16
from utils.training.loop import TrainingSettings

DEVICE = TEST_DEVICE or "cuda"
on_device = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="torch sees no CUDA device")
LAYOUT = FeatureLayout(widths=((3, 6, 12), (5, 9)), num_outputs=10)
CONFIGURATIONS = [[[2, 1, 0]], [[0, 0, 1], [1, 1, 0]], [[2, 0, 1], [2, 1, 1], [0, 1, 0]]]
BATCH, STEPS = 16, 6
SETTINGS = [
    {"dropout": 0.0},
    {"dropout": 0.4, "multitask": True},
    {"dropout": 0.4, "alphas": True},
    {"dropout": 0.4, "batchnorm": True},
]


class Graphs:
    """Stand-in for `torch.cuda.make_graphed_callables`, with what makes graphs differ from calls.

    They read the memory of the sample inputs and of the weights, whatever is passed or has replaced them.
    """

    def __init__(self) -> None:
        self.captures: list[nn.Module] = []
        self.replays = 0

    def __call__(self, module, samples, allow_unused_input=False):
        self.captures.append(module)
        for _ in range(3):  # the warm-up, on the weights alone
            torch.autograd.grad(module(*samples), list(module.parameters()), allow_unused=allow_unused_input)
        memory = [tensor.data_ptr() for tensor in module.state_dict(keep_vars=True).values()]

        def replay(*inputs):
            assert [x.shape for x in inputs] == [x.shape for x in samples]
            assert [tensor.data_ptr() for tensor in module.state_dict(keep_vars=True).values()] == memory
            self.replays += 1
            for own, given in zip(samples, inputs, strict=True):
                own.copy_(given)
            return module(*samples)

        return replay


def trained(settings: HeadSettings, device: str = "cpu", graphs: bool | None = None) -> torch.Tensor:
    """Weights of a population after two passes with a smaller last batch, resumed from its state in between."""
    generator = torch.Generator().manual_seed(1)
    count = STEPS * BATCH - 5
    rows = torch.randn(count, LAYOUT.total, generator=generator)
    split = ArraySplit((rows,), torch.randint(10, (count,), generator=generator)).to(torch.device(device))
    saved: tuple[dict, dict] | None = None
    for epoch in range(2):
        heads = []
        for k, configuration in enumerate(CONFIGURATIONS):
            torch.manual_seed(k)
            heads.append(FusionHead(configuration, LAYOUT.widths, settings))
        population = Population(heads, LAYOUT).to(device)
        train_pass = PopulationTraining(population, TrainingSettings(batchsize=BATCH))
        if graphs is not None:
            train_pass.graphs_wanted = graphs and not settings.batchnorm
        if saved:
            population.load_state_dict(saved[0])
            train_pass.optimizer.load_state_dict(saved[1])
        rates = itertools.islice(TrainingSettings().rates(STEPS), epoch * STEPS, None)
        train_pass(split.batches(BATCH, (0, epoch)), rates, epoch)
        saved = copy.deepcopy((population.state_dict(), train_pass.optimizer.state_dict()))
    return torch.cat([p.detach().flatten().cpu() for p in population.parameters()])


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_replayed_steps_equal_called_ones(monkeypatch, settings):
    graphs, head = Graphs(), HeadSettings(num_outputs=10, **settings)
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphs)
    assert torch.equal(trained(head, graphs=True), trained(head, graphs=False))
    replayed = 0 if head.batchnorm else 2 * (STEPS - 1)  # all but the smaller batches
    assert (len(graphs.captures), graphs.replays) == (2 * (replayed > 0), replayed)


def test_a_step_that_cannot_be_captured_is_called(monkeypatch, capsys):
    def refuse(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", refuse)
    head = HeadSettings(num_outputs=10, dropout=0.4)
    assert torch.equal(trained(head, graphs=True), trained(head, graphs=False))
    first, second = capsys.readouterr().err.splitlines()  # of two populations
    assert first == second
    assert first.startswith("warning: training without CUDA graphs")
    assert first.endswith("(operation not permitted when stream is capturing)")


@pytest.fixture
def two_gpus(monkeypatch) -> list:
    """A machine with two GPUs, as far as torch says; lists the devices that are made current."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_devices_are_found(two_gpus, monkeypatch):
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert not two_gpus
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    assert two_gpus == [torch.device("cuda:1")]
    with pytest.raises(UsageError, match="--device cuda:2 must be below cuda:2, because torch sees 2 CUDA devices"):
        resolve_device("cuda:2")
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "local_rank", lambda: 1)
    assert resolve_device("auto") == torch.device("cuda:1")


def test_precision_and_memory_are_the_devices(monkeypatch):
    device = torch.device("cuda")
    for supported in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, s=supported: s)
        assert use_bfloat16("auto", device) == supported
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda asked: (123, 456) if asked == device else None)
    assert available_memory(device) == 123


def test_networks_on_one_gpu_are_not_spread(two_gpus):
    network = nn.Linear(2, 3)  # on the CPU
    assert data_parallel(network, True) is network


def test_networks_on_a_gpu_are_spread_over_all(monkeypatch):
    class OnGPU(nn.Linear):
        def parameters(self, recurse=True):
            return iter([SimpleNamespace(is_cuda=True)])

    network = OnGPU(2, 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert data_parallel(network, False) is network
    spread = data_parallel(network, True)
    assert isinstance(spread, nn.DataParallel)
    x = torch.rand(4, 2)
    assert torch.equal(spread(x), network(x))  # where there is no GPU, torch runs the network itself


def test_processes_join_with_nccl(two_gpus, monkeypatch):
    joined = []
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, timeout: joined.append(backend))
    distributed.join()
    assert joined == ["cpu:gloo,cuda:nccl"]


@pytest.mark.parametrize(("kind", "pinned"), [("cuda", True), ("cpu", False)])
def test_loaded_batches_are_pinned_for_a_gpu(monkeypatch, kind, pinned):
    class Loader:
        def __init__(self, source, **settings):
            assert settings["pin_memory"] == pinned

        def __iter__(self):
            return iter(())

    class Source:
        labels = torch.zeros(4)

        def __len__(self):
            return 4

    monkeypatch.setattr(batches, "DataLoader", Loader)
    split = LoadedSplit(Source(), ("rgb",), lambda x: x).to(torch.device(kind))
    monkeypatch.setattr(LoadedSplit, "__len__", lambda self: 4)
    assert list(split.read([slice(0, 4)])) == []


@on_device
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_populations_train_on_the_device_as_on_the_cpu(settings):
    head = HeadSettings(num_outputs=10, **settings)
    plain = trained(head, DEVICE, graphs=False)
    torch.testing.assert_close(trained(head, DEVICE), plain, rtol=1e-5, atol=1e-6)
    # Adam makes steps of any size of gradients near zero, whose rounding differs
    assert (plain - trained(head)).abs().mean() < 1e-4


@on_device
def test_inputs_go_to_the_networks_device():
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), torch.rand(2, 1, 4, 4)
    (there,), _ = Extractor(copy.deepcopy(network).to(DEVICE), ["1"])(x)
    (here,), _ = Extractor(network, ["1"])(x)
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-4)


def candidates(run: Path) -> list[tuple]:
    lines = map(json.loads, (run / "journal.jsonl").read_text().splitlines())
    return [(line["configuration"], line["accuracies"]) for line in lines if line["kind"] == "candidate"]


@on_device
@pytest.mark.slow
def test_the_scripts_on_the_device(script_runner, tmp_path):
    """From networks to a found network: repeatable with --deterministic, and close to the CPU."""

    def run(script: str, name: str, *flags: object, device: str = DEVICE) -> Path:
        folders = ("--datadir", "data", "--checkpointdir", "checkpoints", "--run_dir", name)
        script_runner(tmp_path, script, *folders, "--device", device, "--deterministic", "--no-verbose", *flags)
        return tmp_path / name

    source = ("--source", "embedded", "--limit_train", 1440, "--limit_test", 120, "--datadir", "data", "--no-verbose")
    script_runner(tmp_path, "avmnist_gen.py", *source)
    for kind in ("image", "audio"):
        run(f"train_{kind}.py", kind, "--epochs", 4, "--schedule", "onecycle")
    small = ("--search_iterations", 1, "--max_fusions", 2)
    first, second = (candidates(run("main_searchable_avmnist.py", f"search{i}", *small)) for i in range(2))
    assert first == second
    on_cpu = candidates(run("main_searchable_avmnist.py", "search-cpu", *small, device="cpu"))
    reached, expected = (torch.tensor([max(accuracies) for _, accuracies in found[:30]]) for found in (first, on_cpu))
    assert (reached - expected).abs().mean() < 0.05  # of 120 dev samples; the first step trains the same candidates
    live = run("main_searchable_avmnist.py", "live", *small, "--features", "live", "--max_candidates", 30)
    assert len(candidates(live)) == 30
    found = run("main_found_avmnist.py", "found", "--conf", "search0/best.json", "--epochs", 5)
    results = json.loads((found / "results.json").read_text())
    assert results["rows"][-1]["test"] > 0.4
