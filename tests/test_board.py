"""TensorBoard shows the values of a run's files, also after the run is resumed."""

import io
import json
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.errors import UsageError
from utils.report.architecture import lay_out, to_pixels
from utils.report.board import check_board, write_search, write_training

SETTINGS = {"epochs": 3, "drpt": 0.5, "modality": "both", "alphas": False, "run_dir": "elsewhere", "test_cp": None}
HEADER = {"kind": "header", "format": 1, "modalities": ["audio", "image"], "sizes": [5, 3], "activations": ["relu"]}
ACCURACIES = (0.2, 0.7, 0.5, 0.6, 0.9, 0.4, 0.3)


@pytest.fixture(autouse=True)
def _needs_tensorboard():
    pytest.importorskip("tensorboard", reason="the optional package tensorboard is not installed")


def search_run(folder: Path, candidates: int = len(ACCURACIES)) -> None:
    """Write the files of an unfinished search: steps of two candidates, the first without a rank correlation."""
    lines = [HEADER]
    for i, accuracy in enumerate(ACCURACIES[:candidates]):
        line = {"kind": "candidate", "step": i // 2, "configuration": [[i % 5, i % 3, 0]], "seconds": 1.0}
        lines.append(line | {"accuracies": [accuracy / 2, accuracy], "predicted": None})
        if i % 2:
            line = {"kind": "step", "step": i // 2, "candidates": 2, "seconds": 2.0, "temperature": 10 / i}
            lines.append(line | {"surrogate_loss": 0.1 / i, "rank_correlation": 0.5 if i > 1 else None})
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "args.json").write_text(json.dumps({"command": "python x.py", "settings": SETTINGS}))


def training_run(folder: Path, results: dict) -> None:
    scores = {"train_accuracy": 0.4, "dev_accuracy": 0.5, "dev_loss": None}
    epochs = [{"epoch": e, "phase": "all", "train_loss": 2.0 - e} | scores for e in range(2)]
    (folder / "results.json").write_text(json.dumps({"epochs": epochs} | results))
    (folder / "args.json").write_text(json.dumps({"command": "python x.py", "settings": SETTINGS}))


def read_back(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    return board.Reload()


def scalars(board, tag: str) -> dict[int, float]:
    points = [(event.step, event.value) for event in board.Scalars(tag)]
    assert len(points) == len(dict(points))
    return {step: round(value, 5) for step, value in points}


def settings_read(board) -> dict:
    from tensorboard.plugins.hparams import metadata

    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}


def picture(board, tag: str) -> np.ndarray:
    from PIL import Image

    (image,) = board.Images(tag)
    return np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))


def test_a_search_is_shown_by_candidate_and_step(tmp_path):
    search_run(tmp_path)
    write_search(tmp_path)
    board = read_back(tmp_path)
    assert scalars(board, "candidates/dev_accuracy") == dict(enumerate(ACCURACIES, 1))
    best = (0.2, 0.7, 0.7, 0.7, 0.9, 0.9, 0.9)
    assert scalars(board, "candidates/best_dev_accuracy") == dict(enumerate(best, 1))
    assert scalars(board, "steps/temperature") == {0: 10.0, 1: 3.33333, 2: 2.0}
    assert scalars(board, "steps/surrogate_loss") == {0: 0.1, 1: 0.03333, 2: 0.02}
    assert scalars(board, "steps/rank_correlation") == {1: 0.5, 2: 0.5}
    assert scalars(board, "hparam/best_dev_accuracy") == {0: 0.9}
    assert settings_read(board) == {"epochs": 3, "drpt": 0.5, "modality": "both", "alphas": False}
    assert board.Tags()["images"] == [f"best/{rank}" for rank in range(1, 6)]
    drawn = to_pixels(lay_out([[4, 1, 0]], ("audio", "image"), (5, 3)), "dev accuracy 0.9000\n[[4,1,0]]")
    assert np.array_equal(picture(board, "best/1"), drawn)


def test_a_resumed_search_is_shown_once(tmp_path):
    search_run(tmp_path, 6)
    write_search(tmp_path)
    (first,) = (tmp_path / "tensorboard").iterdir()
    search_run(tmp_path, 4)  # as after a kill: what was journaled last is lost
    write_search(tmp_path)
    (second,) = (tmp_path / "tensorboard").iterdir()
    assert first != second
    board = read_back(tmp_path)
    assert scalars(board, "candidates/dev_accuracy") == dict(enumerate(ACCURACIES[:4], 1))
    search_run(tmp_path)
    write_search(tmp_path)
    assert len(scalars(read_back(tmp_path), "candidates/dev_accuracy")) == len(ACCURACIES)


