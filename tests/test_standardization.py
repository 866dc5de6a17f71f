"""Standardized features: the statistics, the table that standardizes as it is read, and the network that does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.fusion import FeatureLayout, FeatureNetwork, HeadSettings
from utils.candidates.feature_bank import bank_of_features
from utils.training.batches import ArraySplit
from utils.training.standardization import StandardizedTable, column_statistics, standardize_network, table_statistics

LAYOUT = FeatureLayout(((3, 2), (4,)), num_outputs=2)
NAMES = ("image", "sound")


def table(count: int, scale: float = 1.0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return scale * (5 + torch.randn(count, LAYOUT.total, generator=draw) * torch.arange(1, LAYOUT.total + 1))


def split_of(rows: torch.Tensor) -> ArraySplit:
    return ArraySplit((rows,), torch.arange(len(rows)) % 2)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.floats(-1e4, 1e4), st.integers(0, 1000))
def test_statistics_of_parts_are_those_of_the_whole(sizes, offset, seed):
    parts = [torch.randn(n, 3, generator=torch.Generator().manual_seed(seed + n)) + offset for n in sizes]
    mean, deviation = column_statistics(parts)
    whole = torch.cat(parts).double().numpy()
    np.testing.assert_allclose(mean.numpy(), whole.mean(0), rtol=1e-5, atol=1e-6)
    known = deviation.numpy() > 0  # a deviation below a millionth of the mean counts as none
    np.testing.assert_allclose(deviation.numpy()[known], whole.std(0)[known], rtol=1e-4)
    assert (whole.std(0)[~known] <= 2e-6 * np.abs(whole.mean(0)[~known])).all()


def test_a_table_is_standardized_as_it_is_read_but_for_its_logits():
    rows = table(500)
    mean, scale = table_statistics(rows, LAYOUT, NAMES)
    standard = StandardizedTable(rows, mean, scale)
    read = torch.cat([standard[:100], standard[torch.arange(100, 500)]])
    torch.testing.assert_close(read[:, :9].mean(0), torch.zeros(9), atol=1e-5, rtol=0)
    torch.testing.assert_close(read[:, :9].std(0, correction=0), torch.ones(9))
    assert torch.equal(read[:, 9:], rows[:, 9:])
    assert (len(standard), standard.shape, standard.nbytes) == (500, rows.shape, rows.nbytes)


def test_a_network_that_standardizes_takes_raw_features():
    rows, configuration = table(200), ((1, 0, 0), (0, 0, 1))
    torch.manual_seed(0)
    network = FeatureNetwork(configuration, LAYOUT, HeadSettings(2, standardize=True))
    standardize_network(network, split_of(rows), NAMES)
    plain = FeatureNetwork(configuration, LAYOUT, HeadSettings(2))
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if k not in ("feature_mean", "feature_scale")})
    standard = StandardizedTable(rows, *table_statistics(rows, LAYOUT, NAMES))
    torch.testing.assert_close(network.eval()(rows), plain.eval()(standard[:]))
    torch.testing.assert_close(network.over_features()(rows[:, :9]), network(rows))


def test_the_scale_of_features_does_not_matter():
    for factor in (1000.0, 1e-3):
        ours, theirs = (
            bank_of_features(LAYOUT, {"train": split_of(table(300, f)), "dev": split_of(table(40, f))}).standardized(
                NAMES
            )
            for f in (1.0, factor)
        )
        for split in ("train", "dev"):
            one, other = (bank.on(torch.device("cpu"))[split].inputs[0][:, :9] for bank in (ours, theirs))
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_columns_that_do_not_vary_are_named_and_only_centered(capsys):
    rows = table(50)
    rows[:, 3] = 7.25
    rows[:, 5:7] = -1
    mean, scale = table_statistics(rows, LAYOUT, NAMES)
    assert mean[3] == 7.25
    assert scale[[3, 5, 6]].tolist() == [1, 1, 1]
    first, second = capsys.readouterr().err.splitlines()
    assert first == "warning: 1 of 2 columns of image.1 do not vary in the training split; they are only centered"
    assert second.startswith("warning: 2 of 4 columns of sound.0 ")


@pytest.mark.parametrize("rows", [1, 4096, 4097])
def test_any_number_of_rows_is_read_in_parts(rows):
    own = table(rows)
    mean, scale = table_statistics(own, LAYOUT, NAMES)
    torch.testing.assert_close(mean, own[:, :9].mean(0), atol=1e-3, rtol=1e-4)
    if rows > 1:
        torch.testing.assert_close(scale, own[:, :9].std(0, correction=0), atol=1e-3, rtol=1e-4)
