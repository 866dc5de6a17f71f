"""The protocols of NTU RGB+D, on the names of all samples."""

import itertools
import json

import pytest

from datasets.ntu.protocols import PROTOCOLS, TRAINING_SUBJECTS
from tests.ntu_samples import write_samples
from utils import cli
from utils.runs import data_flags

# Subjects of each setup of NTU RGB+D 60, in whose names they are.
SETUPS = """
    1-8; 3 7-14; 1 2 7 8 15-19; 3 7 8 20; 4 10 13 15 16 18 21; 1 7 8 16 17 19 22-24; 1 7 8 15-19 25-28;
    1 7 8 15 19 25 29-36; 1 7 8 15-17 19 25; 7 8 13 15-19 21 25; 1 2 7 8 15-19 25 27 28 38; 7 8 15-19 25 27 28 37;
    7 8 15-19 25 27 28 37; 7 8 15 17 19 25 27 28 37 39; 7 8 15-17 19 25 37; 7 8 19 21 25 39 40; 3 7-9 15-17 20
"""


def names_of(setup: int, subjects: list[int], actions: range) -> list[str]:
    places = itertools.product((1, 2, 3), subjects, (1, 2), actions)
    return [
        f"S{setup:03d}C{camera:03d}P{person:03d}R{repeat:03d}A{action:03d}" for camera, person, repeat, action in places
    ]


@pytest.fixture(scope="module")
def first() -> list[str]:
    """All names of NTU RGB+D 60."""
    names = []
    for setup, text in enumerate(SETUPS.split(";"), 1):
        spans = [[*map(int, span.split("-"))] for span in text.split()]
        people = [person for span in spans for person in range(span[0], span[-1] + 1)]
        names += names_of(setup, people, range(1, 61))
    return names


@pytest.fixture(scope="module")
def both(first) -> list[str]:
    """As many names as NTU RGB+D 120 has; which subjects are in setups 18 to 32 is made up."""
    people = itertools.cycle(range(41, 107))
    new = [names_of(18 + i % 15, [next(people)], range(61, 121)) for i in range(160)]
    return [*first, *itertools.chain(*new)]


def held(protocol: str, names: list[str]) -> dict[str, set[str]]:
    return {split: {name for name in names if name in part} for split, part in PROTOCOLS[protocol].splits.items()}


def test_counts_are_those_of_the_papers(first, both):
    assert (len(first), len(set(both))) == (56_880, 114_480)
    for protocol, train, test in (("xsub60", 40_320, 16_560), ("xview60", 37_920, 18_960)):
        splits = held(protocol, first)
        assert (len(splits["train"] | splits["dev"]), len(splits["test"])) == (train, test)
    assert held("xsub60", both) == held("xsub60", first)  # a folder of both data sets


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_sample_is_in_one_split_and_every_class_in_each(protocol, first, both):
    names = first if protocol.endswith("60") else both
    splits = held(protocol, names)
    parts = [splits[split] for split in ("train", "dev", "test")]
    assert set().union(*parts) == set(names)
    assert sum(map(len, parts)) == len(names)
    assert splits["trainexp"] < splits["train"]
    for split in splits.values():
        assert len({name[-3:] for name in split}) == PROTOCOLS[protocol].classes
    assert PROTOCOLS[protocol].counts(names).endswith(f"test {len(splits['test']):,}")
    assert 0.04 < len(splits["dev"]) / len(names) < 0.2


def test_what_decides_in_each_protocol(first, both):
    views, setups, people = held("xview60", first), held("xset120", both), held("xsub120", both)
    assert {name[5:8] for name in views["train"] | views["dev"]} == {"002", "003"}
    assert {int(name[1:4]) % 2 for name in setups["train"] | setups["dev"]} == {0}
    assert {int(name[9:12]) for name in people["train"] | people["dev"]} <= set(TRAINING_SUBJECTS)
    assert len(TRAINING_SUBJECTS) == 53


@pytest.mark.slow
def test_a_network_trained_on_one_protocol_is_refused_by_another(run_script, tmp_path):
    write_samples(tmp_path / "D", classes=2, subjects={"train": 3, "dev": 2, "test": 1}, vid_dim=32, halves=False)
    for path in [*tmp_path.glob("D/*/S*"), *tmp_path.glob("D/*/*/S*")]:  # a second camera
        path.with_name(path.name.replace("C001", "C002")).symlink_to(path)
    data = ("--datadir", "D", "--checkpointdir", "C", "--vid_dim", 32, "--num_workers", 0, "--num_outputs", 2)
    once = ("--protocol", "xview60", "--epochs", 1, "--run_dir", "runs/skeleton")
    done = run_script("train_skeleton_ntu.py", *data, *once)
    assert "training SkeletonNet on 10 samples" in done.stdout  # of subjects 1, 2, 3, 4, 16 and not 5, camera 2
    assert json.loads((tmp_path / "runs/skeleton/results.json").read_text())["protocol"] == "xview60"

    (tmp_path / "C/rgb_8frames_90.00.checkpoint").touch()
    error = run_script("main_searchable_ntu.py", *data, code=2).stderr
    assert "was trained on --protocol xview60, but this command has xsub60; train one" in error
    error = run_script("main_found_ntu.py", *data, "--protocol", "xview60", code=2).stderr
    assert "C/rgb_8frames_90.00.checkpoint has no record of its protocol, but this command has xview60" in error


def test_the_protocol_decides_the_number_of_classes():
    def classes(*flags: object) -> int:
        parser = cli.make_parser("")
        data_flags.add_ntu_data(parser)
        return parser.parse_args([*map(str, flags)]).num_outputs

    assert classes() == classes("--protocol", "xview60") == 60
    assert classes("--protocol", "xset120") == 120
    assert classes("--protocol", "xsub120", "--num_outputs", 7) == 7
    assert classes("--num_outputs", 7, "--protocol", "xsub120") == 7
