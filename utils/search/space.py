"""The search space: enumerate, unfold, sample, parse and format configurations.

A configuration is a tuple of rows; a row is (one feature index per modality, activation index).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from models.rows import SKIP
from utils.errors import UsageError
from utils.reading import at_least_0, conform, parse_json, read_json_bytes, shown

Row = tuple[int, ...]
Configuration = tuple[Row, ...]
MOST_FEATURES = 10_000  # of a modality


@dataclasses.dataclass(frozen=True)
class Space:
    """The rows that a fusion layer may take: number of features of each modality, and activations to search.

    With `allow_skip` a layer may skip modalities (index SKIP), but not all.
    """

    sizes: tuple[int, ...]
    activations: tuple[int, ...] = (0, 1)
    allow_skip: bool = False

    @property
    def _first(self) -> int:
        return SKIP if self.allow_skip else 0

    def rows(self) -> list[Row]:
        """Return every possible row, last index fastest."""
        return list(self._rows)

    @functools.cached_property
    def _rows(self) -> list[Row]:
        rows = itertools.product(*(range(self._first, n) for n in self.sizes), self.activations)
        return [row for row in rows if max(row[:-1]) != SKIP]

    def configurations(self, max_fusions: int) -> int:
        """Number of configurations of 1 to `max_fusions` layers."""
        return sum(len(self._rows) ** layers for layers in range(1, max_fusions + 1))

    def check(self, configuration: Configuration, legal_activations: int) -> None:
        """Raise UsageError unless every row has one existing feature per modality and an existing activation.

        More activations may exist (`legal_activations`) than are searched.
        """
        limits = [*self.sizes, legal_activations]
        skips = f", or {SKIP} for modalities to skip (not all)" if self.allow_skip else ""
        for row in configuration:
            fits = len(row) == len(limits) and all(self._first <= i < n for i, n in zip(row, limits, strict=True))
            if not fits or row[-1] < 0 or max(row[:-1]) == SKIP:
                ranges = ", ".join(f"0 to {n - 1}" for n in limits)
                raise UsageError(f"a configuration row is {len(limits)} numbers, {ranges}{skips}, but got {list(row)}")


def unfold(sampled: Sequence[Configuration], rows: Sequence[Row], level: int) -> list[Configuration]:
    """Replace the row at `level` of every sampled configuration by each possible row, or append it.

    Duplicates are dropped. If nothing is sampled yet, the result is all one-layer configurations.
    """
    starts = sampled or [()]
    unfolded = ((*start[:level], row, *start[level + 1 :]) for start in starts for row in rows)
    return list(dict.fromkeys(unfolded))


def sample(
    configurations: Sequence[Configuration],
    accuracies: Sequence[float],
    count: int,
    temperature: float,
    rng: np.random.Generator,
) -> list[int]:
    """Draw `count` configurations (or all, if fewer) without replacement with p ~ accuracy^(1/T); return their indices.

    Taking the largest of log p plus Gumbel noise has the same distribution as drawing one after the other. It neither
    overflows near T = 0 nor fails if accuracies are zero.
    """
    logits = np.log(np.maximum(np.asarray(accuracies, dtype=float), 1e-12)) / max(temperature, 1e-9)
    keys = logits + rng.gumbel(size=len(configurations))
    return [int(i) for i in np.argsort(-keys, kind="stable")[:count]]


def temperature(iteration: int, initial: float, final: float, decay: float) -> float:
    """Sampling temperature after an iteration (counted from 0): final + (initial - final) exp(-(i + 1)^2 / decay^2)."""
    ratio = (iteration + 1) / decay
    return final + (initial - final) * math.exp(-min(ratio * ratio, 700))


def random_configuration(space: Space, max_fusions: int, rng: np.random.Generator) -> Configuration:
    """Draw a configuration of 1 to `max_fusions` layers, its length and rows uniform."""
    rows = space.rows()
    length = rng.integers(1, max_fusions + 1)
    return tuple(rows[i] for i in rng.integers(len(rows), size=length))


def _is_index(value: object) -> bool:
    return type(value) is int and abs(value) < MOST_FEATURES


def as_configuration(value: object) -> Configuration:
    """Convert nested lists of integers to a configuration.

    Raises:
        ValueError: The value is not a non-empty list of equally long lists of integers below `MOST_FEATURES`.
    """
    rows = value if isinstance(value, list | tuple) else ()
    valid = all(isinstance(row, list | tuple) and all(map(_is_index, row)) for row in rows)
    if not rows or not rows[0] or not valid or len({len(row) for row in rows}) != 1:
        raise ValueError(
            f"a configuration is a list of rows of numbers such as [[3,2,0],[2,0,1]], but got {shown(value)}"
        )
    return tuple(tuple(row) for row in rows)


FORM = {  # of what is copied from a best.json to the results of the found network
    **{"configurations": [{"configuration": as_configuration}], "modalities?": [str], "sizes?": [int]},
    **{"seconds?": at_least_0, "candidates_trained?": at_least_0, "inputs?": dict},
}


def is_path(conf: str) -> bool:
    """Return True if `--conf` names a file, rather than giving the configuration itself."""
    return not _is_number(conf) and not _is_list(conf)


def _named(path: Path) -> str:
    """Show a path, which may be any text, in one line of an error."""
    return str(path) if len(str(path)) <= 300 and str(path).isprintable() else shown(str(path))


def parse_configuration(text: str, published: Sequence[Configuration]) -> Configuration:
    """Parse `--conf`: the number of a published configuration, a list literal, or the path of a search's best.json.

    Raises:
        UsageError: The text is none of these, or the file holds no configuration.
    """
    if not text:
        raise UsageError("--conf is empty; give rows such as [[3,2,0],[2,0,1]], or a search's best.json")
    if _is_number(text):
        if not published:
            raise UsageError(f"--conf takes rows such as [[3,2,0],[2,0,1]] or a search's best.json, but got {text}")
        if not 0 <= int(text) < len(published):
            raise UsageError(f"--conf takes the published configurations 0 to {len(published) - 1}, but got {text}")
        return published[int(text)]
    if not _is_list(text):
        return read_search(text)["configurations"][0]["configuration"]
    try:
        rows = parse_json(text)
    except ValueError as error:
        raise UsageError(f"--conf takes rows such as [[3,2,0],[2,0,1]], but got {text[:80]!r}: {error}") from None
    try:
        return as_configuration(rows)
    except ValueError as error:
        raise UsageError(f"--conf: {error}") from None


def read_search(text: str) -> dict:
    """Read the best.json that `--conf` names, itself or by its run folder; configurations become tuples, best first.

    The result is empty if `--conf` gives the configuration itself.

    Raises:
        UsageError: The file is missing or not a best.json.
    """
    if not is_path(text):
        return {}
    path = Path(text)
    try:
        path = path / "best.json" if path.is_dir() else path
        content = parse_json(read_json_bytes(path))
        conform(content, FORM)
        for entry in content["configurations"]:
            entry["configuration"] = as_configuration(entry["configuration"])
        if not content["configurations"]:
            raise ValueError("it lists no configuration")
    except FileNotFoundError:
        raise UsageError(
            f"--conf takes a list such as [[3,2,0]] or a search's best.json, but there is no file {_named(path)}"
        ) from None
    except OSError as error:
        raise UsageError(f"{_named(path)}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{_named(path)} is not a search's best.json: {error}") from None
    return content


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 10


def _is_list(text: str) -> bool:
    return text.lstrip().startswith("[")


def format_configuration(configuration: Iterable[Iterable[int]]) -> str:
    """Format a configuration as a list literal without spaces, which `--conf` accepts."""
    return "[" + ",".join("[" + ",".join(map(str, row)) + "]" for row in configuration) + "]"
