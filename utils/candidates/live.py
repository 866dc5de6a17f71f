"""Evaluate candidates through the unimodal networks, as published.

Initial weights, batches and dropout masks are those of `utils.candidates.evaluators.CachedEvaluator`; with the unimodal
networks in eval mode, both agree.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from models.fusion import FeatureRows, FusionHead, FusionNetwork
from models.population import LivePopulation, Population
from utils.candidates.evaluators import TOGETHER, Members, PopulationEvaluator
from utils.errors import UsageError
from utils.training.batches import Batches, Split
from utils.training.devices import Compute, data_parallel, on_device
from utils.training.evaluation import unimodal_outputs
from utils.training.loop import EpochResult, ModelTraining, TrainingSettings, TrainPass, adam


class LiveTraining(ModelTraining):
    """Train a population through the unimodal networks."""

    model: LivePopulation

    def __call__(self, batches: Batches, rates: Iterator[float], seed: int) -> EpochResult:
        self.model.population.start_pass(seed)
        return super().__call__(batches, rates, seed)


class LiveEvaluator(PopulationEvaluator):
    """Evaluate candidates through both unimodal networks, as the published search does.

    One pass through the networks serves all candidates of a step. With weight sharing, candidates train one by one.
    """

    def __init__(
        self,
        network: FusionNetwork,
        splits: Mapping[str, Split],
        training: TrainingSettings,
        compute: Compute,
        share_weights: bool = False,
        folder: Path | None = None,
        frozen_mode: str = "train",
        verbose: bool = False,
    ) -> None:
        """
        Args:
            network: any configuration's, with the trained unimodal networks that every step starts from.
            frozen_mode: mode of the unimodal networks while the central weights train. "train" (batch statistics and
                dropout in frozen networks) is what the published search does, "eval" what the paper describes.
        """
        if network.settings.standardize:
            raise UsageError("--standardize needs the means of all training features: use it with --features cached")
        splits = {name: split.to(compute.device) for name, split in splits.items()}
        super().__init__(
            network.feature_layout, network.settings, training, splits, compute.device, share_weights, folder
        )
        self.together = 1 if share_weights else TOGETHER
        on_device(network, compute.device)
        self.network = network.requires_grad_(False)
        self.rows = data_parallel(FeatureRows(self.network), compute.use_dataparallel)
        self.start = copy.deepcopy([backbone.state_dict() for backbone in network.backbones()])
        self.frozen_mode, self.bfloat16, self.verbose = frozen_mode, compute.bfloat16, verbose

    def prepare(self, heads: Sequence[FusionHead], place: int) -> tuple[nn.Module, Members, TrainPass]:
        self._reset()
        population = Population(heads, self.layout, place).to(self.device)
        model = LivePopulation(population, self.network.backbones(), self.rows)

        def set_modes() -> None:
            model.train()
            model.backbones.train(self.frozen_mode == "train")

        optimizer = adam(list(population.parameters()), self.training)
        return model, population, LiveTraining(model, optimizer, set_modes, self.bfloat16, self.verbose)

    def dev_logits(self) -> list[Tensor]:
        self._reset()
        return unimodal_outputs(self.network, self.splits["dev"])[1]

    def _reset(self) -> None:
        """Reset the unimodal networks: training in train mode changes the statistics of batch norm."""
        for backbone, start in zip(self.network.backbones(), self.start, strict=True):
            backbone.load_state_dict(start)
