"""`avmnist_gen.py` through its command line: what it writes, that it repeats itself, what it says to bad input."""

import gzip
import hashlib
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import avmnist_gen
from datasets.avmnist import build as avmnist_build
from datasets.avmnist import download
from datasets.avmnist import sources as avmnist_sources
from datasets.avmnist.folder import ARRAYS
from datasets.avmnist.spectrogram import spectrograms
from tests.conftest import ROOT
from utils import cli

TRAIN, TEST = 60, 20  # digits of the small originals


def write_idx(path: Path, array: np.ndarray, magic: bytes | None = None) -> None:
    header = magic or bytes([0, 0, 8, array.ndim])
    data = header + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


@pytest.fixture(scope="session")
def originals(tmp_path_factory) -> Path:
    """Small originals in the publishers' layout: framed noise for digits, tones for takes, noise for noise."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for stem, count, ending in (("train", TRAIN, ".gz"), ("t10k", TEST, "")):
        digits = np.pad(rng.integers(0, 256, (count, 24, 24)), ((0, 0), (2, 2), (2, 2)))
        write_idx(folder / f"mnist/{stem}-images-idx3-ubyte{ending}", digits)
        write_idx(folder / f"mnist/{stem}-labels-idx1-ubyte{ending}", np.arange(count) * 7 % 10)
    (folder / "fsdd" / "recordings").mkdir(parents=True)
    for digit in range(10):
        for take in (0, 39, 40):
            n = 600 + 100 * (digit % 3) + take
            tone = 0.3 * np.sin(np.arange(n) * (0.2 + 0.2 * digit)) + 0.01 * rng.standard_normal(n)
            soundfile.write(folder / f"fsdd/recordings/{digit}_ann_{take}.wav", tone, 8000)
    (folder / "esc50" / "meta").mkdir(parents=True)
    (folder / "esc50" / "audio").mkdir()
    rows = ["filename,fold,target,category"]
    for category in range(50):
        for clip in range(2):
            name = f"{clip}-{category}.wav"
            rows.append(f"{name},1,{category},sound {category}")
            soundfile.write(folder / "esc50" / "audio" / name, 0.1 * rng.standard_normal(4000), 16000)
    (folder / "esc50" / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    (folder / "checksums.json").write_text('{"fsdd.zip": "sha256:0123"}')  # as a download leaves it
    return folder


@pytest.fixture
def broken(originals, tmp_path) -> Path:
    """A copy of the small originals for a test to damage."""
    return shutil.copytree(originals, tmp_path / "originals")


@pytest.fixture
def gen(monkeypatch, capsys, tmp_path):
    """Run the script's command line in this process; returns what it printed to stdout, or to stderr if it fails."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["avmnist_gen.py", *map(str, args)])
        try:
            cli.run(avmnist_gen.main)
            exit_code = 0
        except SystemExit as stopped:
            exit_code = stopped.code
        out, err = capsys.readouterr()
        assert exit_code == code, err
        if code:
            assert err.count("error: ") == 1
            return err
        return out

    return run


def flags(folder: Path, *names: str) -> list[str]:
    names = names or ("mnist", "fsdd", "esc50")
    return [text for name in names for text in (f"--{name}_dir", str(folder / name))]


def load(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.load(folder / name) for name in ARRAYS}


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ARRAYS}


# What it writes.


def test_the_command_line_writes_the_documented_folder(run_script, originals, tmp_path):
    done = run_script("avmnist_gen.py", *flags(originals), "--datadir", "out/set", "--num_workers", 2)
    assert "preset paper, 5 image components" in done.stdout
    assert "60 train, 20 test samples" in done.stdout
    folder = tmp_path / "out" / "set"
    arrays = load(folder)
    for split, count in (("train", TRAIN), ("test", TEST)):
        assert arrays[f"image/{split}_data.npy"].shape == (count, 784)
        assert arrays[f"image/{split}_data.npy"].dtype == np.float32
        assert arrays[f"audio/{split}_data.npy"].shape == (count, 112, 112)
        assert arrays[f"audio/{split}_data.npy"].dtype == np.uint8
        assert arrays[f"{split}_labels.npy"].dtype == np.int64
        assert (arrays[f"{split}_labels.npy"] == np.arange(count) * 7 % 10).all()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == "avmnist"
    assert manifest["stand_in"] is False
    assert manifest["rate"] == 8000
    assert manifest["settings"]["preset"] == "paper"
    assert manifest["settings"]["image_components"] == 5
    assert manifest["splits"]["test"] == {"count": TEST, "per_class": [2] * 10}
    assert manifest["sha256"] == digests(folder)
    assert manifest["sources"]["checksums"] == {"fsdd.zip": "sha256:0123"}
    noises = manifest["sources"]["noise_clips"]
    assert (len(noises["train"]), len(noises["test"])) == (40, 10)
    assert len({*noises["train"], *noises["test"]}) == 50
    assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.parent.iterdir()) == ["set"]


