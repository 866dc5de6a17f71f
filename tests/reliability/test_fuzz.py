"""Readers fed with thousands of damaged and random files: each gives a sound result, or an error of the project's own.

Files are made damaged on purpose - cut, flipped, spliced, words swapped for nastier ones - as random bytes alone do
not get past a reader's first check.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, currently_in_test_context, event, example, given, settings
from hypothesis import strategies as st

from datasets.avmnist.folder import read_manifest
from datasets.avmnist.sources import read_mnist
from datasets.features import load_features
from datasets.ntu.pack import SkeletonPack
from datasets.ntu.skeleton import parse_skeleton
from tests.ntu_samples import write_skeleton
from utils.array_on_disk import ArrayOnDisk
from utils.candidates.feature_bank import _open_table, _seconds
from utils.errors import DataError, UsageError
from utils.reading import conform
from utils.report import contents
from utils.report.contents import ARGS
from utils.results.baselines import read_correct
from utils.runs.found import recorded_seconds
from utils.search.journal import read_journal
from utils.search.space import format_configuration, parse_configuration
from utils.training.checkpoints import load_state
from utils.training.resume import FORM, SavedTraining

pytestmark = pytest.mark.filterwarnings("ignore")  # what numpy and torch say of odd files
RAM = Path("/dev/shm")
PUBLISHED = [((3, 2, 0),), ((1, 1, 1), (2, 0, 0))]
fuzz = settings(
    max_examples=2000,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder in memory where there is one."""
    with tempfile.TemporaryDirectory(dir=RAM if RAM.is_dir() else None) as name:
        yield Path(name)


def damaged(base: bytes, words: list[bytes] = [b"\0", b"\xff"]) -> st.SearchStrategy[bytes]:  # noqa: B006
    """One to four changes of `base`, at places and with words of hypothesis's choice; or bytes of its own."""
    place = st.integers(0, len(base))
    written = st.sampled_from(words) | st.binary(max_size=8)
    change = st.tuples(st.sampled_from(["cut", "flip", "insert", "replace", "word", "repeat"]), place, place, written)
    return st.lists(change, min_size=1, max_size=4).map(lambda changes: functools.reduce(_changed, changes, base)) | (
        st.binary(max_size=200)
    )


def _changed(data: bytes, change: tuple[str, int, int, bytes]) -> bytes:
    kind, at, other, written = change
    at, other = min(at, len(data)), min(other, len(data))
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        return data[:at] + bytes(byte ^ (1 << other % 8) for byte in data[at : at + 1]) + data[at + 1 :]
    if kind == "insert":
        return data[:at] + written + data[at:]
    if kind == "replace":
        return data[:at] + written + data[at + len(written) :]
    if kind == "word":  # the one that begins at or after `at`
        start = len(data) - len(data[at:].lstrip())
        end = start + len((data[start:].split(None, 1) or [b""])[0])
        return data[:start] + written + data[end:]
    low, high = sorted((at, other))
    return data[:high] + data[low:]


def mutations(base: bytes, words: list[bytes], count: int = 2000) -> Iterator[bytes]:
    """As `damaged`, from a generator of fixed seed, which is far faster than hypothesis; `base` itself comes first."""
    draw = random.Random(0)
    kinds = ["cut", "flip", "insert", "replace", "word", "repeat"]
    yield base
    for _ in range(count):
        data = base
        for _ in range(draw.randint(1, 4)):
            written = draw.choice(words) if draw.random() < 0.7 else draw.randbytes(draw.randrange(8))
            data = _changed(data, (draw.choice(kinds), draw.randint(0, len(base)), draw.randint(0, len(base)), written))
        yield data


def read_or_refuse(read: Callable[[], object], error: type[Exception], path: Path | None = None) -> object:
    """What the reader gives; None where it refuses, which it must do in one line that names the file."""
    try:
        result = read()
    except error as refusal:
        result, message = None, str(refusal)
    else:
        message = f"read {path}"
    assert message
    assert message.isprintable()
    assert len(message) < 1000
    assert path is None or str(path) in message
    if currently_in_test_context():
        event("refused" if result is None else "read")
    return result


# Skeletons


def skeleton() -> bytes:
    """Three frames of one, two and no bodies."""
    joints = np.arange(150).reshape(2, 25, 3) / 7
    with tempfile.TemporaryDirectory() as name:
        write_skeleton(Path(name) / "a", [joints[:1], joints, joints[:0]])
        return (Path(name) / "a").read_bytes()


