"""Two ways to learn the dev accuracies of configurations: on the feature bank, or through the networks as published.

Both train the candidates of a step together, as one population, and give a candidate the same initial weights and the
same batches, derived from (seed, step, place in the step), so that without dropout and with the networks in eval mode
they agree.
"""

import abc
import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from models.fusion import FeatureLayout, FeatureRows, FusionHead, FusionNetwork, HeadSettings
from models.population import LivePopulation, Population
from models.population_gradient import PopulationGradient
from utils.candidates.feature_bank import FeatureBank
from utils.candidates.population_training import PopulationTraining
from utils.candidates.sharing import Resumable, SharedWeights
from utils.results.baselines import unimodal_logits
from utils.search.loop import Evaluation
from utils.search.space import Configuration
from utils.seeds import derive_seed
from utils.training.batches import Split
from utils.training.loop import (
    EpochResult,
    ModelTraining,
    TrainingSettings,
    TrainPass,
    adam,
    on_device,
    train_and_evaluate,
)
from utils.training.resume import SavedState

ROWS_BATCH = 512  # dev rows of the bank at once
TOGETHER = 256  # candidates of a population at most: the first step of many modalities has thousands


class PopulationEvaluator(abc.ABC):
    """Trains the configurations of a step together, in populations of at most `together`; subclasses say on what."""

    together = TOGETHER
    dev_batch: int | None = None  # dev samples at once; None: as the split says

    def __init__(
        self,
        layout: FeatureLayout,
        head: HeadSettings,
        training: TrainingSettings,
        splits: Mapping[str, Split],
        device: torch.device,
        shared: SharedWeights | None = None,
        saved: SavedState | None = None,
    ) -> None:
        """
        Args:
            splits: on the device.
            saved: where to save after every epoch, and to go on from.
        """
        self.layout, self.head, self.training, self.splits = layout, head, training, splits
        self.device, self.shared = device, shared
        self.resumable = Resumable(training.epochs, shared, saved)

    @abc.abstractmethod
    def prepare(self, population: Population) -> tuple[nn.Module, TrainPass]:
        """What turns inputs of the splits into the population's outputs, and what trains it."""

    @abc.abstractmethod
    def dev_logits(self) -> list[Tensor]:
        """What each unimodal network says of the dev samples, (N, C); empty where that is not known."""

    @property
    def at_once(self) -> bool:
        """Whether candidates come many at a time."""
        return self.together > 1

    def __call__(self, configurations: Sequence[Configuration], step: int, known: int = 0) -> Iterator[Evaluation]:
        """Evaluations of the candidates from number `known` on."""
        for place, group in self._groups(configurations):
            if known < place + len(group):
                yield from self._train(group, step, place)[max(0, known - place) :]

    def catch_up(self, configurations: Sequence[Configuration], step: int, known: int) -> None:
        """Take up the weights to share of what the journal tells wholly: the first `known` evaluations of a step."""
        for place, group in self._groups(configurations):
            if place + len(group) <= known and self.resumable.lacks((step, place // self.together), group):
                self._train(group, step, place)

    def _groups(self, configurations: Sequence[Configuration]) -> list[tuple[int, Sequence[Configuration]]]:
        """What trains together, each with its place in the step."""
        places = range(0, len(configurations), self.together)
        return [(place, configurations[place : place + self.together]) for place in places]

    def _train(self, configurations: Sequence[Configuration], step: int, place: int) -> list[Evaluation]:
        heads = [self._head(configuration, step, k) for k, configuration in enumerate(configurations, place)]
        population = Population(heads, self.layout).to(self.device)
        model, train_pass = self.prepare(population)

        def epochs(done: int) -> Iterator[EpochResult]:
            last = self.training.epochs
            return train_and_evaluate(
                model, self.splits, self.training, train_pass, (step,), last, dev_batch=self.dev_batch, done=done
            )

        history, correct, seconds = self.resumable.train(
            (step, place // self.together), configurations, model, train_pass, epochs, population.member_state
        )
        share = seconds / len(configurations)
        return [_evaluation(accuracies, right, share) for *accuracies, right in zip(*history, correct, strict=True)]

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


class CachedEvaluator(PopulationEvaluator):
    """On the feature bank."""

    dev_batch = ROWS_BATCH

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
        """
        super().__init__(bank.layout, head, training, bank.on(device, memory), device, shared, saved)

    def prepare(self, population: Population) -> tuple[nn.Module, TrainPass]:
        if PopulationGradient.supports(population):
            return population, PopulationTraining(population, self.training)
        optimizer = adam(list(population.parameters()), self.training)
        return population, ModelTraining(population, optimizer, population.train)

    @torch.no_grad()
    def dev_logits(self) -> list[Tensor]:
        dev = self.splits["dev"]
        parts = [self.layout.split(rows)[1] for (rows,), _ in dev.batches(ROWS_BATCH)]
        return [torch.cat(modality) for modality in zip(*parts, strict=True)]


class LiveEvaluator(PopulationEvaluator):
    """Through both networks, as the published search does; a pass through them serves all candidates of a step.

    With weights to share, which the published search hands from one candidate to the next, they train one by one.
    """

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
        verbose: bool = False,
    ) -> None:
        """
        Args:
            network: of any configuration, trained unimodal networks loaded, from which every step starts.
            frozen_mode: mode of the unimodal networks while the central weights train; "train" (batch statistics and
                dropout in frozen networks) is what the published search does, "eval" what the paper says.
            wrap: what runs in place of the unimodal networks, such as their DataParallel.
        """
        splits = {name: split.to(device) for name, split in splits.items()}
        super().__init__(network.feature_layout, network.settings, training, splits, device, shared, saved)
        self.together = TOGETHER if shared is None else 1
        self.network = on_device(network, device).requires_grad_(False)
        self.rows = wrap(FeatureRows(self.network))
        self.start = copy.deepcopy([backbone.state_dict() for backbone in network.backbones()])
        self.frozen_mode, self.amp, self.verbose = frozen_mode, amp, verbose

    def prepare(self, population: Population) -> tuple[nn.Module, TrainPass]:
        self._start_over()
        model = LivePopulation(population, self.network.backbones(), self.rows)

        def mode() -> None:
            model.train()
            model.backbones.train(self.frozen_mode == "train")

        optimizer = adam(list(population.parameters()), self.training)
        return model, ModelTraining(model, optimizer, mode, self.amp, self.verbose)

    def dev_logits(self) -> list[Tensor]:
        self._start_over()
        return unimodal_logits(self.network, self.splits["dev"])

    def _start_over(self) -> None:
        """Put the unimodal networks back: training in train mode changes the statistics of batch norm."""
        for backbone, start in zip(self.network.backbones(), self.start, strict=True):
            backbone.load_state_dict(start)
