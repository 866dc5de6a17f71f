"""Cost of a search on AV-MNIST: the published loop, this search, and the lower bound of its arithmetic, in one run.

    python benchmarks/search_cost.py --out search_cost.json    # random arrays of the published size; about 10 minutes
    python benchmarks/search_cost.py --quick                   # a tenth of the samples; under 90 seconds
    python benchmarks/search_cost.py --datadir data/avmnist --checkpointdir checkpoints/avmnist    # real arrays
    python benchmarks/search_cost.py --device cuda             # everything on a GPU

Published loop: both networks forwards and backwards for every candidate, in train mode and float32, with torch's own
pooling. In every repeat, steps of training and of evaluation are timed on configurations that the search trained, and
extrapolated to all of it (data loading, which the published code adds, is not counted). This search: the process of
main_searchable_avmnist.py from start to end, with an empty feature bank. Ratios are taken within a repeat; their
median, lowest and highest are printed. Limit: the floating-point operations of the central weights that it trained, at
the rate of a large matrix product, or the bytes of its weights, gradients and optimizer states, at the rate of a copy
of that size, whichever takes longer.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure import machine_name, plain_pooled, ratios, run_script, seconds_of, spread
from torch import Tensor

from datasets.avmnist.load import load_avmnist
from models.fusion import AudioImageNetwork, FusionHead, HeadSettings
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli
from utils.files import write_json
from utils.search.loop import SearchSettings
from utils.search.space import Configuration, as_configuration
from utils.training.checkpoints import save_state
from utils.training.devices import resolve_device
from utils.training.metrics import losses

BATCH, EPOCHS, CLASSES = 32, 3, 10  # published
SAMPLED = 15  # configurations whose published steps are timed in a repeat
CHECKPOINTS = ("audio_model.pkl", "image_model.pkl")
UNITS = {  # what is printed of each repeat's figures: unit and factor
    **dict.fromkeys(("published_training_step", "published_evaluation_step"), ("ms", 1e3)),
    **dict.fromkeys(
        ("published_search", "search_process", "second_search", "extraction", "training", "surrogate", "other"),
        ("s", 1),
    ),
    "flops": ("GFLOP/s", 1e-9),
    "bytes": ("GB/s", 1e-9),
}


class PublishedNetwork(AudioImageNetwork):
    """The networks in plain PyTorch."""

    def unimodal(self, image: Tensor, audio: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        parts = [plain_pooled(self.audnet, audio), plain_pooled(self.rgbnet, image)]
        return [features for features, _ in parts], [logits for _, logits in parts]


def published_step(configuration: Configuration, device: torch.device) -> dict[str, float]:
    """Seconds of a training step and of an evaluation step, medians of ten."""
    network = PublishedNetwork(configuration, HeadSettings(CLASSES)).to(device)
    optimizer = torch.optim.Adam(network.central_parameters(), 1e-3, weight_decay=1e-4)
    inputs = torch.rand(BATCH, 1, 28, 28, device=device), torch.rand(BATCH, 1, 112, 112, device=device)
    labels = torch.randint(CLASSES, (BATCH,), device=device)

    def train() -> None:
        network.train()
        optimizer.zero_grad()
        losses(network(*inputs), labels).backward()  # through both networks, whose gradients nobody uses
        optimizer.step()

    @torch.no_grad()
    def evaluate() -> None:
        network.eval()(*inputs)

    works = {"training": train, "evaluation": evaluate}
    return {name: statistics.median(seconds_of(work, 10, device)) for name, work in works.items()}


def published_steps(configurations: Sequence[Configuration], seed: int, device: torch.device) -> dict[str, float]:
    """Mean seconds of the steps of some configurations: the deeper their features, the longer the backward pass."""
    count = len(configurations)
    places = np.random.default_rng(seed).choice(count, min(SAMPLED, count), replace=False)
    steps = [published_step(configurations[place], device) for place in places]
    return {name: statistics.mean(step[name] for step in steps) for name in steps[0]}


def write_random_data(folder: Path, train: int, dev: int) -> None:
    """Arrays in AV-MNIST's format, and checkpoints of untrained networks; the last twelfth of the arrays is dev."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train + dev), ("test", 1)):
        for kind, shape, dtype in (("image", (784,), np.float32), ("audio", (112, 112), np.uint8)):
            (folder / kind).mkdir(exist_ok=True)
            values = rng.integers(256, size=(count, *shape), dtype=np.uint8)
            np.save(folder / kind / f"{part}_data.npy", values.astype(dtype, copy=False))
        np.save(folder / f"{part}_labels.npy", rng.integers(CLASSES, size=count))
    torch.manual_seed(0)
    for name, network in zip(CHECKPOINTS, (AudioLeNet(), ImageLeNet()), strict=True):
        save_state(folder / name, network.state_dict())


