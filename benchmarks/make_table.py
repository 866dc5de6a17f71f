"""Train every configuration of a space and write the table of their dev accuracies (docs/benchmark.md).

    python benchmarks/make_table.py --datadir data/avmnist --checkpointdir checkpoints/avmnist --out runs/paper.npz
    python benchmarks/make_table.py --features --datadir D --seeds 3 3 --sample 0 --out runs/views.npz
    python benchmarks/make_table.py ... --check 30     # train 30 random configurations again, alone, and compare

Networks, features and training are those of main_searchable_avmnist.py (or, with --features, of
main_searchable_features.py) with default flags. Every block of trainings is stored in OUT.parts, so the command can be
interrupted and repeated, and a finished table can be extended to more seeds. The table holds the depths finished so
far, shallowest first.
"""

import argparse
import dataclasses
import io
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import measure  # noqa: F401 - finds the project
import numpy as np
from task import Task, add_task_flags, open_task

from utils import cli
from utils.arrays import read_arrays
from utils.errors import UsageError
from utils.files import whole_file, write_json
from utils.progress import Progress
from utils.reading import read_json
from utils.search.loop import Evaluation, Evaluator, SearchSettings, sequential_search
from utils.search.space import Configuration
from utils.search.surrogate import AccuracyPredictor
from utils.search.table import BLOCK, AccuracyTable, as_arrays, place_of, read_table, unranked
from utils.seeds import derive_seed

DIFFERENCE = 0.005  # share of the dev samples by which most trainings may differ on another processor
THIRDS = 3  # of a training, whose epochs are the three of a search on AV-MNIST


