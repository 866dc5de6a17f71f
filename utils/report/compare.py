"""The page that compares several runs: groups that differ in their seed alone, each with mean and deviation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev

from utils.report import plots
from utils.report.contents import FREE, RunFiles
from utils.report.found import found_row
from utils.report.page import duration, figure, grid, page, percent, section, table, tiles

APART = FREE - {"device"} | {"seed", "with_random", "evaluate_missing", "export"}  # in which runs of a group may differ
CANDIDATES = "candidates trained"
STAND_IN = '<p class="note">Some of these runs are on a stand-in for AV-MNIST: they are no results on the real one.</p>'
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Outcome:
    """What one run came to; None where it does not tell."""

    name: str
    dev: float | None
    test: float | None
    seconds: float | None
    candidates: int | None
    curve: list[float]  # best score on dev so far: of each candidate, or of each epoch


@dataclass(frozen=True)
class Group:
    """Runs of equal settings but for the seed."""

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
    def colour(self) -> int:
        return self.number % plots.KINDS

    @property
    def title(self) -> str:
        return f"{self.letter}: {self.kind}, {len(self.runs)} run{'s' * (len(self.runs) > 1)}"


def outcome(name: str, files: RunFiles) -> Outcome:
    """The figures of one run."""
    results, best = files.results, files.best
    if files.kind == "search":
        scores = [candidate["accuracy"] for candidate in files.candidates]
        reached = best["configurations"][0]["accuracy"] if best.get("configurations") else max(scores, default=None)
        seconds = best.get("seconds", sum(candidate["seconds"] for candidate in files.candidates))
        return Outcome(
            name, reached, None, seconds, best.get("candidates_trained", len(scores)), list(accumulate(scores, max))
        )
    curve = list(accumulate((epoch["dev_accuracy"] for epoch in results.get("epochs") or ()), max))
    if files.kind == "unimodal network":
        return Outcome(
            name, results.get("dev_accuracy"), results.get("test_accuracy"), results.get("seconds"), None, curve
        )
    row = found_row(files)
    return Outcome(name, *(row.get(key) for key in ("dev", "test", "seconds", "candidates_trained")), curve)


def words_of(files: RunFiles) -> str:
    """What kind of run it is, in words."""
    if files.kind == "search":
        return f"{(files.header or files.best).get('search', 'architecture')} search"
    return files.results.get("network", files.kind)


def group_runs(runs: Mapping[Path, RunFiles], ignored: Iterable[str]) -> list[Group]:
    """Runs of the same script and settings together, in the order in which the first of each is given."""
    apart, groups = APART | set(ignored), []
    for folder, files in runs.items():
        settings = {name: value for name, value in files.args.get("settings", {}).items() if name not in apart}
        key = (words_of(files), files.score, files.args.get("script", ""), settings)
        group = next((g for g in groups if (g.kind, g.score, g.script, g.settings) == key), None)
        if group is None:
            groups.append(group := Group(len(groups), *key, []))
        group.runs.append(outcome(str(folder), files))
    return groups


def spread(values: Iterable[float | None], scale: float, unit: str) -> str:
    """Mean and standard deviation of the values that are known."""
    known = [scale * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {stdev(known):.1f}" if len(known) > 1 else ""
    return f"{mean(known):.1f}{deviation} {unit}"


def runs_table(groups: Sequence[Group]) -> str:
    score = groups[0].score if len({group.score for group in groups}) == 1 else "score"
    rows = []
    for group in groups:
        runs = group.runs
        shares = (spread((getattr(run, split) for run in runs), 100, "%") for split in ("dev", "test"))
        counts = [run.candidates for run in runs if run.candidates is not None]
        trained = "-" if not counts else f"{mean(counts):.6g}"
        rows.append((group.title, *shares, trained, spread((run.seconds for run in runs), 1, "s")))
        for run in runs:
            trained = "-" if run.candidates is None else run.candidates
            rows.append((run.name, percent(run.dev), percent(run.test), trained, duration(run.seconds)))
    head = ("", f"best dev {score}", f"test {score}", "candidates", "time")
    return table(head, rows, strong=[group.title for group in groups], beneath=True)


def differences(groups: Sequence[Group]) -> str:
    """For each script the settings in which its groups differ, after what each group was run with."""
    scripts = list(dict.fromkeys(group.script for group in groups))
    parts = []
    if len(scripts) > 1:
        rows = [(group.letter, group.kind, group.script or "-") for group in groups]
        parts.append(table(("group", "what", "script"), rows, left=range(3)))
    for script in scripts:
        own = [group for group in groups if group.script == script]
        names = sorted({name for group in own for name in group.settings})
        values = {name: [str(group.settings.get(name, "-")) for group in own] for name in names}
        rows = [(name, *row) for name, row in values.items() if len(set(row)) > 1]
        if rows:
            head = (f"setting of {script}", *(group.letter for group in own))
            parts.append(table(head, rows, left=range(len(head))))
    return "".join(parts)


def apart_by(places: Sequence[float], least: float) -> list[float]:
    """The places moved up the drawing where they would stand nearer than `least`."""
    moved, before = list(places), None
    for i in sorted(range(len(places)), key=lambda i: -places[i]):
        moved[i] = places[i] if before is None else min(places[i], before - least)
        before = moved[i]
    return moved


def curves(groups: Sequence[Group], x_label: str) -> str:
    """The best score on dev so far of each run, and each group's mean over the part that all its runs have."""
    groups = [group for group in groups if any(run.curve for run in group.runs)]
    if not groups:
        return ""
    drawn = [[[100 * value for value in run.curve] for run in group.runs if run.curve] for group in groups]
    longest = max(len(line) for lines in drawn for line in lines)
    everything = [value for lines in drawn for line in lines for value in line]
    panel = plots.Panel(44, 24, 386, 250, (0.5, longest + 0.5), plots.bounds(everything))
    score = groups[0].score if len({group.score for group in groups}) == 1 else "score"
    parts, ends, words = [panel.axes(x_label, f"best dev {score} so far (%)")], [], []
    held = plots.stairs if x_label == CANDIDATES else iter
    for group, lines in zip(groups, drawn, strict=True):
        look = f"k{group.colour}{' broken' * (group.number // plots.KINDS % 2)}"
        means = [mean(values) for values in zip(*lines, strict=False)]
        if len(lines) > 1:
            parts += [panel.line(held(enumerate(line, 1)), f"{look} thin pale") for line in lines]
        parts.append(panel.line(held(enumerate(means, 1)), f"{look} bold"))
        ends.append(panel.at(len(means), means[-1]))
        words.append(f"{group.letter} {means[-1]:.2f} %")
    for group, (x, _), y in zip(groups, ends, apart_by([y for _, y in ends], 15), strict=True):
        parts.append(plots.text(x + 6, y + 4, group.letter, class_=f"letter k{group.colour}"))
    keys = [(group.colour, f"{group.kind}, {len(group.runs)}", group.letter) for group in groups]
    title = f"Best {score} on dev so far by {x_label}; mean in the end: {', '.join(words)}"
    caption = f"Best on dev so far by {x_label}. Thin: one run; bold: the mean of a group."
    return figure(plots.drawing(460, 314, title, *parts), caption, keys)


def comparison(runs: Mapping[Path, RunFiles], ignored: Iterable[str] = ()) -> str:
    """The page as HTML.

    Args:
        runs: what each folder holds.
        ignored: settings in which the runs of a group may differ, besides seed and what changes no result.
    """
    groups = group_runs(runs, ignored)
    searches = [group for group in groups if group.kind.endswith("search")]
    trainings = [group for group in groups if group not in searches]
    title = f"Comparison of {len(runs)} runs"
    apart = ", ".join(["seed", *sorted(ignored)])
    words = (
        f"A group is runs of equal settings apart from {apart} and flags that change no result; beside ± is the "
        "standard deviation over its runs."
    )
    return page(
        title,
        f"<h1>{title}</h1>",
        tiles([("runs", str(len(runs))), ("groups", str(len(groups)))]),
        f'<p class="soft">{words}</p>',
        STAND_IN if any(files.stand_in for files in runs.values()) else "",
        section("Runs", runs_table(groups)),
        section("Curves", grid(curves(searches, CANDIDATES), curves(trainings, "epochs"))),
        section("What differs between the groups", differences(groups)),
    )
