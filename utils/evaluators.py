"""Two ways to learn the dev accuracies of configurations: on the feature bank, or through the networks as published.

Both give a candidate the same initial weights and the same batches, derived from (seed, step, place in the step), so
that without dropout and with the networks in eval mode they agree.
"""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from models.fusion import FusionHead, FusionNetwork, HeadSettings
from models.population import Population
from models.population_gradient import PopulationGradient
from utils.batches import Split
from utils.configurations import Configuration, Row
from utils.feature_bank import FeatureBank
from utils.population_training import PopulationTraining
from utils.seeds import derive_seed
from utils.training import TrainingSettings, adam_passes, on_device, train_and_evaluate

ROWS_BATCH = 512  # dev rows of the bank at once


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One trained candidate: dev accuracy after each epoch, and its share of the wall time."""

    accuracies: list[float]
    seconds: float

    @property
    def accuracy(self) -> float:
        return max(self.accuracies)


class SharedWeights:
    """`--weightsharing`: fusion layers start from where the last trained layer of the same place and shape ended.

    The published code shares from one candidate to the next. So does the live evaluator; the candidates of a population
    train together and share from step to step.
    """

    def __init__(self) -> None:
        self._layers: dict[tuple[int, Row], dict[str, Tensor]] = {}  # by place and row, which fix the shape

    def load_into(self, head: FusionHead) -> None:
        for key in enumerate(head.configuration):
            if key in self._layers:
                head.fusion_layers[key[0]].load_state_dict(self._layers[key])

    def store(self, configuration: Configuration, state: Mapping[str, Tensor]) -> None:
        for key in enumerate(configuration):
            prefix = f"fusion_layers.{key[0]}."
            layer = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            self._layers[key] = {name: value.detach().cpu().clone() for name, value in layer.items()}


class CachedEvaluator:
    """Trains all configurations of a step as one population on the feature bank."""

    def __init__(
        self,
        bank: FeatureBank,
        head: HeadSettings,
        training: TrainingSettings,
        device: torch.device,
        shared: SharedWeights | None = None,
        memory: float = float("inf"),
    ) -> None:
        """
        Args:
            memory: bytes that the bank may take on the device; a larger one is read from disk again in every epoch.
        """
        self.layout, self.head, self.training, self.device, self.shared = bank.layout, head, training, device, shared
        self.splits = bank.on(device, memory)

    def __call__(self, configurations: Sequence[Configuration], step: int) -> list[Evaluation]:
        started = time.perf_counter()
        heads = [self._head(configuration, step, k) for k, configuration in enumerate(configurations)]
        population = Population(heads, self.layout).to(self.device)
        if PopulationGradient.supports(population):
            train_pass = PopulationTraining(population, self.training)
        else:
            train_pass = adam_passes(population, list(population.parameters()), self.training, population.train)
        epochs = train_and_evaluate(
            population, self.splits, self.training, train_pass, (step,), self.training.epochs, dev_batch=ROWS_BATCH
        )
        history = [epoch.dev_accuracy.tolist() for epoch in epochs]
        if self.shared:
            for k, configuration in enumerate(configurations):
                self.shared.store(configuration, population.member_state(k))
        seconds = (time.perf_counter() - started) / len(configurations)
        return [Evaluation(list(epochs), seconds) for epochs in zip(*history, strict=True)]

    def _head(self, configuration: Configuration, step: int, place: int) -> FusionHead:
        torch.manual_seed(derive_seed(self.training.seed, "candidate", step, place))
        head = FusionHead(configuration, self.layout.widths, self.head)
        if self.shared:
            self.shared.load_into(head)
        return head


class LiveEvaluator:
    """Trains one configuration after the other through both networks, as the published search does."""

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
    ) -> None:
        """
        Args:
            network: of any configuration, trained unimodal networks loaded; its central weights are replaced.
            frozen_mode: mode of the unimodal networks while the central weights train; "train" (batch statistics and
                dropout in frozen networks) is what the published search does, "eval" what the paper says.
            wrap: what trains in place of the network, such as its DataParallel.
        """
        self.training, self.device, self.shared = training, device, shared
        self.network = on_device(network, device)
        self.backbones = copy.deepcopy([backbone.state_dict() for backbone in network.backbones()])
        self.splits = {name: split.to(device) for name, split in splits.items()}
        self.frozen_mode, self.amp, self.wrap = frozen_mode, amp, wrap

    def __call__(self, configurations: Sequence[Configuration], step: int) -> list[Evaluation]:
        return [self._train(configuration, step, place) for place, configuration in enumerate(configurations)]

    def _train(self, configuration: Configuration, step: int, place: int) -> Evaluation:
        started = time.perf_counter()
        network = self._network(configuration, step, place)

        def prepare() -> None:
            network.train()
            for backbone in network.backbones():
                backbone.train(self.frozen_mode == "train")

        model = self.wrap(network)
        train_pass = adam_passes(model, network.central_parameters(), self.training, prepare, self.amp)
        epochs = train_and_evaluate(model, self.splits, self.training, train_pass, (step,), self.training.epochs)
        accuracies = [float(epoch.dev_accuracy) for epoch in epochs]
        if self.shared:
            self.shared.store(configuration, network.central_state())
        return Evaluation(accuracies, time.perf_counter() - started)

    def _network(self, configuration: Configuration, step: int, place: int) -> FusionNetwork:
        network = self.network
        widths = [backbone.feature_widths for backbone in network.backbones()]
        for backbone, start in zip(network.backbones(), self.backbones, strict=True):
            backbone.load_state_dict(start)  # training in train mode changed the statistics of batch norm
            backbone.requires_grad_(False)
        torch.manual_seed(derive_seed(self.training.seed, "candidate", step, place))
        network.add_central_weights(configuration, widths, network.settings)  # the same draw as on the feature bank
        if self.shared:
            self.shared.load_into(network)
        return network.to(self.device)
