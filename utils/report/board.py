"""A run as TensorBoard shows it: `RUN_DIR/tensorboard`, from the files of the run folder.

    tensorboard --logdir runs

Every call writes all events anew, so that they are right after a resume, too; a board that is open follows.
"""

import contextlib
import functools
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.fusion import ACTIVATION_NAMES
from utils.errors import UsageError
from utils.files import errors_name
from utils.report.contents import RunFiles, read_files
from utils.search.space import Configuration, format_configuration

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENT_FILES = "events.out.tfevents.*"
STEP_VALUES = ("temperature", "surrogate_loss", "rank_correlation")
NOT_SETTINGS = {"run_dir", "resume", "verbose", "tensorboard"}


def check_board() -> None:
    """See before a long run that it can be written for TensorBoard.

    Raises:
        UsageError: the package is missing or does not work.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as error:  # of a package that does not fit to others it may be any
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(f"--tensorboard needs one more package: pip install tensorboard ({reason})") from None


def write_search(run_dir: Path) -> None:
    """Every candidate and step, the best architectures drawn, and the settings beside the best score (hparams).

    Cheap enough to be called after each step.

    Raises:
        UsageError: the folder holds no files of a run, or damaged ones.
    """
    files = read_files(run_dir)
    score = _tag(files.score)
    best = files.best_configurations() if files.best or files.candidates else []
    with _events(run_dir) as writer:
        values = [candidate["accuracy"] for candidate in files.candidates]
        for number, (value, highest) in enumerate(zip(values, accumulate(values, max), strict=True), 1):
            writer.add_scalar(f"candidates/dev_{score}", value, number)
            writer.add_scalar(f"candidates/best_dev_{score}", highest, number)
        for step in files.steps:
            _add_scalars(writer, "steps", {name: step.get(name) for name in STEP_VALUES}, step["step"])
        for rank, found in enumerate(best, 1):
            words = f"dev {files.score} {found['accuracy']:.4f}"
            _add_drawing(writer, f"best/{rank}", files, found["configuration"], words, len(values))
        _add_hparams(writer, files, {f"best_dev_{score}": best[0]["accuracy"]} if best else {})


def write_training(run_dir: Path) -> None:
    """Every epoch of a unimodal or found network, the latter drawn, and the settings beside the scores (hparams).

    Raises:
        UsageError: the folder holds no files of a run, or damaged ones.
    """
    files = read_files(run_dir)
    results, score = files.results, _tag(files.score)
    found = next((row for row in results.get("rows", ()) if row["name"] == "found network"), None)
    reached = found or {split: results.get(f"{split}_accuracy") for split in ("dev", "test")}
    with _events(run_dir) as writer:
        for epoch in results.get("epochs", ()):
            values = {name.replace("accuracy", score): value for name, value in epoch.items() if name != "epoch"}
            _add_scalars(writer, "epochs", values, epoch["epoch"])
        if found and found["configuration"]:
            words = f"test {files.score} {found['test']:.4f}"
            _add_drawing(writer, "network", files, found["configuration"], words, 0)
        scores = {f"{split}_{score}": reached[split] for split in ("dev", "test")}
        _add_hparams(writer, files, {name: value for name, value in scores.items() if value is not None})


@contextlib.contextmanager
def _events(run_dir: Path) -> "Iterator[SummaryWriter]":
    """A writer of new events; those that were there are removed once these are whole, or these where they fail."""
    from torch.utils.tensorboard import SummaryWriter

    folder = run_dir / "tensorboard"
    before = stale = set(folder.glob(EVENT_FILES))
    hook, threading.excepthook = threading.excepthook, lambda _: None  # the writer's thread hands us its errors, too
    try:
        # From step 0 on, a board that is open forgets what it has read before.
        with errors_name(folder), SummaryWriter(str(folder), purge_step=0) as writer:
            yield writer
    except BaseException:
        stale = set(folder.glob(EVENT_FILES)) - before
        raise
    finally:
        threading.excepthook = hook
        for path in stale:
            path.unlink(missing_ok=True)


def _tag(words: str) -> str:
    return words.replace(" ", "_")


def _add_scalars(writer: "SummaryWriter", group: str, values: Mapping[str, object], step: int) -> None:
    """Those of the values that are finite numbers."""
    for name, value in values.items():
        if isinstance(value, int | float) and math.isfinite(value):
            writer.add_scalar(f"{group}/{name}", value, step)


def _add_hparams(writer: "SummaryWriter", files: RunFiles, scores: Mapping[str, float]) -> None:
    """Settings that are numbers or words, and what was reached with them (`writer.add_hparams` opens another file)."""
    from torch.utils.tensorboard.summary import hparams

    settings = files.args.get("settings", {})
    kept = {k: v for k, v in settings.items() if k not in NOT_SETTINGS and isinstance(v, int | float | str)}
    metrics = {f"hparam/{name}": value for name, value in scores.items()}
    for summary in hparams(kept, metrics):
        writer.file_writer.add_summary(summary)
    for name, value in metrics.items():
        writer.add_scalar(name, value)


def _add_drawing(
    writer: "SummaryWriter", tag: str, files: RunFiles, configuration: Configuration, words: str, step: int
) -> None:
    known = files.header or files.results
    if "modalities" in known and "sizes" in known:
        rows = tuple(map(tuple, configuration))
        picture = draw(rows, tuple(known["modalities"]), tuple(known["sizes"]), words)
        writer.add_image(tag, picture, step, dataformats="HWC")


@functools.lru_cache(maxsize=32)  # most of a search's best stay so for many steps
def draw(
    configuration: tuple[tuple[int, ...], ...], modalities: tuple[str, ...], sizes: tuple[int, ...], words: str
) -> np.ndarray:
    """A fusion network as a picture (H, W, 3) uint8: columns of features beside the layers, filled where read."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    on_left = (len(modalities) + 1) // 2
    centre = on_left + 0.5
    columns = [m if m < on_left else m + 2 for m in range(len(modalities))]
    depth = max(*sizes, len(configuration) + 1)
    heights = [(depth - 1 - len(configuration)) / 2 + i for i in range(len(configuration) + 1)]

    figure = Figure((0.85 * (len(modalities) + 2.4), 0.42 * (depth + 3)), dpi=110)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.7, len(modalities) + 1.7), ylim=(depth - 0.3, -3))
    axes.axis("off")
    axes.text(0.5, 0.98, f"{words}\n{format_configuration(configuration)}", fontsize=8, ha="center", va="top",
              transform=axes.transAxes)  # fmt: skip

    def box(x: float, y: float, label: object, colour: str = "white") -> None:
        edge = {"facecolor": colour, "edgecolor": "0.5", "boxstyle": "round,pad=0.35"}
        axes.text(x, y, str(label), ha="center", va="center", fontsize=8, bbox=edge, zorder=3,
                  color="black" if colour == "white" else "white")  # fmt: skip

    for m, (name, size, x) in enumerate(zip(modalities, sizes, columns, strict=True)):
        axes.text(x, -0.8 - 0.4 * (m % 2 if len(sizes) > 2 else 0), name[:12], ha="center", color=f"C{m}", fontsize=8)
        axes.plot((x, x), (0, size - 1), color="0.8", zorder=0)
        used = {row[m] for row in configuration}
        for i in range(size):
            box(x, i, i, f"C{m}" if i in used else "white")
    axes.plot((centre, centre), (heights[0], heights[-1]), color="0.8", zorder=0)
    for layer, (row, y) in enumerate(zip(configuration, heights, strict=False), 1):
        for m, feature in enumerate(row[:-1]):
            if feature >= 0:
                axes.plot(*_way(m, feature, columns, on_left, (centre, y)), color=f"C{m}", zorder=1)
        box(centre, y, f"{layer} · {ACTIVATION_NAMES[row[-1]].replace('_', ' ')}")
    box(centre, heights[-1], "classifier")

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _way(
    m: int, feature: int, columns: Sequence[int], on_left: int, layer: tuple[float, float]
) -> tuple[list[float], list[float]]:
    """The line from a feature to a layer, as x and y; it passes other columns below the same feature of theirs."""
    between = columns[m + 1 : on_left] if m < on_left else columns[on_left:m][::-1]
    inwards = 0.6 if m < on_left else -0.6
    end = layer[1] + 0.1 * len(between)
    xs = [columns[m], *between, layer[0] - inwards, layer[0]]
    ys = [feature, *(feature + 0.5 for _ in between), end, end]
    return xs, ys
