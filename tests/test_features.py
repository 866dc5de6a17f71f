"""Features of one's own: the tables that are read from a folder, and a message for all that is wrong with one."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.features import load_features
from utils.errors import DataError, UsageError
from utils.results.load import load_network, read_rows

SPLITS = ("train", "dev", "test")
COUNTS = {"train": 6, "dev": 4, "test": 5}


def arrays_of(split: str, multi_label: bool = False) -> dict[str, np.ndarray]:
    """Two modalities with logits, three classes."""
    n, rng = COUNTS[split], np.random.default_rng(COUNTS[split])
    widths = {"text.0": 2, "text.1": 3, "sound.0": 4, "sound.logits": 3, "text.logits": 3}
    arrays = {name: rng.normal(size=(n, width)).astype(np.float32) for name, width in widths.items()}
    label = np.arange(n) % 3
    return arrays | {"label": np.eye(3, dtype=int)[label] | np.eye(3, dtype=int)[0] if multi_label else label}


def write(folder: Path, multi_label: bool = False, **changes: object) -> Path:
    """All splits; a change is that of a split's arrays, None taking one away, of all splits where it names none."""
    for split in SPLITS:
        arrays = arrays_of(split, multi_label)
        for name, value in {**changes.get("all", {}), **changes.get(split, {})}.items():
            arrays[name] = value(arrays) if callable(value) else value
        np.savez(folder / f"{split}.npz", **{name: array for name, array in arrays.items() if array is not None})
    return folder


def test_tables_hold_features_by_modality_then_logits(tmp_path):
    data = load_features(write(tmp_path), SPLITS, {})
    assert data.modalities == ("text", "sound")
    assert data.widths == ((2, 3), (4,))
    assert (data.has_logits, data.num_outputs, data.multi_label) == (True, 3, False)
    for split in SPLITS:
        arrays = arrays_of(split)
        columns = ("text.0", "text.1", "sound.0", "text.logits", "sound.logits")
        expected = np.concatenate([arrays[name] for name in columns], axis=1)
        assert data.rows[split].dtype == np.float32
        assert np.array_equal(data.rows[split], expected)
        assert data.labels[split].dtype == np.int64
        assert np.array_equal(data.labels[split], arrays["label"])


def test_modalities_come_as_in_train_and_features_by_number(tmp_path):
    write(tmp_path)
    n = COUNTS["train"]
    columns = {f"many.{i}": np.full((n, 1), i) for i in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    for split in ("train", "dev"):  # in dev the other way round
        order = {"z": np.full((n, 1), -1.0), **columns, "a": np.full((n, 2), -2.0)}
        arrays = {name if "." in name else f"{name}.0": array for name, array in order.items()}
        content = {"label": np.arange(n) % 2, **arrays}
        np.savez(tmp_path / f"{split}.npz", **dict(content if split == "train" else reversed(content.items())))
    data = load_features(tmp_path, ("train", "dev"), {})
    assert data.modalities == ("z", "many", "a")
    assert data.widths == ((1,), (1,) * 11, (2,))
    assert not data.has_logits
    for split in ("train", "dev"):
        assert data.rows[split][3].tolist() == [-1, *range(11), -2, -2]


def test_limits_keep_the_first_samples(tmp_path):
    write(tmp_path)
    data = load_features(tmp_path, SPLITS, {"train": 2, "dev": 99, "test": None})
    assert {split: len(data.rows[split]) for split in SPLITS} == COUNTS | {"train": 2}
    assert data.labels["train"].tolist() == [0, 1]
    assert data.num_outputs == 3
    assert np.array_equal(data.rows["train"], load_features(tmp_path, SPLITS, {}).rows["train"][:2])


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float64])
def test_several_labels_a_sample(tmp_path, kind):
    write(tmp_path, multi_label=True, all={"label": lambda arrays: arrays["label"].astype(kind)})
    data = load_features(tmp_path, SPLITS, {"dev": 3})
    assert (data.multi_label, data.num_outputs) == (True, 3)
    assert data.labels["train"].dtype == np.float32
    assert data.labels["dev"].tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.uint64])