def test_output_depends_on_the_seed_and_not_on_the_workers(gen, originals, tmp_path):
    for name, seed, workers in (("a", 3, 1), ("b", 3, 5), ("c", 4, 1)):
        gen(*flags(originals), "--datadir", name, "--seed", seed, "--num_workers", workers)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()
    assert digests(tmp_path / "a")["audio/train_data.npy"] != digests(tmp_path / "c")["audio/train_data.npy"]


def test_output_does_not_depend_on_the_processor(run_script, originals, monkeypatch, tmp_path):
    run_script("avmnist_gen.py", *flags(originals), "--datadir", "this")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")  # without AVX
    run_script("avmnist_gen.py", *flags(originals), "--datadir", "another")
    assert digests(tmp_path / "this") == digests(tmp_path / "another")


def test_label_image_and_spectrogram_belong_together(gen, originals, tmp_path):
    gen(*flags(originals, "mnist", "fsdd"), "--preset", "fork", "--datadir", "set")
    arrays = load(tmp_path / "set")
    heard = dict.fromkeys(range(10), 0)
    for i, label in enumerate(arrays["train_labels.npy"]):  # no noise: the takes of a digit in turn, 0 then 39
        take = (0, 39)[heard[label] % 2]
        heard[label] += 1
        signal, _ = soundfile.read(originals / f"fsdd/recordings/{label}_ann_{take}.wav", dtype="float32")
        assert (arrays["audio/train_data.npy"][i] == spectrograms(signal[None])[0]).all()
    signal, _ = soundfile.read(originals / "fsdd/recordings/7_ann_40.wav", dtype="float32")
    assert (arrays["audio/test_data.npy"][1] == spectrograms(signal[None])[0]).all()


def test_images_are_projected_on_the_training_digits_components(gen, originals, tmp_path):
    gen(*flags(originals), "--image_components", 4, "--datadir", "set")
    train, _ = avmnist_sources.read_mnist(originals / "mnist", "train")
    test, _ = avmnist_sources.read_mnist(originals / "mnist", "test")
    mean = train.mean(axis=0)
    _, strength, axes = np.linalg.svd(train - mean, full_matrices=False)
    arrays = load(tmp_path / "set")
    for split, images in (("train", train), ("test", test)):
        expected = (images - mean) @ axes[:4].T @ axes[:4]
        np.testing.assert_allclose(arrays[f"image/{split}_data.npy"], expected, atol=1 / 512)
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    assert manifest["explained_variance_share"] == pytest.approx(
        (strength[:4] ** 2).sum() / (strength**2).sum(), abs=1e-5
    )


def test_limits_keep_the_first_digits(gen, originals, tmp_path):
    gen(*flags(originals), "--datadir", "set", "--limit_train", 24, "--limit_test", 5, "--snr_db", "none")
    arrays = load(tmp_path / "set")
    assert [len(arrays[name]) for name in ARRAYS] == [24, 5, 24, 5, 24, 5]
    assert arrays["train_labels.npy"].tolist() == [i * 7 % 10 for i in range(24)]


def test_embedded_needs_no_files_and_is_called_a_stand_in(gen, tmp_path):
    out = gen("--source", "embedded", "--datadir", "set", "--limit_train", 240, "--limit_test", 50)
    assert "stand-in" in out
    arrays = load(tmp_path / "set")
    manifest = json.loads((tmp_path / "set/manifest.json").read_text())
    assert manifest["stand_in"] is True
    assert arrays["audio/train_data.npy"].shape == (240, 112, 112)
    assert set(arrays["train_labels.npy"]) == set(range(10))
    images = {split: {row.tobytes() for row in arrays[f"image/{split}_data.npy"]} for split in ("train", "test")}
    assert not images["train"] & images["test"]
    fit, dev = arrays["image/train_data.npy"][:220], arrays["image/train_data.npy"][220:]
    assert not {row.tobytes() for row in fit} & {row.tobytes() for row in dev}


