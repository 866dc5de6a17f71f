"""What a search on AV-MNIST costs: the published loop, this search, and the arithmetic's own limit, in one run.

    python benchmarks/search_cost.py --out search_cost.json    # random arrays of the published size; about 10 minutes
    python benchmarks/search_cost.py --quick                   # a tenth of the samples; under 90 seconds
    python benchmarks/search_cost.py --datadir data/avmnist    # real arrays

Published loop: both networks forwards and backwards for every candidate, in train mode and float32, with torch's own
pooling; a step of training and one of evaluation are timed and extended to the whole search (data loading, which the
published code adds, is not counted). This search: main_searchable_avmnist.py as it is, from start to end, with an empty
feature bank. Limit: the floating-point operations of the central weights that this search trained, at the rate of a
large matrix product, and the bytes of its weights, gradients and optimizer states, at the rate of a large copy; the
longer of the two.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measure import spread
from models.fusion import AudioImageNetwork, FusionHead, HeadSettings
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli
from utils.checkpoints import save_state
from utils.configurations import Space
from utils.files import write_json
from utils.search import SearchSettings
from utils.training import losses

ROOT = Path(__file__).parents[1]
BATCH, EPOCHS, CLASSES = 32, 3, 10  # published
SPACE = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))
Figures = dict[str, dict[str, float]]


class PublishedNetwork(AudioImageNetwork):
    """The networks as plain PyTorch runs them."""

    @staticmethod
    def _pooled(net: AudioLeNet | ImageLeNet, x: Tensor) -> tuple[list[Tensor], Tensor]:
        features = []
        for i in range(1, net.depth + 1):
            out = F.relu(net.get_submodule(f"bn{i}")(net.get_submodule(f"conv{i}")(x)))
            x = F.max_pool2d(out, 2)
            features.append((x if i == 1 and net.first_feature_pooled else out).mean(dim=(2, 3)))
        return features, net.classifier(features[-1])

    def unimodal(self, image: Tensor, audio: Tensor) -> tuple[list[list[Tensor]], list[Tensor]]:
        parts = [self._pooled(self.audnet, audio), self._pooled(self.rgbnet, image)]
        return [features for features, _ in parts], [logits for _, logits in parts]


def published_steps(repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a training step and of an evaluation step, each repeat the median of ten of a new configuration."""
    rng, rows = np.random.default_rng(0), SPACE.rows()
    training, evaluation = [], []
    for _ in range(1 + repeats):
        configuration = [rows[i] for i in rng.integers(len(rows), size=SearchSettings().max_fusions)]
        network = PublishedNetwork(configuration, HeadSettings(CLASSES))
        optimizer = torch.optim.Adam(network.central_parameters(), 1e-3, weight_decay=1e-4)
        image, audio = torch.rand(BATCH, 1, 28, 28), torch.rand(BATCH, 1, 112, 112)
        labels = torch.randint(CLASSES, (BATCH,))

        def train(network=network, optimizer=optimizer, inputs=(image, audio), labels=labels) -> None:
            network.train()
            optimizer.zero_grad()
            losses(network(*inputs), labels).backward()  # through both networks, whose gradients nobody uses
            optimizer.step()

        @torch.no_grad()
        def evaluate(network=network, inputs=(image, audio)) -> None:
            network.eval()(*inputs)

        training.append(median_seconds(train))
        evaluation.append(median_seconds(evaluate))
    return spread(training[1:]), spread(evaluation[1:])


def median_seconds(work: Callable[[], object], count: int = 10) -> float:
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return spread(seconds)["median"]