@dataclasses.dataclass(frozen=True)
class Block:
    """Configurations of so many layers that train together with one seed.

    Attributes:
        first: index of the first one among all that are trained of so many layers.
        ranks: of the configurations among all of so many layers.
    """

    layers: int
    seed: int
    first: int
    ranks: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.layers}-{self.seed}-{self.first}-{zlib.crc32(self.ranks.tobytes()):08x}.npz"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The trainings of a table.

    Attributes:
        seeds: number of seeds for configurations of 1, 2, ... layers.
        sample: number of random configurations with one layer more, trained with seed 0.
    """

    rows: int
    seeds: Sequence[int]
    sample: int

    def sampled(self) -> np.ndarray:
        """Ranks of the deeper configurations, in increasing order."""
        rng = np.random.default_rng(derive_seed(0, "tabulated"))
        return np.sort(rng.choice(self.rows ** (len(self.seeds) + 1), self.sample, replace=False))

    def blocks(self) -> Iterator[Block]:
        """All blocks, the most useful first: one seed of every depth, then the other seeds, then the sample."""
        for seed in range(max(self.seeds)):
            for layers, seeds in enumerate(self.seeds, start=1):
                if seed < seeds:
                    yield from _cut(layers, seed, np.arange(self.rows**layers))
        yield from _cut(len(self.seeds) + 1, 0, self.sampled())


def _cut(layers: int, seed: int, ranks: np.ndarray) -> Iterator[Block]:
    for first in range(0, len(ranks), BLOCK):
        yield Block(layers, seed, first, ranks[first : first + BLOCK])


def train(task: Task, block: Block) -> list[Evaluation]:
    rows, (step, place) = task.space.rows(), place_of(block.first, block.layers)
    configurations = [unranked(int(rank), rows, block.layers) for rank in block.ranks]
    return task.evaluator(block.seed).train(configurations, step, place)


def counts(task: Task, evaluations: Sequence[Evaluation]) -> np.ndarray:
    """Number of correctly classified dev samples (N, 3): the most in each third of the epochs; 0 if it failed."""
    correct = np.zeros((len(evaluations), THIRDS), np.uint16)
    ends = np.array_split(np.arange(task.training.epochs), THIRDS)
    for own, evaluation in zip(correct, evaluations, strict=True):
        if not evaluation.failed:
            reached = np.array(evaluation.accuracies)
            own[:] = [round(max(reached[epochs]) * task.dev_samples) for epochs in ends]
    return correct


def store(task: Task, block: Block, parts: Path) -> None:
    """Train a block unless it is stored."""
    if (parts / block.name).exists():
        return
    evaluations = train(task, block)
    content = io.BytesIO()
    seconds = np.array([evaluation.seconds for evaluation in evaluations], np.float32)
    np.savez(content, correct=counts(task, evaluations), seconds=seconds)
    with whole_file(parts / block.name) as file:
        file.write(content.getbuffer())


def assemble(task: Task, plan: Plan, parts: Path, before: AccuracyTable | None) -> AccuracyTable | None:
    """Return the table of the depths finished so far, shallowest first, without gaps; None if none is finished."""
    correct, seconds = dict[int, list[np.ndarray]](), dict[int, list[np.ndarray]]()
    for (layers, seed), blocks in itertools.groupby(plan.blocks(), lambda block: (block.layers, block.seed)):
        if layers - 1 not in {0, *correct} or len(correct.get(layers, ())) < seed:
            continue
        if before and is_in(before, layers, seed):
            whole = [{"correct": before.correct[layers][seed], "seconds": before.seconds[layers][seed]}]
        else:
            stored = [parts / block.name for block in blocks]
            whole = [read_arrays(path)[0] for path in stored] if all(path.exists() for path in stored) else []
        if whole:
            correct.setdefault(layers, []).append(np.concatenate([part["correct"] for part in whole]))
            seconds.setdefault(layers, []).append(np.concatenate([part["seconds"] for part in whole]))
    if not correct:
        return None
    sampled = plan.sampled() if len(plan.seeds) + 1 in correct else np.zeros(0, int)
    stacked = [{layers: np.stack(values) for layers, values in kind.items()} for kind in (correct, seconds)]
    return AccuracyTable(task.space, task.dev_samples, *stacked, sampled, task.facts)


def is_in(table: AccuracyTable, layers: int, seed: int) -> bool:
    return layers in table.correct and seed < table.seeds(layers)


def check_same(known: Mapping[str, object], task: Task, path: Path) -> None:
    """Raise UsageError if stored trainings have other data, checkpoints or settings."""
    facts = json.loads(json.dumps(task.facts))
    for name, value in facts.items():
        if known.get(name) != value:
            raise UsageError(f"{path} holds trainings with {name} {known.get(name)}, not {value}; name another --out")


def check_covered(before: AccuracyTable, plan: Plan, path: Path) -> None:
    """Raise UsageError if the plan leaves out trainings of the existing table, which it would lose."""
    for layers in range(1, before.depth + 1):
        asked = plan.seeds[layers - 1] if layers <= len(plan.seeds) else 0
        if asked < before.seeds(layers):
            raise UsageError(
                f"{path} holds {before.seeds(layers)} seeds of {layers} layers, but --seeds asks for {asked}; "
                "ask for as many, or name another --out"
            )
    if len(before.sampled) and not np.array_equal(before.sampled, plan.sampled()):
        raise UsageError(f"{path} holds a sample of {len(before.sampled)}, not {plan.sample}; name another --out")


def check(task: Task, table: AccuracyTable, count: int) -> None:
    """Train random configurations again, alone, and compare; if all are equal, run the published search both ways.

    Raises:
        UsageError: most accuracies differ by more than another processor explains.
    """
    rng, rows = np.random.default_rng(), task.space.rows()
    differences = []
    for _ in range(count):
        layers = int(rng.integers(1, table.depth + 1))
        seed, rank = int(rng.integers(table.seeds(layers))), int(rng.integers(len(rows) ** layers))
        stored, again = table.correct[layers][seed, rank].astype(int), alone(task, layers, seed, rank)
        differences.append(int(np.abs(stored - again).max()))
        print(f"{unranked(rank, rows, layers)}, seed {seed}: {stored} in the table, {again} alone")
    equal = differences.count(0)
    print(f"{equal} of {count} equal; largest difference: {max(differences)} of {table.dev_samples} dev samples")
    if np.median(differences) > DIFFERENCE * table.dev_samples:
        raise UsageError("the table was made from other data or checkpoints, or by another version")
    if equal == count:
        first, second = (search(table, evaluator) for evaluator in (table.evaluator(0), bank_evaluator(task, table)))
        if first != second:
            raise UsageError("the published search on the table differs from that on the feature bank")
        print("the published search on the table and on the feature bank gives the same journal")


def alone(task: Task, layers: int, seed: int, rank: int) -> np.ndarray:
    """Train one configuration alone, as `counts`."""
    (evaluation,) = train(task, Block(layers, seed, rank, np.array([rank])))
    return counts(task, [evaluation])[0]


def bank_evaluator(task: Task, table: AccuracyTable) -> Evaluator:
    """Evaluate candidates of seed 0 as in the table, but by training them."""

    def evaluate(configurations: Sequence[Configuration], step: int, predicted: object) -> list[Evaluation]:
        evaluations = []
        for configuration in configurations:
            correct = alone(task, len(configuration), 0, table.rank(configuration))
            evaluations.append(Evaluation((correct / np.float32(task.dev_samples)).tolist(), 0.0))
        return evaluations

    return evaluate


def search(table: AccuracyTable, evaluate: Evaluator) -> list[tuple[Configuration, list[float], float | None]]:
    """Candidates of a published search with seed 0, with accuracies and predictions."""
    settings = SearchSettings(max_fusions=table.depth)
    surrogate = AccuracyPredictor(len(table.space.sizes) + 1, settings.seed)
    steps = sequential_search(table.space, evaluate, surrogate, settings)
    return [(c.configuration, c.evaluation.accuracies, c.predicted) for step in steps for c in step.candidates]


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    add_task_flags(parser)
    group = parser.add_argument_group("table")
    group.add_argument("--seeds", type=cli.COUNT, nargs="+", default=[3, 3, 2], help="number of seeds, by depth")
    group.add_argument(
        "--sample", type=cli.integer(0, 10**6), default=20_000, help="number of random configurations one layer deeper"
    )
    group.add_argument("--check", type=cli.COUNT, help="train so many random configurations again, and compare")
    group.add_argument("--out", type=Path, required=True, help="the table, an .npz file")
    cli.add_verbosity(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    task = open_task(args)
    if args.check:
        check(task, read_table(args.out), args.check)
        return
    if task.training.epochs < THIRDS:
        raise UsageError(f"--epochs must be at least {THIRDS}, but is {task.training.epochs}")
    plan = Plan(len(task.space.rows()), args.seeds, args.sample)
    if args.sample > (deeper := plan.rows ** (len(plan.seeds) + 1)):
        raise UsageError(f"--sample must be at most {deeper:,}, the configurations one layer deeper; got {args.sample}")
    parts, before = args.out.with_suffix(".parts"), read_table(args.out) if args.out.exists() else None
    parts.mkdir(parents=True, exist_ok=True)
    if before:
        check_same(before.facts, task, args.out)
        check_covered(before, plan, args.out)
    if (parts / "facts.json").exists():
        check_same(read_json(parts / "facts.json"), task, parts)
    write_json(parts / "facts.json", task.facts)
    blocks = [b for b in plan.blocks() if not (before and is_in(before, b.layers, b.seed))]
    with Progress(total=sum(len(block.ranks) for block in blocks), desc="trainings", verbose=args.verbose) as bar:
        for block in blocks:
            store(task, block, parts)
            bar.update(len(block.ranks))
            if block.first % (20 * BLOCK) == 0 or block is blocks[-1]:
                table = assemble(task, plan, parts, before)
                if table is not None:
                    with whole_file(args.out) as file:
                        np.savez_compressed(file, **as_arrays(table))


if __name__ == "__main__":
    cli.run(main)