def test_new_events_replace_the_ones_already_read(tmp_path):
    search_run(tmp_path, 6)
    write_search(tmp_path)
    (first,) = (tmp_path / "tensorboard").iterdir()
    content = first.read_bytes()
    search_run(tmp_path, 4)
    write_search(tmp_path)
    first.write_bytes(content)  # as an open TensorBoard has read it
    assert scalars(read_back(tmp_path), "candidates/dev_accuracy") == dict(enumerate(ACCURACIES[:4], 1))


def test_a_search_without_candidates_shows_its_settings(tmp_path):
    search_run(tmp_path, 0)
    write_search(tmp_path)
    board = read_back(tmp_path)
    assert board.Tags()["scalars"] == []
    assert settings_read(board)["epochs"] == 3


def test_a_found_network_is_shown_by_epoch(tmp_path):
    rows = [{"name": "image only", "dev": 0.1, "test": 0.1, "configuration": None}]
    rows.append({"name": "found network", "dev": 0.75, "test": 0.5, "configuration": [[1, 2, 0], [-1, 0, 3]]})
    training_run(tmp_path, {"rows": rows, "modalities": ["text", "image"], "sizes": [2, 3]})
    write_training(tmp_path)
    board = read_back(tmp_path)
    assert scalars(board, "epochs/train_loss") == {0: 2.0, 1: 1.0}
    assert scalars(board, "epochs/dev_accuracy") == {0: 0.5, 1: 0.5}
    assert not {"epochs/dev_loss", "epochs/phase", "epochs/epoch"} & set(board.Tags()["scalars"])
    assert scalars(board, "hparam/dev_accuracy") == {0: 0.75}
    assert scalars(board, "hparam/test_accuracy") == {0: 0.5}
    layout = lay_out([[1, 2, 0], [-1, 0, 3]], ("text", "image"), (2, 3))
    drawn = to_pixels(layout, "test accuracy 0.5000\n[[1,2,0], [-1,0,3]]")
    assert np.array_equal(picture(board, "network"), drawn)


def test_multi_label_scores_have_their_name(tmp_path):
    rows = [{"name": "found network", "dev": 0.75, "test": 0.5, "configuration": [[0, 0, 0]]}]
    training_run(tmp_path, {"rows": rows, "modalities": ["a", "b"], "sizes": [1, 1], "score": "weighted F1"})
    write_training(tmp_path)
    tags = set(read_back(tmp_path).Tags()["scalars"])
    assert {"epochs/dev_weighted_F1", "hparam/test_weighted_F1"} <= tags
    assert not any("accuracy" in tag for tag in tags)


def test_a_unimodal_training_is_shown_before_it_is_tested(tmp_path):
    training_run(tmp_path, {"network": "ImageLeNet", "dev_accuracy": 0.5})
    write_training(tmp_path)
    board = read_back(tmp_path)
    assert scalars(board, "epochs/train_accuracy") == {0: 0.4, 1: 0.4}
    assert scalars(board, "hparam/dev_accuracy") == {0: 0.5}
    assert "hparam/test_accuracy" not in board.Tags()["scalars"]
    assert board.Tags()["images"] == []


def test_a_drawing_fills_the_features_that_are_read():
    modalities, sizes = ("a", "b", "c", "d", "e"), (4, 3, 3, 2, 3)
    drawn = to_pixels(lay_out(((3, 2, 0, -1, 1, 3), (0, -1, 2, 0, 2, 1)), modalities, sizes), "words")
    assert drawn.dtype == np.uint8
    assert drawn.shape[2] == 3
    colours = [(31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189)]  # matplotlib's first
    shown = [(drawn == colour).all(axis=2).sum() for colour in colours]
    assert min(shown) > 100
    skipping = to_pixels(lay_out(((3, 2, 0, -1, 1, 3), (0, -1, 2, -1, 2, 1)), modalities, sizes), "words")
    assert (skipping == colours[3]).all(axis=2).sum() < shown[3] / 2  # its name alone


def test_a_full_disk_keeps_the_earlier_events(tmp_path):
    search_run(tmp_path)
    write_search(tmp_path)
    (before,) = (tmp_path / "tensorboard").iterdir()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(OSError, match="tensorboard"):
            write_search(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list((tmp_path / "tensorboard").iterdir()) == [before]


def test_without_the_package_it_says_what_to_install(monkeypatch):
    check_board()
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match="pip install tensorboard"):
        check_board()


def test_a_folder_without_a_run_is_refused(tmp_path):
    for write in (write_search, write_training):
        with pytest.raises(UsageError, match="run folder"):
            write(tmp_path)
    assert list(tmp_path.iterdir()) == []