# Run a script and write its peak resident memory; unlike `ru_maxrss`, VmHWM does not include the parent's memory.
WATCHED = """
import pathlib, runpy, sys
out, sys.argv = sys.argv[1], sys.argv[2:]
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
status = pathlib.Path("/proc/self/status").read_text()
pathlib.Path(out).write_text(status.split("VmHWM:")[1].split()[0])
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """One search as a user runs it."""

    best: dict  # best.json
    configurations: list[Configuration]  # that it trained
    seconds: float  # of the process, from start to end
    again: float  # of a second search on the same networks, which finds the feature bank
    resident_gb: float


def process_seconds(flags: Sequence[object]) -> float:
    """Seconds of a search, from the start of its process to the end."""
    (seconds,) = seconds_of(lambda: run_script("main_searchable_avmnist.py", [*flags, "--no-verbose"]), 1)
    return seconds


def compile_seconds(datadir: Path, checkpointdir: Path) -> float:
    """Seconds by which the first search on a machine, which compiles, takes longer than the next one."""
    small = ["--limit_train", 64, "--limit_dev", 6, "--max_fusions", 1, "--search_iterations", 1]
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["NUMBA_CACHE_DIR"] = name
        for number in range(2):
            folder = Path(name) / str(number)
            folder.mkdir()
            for checkpoint in CHECKPOINTS:
                (folder / checkpoint).write_bytes((checkpointdir / checkpoint).read_bytes())
            folders = ["--datadir", datadir, "--checkpointdir", folder, "--run_dir", folder / "run"]
            seconds.append(process_seconds([*folders, *small]))
        del os.environ["NUMBA_CACHE_DIR"]
    return seconds[0] - seconds[1]


def run_search(datadir: Path, checkpointdir: Path, flags: Sequence[object]) -> Run:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for checkpoint in CHECKPOINTS:
            (folder / checkpoint).write_bytes((checkpointdir / checkpoint).read_bytes())
        folders = ["--datadir", datadir, "--checkpointdir", folder, "--run_dir", folder / "run"]
        started = time.perf_counter()
        through = ["-c", WATCHED, folder / "memory"]
        run_script("main_searchable_avmnist.py", [*folders, "--no-verbose", *flags], through)
        seconds = time.perf_counter() - started
        again = process_seconds([*folders[:-1], folder / "again", *flags])
        best = json.loads((folder / "run/best.json").read_text())
        journal = map(json.loads, (folder / "run/journal.jsonl").read_text().splitlines())
        trained = [as_configuration(line["configuration"]) for line in journal if line["kind"] == "candidate"]
        return Run(best, trained, seconds, again, int((folder / "memory").read_text()) * 1024 / 1e9)


def limit(
    configurations: Sequence[Configuration], steps: int, repeats: int, device: torch.device
) -> tuple[dict[str, dict], float]:
    """Rates of the device, and a lower bound on the seconds that training all central weights takes.

    A step multiplies every weight with a batch forwards and for its gradient, and the weights that read a fusion layer
    also for the gradient of what they read; a multiply-add counts as two operations. It reads and writes weight,
    gradient and both of Adam's moments; the rate of memory is that of a copy of so many bytes as these take in a
    population.
    """
    widths, settings = (AudioLeNet().feature_widths, ImageLeNet().feature_widths), HeadSettings(CLASSES)
    heads = [FusionHead(configuration, widths, settings) for configuration in configurations]
    weights = sum(p.numel() for head in heads for p in head.parameters())
    rows = [row for head in heads for row in head.configuration]
    first_terms = settings.inner_size * sum(widths[0][row[0]] + widths[1][row[1]] for row in rows)
    matrix = torch.rand(2048, 2048, device=device)
    block = torch.rand(4 * weights * SearchSettings().num_samples // len(heads), device=device)
    target = torch.empty_like(block)
    products, copies = [], []
    for _ in range(1 + repeats):
        products.append(2 * 2048**3 / statistics.median(seconds_of(lambda: matrix @ matrix, 3, device)))
        copies.append(2 * 4 * len(block) / statistics.median(seconds_of(lambda: target.copy_(block), 1000, device)))
    rates = {"flops": spread(products[1:]), "bytes": spread(copies[1:])}
    flops, moved = 2 * BATCH * (3 * weights - first_terms) * steps, 8 * 4 * weights * steps
    return rates, max(flops / rates["flops"]["median"], moved / rates["bytes"]["median"])


def print_table(figures: dict) -> None:
    print(f"{'':38}{'median':>12}{'lowest':>12}{'highest':>12}")
    for name, (unit, factor) in UNITS.items():
        values = "".join(f"{factor * value:12.2f}" for value in figures[name].values())
        print(f"{name.replace('_', ' ') + ', ' + unit:38}{values}")
    print(f"{'limit of the arithmetic, s':38}{figures['limit_seconds']:12.2f}")
    if "compile_seconds" in figures:
        print(f"{'compilation, once, s':38}{figures['compile_seconds']:12.2f}")
    print(f"{'largest resident memory, GB':38}{figures['resident_gb']:12.2f}")
    for name in ("ratio_total", "ratio_training", "floor_multiple"):
        print(f"{name:38}" + "".join(f"{value:12.1f}" for value in figures[name].values()))


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("data")
    group.add_argument("--datadir", type=Path, help="folder of real arrays (default: random ones)")
    group.add_argument("--checkpointdir", type=Path, help="folder of their networks, with --datadir")
    group.add_argument("--train", type=cli.COUNT, default=55_000, help="training samples")
    group.add_argument("--dev", type=cli.COUNT, default=5_000, help="dev samples")
    group = parser.add_argument_group("measurement")
    group.add_argument("--repeats", type=cli.COUNT, default=3, help="whole searches, and repeats of all else")
    group.add_argument("--quick", action="store_true", help="the same as --train 5500 --dev 500 --repeats 2")
    group.add_argument("--device", type=cli.device, default="cpu", help="of the search and of the published loop")
    group.add_argument("--compilation", action="store_true", help="also time the compilation of the first search")
    group.add_argument("--out", type=Path, help="write the figures to this JSON file")
    cli.add_verbosity(parser)
    args = parser.parse_args()
    if args.quick:
        args.train, args.dev, args.repeats = 5_500, 500, 2
    if (args.datadir is None) != (args.checkpointdir is None):
        parser.error("--datadir and --checkpointdir belong together")
    return args


def measured(
    runs: Sequence[Run], published: Sequence[dict[str, float]], counts: dict[str, int], device: torch.device
) -> dict[str, object]:
    """The figures, from the search and the steps of the published loop in each repeat and the sizes of the splits."""
    configurations = runs[0].configurations
    steps, dev_steps = (EPOCHS * -(-counts[split] // BATCH) for split in ("train", "dev"))  # of one candidate
    rates, least = limit(configurations, steps, len(runs), device)
    searches = [len(configurations) * (steps * p["training"] + dev_steps * p["evaluation"]) for p in published]
    processes = [run.seconds for run in runs]
    parts = {part: [run.best["seconds_by_part"][part] for run in runs] for part in runs[0].best["seconds_by_part"]}
    return {
        **{f"published_{name}_step": spread([p[name] for p in published]) for name in published[0]},
        "published_search": spread(searches),
        "search_process": spread(processes),
        "second_search": spread([run.again for run in runs]),
        **{part: spread(seconds) for part, seconds in parts.items()},
        **rates,
        "limit_seconds": least,
        "resident_gb": max(run.resident_gb for run in runs),
        "ratio_total": ratios(searches, processes),
        "ratio_training": ratios(searches, parts["training"]),
        "floor_multiple": ratios(parts["training"], [least] * len(runs)),
        "settings": counts | {"candidates": len(configurations), "repeats": len(runs)},
        "machine": {"device": machine_name(device), "torch": torch.__version__},
    }


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    say = print if args.verbose else lambda text: None
    with tempfile.TemporaryDirectory() as folder:
        datadir, checkpointdir = args.datadir or Path(folder), args.checkpointdir or Path(folder)
        if args.datadir is None:
            say(f"writing {args.train + args.dev:,} random samples")
            write_random_data(datadir, args.train, args.dev)
        data = load_avmnist(datadir, limits={"train": args.train, "dev": args.dev})
        counts = {split: len(data[split].labels) for split in ("train", "dev")}
        flags = ["--limit_train", args.train, "--limit_dev", args.dev, "--device", args.device]
        published_step(((0, 0, 0),), device)  # the first steps of a process are slower
        runs, published = [], []
        for repeat in range(args.repeats):
            say(f"repeat {repeat + 1} of {args.repeats}: search")
            runs.append(run_search(datadir, checkpointdir, flags))
            say(f"repeat {repeat + 1} of {args.repeats}: published loop on {machine_name(device)}")
            published.append(published_steps(runs[0].configurations, repeat, device))
        compiling = {"compile_seconds": compile_seconds(datadir, checkpointdir)} if args.compilation else {}
    figures = measured(runs, published, counts, device) | compiling
    print_table(figures)
    if args.out:
        write_json(args.out, figures)


if __name__ == "__main__":
    cli.run(main)
