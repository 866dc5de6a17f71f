"""Two ways to learn the dev accuracies of configurations: on the feature bank, or through the networks as published.

Both give a candidate the same initial weights and the same batches, derived from (seed, step, place in the step), so
that without dropout and with the networks in eval mode they agree.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from models.fusion import FusionHead, FusionNetwork, HeadSettings
from models.population import Population
from utils.batches import ArraySplit
from utils.configurations import Configuration
from utils.feature_bank import FeatureBank
from utils.schedules import cosine_rates
from utils.seeds import derive_seed
from utils.training import evaluate, train_epoch

ROWS_BATCH, LIVE_BATCH = 512, 64  # dev samples at once: rows of the bank, inputs of the networks


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One trained candidate: dev accuracy after each epoch, and its share of the wall time."""

    accuracies: list[float]
    seconds: float

    @property
    def accuracy(self) -> float:
        return max(self.accuracies)


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How a candidate's central weights are trained (published names and defaults)."""

    epochs: int = 3
    batchsize: int = 32
    eta_max: float = 1e-3
    eta_min: float = 1e-6
    Ti: float = 1
    Tm: float = 2
    weight_decay: float = 1e-4
    seed: int = 0

    def rates(self, batches_per_epoch: int) -> Iterator[float]:
        return cosine_rates(self.eta_max, self.eta_min, self.Ti, self.Tm, batches_per_epoch)

    def optimizer(self, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.eta_max, weight_decay=self.weight_decay, fused=True)


class SharedWeights:
    """`--weightsharing`: fusion layers start from where the last trained layer of the same place and shape ended.

    The published code shares from one candidate to the next; candidates of one step train together here, so they share
    from step to step.
    """

    def __init__(self) -> None:
        self._layers: dict[tuple, dict[str, Tensor]] = {}

    @staticmethod
    def _keys(configuration: Configuration) -> Iterator[tuple[int, tuple]]:
        """Layer number and row; the row fixes the shape, given whether a layer comes before it."""
        yield from enumerate(tuple(row) for row in configuration)

    def load_into(self, head: FusionHead) -> None:
        for key in self._keys(head.configuration):
            if key in self._layers:
                head.fusion_layers[key[0]].load_state_dict(self._layers[key])

    def store(self, configuration: Configuration, state: Mapping[str, Tensor]) -> None:
        for key in self._keys(configuration):
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
    ) -> None:
        self.layout, self.head, self.training, self.device, self.shared = bank.layout, head, training, device, shared
        self.splits = {name: split.to(device) for name, split in bank.splits.items()}

    def __call__(self, configurations: Sequence[Configuration], step: int) -> list[Evaluation]:
        started = time.perf_counter()
        settings, dev = self.training, self.splits["dev"]
        heads = [self._head(configuration, step, k) for k, configuration in enumerate(configurations)]
        population = Population(heads, self.layout).to(self.device)
        optimizer = settings.optimizer(list(population.parameters()))
        rates, history = None, []
        for epoch in range(settings.epochs):
            batches = self.splits["train"].batches(settings.batchsize, (settings.seed, "shuffle", step, epoch))
            rates = rates or settings.rates(len(batches))
            torch.manual_seed(derive_seed(settings.seed, "dropout", step, epoch))
            population.train()
            train_epoch(population, batches, optimizer, rates)
            history.append(evaluate(population, dev.batches(ROWS_BATCH), dev.labels).tolist())
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
        build: Callable[[Configuration], FusionNetwork],
        splits: Mapping[str, ArraySplit],
        training: TrainingSettings,
        device: torch.device,
        shared: SharedWeights | None = None,
        frozen_mode: str = "train",
        wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
    ) -> None:
        """
        Args:
            build: makes the network of a configuration, trained unimodal networks loaded.
            frozen_mode: mode of the unimodal networks while the central weights train; "train" (batch statistics and
                dropout in frozen networks) is what the published search does, "eval" what the paper says.
            wrap: what trains in place of the network, such as its DataParallel.
        """
        self.build, self.training, self.device, self.shared = build, training, device, shared
        self.splits = {name: split.to(device) for name, split in splits.items()}
        self.frozen_mode, self.wrap = frozen_mode, wrap

    def __call__(self, configurations: Sequence[Configuration], step: int) -> list[Evaluation]:
        return [self._train(configuration, step, place) for place, configuration in enumerate(configurations)]

    def _train(self, configuration: Configuration, step: int, place: int) -> Evaluation:
        started = time.perf_counter()
        settings, dev = self.training, self.splits["dev"]
        network = self._network(configuration, step, place)
        model = self.wrap(network)
        optimizer = settings.optimizer(network.central_parameters())
        rates, accuracies = None, []
        for epoch in range(settings.epochs):
            batches = self.splits["train"].batches(settings.batchsize, (settings.seed, "shuffle", step, epoch))
            rates = rates or settings.rates(len(batches))
            torch.manual_seed(derive_seed(settings.seed, "dropout", step, epoch))
            network.train()
            for backbone in network.backbones():
                backbone.train(self.frozen_mode == "train")
            train_epoch(model, batches, optimizer, rates)
            accuracies.append(float(evaluate(model, dev.batches(LIVE_BATCH), dev.labels)))
        if self.shared:
            self.shared.store(configuration, network.central_state())
        return Evaluation(accuracies, time.perf_counter() - started)

    def _network(self, configuration: Configuration, step: int, place: int) -> FusionNetwork:
        network = self.build(configuration)
        widths = [backbone.feature_widths for backbone in network.backbones()]
        torch.manual_seed(derive_seed(self.training.seed, "candidate", step, place))
        head = FusionHead(configuration, widths, network.settings)  # the same draw as on the feature bank
        if self.shared:
            self.shared.load_into(head)
        network.load_state_dict(head.state_dict(), strict=False)
        for backbone in network.backbones():
            backbone.requires_grad_(False)
        return network.to(self.device, memory_format=torch.channels_last)
