"""Dev accuracies of every configuration of a space, so that searches run without training (docs/benchmark.md).

benchmarks/make_table.py makes such tables. Searches run on them as on a feature bank:

    table = read_table("docs/results/avmnist-paper.npz")
    accuracy, seconds = table(((3, 2, 0), (4, 2, 0)), epoch=3, seed=0)
    steps = list(random_search(table.space, table.evaluator(seed=0), SearchSettings(max_fusions=table.depth)))
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.arrays import read_arrays
from utils.errors import UsageError
from utils.reading import conform, parse_json
from utils.search.loop import Evaluation, Evaluator
from utils.search.space import Configuration, Row, Space, format_configuration

FORMAT = 1
FORM = {"format": int, "sizes": [int], "activations": [int], "dev_samples": int}
BLOCK = 256  # configurations that train together


def place_of(index: int, layers: int) -> tuple[int, int]:
    """Return the (step, place in it) that seeds a tabulated training.

    Configurations of one layer train as in a search's first step, others in blocks that no search reaches.

    Args:
        index: rank of the configuration, or its index in the random sample of the deepest ones.
    """
    return (0, index) if layers == 1 else (1000 * layers + index // BLOCK, index % BLOCK)


def unranked(rank: int, rows: Sequence[Row], layers: int) -> Configuration:
    """Return the configuration with this rank among all with `layers` layers; the last layer's row varies fastest."""
    digits = []
    for _ in range(layers):
        rank, digit = divmod(rank, len(rows))
        digits.append(rows[digit])
    return tuple(reversed(digits))


@dataclasses.dataclass(frozen=True)
class AccuracyTable:
    """Results of trainings on one feature bank.

    Attributes:
        correct: number of correctly classified dev samples after each epoch (the most in each third of longer
            trainings), by number of layers: (seeds, configurations, 3), configurations in the order of their ranks.
        seconds: of each training, by number of layers: (seeds, configurations).
        sampled: ranks of a random sample of deeper configurations, with results in `correct[depth + 1]`; may be empty.
        facts: the metadata: settings, widths of the features, fingerprints of data and checkpoints.
    """

    space: Space
    dev_samples: int
    correct: Mapping[int, np.ndarray]
    seconds: Mapping[int, np.ndarray]
    sampled: np.ndarray
    facts: Mapping[str, Any]

    @property
    def depth(self) -> int:
        """Largest depth at which the table holds every configuration."""
        return max(self.correct) - bool(len(self.sampled))

    @property
    def epochs(self) -> int:
        return self.correct[1].shape[2]

    def seeds(self, layers: int) -> int:
        """Number of seeds with which configurations of so many layers were trained."""
        return len(self.correct[layers])

    def accuracies(self, layers: int) -> np.ndarray:
        """Dev accuracy of the best epoch, float32 (seeds, configurations), rounded as in a training."""
        return self.correct[layers].max(2) / np.float32(self.dev_samples)

    def configuration(self, layers: int, place: int) -> Configuration:
        """The configuration at a place in the arrays of so many layers."""
        rank = place if layers <= self.depth else int(self.sampled[place])
        return unranked(rank, self.space.rows(), layers)

    def rank(self, configuration: Configuration) -> int:
        """Place of a configuration among all with as many layers."""
        rank = 0
        for row in configuration:
            rank = rank * len(self._places) + self._places[row]
        return rank

    def place(self, configuration: Configuration) -> int:
        """Place of a configuration in the arrays of its number of layers.

        Raises:
            UsageError: the table lacks it.
        """
        layers = len(configuration)
        if layers in self.correct and set(configuration) <= self._places.keys():
            rank = self.rank(configuration)
            if layers <= self.depth:
                return rank
            place = int(np.searchsorted(self.sampled, rank))
            if place < len(self.sampled) and self.sampled[place] == rank:
                return place
        sample = f", and {len(self.sampled):,} of {self.depth + 1} layers" if len(self.sampled) else ""
        raise UsageError(
            f"the table holds all configurations of 1 to {self.depth} layers of the rows of {self.space}{sample}, but "
            f"not {format_configuration(configuration)}"
        )

    def __call__(self, configuration: Sequence[Sequence[int]], epoch: int, seed: int) -> tuple[float, float]:
        """Dev accuracy after so many epochs of a training, and the seconds that these took.

        Raises:
            UsageError: the table lacks the configuration, epoch or seed.
        """
        rows = tuple(map(tuple, configuration))
        layers, place = len(rows), self.place(rows)
        if not (1 <= epoch <= self.epochs and 0 <= seed < self.seeds(layers)):
            raise UsageError(
                f"the table holds epochs 1 to {self.epochs} and seeds 0 to {self.seeds(layers) - 1} for {layers} "
                f"layers, but not epoch {epoch} of seed {seed}"
            )
        right = np.float32(self.correct[layers][seed, place, epoch - 1])
        accuracy = right / np.float32(self.dev_samples)  # rounded as in a training
        return float(accuracy), float(self.seconds[layers][seed, place]) * epoch / self.epochs

    def evaluator(self, seed: int) -> Evaluator:
        """Evaluate candidates by looking them up, for `utils.search.loop`.

        Args:
            seed: of the trainings, taken modulo the number of seeds in the table.
        """

        def evaluate(
            configurations: Sequence[Configuration], step: int, predicted: Sequence[float] | None
        ) -> list[Evaluation]:
            return [self.evaluation(configuration, seed) for configuration in configurations]

        return evaluate

    def evaluation(self, configuration: Configuration, seed: int) -> Evaluation:
        """Look up a whole training."""
        own = seed % self.seeds(len(configuration))
        results = [self(configuration, epoch, own) for epoch in range(1, self.epochs + 1)]
        return Evaluation([accuracy for accuracy, _ in results], results[-1][1])

    @functools.cached_property
    def _places(self) -> dict[Row, int]:
        return {row: place for place, row in enumerate(self.space.rows())}