# A data set that is already there.


def test_an_equal_data_set_is_kept_and_another_replaced_only_by_force(gen, originals, tmp_path):
    usual = (*flags(originals), "--datadir", "set")
    gen(*usual)
    before = (tmp_path / "set/manifest.json").stat().st_mtime_ns
    assert "already built" in gen(*usual, "--num_workers", 3)
    assert "other settings" in gen(*usual, "--seed", 1, code=2)
    assert (tmp_path / "set/manifest.json").stat().st_mtime_ns == before
    gen(*usual, "--seed", 1, "--force")
    assert json.loads((tmp_path / "set/manifest.json").read_text())["settings"]["seed"] == 1
    (tmp_path / "set/audio/test_data.npy").unlink()
    assert "--force" in gen(*usual, "--seed", 1, code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_folder_of_something_else_is_not_touched(gen, originals, tmp_path):
    (tmp_path / "set").mkdir()
    gen(*flags(originals), "--datadir", "set")
    (tmp_path / "set/audio/notes.txt").write_text("mine")
    assert "notes.txt" in gen(*flags(originals), "--datadir", "set", "--force", code=2)
    (tmp_path / "other/image").mkdir(parents=True)
    (tmp_path / "other/image/train_data.npy").write_text("mine")
    assert "manifest.json" in gen(*flags(originals), "--datadir", "other", "--force", code=2)
    (tmp_path / "file").write_text("mine")
    assert "not a folder" in gen(*flags(originals), "--datadir", "file", "--force", code=2)
    for path in ("set/audio/notes.txt", "other/image/train_data.npy", "file"):
        assert (tmp_path / path).read_text() == "mine"


def test_a_killed_runs_leftovers_are_cleared(gen, originals, tmp_path):
    usual = (*flags(originals), "--datadir", "set")
    gen(*usual)
    (tmp_path / ".set.partial/new/audio").mkdir(parents=True)
    (tmp_path / ".set.partial/new/audio/train_data.npy").write_bytes(b"half")
    (tmp_path / "set").rename(tmp_path / ".set.partial/old")  # killed between moving the old aside and the new in
    assert "already built" in gen(*usual)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_two_runs_do_not_build_the_same_folder(gen, originals, tmp_path):
    with avmnist_build.whole_folder(tmp_path / "set"):
        assert f"is already working in {tmp_path}/.set.partial" in gen(*flags(originals), "--datadir", "set", code=1)


# Bad input: one line that names the file and the expectation, and nothing left behind.


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def keep_49_classes(path: Path) -> None:
    path.write_text("".join(line for line in path.read_text().splitlines(True) if ",sound 7\n" not in line))


BAD_INPUT = {
    "no folder": ("mnist", shutil.rmtree, "does not exist"),
    "no file": ("mnist/t10k-labels-idx1-ubyte", Path.unlink, "t10k-labels-idx1-ubyte"),
    "magic": ("mnist/t10k-images-idx3-ubyte", lambda p: write_idx(p, np.zeros((2, 28, 28)), b"\0\0\x0d\3"), "00000803"),
    "shape": ("mnist/t10k-images-idx3-ubyte", lambda p: write_idx(p, np.zeros((2, 14, 14))), "(2, 14, 14)"),
    "no digits": ("mnist/t10k-images-idx3-ubyte", lambda p: write_idx(p, np.zeros((0, 28, 28))), "N >= 1"),
    "truncated": ("mnist/t10k-images-idx3-ubyte", truncate, "truncated"),
    "header only": ("mnist/t10k-images-idx3-ubyte", lambda p: p.write_bytes(b"\0\0\x08\3\0\0"), "header states"),
    "truncated gzip": ("mnist/train-images-idx3-ubyte.gz", truncate, "gzip"),
    "no gzip": ("mnist/train-images-idx3-ubyte.gz", lambda p: p.write_bytes(b"<html>"), "gzip"),
    "counts": ("mnist/t10k-labels-idx1-ubyte", lambda p: write_idx(p, np.zeros(3)), "3 labels"),
    "labels": ("mnist/t10k-labels-idx1-ubyte", lambda p: write_idx(p, np.full(TEST, 11)), "0 to 9"),
    "no takes": ("fsdd/recordings", lambda p: [f.unlink() for f in p.iterdir()], "has none"),
    "no test take": ("fsdd/recordings/4_ann_40.wav", Path.unlink, "digits [4]"),
    "take name": ("fsdd/recordings/4_ann_39.wav", lambda p: p.rename(p.with_name("4-ann-39.wav")), "4-ann-39.wav"),
    "take index": ("fsdd/recordings/4_ann_39.wav", lambda p: p.rename(p.with_name("4_ann_50.wav")), "0 to 49"),
    "no WAV": ("fsdd/recordings/4_ann_39.wav", lambda p: p.write_bytes(b"noise"), "4_ann_39.wav is not a readable"),
    "empty file": ("fsdd/recordings/4_ann_39.wav", lambda p: p.write_bytes(b""), "4_ann_39.wav is not a readable"),
    "zero length": ("fsdd/recordings/4_ann_39.wav", lambda p: soundfile.write(p, np.zeros(0), 8000), "0 found"),
    "no table": ("esc50/meta/esc50.csv", Path.unlink, "esc50.csv"),
    "table": ("esc50/meta/esc50.csv", lambda p: p.write_text("a,b\n1,2\n"), "filename and category"),
    "49 classes": ("esc50/meta/esc50.csv", keep_49_classes, "50 noise classes expected, 49 found"),
    "no clips": ("esc50/audio", shutil.rmtree, ".wav does not exist"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gives_one_line_and_leaves_nothing(case, gen, broken, tmp_path):
    path, damage, expected = BAD_INPUT[case]
    damage(broken / path)
    message = gen(*flags(broken), "--datadir", "set", "--no-verbose", code=2)
    assert expected in message
    assert message.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["originals"]


def test_silent_noise_is_refused(gen, broken):
    for path in (broken / "esc50/audio").iterdir():
        soundfile.write(path, np.zeros(4000), 16000)
    assert "noise clips are silent" in gen(*flags(broken), "--datadir", "set", "--no-verbose", code=2)
    assert not list(broken.parent.glob("*set*"))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "--mnist_dir, --fsdd_dir, --esc50_dir missing"),
        (["--source", "embedded", "--preset", "paper"], "leave out --preset"),
        (["--source", "embedded", "--mnist_dir", "x"], "leave out --mnist_dir"),
        (["--download", "--fsdd_dir", "x"], "leave out --fsdd_dir"),
        (["--source", "embedded", "--limit_train", "20", "--image_components", "21"], "21 with 20 digits"),
        (["--snr_db", "loud"], "--snr_db"),
        (["--snr_db", "nan"], "-100..100"),
        (["--seed", "-1"], "from 0"),
        (["--limit_train", "0"], "from 1 to 1,000,000,000"),
    ],
)
def test_contradictory_flags(args, expected, gen):
    assert expected in gen("--datadir", "set", *args, code=2)
    assert not Path("set").exists()


