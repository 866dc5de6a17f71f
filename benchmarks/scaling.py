"""Growth of the cost of training a population with samples, candidates, fusion layers and feature width.

    python benchmarks/scaling.py                               # minutes
    python benchmarks/scaling.py --quick                       # under a minute
    python benchmarks/scaling.py --out scaling.json --plot     # figures, and docs/scaling.png

Trains random configurations through `CachedEvaluator` on random rows as wide as AV-MNIST's features (times the width),
with the published settings. One quantity at a time varies around a middle of 15,000 samples, 15 candidates, 4 layers
and width x1. An epoch of the largest points would take too long, so a bounded number of training steps (`--steps`) is
timed and extrapolated to one epoch by its number of steps; evaluation on dev is not counted. Hence cost against
samples shows whether a step gets slower as the table outgrows the caches, not only that there are more steps.

A repeat measures every point once, after an untimed pass, so that a slow spell of the machine affects all points alike.
The output is the median, lowest and highest of the repeats; the exponent p of seconds ~ x^p by least squares in
log-log, and between the last two points; and the cost of one more candidate as a share of the first's.
"""

import argparse
import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import torch
from measure import ClockedSplit, machine_name, random_configurations, spread
from tqdm import tqdm

from models.fusion import FeatureLayout, HeadSettings
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli
from utils.candidates.evaluators import CachedEvaluator
from utils.candidates.feature_bank import FeatureBank
from utils.files import write_json
from utils.search.space import Space
from utils.training.devices import resolve_device
from utils.training.loop import TrainingSettings

