"""Cost of the cached search on NTU RGB+D: reading, feature extraction, population training, and the whole in hours.

    python benchmarks/ntu_cost.py                           # minutes on CPUs, nearly all of it extraction
    python benchmarks/ntu_cost.py --quick                   # under 90 seconds
    python benchmarks/ntu_cost.py --device cuda --out ntu_cost.json

The data are synthetic: clips of 256x256 pixels and 60 to 120 frames with the noise of a camera, in both codecs of
datasets.ntu_prepare, and skeletons of one and two bodies. The networks have their published sizes and random weights.
Every figure is the median of `--repeats` runs after an untimed one, beside the lowest and the highest.

Extrapolated to a whole search: one augmented pass over trainexp for each of 3 epochs and one pass over dev; then every
candidate, in populations of 15 and counted with four layers, though most have fewer. The counts of samples are an
estimate, 56,880 / 40 per subject; datasets.ntu_prepare prints the true ones. Reading is divided by `--num_workers`. On
CUDA, reading overlaps with the networks' computation, so the slower of the two counts; on CPUs both count.
"""

import argparse
import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import ClockedSplit, machine_name, random_configurations, seconds_of, spread
from torch import Tensor

from datasets.ntu.folder import SUBJECTS, NTUSettings, normalize_clips
from datasets.ntu.pack import TEXT_FOLDER, SkeletonPack, write_pack
from datasets.ntu.skeleton import parse_skeleton, prepare_skeleton
from datasets.ntu.transcode import PIXELS
from datasets.ntu.video import clip_indices, read_frames
from models.fusion import FeatureLayout, HeadSettings, SkeletonRGBNetwork
from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from tests.ntu_samples import draw_clip, draw_skeletons, sample_name, write_skeleton, write_video
from utils import cli
from utils.array_on_disk import ArrayOnDisk
from utils.candidates.evaluators import CachedEvaluator
from utils.candidates.extraction import EXTRACTION_BATCH
from utils.candidates.feature_bank import BankedSplit, FeatureBank
from utils.files import write_json
from utils.search.loop import SearchSettings
from utils.search.space import Space
from utils.training.batches import ArraySplit, LoadedSplit
from utils.training.devices import autocast, on_device, resolve_device
from utils.training.loop import TrainingSettings

COUNTS = {name: round(56_880 / 40 * len(SUBJECTS[name])) for name in ("trainexp", "dev")}
CLASSES, NOISE = 60, 3.0  # noise: standard deviation of a pixel, so that frames differ as a camera's do
SPACE, SEARCH, TRAINING = Space((SkeletonNet.depth, InflatedResNet50.depth)), SearchSettings(), TrainingSettings(3, 20)
LAYOUT = FeatureLayout((tuple(SkeletonNet(CLASSES).feature_widths), InflatedResNet50.feature_widths), CLASSES)
PRECISIONS = ("float32", "bfloat16")
SAMPLE_MS = {  # what is printed in milliseconds per sample
    "decode_mpeg4": "decode a clip of 8 frames, mpeg4",
    "decode_mjpeg": "decode a clip of 8 frames, mjpeg",
    "parse_skeleton": "parse a skeleton's text",
    "load_packed": "load a skeleton from the pack",
    "prepare_skeleton": "center and resize a skeleton",
    "networks_float32": "both networks, float32",
    "networks_bfloat16": "both networks, bfloat16 (--amp)",
}
HOURS = {
    "reading": "reading clips (mpeg4) and packed skeletons",
    "extraction_float32": "extraction, float32",
    "extraction_bfloat16": "extraction, bfloat16",
    "training": "training of all populations",
    "search_float32": "whole search, float32",
    "search_bfloat16": "whole search, bfloat16",
}
Figures = dict[str, dict[str, float]]  # by name: median, lowest, highest


