"""What a training step of train_audio.py costs against the plain float32 loop, and whether accuracy suffers.

    python benchmarks/audio_step.py                                            # random arrays
    python benchmarks/audio_step.py --datadir data/avmnist --limit_train 5000 --epochs 6

Plain: float32, convolutions and pooling as PyTorch has them, channels first. Here: bfloat16 where the processor has it,
channels last, pooling by strided views. Both take turns. With --datadir each of three seeds also trains both ways, from
the same weights on the same batches: training accuracy of the last epoch and best dev accuracy are compared.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.measure import plain_pooled, spread
from datasets.avmnist.load import load_avmnist
from models.lenet import AudioLeNet
from utils import cli
from utils.files import write_json
from utils.training.batches import ArraySplit
from utils.training.loop import evaluate, on_device, train_epoch

BATCH, RATE, DECAY = 128, 0.1, 1e-4  # published
CPU = torch.device("cpu")


class PlainAudioLeNet(AudioLeNet):
    """The same network as plain PyTorch runs it."""

    def pooled(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return plain_pooled(self, x)


def network(plain: bool, seed: int) -> tuple[AudioLeNet, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    net = PlainAudioLeNet() if plain else on_device(AudioLeNet(), CPU)
    return net, torch.optim.SGD(net.parameters(), RATE, weight_decay=DECAY)


def uses_amp(way: str) -> bool:
    return way == "here" and cli.use_amp("auto", CPU)


def step_seconds(steps: int, repeats: int) -> dict[str, list[float]]:
    """Seconds a step, by way, of every repeat but the first."""
    split = ArraySplit(
        (torch.randint(256, (steps * BATCH, 1, 112, 112)).to(torch.uint8),), torch.randint(10, (steps * BATCH,))
    )
    ways = {"plain": network(True, 0), "here": network(False, 0)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(1 + repeats):
        for way, (net, optimizer) in ways.items():
            net.train()
            started = time.perf_counter()
            train_epoch(net, split.batches(BATCH), optimizer, amp=uses_amp(way))
            seconds[way].append((time.perf_counter() - started) / steps)
    return {way: values[1:] for way, values in seconds.items()}


def accuracies(args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """By way, for every seed: the last epoch's training accuracy and the best dev accuracy."""
    data = load_avmnist(args.datadir, limits={"train": args.limit_train})
    splits = {name: ArraySplit((data[name].spectrograms,), data[name].labels) for name in ("train", "dev")}
    reached: dict[str, list[dict[str, float]]] = {"plain": [], "here": []}
    runs = [(seed, way) for seed in range(3) for way in reached]
    for seed, way in tqdm(runs, desc="runs", disable=not args.verbose):
        net, optimizer = network(way == "plain", seed)
        best = 0.0
        for epoch in range(args.epochs):
            net.train()
            result = train_epoch(
                net,
                splits["train"].batches(BATCH, (seed, epoch)),
                optimizer,
                amp=way == "here" and cli.use_amp("auto", CPU),
            )
            best = max(best, float(evaluate(net, splits["dev"])))
        reached[way].append({"train_accuracy": float(result.accuracy), "dev_accuracy": best})
    return reached


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--steps", type=cli.positive_int, default=5, help="steps of a repeat")
    parser.add_argument("--repeats", type=cli.positive_int, default=7, help="of the timing")
    parser.add_argument("--datadir", type=Path, help="folder made by avmnist_gen.py; without it only time is measured")
    parser.add_argument("--limit_train", type=cli.positive_int, default=None, help="use only the first samples")
    parser.add_argument("--epochs", type=cli.positive_int, default=6, help="passes over the training split")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    cli.add_verbosity(parser)
    args = parser.parse_args()

    seconds = step_seconds(args.steps, args.repeats)
    ratios = spread([plain / here for plain, here in zip(seconds["plain"], seconds["here"], strict=True)])
    figures: dict[str, object] = {way: spread(values) for way, values in seconds.items()} | {"ratio": ratios}
    for way in seconds:
        print(f"{way:6}{1e3 * figures[way]['median']:8.1f} ms a step of {BATCH}, {torch.get_num_threads()} threads")
    print("ratio {median:.2f} ({lowest:.2f} to {highest:.2f})".format(**ratios))
    if args.datadir:
        figures["accuracies"] = accuracies(args)
        for way, runs in figures["accuracies"].items():
            for seed, run in enumerate(runs):
                print(f"{way:6} seed {seed}: train {run['train_accuracy']:.4f}, best dev {run['dev_accuracy']:.4f}")
    if args.out:
        write_json(args.out, figures)


if __name__ == "__main__":
    cli.run(main)
