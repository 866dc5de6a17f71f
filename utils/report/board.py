"""A run's events for TensorBoard, `RUN_DIR/tensorboard`, made from the files of the run folder.

    tensorboard --logdir runs

Each call rewrites all events, so that they are also correct after a resume; an open TensorBoard picks up the new ones.
"""

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UsageError
from utils.files import errors_name
from utils.report.architecture import layout_of, to_pixels
from utils.report.contents import RunFiles, read_files
from utils.search.space import Configuration, format_configuration

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENT_FILES = "events.out.tfevents.*"
STEP_VALUES = ("temperature", "surrogate_loss", "rank_correlation")
NOT_SETTINGS = {"run_dir", "resume", "verbose", "tensorboard"}


def check_board(names: Iterable[object] = ()) -> None:
    """Check before a long run that TensorBoard events can be written.

    Args:
        names: values that the events will hold, or that name their folder.

    Raises:
        UsageError: the package is missing or does not work, or a name is one that it cannot write.
    """
    for name in names:
        if isinstance(name, str) and any("\ud800" <= c <= "\udfff" for c in name):
            raise UsageError(f"--tensorboard needs names in UTF-8 and a locale that reads them, but one is {name}")
    try:
        import torch.utils.tensorboard  # noqa: F401
    except Exception as error:  # incompatible versions of packages may raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(f"--tensorboard needs one more package: pip install tensorboard ({reason})") from None


def write_search(run_dir: Path) -> None:
    """Write every candidate and step, drawings of the best networks, and the settings with the best score (hparams).

    Cheap enough to be called after each step.

    Raises:
        UsageError: the folder holds no files of a run, or damaged ones.
    """
    files = read_files(run_dir)
    score = files.score.replace(" ", "_")
    best = files.best_configurations()
    with _events(run_dir) as writer:
        values = [candidate["accuracy"] for candidate in files.candidates]
        for number, (value, highest) in enumerate(zip(values, accumulate(values, max), strict=True), 1):
            _add_scalars(writer, "candidates", {f"dev_{score}": value, f"best_dev_{score}": highest}, number)
        for step in files.steps:
            _add_scalars(writer, "steps", {name: step.get(name) for name in STEP_VALUES}, step["step"])
        for rank, entry in enumerate(best, 1):
            words = f"dev {files.score} {entry['accuracy']:.4f}"
            _add_drawing(writer, f"best/{rank}", files, entry["configuration"], words, len(values))
        _add_hparams(writer, files, {f"best_dev_{score}": best[0]["accuracy"]} if best else {})


def write_training(run_dir: Path) -> None:
    """Write every epoch, the drawing of a found network, and the settings with the scores (hparams).

    Raises:
        UsageError: the folder holds no files of a run, or damaged ones.
    """
    files = read_files(run_dir)
    results, score, found = files.results, files.score.replace(" ", "_"), files.found_row
    reached = found or {split: results.get(f"{split}_accuracy") for split in ("dev", "test")}
    with _events(run_dir) as writer:
        for epoch in results.get("epochs", ()):
            values = {name.replace("accuracy", score): value for name, value in epoch.items() if name != "epoch"}
            _add_scalars(writer, "epochs", values, epoch["epoch"])
        if found.get("configuration"):
            _add_drawing(writer, "network", files, found["configuration"], f"test {files.score} {found['test']:.4f}", 0)
        scores = {f"{split}_{score}": reached[split] for split in ("dev", "test")}
        _add_hparams(writer, files, {name: value for name, value in scores.items() if value is not None})


@contextlib.contextmanager
def _events(run_dir: Path) -> "Iterator[SummaryWriter]":
    """Open a writer of new events; on success they replace the earlier ones, on any error they are removed."""
    from torch.utils.tensorboard import SummaryWriter

    folder = run_dir / "tensorboard"
    before = stale = set(folder.glob(EVENT_FILES))
    hook, threading.excepthook = threading.excepthook, lambda _: None  # the writer's thread also passes errors to us
    try:
        # With step 0, an open TensorBoard discards what it has read before.
        with errors_name(folder), SummaryWriter(str(folder), purge_step=0) as writer:
            yield writer
    except BaseException:
        stale = set(folder.glob(EVENT_FILES)) - before
        raise
    finally:
        threading.excepthook = hook
        for path in stale:
            path.unlink(missing_ok=True)


def _add_scalars(writer: "SummaryWriter", group: str, values: Mapping[str, object], step: int) -> None:
    """Add the values that are finite numbers."""
    for name, value in values.items():
        if isinstance(value, int | float) and math.isfinite(value):
            writer.add_scalar(f"{group}/{name}", value, step)


def _add_hparams(writer: "SummaryWriter", files: RunFiles, scores: Mapping[str, float]) -> None:
    """Add settings that are numbers or strings, and the scores; `writer.add_hparams` would open another event file."""
    from torch.utils.tensorboard.summary import hparams

    settings = {k: v for k, v in files.settings.items() if k not in NOT_SETTINGS and isinstance(v, int | float | str)}
    for summary in hparams(settings, {f"hparam/{name}": value for name, value in scores.items()}):
        writer._get_file_writer().add_summary(summary)
    _add_scalars(writer, "hparam", scores, 0)


def _add_drawing(
    writer: "SummaryWriter", tag: str, files: RunFiles, configuration: Configuration, words: str, step: int
) -> None:
    rows = format_configuration(configuration).replace("],[", "], [")  # lines may break between rows
    writer.add_image(tag, to_pixels(layout_of(files, configuration), f"{words}\n{rows}"), step, dataformats="HWC")
