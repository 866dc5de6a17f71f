"""Flags that the search scripts share: how the search goes, and what its candidates are trained on."""

import argparse
import dataclasses

from utils import cli
from utils.search.loop import SearchSettings


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of the search itself (published names and defaults)."""
    group = parser.add_argument_group("search")
    group.add_argument("--max_fusions", type=cli.positive_int, default=4, help="most fusion layers of a configuration")
    group.add_argument("--search_iterations", type=cli.positive_int, default=3, help="passes over the levels")
    group.add_argument("--num_samples", type=cli.positive_int, default=15, help="candidates trained in a step")
    group.add_argument("--initial_temperature", type=cli.positive_float, default=10, help="of the first sampling")
    group.add_argument("--final_temperature", type=cli.positive_float, default=0.2, help="approached as it cools")
    group.add_argument("--temperature_decay", type=cli.positive_float, default=4, help="larger cools more slowly")
    group.add_argument("--lr_surrogate", type=cli.positive_float, default=1e-3, help="learning rate of the surrogate")
    group.add_argument("--epochs_surrogate", type=cli.positive_int, default=50, help="epochs of the surrogate a step")
    group.add_argument(
        "--randsearch",
        type=cli.boolean,
        nargs="?",
        const=True,
        default=False,
        help="random search with as many trainings",
    )
    group.add_argument(
        "--with_random", action="store_true", help="besides, random search with as many trainings, on the same features"
    )
    group.add_argument(
        "--max_candidates", type=cli.positive_int, default=None, help="end after so many (default: when it is done)"
    )
    group.add_argument(
        "--time_budget",
        type=cli.duration,
        default=None,
        metavar="30m",
        help="begin no training after that time, features not counted (s, m, h, d)",
    )


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of searches that run unimodal networks."""
    group = parser.add_argument_group("features")
    group.add_argument(
        "--features",
        choices=("cached", "live"),
        default="cached",
        help="cached: networks fixed, their features computed once; live: they run in train mode, as published, in "
        "every epoch of every step",
    )
    group.add_argument(
        "--bank_memory",
        type=cli.positive_float,
        default=4,
        help="GB that cached features may take; those of a larger set are read from disk as they are needed",
    )


def search_settings(args: argparse.Namespace) -> SearchSettings:
    return SearchSettings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(SearchSettings)})
