"""Pooled features of any networks: what they hold, what is refused, and the files they are written to."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import NamedTuple

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
from utils.pooling import Inputs, pool


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


class Encoder(nn.Module):
    """A transformer of torch over tokens, whose padding the mask names as torch does."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.embed = nn.Embedding(10, width)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, 2, 16, batch_first=True), 2)
        self.head = nn.Linear(width, 3)

    def forward(self, tokens, src_key_padding_mask=None):
        x = self.encoder(self.embed(tokens), src_key_padding_mask=src_key_padding_mask)
        return self.head(x.mean(1))


TOKENS = torch.randint(10, (3, 7), generator=torch.Generator().manual_seed(0))
PADDED = torch.arange(7) >= torch.tensor([[7], [4], [1]])  # (3, 7), True where a token is padding


@pytest.mark.parametrize("padding", [PADDED, torch.zeros(3, 7).masked_fill(PADDED, -torch.inf)], ids=["bool", "float"])
def test_padding_of_a_transformer_neither_nests_nor_counts(padding):
    torch.manual_seed(0)
    network = Encoder().eval()
    layers = ["encoder.layers.0:mean", "encoder.layers.0.linear1:mean", "encoder:mean", "encoder:last"]
    features, _ = Extractor(network, layers)({"tokens": TOKENS, "src_key_padding_mask": padding})
    assert [f.shape for f in features] == [(3, 8), (3, 16), (3, 8), (3, 8)]
    assert torch.backends.mha.get_fastpath_enabled()
    for row, length in enumerate((7, 4, 1)):  # as if there were no padding
        alone, _ = Extractor(network, [name.replace(":mean", ":last") for name in layers])(
            TOKENS[row : row + 1, :length]
        )
        for feature, expected in zip(features[:3], alone, strict=False):
            torch.testing.assert_close(feature[row], expected[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features[2][1:], features[3][1:])  # whose mean includes the padding


def test_the_fast_path_is_left_as_it_was():
    with pytest.raises(UsageError):
        Extractor(Encoder(), ["encoder"])(TOKENS)
    assert torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        Extractor(Encoder(), ["encoder:last"])(TOKENS)
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


@pytest.mark.parametrize(
    ("layer", "inputs", "rule"),
    [
        (
            "encoder",
            TOKENS,
            r"'encoder' is \(3, 7, 8\), whose second dimension is the length.*name it 'encoder:last', or",
        ),
        ("encoder", {"tokens": TOKENS, "src_key_padding_mask": PADDED}, "name it 'encoder:last', or 'encoder:mean' to"),
        ("encoder:mean", TOKENS, r"mapping with 'attention_mask' \(1: a token\) or 'src_key_padding_mask' \(True"),
        ("encoder:mean", {"tokens": TOKENS}, "needs the batch's mask"),
        ("head:mean", {"tokens": TOKENS, "src_key_padding_mask": PADDED}, r"as the mask \(3, 7\), but is \(3, 3\)"),
        (
            "embed:mean",
            {"tokens": TOKENS, "src_key_padding_mask": PADDED | (TOKENS[:, :1] == TOKENS[2, 0])},
            "has none",
        ),
    ],
)
def test_sequences_that_are_not_pooled_as_such_are_refused(layer, inputs, rule):
    with pytest.raises(UsageError, match=rule):
        Extractor(Encoder(), [layer])(inputs)


def test_a_mask_alone_tells_the_length_of_a_sequence():
    class Frames(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 5)

        def forward(self, frames, attention_mask):
            return self.body(frames)

    inputs = {"frames": torch.rand(2, 6, 4), "attention_mask": torch.ones(2, 6)}
    with pytest.raises(UsageError, match="name it 'body:last'"):
        Extractor(Frames(), ["body"])(inputs)
    (pooled,), _ = Extractor(Frames(), ["body:mean"])(inputs)
    assert pooled.shape == (2, 5)


def test_channels_that_are_not_as_many_as_positions_come_second():
    network = nn.Sequential(nn.Embedding(10, 8), nn.LSTM(8, 9, batch_first=True))
    with pytest.raises(UsageError, match="name it '1:last'"):
        Extractor(network, ["1"])(TOKENS)
    x = torch.rand(2, 7, 5)
    (pooled,), _ = Extractor(nn.Sequential(nn.Conv1d(7, 7, 3)), ["0"])(x)  # floating-point: no tokens
    assert pooled.shape == (2, 7)


class ModelOutput(OrderedDict):
    """As of Hugging Face: an ordered dict whose items are attributes too."""

    def __getattr__(self, name):
        return self[name]


@dataclass
class Result:
    loss: float | None
    last_hidden_state: torch.Tensor
    logits: torch.Tensor


class Named(NamedTuple):
    count: int
    last_hidden_state: torch.Tensor
    logits: torch.Tensor


OUTPUTS = {
    "output object": lambda hidden, logits: ModelOutput(last_hidden_state=hidden, logits=logits),
    "dict": lambda hidden, logits: {"last_hidden_state": hidden, "logits": logits},
    "dataclass": lambda hidden, logits: Result(None, hidden, logits),
    "named tuple": lambda hidden, logits: Named(3, hidden, logits),
}


class Bert(nn.Module):
    """A model in the shape of Hugging Face's: layers that return tuples, a body and a head that return objects."""

    def __init__(self, make):
        super().__init__()
        self.make, self.embeddings, self.layer = make, nn.Embedding(10, 8), nn.GRU(8, 8, batch_first=True)
        self.body, self.classifier = Output(None), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        hidden, _ = self.layer(self.embeddings(input_ids))
        mask = attention_mask[:, :, None]
        logits = self.classifier((hidden * mask).sum(1) / mask.sum(1))
        return self.body(self.make(hidden, logits))


@pytest.mark.parametrize("make", OUTPUTS.values(), ids=OUTPUTS)
def test_models_in_the_shape_of_hugging_face(tmp_path, make):
    torch.manual_seed(0)
    network, inputs = Bert(make), {"input_ids": TOKENS, "attention_mask": (~PADDED).long()}
    layers = ["embeddings:mean", "layer:mean", "body:mean", "body:last"]
    features, logits = Extractor(network, layers, logits="")(UserDict(inputs))
    with torch.no_grad():
        hidden, _ = network.layer(network.embeddings(TOKENS))
    for row, length in enumerate((7, 4, 1)):
        torch.testing.assert_close(features[1][row], hidden[row, :length].mean(0))
    torch.testing.assert_close(features[2], features[1])
    torch.testing.assert_close(features[3], hidden.mean(1))
    with torch.no_grad():
        torch.testing.assert_close(logits, network.classifier(features[1]))
    text = Extractor(network, layers, logits="classifier")
    path = write_features(tmp_path, "train", {"text": text, "x": identity("body")}, [(inputs, X, [0, 1, 2])])
    with np.load(path) as arrays:
        np.testing.assert_allclose(arrays["text.logits"], logits, rtol=1e-5)


@settings(max_examples=60)
@given(data=st.data(), b=st.integers(1, 4), t=st.integers(1, 5), c=st.integers(1, 3))
def test_a_masked_mean_is_that_of_the_positions_that_count(data, b, t, c):
    rows = st.lists(st.booleans(), min_size=t, max_size=t).filter(any)
    mask = torch.tensor(data.draw(st.lists(rows, min_size=b, max_size=b)))
    x = torch.arange(float(b * t * c)).reshape(b, t, c).masked_fill(~mask[:, :, None], torch.nan)
    for named in ({"attention_mask": mask.long()}, {"src_key_padding_mask": ~mask}, {"attention_mask": mask.half()}):
        found = pool(":mean", nn.Identity(), x, Inputs(nn.Identity(), named))
        torch.testing.assert_close(found, torch.stack([row[keep].mean(0) for row, keep in zip(x, mask, strict=True)]))


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
        (Block({"x": [torch.ones(2, 3)]}), "body", "must be a tensor, but is a dict"),
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
        assert set(arrays) == {"label", "pixels.modules", "raw-b.modules", *expected}
        assert arrays["pixels.modules"].tolist() == ["0", "2"]
        for name, values in expected.items():
            assert arrays[name].dtype == np.float32
            np.testing.assert_allclose(arrays[name], values[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "multi_label"),
    [([0, 1, 2], False), (np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), True), (torch.eye(3) > 0, True)],
)
def test_the_reader_takes_what_was_written(tmp_path, labels, multi_label):
    names = ["cat", "dog", "Kuh"][: np.asarray(labels).shape[-1]]
    networks = {"z": identity(), "a": identity()}
    for split, x in (("train", torch.rand(3, 2)), ("dev", torch.rand(3, 2))):
        write_features(tmp_path, split, networks, [(x, x + 1, labels)], class_names=names)
    data = load_features(tmp_path, ("train", "dev"), {}, multi_label)
    assert data.modalities == ("z", "a")
    assert data.multi_label == multi_label
    assert data.class_names == tuple(names)
    assert data.feature_names == ["z.0 (body)", "a.0 (body)"]
    np.testing.assert_array_equal(data.rows["dev"], torch.cat([x, x + 1], dim=1))
    np.testing.assert_array_equal(data.labels["train"], np.asarray(labels))