def write_random_data(folder: Path, train: int, dev: int) -> None:
    """Arrays in AV-MNIST's format, and checkpoints of untrained networks; the last twelfth of the arrays is dev."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train + dev), ("test", 1)):
        for kind, shape, dtype in (("image", (784,), np.float32), ("audio", (112, 112), np.uint8)):
            (folder / kind).mkdir(exist_ok=True)
            array = np.lib.format.open_memmap(folder / kind / f"{part}_data.npy", "w+", dtype, (count, *shape))
            for start in range(0, count, 5_000):
                block = array[start : start + 5_000]
                block[...] = rng.integers(256, size=block.shape, dtype=np.uint8)
        np.save(folder / f"{part}_labels.npy", rng.integers(CLASSES, size=count))
    torch.manual_seed(0)
    save_state(folder / "audio_model.pkl", AudioLeNet().state_dict())
    save_state(folder / "image_model.pkl", ImageLeNet().state_dict())


def run_search(datadir: Path, checkpoints: Sequence[Path], flags: Sequence[object]) -> tuple[dict, list[list], float]:
    """One search as a user runs it: best.json, the configurations that it trained, and the seconds of the process."""
    with tempfile.TemporaryDirectory() as folder:
        for name, path in zip(("audio_model.pkl", "image_model.pkl"), checkpoints, strict=True):
            (Path(folder) / name).write_bytes(path.read_bytes())
        command = [sys.executable, ROOT / "main_searchable_avmnist.py", "--datadir", datadir, "--no-verbose"]
        folders = ["--checkpointdir", folder, "--run_dir", f"{folder}/run"]
        started = time.perf_counter()
        subprocess.run([str(part) for part in [*command, *folders, *flags]], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        best = json.loads(Path(folder, "run/best.json").read_text())
        journal = map(json.loads, Path(folder, "run/journal.jsonl").read_text().splitlines())
        return best, [line["configuration"] for line in journal if line["kind"] == "candidate"], seconds


def limit(configurations: Sequence[list], steps: int, repeats: int) -> tuple[Figures, float]:
    """Rates of this machine, and the least seconds in which the central weights of all candidates could be trained.

    A step multiplies every weight with a batch three times: forwards, for its gradient, and for that of its input. It
    reads weight, gradient and both of Adam's moments, and writes them.
    """
    widths = (AudioLeNet().feature_widths, ImageLeNet().feature_widths)
    heads = (FusionHead(configuration, widths, HeadSettings(CLASSES)) for configuration in configurations)
    weights = sum(p.numel() for head in heads for p in head.central_parameters())
    matrix, block = torch.rand(2048, 2048), torch.rand(1 << 26)
    target = torch.empty_like(block)
    products, copies = [], []
    for _ in range(1 + repeats):
        products.append(2 * 2048**3 / median_seconds(lambda: matrix @ matrix, 3))
        copies.append(2 * 4 * len(block) / median_seconds(lambda: target.copy_(block), 3))
    rates = {"flops": spread(products[1:]), "bytes": spread(copies[1:])}
    flops, moved = 6 * BATCH * weights * steps, 8 * 4 * weights * steps
    return rates, max(flops / rates["flops"]["median"], moved / rates["bytes"]["median"])


def print_table(figures: dict) -> None:
    print(f"{'':38}{'median':>12}{'lowest':>12}{'highest':>12}")
    for name, unit, factor in (
        ("published_training_step", "ms", 1e3),
        ("published_evaluation_step", "ms", 1e3),
        ("published_search", "s", 1),
        ("search_process", "s", 1),
        ("search", "s", 1),
        ("extraction", "s", 1),
        ("training", "s", 1),
        ("surrogate", "s", 1),
        ("other", "s", 1),
        ("flops", "GFLOP/s", 1e-9),
        ("bytes", "GB/s", 1e-9),
    ):
        values = "".join(f"{factor * figures[name][key]:12.2f}" for key in ("median", "lowest", "highest"))
        print(f"{name.replace('_', ' ') + ', ' + unit:38}{values}")
    print(f"{'limit of the arithmetic, s':38}{figures['limit_seconds']:12.2f}")
    print(f"{'largest resident memory, GB':38}{figures['resident_gb']:12.2f}")
    for name in ("ratio_total", "ratio_training", "floor_multiple"):
        print(f"{name:38}{figures[name]:12.1f}")


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("data")
    group.add_argument("--datadir", type=Path, help="folder of real arrays (default: random ones)")
    group.add_argument("--checkpointdir", type=Path, help="folder of their networks, with --datadir")
    group.add_argument("--train", type=cli.positive_int, default=55_000, help="training samples")
    group.add_argument("--dev", type=cli.positive_int, default=5_000, help="dev samples")
    group = parser.add_argument_group("measurement")
    group.add_argument("--repeats", type=cli.positive_int, default=3, help="whole searches, and repeats of all else")
    group.add_argument("--quick", action="store_true", help="the same as --train 5500 --dev 500 --repeats 2")
    group.add_argument("--out", type=Path, help="write the figures to this JSON file")
    cli.add_verbosity(parser)
    args = parser.parse_args()
    if args.quick:
        args.train, args.dev, args.repeats = 5_500, 500, 2
    if (args.datadir is None) != (args.checkpointdir is None):
        parser.error("--datadir and --checkpointdir belong together")
    return args


def main() -> None:
    args = parse_args()
    say = print if args.verbose else lambda text: None
    with tempfile.TemporaryDirectory() as folder:
        datadir, checkpointdir = args.datadir or Path(folder), args.checkpointdir or Path(folder)
        if args.datadir is None:
            say(f"writing {args.train + args.dev:,} random samples")
            write_random_data(datadir, args.train, args.dev)
        checkpoints = [checkpointdir / name for name in ("audio_model.pkl", "image_model.pkl")]
        say(f"timing the published loop on {torch.get_num_threads()} threads")
        training, evaluation = published_steps(10)
        runs = []
        for repeat in range(args.repeats):
            say(f"search {repeat + 1} of {args.repeats}")
            runs.append(run_search(datadir, checkpoints, ["--limit_train", args.train, "--limit_dev", args.dev]))
        resident = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9

    configurations = runs[0][1]
    steps = EPOCHS * -(-args.train // BATCH)  # of one candidate
    dev_steps = EPOCHS * -(-args.dev // BATCH)
    rates, least = limit(configurations, steps, args.repeats)
    published = {key: len(configurations) * (steps * training[key] + dev_steps * evaluation[key]) for key in training}
    parts = {
        part: spread([best["seconds_by_part"][part] for best, _, _ in runs]) for part in runs[0][0]["seconds_by_part"]
    }
    search = spread([best["seconds"] for best, _, _ in runs])
    figures = {
        "published_training_step": training,
        "published_evaluation_step": evaluation,
        "published_search": published,
        "search_process": spread([seconds for _, _, seconds in runs]),
        "search": search,
        **parts,
        **rates,
        "limit_seconds": least,
        "resident_gb": resident,
        "ratio_total": published["median"] / search["median"],
        "ratio_training": published["median"] / parts["training"]["median"],
        "floor_multiple": parts["training"]["median"] / least,
        "settings": {"train": args.train, "dev": args.dev, "candidates": len(configurations), "repeats": args.repeats},
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    print_table(figures)
    if args.out:
        write_json(args.out, figures)


if __name__ == "__main__":
    cli.run(main)
