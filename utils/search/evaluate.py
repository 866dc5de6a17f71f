"""What tells a search the worth of its candidates, and writes each into the journal as it is trained."""

import dataclasses
import io
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from utils import interrupts
from utils.errors import UsageError
from utils.files import whole_file
from utils.progress import Progress
from utils.search.journal import Journal
from utils.search.loop import Evaluation
from utils.search.space import Configuration, as_configuration
from utils.training.batches import Split


class CandidateEvaluator(Protocol):
    """What trains candidates; see `utils.candidates.evaluators`."""

    at_once: bool  # whether candidates come many at a time
    splits: Mapping[str, Split]

    def dev_logits(self) -> list[Tensor]: ...

    def __call__(self, configurations: Sequence[Configuration], step: int, known: int) -> Iterable[Evaluation]: ...

    def catch_up(self, configurations: Sequence[Configuration], step: int, known: int) -> None: ...


class BudgetSpent(Exception):
    """The search ends with what it has."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a search may spend once it has its features, over all processes that work on it; None: any amount."""

    candidates: int | None = None
    seconds: float | None = None


class JournaledEvaluator:
    """What a search asks: the journal tells what was trained before, all others are trained and get a line each.

    `best_dev.npy` beside the journal tells which dev samples the best candidate so far had right.
    """

    def __init__(
        self, evaluate: CandidateEvaluator, journal: Journal, progress: Progress, budget: Budget = Budget()
    ) -> None:
        self.evaluate, self.journal, self.progress, self.budget = evaluate, journal, progress, budget
        self.best = -1.0
        spent = journal.seconds("candidate") + journal.seconds("step", "surrogate_seconds")
        self.started = time.perf_counter() - spent
        self.count = 0  # candidates that the search asked for

    def __call__(
        self, configurations: Sequence[Configuration], step: int, predicted: Sequence[float] | None
    ) -> list[Evaluation]:
        """
        Raises:
            UsageError: the journal's candidates of the step are others.
            BudgetSpent: before all were trained.
        """
        lines = [line for line in self.journal.of_kind("candidate") if line["step"] == step]
        before = [as_configuration(line["configuration"]) for line in lines]
        if before != list(configurations[: len(before)]):
            raise UsageError(
                f"the journal's candidates of step {step} are not those of this search, which another version of the "
                "program or another machine may have begun; start another run"
            )
        evaluations = [Evaluation(line["accuracies"], line["seconds"], line.get("failed")) for line in lines]
        self.evaluate.catch_up(configurations, step, len(lines))
        self._show(step, evaluations)
        # All of the step are asked for whatever the budget: what trains together draws its dropout together, and
        # a search that goes on with more must find what it would have found.
        fresh = self.evaluate(configurations, step, len(lines)) if len(lines) < len(configurations) else ()
        for evaluation in itertools.islice(fresh, self._allowed(len(lines))):
            place = len(evaluations)
            values = {
                "step": step,
                "configuration": configurations[place],
                "accuracies": evaluation.accuracies,
                "predicted": predicted and predicted[place],
                "seconds": evaluation.seconds,
            }
            if evaluation.accuracy > self.best:  # never of one that failed: it has none
                write_correct(self.journal.path, evaluation.correct)
                self.best = evaluation.accuracy
            self.journal.append("candidate", values | ({"failed": evaluation.failed} if evaluation.failed else {}))
            evaluations.append(evaluation)
            if not self.evaluate.at_once:
                self._show(step, [evaluation])
            interrupts.check()
            if self._time_is_up() and not self.evaluate.at_once:
                break
        if self.evaluate.at_once:  # one by one they would look as if each but the first took no time
            self._show(step, evaluations[len(lines) :])
        self.count += len(evaluations)
        if len(evaluations) < len(configurations):
            raise BudgetSpent
        return evaluations

    def _time_is_up(self) -> bool:
        return self.budget.seconds is not None and time.perf_counter() - self.started >= self.budget.seconds

    def _allowed(self, known: int) -> int | None:
        """How many candidates the budget leaves to a step beyond those of the journal; None: all."""
        if self._time_is_up():
            return 0
        return None if self.budget.candidates is None else max(0, self.budget.candidates - self.count - known)

    def _show(self, step: int, evaluations: Sequence[Evaluation]) -> None:
        self.best = max([self.best, *(e.accuracy for e in evaluations if not e.failed)])
        self.progress.set_postfix_str(f"step {step}, best on dev {max(0, self.best):.4f}")
        self.progress.update(len(evaluations))


def write_correct(journal: Path, correct: Tensor) -> None:
    """Keep which dev samples the best candidate so far has right, beside its journal."""
    content = io.BytesIO()
    np.save(content, correct.numpy())
    with whole_file(journal.with_name("best_dev.npy")) as file:
        file.write(content.getbuffer())
