"""Evaluate candidates and record every result in the journal."""

import dataclasses
import io
import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from utils import interrupts
from utils.errors import UsageError
from utils.files import whole_file
from utils.progress import Progress
from utils.search.journal import Journal
from utils.search.loop import Evaluation
from utils.search.space import Configuration, as_configuration


class CandidateEvaluator(Protocol):
    """Train candidates; see `utils.candidates.evaluators`."""

    @property
    def together(self) -> int:
        """Number of candidates that train together."""

    def __call__(self, configurations: Sequence[Configuration], step: int, known: int) -> Iterable[Evaluation]: ...

    def restore_shared(self, configurations: Sequence[Configuration], step: int, known: int) -> None: ...


class BudgetSpent(Exception):
    """The budget ran out before all candidates of a step were trained."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits of a search over all processes that work on it, features not counted; None: no limit."""

    candidates: int | None = None
    seconds: float | None = None

    def remaining(self, candidates: int, seconds: float) -> int | None:
        """Number of candidates that may still be trained; None: any number."""
        if self.seconds is not None and seconds >= self.seconds:
            return 0
        return None if self.candidates is None else max(0, self.candidates - candidates)


class JournaledEvaluator:
    """Evaluate the candidates of a step: replay those in the journal, train and record all others.

    `best_dev.npy` beside the journal records which dev samples the best candidate so far classified correctly.
    """

    def __init__(
        self, evaluate: CandidateEvaluator, journal: Journal, progress: Progress, budget: Budget = Budget()
    ) -> None:
        self.evaluate, self.journal, self.progress, self.budget = evaluate, journal, progress, budget
        self.best, self.count = -1.0, 0  # accuracy on dev, and candidates evaluated, replayed ones included
        spent = journal.seconds("candidate") + journal.seconds("step", "surrogate_seconds")
        self.started = time.perf_counter() - spent

    def __call__(
        self, configurations: Sequence[Configuration], step: int, predicted: Sequence[float] | None
    ) -> list[Evaluation]:
        """
        Raises:
            UsageError: the journal lists other candidates for this step.
            BudgetSpent: the budget ran out before all candidates were trained.
        """
        evaluations = self._replay(configurations, step)
        known = shown = len(evaluations)
        self.evaluate.restore_shared(configurations, step, known)
        self._show(step, evaluations)
        # All of the step are requested whatever the budget: with weight sharing, the groups that train together must be
        # the same in a later process with a larger one.
        fresh = self.evaluate(configurations, step, known) if known < len(configurations) else ()
        for evaluation in itertools.islice(fresh, self._remaining(known)):
            place = len(evaluations)
            self._record(configurations[place], step, predicted[place] if predicted else None, evaluation)
            evaluations.append(evaluation)
            interrupts.check()
            if len(evaluations) % self.evaluate.together == 0:  # within a group, all but the first seem to take no time
                self._show(step, evaluations[shown:])
                shown = len(evaluations)
                if self._remaining(shown) == 0:
                    break
        self._show(step, evaluations[shown:])
        self.count += len(evaluations)
        if len(evaluations) < len(configurations):
            raise BudgetSpent
        return evaluations

    def _remaining(self, evaluated: int) -> int | None:
        """Number of candidates that the budget still allows, after those evaluated in this step; None: any number."""
        return self.budget.remaining(self.count + evaluated, time.perf_counter() - self.started)

    def _replay(self, configurations: Sequence[Configuration], step: int) -> list[Evaluation]:
        """Return the evaluations of the step that the journal already holds."""
        lines = [line for line in self.journal.of_kind("candidate") if line["step"] == step]
        before = [as_configuration(line["configuration"]) for line in lines]
        if before != list(configurations[: len(before)]):
            raise UsageError(
                f"{self.journal.path} lists different candidates for step {step} than this search: another version of "
                "the program or another machine wrote it; start another run"
            )
        return [Evaluation(line["accuracies"], line["seconds"], line.get("failed")) for line in lines]

    def _record(self, configuration: Configuration, step: int, predicted: float | None, evaluation: Evaluation) -> None:
        if evaluation.accuracy > self.best:  # NaN, and so never true, if the candidate failed
            assert evaluation.correct is not None
            content = io.BytesIO()
            np.save(content, evaluation.correct.numpy())
            with whole_file(self.journal.path.with_name("best_dev.npy")) as file:
                file.write(content.getbuffer())
            self.best = evaluation.accuracy
        line = {
            "step": step,
            "configuration": configuration,
            "accuracies": evaluation.accuracies,
            "predicted": predicted,
            "seconds": evaluation.seconds,
        }
        self.journal.append("candidate", line | ({"failed": evaluation.failed} if evaluation.failed else {}))

    def _show(self, step: int, evaluations: Sequence[Evaluation]) -> None:
        self.best = max([self.best, *(e.accuracy for e in evaluations if not e.failed)])
        self.progress.set_postfix_str(f"step {step}, best on dev {max(0, self.best):.4f}")
        self.progress.update(len(evaluations))
