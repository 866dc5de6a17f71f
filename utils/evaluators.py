"""Two ways to learn the dev accuracies of configurations: on the feature bank, or through the networks as published.

Both give a candidate the same initial weights and the same batches, derived from (seed, step, place in the step), so
that without dropout and with the networks in eval mode they agree.
"""

import copy
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from models.fusion import FusionHead, FusionNetwork, HeadSettings
from models.population import Population
from models.population_gradient import PopulationGradient
from utils.baselines import unimodal_logits
from utils.batches import Split
from utils.configurations import Configuration
from utils.feature_bank import FeatureBank
from utils.population_training import PopulationTraining
from utils.resumable import Resumable, SharedWeights
from utils.seeds import derive_seed
from utils.training import (
    Diverged,
    EpochResult,
    ModelTraining,
    TrainingSettings,
    TrainPass,
    adam,
    on_device,
    train_and_evaluate,
)
from utils.training_state import SavedState

ROWS_BATCH = 512  # dev rows of the bank at once


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One trained candidate: dev accuracy after each epoch, and its share of the wall time."""

    accuracies: list[float]
    seconds: float
    failed: str | None = None  # why it has no accuracy
    correct: Tensor | None = None  # by dev sample (N,), in the best epoch; not known of one that was read back

    @property
    def accuracy(self) -> float:
        """Of the best epoch; NaN of a candidate that failed."""
        return math.nan if self.failed else max(self.accuracies)


class CachedEvaluator:
    """Trains all configurations of a step as one population on the feature bank."""

    at_once = True

    def __init__(
        self,
        bank: FeatureBank,
        head: HeadSettings,
        training: TrainingSettings,
        device: torch.device,
        shared: SharedWeights | None = None,
        memory: float = float("inf"),
        saved: SavedState | None = None,
    ) -> None:
        """
        Args:
            memory: bytes that the bank may take on the device; a larger one is read from disk again in every epoch.
            saved: where to save after every epoch, and to go on from.
        """
        self.layout, self.head, self.training, self.device, self.shared = bank.layout, head, training, device, shared
        self.splits = bank.on(device, memory)
        self.resumable = Resumable(training.epochs, shared, saved)

    def __call__(self, configurations: Sequence[Configuration], step: int, known: int = 0) -> Iterator[Evaluation]:
        """Evaluations of the candidates from number `known` on."""
        heads = [self._head(configuration, step, k) for k, configuration in enumerate(configurations)]
        population = Population(heads, self.layout).to(self.device)
        if PopulationGradient.supports(population):
            train_pass: TrainPass = PopulationTraining(population, self.training)
        else:
            optimizer = adam(list(population.parameters()), self.training)
            train_pass = ModelTraining(population, optimizer, population.train)

        def epochs(done: int) -> Iterator[EpochResult]:
            last = self.training.epochs
            return train_and_evaluate(
                population, self.splits, self.training, train_pass, (step,), last, dev_batch=ROWS_BATCH, done=done
            )

        def store(history: list[list[float]]) -> None:
            for k, configuration in enumerate(configurations):
                if all(math.isfinite(accuracies[k]) for accuracies in history):
                    self.shared.store(configuration, population.member_state(k))

        history, correct, seconds = self.resumable.train(
            (step, 0), configurations, population, train_pass, epochs, store
        )
        members = list(zip(zip(*history, strict=True), correct, strict=True))
        for accuracies, right in members[known:]:
            yield _evaluation(accuracies, right, seconds / len(configurations))

    def catch_up(self, configurations: Sequence[Configuration], step: int, known: int) -> None:
        """Take up the weights to share of a step whose first `known` evaluations the journal tells."""
        if known and self.resumable.lacks((step, 0), configurations):
            list(self(configurations, step))

    @torch.no_grad()
    def dev_logits(self) -> list[Tensor]:
        """What each unimodal network says of the dev samples, (N, C); empty where the bank does not hold it."""
        dev = self.splits["dev"]
        parts = [self.layout.split(rows)[1] for (rows,), _ in dev.batches(ROWS_BATCH)]
        return [torch.cat(modality) for modality in zip(*parts, strict=True)]

    def _head(self, configuration: Configuration, step: int, place: int) -> FusionHead:
        torch.manual_seed(derive_seed(self.training.seed, "candidate", step, place))
        head = FusionHead(configuration, self.layout.widths, self.head)
        if self.shared:
            self.shared.load_into(head)
        return head


def _evaluation(accuracies: Sequence[float], correct: Tensor, seconds: float) -> Evaluation:
    """Of the dev accuracies of all epochs; from the first on that is not finite, they are left out."""
    finite = list(itertools.takewhile(math.isfinite, accuracies))
    failed = None if len(finite) == len(accuracies) else f"its outputs on dev are not finite in epoch {len(finite)}"
    return Evaluation(finite, seconds, failed, correct)


class LiveEvaluator:
    """Trains one configuration after the other through both networks, as the published search does."""

    at_once = False

    def __init__(
        self,
        network: FusionNetwork,
        splits: Mapping[str, Split],
        training: TrainingSettings,
        device: torch.device,
        shared: SharedWeights | None = None,
        frozen_mode: str = "train",
        amp: bool = False,
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
        saved: SavedState | None = None,
        start: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> None:
        """
        Args:
            network: of any configuration, trained unimodal networks loaded; its central weights are replaced.
            frozen_mode: mode of the unimodal networks while the central weights train; "train" (batch statistics and
                dropout in frozen networks) is what the published search does, "eval" what the paper says.
            wrap: what trains in place of the network, such as its DataParallel.
            saved: where to save after every epoch, and to go on from.
            start: states of the unimodal networks that every candidate starts from; None: as they are now.
        """
        self.training, self.device, self.shared = training, device, shared
        self.network = on_device(network, device)
        self.backbones = start or copy.deepcopy([backbone.state_dict() for backbone in network.backbones()])
        self.splits = {name: split.to(device) for name, split in splits.items()}
        self.frozen_mode, self.amp, self.wrap = frozen_mode, amp, wrap
        self.resumable = Resumable(training.epochs, shared, saved)

    def __call__(self, configurations: Sequence[Configuration], step: int, known: int = 0) -> Iterator[Evaluation]:
        """Evaluations of the candidates from number `known` on, each as it is trained."""
        for place in range(known, len(configurations)):
            yield self._train(configurations[place], step, place)

    def catch_up(self, configurations: Sequence[Configuration], step: int, known: int) -> None:
        """Take up the weights to share of a step whose first `known` evaluations the journal tells."""
        for place, configuration in enumerate(configurations[:known]):
            if self.resumable.lacks((step, place), [configuration]):
                self._train(configuration, step, place)

    def _train(self, configuration: Configuration, step: int, place: int) -> Evaluation:
        started = time.perf_counter()
        network = self._network(configuration, step, place)

        def prepare() -> None:
            network.train()
            for backbone in network.backbones():
                backbone.train(self.frozen_mode == "train")

        model = self.wrap(network)
        optimizer = adam(network.central_parameters(), self.training)
        train_pass = ModelTraining(model, optimizer, prepare, self.amp)

        def epochs(done: int) -> Iterator[EpochResult]:
            last = self.training.epochs
            return train_and_evaluate(model, self.splits, self.training, train_pass, (step,), last, done=done)

        def store(history: list[float]) -> None:
            self.shared.store(configuration, network.central_state())

        try:
            history, correct, seconds = self.resumable.train(
                (step, place), [configuration], network, train_pass, epochs, store
            )
        except Diverged as error:
            return Evaluation([], time.perf_counter() - started, str(error))
        return _evaluation(history, correct, seconds)

    def dev_logits(self) -> list[Tensor]:
        """What each unimodal network says of the dev samples, (N, C)."""
        self._start_over()
        return unimodal_logits(self.network, self.splits["dev"])

    def _start_over(self) -> None:
        """Put the unimodal networks back: training in train mode changes the statistics of batch norm."""
        for backbone, start in zip(self.network.backbones(), self.backbones, strict=True):
            backbone.load_state_dict(start)
            backbone.requires_grad_(False)

    def _network(self, configuration: Configuration, step: int, place: int) -> FusionNetwork:
        network = self.network
        widths = [backbone.feature_widths for backbone in network.backbones()]
        self._start_over()
        torch.manual_seed(derive_seed(self.training.seed, "candidate", step, place))
        network.add_central_weights(configuration, widths, network.settings)  # the same draw as on the feature bank
        if self.shared:
            self.shared.load_into(network)
        return network.to(self.device)
