"""Networks, rates and temperature against the published ones, key for key and number for number."""

import itertools
import zlib

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from models.fusion import AudioImageNetwork, FusionHead, HeadSettings, SkeletonRGBNetwork
from models.hcn import SkeletonNet
from models.inflated_resnet import InflatedResNet50, inflate
from models.lenet import AudioLeNet, ImageLeNet
from models.surrogate import Surrogate
from tests.reference import GOLDEN, KEYS, assert_agrees, fill, reference_input, shapes
from utils.search.space import temperature
from utils.training.rates import cosine_rates


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


def test_skeleton_network():
    network = fill(SkeletonNet())
    assert list(shapes(network).items()) == list(KEYS["skeleton"].items())
    skeletons = reference_input("skeleton", (2, 3, 32, 25, 2), 0.5)
    with torch.no_grad():
        for i, hidden in enumerate(network.hidden(skeletons)):
            assert_agrees(hidden.flatten(2).mean(2) if hidden.ndim > 2 else hidden, f"skeleton/{i}")
        features, logits = network.pooled(skeletons)
    assert_agrees(logits, "skeleton/logits")
    for i, feature in enumerate(features, start=4):
        assert_agrees(feature, f"skeleton/{i}")


def test_skeleton_rgb_network():
    reference = KEYS["skeleton_rgb_c1"]
    args = reference["args"]
    settings = HeadSettings(args["num_outputs"], args["inner_representation_size"], args["drpt"])
    network = fill(SkeletonRGBNetwork(reference["conf"], settings, args["vid_len"][1]))
    assert list(shapes(network).items()) == list(reference["keys"].items())
    assert list(shapes(network.rgbnet).items()) == list(KEYS["visual"].items())
    with torch.no_grad():
        logits = network(
            reference_input("rgb", (2, 8, 256, 256, 3)), reference_input("skeleton", (2, 3, 32, 25, 2), 0.5)
        )
    assert_agrees(logits, "skeleton_rgb_c1/0")


@pytest.mark.parametrize("rate", [0.4, 0.0])
def test_the_dropouts_of_the_skeleton_network_take_drpt(rate):
    network = SkeletonRGBNetwork([(0, 0, 0)], HeadSettings(num_outputs=4, dropout=rate), 8)
    rates = [
        module.p for module in network.skenet.modules() if isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d)
    ]
    assert rates == [rate] * 5  # conv4 of both streams, conv5, conv6, fc7
    network.skenet.train()
    skeletons = torch.randn(2, 3, 8, 25, 2, generator=torch.Generator().manual_seed(0))
    outputs = [network.skenet(skeletons) for _ in range(2)]
    assert torch.equal(*outputs) == (rate == 0)


@pytest.mark.parametrize("frames", [8, 12, 16, 24, 32, 40])
def test_skeletons_of_any_length(frames):
    network = SkeletonNet(num_outputs=5, frames=frames).eval()
    features, logits = network.pooled(torch.zeros(2, 3, frames, 25, 2))
    assert [x.shape[1] for x in features] == list(network.feature_widths)
    assert logits.shape == (2, 5)


def test_inflation_at_the_centre_is_the_2d_network_frame_by_frame():
    torch.manual_seed(0)
    flat = resnet50().eval()
    network = InflatedResNet50(num_outputs=7).eval()
    network.cnn.load_state_dict(inflate(flat.state_dict(), "centre"))
    clips = torch.randn(1, 3, 64, 64, 3)
    with torch.no_grad():
        stem = flat.maxpool(flat.relu(flat.bn1(flat.conv1(clips[0].movedim(-1, 1)))))
        expected = flat.layer4(flat.layer3(flat.layer2(flat.layer1(stem))))  # (T, 2048, 2, 2)
        map4 = network.cnn(clips)[-1]  # (1, 2048, T, 2, 2)
        torch.testing.assert_close(map4[0].transpose(0, 1), expected, rtol=1e-3, atol=1e-4)
        spread = inflate(flat.state_dict(), "average")["layer1.0.conv2.weight"]
    torch.testing.assert_close(spread.sum(2), flat.layer1[0].conv2.weight)
    assert torch.equal(spread[:, :, 0], spread[:, :, 2])


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
