"""What a search keeps between its trainings: the one it is in, saved after every epoch, and weights that are shared."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from models.fusion import FusionHead
from utils import interrupts
from utils.search.space import Configuration
from utils.training.loop import EpochResult, TrainPass
from utils.training.resume import SavedState, restore, training_state


class SharedWeights:
    """`--weightsharing`: a fusion layer starts from the last trained one of the same input width and activation.

    Each candidate leaves the weights of its best dev epoch (published).

    The published code shares from one candidate to the next. So does a live search, which then trains them one by one;
    the candidates of a population on the feature bank share from step to step.
    """

    def __init__(self) -> None:
        self.layers: dict[tuple[int, int], dict[str, Tensor]] = {}  # by input width and activation

    def load_into(self, head: FusionHead) -> None:
        for row, layer in zip(head.configuration, head.fusion_layers, strict=True):
            known = self.layers.get((layer[0].in_features, row[-1]))
            if known:
                layer.load_state_dict(known)

    def store(self, configuration: Configuration, state: Mapping[str, Tensor]) -> None:
        """Keep the fusion layers of a candidate, given its central weights by name."""
        for number, row in enumerate(configuration):
            prefix = f"fusion_layers.{number}."
            layer = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            self.layers[layer["0.weight"].shape[1], row[-1]] = layer


class Resumable:
    """Trains the units of a search - a population, or one candidate - and saves where it is after every epoch.

    What is saved holds the unit in training, and the shared weights as they were before it; after its last epoch, as
    they are after it.
    """

    def __init__(self, epochs: int, shared: SharedWeights | None, saved: SavedState | None) -> None:
        self.epochs, self.shared, self.saved = epochs, shared, saved
        self.state = saved.load() if saved else {}
        self.last: tuple[int, int] | None = self.state.get("unit")  # that was in training
        if shared and self.state:
            shared.layers = self.state["shared"]

    def is_at(self, unit: tuple[int, int], configurations: Sequence[Configuration]) -> bool:
        """Whether the saved training is the one of these candidates as this unit (step, number in the step)."""
        return self.state.get("unit") == unit and self.state.get("configurations") == list(configurations)

    def lacks(self, unit: tuple[int, int], configurations: Sequence[Configuration]) -> bool:
        """Whether shared weights are those before this unit, which the journal knows: it must be trained once more.

        So it is where a process was killed between its last epoch and the next unit's first, or where a state is lost.
        """
        step, number = unit
        follows = self.last == (step, number - 1) if number else (self.last or (-1, 0))[0] == step - 1
        return self.shared is not None and (self.is_at(unit, configurations) or follows)

    def train(
        self,
        unit: tuple[int, int],
        configurations: Sequence[Configuration],
        model: nn.Module,
        train_pass: TrainPass,
        epochs: Callable[[int], Iterator[EpochResult]],
        member_state: Callable[[int], dict[str, Tensor]],
    ) -> tuple[list, Tensor, float]:
        """Train a unit to its end; returns the dev accuracies of each epoch, which dev samples were right in the best,
        (N,) or (K, N), and the seconds that it took.

        Args:
            epochs: trains the epochs from the given one on.
            member_state: gives the central weights of a candidate by name.
        """
        started, before, history, best, correct = time.perf_counter(), 0.0, [], None, None
        weights: dict[int, dict[str, Tensor]] = {}  # to share, of each candidate's best epoch so far
        self.last = unit
        if self.is_at(unit, configurations):
            state, self.state = self.state, {}  # taken once: training goes on in its very tensors
            restore(model, train_pass.optimizer, state)
            history, before = state["history"], state["seconds"]
            best, correct, weights = state["best"], state["correct"], state["weights"]
        for result in epochs(len(history)):
            history.append(result.dev_accuracy.tolist())
            reached, right = result.dev_accuracy.cpu(), result.dev_correct.cpu()
            better = reached > (-1 if best is None else best)
            correct = right if correct is None else right.where(better.unsqueeze(-1), correct)
            best = reached if best is None else reached.where(better, best)
            if self.shared:
                for k in better.nonzero().flatten().tolist():
                    weights[k] = {name: value.cpu() for name, value in member_state(k).items()}
                if len(history) == self.epochs:
                    for k, configuration in enumerate(configurations):
                        if all(math.isfinite(accuracies[k]) for accuracies in history):
                            self.shared.store(configuration, weights[k])
            if self.saved:
                state = {
                    "unit": unit,
                    "configurations": list(configurations),
                    "history": history,
                    "best": best,
                    "correct": correct,
                    "weights": weights,
                }
                state["seconds"] = before + time.perf_counter() - started
                shared = self.shared.layers if self.shared else {}
                self.saved.save(state | {"shared": shared} | training_state(model, train_pass.optimizer))
                interrupts.check()
        return history, correct, before + time.perf_counter() - started
