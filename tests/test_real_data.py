"""The presets on the real recordings, at a reduced budget: accuracies are ordered and lie where they should."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real")]


def train(script_runner, folder, name: str, *flags: object) -> dict:
    """The record of a training."""
    out = folder / "checkpoints"
    script_runner(folder, f"train_{name}.py", "--checkpointdir", out, "--no-verbose", "--run_dir", "run", *flags)
    return json.loads((out / f"{name}_model.json").read_text())


@pytest.fixture(scope="module")
def generate(real_data, script_runner, tmp_path_factory):
    sources = ("--mnist_dir", real_data / "mnist", "--fsdd_dir", real_data / "fsdd", "--esc50_dir", real_data / "esc50")

    def run(preset: str, *flags: object):
        folder = tmp_path_factory.mktemp(preset)
        script_runner(folder, "avmnist_gen.py", *sources, "--preset", preset, "--no-verbose", *flags)
        return folder

    return run


def test_image_accuracy_follows_the_number_of_components(generate, script_runner):
    measured = {}
    for preset in ("fork", "multibench", "paper"):
        folder = generate(preset, "--snr_db", "none", "--limit_train", 12000, "--limit_test", 3000)
        record = train(script_runner, folder, "image", "--epochs", 10)
        measured[preset] = record["epochs"][-1]["train_accuracy"]
    # While training, since the test split's accuracy swings with batch norm (multibench: 53 and 59 % with two seeds).
    # Measured: 48.0, 48.0, 46.9 % with three seeds; 57.7, 59.9 % and 63.5, 63.2 % with two. In full: docs/data.md.
    assert 0.40 < measured["fork"] < 0.56
    assert 0.50 < measured["multibench"] < 0.66
    assert 0.56 < measured["paper"] < 0.70
    assert measured["fork"] + 0.05 < measured["multibench"] < measured["paper"] - 0.01


def test_audio_accuracy_follows_the_noise(generate, script_runner):
    """After so few steps accuracy in training tells more than the test split's, which swings with batch norm."""
    measured = {}
    for preset in ("fork", "paper"):
        folder = generate(preset, "--limit_train", 4000, "--limit_test", 500)
        record = train(script_runner, folder, "audio", "--epochs", 6, "--batchsize", 32)
        measured[preset] = record["epochs"][-1]["train_accuracy"]
    # Measured with seed 0: 89 % and 18 %; in full see docs/data.md.
    assert measured["fork"] > 0.8
    assert measured["fork"] > measured["paper"] + 0.5