def test_long_and_odd_names_of_modules_are_shortened_and_escaped(tmp_path):
    deep, odd = nn.Sequential(), nn.Sequential()
    deep.add_module("a" * 150, nn.Identity())
    odd.add_module("\n", nn.Identity())
    networks = {"a": Extractor(deep, ["a" * 150]), "b": Extractor(odd, ["\n", ""])}
    x = torch.rand(2, 3)
    write_features(tmp_path, "train", networks, [(x, x, [0, 1])])
    data = load_features(tmp_path, ("train",), {})
    assert data.module_names == {"a": ("a" * 100,), "b": ("\\n", "")}
    assert data.feature_names[1:] == ["b.0 (\\n)", "b.1"]


@pytest.mark.parametrize(
    ("class_names", "labels", "rule"),
    [
        (["a"], [0, 1, 1], "must have a name for each class, but has 1 for 2"),
        (["a", "b", "c"], torch.tensor([[0, 1], [1, 1], [0, 0]]), "must have a name for each class, but has 3 for 2"),
        (["a", "a"], [0, 1, 1], "must be different names, but 'a' occurs 2 times"),
        (["a", 3], [0, 1, 1], "must be names of 1 to 100 printable characters, not 3"),
        ("ab", [0, 1, 1], "must be a list of names, not 'ab'"),
    ],
)
def test_names_of_classes_that_do_not_fit_write_nothing(tmp_path, class_names, labels, rule):
    with pytest.raises(UsageError, match=rule):
        write_features(tmp_path, "dev", {"a": identity(), "b": identity()}, [(X, X, labels)], class_names)
    assert not list(tmp_path.iterdir())


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
        ([(X, X, Y), (X, X, np.eye(len(Y)))], r"are \(\d,\) in batch 0 and \(\d, \d\) in batch 1"),
        (
            [(X, X, Y), (X, X / torch.tensor([[1.0], [0.0], [1.0]]), Y)],
            "b.0 of batch 1 holds NaN or infinity in 1 of 3",
        ),
        ([(X, X * torch.nan, Y)], "NaN or infinity in 3 of 3 rows"),
        ([(X, X, Y - 1)], "must be classes from 0"),
        ([(X, X, Y + 0.5)], "must be classes from 0"),
        ([(X, X, torch.stack([Y, Y + 1], dim=1))], "must be 0 or 1"),
        ([(X, X, ["cat", "dog", "cat"])], r"number the classes of all splits together.*numpy.unique.*class_names"),
        ([(X, X, np.array(["cat", "dog", "cat"]))], r"labels must be integers \(B,\)"),
        (
            [(X, X[:, :, None], Y), (X, torch.rand(3, 5, 1), Y)],
            r"b.0 must have the same number of channels in all batches, but has 2 in batch 0 and 5 in batch 1; for a "
            r"sequence \(B, T, C\), append ':last'",
        ),
    ],
)
def test_bad_batches_write_nothing(tmp_path, batches, rule):
    with pytest.raises(UsageError, match=rule):
        write_features(tmp_path, "dev", {"a": identity(), "b": identity()}, batches)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("body", [nn.GRU(4, 6, batch_first=True), nn.TransformerEncoderLayer(4, 2, batch_first=True)])
