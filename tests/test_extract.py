"""Pooled features of any networks: what they hold, what is refused, and the files they are written to."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from datasets.features import load_features
from utils.errors import UsageError
from utils.extract import Extractor, write_features


class Block(nn.Module):
    """A network of one module, whose output is whatever is given, and one that never runs."""

    def __init__(self, output=None, runs: int = 1):
        super().__init__()
        self.body, self.idle, self.runs = Output(output), nn.ReLU(), runs

    def forward(self, x):
        for _ in range(self.runs):
            y = self.body(x)
        return y


class Output(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return x if self.output is None else self.output


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 5)
    )
    nn.init.normal_(network[1].running_mean)
    return network


@settings(max_examples=40)
@given(shape=st.lists(st.integers(1, 4), min_size=2, max_size=5), last=st.booleans())
def test_pooling_averages_over_all_but_batch_and_channel(shape, last):
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    (pooled,), logits = Extractor(Block(), ["body:last" if last else "body"])(x)
    channel = len(shape) - 1 if last else 1
    expected = x.movedim(channel, 1).flatten(2).mean(2) if len(shape) > 2 else x
    torch.testing.assert_close(pooled, expected)
    assert logits is None


def test_features_of_a_resnet_by_name():
    torch.manual_seed(0)
    network, x = resnet18().eval(), torch.rand(2, 3, 64, 64)
    features, logits = Extractor(network, ["bn1", "layer1", "layer2.0", "avgpool"], logits="fc")(x)
    assert [f.shape for f in features] == [(2, 64), (2, 64), (2, 128), (2, 512)]
    with torch.no_grad():
        normalised = network.bn1(network.conv1(x))  # the ReLU after it works in place
        torch.testing.assert_close(features[0], normalised.mean((2, 3)))
        torch.testing.assert_close(logits, network(x))


def test_a_module_after_it_may_work_in_place():
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True)), torch.rand(3, 4)
    (kept, after), _ = Extractor(network, ["0", "1"])(x)
    assert (kept < 0).any()
    torch.testing.assert_close(kept.relu(), after)


def test_features_of_a_transformer_have_the_channel_last():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(nn.Embedding(10, 8), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    tokens = torch.randint(10, (3, 7))
    (first, second), _ = Extractor(network, ["1.layers.0:last", "1.layers.1:last"])(tokens)
    assert first.shape == (3, 8)
    with torch.no_grad():
        torch.testing.assert_close(second, network.eval()(tokens).mean(1))


def test_of_a_tuple_the_first_tensor_counts():
    network = nn.LSTM(4, 6, batch_first=True)
    x = torch.rand(2, 5, 4)
    (pooled,), logits = Extractor(network, [":last"], logits=":last")(x)
    with torch.no_grad():
        torch.testing.assert_close(pooled, network(x)[0].mean(1))
    torch.testing.assert_close(logits, pooled)


def test_the_network_runs_in_eval_mode_and_is_left_as_it_was(network):
    network.train()
    network[1].eval()  # as one does to freeze it
    state = {name: x.clone() for name, x in network.state_dict().items()}
    x = torch.rand(2, 1, 4, 4)
    (first, _), logits = Extractor(network, ["0", "1"], logits="")(x)
    assert [module.training for module in network] == [True, False, True, True, True]
    assert network.training
    assert not first.requires_grad
    assert not any(module._forward_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])
    with torch.no_grad():
        torch.testing.assert_close(logits, network.eval()(x))


def test_inputs_may_be_arrays_several_arguments_or_named_ones():
    network = nn.Bilinear(3, 4, 2).to(torch.bfloat16)
    a, b = torch.rand(5, 3).double().numpy(), torch.rand(5, 4)
    extractor = Extractor(network, [""])
    (positional,), _ = extractor((a, b))
    (named,), _ = extractor({"input1": a, "input2": b})
    assert torch.equal(positional, named)
    assert positional.shape == (5, 2)
    assert positional.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_inputs_go_to_the_networks_device(tmp_path, network):
    x, labels = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    there = Extractor(copy.deepcopy(network).cuda(), ["1"])
    path = write_features(tmp_path, "train", {"a": there, "b": Extractor(network, ["1"])}, [(x, x, labels.cuda())])
    with np.load(path) as arrays:
        np.testing.assert_allclose(arrays["a.0"], arrays["b.0"], rtol=1e-3, atol=1e-4)


def test_a_name_that_does_not_exist_is_told_with_those_near_it(network):
    with pytest.raises(UsageError, match=r"no module named 'layer5'; similar names: layer4"):
        Extractor(resnet18(), ["layer1", "layer5"])
    with pytest.raises(UsageError, match=r"no module named 'layer1'; it has 0, 1, 2, 3, 4"):
        Extractor(network, ["layer1"])
    with pytest.raises(UsageError, match=r"no module named 'head'"):
        Extractor(network, ["1"], logits="head")
    for layers in ("0", []):
        with pytest.raises(UsageError, match="must be a list of module names"):
            Extractor(network, layers)


@pytest.mark.parametrize(
    ("network", "layer", "rule"),
    [
        (Block(), "idle", "'idle' did not run"),
        (Block(runs=2), "body", "'body' must run once in a forward pass, but ran 2 times"),
        (Block({"x": torch.ones(2, 3)}), "body", "must be a tensor, but is a dict"),
        (Block(("a", None)), "body", "must be a tensor, but is a tuple"),
        (Block(torch.ones(2)), "body", r"must be \(batch, channel, ...\), but is \(2,\)"),
        (Block(torch.ones(2, 2).to_sparse()), "body", "nested or sparse"),
    ],
)
def test_outputs_that_cannot_be_pooled_are_refused(network, layer, rule):
    with pytest.raises(UsageError, match=rule):
        Extractor(network, [layer])(torch.ones(2, 3))
    assert not any(module._forward_hooks for module in network.modules())


def test_a_failing_network_is_left_as_it_was(network):
    network.train()
    with pytest.raises(RuntimeError):
        Extractor(network, ["0"])(torch.ones(2, 7))
    assert network.training
    assert not network[0]._forward_hooks


def identity(logits=None) -> Extractor:
    return Extractor(Block(), ["body"], logits)


def test_a_shuffled_loader_keeps_samples_together(tmp_path, network):
    torch.manual_seed(0)
    a, b = torch.rand(11, 1, 4, 4), torch.rand(11, 4)
    networks = {"pixels": Extractor(network, ["0", "2"], logits="4"), "raw-b": identity(logits="body")}
    loader = DataLoader(TensorDataset(a, b, torch.arange(11)), batch_size=4, shuffle=True)
    path = write_features(tmp_path / "made", "train", networks, loader)
    assert path == tmp_path / "made" / "train.npz"
    (first, second), logits = networks["pixels"](a)
    with np.load(path) as arrays:
        order = arrays["label"]
        assert sorted(order) == list(range(11))
        expected = {"pixels.0": first, "pixels.1": second, "pixels.logits": logits, "raw-b.0": b, "raw-b.logits": b}
        assert set(arrays) == {"label", *expected}
        for name, values in expected.items():
            assert arrays[name].dtype == np.float32
            np.testing.assert_allclose(arrays[name], values[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "multi_label"),
    [([0, 1, 2], False), (np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), True), (torch.eye(3) > 0, True)],
)
def test_the_reader_takes_what_was_written(tmp_path, labels, multi_label):
    x = torch.rand(3, 2)
    for split in ("train", "dev"):
        write_features(tmp_path, split, {"z": identity(), "a": identity()}, [(x, x + 1, labels)])
    data = load_features(tmp_path, ("train", "dev"), {})
    assert data.modalities == ("z", "a")
    assert data.multi_label == multi_label
    np.testing.assert_array_equal(data.rows["dev"], torch.cat([x, x + 1], dim=1))
    np.testing.assert_array_equal(data.labels["train"], np.asarray(labels))


X = torch.rand(3, 2)
Y = torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("batches", "rule"),
    [
        ([], "contain no samples"),
        ([(X[:0], X[:0], Y[:0])], "contain no samples"),
        ([(X, Y)], r"must be \(input of a, input of b, labels\), but batch 0 is 2 parts"),
        ([(X, X, Y), X], "batch 1 is a Tensor"),
        ([(X, X[:2], Y)], r"b.0 of batch 0 must have B rows, but they are \(3,\) and \(2, 2\)"),
        ([(X, X, 1)], r"labels must be \(B,\)"),
        (
            [(X, X, Y), (X, X / torch.tensor([[1.0], [0.0], [1.0]]), Y)],
            "b.0 of batch 1 holds NaN or infinity in 1 of 3",
        ),
        ([(X, X * torch.nan, Y)], "NaN or infinity in 3 of 3 rows"),
        ([(X, X, Y - 1)], "must be classes from 0"),
        ([(X, X, Y + 0.5)], "must be classes from 0"),
        ([(X, X, torch.stack([Y, Y + 1], dim=1))], "must be 0 or 1"),
    ],
)
def test_bad_batches_write_nothing(tmp_path, batches, rule):
    with pytest.raises(UsageError, match=rule):
        write_features(tmp_path, "dev", {"a": identity(), "b": identity()}, batches)
    assert not list(tmp_path.iterdir())


def test_names_are_checked_before_the_pass(tmp_path):
    def never():
        raise AssertionError("a batch was read")
        yield

    x = identity()
    for split, networks, rule in (
        ("val", {"a": x, "b": x}, "split must be one of train, dev, test, but got 'val'"),
        ("dev", {"a": x}, "2 to 5 networks, but got 1"),
        ("dev", {name: x for name in "abcdef"}, "2 to 5 networks, but got 6"),
        ("dev", {"a.b": x, "c": x}, "letters, digits, _ and -, but got 'a.b'"),
        ("dev", {"a": x, "b": identity(logits="body")}, "only b has them"),
    ):
        with pytest.raises(UsageError, match=rule):
            write_features(tmp_path, split, networks, never())


def test_an_earlier_file_survives_a_failing_pass(tmp_path):
    networks = {"a": identity(), "b": identity()}
    path = write_features(tmp_path, "train", networks, [(X, X, Y)])
    before = path.read_bytes()
    with pytest.raises(UsageError):
        write_features(tmp_path, "train", networks, [(X, X, Y), (X, X * torch.nan, Y)])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