def test_a_full_disk_gives_one_line_and_leaves_nothing(originals, tmp_path):
    command = [sys.executable, ROOT / "avmnist_gen.py", *flags(originals), "--datadir", "set", "--no-verbose"]

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, preexec_fn=small_files)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "audio/train_data.npy: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_download_names_the_folders(gen, originals, monkeypatch, tmp_path):
    def fetched(folder: Path, verbose: bool) -> dict[str, Path]:
        assert folder == Path("data/originals")
        assert verbose
        return {f"{name}_dir": originals / name for name in ("mnist", "fsdd", "esc50")}

    monkeypatch.setattr(download, "download_originals", fetched)
    gen("--download", "--preset", "multibench")
    manifest = json.loads((tmp_path / "data/avmnist/manifest.json").read_text())
    assert manifest["settings"]["image_components"] == 4


# The real recordings.


def test_real_data_at_a_reduced_budget(gen, real_data, tmp_path):
    for name, workers in (("a", 1), ("b", 2)):
        gen(*flags(real_data), "--datadir", name, "--limit_train", 600, "--limit_test", 100, "--num_workers", workers)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    assert manifest["sources"]["recordings_per_digit"] == {"train": [240] * 10, "test": [60] * 10}
    labels = avmnist_sources.read_mnist(real_data / "mnist", "train")[1]
    assert (np.load(tmp_path / "a/train_labels.npy") == labels[:600]).all()
    assert manifest["splits"]["train"]["per_class"] == np.bincount(labels[:600]).tolist()