def read_table(path: str | Path) -> AccuracyTable:
    """Read a table that benchmarks/make_table.py wrote.

    Raises:
        UsageError: the file is not such a table.
    """
    arrays, _ = read_arrays(Path(path))
    try:
        facts = parse_json(str(arrays["facts"]))
        conform(facts, FORM)
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']}, not {FORMAT}")
        layers = [int(name.removeprefix("correct_")) for name in arrays if name.startswith("correct_")]
        correct, seconds = ({n: arrays[f"{kind}_{n}"] for n in layers} for kind in ("correct", "seconds"))
        space = Space(tuple(facts["sizes"]), tuple(facts["activations"]))
        count, deepest = len(space.rows()), max(layers)
        for n in layers:
            expected = len(arrays["sampled"]) if n == deepest and len(arrays["sampled"]) else count**n
            if correct[n].ndim != 3 or correct[n].shape[1] != expected or seconds[n].shape != correct[n].shape[:2]:
                raise ValueError(f"it needs {expected} configurations of {n} layers, but holds {correct[n].shape}")
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path} is not a table of configurations: {error}") from None
    return AccuracyTable(space, facts["dev_samples"], correct, seconds, arrays["sampled"], facts)


def as_arrays(table: AccuracyTable) -> dict[str, np.ndarray]:
    """Return the arrays of the table's file, for `numpy.savez_compressed`."""
    space = {"sizes": table.space.sizes, "activations": table.space.activations}
    facts = {**table.facts, **space, "format": FORMAT, "dev_samples": table.dev_samples}
    arrays = {"facts": np.array(json.dumps(facts)), "sampled": table.sampled}
    for layers, correct in table.correct.items():
        arrays |= {f"correct_{layers}": correct, f"seconds_{layers}": table.seconds[layers]}
    return arrays