CHANNELS, CLASSES, DEV_SAMPLES = 3, 10, 32
SPACE = Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))
AXES = {  # varied quantities: values, and label on a plot
    "samples": ((5_000, 15_000, 55_000), "training samples"),
    "candidates": ((1, 4, 15, 60, 240), "candidates trained together"),
    "layers": ((1, 2, 3, 4, 8), "fusion layers of each candidate"),
    "width": ((1, 4, 16, 64), "feature width, times AV-MNIST's"),
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One population and the table that it trains on; the defaults are the middle."""

    samples: int = 15_000
    candidates: int = 15
    layers: int = 4
    width: int = 1


def layout(width: int) -> FeatureLayout:
    """The features of AV-MNIST's networks with `width` times the channels."""
    return FeatureLayout(tuple(tuple(CHANNELS * width * 2**i for i in range(n)) for n in SPACE.sizes), CLASSES)


@functools.cache
def random_table(samples: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (samples, total of the layout) and labels (samples,)."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(samples, layout(width).total, generator=draw)
    return rows, torch.randint(CLASSES, (samples,), generator=draw)


def epoch_seconds(point: Point, steps: int, device: torch.device) -> float:
    """Seconds of one epoch, from `steps` steps of the second pass; the first warms up."""
    settings = TrainingSettings(epochs=2)
    whole = -(-point.samples // settings.batchsize)  # steps of an epoch
    steps = min(steps, whole)
    rows, labels = random_table(point.samples, point.width)
    train = ClockedSplit((rows,), labels, steps=steps)
    dev = ClockedSplit((rows[:DEV_SAMPLES],), labels[:DEV_SAMPLES], steps=steps)  # begins where a training pass ends
    bank = FeatureBank(layout(point.width), train, dev, Path(), reused=False)
    evaluate = CachedEvaluator(bank, HeadSettings(CLASSES), settings, device)
    list(evaluate(random_configurations(SPACE, point.candidates, point.layers), 0))
    return (dev.begun[1] - train.begun[1]) * whole / steps


def summarize(values: list[int], epochs: list[dict[str, float]]) -> dict[str, object]:
    """The figures of one axis, with the exponent over all its values and over the last two."""
    x, y = np.log(values), np.log([epoch["median"] for epoch in epochs])
    exponent, last = (float(np.polyfit(x[start:], y[start:], 1)[0]) for start in (0, -2))
    return {"values": values, "epoch_seconds": epochs, "exponent": exponent, "exponent_last": last}


def one_more(axis: dict) -> dict[str, object]:
    """Cost of one more candidate as a share of the first: over the whole range, and up to each point."""
    values, medians = np.array(axis["values"]), np.array([epoch["median"] for epoch in axis["epoch_seconds"]])
    first = medians[0] / values[0]
    whole = (medians[-1] - medians[0]) / (values[-1] - values[0]) / first
    return {"share_of_first": float(whole), "by_interval": (np.diff(medians) / np.diff(values) / first).tolist()}


def print_axis(name: str, axis: dict, shares: list[float] | None) -> None:
    """Print a table; `shares` is the cost of one more candidate up to each point but the first."""
    others = {key: value for key, value in dataclasses.asdict(Point()).items() if key != name}
    fixed = ", ".join(f"{key} {'x' if key == 'width' else ''}{value:,}" for key, value in others.items())
    print(f"\n{name} ({fixed})")
    print(f"{name:>12}{'s/epoch':>10}{'lowest':>9}{'highest':>9}" + (f"{'one more':>10}" if shares else ""))
    for i, (value, epoch) in enumerate(zip(axis["values"], axis["epoch_seconds"], strict=True)):
        share = f"{shares[i - 1]:10.3f}" if shares and i else ""
        print(f"{value:12,}{epoch['median']:10.3f}{epoch['lowest']:9.3f}{epoch['highest']:9.3f}{share}")
    print(f"    exponent {axis['exponent']:.2f}, between the last two {axis['exponent_last']:.2f}")


def plot(axes: dict[str, dict], path: Path) -> None:
    """Draw four log-log panels: medians with lowest and highest, and the fitted power."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 7), layout="constrained")
    for panel, (name, axis) in zip(figure.subplots(2, 2).flat, axes.items(), strict=True):
        x = np.array(axis["values"], float)
        y, low, high = (np.array([e[k] for e in axis["epoch_seconds"]]) for k in ("median", "lowest", "highest"))
        fitted = np.exp(np.log(y).mean() + axis["exponent"] * (np.log(x) - np.log(x).mean()))
        panel.loglog(x, fitted, "--", color="0.6", label=f"least squares: exponent {axis['exponent']:.2f}")
        panel.errorbar(x, y, (y - low, high - y), fmt="o-", capsize=3, label="median, lowest to highest")
        panel.set_xticks(x, [f"{value:,}" for value in axis["values"]])
        panel.minorticks_off()
        panel.set_ylim(low.min() / 2, high.max() * 2)
        panel.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set(xlabel=AXES[name][1], ylabel="seconds an epoch")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, loc="upper left")
    middle = "{samples:,} samples, {candidates} candidates, {layers} layers, width x{width}".format(**vars(Point()))
    figure.suptitle(f"One epoch of a population, around {middle}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("points")
    for name, (values, what) in AXES.items():
        group.add_argument(f"--{name}", type=cli.COUNT, nargs="+", default=list(values), help=what)

    group = parser.add_argument_group("measurement")
    group.add_argument("--steps", type=cli.COUNT, default=256, help="training steps that are timed")
    group.add_argument("--repeats", type=cli.COUNT, default=5, help="measurements of every point")
    group.add_argument("--quick", action="store_true", help="the same as --steps 32 --repeats 3")
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto uses CUDA if it is available"
    )

    cli.add_verbosity(parser)
    group = parser.add_argument_group("files")
    group.add_argument("--out", type=Path, help="write the figures to this JSON file")
    group.add_argument("--plot", type=Path, nargs="?", const=Path("docs/scaling.png"), help="draw the figures here")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.repeats = 32, 3
    for name in AXES:
        values = sorted(set(getattr(args, name)))
        if len(values) < 2:
            parser.error(f"argument --{name}: an exponent needs at least two different values, but got {values}")
        setattr(args, name, values)
    return args


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    points = {name: [dataclasses.replace(Point(), **{name: v}) for v in getattr(args, name)] for name in AXES}
    seconds: dict[Point, list[float]] = {point: [] for point in itertools.chain(*points.values())}
    machine = machine_name(device)
    if args.verbose:
        print(f"{len(seconds)} points, each the median of {args.repeats} times {args.steps} steps, on {machine}")

    for point in tqdm(list(seconds) * args.repeats, desc="points", disable=not args.verbose):
        seconds[point].append(epoch_seconds(point, args.steps, device))
    axes = {name: summarize(getattr(args, name), [spread(seconds[p]) for p in points[name]]) for name in AXES}
    candidate = one_more(axes["candidates"])
    for name, axis in axes.items():
        print_axis(name, axis, candidate["by_interval"] if name == "candidates" else None)
    print(f"\none more candidate costs {candidate['share_of_first']:.3f} of the first")

    if args.out:
        where = {"device": device.type, "machine": machine, "torch": torch.__version__}
        settings = {"steps": args.steps, "repeats": args.repeats, "middle": dataclasses.asdict(Point())}
        write_json(args.out, where | settings | {"axes": axes, "one_more_candidate": candidate})
    if args.plot:
        plot(axes, args.plot)


if __name__ == "__main__":
    cli.run(main)
