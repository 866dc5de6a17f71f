"""The report on a training, found or unimodal, shows the values of the run's files."""

import json

import numpy as np
import pytest
import torch

from tests.report_samples import SIZES, found_run, report, search_run, unimodal_run, update
from utils.report.classes import class_content
from utils.results import table


def test_found_network(tmp_path):
    found_run(tmp_path)
    page = report(tmp_path)
    assert "are a stand-in" in page.text
    assert "late fusion, sum of log-softmax 91.6 % 90.4 % - 12.0 s -" in page.text
    assert "found network 95.1 % 94.1 % - 1 min 35 s [[3,2,0],[3,1,1],[0,2,0],[4,2,0]]" in page.text
    assert "3.7 points ahead of late fusion, sum of log-softmax" in page.text
    assert "best_4_0.9412.checkpoint" in page.text
    assert "epoch 17" in page.text
    network, accuracy, loss, confusion, classes = page.drawings
    assert [t.text for t in network.findall("text")].count("classifier") == 1
    assert "2 · sigmoid" in [t.text for t in network.findall("text")]
    assert len(network.findall("path")) == 2 + 1 + 8  # two backbones, the fusion layers, two features for each
    assert len(accuracy.findall("polyline")) == 2
    assert len(loss.findall("polyline")) == 2
    assert len(confusion.findall("rect")) == 100
    assert len(classes.findall("rect")) == 10
    assert "Samples" in page.text


def test_test_results_of_a_found_network(tmp_path):
    found_run(tmp_path)
    lines = [
        {"modality": name, "noise": noise, "test": test}
        for name in SIZES
        for noise, test in ((None, 0.25), (2.0, 0.5), (0.5, 0.75))
    ]
    against = {"against": "audio only", "only_found_right": 31, "only_baseline_right": 12, "p": 0.0054}
    update(tmp_path / "results.json", missing=lines, mcnemar=against, f1={"macro": 0.9, "weighted": 0.875})
    page = report(tmp_path)
    assert (
        "31 test samples are classified correctly only by the found network, 12 only by the baseline (audio only)."
        in page.text
    )
    assert "p = 0.005 in favor of the found network; chance alone rarely gives" in page.text
    assert "90.0 % macro F1 on test 87.5 % weighted F1 on test" in page.text
    audio, image = page.drawings[1:3]
    assert "disturbed audio: noise 0.5 75.0 %, noise 2 50.0 %, muted 25.0 %" in audio.get("aria-label")
    assert "disturbed image" in image.get("aria-label")
    widths = [float(bar.get("width")) for bar in audio.findall("rect")]
    assert widths == [3 * widths[2], 2 * widths[2], widths[2]]
    update(tmp_path / "results.json", mcnemar=against | {"p": 0.4, "only_found_right": 11})
    assert "p = 0.400 in favor of the baseline; chance alone may give" in report(tmp_path).text
    update(tmp_path / "results.json", mcnemar=against | {"p": 1.0, "only_found_right": 12})
    assert "p = 1.000 and neither is ahead; chance" in report(tmp_path).text


def test_multi_label_scores_are_called_weighted_f1(tmp_path):
    found_run(tmp_path)
    facts = {"multi_label": True, "score": "weighted F1", "confusion": None, "f1": {"macro": 0.9, "weighted": 0.9412}}
    update(tmp_path / "results.json", **facts)
    page = report(tmp_path)
    assert {"dev weighted F1", "test weighted F1", "Weighted F1 over 20 epochs"} <= set(page.words)
    assert page.text.count("weighted F1 on test") == 0  # it is the score itself
    assert "accuracy" not in page.text
    assert "By class" not in page.words
    search_run(tmp_path / "search")
    update(tmp_path / "search/best.json", score="weighted F1", whole=False)
    page = report(tmp_path / "search")
    assert "ran out of budget" in page.text
    assert "best dev weighted F1" in page.words
    assert "accuracy" not in page.text