NUMBERS = [
    b"0",
    b"-1",
    b"1",
    b"2",
    b"3",
    b"24",
    b"26",
    b"999999999",
    b"9" * 30,
    b"1e400",
    b"nan",
    b"-inf",
    b"1_0",
    b"\n",
]


@fuzz
@given(data=damaged(skeleton(), NUMBERS))
def test_skeletons(folder, data):
    path = folder / "S001C001P001R001A001.skeleton"
    path.write_bytes(data)
    joints = read_or_refuse(lambda: parse_skeleton(path), DataError, path)
    if joints is not None:
        assert joints.dtype == np.float32
        assert joints.shape[::2] == (3, 25)
        assert joints.shape[3] <= 2
        assert np.isfinite(joints).all()


# IDX files


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()


IMAGES, LABELS = idx(np.arange(3 * 784).reshape(3, 28, 28)), idx(np.arange(3))
SIZES = [np.array(size, ">i4").tobytes() for size in (-1, 0, 1, 2, 28, 784, 2**31 - 1)]


@fuzz
@given(
    which=st.sampled_from(["images-idx3", "labels-idx1"]),
    plain=damaged(IMAGES[:40], SIZES) | damaged(LABELS, SIZES),
    packed=st.sampled_from(["", "whole", "damaged"]),
    tail=damaged(gzip.compress(LABELS, mtime=0)),
)
def test_idx(folder, which, plain, packed, tail):
    for old in folder.glob("train-*"):
        old.unlink()
    (folder / "train-images-idx3-ubyte").write_bytes(IMAGES)
    (folder / "train-labels-idx1-ubyte").write_bytes(LABELS)
    path = folder / f"train-{which}-ubyte"
    path.unlink()
    if packed:
        path = path.with_name(path.name + ".gz")
    path.write_bytes({"": plain, "whole": gzip.compress(plain, 1, mtime=0), "damaged": tail}[packed])
    read = read_or_refuse(lambda: read_mnist(folder, "train"), DataError, path)
    if read is not None:
        images, labels = read
        assert (images.dtype, labels.dtype) == (np.uint8, np.int64)
        assert images.shape == (len(labels), 784)
        assert len(labels)
        assert labels.max() <= 9


# --conf

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
PIECES = [b"[", b"]", b",", b"-", b"NaN", b"null", b"1e9", b'"', b"{", b"9" * 5000, b"\\u0000", b"\xed\xa0\x80"]
BEST = {
    "modalities": ["audio", "image"],
    "configurations": [{"configuration": [[3, 2, 0], [1, 0, 1]], "accuracy": 0.5}],
}


def check_configuration(configuration) -> None:
    if configuration is not None:
        assert configuration
        assert configuration[0]
        assert {(type(row), len(row)) for row in configuration} == {(tuple, len(configuration[0]))}
        assert {type(i) for row in configuration for i in row} == {int}
        assert parse_configuration(format_configuration(configuration), PUBLISHED) == configuration


