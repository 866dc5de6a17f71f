"""Networks, rates and temperature against the published ones, key for key and number for number."""

import itertools
import zlib

import numpy as np
import pytest
import torch

from models.fusion import AudioImageNetwork, FusionHead, HeadSettings
from models.lenet import AudioLeNet, ImageLeNet
from models.surrogate import Surrogate
from tests.reference import GOLDEN, KEYS, assert_agrees, fill, reference_input, shapes
from utils.schedules import cosine_rates, temperature


@pytest.mark.parametrize(
    ("name", "network", "inputs"),
    [
        ("lenet_c3", ImageLeNet, ("image", (5, 1, 28, 28))),
        ("lenet_deeper_c3", AudioLeNet, ("audio", (5, 1, 112, 112))),
    ],
)
def test_lenets(name, network, inputs):
    network = fill(network(channels=3))
    assert list(shapes(network).items()) == list(KEYS[name].items())
    with torch.no_grad():
        features, logits = network.pooled(reference_input(*inputs))
    assert_agrees(logits, f"{name}/0")
    for i, feature in enumerate(features, start=1):
        assert_agrees(feature, f"{name}/{i}")


@pytest.mark.parametrize("name", ["audio_image_c0", "audio_image_c2"])
def test_fusion_networks(name):
    reference = KEYS[name]
    args = reference["args"]
    settings = HeadSettings(
        num_outputs=args["num_outputs"],
        inner_size=args["inner_representation_size"],
        dropout=args["drpt"],
        batchnorm=args["batchnorm"],
        alphas=args["alphas"],
        multitask=args["multitask"],
    )
    network = fill(AudioImageNetwork(reference["conf"], settings, args["channels"]))
    assert list(shapes(network).items()) == list(reference["keys"].items())
    with torch.no_grad():
        logits = network(reference_input("image", (5, 1, 28, 28)), reference_input("audio", (5, 1, 112, 112)))
    assert_agrees(logits, f"{name}/0")


def test_batchnorm_layout_of_central_weights():
    widths = ((128, 256, 1024, 512), (512, 1024, 2048, 2048))
    configuration = [[3, 1, 1], [1, 3, 0], [1, 1, 1], [3, 3, 0]]
    head = FusionHead(configuration, widths, HeadSettings(num_outputs=60, inner_size=128, batchnorm=True))
    assert list(shapes(head).items()) == list(KEYS["skeleton_rgb_batchnorm_central_keys"].items())


def test_multitask_returns_fused_then_image_then_audio():
    network = AudioImageNetwork([[0, 0, 0]], HeadSettings(num_outputs=10, multitask=True)).eval()
    image, audio = reference_input("image", (5, 1, 28, 28)), reference_input("audio", (5, 1, 112, 112))
    fused, second, first = network(image, audio)
    assert fused.shape == (5, 10)
    assert torch.equal(second, network.rgbnet(image))
    assert torch.equal(first, network.audnet(audio))


def test_surrogate():
    surrogate = fill(Surrogate())
    assert list(shapes(surrogate).items()) == list(KEYS["surrogate"].items())
    rows = [np.random.default_rng(zlib.crc32(f"conf2{i}".encode())).integers(0, 4, (2, 3)) for i in range(7)]
    with torch.no_grad():
        assert_agrees(surrogate(torch.from_numpy(np.stack(rows, axis=1)).float()), "surrogate/2")


def test_surrogate_start():
    surrogate = Surrogate()
    for linear in (surrogate.embedding[0], surrogate.hid2val):
        assert linear.weight.abs().max() <= 0.1
        assert torch.all(linear.bias == 1.8)


def test_learning_rates():
    rates = list(itertools.islice(cosine_rates(1e-3, 1e-6, 1, 2, 40), 400))
    np.testing.assert_allclose(rates, GOLDEN["lr/search"], rtol=1e-6)


def test_temperatures():
    ours = [temperature(i, 10, 0.2, 4) for i in range(14)]
    np.testing.assert_allclose(ours, GOLDEN["temperature"], rtol=1e-6)