def test_sequences_of_modules_made_for_them_need_to_say_how(body):
    x = torch.rand(3, 8, 4)
    network = nn.Sequential(body)
    with pytest.raises(UsageError, match=r"second dimension is the length of the sequence.*name it '0:last'"):
        Extractor(network, ["0"])(x)
    (feature,), _ = Extractor(network, ["0:last"])(x)
    assert feature.shape == (3, 6 if isinstance(body, nn.GRU) else 4)


def test_packed_sequences_are_refused():
    packed = nn.utils.rnn.pack_padded_sequence(torch.rand(3, 5, 4), torch.tensor([5, 3, 2]), batch_first=True)
    with pytest.raises(UsageError, match="module '0' is a packed sequence, which cannot be pooled"):
        Extractor(nn.Sequential(nn.LSTM(4, 6, batch_first=True)), ["0"])([packed])


@pytest.mark.parametrize("network", ["network.pt", {"weight": X}])
def test_what_is_no_network_is_refused(network):
    with pytest.raises(UsageError, match=r"must be a torch\.nn\.Module, but is a "):
        Extractor(network, ["1"])
    with pytest.raises(UsageError, match="must be a list of module names"):
        Extractor(nn.Sequential(nn.ReLU()), [0])


def test_names_are_checked_before_the_pass(tmp_path):
    def never():
        raise AssertionError("a batch was read")
        yield

    x = identity()
    for split, networks, rule in (
        ("val", {"a": x, "b": x}, "split must be one of train, dev, test, but got 'val'"),
        ("dev", {"a": x}, "2 to 5 networks, but got 1"),
        ("dev", {name: x for name in "abcdef"}, "2 to 5 networks, but got 6"),
        ("dev", {"a": x, "b": nn.ReLU()}, "b must be an Extractor of a network, but is a ReLU"),
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
