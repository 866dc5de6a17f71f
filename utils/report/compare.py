"""Content of the page that compares runs: groups that differ only in their seed, with mean and standard deviation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev

from utils.report import plots
from utils.report.contents import FREE, UNIMODAL, RunFiles
from utils.report.page import Table, count, duration, percent
from utils.report.plots import Figure

# Settings in which the runs of a group may differ.
APART = FREE - {"device"} | {"seed", "with_random", "evaluate_missing", "export"}
CANDIDATES = "candidates trained"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Outcome:
    """Figures of one run; None if not recorded."""

    name: str
    dev: float | None
    test: float | None
    seconds: float | None
    candidates: int | None
    curve: list[float]  # best dev score so far: of each candidate, or of each epoch


@dataclass(frozen=True)
class Group:
    """Runs with equal settings except for the seed."""

    number: int
    kind: str
    score: str
    script: str
    settings: dict[str, object]
    runs: list[Outcome]

    @property
    def letter(self) -> str:
        return LETTERS[self.number % len(LETTERS)] + str(self.number // len(LETTERS) or "")

    @property
    def color(self) -> int:
        return self.number % plots.KINDS

    @property
    def title(self) -> str:
        return f"{self.letter}: {self.kind}, {len(self.runs)} run{'s' * (len(self.runs) > 1)}"


def outcome(name: str, files: RunFiles) -> Outcome:
    """Collect the figures of one run."""
    results, best = files.results, files.best
    if files.kind == "search":
        scores = [candidate["accuracy"] for candidate in files.candidates]
        reached = best["configurations"][0]["accuracy"] if best.get("configurations") else max(scores, default=None)
        seconds = best.get("seconds", sum(candidate["seconds"] for candidate in files.candidates))
        trained = best.get("candidates_trained", len(scores))
        return Outcome(name, reached, None, seconds, trained, list(accumulate(scores, max)))
    curve = list(accumulate((epoch["dev_accuracy"] for epoch in results.get("epochs") or ()), max))
    if files.kind == UNIMODAL:
        dev, test = results.get("dev_accuracy"), results.get("test_accuracy")
        return Outcome(name, dev, test, results.get("seconds"), None, curve)
    row = files.found_row
    trained = row.get("candidates_trained")
    return Outcome(name, row.get("dev"), row.get("test"), row.get("seconds"), trained, curve)


def kind_of(files: RunFiles) -> str:
    """Kind of run, with the kind of search or the name of the network."""
    if files.kind == "search":
        return f"{(files.header or files.best).get('search', 'architecture')} search"
    return files.results.get("network", files.kind)


def group_runs(runs: Mapping[Path, RunFiles], ignored: Iterable[str]) -> list[Group]:
    """Group runs with the same script and settings, in the order in which the first of each group is given."""
    apart = APART | set(ignored)
    groups: list[Group] = []
    for folder, files in runs.items():
        settings = {name: value for name, value in files.settings.items() if name not in apart}
        key = (kind_of(files), files.score, files.args.get("script", ""), settings)
        group = next((g for g in groups if (g.kind, g.score, g.script, g.settings) == key), None)
        if group is None:
            groups.append(group := Group(len(groups), *key, []))
        group.runs.append(outcome(str(folder), files))
    return groups


def common_score(groups: Sequence[Group]) -> str:
    """Name of the score if all groups have the same one."""
    return groups[0].score if len({group.score for group in groups}) == 1 else "score"


def spread(values: Iterable[float | None], scale: float, unit: str) -> str:
    """Mean and standard deviation of the values that are recorded."""
    known = [scale * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {stdev(known):.1f}" if len(known) > 1 else ""
    return f"{mean(known):.1f}{deviation} {unit}"


def runs_table(groups: Sequence[Group]) -> Table:
    score, rows = common_score(groups), []
    for group in groups:
        dev, test = spread((r.dev for r in group.runs), 100, "%"), spread((r.test for r in group.runs), 100, "%")
        counts = [run.candidates for run in group.runs if run.candidates is not None]
        trained = f"{mean(counts):.6g}" if counts else "-"
        rows.append([group.title, dev, test, trained, spread((run.seconds for run in group.runs), 1, "s")])
        for run in group.runs:
            rows.append([run.name, percent(run.dev), percent(run.test), count(run.candidates), duration(run.seconds)])
    head = ("", f"best dev {score}", f"test {score}", "candidates", "time")
    return Table(head, rows, strong=[group.title for group in groups], nested=True)


def differences(groups: Sequence[Group]) -> list[Table]:
    """The script of each group, then for each script the settings in which its groups differ."""
    scripts = list(dict.fromkeys(group.script for group in groups))
    tables = []
    if len(scripts) > 1:
        kinds = [(group.letter, group.kind, group.script or "-") for group in groups]
        tables.append(Table(("group", "kind", "script"), kinds, left=range(3)))
    for script in scripts:
        own = [group for group in groups if group.script == script]
        rows = []
        for name in sorted({name for group in own for name in group.settings}):
            values = [str(group.settings.get(name, "-")) for group in own]
            if len(set(values)) > 1:
                rows.append([name, *values])
        if rows:
            head = [f"setting of {script}", *(group.letter for group in own)]
            tables.append(Table(head, rows, left=range(len(head))))
    return tables


def spaced(places: Sequence[float], least: float) -> list[float]:
    """Move the places up the drawing until they are at least `least` apart."""
    moved, before = list(places), float("inf")
    for i in sorted(range(len(places)), key=lambda i: -places[i]):
        moved[i] = before = min(places[i], before - least)
    return moved


def curves(groups: Sequence[Group], x_label: str) -> Figure | None:
    """Best dev score so far of each run, and each group's mean over the part that all its runs have."""
    groups = [group for group in groups if any(run.curve for run in group.runs)]
    if not groups:
        return None
    drawn = [[[100 * value for value in run.curve] for run in group.runs if run.curve] for group in groups]
    longest = max(len(line) for lines in drawn for line in lines)
    heights = plots.bounds(value for lines in drawn for line in lines for value in line)
    panel = plots.Panel(44, 24, 386, 250, (0.5, longest + 0.5), heights)
    score = common_score(groups)
    parts, ends, words = [panel.axes(x_label, f"best dev {score} so far (%)")], [], []
    held = plots.stairs if x_label == CANDIDATES else iter
    for group, lines in zip(groups, drawn, strict=True):
        look = f"k{group.color}{' broken' * (group.number // plots.KINDS % 2)}"
        means = [mean(values) for values in zip(*lines, strict=False)]
        if len(lines) > 1:
            parts += [panel.line(held(enumerate(line, 1)), f"{look} thin pale") for line in lines]
        parts.append(panel.line(held(enumerate(means, 1)), f"{look} bold"))
        ends.append(panel.at(len(means), means[-1]))
        words.append(f"{group.letter} {means[-1]:.2f} %")
    for group, (x, _), y in zip(groups, ends, spaced([y for _, y in ends], 15), strict=True):
        parts.append(plots.text(x + 6, y + 4, group.letter, class_=f"letter k{group.color}"))
    keys = [(group.color, group.letter, f"{group.kind}, {len(group.runs)}") for group in groups]
    title = f"Best dev {score} so far by {x_label}; mean at the end: {', '.join(words)}"
    caption = f"Best dev {score} so far by {x_label}. Thin: one run; bold: the mean of a group."
    return Figure(plots.drawing(460, 314, title, *parts), caption, keys)


def comparison_content(runs: Mapping[Path, RunFiles], ignored: Iterable[str] = ()) -> dict[str, object]:
    """Content of the page.

    Args:
        runs: the files of each folder.
        ignored: settings in which the runs of a group may differ, besides the seed and those that change no result.
    """
    groups = group_runs(runs, ignored)
    searches = [group for group in groups if group.kind.endswith("search")]
    trainings = [group for group in groups if group not in searches]
    drawn = [curves(searches, CANDIDATES), curves(trainings, "epochs")]
    return {
        "title": f"Comparison of {len(runs)} runs",
        "counts": [(len(runs), "runs"), (len(groups), "groups")],
        "apart": ", ".join(["seed", *sorted(ignored)]),
        "stand_in": any(files.stand_in for files in runs.values()),
        "runs": runs_table(groups),
        "curves": [figure for figure in drawn if figure],
        "differences": differences(groups),
    }
