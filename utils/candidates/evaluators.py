"""Evaluate candidates: train those of a step together on the feature bank.

A candidate is a pure function of the data and of (seed, step, place in the step): its initial weights, its batches and
its dropout masks derive from these alone, whoever trains beside it.
"""

import abc
import copy
import dataclasses
import itertools
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from models.fusion import FeatureLayout, FusionHead, HeadSettings
from models.population import Population
from utils import distributed, interrupts
from utils.candidates import fused
from utils.candidates.feature_bank import FeatureBank
from utils.candidates.population_training import PopulationTraining
from utils.candidates.sharing import SharedWeights
from utils.errors import UsageError
from utils.search.loop import Evaluation
from utils.search.space import Configuration
from utils.seeds import derive_seed
from utils.training.batches import Split
from utils.training.loop import EpochResult, TrainingSettings, TrainPass, train_and_evaluate
from utils.training.resume import SavedTraining

ROWS_BATCH = 512  # dev rows of the bank evaluated at once
TOGETHER = 256  # most candidates in a population: the first step of many modalities has thousands


@dataclasses.dataclass
class PopulationResults:
    """Dev results of a population of K candidates so far."""

    history: Tensor = dataclasses.field(default_factory=lambda: torch.zeros(0, 0))  # dev accuracies (epochs, K)
    best: Tensor | None = None  # (K,) best dev accuracy
    correct: Tensor | None = None  # (K, N) which dev samples were classified correctly in the best epoch
    weights: dict[int, dict[str, Tensor]] = dataclasses.field(default_factory=dict)  # to share, from the best epoch

    def add(self, epoch: EpochResult) -> list[int]:
        """Add an epoch; return the places of the candidates that it improved."""
        assert epoch.dev_accuracy is not None
        assert epoch.dev_correct is not None
        reached, right = epoch.dev_accuracy.cpu(), epoch.dev_correct.cpu()
        self.history = torch.cat([self.history.view(-1, len(reached)), reached.unsqueeze(0)])
        better = reached > (-1 if self.best is None else self.best)
        self.correct = right if self.correct is None else right.where(better.unsqueeze(-1), self.correct)
        self.best = reached if self.best is None else reached.where(better, self.best)
        return better.nonzero().flatten().tolist()

    def finite(self) -> list[int]:
        """Places of the candidates whose dev accuracies are all finite."""
        return self.history.isfinite().all(0).nonzero().flatten().tolist()

    def evaluations(self, seconds: float) -> list[Evaluation]:
        """One evaluation per candidate; each took an equal share of the seconds."""
        assert self.correct is not None
        members = self.history.T.tolist()
        share = seconds / len(members)
        return [_evaluation(reached, right, share) for reached, right in zip(members, self.correct, strict=True)]


def _evaluation(accuracies: Sequence[float], correct: Tensor, seconds: float) -> Evaluation:
    """Evaluation from the dev accuracies of all epochs, which are cut at the first that is not finite."""
    finite = list(itertools.takewhile(math.isfinite, accuracies))
    failed = None if len(finite) == len(accuracies) else f"its outputs on dev are not finite in epoch {len(finite)}"
    return Evaluation(finite, seconds, failed, correct)


