"""A search compared with its unimodal networks, late fusions and random search, on dev."""

from itertools import accumulate

from utils.report import plots
from utils.report.contents import RunFiles
from utils.report.page import Table, percent


def baselines_content(files: RunFiles) -> dict[str, object]:
    """Table, number of bootstrap resamples (None without intervals) and figure; the table is None without baselines."""
    best, random = files.best, files.best.get("random")
    entries = [(entry["name"], entry["dev"], entry.get("difference")) for entry in best.get("baselines") or ()]
    if random and random["configurations"]:
        name = f"random search, {random['candidates_trained']} candidates"
        entries.append((name, random["configurations"][0]["accuracy"], random.get("difference")))
    compared: dict = next((difference for *_, difference in entries if difference), {})
    return {
        "baselines": baselines_table(files, entries, compared) if entries else None,
        "resamples": compared.get("resamples"),
        "against_random": against_random(files) if entries else None,
    }


def baselines_table(files: RunFiles, entries: list[tuple[str, float, dict | None]], compared: dict) -> Table:
    """Dev score of each baseline and by how much the best candidate exceeds it, if any was `compared`."""
    name = f"best of this search, {files.best['candidates_trained']} candidates"
    head = ["", f"dev {files.score}"]
    rows = [[name, percent(dev)] for name, dev, _ in entries]
    rows.append([name, percent(files.best["configurations"][0]["accuracy"])])
    if compared:
        head += ["the best is ahead by (points)", f"{100 * compared.get('confidence', 0.95):g} % interval"]
        for row, (*_, difference) in zip(rows, entries, strict=False):
            row += lead(difference)
        rows[-1] += ["", ""]
    return Table(head, rows, strong=(name,))


def lead(difference: dict | None) -> list[str]:
    """A difference in points, and its confidence interval."""
    if not difference:
        return ["-", "-"]
    mean, low, high = (f"{100 * difference[key]:+.1f}" for key in ("mean", "low", "high"))
    return [mean, f"{low} to {high}"]


def against_random(files: RunFiles) -> plots.Figure | None:
    """Best score so far of the search and of random search on the same features."""
    theirs = [100 * value for value in (files.best.get("random") or {}).get("accuracies", ())]
    own = list(accumulate((100 * candidate["accuracy"] for candidate in files.candidates), max))
    if not theirs or not own:
        return None
    panel = plots.Panel(44, 24, 406, 210, (0.5, max(len(own), len(theirs)) + 0.5), plots.bounds([*own, *theirs]))
    parts = [
        panel.axes("candidates trained", f"best dev {files.score} so far (%)"),
        panel.line(plots.stairs(enumerate(own, 1)), "k0"),
        panel.line(plots.stairs(enumerate(theirs, 1)), "k1 broken"),
    ]
    title = f"Best so far: this search {own[-1]:.2f} % at the end, random search {theirs[-1]:.2f} %"
    keys = [(0, "━", "this search"), (1, "╍", "random search")]
    return plots.Figure(plots.drawing(460, 274, title, *parts), "Best so far, by number of candidates trained.", keys)
