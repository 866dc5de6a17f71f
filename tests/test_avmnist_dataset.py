"""Reading AV-MNIST: splits, limits, alignment, and every way in which a data set can be wrong."""

import json
import os

import numpy as np
import pytest
import torch

from datasets.avmnist.load import data_identity, is_stand_in, load_avmnist
from utils.errors import DataError
from utils.training.batches import ArraySplit


def write(folder, train: int = 24, test: int = 5) -> None:
    """A data set whose images, spectrograms and labels all say which sample they are."""
    for part, count in (("train", train), ("test", test)):
        numbers = np.arange(count)
        save(folder / "image" / f"{part}_data.npy", np.repeat(numbers[:, None], 784, 1).astype(np.float32))
        save(
            folder / "audio" / f"{part}_data.npy",
            np.zeros((count, 112, 112), np.uint8) + numbers.astype(np.uint8)[:, None, None],
        )
        save(folder / f"{part}_labels.npy", numbers % 10)


def save(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def samples(split) -> list[int]:
    """Which samples a split holds, in order; its parts must agree."""
    numbers = split.images[:][:, 0, 5, 7].long()
    assert torch.equal(numbers, split.spectrograms[:][:, 0, 60, 3].long())
    assert torch.equal(numbers % 10, split.labels)
    return numbers.tolist()


@pytest.mark.parametrize(("train", "dev"), [(24, 2), (60, 5), (35, 2), (12, 1)])
def test_dev_is_the_last_twelfth(tmp_path, train, dev):
    write(tmp_path, train)
    splits = load_avmnist(tmp_path)
    assert {name: samples(split) for name, split in splits.items()} == {
        "train": list(range(train - dev)),
        "dev": list(range(train - dev, train)),
        "test": list(range(5)),
    }


def test_dev_samples_and_limit_train_give_the_split_of_the_mfas_authors(tmp_path):
    """50,000 / 5,000 of 60,000, a thousandth of it; their copy names the folder `images`."""
    write(tmp_path, 60)
    (tmp_path / "image").rename(tmp_path / "images")
    splits = load_avmnist(tmp_path, limits={"train": 50}, dev_samples=5)
    assert samples(splits["train"]) == list(range(50))
    assert samples(splits["dev"]) == list(range(55, 60))


@pytest.mark.parametrize("dev", [24, 25])
def test_dev_samples_must_leave_some_to_train_on(tmp_path, dev):
    write(tmp_path)
    with pytest.raises(DataError, match=f"--dev_samples must be below the 24 training samples, but is {dev}"):
        load_avmnist(tmp_path, dev_samples=dev)


def test_float64_images_become_float32_batch_by_batch(tmp_path):
    """The published generator writes float64."""
    write(tmp_path)
    pixels = np.random.default_rng(0).random((24, 784))
    save(tmp_path / "image/train_data.npy", pixels)
    split = load_avmnist(tmp_path)["train"]
    assert split.images[:].dtype == torch.float64
    (batch,) = next(iter(ArraySplit((split.images,), split.labels).batches(3)))[0]
    assert batch.dtype == torch.float32
    assert np.array_equal(batch.flatten(1).numpy(), pixels[:3].astype(np.float32))


def test_types_and_shapes(tmp_path):
    write(tmp_path)
    save(tmp_path / "test_labels.npy", np.array([9, 0, 1, 2, 3], np.uint8))
    for split in load_avmnist(tmp_path).values():
        count = len(split.labels)
        assert (split.images.shape, split.images[:].dtype) == ((count, 1, 28, 28), torch.float32)
        assert (split.spectrograms.shape, split.spectrograms[:].dtype) == ((count, 1, 112, 112), torch.uint8)
        assert split.labels.dtype == torch.int64


def test_limits_keep_the_first_samples_of_each_split(tmp_path):
    write(tmp_path, 36)
    splits = load_avmnist(tmp_path, limits={"train": 4, "dev": 2, "test": 100})
    assert [samples(split) for split in splits.values()] == [[0, 1, 2, 3], [33, 34], [0, 1, 2, 3, 4]]


def test_images_are_rows_of_pixels_and_files_stay_as_they_are(tmp_path):
    write(tmp_path)
    pixels = np.random.default_rng(0).random((24, 784), np.float32)
    save(tmp_path / "image/train_data.npy", pixels)
    images = load_avmnist(tmp_path)["train"].images[:]
    assert images[3, 0, 2, 5] == pixels[3, 2 * 28 + 5]
    images += 1  # a copy in memory
    assert np.array_equal(np.load(tmp_path / "image/train_data.npy"), pixels)


def cut(path, size) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("image/test_data.npy", lambda p: p.unlink(), "is missing; build the data set with avmnist_gen.py --datadir"),
        ("train_labels.npy", lambda p: p.unlink(), "is missing; build the data set with avmnist_gen.py --datadir"),
        ("image/train_data.npy", lambda p: cut(p, -1), "is not a complete .npy file"),
        ("audio/train_data.npy", lambda p: cut(p, 300), "is not a complete .npy file"),
        ("audio/test_data.npy", lambda p: cut(p, 50), "is not a complete .npy file"),
        ("test_labels.npy", lambda p: cut(p, 0), "is not a complete .npy file"),
        ("test_labels.npy", lambda p: p.write_text("0 1 2 3 4\n"), "is not a complete .npy file"),
        ("test_labels.npy", lambda p: save(p, np.array([None] * 5)), "is not a complete .npy file"),
        (
            "test_labels.npy",
            lambda p: p.write_bytes(p.read_bytes().replace(b"}", b"(")),  # in the header
            "is not a complete .npy file",
        ),
        ("test_labels.npy", lambda p: p.write_bytes(p.read_bytes() + b"!"), "168 bytes expected, 169 found"),
        (
            "image/train_data.npy",
            lambda p: save(p, np.asfortranarray(np.load(p))),
            "must hold its samples in C order, but they are in Fortran order",
        ),
        (
            "image/train_data.npy",
            lambda p: save(p, np.where(np.arange(24 * 784).reshape(24, 784) == 9 * 784, np.inf, np.load(p))),
            "pixels must be finite numbers, but those of sample 9 are not",
        ),
        (
            "image/test_data.npy",
            lambda p: save(p, np.load(p) * np.float32(np.nan)),
            "pixels must be finite numbers, but those of sample 0 are not",
        ),
        (
            "image/test_data.npy",
            lambda p: save(p, np.zeros((5, 784), np.float16)),
            "must hold float32 or float64 of shape (N, 784), but holds float16 of shape (5, 784)",
        ),
        (
            "image/test_data.npy",
            lambda p: save(p, np.full((5, 784), 1e300)),
            "pixels must be finite numbers, but those of sample 0 are not",
        ),
        (
            "image/test_data.npy",
            lambda p: save(p, np.zeros((5, 28, 28), np.float32)),
            "must hold float32 or float64 of shape (N, 784), but holds float32 of shape (5, 28, 28)",
        ),
        (
            "audio/train_data.npy",
            lambda p: save(p, np.zeros((24, 112, 112), np.float32)),
            "must hold uint8 of shape (N, 112, 112), but holds float32 of shape (24, 112, 112)",
        ),
        (
            "train_labels.npy",
            lambda p: save(p, np.zeros(24)),
            "must hold an integer type of shape (N, ), but holds float64 of shape (24,)",
        ),
        ("train_labels.npy", lambda p: save(p, np.array(3)), "but holds int64 of shape ()"),
        ("train_labels.npy", lambda p: save(p, np.arange(24)), "labels must lie in 0..9, but range from 0 to 23"),
        ("test_labels.npy", lambda p: save(p, np.arange(-1, 4)), "labels must lie in 0..9, but range from -1 to 3"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, file, change, message):
    write(tmp_path)
    change(tmp_path / file)
    with pytest.raises(DataError) as caught:
        load_avmnist(tmp_path)
    assert message in str(caught.value)
    assert str(tmp_path / file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_folder_to_make_is_the_data_set(tmp_path):
    with pytest.raises(DataError) as caught:
        load_avmnist(tmp_path / "none")
    assert str(caught.value).endswith(f"--datadir {tmp_path / 'none'}")


@pytest.mark.parametrize("file", ["image/train_data.npy", "audio/train_data.npy", "train_labels.npy"])
def test_counts_must_agree(tmp_path, file):
    write(tmp_path)
    save(tmp_path / file, np.load(tmp_path / file)[:-1])
    with pytest.raises(DataError, match=r"images, spectrograms and labels of train must be equal in number.*23"):
        load_avmnist(tmp_path)


@pytest.mark.parametrize(("train", "test", "split"), [(11, 5, "dev"), (24, 0, "test"), (0, 5, "train")])
def test_a_split_must_not_be_empty(tmp_path, train, test, split):
    write(tmp_path, train, test)
    with pytest.raises(DataError, match=f"the {split} split is empty; at least 12 training and 1 test samples"):
        load_avmnist(tmp_path)


@pytest.mark.parametrize(
    ("file", "part", "message"),
    [
        (
            "train_labels.npy",
            slice(0, 22),
            "train split must hold two classes or more, but has class 7 only (22 samples)",
        ),
        (
            "train_labels.npy",
            slice(22, 24),
            "dev split must hold two classes or more, but has class 7 only (2 samples)",
        ),
        ("test_labels.npy", slice(0, 5), "test split must hold two classes or more, but has class 7 only (5 samples)"),
    ],
)
def test_one_class(tmp_path, file, part, message):
    write(tmp_path)
    labels = np.load(tmp_path / file)
    labels[part] = 7
    save(tmp_path / file, labels)
    with pytest.raises(DataError) as caught:
        load_avmnist(tmp_path)
    assert message in str(caught.value)
    assert "--limit" not in str(caught.value)


def test_one_class_by_a_limit_and_where_there_is_one_only(tmp_path):
    write(tmp_path)
    assert len(load_avmnist(tmp_path, limits={"train": 1, "dev": None})["train"].labels) == 1
    save(tmp_path / "train_labels.npy", np.arange(24) // 2 % 10)
    with pytest.raises(DataError, match=r"has class 0 only \(2 samples\); use a larger --limit_train"):
        load_avmnist(tmp_path, limits={"train": 2})
    for part in ("train", "test"):
        save(tmp_path / f"{part}_labels.npy", np.zeros_like(np.load(tmp_path / f"{part}_labels.npy")))
    assert len(load_avmnist(tmp_path, num_outputs=1)["train"].labels) == 22


def manifest(folder, **changed) -> None:
    splits = {
        "train": {"count": 24, "per_class": [3, 3, 3, 3, 2, 2, 2, 2, 2, 2]},
        "test": {"count": 5, "per_class": [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]},
    }
    (folder / "manifest.json").write_text(json.dumps({"format": "avmnist", "splits": splits | changed}))


def test_the_manifest_must_match_the_files(tmp_path):
    write(tmp_path)
    manifest(tmp_path)
    load_avmnist(tmp_path)
    for stated in ({"count": 6, "per_class": [1] * 6}, {"count": 5, "per_class": [5] + [0] * 9}, None, [5] * 1000):
        manifest(tmp_path, test=stated)
        with pytest.raises(
            DataError, match=r"manifest\.json does not match the files: it states .* for test"
        ) as caught:
            load_avmnist(tmp_path)
        assert len(str(caught.value)) < 600
    (tmp_path / "manifest.json").write_text('{"format": "another maker"}')
    load_avmnist(tmp_path)


def test_fewer_classes(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"labels must lie in 0\.\.4, but range from 0 to 9"):
        load_avmnist(tmp_path, num_outputs=5)


@pytest.mark.parametrize(("manifest", "expected"), [(None, False), ({}, False), ({"stand_in": True}, True)])
def test_the_manifest_tells_a_stand_in(tmp_path, manifest, expected):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert is_stand_in(tmp_path) is expected


@pytest.mark.parametrize("content", ["{", "[]", "[" * 99999])
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        is_stand_in(tmp_path)


USES = {
    "found": {},
    "search": {"parts": ["train"]},
    "image": {"modalities": ["image"]},
    "audio": {"modalities": ["audio"]},
}


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("train_labels.npy", set()),
        ("test_labels.npy", {"search"}),
        ("image/train_data.npy", {"audio"}),
        ("image/test_data.npy", {"audio", "search"}),
        ("audio/train_data.npy", {"image"}),
        ("audio/test_data.npy", {"image", "search"}),
    ],
)
def test_the_content_of_the_arrays_that_a_run_uses_is_its_fingerprint(tmp_path, name, unused):
    def identities(folder) -> dict:
        return {use: data_identity(load_avmnist(folder), **options) for use, options in USES.items()}

    write(tmp_path, 60)
    write(tmp_path / "copy", 60)
    known = identities(tmp_path)
    assert identities(tmp_path / "copy") == known
    path = tmp_path / name
    stat, values = path.stat(), np.load(path)
    values[[0, -1]] = values[[-1, 0]]  # nothing but the content differs
    np.save(path, values)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    changed = {use for use, identity in identities(tmp_path).items() if identity != known[use]}
    assert changed == USES.keys() - unused
    assert data_identity(load_avmnist(tmp_path), dev_samples=5) != data_identity(load_avmnist(tmp_path))
