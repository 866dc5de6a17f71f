"""What the cached search costs on NTU RGB+D: reading, feature extraction, population training, and all of it in hours.

    python benchmarks/ntu_cost.py                           # on CPUs minutes, nearly all of it extraction
    python benchmarks/ntu_cost.py --quick                   # under 90 seconds
    python benchmarks/ntu_cost.py --device cuda --out ntu_cost.json

The data are synthetic: clips of 256x256 pixels and 60 to 120 frames with the noise of a camera, in both codecs of
datasets.ntu_prepare, and skeletons of one and two bodies. The networks have their published sizes and random weights.
Every figure is the median of `--repeats` runs after an untimed one, beside the lowest and the highest.

Extended to a whole search: one augmented pass over trainexp for each of three epochs and one pass over dev; then every
candidate, in populations of 15 and counted with four layers, which most have fewer of. The counts of samples are an
estimate, 56,880 / 40 a subject; datasets.ntu_prepare prints the true ones. Reading is divided by `--num_workers`; on
CUDA it goes on while the networks compute, so that the slower of the two counts, on CPUs both count.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measure import ClockedSplit, spread
from datasets.ntu.folder import SUBJECTS, NTUSettings, normalise_clips
from datasets.ntu.pack import TEXT_FOLDER, SkeletonPack, write_pack
from datasets.ntu.skeleton import parse_skeleton, prepare_skeleton
from datasets.ntu.transcode import PIXELS
from datasets.ntu.video import clip_indices, read_frames
from models.fusion import FeatureLayout, HeadSettings, SkeletonRGBNetwork
from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50
from tests.ntu_samples import draw_clip, draw_skeletons, sample_name, write_skeleton, write_video
from utils import cli
from utils.candidates.evaluators import CachedEvaluator
from utils.candidates.feature_bank import EXTRACTION_BATCH, BankedSplit, FeatureBank
from utils.files import write_json
from utils.search.loop import SearchSettings
from utils.search.space import Space
from utils.training.batches import ArraySplit, LoadedSplit
from utils.training.devices import autocast, on_device, resolve_device
from utils.training.loop import TrainingSettings

PER_SUBJECT = 56_880 / 40
COUNTS = {name: round(PER_SUBJECT * len(SUBJECTS[name])) for name in ("trainexp", "dev")}
CLASSES, NOISE = 60, 3.0  # noise: standard deviation of a pixel, so that frames differ as a camera's do
SPACE, SEARCH, TRAINING = Space((SkeletonNet.depth, InflatedResNet50.depth)), SearchSettings(), TrainingSettings(3, 20)
PRECISIONS = ("float32", "bfloat16")
SAMPLE_MS = {  # what is printed in milliseconds a sample
    "decode_mpeg4": "decode a clip of 8 frames, mpeg4",
    "decode_mjpeg": "decode a clip of 8 frames, mjpeg",
    "parse_skeleton": "parse a skeleton's text",
    "load_packed": "load a skeleton from the pack",
    "prepare_skeleton": "centre and resize a skeleton",
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


def timed(work: Callable[[], object], count: int, repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds that `work` takes for each of the `count` samples in it."""
    seconds = []
    for _ in range(1 + repeats):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / count)
    return spread(seconds[1:])


def write_data(datadir: Path, args: argparse.Namespace) -> list[str]:
    """Clips DATADIR/CODEC-NAME.avi, skeletons as text and packed; returns the names."""
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


def measure_reading(datadir: Path, names: list[str], args: argparse.Namespace) -> tuple[Figures, list[torch.Tensor]]:
    """Reading of a sample, part by part; and the samples as the loader gives them: clips (N, T, H, W, 3), skeletons."""
    frames, skeleton_frames = NTUSettings().vid_len
    pack, texts = SkeletonPack.open(datadir), [datadir / TEXT_FOLDER / f"{name}.skeleton" for name in names]
    joints = [pack.load(name) for name in names]

    def decode(codec: str) -> list[np.ndarray]:
        paths = (datadir / f"{codec}-{name}.avi" for name in names)
        return [read_frames(path, lambda count: clip_indices(count, frames), args.vid_dim) for path in paths]

    def prepare() -> list[torch.Tensor]:
        return [prepare_skeleton(one, skeleton_frames) for one in joints]

    works = {f"decode_{codec}": lambda codec=codec: decode(codec) for codec in PIXELS} | {
        "parse_skeleton": lambda: [parse_skeleton(path) for path in texts],
        "load_packed": lambda: [pack.load(name) for name in names],
        "prepare_skeleton": prepare,
    }
    cpu = torch.device("cpu")
    figures = {name: timed(work, len(names), args.repeats, cpu) for name, work in works.items()}
    return figures, [torch.from_numpy(np.stack(decode("mpeg4"))), torch.stack(prepare())]


