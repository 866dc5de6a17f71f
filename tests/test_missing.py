"""Muted and noisy modalities: the right input is disturbed by the right amount, and no other."""

import math

import pytest
import torch
from torch import Tensor, nn

from models.fusion import AudioImageNetwork, FeatureLayout, FeatureNetwork, HeadSettings
from utils.results.robustness import LEVELS, disturbed_batches, evaluate_missing, format_missing
from utils.training.batches import ArraySplit, generator
from utils.training.evaluation import evaluate

LAYOUT = FeatureLayout(widths=((2, 3), (4,), (1, 2)), num_outputs=3)
COLUMNS = (slice(0, 5), slice(5, 9), slice(9, 12))  # of each modality's features; behind them are the logits
SCALES = torch.linspace(0.5, 20, LAYOUT.total)


def table(count: int) -> ArraySplit:
    torch.manual_seed(0)
    return ArraySplit((torch.randn(count, LAYOUT.total) * SCALES + 3,), torch.randint(3, (count,)))


def disturbed(split: ArraySplit, place: int, columns: slice, noise: Tensor | None, *seed: int) -> tuple[Tensor, Tensor]:
    """The disturbed input and the labels of all samples."""
    batches = list(disturbed_batches(split, place, columns, noise, generator(*seed)))
    return torch.cat([inputs[place] for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def outside(rows: Tensor, columns: slice) -> Tensor:
    return torch.cat([rows[:, : columns.start], rows[:, columns.stop :]], dim=1)


@pytest.mark.parametrize("modality", [0, 1, 2])
def test_features_of_one_modality_are_muted(modality):
    split, network = table(100), FeatureNetwork(((0, 0, 0, 0),), LAYOUT, HeadSettings(3))
    place, columns = network.modality_input(modality)
    assert (place, columns) == (0, COLUMNS[modality])
    rows, labels = disturbed(split, place, columns, None, 0)
    assert not rows[:, columns].any()
    assert torch.equal(outside(rows, columns), outside(split.inputs[0], columns))
    assert torch.equal(labels, split.labels)


def test_noise_has_the_given_size_in_every_column_and_derives_from_the_seed():
    split, columns = table(20_000), COLUMNS[1]
    noise = torch.tensor([0.5, 1.0, 2.0, 40.0])
    before = split.inputs[0].clone()

    def noisy(*seed: int) -> Tensor:
        return disturbed(split, 0, columns, noise, *seed)[0]

    rows = noisy(1, 2)
    added = rows[:, columns] - before[:, columns]
    torch.testing.assert_close(added.std(dim=0) / noise, torch.ones(4), rtol=0, atol=0.03)
    torch.testing.assert_close(added.mean(dim=0) / noise, torch.zeros(4), rtol=0, atol=0.03)
    assert added.T.corrcoef().fill_diagonal_(0).abs().max() < 0.03
    assert torch.equal(outside(rows, columns), outside(before, columns))
    assert torch.equal(split.inputs[0], before)
    assert torch.equal(noisy(1, 2), rows)
    assert not torch.equal(noisy(1, 3)[:, columns], rows[:, columns])


class Watched(nn.Module):
    """Records the inputs of a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.passes = network, []

    def forward(self, *inputs: Tensor) -> Tensor:
        self.passes.append(inputs)
        return self.network(*inputs)


def test_the_levels_are_deviations_of_each_column():
    split = table(512)
    network = FeatureNetwork(((0, 0, 0, 0), (1, 0, -1, 1)), LAYOUT, HeadSettings(3)).eval()
    rows = evaluate_missing(network, watched := Watched(network), split, ("text", "sound", "image"), seed=0)
    assert [(row["modality"], row["noise"]) for row in rows] == [
        (name, level) for name in ("text", "sound", "image") for level in (None, *LEVELS)
    ]
    seen = [torch.cat([part[0] for part in watched.passes[start : start + 8]]) for start in range(0, 96, 8)]
    assert len(watched.passes) == 96  # 12 rows of 8 batches of 64
    for row, given in zip(rows, seen, strict=True):
        columns = COLUMNS[("text", "sound", "image").index(row["modality"])]
        assert torch.equal(outside(given, columns), outside(split.inputs[0], columns))
        added = (given - split.inputs[0])[:, columns]
        if row["noise"] is None:
            assert not given[:, columns].any()
        else:
            sizes = added.std(dim=0) / SCALES[columns]
            torch.testing.assert_close(sizes, torch.full_like(sizes, row["noise"]), rtol=0.2, atol=0)
        assert row["test"] == float(evaluate(network, ArraySplit((given,), split.labels)))


def test_a_modality_that_is_not_read_does_not_matter():
    split, network = table(60), FeatureNetwork(((0, -1, 1, 0), (-1, -1, 0, 3)), LAYOUT, HeadSettings(3))
    rows = evaluate_missing(network, network, split, ("text", "sound", "image"), seed=0)
    whole = float(evaluate(network, split))
    assert [row["test"] for row in rows if row["modality"] == "sound"] == [whole] * 4
    assert {row["test"] for row in rows if row["modality"] != "sound"} != {whole}


def test_audio_is_the_first_modality_and_the_second_input():
    torch.manual_seed(0)
    network = AudioImageNetwork(((0, 0, 0),), HeadSettings(10))
    image, audio = torch.randn(6, 1, 28, 28), torch.randint(0, 256, (6, 1, 112, 112), dtype=torch.uint8)
    split = ArraySplit((image, audio), torch.arange(6))
    rows = evaluate_missing(network, watched := Watched(network), split, ("audio", "image"), seed=0)
    assert [row["modality"] for row in rows] == ["audio"] * 4 + ["image"] * 4
    for row, (shown, heard) in zip(rows, watched.passes, strict=True):
        untouched = torch.equal(shown, image), torch.equal(heard, audio.float())
        assert untouched == ((True, False) if row["modality"] == "audio" else (False, True))
        disturbed, before = (heard, audio.float()) if row["modality"] == "audio" else (shown, image)
        if row["noise"] is None:
            assert not disturbed.any()
        else:  # of all its values together
            assert float((disturbed - before).std() / before.std()) == pytest.approx(row["noise"], rel=0.05)


def test_one_sample_has_no_deviation_and_therefore_no_noise():
    split, network = table(1), FeatureNetwork(((0, 0, 0, 0),), LAYOUT, HeadSettings(3))
    rows = evaluate_missing(network, network, split, ("text", "sound", "image"), seed=0)
    whole = float(evaluate(network, split))
    assert [row["test"] for row in rows if row["noise"]] == [whole] * 9


def test_the_network_is_not_changed():
    split, network = table(60), FeatureNetwork(((0, 0, 0, 0),), LAYOUT, HeadSettings(3, batchnorm=True))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate_missing(network, network, split, ("text", "sound", "image"), seed=0)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_results_as_text():
    rows = [{"modality": name, "noise": level, "test": number / 10 + (level or 0) / 100}
            for number, name in enumerate(("a", "sound")) for level in (None, *LEVELS)]  # fmt: skip
    assert format_missing(rows, 0.75).splitlines() == [
        "       untouched      muted  noise 0.5    noise 1    noise 2",
        "a         0.7500     0.0000     0.0050     0.0100     0.0200",
        "sound     0.7500     0.1000     0.1050     0.1100     0.1200",
    ]
    assert math.isclose(rows[-1]["test"], 0.12)