def test_any_whole_numbers_are_labels_and_any_numbers_features(tmp_path, kind):
    ones = filled(1, int if kind is bool else kind)
    write(tmp_path, all={"label": lambda arrays: (arrays["label"] % 2).astype(kind), "text.0": ones})
    (tmp_path / "test.npz").unlink()
    for split in ("train", "dev"):
        arrays = dict(np.load(tmp_path / f"{split}.npz")) | {"sound.logits": np.zeros((COUNTS[split], 2))}
        np.savez(tmp_path / f"{split}.npz", **arrays | {"text.logits": arrays["sound.logits"]})
    data = load_features(tmp_path, ("train", "dev"), {})
    assert data.labels["dev"].tolist() == [0, 1, 0, 0]
    assert data.rows["dev"][:, :2].tolist() == [[1, 1]] * 4


def write_table(folder: Path, label: np.ndarray, width: int | None = None) -> Path:
    """Two splits of these labels, with one random feature each of two modalities, and logits if they have a width."""
    for number, split in enumerate(("train", "dev")):
        rng = np.random.default_rng(number)
        arrays = {f"{name}.0": rng.normal(size=(len(label), 4)) for name in "ab"}
        arrays |= {f"{name}.logits": rng.normal(size=(len(label), width)) for name in "ab" if width}
        np.savez(folder / f"{split}.npz", label=label, **arrays)
    return folder


def test_logits_give_the_number_of_classes_and_those_without_samples_are_named(tmp_path, capsys):
    write_table(tmp_path, np.array([1, 3, 1, 4]), width=16)
    data = load_features(tmp_path, ("train", "dev"), {})
    assert data.num_outputs == 16
    warning = f"warning: {tmp_path}/train.npz has no sample of 13 of 16 classes: 0, 2, 5, 6, 7, 8, 9, 10, 11, 12, ...\n"
    assert capsys.readouterr().err == warning


def test_labels_of_which_each_sample_has_one_are_taken_if_so_wanted(tmp_path, capsys):
    write(tmp_path, all={"label": one_hot})
    data = load_features(tmp_path, SPLITS, {}, multi_label=True)
    assert (data.multi_label, data.num_outputs) == (True, 3)
    assert data.labels["dev"].sum() == COUNTS["dev"]
    write(tmp_path, all={"label": one_hot}, dev={"label": filled(1, int, 3)})  # one split has others: no classes
    assert load_features(tmp_path, SPLITS, {}).multi_label
    with pytest.raises(DataError, match=r"--multi_label needs labels 0 and 1 \(N, C\), but label is int64 \(N,\)"):
        load_features(write(tmp_path), SPLITS, {}, multi_label=True)
    assert capsys.readouterr().err == ""


def test_a_single_label_of_a_sample_is_not_taken_for_a_class(tmp_path):
    assert load_features(write_table(tmp_path, np.ones((4, 1), int)), ("train", "dev"), {}).multi_label


def shared_rows(folder: Path, **counts: int) -> None:
    """Let the first samples of dev and test be those of train, with other labels and logits."""
    write(folder)
    train = arrays_of("train")
    for split, count in counts.items():
        arrays = arrays_of(split)
        for name in ("text.0", "text.1", "sound.0"):
            arrays[name][:count] = train[name][:count].astype(np.float32)
        np.savez(folder / f"{split}.npz", **arrays)


def test_samples_that_two_splits_share_are_counted(tmp_path, capsys):
    shared_rows(tmp_path, dev=3, test=1)
    data = load_features(tmp_path, SPLITS, {})
    assert len(data.rows["dev"]) == COUNTS["dev"]
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}: 1 of 5 samples of test.npz are also in dev.npz, and 1 of 5 samples of test.npz are also "
        "in train.npz, and 3 of 4 samples of dev.npz are also in train.npz (they have the same features)\n"
    )
    load_features(tmp_path, ("train", "test"), {"train": 4, "test": 4})
    assert "1 of 4 samples of test.npz are also in train.npz" in capsys.readouterr().err


