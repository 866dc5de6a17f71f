"""The evaluation protocols of NTU RGB+D: which samples train a network, and which test it.

xsub60 (cross-subject) and xview60 (cross-view) are of NTU RGB+D 60, xsub120 (cross-subject) and xset120 (cross-setup)
of NTU RGB+D 120. The test samples are those of the data set's papers. The others are divided here: dev selects, train
trains, and trainexp, a part of train, trains the candidates of a search. The division of xsub60 is the published one.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

FIRST_SETUPS, ALL_SETUPS = range(1, 18), range(1, 33)  # of NTU RGB+D 60 and 120
ANY = range(1000)
SUBJECTS = {
    "train": (1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38),
    "trainexp": (1, 4, 8, 13, 15, 17, 19),
    "dev": (2, 5, 9, 14),
    "test": (3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40),
}
TRAINING_SUBJECTS = (  # of NTU RGB+D 120
    *(1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56),
    *(57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)


def subject_of(name: str) -> int:
    """Subject of a sample, from 1."""
    return int(name[9:12])


@dataclasses.dataclass(frozen=True)
class Part:
    """The samples that have one of these setups, cameras and subjects."""

    setups: Collection[int]
    cameras: Collection[int] = ANY
    subjects: Collection[int] = ANY

    def __contains__(self, name: str) -> bool:
        return int(name[1:4]) in self.setups and int(name[5:8]) in self.cameras and subject_of(name) in self.subjects

    def __str__(self) -> str:
        """Describe the part, as in "the subjects 2, 5, 9, 14"; criteria that are whole ranges are left out."""
        listed = {name: members for name, members in vars(self).items() if not isinstance(members, range)}
        return " and ".join(f"the {name} {', '.join(map(str, members))}" for name, members in listed.items())


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Number of classes, and what the splits take, by name."""

    classes: int
    splits: Mapping[str, Part]

    def counts(self, names: Collection[str]) -> str:
        """Number of samples in each split and in none, in words."""
        held = [f"{split} {sum(name in part for name in names):,}" for split, part in self.splits.items()]
        rest = sum(not any(name in part for part in self.splits.values()) for name in names)
        return ", ".join(held) + (f"; in no split {rest:,}" if rest else "")


def _divided(members: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Divide the subjects or setups that train: every fifth is in dev, and every second of the others in trainexp."""
    train = [member for place, member in enumerate(members, 1) if place % 5]
    return {"train": tuple(train), "trainexp": tuple(train[::2]), "dev": tuple(members[4::5])}


def _protocols() -> dict[str, Protocol]:
    first, both = FIRST_SETUPS, ALL_SETUPS
    others = tuple(subject for subject in range(1, 107) if subject not in TRAINING_SUBJECTS)
    by_subject = {**_divided(TRAINING_SUBJECTS), "test": others}
    views = {split: Part(first, (2, 3), subjects) for split, subjects in _divided(range(1, 41)).items()}
    setups = {**_divided(both[1::2]), "test": tuple(both[::2])}  # even setups train
    return {
        "xsub60": Protocol(60, {split: Part(first, subjects=subjects) for split, subjects in SUBJECTS.items()}),
        "xview60": Protocol(60, {**views, "test": Part(first, (1,))}),
        "xsub120": Protocol(120, {split: Part(both, subjects=subjects) for split, subjects in by_subject.items()}),
        "xset120": Protocol(120, {split: Part(members) for split, members in setups.items()}),
    }


PROTOCOLS = _protocols()