class Members(Protocol):
    """Candidates that train together."""

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return the central weights of one candidate under their published names."""


class PopulationEvaluator(abc.ABC):
    """Train the configurations of a step together, in populations of at most `together`; subclasses define on what."""

    together = TOGETHER
    dev_batch: int | None = None  # dev samples evaluated at once; None: the split's own number

    def __init__(
        self,
        layout: FeatureLayout,
        head: HeadSettings,
        training: TrainingSettings,
        splits: Mapping[str, Split],
        device: torch.device,
        share_weights: bool = False,
        folder: Path | None = None,
    ) -> None:
        """
        Args:
            splits: train and dev, on the device.
            share_weights: see `SharedWeights`.
            folder: where to save the state after every epoch and to resume from; None: nowhere.
        """
        self.layout, self.head, self.training, self.splits, self.device = layout, head, training, splits, device
        self._open(folder, share_weights)

    def _open(self, folder: Path | None, share_weights: bool) -> None:
        """Load the saved state, if any; each process of the run saves its own."""
        if share_weights and distributed.world() > 1:
            raise UsageError("--weightsharing trains one candidate after the other, which several processes cannot do")
        self.folder = folder
        own = folder / f"process-{distributed.rank()}" if folder and distributed.rank() else folder
        if own and own != folder:
            own.mkdir(parents=True, exist_ok=True)
        self.saved = SavedTraining(own)
        self.last_unit: tuple[int, int] | None = self.saved.values.get("unit")
        self.shared = SharedWeights() if share_weights else None
        if self.shared and self.saved.values:
            self.shared.layers = self.saved.values["shared"]

    def beside(self, folder: Path) -> "PopulationEvaluator":
        """A second evaluator on the same features, with its own state and shared weights."""
        other = copy.copy(self)
        other._open(folder, self.shared is not None)
        return other

    @abc.abstractmethod
    def prepare(self, heads: Sequence[FusionHead], place: int) -> tuple[nn.Module, Members, TrainPass]:
        """Return the module that maps inputs of the splits to the heads' outputs, the part of it that holds the heads,
        and what trains it.

        Args:
            place: of the first head in its step.
        """

    @abc.abstractmethod
    def dev_logits(self) -> list[Tensor]:
        """Logits (N, C) of each unimodal network on the dev split; empty if they are not known."""

    def __call__(self, configurations: Sequence[Configuration], step: int, known: int = 0) -> Iterator[Evaluation]:
        """Evaluate the candidates of a step, except for the first `known`."""
        for place, group in self._groups(configurations):
            if known < place + len(group):
                yield from self._spread(group, step, place)[max(0, known - place) :]

    def _spread(self, configurations: Sequence[Configuration], step: int, place: int) -> list[Evaluation]:
        """Train a group of candidates on all processes of the run."""
        work = distributed.from_first(lambda: (self.folder, list(configurations), step, place))
        parts, world = distributed.gather(self._share(*work[1:])), distributed.world()
        return [dataclasses.replace(one, seconds=one.seconds / world) for part in parts for one in part]

    def _share(self, configurations: Sequence[Configuration], step: int, place: int) -> list[Evaluation]:
        """Train those candidates of a group that this process has to."""
        part = distributed.own_part(len(configurations))
        own = configurations[part]
        return self.train(own, step, place + part.start) if own else []

    def serve(self) -> None:
        """Train a share of every group that process 0 spreads, until it ends the search."""
        evaluators = {self.folder: self}
        while work := distributed.from_first(lambda: None):
            folder, *group = work
            evaluators[folder] = evaluators.get(folder) or self.beside(folder)
            distributed.gather(evaluators[folder]._share(*group))
        for evaluator in evaluators.values():
            if evaluator.saved.folder:
                shutil.rmtree(evaluator.saved.folder)

    def restore_shared(self, configurations: Sequence[Configuration], step: int, known: int) -> None:
        """Restore shared weights after the first `known` candidates of a step, which are already in the journal.

        A group of them is trained again if the process was killed between its last epoch and the next group's first.
        """
        for place, group in self._groups(configurations):
            if place + len(group) <= known and self._lacks_shared((step, place // self.together), group):
                self.train(group, step, place)

    def _groups(self, configurations: Sequence[Configuration]) -> list[tuple[int, Sequence[Configuration]]]:
        """Groups of candidates that train together, each with its first place in the step."""
        places = range(0, len(configurations), self.together)
        return [(place, configurations[place : place + self.together]) for place in places]

    def _lacks_shared(self, unit: tuple[int, int], configurations: Sequence[Configuration]) -> bool:
        """True if the shared weights are those from before this group."""
        if self.shared is None:
            return False
        step, number = unit
        last = self.last_unit
        follows = last == (step, number - 1) if number else (last or (-1, 0))[0] == step - 1
        return follows or self._is_saved(unit, configurations)

    def _is_saved(self, unit: tuple[int, int], configurations: Sequence[Configuration]) -> bool:
        values = self.saved.values
        return values.get("unit") == unit and values.get("configurations") == list(configurations)

    def train(self, configurations: Sequence[Configuration], step: int, place: int) -> list[Evaluation]:
        """Train a group of candidates to completion, resuming from the saved state if it is theirs.

        Args:
            place: of the first one in its step.
        """
        heads = [self._head(configuration, step, k) for k, configuration in enumerate(configurations, place)]
        model, members, train_pass = self.prepare(heads, place)
        unit = self.last_unit = (step, place // self.together)
        results, before = PopulationResults(), 0.0
        kind = type(members).__name__  # fused or not, by what this machine can do
        if self._is_saved(unit, configurations) and self.saved.values.get("kind") == kind:
            results, before = PopulationResults(**self.saved.values["results"]), self.saved.values["seconds"]
            self.saved.restore(model, train_pass.optimizer)
            self.saved.values = {}  # training continues in these same tensors
        self.saved.start_clock(before)
        done = len(results.history)
        for epoch in train_and_evaluate(
            model, self.splits, self.training, train_pass, (step,), self.dev_batch, done=done
        ):
            improved = results.add(epoch)
            if self.shared:
                for k in improved:
                    results.weights[k] = {name: value.cpu() for name, value in members.member_state(k).items()}
                if len(results.history) == self.training.epochs:
                    for k in results.finite():
                        self.shared.store(configurations[k], results.weights[k])
            shared = self.shared.layers if self.shared else {}
            values = {"unit": unit, "configurations": list(configurations), "kind": kind, "results": vars(results)}
            self.saved.save(model, train_pass.optimizer, {**values, "shared": shared})
            interrupts.check()
        return results.evaluations(self.saved.seconds)

    def _head(self, configuration: Configuration, step: int, place: int) -> FusionHead:
        torch.manual_seed(derive_seed(self.training.seed, "candidate", step, place))
        head = FusionHead(configuration, self.layout.widths, self.head)
        if self.shared:
            self.shared.load_into(head)
        return head


class CachedEvaluator(PopulationEvaluator):
    """Evaluate candidates on the feature bank."""

    dev_batch = ROWS_BATCH

    def __init__(
        self,
        bank: FeatureBank,
        head: HeadSettings,
        training: TrainingSettings,
        device: torch.device,
        share_weights: bool = False,
        folder: Path | None = None,
        memory: float = float("inf"),
        verbose: bool = False,
    ) -> None:
        """
        Args:
            memory: bytes that the bank may take on the device; a larger one is read from disk again in every epoch.
        """
        splits = bank.on(device, memory)
        super().__init__(bank.layout, head, training, splits, device, share_weights, folder)
        self.compiled = device.type == "cpu" and not (head.batchnorm or head.alphas) and fused.usable()
        if self.compiled and verbose:
            from utils.candidates.fused.training import is_compiled

            if not is_compiled():
                print("compiling the training of candidates for this processor, once (a few seconds)")

    def prepare(self, heads: Sequence[FusionHead], place: int) -> tuple[nn.Module, Members, TrainPass]:
        if self.compiled:
            from utils.candidates.fused.training import FusedHeads, FusedTraining

            together = FusedHeads(heads, self.layout)
            return together, together, FusedTraining(together, self.training, place)
        population = Population(heads, self.layout, place).to(self.device)
        return population, population, PopulationTraining(population, self.training)

    @torch.no_grad()
    def dev_logits(self) -> list[Tensor]:
        dev = self.splits["dev"]
        parts = [self.layout.split(rows)[1] for (rows,), _ in dev.batches(ROWS_BATCH)]
        return [torch.cat(modality) for modality in zip(*parts, strict=True)]
