"""Enumerating, unfolding, sampling, parsing and formatting configurations, as pure functions."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.errors import UsageError
from utils.search.space import (
    Space,
    format_configuration,
    parse_configuration,
    random_configuration,
    read_search,
    sample,
    unfold,
)

SPACES = st.builds(
    Space,
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    st.sampled_from([(0,), (0, 1), (0, 2)]),
)
PUBLISHED = [((3, 2, 1), (2, 0, 1)), ((3, 2, 0),)]


@given(SPACES)
def test_rows_are_all_combinations_last_index_fastest(space):
    rows = space.rows()
    assert rows == sorted(set(rows))
    assert len(rows) == np.prod(space.sizes) * len(space.activations)
    space.check(tuple(rows), legal_activations=3)


@pytest.mark.parametrize(
    "row", [(5, 0, 0), (0, 3, 0), (0, 0, 3), (-1, 0, 0), (0, 0), (0, 0, 0, 0), ()], ids=lambda row: str(list(row))
)
def test_check_names_the_limits_and_the_row(row):
    space = Space((5, 3))
    space.check(((0, 0, 2), (4, 2, 0)), legal_activations=3)
    with pytest.raises(UsageError) as caught:
        space.check(((0, 0, 0), row), legal_activations=3)
    assert str(caught.value) == (f"a configuration row is 3 numbers, 0 to 4, 0 to 2, 0 to 2, but got {list(row)}")


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple), st.sampled_from([(0, 1), (0, 3), (2,)]))
def test_with_skips_a_row_may_skip_modalities_but_not_all(sizes, activations):
    space = Space(sizes, activations, allow_skip=True)
    rows = space.rows()
    assert rows == sorted(set(rows))
    assert len(rows) == (np.prod(np.add(sizes, 1)) - 1) * len(activations)
    assert all(-1 <= i < n for row in rows for i, n in zip(row[:-1], sizes, strict=True))
    assert all(max(row[:-1]) >= 0 and row[-1] in activations for row in rows)
    assert set(Space(sizes, activations).rows()) == {row for row in rows if min(row) >= 0}
    space.check(tuple(rows), legal_activations=4)


@pytest.mark.parametrize(
    "row", [(-1, -1, 0), (-2, 0, 0), (0, -1, -1), (5, -1, 0), (-1, 2, 4), (-1, 0)], ids=lambda row: str(list(row))
)
def test_with_skips_check_names_the_index_that_skips(row):
    space = Space((5, 3), allow_skip=True)
    space.check(((-1, 0, 3), (4, -1, 2)), legal_activations=4)
    with pytest.raises(UsageError) as caught:
        space.check((row,), legal_activations=4)
    assert str(caught.value) == (
        "a configuration row is 3 numbers, 0 to 4, 0 to 2, 0 to 3, or -1 for modalities to skip (not all), "
        f"but got {list(row)}"
    )


# Unfolding


@given(SPACES, st.integers(0, 3), st.data())
def test_unfolding_replaces_or_appends_every_row(space, level, data):
    rows = space.rows()
    lengths = st.integers(level, 4).filter(lambda n: n > 0)
    starts = lengths.flatmap(lambda n: st.lists(st.sampled_from(rows), min_size=n, max_size=n).map(tuple))
    sampled = data.draw(st.lists(starts, min_size=1, max_size=6))
    unfolded = unfold(sampled, rows, level)
    expected = {(*s[:level], row, *s[level + 1 :]) for s in sampled for row in rows}
    around = {
        (s[:level], s[level + 1 :]) for s in sampled
    }  # the other rows; equal ones unfold to the same configurations
    assert set(unfolded) == expected
    assert len(unfolded) == len(expected) == len(around) * len(rows)
    if all(len(s) > level for s in sampled):
        assert set(sampled) <= set(unfolded)
    else:
        assert all(len(configuration) >= level + 1 for configuration in unfolded)


def test_unfolding_nothing_gives_the_one_layer_configurations():
    rows = Space((5, 3)).rows()
    assert unfold([], rows, 0) == [(row,) for row in rows]
    assert len(rows) == 30


# Sampling


@given(
    st.lists(st.floats(0, 1), max_size=20),
    st.integers(0, 25),
    st.sampled_from([0.0, 1e-12, 1e-3, 0.2, 1.0, 10.0, 1e9]),
    st.integers(0, 100),
)
def test_a_sample_is_without_replacement_and_never_warns(accuracies, count, temperature, seed):
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        chosen = sample(range(len(accuracies)), accuracies, count, temperature, np.random.default_rng(seed))
    assert len(chosen) == len(set(chosen)) == min(count, len(accuracies))
    assert all(type(i) is int and 0 <= i < len(accuracies) for i in chosen)


@given(st.permutations([0.0, 0.1, 0.3, 0.5, 0.52, 0.9]), st.integers(0, 100))
def test_near_temperature_zero_the_best_are_taken_in_order(accuracies, seed):
    chosen = sample(accuracies, accuracies, 4, 1e-6, np.random.default_rng(seed))
    assert [accuracies[i] for i in chosen] == [0.9, 0.52, 0.5, 0.3]


@pytest.mark.parametrize(
    ("accuracies", "temperature"),
    [([0.1, 0.2, 0.4, 0.8], t) for t in (0.5, 1.0, 2.0, 10.0, 1e6)] + [([0.0] * 4, 1.0), ([0.5, 0.5, 0.0, 0.0], 0.2)],
)
def test_frequencies_follow_accuracy_to_the_inverse_temperature(accuracies, temperature):
    """First and second picks of 5,000 seeded draws lie within 4 standard deviations of their probabilities."""
    draws, rng = 5000, np.random.default_rng(0)
    picks = np.array([sample(accuracies, accuracies, 2, temperature, rng) for _ in range(draws)])
    p = np.maximum(accuracies, 1e-12) ** (1 / temperature)
    p /= p.sum()
    second = np.array([sum(p[i] * p[j] / (1 - p[i]) for i in range(len(p)) if i != j) for j in range(len(p))])
    for place, expected in enumerate((p, second)):
        frequencies = np.bincount(picks[:, place], minlength=len(p)) / draws
        assert (abs(frequencies - expected) <= 4 * np.sqrt(expected * (1 - expected) / draws) + 1e-9).all()
    if temperature == 1e6:
        np.testing.assert_allclose(p, 0.25, atol=1e-5)


def test_random_configurations_vary_in_length_and_row():
    space, rng = Space((2, 3)), np.random.default_rng(0)
    drawn = [random_configuration(space, 3, rng) for _ in range(3000)]
    shares = np.bincount([len(c) for c in drawn], minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.04)
    for layer in range(3):
        assert {c[layer] for c in drawn if len(c) > layer} == set(space.rows())


# Parsing


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 99)] * n), min_size=1, max_size=5)))
def test_parsing_reads_what_formatting_writes(rows):
    text = format_configuration(rows)
    assert " " not in text
    assert parse_configuration(text, PUBLISHED) == tuple(rows)
    assert parse_configuration(f" {json.dumps(rows)} ", PUBLISHED) == tuple(rows)


def test_a_number_is_a_published_configuration():
    assert [parse_configuration(text, PUBLISHED) for text in ("0", "1", "01")] == [*PUBLISHED, PUBLISHED[1]]


def test_a_search_result_gives_its_best(tmp_path):
    path = tmp_path / "best.json"
    entries = [{"configuration": [[1, 2, 0], [3, 0, 1]], "dev_accuracy": 0.9}, {"configuration": [[0, 0, 0]]}]
    path.write_text(json.dumps({"configurations": entries}))
    assert parse_configuration(str(path), PUBLISHED) == ((1, 2, 0), (3, 0, 1))


def test_the_search_behind_a_configuration(tmp_path):
    path = tmp_path / "best.json"
    path.write_text(json.dumps({"configurations": [{"configuration": [[1, 2, 0]]}], "seconds": 3.5}))
    assert read_search(str(path))["seconds"] == 3.5
    assert read_search("1") == read_search("[[1,2,0]," + "[0,0,0]," * 99 + "[0,0,0]]") == {}


def test_where_nothing_is_published_a_number_is_none():
    with pytest.raises(UsageError, match=r"--conf takes rows such as .* or a search's best\.json, but got 0"):
        parse_configuration("0", ())
    assert parse_configuration("[[-1,0,2]]", ()) == ((-1, 0, 2),)


NO_LIST = "a configuration is a list of rows of numbers such as"
NO_FILE = "--conf takes a list such as [[3,2,0]] or a search's best.json, but there is no file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "--conf takes the published configurations 0 to 1, but got 2"),
        ("-1", "--conf takes the published configurations 0 to 1, but got -1"),
        ("--5", NO_FILE),
        ("9" * 5000, "name too long"),
        ("[[3,2,0]", "Expecting ',' delimiter"),
        ("[[3,2,0]]]", "Extra data"),
        ("", "--conf is empty"),
        ("[[3,2,x]]", "--conf takes rows such as"),
        ('[["3",2,0]]', NO_LIST),
        ("[[3.0,2,0]]", NO_LIST),
        ("[[3,2,true]]", NO_LIST),
        ("[[3,[2],0]]", NO_LIST),
        ("[[3,2,0],[2,0]]", NO_LIST),
        ("[3,2,0]", NO_LIST),
        ("[]", NO_LIST),
        ("[" * 100_000, "nested more than 32 deep"),
        ("[" * 150 + "]" * 150, "nested more than 32 deep"),
        ("best.json", f"{NO_FILE} best.json"),
        ("\0", "null byte"),
        ("two\nlines", r"there is no file 'two\nlines'"),
        ("[" + "1," * 9999 + "1]", "..."),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_bad_conf(text, message):
    with pytest.raises(UsageError) as caught:
        parse_configuration(text, PUBLISHED)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"{]", "property name"),
        (b"\xff\xfe", "decode"),
        (b"[]", "it must be an object"),
        (b"{}", "configurations"),
        (b'{"configurations": 3}', "configurations must be a list"),
        (b'{"configurations": []}', "it lists no configuration"),
        (b'{"configurations": [3]}', "configurations[0] must be an object"),
        (b'{"configurations": [{"configuration": [["a"]]}]}', NO_LIST),
        (b'{"configurations": [{"configuration": [[1]]}, {"configuration": []}]}', NO_LIST),
        (b"[" * 100_000, "nested more than 32 deep"),
        (b'{"configurations": [{"configuration": [[1]]}], "seconds": "9"}', "seconds must be a number of at least 0"),
        (b'{"configurations": [{"configuration": [[1]]}], "seconds": NaN}', "seconds must be a number of at least 0"),
        (b'{"configurations": [{"configuration": [[1]]}], "candidates_trained": -1}', "candidates_trained must be"),
    ],
    ids=lambda content: repr(content[:40]),
)
def test_bad_search_result(tmp_path, content, message):
    path = tmp_path / "best.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message.replace("[", r"\[")) as caught:
        parse_configuration(str(path), PUBLISHED)
    assert "\n" not in str(caught.value)
    assert f"{path} is not a search's best.json" in str(caught.value)


def test_a_run_folder_names_its_search_result(tmp_path):
    with pytest.raises(UsageError, match="there is no file") as caught:
        parse_configuration(str(tmp_path), PUBLISHED)
    assert str(tmp_path / "best.json") in str(caught.value)
    (tmp_path / "best.json").write_text('{"configurations": [{"configuration": [[1, 2, 0]]}]}')
    assert parse_configuration(str(tmp_path), PUBLISHED) == ((1, 2, 0),)