@torch.no_grad()
def measure_extraction(samples: list[torch.Tensor], args: argparse.Namespace, device: torch.device) -> Figures:
    """Rows of the feature bank as `open_bank` computes them, from the loader's batches to rows in main memory."""
    network = SkeletonRGBNetwork(SPACE.rows()[:1], HeadSettings(CLASSES), NTUSettings().vid_len[1]).eval()
    on_device(network, device)
    clips, skeletons = (x[torch.arange(args.batch) % len(x)] for x in samples)  # as many as a batch has

    def extract(amp: bool) -> torch.Tensor:
        inputs = [normalise_clips(clips.to(device)), skeletons.to(device)]
        with autocast(device, amp):
            rows = network.feature_rows(*inputs)
        return rows.float().cpu()

    return {
        f"networks_{precision}": timed(
            lambda amp=precision == "bfloat16": extract(amp), args.batch, args.repeats, device
        )
        for precision in PRECISIONS
    }


def measure_training(args: argparse.Namespace, device: torch.device) -> Figures:
    """A training step, and a sample of dev, of one population of four-layer candidates."""
    layout = FeatureLayout((SkeletonNet(CLASSES).feature_widths, InflatedResNet50.feature_widths), CLASSES)
    draw = torch.Generator().manual_seed(0)

    def split(count: int) -> ClockedSplit:
        rows = torch.randn(count, layout.total, generator=draw)
        return ClockedSplit((rows,), torch.randint(CLASSES, (count,), generator=draw))

    train, dev = split(args.rows), split(max(1, args.rows * COUNTS["dev"] // COUNTS["trainexp"]))
    rng, rows = np.random.default_rng(0), SPACE.rows()
    places = rng.integers(len(rows), size=(SEARCH.num_samples, SEARCH.max_fusions))
    candidates = [tuple(rows[i] for i in row) for row in places]
    settings = dataclasses.replace(TRAINING, epochs=args.repeats + 2)  # the first warms up, the last is not timed
    bank = FeatureBank(layout, train, dev, Path(), reused=False)
    list(CachedEvaluator(bank, HeadSettings(CLASSES), settings, device)(candidates, 0))
    trained = [end - begin for begin, end in zip(train.begun, dev.begun, strict=True)][1:-1]
    evaluated = [end - begin for begin, end in zip(dev.begun, train.begun[1:], strict=False)][1:]
    steps = -(-len(train) // settings.batchsize)
    return {
        "train_step": spread([seconds / steps for seconds in trained]),
        "dev_sample": spread([seconds / len(dev) for seconds in evaluated]),
    }


def measure_memory(args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Bytes of a bank of one pass, and what main memory a training on it takes, from memory and streamed from disk."""
    layout = FeatureLayout((SkeletonNet(CLASSES).feature_widths, InflatedResNet50.feature_widths), CLASSES)
    figures: dict[str, float] = {"bank": 4 * layout.total * args.rows}
    with tempfile.TemporaryDirectory() as folder:
        tables = {name: Path(folder) / f"{name}.npy" for name in ("train-0", "dev")}
        table = np.lib.format.open_memmap(tables["train-0"], "w+", np.float32, (args.rows, layout.total))
        for start in range(0, args.rows, 1000):
            part = table[start : start + 1000]
            part[:] = np.random.default_rng(start).standard_normal(part.shape, np.float32)
        table.flush()
        np.save(tables["dev"], table[:1000])
        labels = torch.arange(args.rows) % CLASSES
        for name, memory in (("whole", float("inf")), ("streamed", 0)):
            del table  # and with it what is mapped
            Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
            before = _status("VmRSS")
            table = np.load(tables["train-0"], mmap_mode="c")
            train = BankedSplit.of([ArraySplit((torch.from_numpy(table),), labels)])
            dev = ArraySplit((torch.from_numpy(np.load(tables["dev"], mmap_mode="c")),), labels[:1000])
            bank = FeatureBank(layout, train, dev, Path(folder), reused=True)
            settings = dataclasses.replace(TRAINING, epochs=1)
            evaluator = CachedEvaluator(bank, HeadSettings(CLASSES), settings, device, memory=memory)
            list(evaluator([SPACE.rows()[:4]], 0))
            figures[name] = _status("VmHWM") - before
            del train, bank
    return figures


def _status(name: str) -> int:
    """A line of this process's status, in bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def search_hours(figures: Figures, workers: int, device: torch.device) -> Figures:
    """The figures extended to a whole search, in hours."""
    extracted = TRAINING.epochs * COUNTS["trainexp"] + COUNTS["dev"]
    populations = SEARCH.trainings(SPACE) / SEARCH.num_samples
    steps = -(-COUNTS["trainexp"] // TRAINING.batchsize)

    def extend(which: str) -> dict[str, float]:
        of = {name: figure[which] for name, figure in figures.items()}
        reading = extracted * (of["decode_mpeg4"] + of["load_packed"] + of["prepare_skeleton"]) / workers
        epoch = steps * of["train_step"] + COUNTS["dev"] * of["dev_sample"]
        seconds = {"reading": reading, "training": populations * TRAINING.epochs * epoch}
        for precision in PRECISIONS:
            networks = extracted * of[f"networks_{precision}"]
            together = max(reading, networks) if device.type == "cuda" else reading + networks
            seconds[f"extraction_{precision}"] = together
            seconds[f"search_{precision}"] = together + seconds["training"]
        return {name: value / 3600 for name, value in seconds.items()}

    extended = {which: extend(which) for which in ("median", "lowest", "highest")}
    return {name: {which: values[name] for which, values in extended.items()} for name in HOURS}


def print_tables(figures: Figures, hours: Figures) -> None:
    def line(text: str, figure: dict[str, float], factor: float, more: str = "") -> None:
        numbers = "".join(f"{factor * figure[which]:12.4g}" for which in ("median", "lowest", "highest"))
        print(f"  {text:46}{numbers}{more}")

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
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes CUDA if it can")
    group.add_argument("--repeats", type=cli.positive_int, default=5, help="timed runs of everything")
    group.add_argument(
        "--quick", action="store_true", help="the same as --repeats 3 --clips 4 --rows 2000, and on CPUs --batch 2"
    )
    group.add_argument(
        "--num_workers", type=cli.positive_int, default=min(8, os.cpu_count() or 1), help="that would read a real set"
    )

    group = parser.add_argument_group("synthetic data")
    group.add_argument("--clips", type=cli.positive_int, default=12, help="videos, and skeletons")
    group.add_argument("--vid_dim", type=cli.positive_int, default=256, help="side of the videos, pixels")
    group.add_argument(
        "--batch",
        type=cli.positive_int,
        default=min(EXTRACTION_BATCH, LoadedSplit.evaluation_batch),
        help="samples at once through the networks, as in the feature bank",
    )
    group.add_argument(
        "--rows", type=cli.positive_int, default=COUNTS["trainexp"], help="of the table that a population trains on"
    )

    cli.add_verbosity(parser)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    if args.quick:
        args.repeats, args.clips, args.rows = 3, 4, 2000
        if resolve_device(args.device).type == "cpu":
            args.batch = 2
    return args


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"

    if args.verbose:
        print(f"reading {args.clips} samples, extracting batches of {args.batch}, training on {args.rows:,} rows")
        print(f"on {machine}; each figure is the median of {args.repeats} runs")

    with tempfile.TemporaryDirectory() as folder:
        names = write_data(Path(folder), args)
        figures, samples = measure_reading(Path(folder), names, args)
    figures |= measure_extraction(samples, args, device)
    figures |= measure_training(args, device)
    memory = measure_memory(args, device)
    hours = search_hours(figures, args.num_workers, device)

    print_tables(figures, hours)
    megabytes = {name: f"{value / 1e6:,.0f} MB" for name, value in memory.items()}
    print("\nmemory of a training on a bank of {bank}: whole {whole}, streamed {streamed}".format(**megabytes))
    if args.out:
        names = ("repeats", "clips", "batch", "rows", "vid_dim", "num_workers")
        settings = {name: getattr(args, name) for name in names}
        where = {"device": device.type, "machine": machine, "torch": torch.__version__, "settings": settings}
        rates = {precision: 1 / figures[f"networks_{precision}"]["median"] for precision in PRECISIONS}
        estimate = {"samples": COUNTS, "trainings": SEARCH.trainings(SPACE)}
        found = {"seconds": figures, "samples_per_second": rates, "estimate": estimate, "hours": hours, "bytes": memory}
        write_json(args.out, where | found)


if __name__ == "__main__":
    cli.run(main)
