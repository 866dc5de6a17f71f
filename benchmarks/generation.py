"""Seconds that avmnist_gen.py takes: whole runs, as a user starts them, into a folder that is removed.

    python benchmarks/generation.py --mnist_dir M --fsdd_dir F --esc50_dir E
    python benchmarks/generation.py --source embedded

Unknown flags are passed on to avmnist_gen.py.
"""

import functools
import tempfile
from pathlib import Path

from measure import run_script, seconds_of, spread

from utils import cli
from utils.files import write_json


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--repeats", type=cli.COUNT, default=3, help="runs")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args, flags = parser.parse_known_args()
    seconds = []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            given = ["--datadir", f"{folder}/data", "--no-verbose", *flags]
            seconds += seconds_of(functools.partial(run_script, "avmnist_gen.py", given), 1)
    figures = spread(seconds)
    print("seconds: median {median:.1f}, lowest {lowest:.1f}, highest {highest:.1f}".format(**figures))
    if args.out:
        write_json(args.out, {"seconds": figures})


if __name__ == "__main__":
    cli.run(main)
