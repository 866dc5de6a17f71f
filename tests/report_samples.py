"""Files of made-up runs, as the scripts write them, and a reader that checks their reports."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from models.rows import ACTIVATION_NAMES
from utils import report as report_package
from utils.report import write_report

ARGS = {
    "command": "python main_searchable_avmnist.py --datadir 'a<b>&c'",
    "settings": {"epochs": 3, "run_dir": None, "note": "<script>alert(1)</script>"},
    "versions": {"python": "3.11.7", "torch": "2.9.1"},
}
SIZES = {"audio": 5, "image": 3}


def write_lines(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def update(path: Path, **values: object) -> None:
    """Set values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def draw_row(rng: np.random.Generator, sizes: dict[str, int], activations: tuple[str, ...], skips: bool) -> list[int]:
    features = [int(rng.integers(-1 if skips else 0, size)) for size in sizes.values()]
    if max(features) < 0:
        return draw_row(rng, sizes, activations, skips)
    return [*features, ACTIVATION_NAMES.index(activations[int(rng.integers(len(activations)))])]


def search_run(
    folder: Path,
    levels: int = 4,
    iterations: int = 3,
    random_search: bool = False,
    sizes: dict[str, int] = SIZES,
    activations: tuple[str, ...] = ("relu", "sigmoid"),
    skips: bool = False,
    seed: int = 0,
) -> list[dict]:
    """Write the files of a search whose accuracies grow with the layers and features; returns its candidates."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = [{"kind": "header", "format": 1, "search": "random" if random_search else "sequential"}]
    lines[0] |= {"modalities": list(sizes), "sizes": list(sizes.values()), "activations": list(activations)}
    for step in range(levels * iterations):
        count = 15 if step else 30
        for _ in range(count):
            length = int(rng.integers(1, levels + 1)) if random_search else min(step, levels - 1) + 1
            rows = [draw_row(rng, sizes, activations, skips) for _ in range(length)]
            score = 0.5 + 0.03 * length + sum(0.02 * sum(row[:-1]) for row in rows) / length + step * 0.01
            score = float(min(score + rng.normal() * 0.03, 0.99))
            predicted = score + float(rng.normal()) * 0.04 if step and not random_search else None
            line = {"kind": "candidate", "step": step, "configuration": rows, "predicted": predicted}
            lines.append(line | {"accuracies": [score - 0.1, score, score - 0.02], "seconds": 0.4})
        line = {"kind": "step", "step": step, "search_iteration": step // levels, "level": step % levels}
        line |= {"candidates": count, "seconds": 6.0}
        if not random_search:
            line |= {
                "temperature": 0.2 + 9.8 * float(np.exp(-((step + 1) ** 2) / 16)),
                "surrogate_loss": 0.01 / (step + 1),
            }
            line |= {"rank_correlation": 0.9 - 0.5 / step if step else float("nan")}
        lines.append(line)
    write_lines(folder / "journal.jsonl", lines)
    candidates = [line for line in lines if line["kind"] == "candidate"]
    top = sorted(candidates, key=lambda line: -max(line["accuracies"]))[:5]
    best = {"configurations": [{"configuration": c["configuration"], "accuracy": max(c["accuracies"])} for c in top]}
    best |= {"candidates_trained": len(candidates), "seconds": 140.0, "modalities": list(sizes)}
    best["seconds_by_part"] = {"extraction": 20.0, "training": 100.0, "surrogate": 15.0, "other": 5.0}
    (folder / "best.json").write_text(json.dumps(best))
    settings = ARGS["settings"] | {"seed": seed, "randsearch": random_search, "run_dir": str(folder)}
    (folder / "args.json").write_text(json.dumps(ARGS | {"script": "search.py", "settings": settings}))
    return candidates


def found_run(folder: Path, stand_in: bool = True, classes: int = 10) -> None:
    """Write the files of a found network's training."""
    folder.mkdir(exist_ok=True)
    conf = [[3, 2, 0], [3, 1, 1], [0, 2, 0], [4, 2, 0]]
    names = ["image only", "audio only", "late fusion, mean of softmax", "late fusion, sum of log-softmax"]
    rows = [
        {"name": name, "dev": dev, "test": dev - 0.0123, "seconds": 12.0, "configuration": None}
        for name, dev in zip(names, (0.73, 0.75, 0.889, 0.916), strict=True)
    ]
    found = {"name": "found network", "dev": 0.951, "test": 0.9412, "seconds": 95.0, "configuration": conf}
    epochs = [
        {"epoch": e, "phase": "all" if e else "central", "train_loss": 2 / (e + 1), "train_accuracy": 1 - 0.5 / (e + 1),
         "dev_loss": 1.8 / (e + 1) + 0.1, "dev_accuracy": 0.95 - 0.5 / (e + 1), "learning_rate": 1e-3}
        for e in range(20)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    confusion = (rng.integers(0, 9, (classes, classes)) + 950 * np.eye(classes, dtype=int)).tolist()
    results = {"configuration": conf, "modalities": list(SIZES), "rows": [*rows, found | {"candidates_trained": 195}]}
    results |= {"epochs": epochs, "best_epoch": 17, "stand_in": stand_in, "checkpoint": "best_4_0.9412.checkpoint"}
    (folder / "results.json").write_text(json.dumps(results | {"confusion": confusion}))
    (folder / "args.json").write_text(json.dumps(ARGS))


def unimodal_run(folder: Path, seed: int = 0, test: float = 0.7) -> None:
    """Write the files of a unimodal network's training."""
    folder.mkdir(exist_ok=True)
    epochs = [
        {"epoch": e, "train_loss": 1 / (e + 1), "train_accuracy": 0.5, "dev_accuracy": 0.6 + 0.05 * e}
        | {"test_accuracy": test}
        for e in range(3)
    ]
    results = {"network": "AudioLeNet", "epochs": epochs, "best_epoch": 2, "dev_accuracy": 0.7, "test_accuracy": test}
    (folder / "results.json").write_text(json.dumps(results | {"seconds": 12.0}))
    settings = {"seed": seed, "epochs": 3, "run_dir": str(folder), "num_workers": seed}
    (folder / "args.json").write_text(json.dumps(ARGS | {"script": "train.py", "settings": settings}))


class Page(HTMLParser):
    """Check that elements nest, and collect the text and drawings."""

    VOID = ("meta", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open, self.names, self.words = [], [], []
        self.source = path.read_text()
        self.feed(self.source)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())
        content = self.source.partition("<script>")[0]
        self.drawings = [ElementTree.fromstring(s) for s in re.findall(r"<svg.*?</svg>", content, re.S)]

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        assert not {"src", "href", "onload", "onclick"} & {name for name, _ in attributes}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def report(folder: Path, progress: str | None = None) -> Page:
    path = write_report(folder, progress)
    assert path == folder / "report.html"
    return checked(path)


def checked(path: Path) -> Page:
    """Parse a page and check that it loads nothing and that its drawings have text alternatives."""
    page = Page(path)
    script = (Path(report_package.__file__).with_name("templates") / "page.js").read_text().strip()
    assert page.source.count(script) == page.source.count("<script") == 1  # the page's own
    assert not re.search(r"https?://|@import|url\(|import\(|fetch\(", page.source)
    for drawing in page.drawings:
        assert drawing.get("role") == "img"
        assert drawing.find("title").text == drawing.get("aria-label")
        assert "nan" not in ElementTree.tostring(drawing, encoding="unicode").replace("dominant", "")
    return page
