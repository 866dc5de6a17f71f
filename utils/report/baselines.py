"""The section of a search's report that sets it beside unimodal networks, late fusions and random search."""

from itertools import accumulate

from utils.report import plots
from utils.report.contents import RunFiles
from utils.report.page import figure, grid, percent, table


def baselines(files: RunFiles) -> str:
    """The best candidate beside unimodal networks, late fusions and random search, on dev."""
    best, random = files.best, files.best.get("random")
    entries = [(entry["name"], entry["dev"], entry.get("difference")) for entry in best.get("baselines") or ()]
    if random and random["configurations"]:
        name = f"random search, {random['candidates_trained']} candidates"
        entries.append((name, random["configurations"][0]["accuracy"], random.get("difference")))
    if not entries:
        return ""
    own = f"best of this search, {best['candidates_trained']} candidates"
    told = next((difference for *_, difference in entries if difference), {})
    rows = [(name, percent(dev), *ahead(difference)) for name, dev, difference in entries]
    rows.append((own, percent(best["configurations"][0]["accuracy"]), "", ""))
    head = [
        "",
        f"dev {files.score}",
        "the best is ahead by (points)",
        f"{100 * told.get('confidence', 0.95):g} % interval",
    ]
    words = "The best candidate was chosen on dev, so its own figure there flatters it; test decides."
    if told:
        words = f"Interval: paired bootstrap over the dev samples, {told['resamples']} resamples. {words}"
    shown = table(head, rows, strong=(own,)) if told else table(head[:2], [row[:2] for row in rows], strong=(own,))
    return f'{shown}<p class="soft">{words}</p>{grid(against_random(files))}'


def ahead(difference: dict | None) -> tuple[str, str]:
    if not difference:
        return "-", "-"
    mean, low, high = (f"{100 * difference[key]:+.1f}" for key in ("mean", "low", "high"))
    return mean, f"{low} to {high}"


def against_random(files: RunFiles) -> str:
    """Best so far of the search and of random search on the same features."""
    theirs = [100 * value for value in (files.best.get("random") or {}).get("accuracies", ())]
    own = list(accumulate((100 * candidate["accuracy"] for candidate in files.candidates), max))
    if not theirs or not own:
        return ""
    panel = plots.Panel(44, 24, 406, 210, (0.5, max(len(own), len(theirs)) + 0.5), plots.bounds([*own, *theirs]))
    parts = [panel.axes("candidates trained", f"best dev {files.score} so far (%)")]
    parts += [
        panel.line(plots.stairs(enumerate(own, 1)), "k0"),
        panel.line(plots.stairs(enumerate(theirs, 1)), "k1 broken"),
    ]
    title = f"Best so far: this search {own[-1]:.2f} % in the end, random search {theirs[-1]:.2f} %"
    keys = [(0, "this search", "━"), (1, "random search", "╍")]
    return figure(plots.drawing(460, 274, title, *parts), "Best so far, by the candidates trained.", keys)
