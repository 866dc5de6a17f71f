"""Content of the page that compares runs: groups that differ only in their seed, with mean and standard deviation."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from statistics import mean
from string import ascii_uppercase
from typing import NamedTuple

from utils.errors import UsageError
from utils.reading import read_json
from utils.report import plots
from utils.report.contents import ARGS, FREE, UNIMODAL, RunFiles
from utils.report.methods import found_result, methods_table
from utils.report.page import typed
from utils.report.plots import Figure, spaced
from utils.results.over_seeds import SeedResult
from utils.search.space import format_configuration, is_path

# Settings in which the runs of a group may differ.
APART = FREE - {"device"} | {"seed", "with_random", "evaluate_missing", "export"}
CANDIDATES = "candidates trained"


class Outcome(NamedTuple):
    """Figures of one run; None if not recorded."""

    name: str
    dev: float | None
    test: float | None
    seconds: float | None
    candidates: int | None
    curve: list[float]  # best dev score so far: of each candidate, or of each epoch


class Group(NamedTuple):
    """Runs with equal settings except for the seed."""

    number: int
    label: str  # given by the user, or empty
    kind: str
    score: str
    script: str
    settings: dict[str, object]
    runs: list[Outcome]
    results: list[SeedResult]  # of finished found runs

    @property
    def letter(self) -> str:
        return ascii_uppercase[self.number % 26] + str(self.number // 26 or "")

    @property
    def color(self) -> int:
        return self.number % plots.KINDS

    @property
    def name(self) -> str:
        return f"{self.label} ({self.kind})" if self.label else self.kind

    @property
    def title(self) -> str:
        return f"{self.letter}: {self.name}, {len(self.runs)} run{'s' * (len(self.runs) > 1)}"

    @property
    def candidates(self) -> str:
        """Mean number of candidates trained."""
        counts = [run.candidates for run in self.runs if run.candidates is not None]
        return f"{mean(counts):.6g}" if counts else "-"


def outcome(name: str, files: RunFiles) -> Outcome:
    """Collect the figures of one run."""
    results, best, row = files.results, files.best, files.found_row
    if files.kind == "search":
        curve = list(accumulate((candidate["accuracy"] for candidate in files.candidates), max))
        reached = best["configurations"][0]["accuracy"] if best.get("configurations") else max(curve, default=None)
        seconds = best.get("seconds", sum(candidate["seconds"] for candidate in files.candidates))
        return Outcome(name, reached, None, seconds, best.get("candidates_trained", len(curve)), curve)
    curve = list(accumulate((epoch["dev_accuracy"] for epoch in results.get("epochs") or ()), max))
    if files.kind == UNIMODAL:
        row = results | {"dev": results.get("dev_accuracy"), "test": results.get("test_accuracy")}
    dev, test, seconds, trained = map(row.get, ("dev", "test", "seconds", "candidates_trained"))
    return Outcome(name, dev, test, seconds, trained, curve)


def kind_of(files: RunFiles) -> str:
    """Kind of run, with the kind of search or the name of the network."""
    if files.kind == "search":
        return f"{(files.header or files.best).get('search', 'architecture')} search"
    return files.results.get("network", files.kind)


def settings_of(files: RunFiles) -> dict[str, object]:
    """Settings that make a group.

    The path of a search's best.json, in which only the seed may differ, is replaced by the settings of that search, as
    far as its folder can be read.
    """
    settings = {name: value for name, value in files.settings.items() if name not in APART}
    conf = settings.get("conf")
    if not isinstance(conf, str):
        return settings
    if not is_path(conf):
        configuration = files.results.get("configuration")
        return settings | {"conf": format_configuration(configuration) if configuration else conf}
    about = (Path(conf) if Path(conf).is_dir() else Path(conf).parent) / "args.json"
    searched = read_json(about, ARGS).get("settings", {}) if about.is_file() else {}
    own = {f"search.{name}": value for name, value in searched.items() if name not in APART}
    return settings | own | {"conf": "a search's best.json"}


def group_runs(
    runs: Mapping[Path, RunFiles], ignored: Collection[str], labels: Mapping[Path, str] | None = None
) -> list[Group]:
    """Group runs with the same label, script and settings, in the order of each group's first run.

    Raises:
        UsageError: none of the runs has a setting of a name in `ignored`.
    """
    settings = {folder: settings_of(files) for folder, files in runs.items()}
    known = sorted({name for own in settings.values() for name in own} | APART)
    for name in ignored:
        if name not in known:
            near = difflib.get_close_matches(name, known)
            there = f"near it: {', '.join(near)}" if near else f"there are {', '.join(known)}"
            raise UsageError(f"--ignore takes names of settings, but no run has {name!r}; {there}")
    groups: list[Group] = []
    for folder, files in runs.items():
        own = {name: value for name, value in settings[folder].items() if name not in ignored}
        key = ((labels or {}).get(folder, ""), kind_of(files), files.score, files.args.get("script", ""), own)
        group = next((g for g in groups if (g.label, g.kind, g.score, g.script, g.settings) == key), None)
        if group is None:
            groups.append(group := Group(len(groups), *key, [], []))
        group.runs.append(outcome(str(folder), files))
        if result := found_result(folder, files):
            group.results.append(result)
    return groups


def common_score(groups: Sequence[Group]) -> str:
    """Name of the score if all groups have the same one."""
    return groups[0].score if len({group.score for group in groups}) == 1 else "score"


def differences(groups: Sequence[Group]) -> list[tuple[list[str], list[list[str]]]]:
    """Head and rows of tables: the script of each group, then for each script the settings that differ."""
    scripts = dict.fromkeys(group.script for group in groups)
    kinds = [[group.letter, group.name, group.script or "-"] for group in groups]
    tables = [(["group", "kind", "script"], kinds)] if len(scripts) > 1 else []
    for script in scripts:
        own = [group for group in groups if group.script == script]
        names = sorted({name for group in own for name in group.settings})
        rows = [[name, *(str(typed(group.settings.get(name))) for group in own)] for name in names]
        if rows := [row for row in rows if len(set(row[1:])) > 1]:
            tables.append(([f"setting of {script}", *(group.letter for group in own)], rows))
    return tables


def curves(groups: Sequence[Group], x_label: str) -> Figure | None:
    """Best dev score so far of each run, and each group's mean over the part that all its runs have."""
    groups = [group for group in groups if any(run.curve for run in group.runs)]
    if not groups:
        return None
    drawn = [[[100 * value for value in run.curve] for run in group.runs if run.curve] for group in groups]
    every = list(chain(*drawn))
    panel = plots.Panel(44, 24, 386, 250, (0.5, max(map(len, every)) + 0.5), plots.bounds(chain(*every)))
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
    keys = [(group.color, group.letter, f"{group.name}, {len(group.runs)}") for group in groups]
    title = f"Best dev {score} so far by {x_label}; mean at the end: {', '.join(words)}"
    caption = f"Best dev {score} so far by {x_label}. Thin: one run; bold: the mean of a group."
    return Figure(plots.drawing(460, 314, title, *parts), caption, keys)


def comparison_content(
    runs: Mapping[Path, RunFiles], ignored: Collection[str] = (), labels: Mapping[Path, str] | None = None
) -> dict[str, object]:
    """Content of the page.

    Args:
        runs: the files of each folder.
        ignored: settings in which the runs of a group may differ, besides the seed and those that change no result.
        labels: names of groups, by folder.
    """
    groups = group_runs(runs, ignored, labels)
    searches = [group for group in groups if group.kind.endswith("search")]
    trainings = [group for group in groups if not group.kind.endswith("search")]
    compared = [group for group in groups if any(len(result.rows) > 1 for result in group.results)]
    return {
        "count": len(runs),
        "groups": groups,
        "score": common_score(groups),
        "ignored": sorted(ignored),
        "stand_in": any(files.stand_in for files in runs.values()),
        "methods": [methods_table(group.title, group.score, group.results) for group in compared],
        "curves": [curves(searches, CANDIDATES), curves(trainings, "epochs")],
        "differences": differences(groups),
    }