def test_unimodal_network(tmp_path):
    unimodal_run(tmp_path)
    page = report(tmp_path)
    assert f"Unimodal network: {tmp_path.name}" in page.words
    assert "70.0 % test accuracy 70.0 % dev accuracy AudioLeNet network 12.0 s time" in page.text
    assert len(page.drawings[0].findall("polyline")) == 3  # train, dev, test
    assert "unfinished" not in page.text
    results = json.loads((tmp_path / "results.json").read_text())
    del results["test_accuracy"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert "unfinished" in report(tmp_path).text


def test_a_found_network_in_training(tmp_path):
    found_run(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    kept = {key: results[key] for key in ("configuration", "modalities", "epochs", "best_epoch")}
    (tmp_path / "results.json").write_text(json.dumps({**kept, "rows": []}))
    page = report(tmp_path)
    assert "it is unfinished" in page.text
    assert len(page.drawings) == 3  # the network, accuracy and loss


def test_parts_that_are_missing_are_left_out(tmp_path):
    found_run(tmp_path, stand_in=False, classes=50)
    *_, confusion, first, second, third = report(tmp_path).drawings
    assert len(confusion.findall("rect")) == 2500
    assert [len(part.findall("rect")) for part in (first, second, third)] == [20, 20, 10]
    results = json.loads((tmp_path / "results.json").read_text())
    kept = {key: results[key] for key in ("configuration", "modalities", "rows", "stand_in")}
    (tmp_path / "results.json").write_text(json.dumps(kept))
    (tmp_path / "args.json").unlink()
    page = report(tmp_path)
    assert page.text.count("found network") >= 1
    assert not {"Training", "Confusion on the test split", "How it was run", "Search"} & set(page.words)
    assert "stand-in" not in page.text


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("classes", [60, 1000])
def test_many_classes_are_grouped_and_the_worst_are_named(tmp_path, classes, sparse):
    """Of class 7 everything is taken for class 8; of the others one sample of ten for the next but one."""
    found_run(tmp_path, classes=2)
    counts = 9 * np.eye(classes, dtype=int) + np.roll(np.eye(classes, dtype=int), 2, axis=1)
    counts[7] = 20 * np.eye(classes, dtype=int)[8]
    stored = counts.tolist()
    if sparse:
        labels = torch.from_numpy(np.repeat(np.arange(classes), counts.sum(1)))
        predicted = torch.from_numpy(np.concatenate([np.repeat(np.arange(classes), row) for row in counts]))
        stored = table.confusion(torch.nn.functional.one_hot(predicted, classes).float(), labels)
        assert isinstance(stored, dict) == (classes > 200)
    update(tmp_path / "results.json", confusion=stored)
    page = report(tmp_path)
    *_, confusion, least, most = page.drawings
    step = -(-classes // 50)
    assert len(confusion.findall("rect")) == (-(-classes // step)) ** 2 <= 2500
    assert f"true 0 to {step - 1}, predicted 0 to {step - 1}" in [t.text for t in confusion.iter("title")][1]
    assert f"{step} classes to a cell" in page.text
    assert "true class predicted class samples share of the true class 7 8 20 100.0 %" in page.text
    assert least.get("aria-label").startswith("Least accurate classes: class 7 0.0 % of 20, class 0 90.0 % of 10")
    assert len(most.findall("rect")) == 20
    assert f"{classes:,} of {classes:,} classes have test samples. Half reach 90.0 % or more" in page.text
    assert len(page.source) < 1_000_000


def test_a_training_that_diverged_after_one_epoch(tmp_path):
    found_run(tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    results["epochs"] = [
        {"epoch": 0, "phase": "central", "train_loss": float("nan"), "dev_loss": None, "dev_accuracy": 0.1}
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    accuracy, loss = report(tmp_path).drawings[1:3]
    assert len(accuracy.findall("polyline")) == 1
    assert loss.findall("polyline") == []


def test_names_of_classes_are_shown_as_they_are_and_cut_if_they_are_long():
    names = ("drama", "a very long name of a class")
    (figure,) = class_content([[3, 1], [0, 4]], names)["by_class"]
    assert figure.caption == "Classes drama to a very long name of a class"
    assert ">a very long…</text>" in figure.picture
    (figure,) = class_content([[3, 1], [0, 4]])["by_class"]
    assert figure.caption == "Classes 0 to 1"
