"""Rewrite the reports of runs and, for several runs, a page that compares them.

    python -m utils.report runs/main_searchable_avmnist-20250101-120000
    python -m utils.report runs/seed0 runs/seed1 runs/other --out compare.html

Runs that differ only in their seed form a group, with mean and standard deviation.
"""

from pathlib import Path

from utils.cli import make_parser, run
from utils.errors import UsageError
from utils.report import write_comparison, write_report


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run_dir", type=Path, nargs="+", help="folder of a search or of a training")
    group = parser.add_argument_group("comparison of several runs")
    group.add_argument("--out", type=Path, default=Path("compare.html"), help="page to write")
    group.add_argument(
        "--ignore", nargs="+", default=[], metavar="SETTING", help="settings in which a group may differ, such as conf"
    )
    args = parser.parse_args()
    folders = [folder.resolve() for folder in args.run_dir]
    for given, folder in zip(args.run_dir, folders, strict=True):
        if folders.count(folder) > 1:
            raise UsageError(f"each run is compared once, but {given} is given more than once")
    for folder in args.run_dir:
        print(write_report(folder))
    if len(folders) > 1:
        print(write_comparison(args.run_dir, args.out, set(args.ignore)))


if __name__ == "__main__":
    run(main)
