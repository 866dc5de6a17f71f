"""Rewrite the reports of runs and, for several runs, a page that compares them.

    python -m utils.report runs/main_searchable_avmnist-20250101-120000
    python -m utils.report runs/seed0 runs/seed1 runs/other --out compare.html
    python -m utils.report --label small runs/small-* --label large runs/large-*

Runs that differ only in their seed form a group, with mean and standard deviation. For found networks, the page also
compares them with their baselines over the seeds.
"""

from pathlib import Path

from utils.cli import make_parser, run
from utils.errors import UsageError
from utils.report import write_comparison, write_report


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run_dir", type=Path, nargs="*", help="folder of a search or of a training")
    group = parser.add_argument_group("comparison of several runs")
    group.add_argument("--out", type=Path, default=Path("compare.html"), help="page to write")
    group.add_argument(
        "--label",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "RUN_DIR"),
        help="compare these runs, too, as a group of this name; may be repeated",
    )
    group.add_argument(
        "--ignore", nargs="+", default=[], metavar="SETTING", help="settings in which a group may differ, such as drpt"
    )
    args = parser.parse_args()
    labels: dict[Path, str] = {}
    given = list(args.run_dir)
    for name, *runs in args.label:
        if not runs:
            raise UsageError(f"--label takes a name and the folders of its runs, but {name} is followed by none")
        given += map(Path, runs)
        labels |= dict.fromkeys(map(Path, runs), name)
    if not given:
        raise UsageError("name the folder of at least one run; --help shows examples")
    folders = [folder.resolve() for folder in given]
    for one, folder in zip(given, folders, strict=True):
        if folders.count(folder) > 1:
            raise UsageError(f"each run is compared once, but {one} is given more than once")
    for folder in given:
        print(write_report(folder))
    if len(given) > 1:
        print(write_comparison(given, args.out, set(args.ignore), labels))


if __name__ == "__main__":
    run(main)