@fuzz
@given(
    st.text()
    | st.from_regex(r"-?[0-9]{1,12}", fullmatch=True)
    | JSON.map(json.dumps)
    | damaged(b"[[3,2,0],[1, 0, 1]]", PIECES).map(lambda data: data.decode(errors="surrogateescape"))
)
def test_conf(folder, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        check_configuration(read_or_refuse(lambda: parse_configuration(text, PUBLISHED), UsageError))


@fuzz
@given(
    damaged(json.dumps(BEST).encode(), PIECES)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(st.sampled_from(["configurations", "seconds", "candidates_trained"]), JSON).map(
        lambda entry: json.dumps(BEST | dict([entry])).encode()
    )
    | JSON.map(lambda value: json.dumps({"configurations": [{"configuration": value}]}).encode())
)
def test_best_json(folder, data):
    path = folder / "best.json"
    path.write_bytes(data)
    check_configuration(read_or_refuse(lambda: parse_configuration(str(path), PUBLISHED), UsageError, path))


# Checkpoints

STATE = {"conv.weight": torch.arange(12.0).view(3, 4) / 7, "bn.num_batches_tracked": torch.tensor(5)}


def checkpoint(modern: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=modern)
    return buffer.getvalue()


@fuzz
@example(data=_changed(checkpoint(modern=True), ("flip", 1591, 5, b"")))  # in the name of a record
@given(data=damaged(checkpoint(modern=True)))
def test_checkpoints(folder, data):
    """Every record has a checksum, so that what is read is what was written."""
    path = folder / "model.pkl"
    path.write_bytes(data)
    read = read_or_refuse(lambda: load_state(path), UsageError, path)
    if read is not None:
        state, checksum = read
        assert state.keys() == STATE.keys()
        assert all(torch.equal(state[name], value) for name, value in STATE.items())
        assert checksum == hashlib.sha256(data).hexdigest()


@fuzz
@given(data=damaged(checkpoint(modern=False)))
def test_checkpoints_of_old(folder, data):
    """They have no checksums; what is read is at least a state_dict."""
    path = folder / "model.pkl"
    path.write_bytes(data)
    read = read_or_refuse(lambda: load_state(path), UsageError, path)
    if read is not None:
        assert all(isinstance(name, str) and value.nbytes < 10_000 for name, value in read[0].items())


# Arrays


def npy_of(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy() -> bytes:
    return npy_of(np.arange(12, dtype=np.float32).reshape(3, 4))


HEADERS = [
    *(b"'shape': (%s), }" % shape for shape in (b"-1, 4", b"3, -4", b"3,", b"", b"99999999999999999999, 4", b"0, 4")),
    *(b"'descr': '%s'," % kind for kind in (b"|O", b"<M8", b">f4", b"<f8", b"|V4", b"<f4,<f4", b"|S0", b"<U1")),
    *(b"True,", b"'fortran_order': True,", b"(", b"{", b"\x93NUMPY\x02\x00", b"\x93NUMPY\x03\x00", b"\xff\xff"),
]


@fuzz
@example(data=npy().replace(b"<f4", b"0\x01<f4"), dtypes=("float32",), inner=(4,))
@given(
    data=damaged(npy(), HEADERS),
    dtypes=st.sampled_from([("float32", "float64"), ()]),
    inner=st.sampled_from([(4,), (), (2, 2)]),
)
def test_arrays(folder, data, dtypes, inner):
    path = folder / "a.npy"
    path.write_bytes(data)
    array = read_or_refuse(lambda: ArrayOnDisk(path, dtypes, inner, DataError), DataError, path)
    if array is not None:
        assert array.shape[1:] == inner
        whole = array.read(slice(None))
        assert whole.tobytes() == data[-whole.nbytes or len(data) :]
        torch.from_numpy(whole if dtypes else whole.astype(np.int64))


def test_best_dev(folder):
    path = folder / "best_dev.npy"
    for data in mutations(npy_of(np.array([True, False, True, True])), HEADERS):
        path.write_bytes(data)
        found = read_or_refuse(lambda: read_correct(path, torch.zeros(4)), UsageError, path)
        assert found is None or (np.isfinite(found).all() and found.shape == (4,))


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


FEATURES = {name: np.arange(8.0).reshape(4, 2) for name in ("audio.0", "image.0", "image.1")}
FEATURES |= {"label": np.array([0, 1, 1, 0]), "class_names": np.array(["no", "yes"])}
FEATURES["image.modules"] = np.array(["conv1", "conv2"])


def test_features(folder):
    """Every array has a checksum, so that what is read is what was written, or a part of it."""
    for data in mutations(npz(**FEATURES), HEADERS):
        (folder / "train.npz").write_bytes(data)
        read = read_or_refuse(lambda: load_features(folder, ["train"], {}), DataError, folder)
        if read is not None:
            assert read.labels["train"].tolist() == [0, 1, 1, 0]
            assert read.checksums == {"train.npz": hashlib.sha256(data).hexdigest()}
            columns = [FEATURES[name.split()[0]] for name in read.feature_names]
            assert np.array_equal(read.rows["train"], np.concatenate(columns, axis=1))


# The pack of skeletons

JOINTS = np.arange(5 * 75, dtype=np.float32).reshape(5, 25, 3)
INDEX = {
    **{"names": np.array(["S001C001P001R001A001", "S001C001P001R001A002"]), "starts": np.array([0, 3])},
    **{"frames": np.array([3, 1]), "bodies": np.array([1, 2]), "sizes": np.array([10, 20])},
}
ODD_COLUMNS = [
    [],
    [0],
    [0, 3, 5],
    [0, -1],
    [3, 0],
    [2**62, 2**62],
    [-3, 6],
    [0.0, 3.0],
    ["0", "3"],
    [True, False],
    [[0], [3]],
]


def test_index_of_skeletons(folder):
    (folder / "joints.npy").write_bytes(npy_of(JOINTS))
    odd = [npz(**INDEX | {name: np.array(column)}) for name in INDEX for column in ODD_COLUMNS]
    for data in [*odd, *mutations(npz(**INDEX), HEADERS)]:
        (folder / "index.npz").write_bytes(data)
        check_pack(folder)


def test_joints(folder):
    (folder / "index.npz").write_bytes(npz(**INDEX))
    for data in mutations(npy_of(JOINTS), HEADERS):
        (folder / "joints.npy").write_bytes(data)
        check_pack(folder)


def check_pack(folder: Path) -> None:
    pack = read_or_refuse(lambda: SkeletonPack(folder), DataError, folder)
    if pack is not None:
        shapes = [pack.load(name).shape for name in pack.names]
        assert all(shape[::2] == (3, 25) for shape in shapes)
        assert sum(shape[1] * shape[3] for shape in shapes) == 5


# The feature bank


def test_tables_of_the_bank(folder):
    path, checksum = folder / "dev.npy", hashlib.sha256(npy()).hexdigest().encode()
    pairs = [(data, checksum) for data in mutations(npy(), HEADERS)]
    pairs += [(npy(), damaged) for damaged in mutations(checksum, [b"0", b"\n"], 100)]
    for data, beside in pairs:
        path.write_bytes(data)
        path.with_suffix(".sha256").write_bytes(beside)
        table = _open_table(path, (3, 4), report=False)
        assert (table is not None) == ((data, beside) == (npy(), checksum))


def test_seconds_of_the_bank(folder):
    path = folder / "seconds.json"
    for data in altered({"seconds": 12.5}):
        path.write_bytes(data)
        assert 0 <= _seconds(path) < float("inf")


# Saved trainings

SAVED = {
    **{"format": 3, "seconds": 1.5, "model": dict(STATE), "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
    **{
        "lines": [{"epoch": 0, "dev_accuracy": 0.5}],
        "best": dict(STATE),
        "unit": (1, 0),
        "configurations": [((0, 1),)],
    },
    "results": {
        "history": torch.full((1, 1), 0.5),
        "best": torch.ones(1),
        "correct": torch.ones(1, 2),
        "weights": {0: dict(STATE)},
    },
    "shared": {(3, 0): dict(STATE)},
}
TENSORS = [
    torch.zeros(1).expand(10**6, 10**6),
    torch.zeros(2, device="meta"),
    torch.zeros(2, 2),
    torch.eye(3).to_sparse(),
]


def saved(values: object, modern: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer, _use_new_zipfile_serialization=modern)
    return buffer.getvalue()


def test_saved_trainings(folder):
    """What is damaged is reported and left out."""
    odd = [saved(with_value(SAVED, place, value)) for place in places(SAVED) for value in [*ODD, *TENSORS, (1, 2, 3)]]
    whole = saved(SAVED)
    refused = 0
    for data in [*odd, *mutations(whole, [b"\0", b"\xff"]), *mutations(saved(SAVED, modern=False), [b"\0", b"\xff"])]:
        (folder / "state.checkpoint").write_bytes(data)
        with contextlib.redirect_stderr(io.StringIO()) as said:
            values = SavedTraining(folder).values
        if values:
            assert not said.getvalue()
            conform(values, FORM)
        else:
            refused += 1
            (line,) = said.getvalue().splitlines()
            assert line.startswith("warning: ")
            assert str(folder / "state.checkpoint") in line
    assert refused > 3000


# Files of a run, and the manifest

DIFFERENCE = {"mean": 0.1, "low": 0.0, "high": 0.2, "confidence": 0.95, "resamples": 100}
RANKED = {"configurations": [{"configuration": [[1, 0, 1]], "accuracy": 0.5}], "candidates_trained": 3}
FILES: dict[str, tuple[dict, dict]] = {
    "args.json": (
        {"script": "a.py", "command": "a.py", "settings": {"epochs": 3}, "inputs": {}, "versions": {"torch": "2"}},
        ARGS,
    ),
    "best.json": (
        BEST | RANKED | {"seconds_by_part": {"training": 1.5}, "random": RANKED | {"accuracies": [0.5]}}
        | {"baselines": [{"name": "audio only", "dev": 0.5, "difference": DIFFERENCE}], "sizes": [5, 3]},
        contents.BEST,
    ),
    "results.json": (
        {
            **{"configuration": [[1, 0, 1]], "modalities": ["audio", "image"], "best_epoch": 0, "stand_in": False},
            **{"rows": [{"name": "found network", "dev": None, "test": 0.5}], "confusion": [[3, 1], [0, 2]]},
            **{"epochs": [{"epoch": 0, "dev_accuracy": 0.5, "phase": "all"}], "f1": {"macro": 0.5}},
            **{"missing": [{"modality": "audio", "noise": None, "test": 0.5}], "seconds": 1.5},
        },
        contents.RESULTS,
    ),
}  # fmt: skip


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all values in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def with_value(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    changed = list(value) if isinstance(value, list) else dict(value)
    changed[path[0]] = with_value(value[path[0]], path[1:], new)
    return changed


DEEP = [[[0]] * 2]
for _ in range(40):
    DEEP = [DEEP]
ODD = [
    None,
    True,
    -1,
    0,
    10**15,
    2**64,
    0.5,
    -1e300,
    "",
    "\n\0",
    "\ud800",
    "9" * 400,
    [],
    [1, "a"],
    {},
    {"a": [1]},
    DEEP,
]


def altered(value: dict) -> Iterator[bytes]:
    """JSON with each of its values replaced by odd ones, and with damaged bytes."""
    for place in places(value):
        for odd in [*ODD, float("nan"), float("inf")]:
            yield json.dumps(with_value(value, place, odd)).encode()
    yield from mutations(json.dumps(value).encode(), [*PIECES, b"1e999", b"-", b"true"])


@pytest.mark.parametrize("name", FILES)
def test_files_of_a_run(folder, name):
    (folder / "run").mkdir(exist_ok=True)
    path = folder / "run" / name
    content, form = FILES[name]
    path.write_text(json.dumps(content))
    assert getattr(contents.read_files(path.parent), path.stem) == content
    for data in altered(content):
        path.write_bytes(data)
        files = read_or_refuse(lambda: contents.read_files(path.parent), UsageError, path)
        if files is not None:
            conform(getattr(files, path.stem), form)
    path.unlink()


def test_manifests(folder):
    path = folder / "manifest.json"
    for data in altered({"format": "avmnist", "version": 1, "stand_in": False, "splits": {"train": {"count": 3}}}):
        path.write_bytes(data)
        manifest = read_or_refuse(lambda: read_manifest(folder), DataError, path)
        assert manifest is None or isinstance(manifest.get("stand_in", False), bool)


def test_results_beside_a_checkpoint(folder):
    path = folder / "model.json"
    for data in altered({"seconds": 12.5, "configuration": [[1, 0, 1]]}):
        path.write_bytes(data)
        seconds = read_or_refuse(lambda: recorded_seconds([folder / "model.pkl"]), UsageError, path)
        assert seconds is None or seconds == [None] or seconds[0] >= 0


# Journals

JOURNAL = [
    {"kind": "header", "format": 1, "search": "sequential", "sizes": [5, 3]},
    {"kind": "candidate", "step": 0, "configuration": [[3, 2, 0]], "accuracies": [0.5, 1], "seconds": 0.1},
    {"kind": "candidate", "step": 0, "configuration": [[1, 0, 1]], "accuracies": [], "seconds": 2, "failed": "NaN"},
    {"kind": "step", "step": 0, "candidates": 2, "temperature": 10.0},
]
ENTRIES = st.tuples(
    st.sampled_from(["kind", "format", "step", "configuration", "accuracies", "seconds", "failed"]), JSON
)
LINES = [json.dumps(line).encode() + b"\n" for line in JOURNAL]
WORDS = [*PIECES, *LINES, b"\n", b"\r", b"\xe2\x80\xa8", b"{}\n", b"-1", b"1e999", b"true"]


@fuzz
@given(
    damaged(b"".join(LINES), WORDS)
    | st.tuples(st.integers(0, 3), ENTRIES).map(
        lambda change: b"".join(
            json.dumps(line | (dict([change[1]]) if number == change[0] else {})).encode() + b"\n"
            for number, line in enumerate(JOURNAL)
        )
    )
)
def test_journals(folder, data):
    path = folder / "journal.jsonl"
    path.write_bytes(data)
    read = read_or_refuse(lambda: read_journal(path), UsageError, path)
    if read is not None:
        lines, size = read
        assert data[:size].endswith(b"\n" if size else b"")
        assert b"\n" not in data[size:].strip(b"\n")
        assert len(lines) == data[:size].count(b"\n")
        assert not lines or (lines[0]["kind"], lines[0]["format"]) == ("header", 1)
        for line in lines:
            if line["kind"] == "candidate":
                assert all(isinstance(index, int) for row in line["configuration"] for index in row)
                assert all(accuracy == accuracy for accuracy in line["accuracies"])
                assert line["accuracies"] or line["failed"]
