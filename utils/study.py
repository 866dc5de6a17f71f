"""Search and found network for several seeds, with the mean of each method and the gain over each baseline.

    python -m utils.study features --seeds 0 1 2 --out studies/own --datadir D
    python -m utils.study features --seeds 0 1 2 --out studies/own --datadir D \\
        --search_flags "--activations relu gelu" --found_flags "--epochs 20"

Flags other than those below go to both scripts: main_searchable_NAME.py and main_found_NAME.py. The study sets their
--seed, --run_dir and --conf: seed 1 is searched in OUT/seed-1/search and trained in OUT/seed-1/found. It ends with
OUT/study.html and OUT/study.csv. The same command resumes a study that was stopped; more --seeds extend one.
"""

import contextlib
import importlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils import cli, interrupts
from utils.errors import ProjectError, UsageError
from utils.files import locked, write_csv, write_json
from utils.reading import read_json
from utils.report import write_comparison
from utils.report.contents import read_files
from utils.report.methods import found_result
from utils.results.over_seeds import CONFIDENCE, Method, Spread, in_points, summarize, verdict
from utils.results.statistics import signed

ROOT = Path(__file__).parents[1]
OWN = ("--seed", "--run_dir", "--resume", "--conf", "--test_cp")  # flags that the study sets, or that would end it
FINISHED = {"finished": [str]}  # form of study.json: the commands that ended well


