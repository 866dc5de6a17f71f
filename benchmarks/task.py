"""Shared by the benchmarks of the search space: the feature bank on which its configurations train."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure  # noqa: F401 - finds the project

from datasets.avmnist.load import MODALITIES, data_identity, load_avmnist
from datasets.features import load_features
from models.fusion import AudioImageNetwork, FeatureLayout, HeadSettings
from models.lenet import AudioLeNet, ImageLeNet
from utils import cli
from utils.candidates.evaluators import CachedEvaluator
from utils.candidates.feature_bank import FeatureBank, bank_of_features, feature_splits, open_bank
from utils.errors import UsageError
from utils.runs.settings import scaled_epochs
from utils.search.space import Space
from utils.training.batches import CPU, ArraySplit
from utils.training.checkpoints import load_backbones
from utils.training.loop import TrainingSettings


@dataclasses.dataclass(frozen=True)
class Task:
    """A space and the feature bank on which its configurations train as in a search with default flags."""

    space: Space
    bank: FeatureBank
    head: HeadSettings
    training: TrainingSettings
    facts: Mapping[str, object]  # of a table

    @property
    def dev_samples(self) -> int:
        return len(self.bank.dev.labels)

    def evaluator(self, seed: int) -> CachedEvaluator:
        return CachedEvaluator(self.bank, self.head, dataclasses.replace(self.training, seed=seed), CPU)


def add_task_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--datadir", type=Path, required=True, help="AV-MNIST, or features with --features")
    group.add_argument("--checkpointdir", type=Path, help="folder of audio_model.pkl and image_model.pkl")
    group.add_argument("--features", action="store_true", help="datadir holds features of any networks")
    group.add_argument("--epochs", type=cli.EPOCHS, help="of each training (default: those of the search script)")


def open_task(args: argparse.Namespace) -> Task:
    """Open the data, and extract the features of AV-MNIST's networks unless they are in a feature bank."""
    task = _features(args.datadir) if args.features else _avmnist(args.datadir, args.checkpointdir or args.datadir)
    if args.epochs:
        period = args.epochs / TrainingSettings.epochs
        task = dataclasses.replace(task, training=dataclasses.replace(task.training, epochs=args.epochs, Ti=period))
    return dataclasses.replace(task, facts={**task.facts, "training": dataclasses.asdict(task.training)})


def _avmnist(datadir: Path, checkpointdir: Path) -> Task:
    data, space = load_avmnist(datadir), Space(sizes=(AudioLeNet.depth, ImageLeNet.depth))
    splits = {
        name: ArraySplit((data[name].images, data[name].spectrograms), data[name].labels) for name in ("train", "dev")
    }
    head = HeadSettings(num_outputs=10)
    network = AudioImageNetwork(space.rows()[:1], head)
    checkpoints = [checkpointdir / name for name in ("audio_model.pkl", "image_model.pkl")]
    inputs = {"checkpoints": load_backbones(network, checkpoints), "data": data_identity(data, ["train"])}
    bank = open_bank(checkpointdir / "feature_bank", network, splits, inputs, CPU)
    return Task(space, bank, head, TrainingSettings(), facts(MODALITIES, bank, inputs))


def _features(datadir: Path) -> Task:
    data = load_features(datadir, ("train", "dev"), {})
    if data.multi_label:
        raise UsageError(f"{datadir} has several labels for a sample; a table counts correctly classified samples")
    splits = feature_splits(data.rows, data.labels)
    epochs = scaled_epochs(len(data.labels["train"]), TrainingSettings.batchsize, TrainingSettings.epochs)
    training = TrainingSettings(epochs=epochs, Ti=epochs / TrainingSettings.epochs)
    bank = bank_of_features(FeatureLayout(data.widths, data.num_outputs, data.has_logits), splits)
    bank = bank.standardized(data.modalities)
    space, head = Space(tuple(map(len, data.widths))), HeadSettings(data.num_outputs, standardize=True)
    return Task(space, bank, head, training, facts(data.modalities, bank, {"data": data.checksums}))


def facts(modalities: Sequence[str], bank: FeatureBank, inputs: Mapping[str, object]) -> dict[str, object]:
    return {
        "modalities": list(modalities),
        "widths": bank.layout.widths,
        "train_samples": len(bank.train.labels),
        "inputs": dict(inputs),
    }
