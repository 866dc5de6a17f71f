"""Bad inputs, a row of the tables each: the script, its flags, what is made wrong, exit code and words of the message.

The scripts run in this process, as importing torch takes longer than a test may; three rows run as a user's would.
Every row must end in seconds with one line that begins with `error:`, no traceback, and no file written or changed.
"""

import importlib
import json
import os
import pickle
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from models.fusion import AudioImageNetwork, HeadSettings
from models.hcn import SkeletonNet
from models.lenet import AudioLeNet, ImageLeNet
from tests.ntu_samples import write_samples
from utils import cli
from utils.training.checkpoints import save_state

TRAIN, TEST, SECONDS = 48, 12, 5.0
DATA, CHECKPOINTS = Path("data/avmnist"), Path("checkpoints/avmnist")  # where the scripts look by default
AUDIO, IMAGE, FOUND = (CHECKPOINTS / name for name in ("audio_model.pkl", "image_model.pkl", "found.checkpoint"))
BEST, TRACE = Path("best.json"), Path("trace")
Damage = Callable[[], object] | None  # done in the folder of the run


def write_home(folder: Path) -> None:
    """A small AV-MNIST with its manifest, checkpoints of random networks, and the best.json of a search."""
    splits = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        labels = np.arange(count) % 10
        for kind, array in (
            ("image", np.ones((count, 784), np.float32)),
            ("audio", np.ones((count, 112, 112), np.uint8)),
        ):
            (folder / DATA / kind).mkdir(parents=True, exist_ok=True)
            np.save(folder / DATA / f"{kind}/{part}_data.npy", array)
        np.save(folder / DATA / f"{part}_labels.npy", labels)
        splits[part] = {"count": count, "per_class": np.bincount(labels, minlength=10).tolist()}
    (folder / DATA / "manifest.json").write_text(json.dumps({"format": "avmnist", "version": 1, "splits": splits}))
    save_state(folder / AUDIO, AudioLeNet().state_dict())
    save_state(folder / IMAGE, ImageLeNet().state_dict())
    save_state(folder / FOUND, found_state())
    best = {"modalities": ["audio", "image"], "configurations": [{"configuration": [[3, 2, 0]], "accuracy": 0.5}]}
    (folder / BEST).write_text(json.dumps(best))


def found_state(rows=((3, 2, 0),), **settings) -> dict[str, torch.Tensor]:
    """The checkpoint that `TEST_CP` fits, unless settings differ."""
    return AudioImageNetwork(rows, HeadSettings(**{"num_outputs": 10, "inner_size": 8} | settings)).state_dict()


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> dict[str, Path]:
    """What the rows damage a copy of, made once: for AV-MNIST, and on first use for NTU."""
    home = tmp_path_factory.mktemp("home")
    write_home(home)
    return {"avmnist": home}


