"""Cost of a training step of train_audio.py compared with the plain float32 loop, and the accuracy of both.

    python benchmarks/audio_step.py                                            # random arrays
    python benchmarks/audio_step.py --datadir data/avmnist --limit_train 5000 --epochs 6

Plain: float32, PyTorch's own convolutions and pooling, channels first. Here: bfloat16 where the processor has it,
channels last, pooling by strided views. Both take turns. With --datadir each of three seeds also trains both ways, from
the same weights on the same batches, to compare training accuracy of the last epoch and best dev accuracy.
"""

import argparse
import functools
import itertools
from collections.abc import Iterable
from pathlib import Path

import torch
from measure import plain_pooled, ratios, seconds_of, spread
from tqdm import tqdm

from datasets.avmnist.load import load_avmnist
from models.lenet import AudioLeNet
from utils import cli
from utils.files import write_json
from utils.training.batches import CPU, ArraySplit, Batch
from utils.training.devices import on_device, use_bfloat16
from utils.training.evaluation import evaluate
from utils.training.loop import EpochResult, train_epoch

BATCH, RATE, DECAY = 128, 0.1, 1e-4  # published
WAYS = ("plain", "here")


class PlainAudioLeNet(AudioLeNet):
    """The same network in plain PyTorch."""

    pooled = plain_pooled


class Training:
    """A new network and its optimizer."""

    def __init__(self, way: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.net = PlainAudioLeNet() if way == "plain" else on_device(AudioLeNet(), CPU)
        self.optimizer = torch.optim.SGD(self.net.parameters(), RATE, weight_decay=DECAY)
        self.amp = way == "here" and use_bfloat16("auto", CPU)

    def epoch(self, batches: Iterable[Batch]) -> EpochResult:
        return train_epoch(self.net.train(), batches, self.optimizer, amp=self.amp)


def step_seconds(steps: int, repeats: int) -> dict[str, list[float]]:
    """Seconds per step, by way, of every repeat but the first."""
    spectrograms = torch.randint(256, (steps * BATCH, 1, 112, 112)).to(torch.uint8)
    batches = ArraySplit((spectrograms,), torch.randint(10, (steps * BATCH,))).batches(BATCH)
    works = {way: functools.partial(Training(way, 0).epoch, batches) for way in WAYS}
    rounds = [{way: seconds_of(work, 1)[0] / steps for way, work in works.items()} for _ in range(1 + repeats)]
    return {way: [seconds[way] for seconds in rounds[1:]] for way in WAYS}


def accuracies(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Training accuracy of the last epoch and best dev accuracy, by way and seed."""
    data = load_avmnist(args.datadir, limits={"train": args.limit_train})
    cpu = torch.device("cpu")
    splits = {name: ArraySplit((data[name].spectrograms,), data[name].labels).to(cpu) for name in ("train", "dev")}
    reached: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed, way in tqdm(list(itertools.product(range(3), WAYS)), desc="runs", disable=not args.verbose):
        training, best = Training(way, seed), 0.0
        for epoch in range(args.epochs):
            result = training.epoch(splits["train"].batches(BATCH, (seed, epoch)))
            best = max(best, float(evaluate(training.net, splits["dev"])))
        reached[way].append({"train_accuracy": float(result.accuracy), "dev_accuracy": best})
    return reached


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--steps", type=cli.COUNT, default=5, help="steps per repeat")
    parser.add_argument("--repeats", type=cli.COUNT, default=7, help="repeats of the timing")
    parser.add_argument("--datadir", type=Path, help="folder made by avmnist_gen.py; without it only time is measured")
    parser.add_argument("--limit_train", type=cli.COUNT, default=None, help="use only the first samples")
    parser.add_argument("--epochs", type=cli.EPOCHS, default=6, help="passes over the training split")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    cli.add_verbosity(parser)
    args = parser.parse_args()

    seconds = step_seconds(args.steps, args.repeats)
    ratio = ratios(seconds["plain"], seconds["here"])
    figures: dict[str, dict] = {**{way: spread(seconds[way]) for way in WAYS}, "ratio": ratio}
    for way in WAYS:
        print(f"{way:6}{1e3 * figures[way]['median']:8.1f} ms a step of {BATCH}, {torch.get_num_threads()} threads")
    print("ratio {median:.2f} ({lowest:.2f} to {highest:.2f})".format(**ratio))
    if args.datadir:
        figures["accuracies"] = accuracies(args)
        for way, runs in figures["accuracies"].items():
            for seed, run in enumerate(runs):
                print(f"{way:6} seed {seed}: train {run['train_accuracy']:.4f}, best dev {run['dev_accuracy']:.4f}")
    if args.out:
        write_json(args.out, figures)


if __name__ == "__main__":
    cli.run(main)