def write_data(datadir: Path, args: argparse.Namespace) -> list[str]:
    """Write clips DATADIR/CODEC-NAME.avi and skeletons, as text and packed; return the names."""
    text = datadir / TEXT_FOLDER
    text.mkdir()
    names = [sample_name(subject=2, action=1 + i) for i in range(args.clips)]
    for label, name in enumerate(names):
        rng = np.random.default_rng(label)
        length = int(rng.integers(60, 121))
        clip = draw_clip(rng, label, args.clips, length, args.vid_dim)
        noisy = clip + rng.normal(0, NOISE, clip.shape).astype(np.float32)
        for codec in PIXELS:
            write_video(datadir / f"{codec}-{name}.avi", noisy.clip(0, 255).astype(np.uint8), codec=codec)
        write_skeleton(text / f"{name}.skeleton", draw_skeletons(rng, label, length, bodies=1 + label % 2))
    write_pack(datadir, num_workers=1, verbose=False)
    return names


def measure_reading(datadir: Path, names: list[str], repeats: int, side: int) -> tuple[Figures, list[Tensor]]:
    """Seconds per sample of each part of reading; and clips (N, T, H, W, 3) and skeletons as loaded."""
    frames, skeleton_frames = NTUSettings().vid_len
    pack = SkeletonPack.open(datadir)
    assert pack is not None
    joints = [pack.load(name) for name in names]

    def decode(codec: str, name: str) -> np.ndarray:
        return read_frames(datadir / f"{codec}-{name}.avi", lambda count: clip_indices(count, frames), side)

    works: dict[str, Callable[[], list]] = {
        "decode_mpeg4": lambda: [decode("mpeg4", name) for name in names],
        "decode_mjpeg": lambda: [decode("mjpeg", name) for name in names],
        "parse_skeleton": lambda: [parse_skeleton(datadir / TEXT_FOLDER / f"{name}.skeleton") for name in names],
        "load_packed": lambda: [pack.load(name) for name in names],
        "prepare_skeleton": lambda: [prepare_skeleton(one, skeleton_frames) for one in joints],
    }
    figures = {
        name: spread([s / len(names) for s in seconds_of(work, 1 + repeats)[1:]]) for name, work in works.items()
    }
    return figures, [torch.from_numpy(np.stack(works["decode_mpeg4"]())), torch.stack(works["prepare_skeleton"]())]


@torch.no_grad()
def measure_extraction(samples: list[Tensor], batch: int, repeats: int, device: torch.device) -> Figures:
    """Seconds per sample of the feature bank's rows: from the loader's batches to main memory, as in `open_bank`."""
    network = SkeletonRGBNetwork(SPACE.rows()[:1], HeadSettings(CLASSES), NTUSettings().vid_len[1]).eval()
    on_device(network, device)
    clips, skeletons = (x[torch.arange(batch) % len(x)] for x in samples)

    def extract(amp: bool) -> Tensor:
        inputs = [normalize_clips(clips.to(device)), skeletons.to(device)]
        with autocast(device, amp):
            rows = network.feature_rows(*inputs)
        return rows.float().cpu()

    figures = {}
    for precision in PRECISIONS:
        seconds = seconds_of(functools.partial(extract, precision == "bfloat16"), 1 + repeats, device)
        figures[f"networks_{precision}"] = spread([s / batch for s in seconds[1:]])
    return figures