@pytest.fixture
def home(homes, tmp_path, monkeypatch) -> Path:
    """A copy of the small AV-MNIST, and the working folder."""
    shutil.copytree(homes["avmnist"], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ntu_home(homes, tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """A copy of a small NTU of two classes, with checkpoints of random networks."""
    if "ntu" not in homes:
        homes["ntu"] = tmp_path_factory.mktemp("ntu")
        write_samples(homes["ntu"] / "data/ntu", classes=2, subjects=1, vid_dim=32, frames=(8, 10), halves=False)
        save_state(homes["ntu"] / CP32, SkeletonNet(60).state_dict())
        save_state(homes["ntu"] / CP8, {"classifier.weight": torch.zeros(60, 2048)})
    shutil.copytree(homes["ntu"], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refuses(monkeypatch, capsys):
    """Damage the working folder, run a script in it in this process, and check how it refuses."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def check(script: str, flags: str | tuple[str, ...], damage: Damage, code: int, words: str) -> None:
        if damage is not None:
            damage()
        before = snapshot()
        main = importlib.import_module(script.removesuffix(".py")).main
        flags = flags.split() if isinstance(flags, str) else flags
        monkeypatch.setattr(sys, "argv", [script, *flags, "--no-verbose"])
        capsys.readouterr()
        started = time.process_time()
        with pytest.raises(SystemExit) as stopped:
            cli.run(main)
        seconds = time.process_time() - started
        error = capsys.readouterr().err
        assert stopped.value.code == code, error
        check_message(error, words)
        assert seconds < SECONDS
        assert snapshot() == before
        assert not TRACE.exists()

    yield check
    for number, handler in handlers.items():
        signal.signal(number, handler)


def check_message(error: str, words: str) -> None:
    """One line that begins with `error:` and has the words."""
    (line,) = error.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert len(line) < 1000


def snapshot() -> dict[str, object]:
    """All but locks in the working folder: size and time of change by name; of folders, that they are there."""
    paths = {str(path): path.stat() for path in Path().rglob("*") if path.name != ".lock"}
    return {name: (stat.st_size, stat.st_mtime_ns) if not Path(name).is_dir() else None for name, stat in paths.items()}


# Ways to damage a file, as functions of nothing that the tables hold.


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
    """Write a changed array."""
    return lambda: np.save(DATA / name, change(np.load(DATA / name)))


def put(name: str, place: object, value: object) -> Callable[[], None]:
    """Set some numbers of an array."""

    def change(held: np.ndarray) -> np.ndarray:
        held[place] = value
        return held

    return array(name, change)


def content(path: Path, change: Callable[[bytes], bytes]) -> Callable[[], int]:
    """Write changed bytes."""
    return lambda: path.write_bytes(change(path.read_bytes()))


def text(path: Path, written: str) -> Callable[[], int]:
    return lambda: path.write_text(written)


def state(path: Path, value: object) -> Callable[[], None]:
    """Save something as a checkpoint, as whoever made it would."""
    return lambda: torch.save(value() if callable(value) else value, path)


def each(*damages: Callable[[], object]) -> Callable[[], None]:
    def all_of_them() -> None:
        for damage in damages:
            damage()

    return all_of_them


def shorter(part: str, count: int) -> Callable[[], None]:
    """Keep the first samples of all arrays of a part."""
    names = (f"image/{part}_data.npy", f"audio/{part}_data.npy", f"{part}_labels.npy")
    return each(*(array(name, lambda held: held[:count]) for name in names))


def pipe(path: Path) -> Callable[[], None]:
    """Put a named pipe, which nobody writes to, in the place of a file."""
    return each(path.unlink, lambda: os.mkfifo(path))


def no_manifest() -> None:
    (DATA / "manifest.json").unlink()


def flip(held: bytes) -> bytes:
    """One bit of the weights, which lie behind the names."""
    at = len(held) // 2
    return held[:at] + bytes([held[at] ^ 4]) + held[at + 1 :]


class Runs:
    """Unpickling this would create a file."""

    def __reduce__(self):
        return open, (str(TRACE), "w")


def worse(value: float, name: str = "conv1.weight") -> dict[str, torch.Tensor]:
    """The image network with one weight changed."""
    weights = ImageLeNet().state_dict()
    weights[name].view(-1)[3] = value
    return weights


def archive() -> None:
    with zipfile.ZipFile(DATA / "image/train_data.npy", "w") as file:
        file.writestr("a.npy", b"")


GEN, IMG, AUD = "avmnist_gen.py", "train_image.py", "train_audio.py"
SEARCH, FIND = "main_searchable_avmnist.py", "main_found_avmnist.py"
TEST_CP = "--conf [[3,2,0]] --inner_representation_size 8 --test_cp found.checkpoint"
IMAGES, SOUNDS, LABELS = "image/train_data.npy", "audio/train_data.npy", "train_labels.npy"

ARRAYS = {
    "label too high": (IMG, "", put(LABELS, 5, 12), 2, f"{DATA / LABELS}: labels must lie in 0..9"),
    "label below 0": (FIND, "", put("test_labels.npy", 5, -1), 2, "test_labels.npy: labels must lie in 0..9"),
    "fewer outputs": (SEARCH, "--num_outputs 5", None, 2, "labels must lie in 0..4, but range from 0 to 9"),
    "float labels": (AUD, "", array(LABELS, lambda a: a.astype(float)), 2, "must hold an integer type of shape (N, )"),
    "labels in columns": (IMG, "", array(LABELS, lambda a: a[:, None]), 2, "but holds int64 of shape (48, 1)"),
    "time labels": (IMG, "", array(LABELS, lambda a: a.astype("m8[s]")), 2, "but holds timedelta64[s]"),
    "float16 images": (SEARCH, "", array(IMAGES, lambda a: a.astype("f2")), 2, "must hold float32 or float64 of shape"),
    "square images": (IMG, "", array(IMAGES, lambda a: a.reshape(-1, 28, 28)), 2, "float32 of shape (48, 28, 28)"),
    "other byte order": (IMG, "", array(IMAGES, lambda a: a.astype(">f4")), 2, "but holds >f4"),
    "Fortran order": (
        FIND,
        "",
        array(IMAGES, np.asfortranarray),
        2,
        f"{DATA / IMAGES} must hold its samples in C order",
    ),
    "float spectrograms": (AUD, "", array(SOUNDS, np.float32), 2, "must hold uint8 of shape (N, 112, 112)"),
    "small spectrograms": (SEARCH, "", array(SOUNDS, lambda a: a[:, ::4, ::4]), 2, "uint8 of shape (48, 28, 28)"),
    "counts differ": (FIND, "", array(SOUNDS, lambda a: a[:-1]), 2, "equal in number, but there are 48, 47 and 48"),
    "NaN image": (IMG, "", put(IMAGES, (17, 3), np.nan), 2, f"{DATA / IMAGES}: pixels must be finite numbers, but"),
    "infinite image": (SEARCH, "", put("image/test_data.npy", (9, 0), np.inf), 2, "those of sample 9 are not"),
    "cut array": (AUD, "", content(DATA / SOUNDS, lambda b: b[:-1]), 2, f"{DATA / SOUNDS} is not a complete .npy file"),
    "long array": (IMG, "", content(DATA / IMAGES, lambda b: b + b"\0"), 2, "150656 bytes expected, 150657 found"),
    "empty array file": (
        SEARCH,
        "",
        content(DATA / LABELS, lambda b: b""),
        2,
        f"{DATA / LABELS} is not a complete .npy",
    ),
    "array that runs code": (
        IMG,
        "",
        lambda: np.save(DATA / LABELS, np.array([Runs()] * TRAIN), allow_pickle=True),
        2,
        f"{DATA / LABELS} is not a complete .npy file",
    ),
    "npz for npy": (FIND, "", archive, 2, f"{DATA / IMAGES} is not a complete .npy file"),
    "no array": (
        AUD,
        "",
        (DATA / SOUNDS).unlink,
        2,
        f"{DATA / SOUNDS} is missing; build the data set with avmnist_gen",
    ),
    "no data set": (SEARCH, "--datadir none", None, 2, "avmnist_gen.py --datadir none"),
    "data set is a file": (IMG, f"--datadir {BEST}", None, 2, f"{BEST} is not a folder"),
    "array is a folder": (
        IMG,
        "",
        each((DATA / LABELS).unlink, (DATA / LABELS).mkdir),
        1,
        f"{DATA / LABELS}: Is a directory",
    ),
    "manifest cut": (IMG, "", content(DATA / "manifest.json", lambda b: b[:-9]), 2, "manifest.json is damaged"),
    "manifest is a list": (FIND, "", text(DATA / "manifest.json", "[]"), 2, "manifest.json is damaged"),
    "manifest of more": (
        SEARCH,
        "",
        shorter("train", 36),
        2,
        "manifest.json does not match the files: it states {'count'",
    ),
    "manifest of other classes": (AUD, "", put("test_labels.npy", 0, 1), 2, "does not match the files"),
    "manifest without counts": (
        IMG,
        "",
        text(DATA / "manifest.json", '{"format": "avmnist"}'),
        2,
        "it states None for",
    ),
    "manifest of odd types": (
        IMG,
        "",
        text(DATA / "manifest.json", '{"stand_in": "no"}'),
        2,
        "stand_in must be true or false, but is 'no'",
    ),
    "manifest nested deeply": (AUD, "", text(DATA / "manifest.json", "[" * 99999), 2, "nested more than 32 deep"),
    "manifest is a pipe": (IMG, "", pipe(DATA / "manifest.json"), 2, "manifest.json must be a regular file, but is"),
    "labels are a pipe": (AUD, "", pipe(DATA / LABELS), 2, f"{DATA / LABELS} must be a regular file, but is a named"),
    "images are a pipe": (SEARCH, "", pipe(DATA / IMAGES), 2, f"{DATA / IMAGES} must be a regular file, but is a name"),
    "empty dev": (IMG, "", each(no_manifest, shorter("train", 11)), 2, "the dev split is empty; at least 12 training"),
    "empty test": (FIND, "", each(no_manifest, shorter("test", 0)), 2, "the test split is empty"),
    "empty train": (SEARCH, "", each(no_manifest, shorter("train", 0)), 2, "the train split is empty"),
    "one class in train": (
        SEARCH,
        "",
        each(no_manifest, put(LABELS, slice(0, 44), 3)),
        2,
        "the train split must hold two classes or more, but has class 3 only (44 samples)",
    ),
    "one class in dev": (AUD, "", each(no_manifest, put(LABELS, slice(44, 48), 7)), 2, "dev split must hold two"),
    "one class in test": (FIND, "", each(no_manifest, put("test_labels.npy", ..., 0)), 2, "has class 0 only (12 sam"),
    "one class by a limit": (
        IMG,
        "--limit_dev 3",
        each(no_manifest, put(LABELS, slice(44, 47), 7)),
        2,
        "has class 7 only (3 samples); use a larger --limit_dev",
    ),
}

CHECKPOINT = {
    "other channels": (SEARCH, "--channels 4", None, 2, f"{AUDIO} does not fit this AudioLeNet"),
    "other channels, advice": (FIND, "--channels 4", None, 2, "it was trained with --channels 3"),
    "other inner size": (FIND, f"{TEST_CP} --inner_representation_size 9", None, 2, "--inner_representation_size 8"),
    "batch norm asked for": (FIND, f"{TEST_CP} --batchnorm", None, 2, "it was trained with no --batchnorm"),
    "batch norm held": (
        FIND,
        TEST_CP,
        state(FOUND, lambda: found_state(batchnorm=True)),
        2,
        "trained with --batchnorm",
    ),
    "other outputs": (FIND, TEST_CP, state(FOUND, lambda: found_state(num_outputs=7)), 2, "with --num_outputs 7"),
    "other configuration": (FIND, f"{TEST_CP} --conf [[1,1,0]]", None, 2, "a --conf of 1 layers that read 36 features"),
    "one network for another": (FIND, "--audio_cp image_model.pkl", None, 2, "does not fit this AudioLeNet: it lacks"),
    "unimodal for found": (FIND, "--test_cp image_model.pkl", None, 2, "does not fit this AudioImageNetwork"),
    "vector for matrix": (
        FIND,
        TEST_CP,
        state(FOUND, lambda: found_state() | {"central_classifier.weight": torch.zeros(8)}),
        2,
        "holds central_classifier.weight of shape (8,) where",
    ),
    "NaN weight": (SEARCH, "", state(IMAGE, lambda: worse(np.nan)), 2, f"{IMAGE} holds numbers that are not finite in"),
    "infinite statistic": (FIND, "", state(IMAGE, lambda: worse(np.inf, "bn2.running_var")), 2, "in bn2.running_var"),
    "empty": (SEARCH, "", content(AUDIO, lambda b: b""), 2, f"{AUDIO} is not a readable checkpoint: it is damaged"),
    "cut": (FIND, "", content(AUDIO, lambda b: b[: len(b) // 2]), 2, f"{AUDIO} is damaged"),
    "bit flipped": (SEARCH, "", content(AUDIO, flip), 2, f"{AUDIO} is damaged: its checksum is wrong"),
    "bit flipped in a found one": (
        FIND,
        TEST_CP,
        content(FOUND, flip),
        2,
        f"{FOUND} is damaged: its checksum is wrong",
    ),
    "web page": (FIND, "", text(IMAGE, "<html>not found</html>\n" * 99), 2, f"{IMAGE} is not a readable checkpoint"),
    "would run code": (SEARCH, "", state(IMAGE, {"conv1.weight": Runs()}), 2, "or holds more than tensors"),
    "pickle that would run code": (
        FIND,
        "",
        lambda: IMAGE.write_bytes(pickle.dumps({"conv1.weight": Runs()}, protocol=2)),
        2,
        "or holds more than tensors",
    ),
    "list": (SEARCH, "", state(AUDIO, [1, 2]), 2, "must hold a state_dict (tensors by name), but holds a list"),
    "whole training": (FIND, "", state(AUDIO, {"epoch": 3}), 2, "must hold a state_dict (tensors by name)"),
    "sparse": (FIND, "", state(AUDIO, {"w": torch.eye(3).to_sparse()}), 2, "must hold a state_dict"),
    "pipe": (SEARCH, "", pipe(AUDIO), 2, f"{AUDIO} must be a regular file, but is a named pipe"),
    "expanded to terabytes": (
        SEARCH,
        "",
        state(AUDIO, lambda: AudioLeNet().state_dict() | {"conv1.weight": torch.zeros(1).expand(10**6, 10**6)}),
        2,
        "in which 'conv1.weight' is torch.float32 (1000000, 1000000), stored in 4 bytes",
    ),
    "integers for weights": (
        FIND,
        "",
        state(IMAGE, lambda: {name: value.long() for name, value in ImageLeNet().state_dict().items()}),
        2,
        f"{IMAGE} must hold conv1.weight as torch.float32, but holds torch.int64",
    ),
    "complex weights": (
        SEARCH,
        "",
        state(IMAGE, lambda: worse(1) | {"w": torch.zeros(2) + 0j}),
        2,
        "'w' is torch.complex64",
    ),
    "not there": (SEARCH, "", IMAGE.unlink, 2, f"checkpoint {IMAGE} does not exist"),
    "none there": (FIND, "--checkpointdir none", None, 2, "checkpoint none/audio_model.pkl does not exist"),
    "tested one not there": (FIND, "--test_cp none.pkl", None, 2, "none.pkl does not exist"),
    "folder for file": (SEARCH, "--rgb_cp .", None, 1, "checkpoints/avmnist: Is a directory"),
    "file for folder": (SEARCH, f"--checkpointdir {BEST}", None, 1, f"{BEST}/audio_model.pkl: Not a directory"),
}


def best(**changed: object) -> Callable[[], int]:
    """Change entries of best.json."""
    return lambda: BEST.write_text(json.dumps(json.loads(BEST.read_text()) | changed))


CONF = {
    "no such number": (FIND, "--conf 5", None, 2, "--conf takes the published configurations 0 to 4, but got 5"),
    "below 0": (FIND, "--conf=-1", None, 2, "published configurations 0 to 4, but got -1"),
    "nothing": (FIND, ("--conf", ""), None, 2, "--conf is empty"),
    "no such feature": (FIND, "--conf [[5,0,0]]", None, 2, "0 to 3, but got [5, 0, 0]"),
    "two numbers a row": (FIND, "--conf [[3,2]]", None, 2, "a configuration row is 3 numbers, 0 to 4,"),
    "unequal rows": (FIND, "--conf [[3,2,0],[1]]", None, 2, "a configuration is a list of rows of numbers"),
    "bracket": (FIND, "--conf [[3,2,0]", None, 2, "--conf takes rows such as [[3,2,0],[2,0,1]], but got"),
    "no file": (FIND, "--conf none.json", None, 2, "there is no file none.json"),
    "file cut": (FIND, f"--conf {BEST}", content(BEST, lambda b: b[:-3]), 2, f"{BEST} is not a search's best.json"),
    "file of bytes": (FIND, f"--conf {BEST}", content(BEST, lambda b: b"\xff" + b), 2, "is not a search's best.json"),
    "file of something else": (FIND, "--conf data/avmnist/manifest.json", None, 2, "'configurations'"),
    "file without any": (FIND, f"--conf {BEST}", best(configurations=[]), 2, "it lists no configuration"),
    "file of another data set": (
        FIND,
        f"--conf {BEST}",
        best(modalities=["skeleton", "rgb"]),
        2,
        "is from a search over ['skeleton', 'rgb'], but this script fuses ['audio', 'image']",
    ),
    "file of odd seconds": (FIND, f"--conf {BEST}", best(seconds="12"), 2, "seconds must be a number of at least 0"),
    "file that is a pipe": (FIND, f"--conf {BEST}", pipe(BEST), 2, f"{BEST} must be a regular file, but is a named"),
    "file nested deeply": (FIND, f"--conf {BEST}", text(BEST, "[" * 99999), 2, f"{BEST} is not a search's best.json"),
}


def file_in_run(name: str, written: str) -> Callable[[], object]:
    """A run folder that holds one file."""
    return each(Path("run").mkdir, text(Path("run") / name, written))


FLAGS = {
    "no epochs": (
        IMG,
        "--epochs 0",
        None,
        2,
        "argument --epochs: must be a whole number from 1 to 1,000,000, but got 0",
    ),
    "negative rate": (AUD, "--lr=-1", None, 2, "argument --lr: must be a number above 0 and up to 1,000, but got"),
    "rate of NaN": (AUD, "--lr nan", None, 2, "argument --lr: must be a number above 0 and up to 1,000, but got"),
    "rates in the wrong order": (SEARCH, "--eta_min 1", None, 2, "eta_min <= eta_max must hold, but got eta_min=1.0"),
    "all dropped": (SEARCH, "--drpt 1", None, 2, "argument --drpt: must lie in 0 <= p < 1"),
    "no temperature": (
        SEARCH,
        "--initial_temperature 0",
        None,
        2,
        "argument --initial_temperature: must be a number above 0 and up to",
    ),
    "batch of one": (FIND, "--batchnorm --batchsize 43", None, 2, "44 samples in batches of 43 leave one over"),
    "negative seed": (IMG, "--seed=-1", None, 2, "argument --seed: must be a whole number from 0 to"),
    "negative workers": (SEARCH, "--num_workers=-1", None, 2, "must be a whole number from 0 to 1,024, but got -1"),
    "words for a number": (
        AUD,
        "--limit_train many",
        None,
        2,
        "must be a whole number from 1 to 1,000,000,000, but got many",
    ),
    "a file for its folder": (
        SEARCH,
        f"--datadir {IMAGE}",
        None,
        2,
        f"{IMAGE} is not a folder; did you mean {IMAGE.parent}?",
    ),
    "abbreviation": (SEARCH, "--lr 0.1", None, 2, "unrecognized argument --lr; did you mean --eta_max?"),
    "start of a flag": (FIND, "--epoch 3", None, 2, "unrecognized argument --epoch; did you mean --epochs?"),
    "unknown flag of one that needs others": (
        "main_found_features.py",
        "--datdir D",
        None,
        2,
        "unrecognized argument --datdir; did you mean --datadir?",
    ),
    "unlike any flag": (IMG, "--x 3", None, 2, "unrecognized argument --x; --help lists all flags"),
    "no flag": (IMG, "three", None, 2, "unrecognized argument three; --help lists all flags"),
    "unknown flag": (IMG, "--epoches 3", None, 2, "unrecognized argument --epoches; did you mean --epochs?"),
    "no CUDA": (FIND, "--device cuda", None, 2, "--device cuda needs a CUDA device"),
    "nothing to resume": (SEARCH, "--resume none", None, 2, "--resume takes the folder of a run, but none holds no"),
    "two run folders": (FIND, "--resume a --run_dir b", None, 2, "--resume a and --run_dir b name two folders"),
    "results of another run": (IMG, "--run_dir run", file_in_run("results.json", "{}"), 2, "run holds results.json of"),
    "run of another script": (
        AUD,
        "--run_dir run",
        file_in_run("args.json", '{"script": "train_image.py"}'),
        2,
        "run holds a run of train_image.py, not of train_audio.py",
    ),
    "arguments cut": (FIND, "--run_dir run", file_in_run("args.json", '{"script'), 2, "run/args.json is not JSON"),
    "arguments of odd types": (
        FIND,
        "--run_dir run",
        file_in_run("args.json", '{"script": "main_found_avmnist.py", "settings": [], "versions": {}}'),
        2,
        "run/args.json is damaged: settings must be an object, but is []",
    ),
    "versions of odd types": (
        FIND,
        "--run_dir run",
        file_in_run("args.json", '{"script": "main_found_avmnist.py", "settings": {}, "versions": {"torch": 2}}'),
        2,
        "run/args.json is damaged: versions.torch must be text, but is 2",
    ),
    "run folder below a file": (IMG, f"--run_dir {BEST}/run", None, 1, f"{BEST}/run: Not a directory"),
    "run folder is a file": (SEARCH, f"--run_dir {BEST}", None, 1, f"{BEST}"),
    "run folder cannot be": (FIND, "--run_dir /proc/none", None, 1, "/proc/none: No such file or directory"),
    "checkpoints below a file": (IMG, f"--checkpointdir {BEST}/c --run_dir .", None, 1, f"{BEST}/c: Not a directory"),
}


def originals() -> None:
    """An MNIST of one image and one recording, both whole."""
    for name, shape in (("train-images-idx3-ubyte", (1, 28, 28)), ("train-labels-idx1-ubyte", (1,))):
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
        Path(name).write_bytes(header + bytes(int(np.prod(shape))))
        Path(name.replace("train", "t10k")).write_bytes(header + bytes(int(np.prod(shape))))
    soundfile.write("0_ann_0.wav", np.ones(200), 8000)


def nan_sound() -> None:
    originals()
    soundfile.write("0_ann_0.wav", np.full(200, np.nan), 8000, subtype="FLOAT")


def built() -> None:
    """A stand-in, as the script builds it, and then damaged."""
    from datasets.avmnist.build import Settings, build

    build(Path("set"), Settings("embedded", "embedded", 3, -10.0, 0, 24, 12), 1, False, False)
    content(Path("set/audio/test_data.npy"), lambda b: b[:-1])()


ORIGINALS = "--mnist_dir . --fsdd_dir . --snr_db none --datadir set"
GENERATOR = {
    "no originals": (GEN, "--datadir set", None, 2, "--mnist_dir, --fsdd_dir, --esc50_dir missing"),
    "no folder": (GEN, "--mnist_dir a --fsdd_dir b --esc50_dir c --datadir set", None, 2, "folder a does not exist"),
    "two sources": (GEN, "--source embedded --mnist_dir .", None, 2, "leave out --mnist_dir"),
    "noise level": (GEN, "--snr_db nan", None, 2, "must lie in -100..100 dB"),
    "no components": (GEN, "--image_components 0", None, 2, "must be a whole number from 1 to 784, but got 0"),
    "too many components": (GEN, "--source embedded --image_components 785 --datadir set", None, 2, "from 1 to 784"),
    "other folder": (GEN, "--source embedded --datadir data", None, 2, "data holds avmnist, which is not part of"),
    "other settings": (GEN, "--source embedded", None, 2, "holds a data set with other settings; --force replaces it"),
    "target is a file": (GEN, f"--source embedded --datadir {BEST}", None, 2, "best.json is not a folder"),
    "target below a file": (
        GEN,
        f"--source embedded --datadir {BEST}/set",
        None,
        1,
        "best.json/.set.partial: Not a directory",
    ),
    "IDX file of many": (
        GEN,
        ORIGINALS,
        each(originals, content(Path("train-images-idx3-ubyte"), lambda b: b[:4] + b"\x7f" * 4 + b[8:])),
        2,
        "train-images-idx3-ubyte is truncated or damaged: 1677024720128 bytes expected, 800 found",
    ),
    "label 10": (
        GEN,
        ORIGINALS,
        each(originals, content(Path("t10k-labels-idx1-ubyte"), lambda b: b[:-1] + b"\x0a")),
        2,
        "labels must be 0 to 9, but one is 10",
    ),
    "digits without takes": (GEN, ORIGINALS, originals, 2, "of the digits [1, 2, 3, 4, 5, 6, 7, 8, 9]"),
    "NaN recording": (GEN, ORIGINALS, nan_sound, 2, "0_ann_0.wav has samples that are not finite numbers"),
    "built, then cut": (
        GEN,
        "--source embedded --datadir set --limit_train 24 --limit_test 12",
        built,
        2,
        "audio/test_data.npy is not a complete .npy file",
    ),
}

NTU_FIND, NTU_TRAIN = "main_found_ntu.py", "train_skeleton_ntu.py"
SKELETONS, VIDEOS = Path("data/ntu/nturgbd_skeletons"), Path("data/ntu/nturgbd_rgb/avi_32x32_30")
CP32 = Path("checkpoints/ntu/skeleton_32frames_50.00.checkpoint")
CP8 = Path("checkpoints/ntu/rgb_8frames_50.00.checkpoint")
SMALL = "--vid_dim 32 --num_workers 0"


def nobody_in(subject: int) -> Callable[[], None]:
    """Remove the videos of a subject."""
    return lambda: [path.unlink() for path in VIDEOS.glob(f"*P{subject:03d}*")]


def damaged_pack() -> None:
    folder = SKELETONS.with_name("nturgbd_skeletons_packed")
    folder.mkdir()
    (folder / "index.npz").write_bytes(b"PK\3\4 and no more")


NTU = {
    "no data set": (NTU_TRAIN, "--datadir none", None, 2, "none: no sample has both none/nturgbd_rgb/avi_256x256_30/"),
    "other size": (NTU_FIND, "", None, 2, "there are also avi_32x32_30, which --vid_dim and --vid_fr select"),
    "no skeletons": (NTU_TRAIN, SMALL, lambda: shutil.rmtree(SKELETONS), 2, "found 6 videos and 0 skeletons"),
    "damaged pack": (NTU_TRAIN, SMALL, damaged_pack, 2, "nturgbd_skeletons_packed is damaged"),
    "empty dev": (NTU_FIND, SMALL, nobody_in(2), 2, "the dev split is empty; it takes samples of the subjects 2, 5, 9"),
    "fewer outputs": (
        NTU_TRAIN,
        f"{SMALL} --num_outputs 1",
        None,
        2,
        "classes must lie in 1..1, but S001C001P001R001A",
    ),
    "few frames": (NTU_TRAIN, f"{SMALL} --vid_len 8 4", None, 2, "a skeleton needs at least 8 frames, but got 4"),
    "no such number": (NTU_FIND, f"{SMALL} --conf 5", None, 2, "published configurations 0 to 4, but got 5"),
    "feature of AV-MNIST": (NTU_FIND, f"{SMALL} --conf [[4,0,0]]", None, 2, "0 to 3, but got [4, 0, 0]"),
    "search of AV-MNIST": (
        NTU_FIND,
        f"{SMALL} --conf best.json",
        lambda: write_home(Path()),
        2,
        "is from a search over",
    ),
    "no checkpoint": (NTU_FIND, SMALL, CP32.unlink, 2, "holds no skeleton_32frames_*.checkpoint; train one with"),
    "two checkpoints": (
        NTU_FIND,
        SMALL,
        lambda: shutil.copy(CP32, CP32.with_name("skeleton_32frames_60.00.checkpoint")),
        2,
        "several skeleton_32frames_*.checkpoint",
    ),
    "other frames": (NTU_FIND, f"{SMALL} --vid_len 8 16 --ske_cp {CP32.name}", None, 2, "trained with --vid_len 8 32"),
    "bit flipped": (NTU_FIND, SMALL, content(CP32, flip), 2, f"{CP32} is damaged: its checksum is wrong"),
    "foreign RGB": (NTU_FIND, SMALL, None, 2, f"{CP8} does not fit this InflatedResNet50: it lacks"),
    "nothing to prepare": ("datasets.ntu_prepare", "--datadir none", None, 2, "nothing to prepare: name the original"),
    "no originals": (
        "datasets.ntu_prepare",
        "--rgb_dir none --datadir set",
        None,
        2,
        "none is not a folder; name the folder of NTU",
    ),
}


def rows(*tables: Mapping[str, tuple]) -> list:
    return [pytest.param(*row, id=name.replace(" ", "_")) for table in tables for name, row in table.items()]


HEAD = ("script", "flags", "damage", "code", "words")


@pytest.mark.parametrize(HEAD, rows(ARRAYS))
def test_data(home, refuses, script, flags, damage, code, words):
    refuses(script, flags, damage, code, words)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(HEAD, rows(CHECKPOINT))
def test_checkpoints(home, refuses, script, flags, damage, code, words):
    refuses(script, flags, damage, code, words)


@pytest.mark.parametrize(HEAD, rows(CONF, FLAGS))
def test_flags(home, refuses, script, flags, damage, code, words):
    refuses(script, flags, damage, code, words)


@pytest.mark.parametrize(HEAD, rows(GENERATOR))
def test_generator(home, refuses, script, flags, damage, code, words):
    refuses(script, flags, damage, code, words)


@pytest.mark.parametrize(HEAD, rows(NTU))
def test_ntu(ntu_home, refuses, script, flags, damage, code, words):
    refuses(script, flags, damage, code, words)


def started(script: str, *flags: object) -> None:
    """Run a script to its end, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, flags), "--no-verbose"])
        importlib.import_module(script.removesuffix(".py")).main()


