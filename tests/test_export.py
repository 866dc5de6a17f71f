"""An exported network gives the trained one's outputs at any batch size, and is written completely or not at all."""

import logging
import re
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from models.fusion import FeatureLayout, FeatureNetwork, HeadSettings
from utils.errors import UsageError
from utils.results import export
from utils.results.export import ExportError, check_export, export_network
from utils.training.metrics import scores

LAYOUT = FeatureLayout(widths=((8, 16), (4, 8, 12), (5,)), num_outputs=7)
CONFIGURATION = ((0, 2, 0, 0), (-1, 1, -1, 3), (1, -1, 0, 2), (0, 0, 0, 1))  # every activation, modalities left out

pytestmark = pytest.mark.slow


def trained(**settings) -> FeatureNetwork:
    """A network in train mode whose batch norm has seen data."""
    torch.manual_seed(0)
    head = HeadSettings(LAYOUT.num_outputs, inner_size=16, dropout=0.5, **{"batchnorm": True} | settings)
    network = FeatureNetwork(CONFIGURATION, LAYOUT, head)
    for _ in range(5):
        network(rows(32))
    return network


def rows(count: int) -> torch.Tensor:
    return 3 * torch.randn(count, LAYOUT.total) + 1


def needs(path: Path, *packages: str) -> None:
    if path.suffix == ".onnx":
        for package in packages:
            pytest.importorskip(package, reason=f"ONNX needs {package}, which is not installed")


def load(path: Path):
    """Load the file as a function of rows, without the project's code."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["features"]
    assert [value.name for value in session.get_outputs()] == ["logits"]
    assert [value.shape for value in session.get_inputs()] == [["batch", LAYOUT.total]]
    return lambda features: torch.from_numpy(session.run(None, {"features": features.numpy()})[0])


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("settings", [{}, {"batchnorm": False, "multitask": True}], ids=["plain", "multitask"])
def test_outputs_equal_torchs_at_any_batch_size(tmp_path, capfd, suffix, settings):
    path = tmp_path / "new" / f"found{suffix}"
    needs(path, "onnx", "onnxscript", "onnxruntime")
    network = trained(**settings)
    check_export(path)
    sentence = export_network(network, rows(5), path)

    assert capfd.readouterr() == ("", "")
    match = re.fullmatch(rf"{re.escape(str(path))}: outputs equal torch's to (\d\.\de[-+]\d\d)", sentence)
    assert float(match[1]) < 1e-5
    assert network.training  # as it was
    assert list(path.parent.iterdir()) == [path]  # no weights beside it
    run = load(path)
    network.eval()
    for count in (1, 2, 5, 33):
        features = rows(count)
        with torch.no_grad():
            torch.testing.assert_close(run(features), scores(network(features)), rtol=0, atol=1e-5)


def test_output_of_exporters_is_not_shown(tmp_path, monkeypatch, capfd, caplog):
    exported = export._exported

    def chatty(*args):
        print("progress")
        print("progress", file=sys.stderr)
        warnings.warn("this will change", FutureWarning, stacklevel=1)
        logging.getLogger("exporter").error("unusual")
        return exported(*args)

    monkeypatch.setattr(export, "_exported", chatty)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_network(trained(), rows(3), tmp_path / "found.pt2")
    assert capfd.readouterr() == ("", "")
    logging.getLogger("exporter").error("heard again")
    assert "unusual" not in caplog.messages
    assert caplog.messages[-1] == "heard again"
    print("heard again")
    assert capfd.readouterr().out == "heard again\n"


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_the_file_contains_neither_folder_names_nor_the_example(tmp_path, suffix):
    path = tmp_path / f"found{suffix}"
    needs(path, "onnx", "onnxscript")
    example = rows(1)
    export_network(trained(), example, path)
    content = path.read_bytes()
    if suffix == ".pt2":
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    assert str(Path(__file__).parents[1]).encode() not in content
    assert example.numpy().tobytes()[:64] not in content


def test_a_faulty_export_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "found.pt2"
    path.write_bytes(b"an older one")
    network = trained()
    monkeypatch.setattr(export, "_loaded", lambda content, suffix: lambda x: network.eval()(x) + 0.5)
    with pytest.raises(ExportError, match=r"found\.pt2 is not written: .* differ from torch's by \d"):
        export_network(network, rows(4), path)
    monkeypatch.setattr(export, "_loaded", lambda content, suffix: lambda x: network.eval()(x) * float("nan"))
    with pytest.raises(ExportError, match="by nan"):
        export_network(network, rows(4), path)
    monkeypatch.setattr(export, "_loaded", lambda content, suffix: lambda x: network.eval()(x)[:1])
    with pytest.raises(ExportError, match=r"cannot be exported: ValueError: 8 rows give"):
        export_network(network, rows(4), path)
    assert path.read_bytes() == b"an older one"
    assert list(tmp_path.iterdir()) == [path]


def test_without_onnxruntime_it_says_that_nothing_was_compared(tmp_path, monkeypatch):
    path = tmp_path / "found.onnx"
    needs(path, "onnx", "onnxscript")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "not compared" in export_network(trained(), rows(2), path)
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_reported_before_the_training(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match="pip install onnx onnxscript"):
        check_export(tmp_path / "found.onnx")
    check_export(tmp_path / "found.pt2")


def test_unwritable_paths_are_reported_before_the_training(tmp_path):
    for name in ("found", "found.pt", "found.onnx.data"):
        with pytest.raises(UsageError, match=r"\.onnx or \.pt2, but got .*found"):
            check_export(tmp_path / name)
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_export(tmp_path / "folder.pt2")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_export(tmp_path / "file" / "found.pt2")
