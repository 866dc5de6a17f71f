"""Export a trained network as one file that runs without this project: ONNX (`.onnx`) or `torch.export` (`.pt2`).

The file takes `features` (B, D) of any batch size B and gives `logits` (B, C).
"""

import contextlib
import copy
import importlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.errors import ProjectError, UsageError
from utils.files import whole_file
from utils.training.metrics import scores

SUFFIXES = (".onnx", ".pt2")
TOLERANCE = 1e-4  # on the difference of an output, relative to the largest output if that is above 1


class ExportError(ProjectError):
    """A network could not be exported, or the exported network gives different outputs."""


def check_export(path: Path) -> None:
    """Check before a long training that the network can be written to `path`.

    Raises:
        UsageError: the suffix is not a known format, `path` is a folder, or a package is missing.
        OSError: the folder of `path` is not writable.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--export takes a file whose name ends in {' or '.join(SUFFIXES)}, but got {path}")
    if path.is_dir():
        raise UsageError(f"--export takes a file, but {path} is a folder")
    if path.suffix == ".onnx":
        try:
            for package in ("onnx", "onnxscript"):
                importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f"--export {path} needs two more packages: pip install onnx onnxscript ({error}); .pt2 needs none"
            ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def export_network(network: nn.Module, example: Tensor, path: Path) -> str:
    """Write the network in eval mode to `path`, load the file and compare its outputs with torch's.

    Args:
        network: takes rows like the example's; is not changed. With multitask the file gives the sum of the outputs,
            from which classes are predicted.
        example: (B, D), for the comparison only; the file contains none of its values.

    Returns:
        A sentence with the result of the comparison.

    Raises:
        ExportError: the network could not be exported, or gives different outputs; an earlier file at `path` is kept.
    """
    model = _Scores(copy.deepcopy(network).cpu().eval())
    example = example.detach().cpu()
    with whole_file(path) as file:
        try:
            with torch.no_grad(), _quiet():
                file.write(_exported(model, example, path.suffix))
                file.flush()
                run = _loaded(Path(file.name).read_bytes(), path.suffix)
                difference = None if run is None else _difference(model, run, example)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # exporters may raise anything
            reason = (str(error).splitlines() or [""])[0]
            raise ExportError(f"{path} cannot be exported: {type(error).__name__}: {reason}") from error
        if difference is not None and not difference <= TOLERANCE:
            raise ExportError(f"{path} is not written: its outputs would differ from torch's by {difference:.1e}")
    if difference is None:
        return f"{path}: not compared with torch's outputs, which needs onnxruntime: pip install onnxruntime"
    return f"{path}: outputs equal torch's to {difference:.1e}"


class _Scores(nn.Module):
    """The network with one named input and one output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        return scores(self.network(features))  # (B, D) -> (B, C)


def _exported(model: nn.Module, example: Tensor, suffix: str) -> bytes:
    batch = ({0: torch.export.Dim("batch")},)
    rows = example.new_zeros(2, *example.shape[1:])  # with one row, the exporter would fix the batch size
    program = torch.export.export(model, (rows,), dynamic_shapes=batch)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains folder names of this machine
    if suffix == ".onnx":
        onnx_program = torch.onnx.export(
            program, input_names=["features"], output_names=["logits"], dynamic_shapes=batch, dynamo=True, verbose=False
        )
        assert onnx_program is not None  # with dynamo
        return onnx_program.model_proto.SerializeToString()
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def _loaded(content: bytes, suffix: str) -> Callable[[Tensor], Tensor] | None:
    """Load the exported network as a function of rows (B, D); None if onnxruntime is not installed."""
    if suffix == ".pt2":
        return torch.export.load(io.BytesIO(content)).module()
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only
    options.intra_op_num_threads = 1  # more would be pinned to cores, which prints warnings in containers
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda rows: torch.from_numpy(session.run(["logits"], {"features": rows.numpy()})[0])


def _difference(model: nn.Module, run: Callable[[Tensor], Tensor], example: Tensor) -> float:
    """Largest difference of an output at two batch sizes, relative to the largest output if that is above 1."""
    largest = torch.zeros(())
    for rows in (torch.cat([example, example]), example[:1]):
        expected, got = model(rows), run(rows)
        if got.shape != expected.shape:
            raise ValueError(f"{len(rows)} rows give outputs of shape {list(got.shape)}")
        largest = torch.maximum(largest, (got - expected).abs().max() / expected.abs().max().clamp(min=1))
    return float(largest)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Discard what exporters print, log or warn about."""
    before, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