def test_samples_of_a_few_codes_may_occur_everywhere(tmp_path, capsys):
    for split, count in (("train", 40), ("dev", 20)):
        code = np.arange(count) % 2
        np.savez(tmp_path / f"{split}.npz", **{"a.0": code[:, None], "b.0": 1 - code[:, None], "label": code})
    load_features(tmp_path, ("train", "dev"), {})
    assert "20 of 20 samples of dev.npz are also in train.npz" in capsys.readouterr().err


# Names


def test_names_of_classes_and_modules_are_read(tmp_path):
    names = {"class_names": np.array(["Katze", "chien 2", "鳥"]), "text.modules": np.array(["", "layer1:last"])}
    data = load_features(write(tmp_path, train=names), SPLITS, {})
    assert data.class_names == ("Katze", "chien 2", "鳥")
    assert data.module_names == {"text": ("", "layer1:last")}
    assert data.feature_names == ["text.0", "text.1 (layer1:last)", "sound.0"]
    plain = load_features(write(tmp_path), SPLITS, {})
    assert (plain.class_names, plain.module_names) == (None, {})
    assert plain.feature_names == ["text.0", "text.1", "sound.0"]


@pytest.mark.parametrize("text", ["a\nb c\né", "\ufeffa\r\nb c \r\né\r\n", "a\nb c\né\n\n"])
def test_names_of_classes_may_be_lines_of_a_file(tmp_path, text):
    (tmp_path / "classes.txt").write_bytes(text.encode())
    assert load_features(write(tmp_path), SPLITS, {}).class_names == ("a", "b c", "é")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb", "classes.txt must have one name for each class, but has 2 for 3"),
        (b"", "classes.txt must have one name for each class, but has 1 for 3"),
        (b"a\n\nc", "classes.txt must be names of 1 to 100 printable characters, not ''"),
        (b"a\nb\n\xe9", "classes.txt must be text in UTF-8, one name per line, but byte 4 is not"),
        (b"b\na\nc", "class_names must be the same everywhere, but differ in dev.npz and classes.txt"),
    ],
)
def test_a_file_of_class_names_that_does_not_fit(tmp_path, content, message):
    (tmp_path / "classes.txt").write_bytes(content)
    write(tmp_path, dev={"class_names": np.array(["a", "b", "c"])})
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load_features(tmp_path, SPLITS, {})
    assert str(caught.value).startswith(str(tmp_path))


@settings(max_examples=200)
@given(st.lists(st.text(max_size=3) | st.sampled_from(["x" * 100, "y" * 101]), min_size=2, max_size=3))
def test_any_names_are_read_as_they_are_or_refused(damaged, names):
    arrays = {"a.0": np.ones((2, 1)), "b.0": np.zeros((2, 1)), "label": np.arange(2), "class_names": np.array(names)}
    np.savez(damaged / "train.npz", **arrays)
    try:
        data = load_features(damaged, ("train",), {})
    except DataError as error:
        assert str(damaged) in str(error)  # noqa: PT017
        fit = [name for name in names if name.strip() and name.isprintable() and len(name) <= 100]
        assert len(fit) < len(names) or len(names) > 2 or names[0] == names[1]
    else:
        assert data.class_names == tuple(names)


# What is wrong


def of_width(width: int):
    return lambda arrays: np.zeros((len(arrays["label"]), width), np.float32)


def filled(value: object, kind: object = np.float32, width: int = 2):
    return lambda arrays: np.full((len(arrays["label"]), width), value, kind)


def label(*values: object):
    return lambda arrays: np.resize(np.array(values), len(arrays["label"]))


def one_hot(arrays):
    return np.eye(3, dtype=np.uint8)[arrays["label"]]