class ScriptError(ProjectError):
    """A script of the study failed; the study ends with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("name", choices=("avmnist", "ntu", "features"), help="which main_*_NAME.py scripts to run")
    parser.add_argument("--seeds", type=cli.SEED, nargs="+", required=True, help="seeds, such as 0 1 2")
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    for part, script in (("search", "searchable"), ("found", "found")):
        about = f"flags for main_{script}_NAME.py alone, as one quoted text"
        parser.add_argument(f"--{part}_flags", default="", metavar="FLAGS", help=about)
    args, both = parser.parse_known_args(joined(sys.argv[1:]))
    if len(set(args.seeds)) < len(args.seeds):
        raise UsageError(f"each seed is run once, but --seeds has {' '.join(map(str, args.seeds))}")
    search, found = ([*both, *words(flags)] for flags in (args.search_flags, args.found_flags))
    for flag in (*search, *found):
        if flag.split("=")[0] in OWN:
            raise UsageError(f"the study chooses {flag.split('=')[0]} itself; leave it out")
    runs = planned(args.name, args.seeds, args.out, search, found)
    for script, *flags in runs[0]:
        check_flags(script, flags)
    with locked(args.out), advice():
        carry_out(runs, args.out / "study.json")
        folders = {part: [args.out / f"seed-{seed}" / part for seed in args.seeds] for part in ("found", "search")}
        for same in folders.values():
            check_inputs(same)
        results = [result for folder in folders["found"] if (result := found_result(folder, read_files(folder)))]
        methods = summarize(results)
        write_csv(args.out / "study.csv", as_rows(methods))
        title = f"Study: {args.out.resolve().name}"
        page = write_comparison([*folders["found"], *folders["search"]], args.out / "study.html", set(), title=title)
    print(f"\n{as_text(methods)}\n{verdict(methods)}\ntable: {args.out / 'study.csv'}\npage: {page}")


@contextlib.contextmanager
def advice() -> Iterator[None]:
    """Add to the message of a signal how to resume."""
    try:
        yield
    except interrupts.Interrupted as stop:
        stop.args = (f"{stop}; the same command resumes the study",)
        raise


def joined(given: Sequence[str]) -> list[str]:
    """Join --search_flags and --found_flags with their values, which would be mistaken for flags of this command."""
    rest, out = iter(given), []
    for word in rest:
        value = next(rest, None) if word in ("--search_flags", "--found_flags") else None
        out.append(word if value is None else f"{word}={value}")
    return out


def words(flags: str) -> list[str]:
    """Split quoted flags as a shell does."""
    try:
        return shlex.split(flags)
    except ValueError as error:
        raise UsageError(f"flags must be quoted as in a shell, but got {flags}: {error}") from None


# The runs


def check_flags(script: str, flags: Sequence[str]) -> None:
    """Let a script parse its flags, so that a mistake shows before a long search; UsageError if it refuses."""
    before, sys.argv = sys.argv, [script, *flags]
    try:
        importlib.import_module(script.removesuffix(".py")).parse_args()
    except UsageError as error:
        raise UsageError(f"{script}: {error}") from None
    finally:
        sys.argv = before


def planned(name: str, seeds: Sequence[int], out: Path, search: list[str], found: list[str]) -> list[list[list[str]]]:
    """Commands of each seed, in order: script and flags."""
    runs = []
    for seed in seeds:
        folder, own = out / f"seed-{seed}", ["--seed", str(seed), "--run_dir"]
        conf = ["--conf", str(folder / "search/best.json")]
        searching = [f"main_searchable_{name}.py", *search, *own, str(folder / "search")]
        runs.append([searching, [f"main_found_{name}.py", *found, *own, str(folder / "found"), *conf]])
    return runs


def carry_out(runs: Sequence[Sequence[Sequence[str]]], record: Path) -> None:
    """Run the commands that have not succeeded yet, and record each success.

    A run whose folder was removed is run again, and so is what follows with the same seed.

    Raises:
        ScriptError: a script failed.
        Interrupted: a signal stopped the study.
    """
    finished = read_json(record, FINISHED, missing={"finished": []})["finished"]
    number, total = 0, sum(map(len, runs))
    for commands in runs:
        shown = [shlex.join(["python", os.path.relpath(ROOT / script), *flags]) for script, *flags in commands]
        for place, (script, *flags) in enumerate(commands):
            number += 1
            folder = Path(flags[flags.index("--run_dir") + 1])
            done = shown[place] in finished and (folder / "args.json").exists()
            print(f"\n[{number}/{total}] {'finished: ' if done else ''}{shown[place]}")
            if done:
                continue
            finished = [command for command in finished if command not in shown[place:]]
            write_json(record, {"finished": finished})
            run_one([sys.executable, str(ROOT / script), *flags], shown[place])
            finished.append(shown[place])
            write_json(record, {"finished": finished})


def run_one(command: Sequence[str], shown: str) -> None:
    """Run a script; its output is shown.

    Raises:
        ScriptError: it failed.
        Interrupted: a signal stopped it.
    """
    sys.stdout.flush()
    code = interrupts.run_script(command)
    if code:
        how = f"ended with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
        then = "the same study command resumes from here; for other flags, name another --out"
        raise ScriptError(f"{shown} {how}; {then}", max(code, 1))


def check_inputs(folders: Sequence[Path]) -> None:
    """Raise UsageError if runs of a script read different data or checkpoints."""
    seen: dict[str, Path] = {}
    for folder in folders:
        inputs = read_files(folder).args.get("inputs", {})
        seen.setdefault(json.dumps({name: value for name, value in inputs.items() if name != "configuration"}), folder)
    if len(seen) > 1:
        first, second, *_ = seen.values()
        raise UsageError(
            f"{first} and {second} read different data or checkpoints, which have changed since the study started; "
            "name another --out"
        )


# Its results


def as_rows(methods: Sequence[Method]) -> Iterator[Sequence[object]]:
    """The methods as a table for spreadsheets; scores and leads are shares (0.01 is one point)."""
    parts = ("dev", "test", "seconds", "lead")
    kinds = ("mean", "deviation", "low", "high")
    ends = ["lead_over_samples_low", "lead_over_samples_high"]
    yield ["method", "seeds", *(f"{part}_{kind}" for part in parts for kind in kinds), *ends]
    for method in methods:
        spreads = [method.dev, method.test, method.seconds, method.lead]
        values = [value for spread in spreads for value in (spread[1:] if spread else [""] * len(kinds))]
        count = method.test.seeds if method.test else 0
        yield [method.name, count, *values, *(method.sampled[1:] if method.sampled else ("", ""))]


def as_text(methods: Sequence[Method]) -> str:
    """The methods as aligned text."""

    def percent(value: Spread | None) -> str:
        if value is None:
            return "-"
        return f"{100 * value.mean:.1f}" + ("" if value.deviation is None else f" ± {100 * value.deviation:.1f}")

    lines = [["mean over seeds, %", "dev", "test", "found network minus it", f"{CONFIDENCE:.0%} interval"]]
    for method in methods:
        lead = signed(100 * method.lead.mean) if method.lead else ""
        lines.append([method.name, percent(method.dev), percent(method.test), lead, in_points(method.lead)])
    name, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    form = f"{{:{name}}}" + "".join(f"  {{:>{width}}}" for width in widths)
    return "\n".join(form.format(*line).rstrip() for line in lines)


if __name__ == "__main__":
    cli.run(main)
