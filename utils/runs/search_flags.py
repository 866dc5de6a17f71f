"""Flags of searches, with the published names and defaults."""

import argparse

from utils import cli
from utils.runs import flags

TEMPERATURE = cli.number(0, 1_000_000, above=True)


def add_search_flags(parser: argparse.ArgumentParser, search: str) -> None:
    """Flags of the search itself; `search` is the default method."""
    group = parser.add_argument_group("search")
    group.add_argument(
        "--max_fusions", type=cli.integer(1, 64), default=4, help="most fusion layers in a configuration"
    )
    group.add_argument("--search_iterations", type=cli.integer(1, 10_000), default=3, help="passes over the levels")
    group.add_argument("--num_samples", type=cli.integer(1, 10_000), default=15, help="candidates trained per step")
    group.add_argument("--initial_temperature", type=TEMPERATURE, default=10, help="temperature of the first sampling")
    group.add_argument("--final_temperature", type=TEMPERATURE, default=0.2, help="temperature that cooling approaches")
    group.add_argument("--temperature_decay", type=TEMPERATURE, default=4, help="larger values cool more slowly")
    group.add_argument("--lr_surrogate", type=flags.RATE, default=1e-3, help="learning rate of the surrogate")
    group.add_argument("--epochs_surrogate", type=cli.integer(1, 100_000), default=50, help="surrogate epochs per step")
    group.add_argument(
        "--search",
        choices=("published", "improved", "random"),
        default=search,
        help="published: sequential, guided by the surrogate; improved: guided by a Gaussian process; "
        "random: drawn at random; all train the same number of candidates",
    )
    group.add_argument(
        "--randsearch", type=cli.boolean, nargs="?", const=True, default=False, help="the same as --search random"
    )
    group.add_argument(
        "--with_random", action="store_true", help="for comparison, also run a random search with as many trainings"
    )
    group.add_argument(
        "--max_candidates",
        type=cli.COUNT,
        default=None,
        help="stop after this many candidates (default: no limit)",
    )
    group.add_argument(
        "--time_budget",
        type=cli.duration,
        default=None,
        metavar="30m",
        help="start no training after this time, not counting feature extraction (s, m, h, d)",
    )


def add_feature_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of searches that run unimodal networks."""
    group = parser.add_argument_group("features")
    group.add_argument(
        "--features",
        choices=("cached", "live"),
        default="cached",
        help="cached: the networks are frozen, and their features are computed once; live: the networks run in train "
        "mode in every epoch of every step, as published",
    )
    group.add_argument(
        "--bank_memory",
        type=cli.number(0, 100_000, above=True),
        default=4,
        help="GB of memory for cached features; larger feature banks are read from disk as needed",
    )