TABLE = arrays_of("dev")
WRONG = {
    "a bad name": ({"train": {"text": np.zeros((6, 2))}}, "arrays must be named NAME.INDEX, NAME.logits, NAME.modules, "
                   "label or class_names, but one is 'text'"),
    "a space": ({"train": {"a b.0": np.zeros((6, 2))}}, "one is 'a b.0'"),
    "a line": ({"train": {"a\nb.0": np.zeros((6, 2))}}, r"one is 'a\nb.0'"),
    "a zero before": ({"train": {"text.02": np.zeros((6, 2))}}, "one is 'text.02'"),
    "other digits": ({"train": {"text.٢": np.zeros((6, 2))}}, "one is 'text.٢'"),
    "many digits": ({"train": {"text." + "9" * 5000: np.zeros((6, 2))}}, "arrays must be named NAME.INDEX"),
    "a gap": ({"all": {"text.1": None, "text.2": of_width(3)}}, "train.npz: the features of text must be numbered "
              "from 0 without gaps, but the file has 0, 2"),
    "no first": ({"all": {"sound.0": None, "sound.1": of_width(3)}}, "the features of sound must be numbered from 0 "
                 "without gaps, but the file has 1"),
    "logits alone": ({"all": {"sound.0": None}}, "the features of sound must be numbered from 0 without gaps, but the "
                     "file has none"),
    "one modality": ({"all": {"sound.0": None, "sound.logits": None}}, "the number of modalities must be 2 to 5, but "
                     "the file has 1: text"),
    "six modalities": ({"all": {f"{name}.0": of_width(1) for name in "abcd"}}, "the number of modalities must be 2 to "
                       "5, but the file has 6: text, sound, a, b, c, d"),
    "no label": ({"dev": {"label": None}}, "dev.npz has no array named label"),
    "float labels": ({"train": {"label": label(0.0, 1.0)}}, "train.npz: label must hold integers (N,), or 0 and 1 (N, "
                     "C), but is float64 (6,)"),
    "words": ({"train": {"label": label("cat", "dog")}}, "train.npz: label must hold integers, but holds text (<U3 "
              "(6,)); number the classes of all splits together, names, numbers = numpy.unique(labels, "
              "return_inverse=True), and store the names as class_names"),
    "bytes": ({"train": {"label": label(b"cat", b"dog")}}, "train.npz: label must hold integers, but holds text (|S3"),
    "word objects": ({"train": {"label": label("cat", None)}}, "train.npz: 'label' holds Python objects, which are "
                     "never loaded; store numbers, and labels as integers (numpy.unique(labels, return_inverse=True) "
                     "numbers names)"),
    "words of several": ({"all": {"label": filled("1", "<U1", 3)}}, "label must hold integers, but holds text (<U1 (6, "
                         "3)); number the classes"),
    "dates": ({"all": {"label": filled(0, "datetime64[D]", 3)}}, "label must hold integers (N,)"),
    "records": ({"all": {"label": filled(0, [("a", int)], 3)}}, "label must hold integers (N,)"),
    "one label for all": ({"train": {"label": np.array(1)}}, "label must hold integers (N,), or 0 and 1 (N, C), but "
                          "is int64 ()"),
    "a cube of labels": ({"train": {"label": np.zeros((6, 1, 1), int)}}, "but is int64 (6, 1, 1)"),
    "negative": ({"test": {"label": label(0, -1)}}, "test.npz: labels must lie in 0..99999, but range from -1 to 0"),
    "not in train": ({"dev": {"label": label(0, 7)}}, "dev.npz has class 7, but text.logits has 3 columns"),
    "beyond train": ({"all": {"text.logits": None, "sound.logits": None}, "dev": {"label": label(0, 7)}}, "dev.npz has "
                     "class 7, but train.npz only classes up to 2"),
    "beyond logits": ({"train": {"label": label(0, 3)}}, "train.npz has class 3, but text.logits has 3 columns"),
    "gaps": ({"all": {"text.logits": None, "sound.logits": None}, "train": {"label": label(0, 3, 5)}}, "train.npz has "
             "no sample of 3 of 6 classes: 1, 2, 4; number the classes of all splits together without gaps "
             "(numpy.unique(labels, return_inverse=True)[1]), or store logits, whose columns are the classes"),
    "many gaps": ({"all": {"text.logits": None, "sound.logits": None, "label": label(0, 99_999)}}, "train.npz has no "
                  "sample of 99,998 of 100,000 classes: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...; number"),
    "from 1": ({"all": {"text.logits": None, "sound.logits": None, "label": label(1, 2)}}, "no sample of 1 of 3 "
               "classes: 0; number"),
    "one-hot": ({"all": {"label": one_hot}}, "each sample has one of 3 labels; these look like one-hot classes: give "
                "integers (N,), as label.argmax(axis=1) does, or --multi_label if every sample really has one label"),
    "identifiers": ({"train": {"label": label(3, 10**9)}}, "labels must lie in 0..99999, but range from 3 to "
                    "1000000000"),
    "unsigned": ({"all": {"label": label(np.uint64(2**64 - 1))}}, "labels must lie in 0..99999, but range from "
                 "18446744073709551615 to 18"),
    "others than 0 and 1": ({"train": {"label": filled(2, int, 3)}}, "labels (N, C) must be 0 or 1"),
    "unknown labels": ({"train": {"label": filled(np.nan, float, 3)}}, "labels (N, C) must be 0 or 1"),
    "no classes": ({"all": {"label": filled(0, int, 0)}}, "label must hold integers (N,), or 0 and 1 (N, C), but is "
                   "int64 (6, 0)"),
    "two kinds of label": ({"dev": {"label": filled(1, int, 3)}}, "width of label is 1 in train.npz and 3 in dev.npz"),
    "other classes": ({"all": {"label": filled(1, int, 3)}, "dev": {"label": filled(1, int, 4)}}, "the width of label "
                      "is 3 in train.npz and 4 in dev.npz"),
    "other widths": ({"dev": {"sound.0": of_width(5)}}, "all splits must have the same arrays, but the width of "
                     "sound.0 is 4 in train.npz and 5 in dev.npz"),
    "one less": ({"dev": {"text.1": None}}, "the width of text.1 is 3 in train.npz and none in dev.npz"),
    "one more": ({"test": {"text.2": of_width(3)}}, "the width of text.2 is none in train.npz and 3 in test.npz"),
    "some logits": ({"all": {"text.logits": None}}, "all modalities or none must have logits, but the files have "
                    "sound.logits"),
    "wide logits": ({"all": {"text.logits": of_width(4)}}, "logits must have a column for each class, but there are "
                    "4 in text.logits, 3 in sound.logits"),
    "logits of fewer labels": ({"all": {"label": filled(1, int, 3), "text.logits": of_width(4)}}, "text.logits must "
                               "have a column for each of 3 classes, but has 4"),
    "other counts": ({"dev": {"text.1": np.zeros((5, 3))}}, "dev.npz: text.1 has 5 samples, but label has 4"),
    "nan": ({"train": {"text.0": np.array([[0, 0]] * 4 + [[0, np.nan], [np.inf, 0]])}}, "train.npz: text.0 must be "
            "finite, but is not in sample 4"),
    "too large": ({"train": {"text.0": filled(1e300, np.float64)}}, "train.npz: text.0 must be finite, but is not in "
                  "sample 0"),
    "complex": ({"train": {"text.0": filled(1j, np.complex64)}}, "text.0 must hold numbers (N, D), but is complex64 "
                "(6, 2)"),
    "text": ({"train": {"text.0": filled("1", "<U1")}}, "text.0 must hold numbers (N, D), but is <U1 (6, 2)"),
    "maps": ({"train": {"text.0": np.zeros((6, 2, 2))}}, "text.0 must hold numbers (N, D), but is float64 (6, 2, 2)"),
    "rows": ({"train": {"text.0": np.zeros(6)}}, "text.0 must hold numbers (N, D), but is float64 (6,)"),
    "no width": ({"train": {"text.0": of_width(0)}}, "text.0 must hold numbers (N, D), but is float32 (6, 0)"),
    "one class": ({"train": {"label": label(2)}}, "train.npz must have two classes or more, but all samples are of "
                  "class 2"),
    "objects": ({"train": {"text.0": filled(None, object)}}, "train.npz: 'text.0' holds Python objects, which are "
                "never loaded; store numbers"),
    "empty": ({"dev": {name: array[:0] for name, array in arrays_of("dev").items()}}, "dev.npz has no samples"),
    "class numbers": ({"train": {"class_names": np.arange(3)}}, "train.npz: class_names must hold text (N,), but is "
                      "int64 (3,)"),
    "a class without a name": ({"dev": {"class_names": np.array(["a", "b"])}}, "dev.npz: class_names must have one "
                               "name for each class, but has 2 for 3"),
    "a name twice": ({"train": {"class_names": np.array(["a", "b", "a"])}}, "class_names must be different names, but "
                     "'a' occurs 2 times"),
    "a long name": ({"train": {"class_names": np.array(["a", "b", "c" * 101])}}, "must be names of 1 to 100 printable "
                    "characters, not 'ccc"),
    "an empty name": ({"train": {"class_names": np.array(["a", "b", " "])}}, "printable characters, not ' '"),
    "a name that is not shown": ({"train": {"class_names": np.array(["a", "b", "\x1b[2J"])}}, "printable characters, "
                                 "not '\\x1b[2J'"),
    "invalid code points": ({"train": {"class_names": np.full(3, 2**31, np.uint32).view("<U1")}}, "train.npz is not a "
                      "complete .npz file, which numpy.savez writes: it holds text with invalid code points"),
    "name objects": ({"train": {"class_names": np.array(["a", "b", "c"], object)}}, "'class_names' holds Python "),
    "other names": ({"train": {"class_names": np.array(["a", "b", "c"])}, "dev": {"class_names": np.array(["b", "a",
                    "c"])}}, "class_names must be the same everywhere, but differ in train.npz and dev.npz"),
    "modules of none": ({"train": {"image.modules": np.array(["conv"])}}, "train.npz: 'image.modules' names modules of "
                        "a modality without features"),
    "a module too few": ({"test": {"text.modules": np.array(["conv"])}}, "test.npz: text.modules must have one name "
                         "for each feature, but has 1 for 2"),
    "other modules": ({"train": {"sound.modules": np.array(["a"])}, "test": {"sound.modules": np.array(["b"])}},
                      "sound.modules must be the same everywhere, but differ in train.npz and test.npz"),
    "a copy of train": ({"train": TABLE, "dev": TABLE}, "all 4 samples of dev.npz are also in train.npz (they have "
                        "the same features); a split must have samples of its own"),
    "part of train": ({"train": TABLE, "dev": arrays_of("test"), "test": {name: x[1:3] for name, x in TABLE.items()}},
                      "all 2 samples of test.npz are also in train.npz"),
    "more than train": ({"train": {name: x[1:3] for name, x in TABLE.items()}, "dev": TABLE}, "all 2 samples of "
                        "train.npz are also in dev.npz"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_file_and_array(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        load_features(tmp_path, SPLITS, {})
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def member(name: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, content)
    return archive.getvalue()


def npy(array: np.ndarray, **options: object) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 2)}\n"
FILES = {
    "nothing": (b"", "is not a complete .npz file, which numpy.savez writes"),
    "words": (b"hello", "is not a complete .npz file, which numpy.savez writes"),
    "half a zip": (member("text.0.npy", npy(np.zeros((6, 2))))[:99], "is not a complete .npz file"),
    "one array": (npy(np.zeros(3)), "is a single array, not an .npz file of named arrays; write it with numpy.savez"),
    "a pickle": (npy(np.array([{}]), allow_pickle=True), "is a single array, not an .npz file of named arrays"),
    "a zip of text": (member("label", b"0 1 2"), "'label' is not an array; use numpy.savez"),
    "a text beside": (member("text.0.npy", b"0 1 2"), "'text.0' is not an array; use numpy.savez"),
    "a header of nothing": (member("text.0.npy", header("")), "is not a complete .npz file"),
    "a header cut off": (member("text.0.npy", header("{'descr': ('''")), "is not a complete .npz file"),
    "a header too deep": (member("text.0.npy", header("(" * 9000)), "is not a complete .npz file"),
    "more than memory": (
        member("text.0.npy", header(HUGE % 2**48)),
        "2251799813685330 bytes expected, 82 found",
    ),
    "more than numbers": (member("text.0.npy", header(HUGE % 2**80)), "is not a complete .npz file"),
    "less than nothing": (member("text.0.npy", header(HUGE % -(2**40))), "is not a complete .npz file"),
}


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_file_that_is_none_of_arrays(tmp_path, content, message):
    path = write(tmp_path) / "dev.npz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_features(tmp_path, SPLITS, {})
    assert f"{path}" in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "test.npz").unlink()
    load_features(tmp_path, ("train", "dev"), {})
    with pytest.raises(DataError, match=r"test\.npz is missing \(\S+ holds dev\.npz, train\.npz\); docs/own_data"):
        load_features(tmp_path, SPLITS, {})


