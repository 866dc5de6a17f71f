"""The found network and its baselines over several seeds, as a table of the page that compares runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.report import plots
from utils.report.contents import FOUND, RunFiles
from utils.report.page import points, spread_of_durations, spread_of_shares
from utils.report.plots import Figure
from utils.results.over_seeds import (
    Method,
    SeedResult,
    Spread,
    in_points,
    interval,
    read_test_correct,
    summarize,
    verdict,
)


def found_result(folder: Path, files: RunFiles) -> SeedResult | None:
    """Results of a found run with those of its baselines; None unless it is finished."""
    rows = files.results.get("rows") or ()
    if not rows or rows[-1]["name"] != FOUND:
        return None
    return SeedResult(rows, read_test_correct(folder, len(rows)))


Cell = list[str]  # a value, and below it its intervals


class Methods(NamedTuple):
    """Table of the found network and its baselines over the seeds of a group."""

    title: str
    score: str
    verdict: str
    rows: list[tuple[str, list[Cell]]]  # name, then dev, test, lead, time
    sampled: bool  # if the leads have a second interval, over seeds and samples
    picture: Figure | None


def methods_table(title: str, score: str, results: Sequence[SeedResult]) -> Methods:
    """Make the table of a group of found runs."""
    methods = summarize(results)
    rows = [(m.name, [_score(m.dev), _score(m.test), _lead(m), [spread_of_durations(m.seconds)]]) for m in methods]
    return Methods(title, score, verdict(methods), rows, any(m.sampled for m in methods), leads(methods))


def leads(methods: Sequence[Method]) -> Figure | None:
    """Draw the leads over the baselines with their intervals; None with one seed."""
    known = [(m.name, m.lead, m.sampled) for m in methods if m.lead and m.lead.seeds > 1]
    if not known:
        return None
    ends = [end for _, *pair in known for one in pair for end in (interval(one) or ())]
    places = [100 * place for place in (0, *ends, *(lead.mean for _, lead, _ in known))]
    panel = plots.Panel(10, 8, 440, 40 * len(known), plots.bounds(places), (len(known), 0))
    top, bottom = panel.top, panel.top + panel.height
    parts = []
    for value in plots.ticks(*panel.x):
        x = panel.at(value, 0)[0]
        parts.append(plots.tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="rule" if value else "axis"))
        parts.append(plots.text(x, bottom + 16, f"{value:+.6g}" if value else "0", "middle"))
    for i, (name, lead, sampled) in enumerate(known):
        parts.append(plots.text(panel.left, panel.at(0, i)[1] + 15, name, class_="label clear"))
        for one, y, look in ((lead, i + 0.6, "k0 bold"), (sampled, i + 0.75, "k1 thin")):
            if pair := interval(one):
                parts.append(panel.line([(100 * end, y) for end in pair], look))
        x, y = panel.at(100 * lead.mean, i + 0.6)
        parts.append(plots.tag("circle", cx=x, cy=y, r=5, class_="mark k0"))
    parts.append(plots.text(panel.left + panel.width, bottom + 33, "lead in points", "end", class_="label"))
    title = "Lead of the found network on test: " + ", ".join(f"{name} {points(lead.mean)}" for name, lead, _ in known)
    keys = [(0, "━", "over seeds")] + [(1, "━", "over seeds and samples")] * any(sampled for *_, sampled in known)
    caption = "Lead of the found network over each baseline on test, with 95 % intervals."
    return Figure(plots.drawing(460, bottom + 40, title, *parts), caption, keys)


def _score(value: Spread | None) -> Cell:
    """A score in percent, and its interval, clipped to 0 to 100 %."""
    cell = [spread_of_shares(value)]
    if ends := interval(value):
        cell.append(f"{100 * max(ends[0], 0):.1f} to {100 * min(ends[1], 1):.1f}")
    return cell


def _lead(method: Method) -> Cell:
    if not method.lead:
        return ["-"]
    sampled = in_points(method.sampled)
    return [
        points(method.lead.mean),
        *filter(None, [in_points(method.lead), sampled and f"over seeds and samples: {sampled}"]),
    ]