def shuffled(path: Path) -> None:
    """Reverse the samples of an array; size and time stay."""
    stat = path.stat()
    np.save(path, np.load(path)[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("script", "changed"),
    [(IMG, "test_labels.npy"), (IMG, "train_labels.npy"), (AUD, "audio/test_data.npy"), (FIND, "test_labels.npy")],
)
def test_data_that_changed_between_stop_and_resume(home, refuses, script, changed):
    np.save(DATA / "audio/test_data.npy", np.arange(TEST, dtype=np.uint8).repeat(112 * 112).reshape(TEST, 112, 112))
    flags = "--epochs 1 --run_dir run"
    damage = each(lambda: started(script, *flags.split()), lambda: shuffled(DATA / changed))
    refuses(script, flags, damage, 2, "run holds a run with other inputs (data) than this command")


def test_content_decides_which_bank_is_used(home, capsys):
    """Another data set of the same sizes and times has a bank of its own; a zeroed table is extracted again."""
    no_manifest()
    put(SOUNDS, (slice(None), 5), np.arange(TRAIN)[:, None])()
    banks = CHECKPOINTS / "feature_bank"

    flags = "--max_fusions 1 --search_iterations 1 --epochs 1 --epochs_surrogate 1 --run_dir"

    def search(name: str) -> list[list[float]]:
        started(SEARCH, *flags.split(), name)
        lines = map(json.loads, Path(name, "journal.jsonl").read_text().splitlines())
        return [line["accuracies"] for line in lines if line["kind"] == "candidate"]

    first = search("first")
    (bank,) = banks.iterdir()
    table = (bank / "train-0.npy").read_bytes()
    shuffled(DATA / SOUNDS)
    search("second")
    assert len(list(banks.iterdir())) == 2
    shuffled(DATA / SOUNDS)
    (bank / "train-0.npy").write_bytes(table[:128] + bytes(len(table) - 128))
    capsys.readouterr()
    assert search("third") == first
    assert len(list(banks.iterdir())) == 2
    assert "train-0.npy is damaged (its checksum is wrong); it is extracted again" in capsys.readouterr().err
    assert (bank / "train-0.npy").read_bytes() == table


def test_features_that_changed_between_stop_and_resume(tmp_path, refuses, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("train", "dev", "test"):
        arrays = {f"{modality}.0": rng.standard_normal((20, 3)) for modality in ("audio", "image")}
        np.savez(f"{name}.npz", label=np.arange(20) % 2, **arrays)
    flags = "--datadir . --conf [[0,0,0]] --epochs 1 --run_dir run --checkpointdir ."
    with np.load("test.npz") as held:
        arrays = dict(held) | {"label": held["label"][::-1]}

    def damage() -> None:
        started("main_found_features.py", *flags.split())
        stat = Path("test.npz").stat()
        np.savez("test.npz", **arrays)
        os.utime("test.npz", ns=(stat.st_atime_ns, stat.st_mtime_ns))

    refuses("main_found_features.py", flags, damage, 2, "run holds a run with other inputs (data) than this command")


@pytest.mark.parametrize(
    "row",
    [ARRAYS["NaN image"], FLAGS["all dropped"], FLAGS["run folder cannot be"]],
    ids=["data", "flags", "system"],
)
def test_as_a_user_sees_it(home, run_script, row):
    script, flags, damage, code, words = row
    if damage is not None:
        damage()
    before = snapshot()
    done = run_script(script, *flags.split(), "--no-verbose", code=code)
    check_message(done.stderr, words)
    assert done.stdout == ""
    assert snapshot() == before