def measure_training(rows: int, repeats: int, device: torch.device) -> Figures:
    """Seconds of a training step, and per dev sample, of one population of four-layer candidates."""
    draw = torch.Generator().manual_seed(0)
    counts = (rows, max(1, rows * COUNTS["dev"] // COUNTS["trainexp"]))
    train, dev = (
        ClockedSplit((torch.randn(n, LAYOUT.total, generator=draw),), torch.randint(CLASSES, (n,), generator=draw))
        for n in counts
    )
    candidates = random_configurations(SPACE, SEARCH.num_samples, SEARCH.max_fusions)
    settings = dataclasses.replace(TRAINING, epochs=repeats + 2)  # the first warms up, the last is not timed
    bank = FeatureBank(LAYOUT, train, dev, Path(), reused=False)
    list(CachedEvaluator(bank, HeadSettings(CLASSES), settings, device)(candidates, 0))
    train_begun, dev_begun = np.array(train.begun), np.array(dev.begun)
    steps = -(-rows // settings.batchsize)
    return {
        "train_step": spread(((dev_begun - train_begun)[1:-1] / steps).tolist()),
        "dev_sample": spread(((train_begun[1:] - dev_begun[:-1])[1:] / len(dev)).tolist()),
    }


def measure_memory(rows: int, large: int, device: torch.device) -> dict[str, float]:
    """Bytes of main memory for training on a bank of one pass, from memory and streamed from disk, and of the bank.

    Args:
        large: rows of a second bank, a file of zeros without blocks on disk, which is only streamed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train-0.npy"
        np.save(path, np.random.default_rng(0).standard_normal((rows, LAYOUT.total), np.float32))
        figures = {name: peak(path, device, memory) for name, memory in (("whole", float("inf")), ("streamed", 0))}
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (large, LAYOUT.total)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * LAYOUT.total * large)
        figures["streamed_large"] = peak(path, device, 0)
    return {"bank": 4 * LAYOUT.total * rows, "large_bank": 4 * LAYOUT.total * large, **figures}


def peak(path: Path, device: torch.device, memory: float) -> float:
    """Most bytes of main memory that a candidate's epoch on a table adds; dev are its first rows."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    table = ArrayOnDisk(path, ("float32",), (LAYOUT.total,))
    labels = torch.arange(len(table)) % CLASSES
    dev = ArraySplit((table.part(slice(1000)),), labels[:1000])
    bank = FeatureBank(LAYOUT, BankedSplit.of([ArraySplit((table,), labels)]), dev, path.parent, reused=True)
    settings = dataclasses.replace(TRAINING, epochs=1)
    evaluator = CachedEvaluator(bank, HeadSettings(CLASSES), settings, device, memory=memory)
    list(evaluator([tuple(SPACE.rows()[:4])], 0))
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """A line of this process's status, in bytes."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def search_hours(figures: Figures, workers: int, device: torch.device) -> Figures:
    """Extrapolate the figures to a whole search, in hours."""
    of = {name: np.array(list(figure.values())) for name, figure in figures.items()}  # median, lowest, highest
    extracted = TRAINING.epochs * COUNTS["trainexp"] + COUNTS["dev"]
    populations = SEARCH.trainings(SPACE) / SEARCH.num_samples
    epoch = -(-COUNTS["trainexp"] // TRAINING.batchsize) * of["train_step"] + COUNTS["dev"] * of["dev_sample"]
    reading = extracted * (of["decode_mpeg4"] + of["load_packed"] + of["prepare_skeleton"]) / workers
    seconds = {"reading": reading, "training": populations * TRAINING.epochs * epoch}
    for precision in PRECISIONS:
        networks = extracted * of[f"networks_{precision}"]
        together = np.maximum(reading, networks) if device.type == "cuda" else reading + networks
        seconds |= {f"extraction_{precision}": together, f"search_{precision}": together + seconds["training"]}
    order = ("median", "lowest", "highest")
    return {name: dict(zip(order, (seconds[name] / 3600).tolist(), strict=True)) for name in HOURS}


def print_tables(figures: Figures, hours: Figures) -> None:
    def line(text: str, figure: dict[str, float], factor: float, more: str = "") -> None:
        print(f"  {text:46}" + "".join(f"{factor * value:12.4g}" for value in figure.values()) + more)

    heading = f"{'median':>12}{'lowest':>12}{'highest':>12}"
    print(f"\n{'milliseconds a sample':48}{heading}")
    for name, text in SAMPLE_MS.items():
        rate = f"   {1 / figures[name]['median']:,.4g} samples/s" if name.startswith("networks") else ""
        line(text, figures[name], 1e3, rate)
    print(f"\n{f'population of {SEARCH.num_samples} x {SEARCH.max_fusions} layers, milliseconds':48}{heading}")
    line(f"training step, batch {TRAINING.batchsize}", figures["train_step"], 1e3)
    line("evaluation of 1,000 dev samples", figures["dev_sample"], 1e6)
    counts = " and ".join(f"{count:,} of {name}" for name, count in COUNTS.items())
    print(f"\na whole search: {TRAINING.epochs} passes, {SEARCH.trainings(SPACE)} trainings; estimated {counts}")
    print(f"{'hours':48}{heading}")
    for name, text in HOURS.items():
        line(text, hours[name], 1)


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    group = parser.add_argument_group("measurement")
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto uses CUDA if it is available"
    )
    group.add_argument("--repeats", type=cli.COUNT, default=5, help="timed runs of everything")
    quick = "the same as --repeats 3 --clips 4 --rows 2000, and on CPUs --batch 2"
    group.add_argument("--quick", action="store_true", help=quick)
    workers = min(8, os.cpu_count() or 1)
    group.add_argument(
        "--num_workers", type=cli.PROCESSES, default=workers, help="processes that would read a real data set"
    )

    group = parser.add_argument_group("synthetic data")
    group.add_argument("--clips", type=cli.COUNT, default=12, help="videos, and skeletons")
    group.add_argument("--vid_dim", type=cli.SIDE, default=256, help="side of the videos, pixels")
    batch, what = min(EXTRACTION_BATCH, LoadedSplit.evaluation_batch), "samples at once through the networks"
    group.add_argument("--batch", type=cli.COUNT, default=batch, help=f"{what}, as in the feature bank")
    rows = COUNTS["trainexp"]
    group.add_argument("--rows", type=cli.COUNT, default=rows, help="rows of the table that a population trains on")
    group.add_argument("--large_rows", type=cli.COUNT, default=655_000, help="of a table that is only streamed, 20 GB")

    cli.add_verbosity(parser)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    if args.quick:
        args.repeats, args.clips, args.rows, args.large_rows = 3, 4, 2000, 20_000
        if resolve_device(args.device).type == "cpu":
            args.batch = 2
    return args


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    if args.verbose:
        print(f"reading {args.clips} samples, extracting batches of {args.batch}, training on {args.rows:,} rows")
        print(f"on {machine_name(device)}; each figure is the median of {args.repeats} runs")

    with tempfile.TemporaryDirectory() as folder:
        names = write_data(Path(folder), args)
        figures, samples = measure_reading(Path(folder), names, args.repeats, args.vid_dim)
    figures |= measure_extraction(samples, args.batch, args.repeats, device)
    figures |= measure_training(args.rows, args.repeats, device)
    memory = measure_memory(args.rows, args.large_rows, device)
    hours = search_hours(figures, args.num_workers, device)

    print_tables(figures, hours)
    megabytes = {name: f"{value / 1e6:,.0f} MB" for name, value in memory.items()}
    text = "\nmemory of a training on a bank of {bank}: whole {whole}, streamed {streamed}; on one of {large_bank}: "
    print((text + "streamed {streamed_large}").format(**megabytes))
    if args.out:
        settings = {
            k: vars(args)[k] for k in ("repeats", "clips", "batch", "rows", "large_rows", "vid_dim", "num_workers")
        }
        where = {"device": device.type, "machine": machine_name(device), "torch": torch.__version__}
        rates = {precision: 1 / figures[f"networks_{precision}"]["median"] for precision in PRECISIONS}
        estimate = {"samples": COUNTS, "trainings": SEARCH.trainings(SPACE)}
        found = {"seconds": figures, "samples_per_second": rates, "estimate": estimate, "hours": hours, "bytes": memory}
        write_json(args.out, where | {"settings": settings} | found)


if __name__ == "__main__":
    cli.run(main)
