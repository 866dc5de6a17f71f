"""The benchmarks at tiny size, through their command line: what they write, not how fast anything is."""

import json
import math

import numpy as np
import pytest
import torch

from models.lenet import AudioLeNet, ImageLeNet
from tests.test_avmnist_gen import originals  # noqa: F401 - a fixture here too
from utils.training.checkpoints import save_state

pytestmark = pytest.mark.slow


def check_spread(figure):
    assert set(figure) == {"median", "lowest", "highest"}
    assert 0 < figure["lowest"] <= figure["median"] <= figure["highest"] < math.inf


@pytest.fixture(scope="module")
def scaling(tmp_path_factory, script_runner):
    """The folder of a run over the ends of each axis, its figures, and what it printed."""
    folder = tmp_path_factory.mktemp("scaling")
    axes = ["--samples", 40, 160, "--candidates", 2, 1, "--layers", 1, 3, "--width", 1, 2]
    flags = ["--steps", 2, "--repeats", 2, "--out", "scaling.json", "--plot", "drawn/scaling.png", "--no-verbose"]
    done = script_runner(folder, "benchmarks/scaling.py", *axes, *flags, "--device", "cpu")
    return folder, json.loads((folder / "scaling.json").read_text()), done.stdout


def test_scaling_writes_every_point_and_exponent(scaling):
    _, figures, _ = scaling
    assert figures["device"] == "cpu"
    assert {name: axis["values"] for name, axis in figures["axes"].items()} == {
        "samples": [40, 160],
        "candidates": [1, 2],
        "layers": [1, 3],
        "width": [1, 2],
    }
    for axis in figures["axes"].values():
        assert len(axis["epoch_seconds"]) == 2
        for epoch in axis["epoch_seconds"]:
            check_spread(epoch)
        assert math.isfinite(axis["exponent"])
        assert axis["exponent"] == pytest.approx(axis["exponent_last"])  # of two points


def test_scaling_tells_what_one_more_candidate_costs(scaling):
    _, figures, printed = scaling
    one, two = (epoch["median"] for epoch in figures["axes"]["candidates"]["epoch_seconds"])
    share = figures["one_more_candidate"]["share_of_first"]
    assert share == pytest.approx((two - one) / one)
    assert figures["one_more_candidate"]["by_interval"] == [share]
    assert f"one more candidate costs {share:.3f} of the first" in printed


