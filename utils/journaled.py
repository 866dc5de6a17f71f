"""What tells a search the worth of its candidates, and writes each into the journal as it is trained."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from tqdm import tqdm

from utils import interrupts
from utils.cli import UsageError
from utils.configurations import Configuration, as_configuration
from utils.evaluators import Evaluation
from utils.journal import Journal


class CandidateEvaluator(Protocol):
    """What tells what candidates are worth; see `utils.evaluators`."""

    def __call__(self, configurations: Sequence[Configuration], step: int, known: int) -> Iterable[Evaluation]: ...

    def catch_up(self, configurations: Sequence[Configuration], step: int, known: int) -> None: ...


class JournaledEvaluator:
    """What a search asks: the journal tells what was trained before, all others are trained and get a line each."""

    def __init__(self, evaluate: CandidateEvaluator, journal: Journal, progress: tqdm) -> None:
        self.evaluate, self.journal, self.progress = evaluate, journal, progress
        self.best = 0.0

    def __call__(
        self, configurations: Sequence[Configuration], step: int, predicted: Sequence[float] | None
    ) -> list[Evaluation]:
        """
        Raises:
            UsageError: the journal's candidates of the step are others.
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
        fresh = self.evaluate(configurations, step, len(lines)) if len(lines) < len(configurations) else ()
        for evaluation in fresh:
            place = len(evaluations)
            values = {
                "step": step,
                "configuration": configurations[place],
                "accuracies": evaluation.accuracies,
                "predicted": predicted and predicted[place],
                "seconds": evaluation.seconds,
            }
            self.journal.append("candidate", values | ({"failed": evaluation.failed} if evaluation.failed else {}))
            evaluations.append(evaluation)
            self._show(step, [evaluation])
            interrupts.check()
        return evaluations

    def _show(self, step: int, evaluations: Sequence[Evaluation]) -> None:
        self.best = max([self.best, *(e.accuracy for e in evaluations if not e.failed)])
        self.progress.update(len(evaluations))
        self.progress.set_postfix_str(f"step {step}, best dev accuracy {self.best:.4f}")
