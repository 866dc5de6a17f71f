"""Does fusion search help on small data with default flags? Several seeds on data sets that scikit-learn ships.

    python benchmarks/own_data.py --out studies/own_data --seeds 0 1 2

Each data set is cut into modalities, each of which gets a network of its own; `python -m utils.study` does the rest and
receives flags not listed below. Repeat the command to resume. Prints and writes (own_data.json) every method's mean
test accuracy over the seeds.
"""

import math
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from measure import ROOT
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn

from utils import cli
from utils.errors import UsageError
from utils.extract import Extractor, write_features
from utils.files import write_json
from utils.reading import read_json
from utils.report.contents import FOUND

COPIES, NOISE = 5, 0.4  # of a digit in `noisy_views`, and the deviation of the noise; its strokes are 1
LATE = ("late fusion, mean of softmax", "late fusion, sum of log-softmax")


def digits_views() -> tuple[dict[str, Tensor], Tensor]:
    """Three modalities: the upper half of a digit, the lower half, and its edges."""
    images, labels = digits()
    return {"top": images[:, :, :4], "bottom": images[:, :, 4:], "edges": images.diff(dim=3).abs()}, labels


def digits_quarters() -> tuple[dict[str, Tensor], Tensor]:
    """Four modalities: the quarters of a digit."""
    images, labels = digits()
    halves = {"upper": images[:, :, :4], "lower": images[:, :, 4:]}
    left = {f"{name}-left": half[..., :4] for name, half in halves.items()}
    return left | {f"{name}-right": half[..., 4:] for name, half in halves.items()}, labels


def noisy_views() -> tuple[dict[str, Tensor], Tensor]:
    """The three views of every digit five times, each time with other noise, so that no view suffices."""
    views, labels = digits_views()
    generator = torch.Generator().manual_seed(0)
    noisy = {}
    for name, x in views.items():
        x = x.repeat_interleave(COPIES, dim=0)
        noisy[name] = x + NOISE * torch.randn(x.shape, generator=generator)
    return noisy, labels.repeat_interleave(COPIES)


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)  # (1797, 1, 8, 8)


def breast_cancer() -> tuple[dict[str, Tensor], Tensor]:
    """Three modalities: means, errors and extremes of ten measurements, as they are."""
    data = load_breast_cancer()
    columns = torch.tensor(data.data, dtype=torch.float32).split(10, dim=1)  # three of (569, 10)
    return dict(zip(("mean", "error", "worst"), columns, strict=True)), torch.tensor(data.target)


DATA = {
    "digits, three views": digits_views,
    "digits, quarters": digits_quarters,
    "breast cancer": breast_cancer,
    "digits, noisy views": noisy_views,  # for benchmarks/make_table.py
}


def trained(x: Tensor, y: Tensor, classes: int) -> nn.Module:
    """A small network of one modality: convolutions for images, else a perceptron."""
    first = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten()] if x.ndim == 4 else [nn.BatchNorm1d(x.shape[1])]
    network = nn.Sequential(*first, nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))
    network(x)  # gives the lazy layer its width
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(30):
        adam.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        adam.step()
    return network


def write_data(name: str, folder: Path) -> None:
    """Write the features of a data set: 60 % train, 15 % dev, 25 % test of shuffled samples."""
    views, labels = DATA[name]()
    torch.manual_seed(0)
    copies = COPIES if name == "digits, noisy views" else 1  # of a digit stay in one split
    order = torch.randperm(len(labels) // copies).repeat_interleave(copies) * copies
    order += torch.arange(len(order)) % copies
    ends = [int(share * len(order) / copies) * copies for share in (0, 0.6, 0.75, 1)]
    parts = {split: order[ends[i] : ends[i + 1]] for i, split in enumerate(("train", "dev", "test"))}
    count = int(labels.max()) + 1
    networks = {view: trained(x[parts["train"]], labels[parts["train"]], count) for view, x in views.items()}
    extractors = {}
    for view, network in networks.items():
        last = len(network) - 1
        extractors[view] = Extractor(network, [str(last - 4), str(last - 3), str(last - 1)], logits=str(last))
    for split, chosen in parts.items():
        write_features(folder, split, extractors, [(*(x[chosen] for x in views.values()), labels[chosen])])


def folder_name(data: str) -> str:
    return data.replace(",", "").replace(" ", "-")


def study(name: str, out: Path, seeds: Sequence[int], more: Sequence[str]) -> list[dict[str, float]]:
    """Test accuracy of each method by name, for each seed; `more` flags go to the study."""
    folder = out / folder_name(name)
    if not (folder / "data/test.npz").exists():
        write_data(name, folder / "data")
    flags = ["--datadir", folder / "data", "--checkpointdir", folder / "checkpoints", "--no-verbose", *more]
    command = [sys.executable, "-m", "utils.study", "features", "--out", folder / "study", *flags, "--seeds", *seeds]
    if subprocess.run(list(map(str, command)), cwd=ROOT).returncode:
        raise UsageError("the study failed; see above")
    tables = [read_json(folder / f"study/seed-{seed}/found/results.json")["rows"] for seed in seeds]
    return [{row["name"]: row["test"] for row in rows} for rows in tables]


def print_table(found: dict[str, list[dict[str, float]]]) -> None:
    """Print mean and deviation over the seeds, and the mean lead over late fusion."""
    print(f"{'test accuracy, %':40}" + "".join(f"{data:>22}" for data in found))
    names = dict.fromkeys(name for runs in found.values() for run in runs for name in run if not name.endswith(" only"))
    single = "best modality alone"
    for runs in found.values():
        for run in runs:
            run[single] = max(test for name, test in run.items() if name.endswith(" only"))
    for name in [single, *names]:
        cells = [shown([100 * run[name] for run in runs]) for runs in found.values()]
        print(f"{name:40}" + "".join(f"{cell:>22}" for cell in cells))
    leads = [100 * (run[FOUND] - max(run[name] for name in LATE)) for runs in found.values() for run in runs]
    error = statistics.stdev(leads) / math.sqrt(len(leads)) if len(leads) > 1 else math.nan
    print(
        f"found network minus the better late fusion: {statistics.mean(leads):+.2f} points, standard error {error:.2f}"
    )


def shown(values: Sequence[float]) -> str:
    deviation = f" ({statistics.stdev(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--seeds", type=cli.SEED, nargs="+", default=[0, 1, 2], help="seeds, such as 0 1 2")
    parser.add_argument("--out", type=Path, required=True, help="folder of data and studies")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA)[:3], help="data sets")
    parser.add_argument("--features", action="store_true", help="write the features to OUT/NAME/data, and no more")
    args, more = parser.parse_known_args()
    out = args.out.resolve()
    if args.features:
        for name in args.data:
            write_data(name, out / folder_name(name) / "data")
        return
    found = {name: study(name, out, args.seeds, more) for name in args.data}
    write_json(out / "own_data.json", found)
    print_table(found)


if __name__ == "__main__":
    cli.run(main)