def test_a_folder_in_place_of_a_file_is_an_error_of_the_disk(tmp_path):
    (tmp_path / "train.npz").mkdir()
    with pytest.raises(IsADirectoryError, match=r"train\.npz"):
        load_features(tmp_path, ("train",), {})


def small_file(write_file=np.savez) -> bytes:
    content = io.BytesIO()
    write_file(content, **{"a.0": np.ones((2, 1), np.float32), "b.0": np.zeros((2, 1)), "label": np.arange(2)})
    return content.getvalue()


WHOLE = [small_file(), small_file(np.savez_compressed)]
PATCHES = st.lists(st.tuples(st.integers(0, len(WHOLE[0]) - 1), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@settings(max_examples=2000)
@given(content=st.sampled_from(WHOLE), patches=PATCHES, cut=st.none() | st.integers(0, len(WHOLE[0])))
def test_damaged_bytes_give_the_arrays_or_one_message(damaged, content, patches, cut):
    changed = bytearray(content[:cut])
    for place, value in patches:
        changed[place : place + 1] = bytes([value])[: len(changed[place : place + 1])]
    (damaged / "train.npz").write_bytes(changed)
    try:
        data = load_features(damaged, ("train",), {})
    except DataError as error:
        assert str(damaged) in str(error)  # noqa: PT017 - most of them are errors, some are not
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert data.rows["train"].tolist() == [[1, 0], [1, 0]]
        assert data.labels["train"].tolist() == [0, 1]


@settings(max_examples=300)
@given(
    text=st.text("{}()[],:'descr<f4iuO|boltranhsp_e 0123456789L\n", max_size=60)
    | st.builds(
        "{{'descr': {!r}, 'fortran_order': {}, 'shape': {}}}\n".format,
        st.sampled_from(["<f4", ">i8", "<U2", "|V3", "<M8[s]", "O", "<f2", "|b1", "x", [("a", "<i4")]]),
        st.sampled_from([False, True, 3]),
        st.sampled_from([(2, 1), (2,), (), (-1, 1), (0, 0), (2**62, 2**62), (True, 2), (2, "x"), [2, 1], 2]),
    ),
    body=st.binary(max_size=40),
)
def test_any_header_of_an_array_gives_the_arrays_or_one_message(damaged, text, body):
    archive = io.BytesIO(small_file())
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("c.0.npy", header(text) + body)
    (damaged / "train.npz").write_bytes(archive.getvalue())
    try:
        data = load_features(damaged, ("train",), {})
    except DataError as error:
        assert str(damaged) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert data.rows["train"].shape == (2, 3)


def test_what_cannot_be_predicted_is_refused(tmp_path):
    path = tmp_path / "new.npz"
    np.savez(path, **{"a.0": np.zeros((0, 3), np.float32), "b.0": np.zeros((0, 2), np.float32)})
    with pytest.raises(DataError, match=r"new\.npz holds no samples"):
        read_rows(path, ["a", "b"], [[3], [2]])
    with pytest.raises(UsageError, match="is a folder; name the checkpoint"):
        load_network(tmp_path)