def test_scaling_draws_only_where_asked(scaling):
    folder, _, _ = scaling
    assert (folder / "drawn/scaling.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in folder.iterdir()) == ["drawn", "scaling.json"]


def test_scaling_needs_two_values_of_an_axis(run_script):
    done = run_script("benchmarks/scaling.py", "--layers", 3, 3, code=2)
    assert "argument --layers: an exponent needs at least two different values, but got [3]" in done.stderr


def test_ntu_cost_measures_each_part_and_extends_it(run_script, tmp_path):
    sizes = ["--clips", 2, "--vid_dim", 64, "--batch", 1, "--rows", 40, "--large_rows", 80, "--repeats", 1]
    done = run_script("benchmarks/ntu_cost.py", *sizes, "--num_workers", 2, "--device", "cpu", "--out", "cost.json")
    figures = json.loads((tmp_path / "cost.json").read_text())
    seconds = figures["seconds"]
    assert set(seconds) == {
        *("decode_mpeg4", "decode_mjpeg", "parse_skeleton", "load_packed", "prepare_skeleton"),
        *("networks_float32", "networks_bfloat16", "train_step", "dev_sample"),
    }
    for figure in (*seconds.values(), *figures["hours"].values()):
        check_spread(figure)
    assert figures["bytes"]["large_bank"] == 2 * figures["bytes"]["bank"]
    assert figures["estimate"] == {"samples": {"trainexp": 9954, "dev": 5688}, "trainings": 197}

    # Three passes over trainexp and one over dev, on CPUs reading and computing one after the other.
    samples = 3 * 9954 + 5688
    part = {name: figure["median"] for name, figure in seconds.items()}
    reading = samples * (part["decode_mpeg4"] + part["load_packed"] + part["prepare_skeleton"]) / 2
    training = 197 / 15 * 3 * (498 * part["train_step"] + 5688 * part["dev_sample"])
    hours = {name: figure["median"] for name, figure in figures["hours"].items()}
    assert hours["reading"] == pytest.approx(reading / 3600)
    assert hours["training"] == pytest.approx(training / 3600)
    for precision in ("float32", "bfloat16"):
        extraction = reading + samples * part[f"networks_{precision}"]
        assert hours[f"extraction_{precision}"] == pytest.approx(extraction / 3600)
        assert hours[f"search_{precision}"] == pytest.approx((extraction + training) / 3600)
        rate = figures["samples_per_second"][precision]
        assert rate == pytest.approx(1 / part[f"networks_{precision}"])
        assert f"{rate:,.4g} samples/s" in done.stdout


def test_search_cost(run_script, tmp_path):
    flags = ["--train", 66, "--dev", 6, "--repeats", 1, "--out", "cost.json", "--no-verbose"]
    run_script("benchmarks/search_cost.py", *flags)
    figures = json.loads((tmp_path / "cost.json").read_text())
    for name in ("published_training_step", "published_search", "extraction", "training", "flops", "bytes"):
        check_spread(figures[name])
    assert figures["settings"]["candidates"] == 195
    steps, dev_steps = 3 * 3, 3 * 1
    assert figures["published_search"]["median"] == pytest.approx(
        195
        * (
            steps * figures["published_training_step"]["median"]
            + dev_steps * figures["published_evaluation_step"]["median"]
        )
    )
    for name in ("ratio_total", "ratio_training", "floor_multiple", "search_process"):
        check_spread(figures[name])
    assert figures["ratio_total"]["median"] == pytest.approx(
        figures["published_search"]["median"] / figures["search_process"]["median"]
    )
    assert figures["floor_multiple"]["lowest"] > 1
    check_spread(figures["second_search"])
    assert "compile_seconds" not in figures
    assert 0.1 < figures["resident_gb"] < 4


def test_audio_step(run_script, tmp_path):
    run_script("avmnist_gen.py", "--source", "embedded", "--limit_train", 120, "--limit_test", 12, "--no-verbose")
    flags = ["--steps", 1, "--repeats", 2, "--epochs", 1, "--out", "audio.json", "--no-verbose"]
    run_script("benchmarks/audio_step.py", *flags, "--datadir", "data/avmnist")
    figures = json.loads((tmp_path / "audio.json").read_text())
    for name in ("plain", "here", "ratio"):
        check_spread(figures[name])
    assert {way: len(runs) for way, runs in figures["accuracies"].items()} == {"plain": 3, "here": 3}


def test_generation(run_script, tmp_path):
    flags = ["--source", "embedded", "--limit_train", 24, "--limit_test", 12]
    run_script("benchmarks/generation.py", "--repeats", 2, "--out", "generation.json", *flags)
    check_spread(json.loads((tmp_path / "generation.json").read_text())["seconds"])


def test_live_against_cached(run_script, tmp_path):
    torch.manual_seed(0)
    run_script("avmnist_gen.py", "--source", "embedded", "--limit_train", 120, "--limit_test", 12, "--no-verbose")
    for name, network in (("audio", AudioLeNet()), ("image", ImageLeNet())):
        save_state(tmp_path / f"checkpoints/avmnist/{name}_model.pkl", network.state_dict())
    flags = ["--random", 3, "--epochs", 1, "--limit_train", 32, "--out", "both.json", "--no-verbose"]
    run_script("benchmarks/live_against_cached.py", *flags)
    figures = json.loads((tmp_path / "both.json").read_text())
    assert {name: len(group["configurations"]) for name, group in figures.items()} == {
        "one layer": 30,
        "four layers": 3,
    }
    group = figures["one layer"]
    cached, live = group["accuracies"]["cached"], group["accuracies"]["live"]
    assert group["mean_difference"] == pytest.approx(sum(live) / 30 - sum(cached) / 30)


def test_small_data_sets_are_studied_and_tabulated(run_script, tmp_path):
    """One seed with an epoch each; the studies themselves are tested in tests/test_study.py."""
    flags = ["--search_flags", "--epochs 1 --max_fusions 1 --search_iterations 1", "--found_flags", "--epochs 1"]
    done = run_script("benchmarks/own_data.py", "--seeds", 0, "--out", "own", "--data", "breast cancer", *flags)
    ((name, (run,)),) = json.loads((tmp_path / "own/own_data.json").read_text()).items()
    assert name == "breast cancer"
    assert all(0 <= test <= 1 for test in run.values())
    assert {"found network", "last features joined", "late fusion, mean of softmax"} <= set(run)
    assert "found network minus the better late fusion: " in done.stdout


def test_the_complete_path_is_timed_and_resumed(run_script, originals, tmp_path):  # noqa: F811
    sources = [x for name in ("mnist", "fsdd", "esc50") for x in (f"--{name}_dir", originals / name)]
    epochs = [x for name in ("image", "audio", "found") for x in (f"--{name}_epochs", 1)]
    flags = [*sources, *epochs, "--preset", "fork", "--conf", "[[4,2,0]]", "--out", "path", "--no-verbose"]
    done = run_script("benchmarks/complete_path.py", *flags)
    first = (tmp_path / "path/path.json").read_text()
    (seed,) = json.loads(first)["seeds"]
    assert list(seed["seconds"]) == ["image", "audio", "found"]
    assert all(seconds > 0 for seconds in seed["seconds"].values())
    assert {"image only", "audio only", "last features joined", "found network"} <= set(seed["accuracies"])
    assert "minutes: generation 0." in done.stdout
    run_script("benchmarks/complete_path.py", *flags)  # every step is kept, with its time
    assert (tmp_path / "path/path.json").read_text() == first


def test_every_method_is_trained_once_for_each_seed(run_script, originals, tmp_path):  # noqa: F811
    sources = [x for name in ("mnist", "fsdd", "esc50") for x in (f"--{name}_dir", originals / name)]
    epochs = [x for name in ("image", "audio", "found") for x in (f"--{name}_epochs", 1)]
    flags = [*sources, *epochs, "--preset", "fork", "--random", 1, "--work", "work", "--out", "out.npz", "--no-verbose"]
    run_script("benchmarks/methods.py", *flags, "--seeds", 3)
    arrays = np.load(tmp_path / "out.npz")
    rows = json.loads(str(arrays["rows_3"]))
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert {"image only", "late fusion, fine-tuned", "random configuration", "published configuration 4"} <= set(names)
    assert names[-2:] == ["best of the improved search", "best of the published search"]
    assert (
        rows[-1]["configuration"]
        == json.loads((tmp_path / "work/seed-3/search/best.json").read_text())["configurations"][0]["configuration"]
    )
    assert arrays["correct_3"].shape == (len(rows), 20)
    assert [row["test"] for row in rows] == pytest.approx(arrays["correct_3"].mean(1).tolist())
    (tmp_path / "work").rename(tmp_path / "elsewhere")  # finished seeds need no work
    run_script("benchmarks/methods.py", *flags, "--seeds", 3)
    flags[flags.index("--random") + 1] = 2
    done = run_script("benchmarks/methods.py", *flags, code=2)
    assert "out.npz holds trainings with other settings" in done.stderr
