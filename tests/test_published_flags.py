"""Command lines of the published scripts run here: every flag, spelling and default that they have."""

import argparse
import functools
import importlib
import itertools
import sys
from pathlib import Path

import pytest

from utils import cli, interrupts
from utils.errors import UsageError

ROOT = Path(__file__).parents[1]
SCRIPTS = [
    *sorted(path.stem for path in ROOT.glob("*.py")),
    *sorted(f"benchmarks.{path.stem}" for path in ROOT.glob("benchmarks/*.py") if "make_parser" in path.read_text()),
    "datasets.ntu_prepare",
    "datasets.avmnist_check",
    "datasets.mmimdb.__main__",
    "utils.report.__main__",
]

FUSION = {
    "--eta_max": 1e-3,
    "--eta_min": 1e-6,
    "--Tm": 2,
    "--use_dataparallel": False,
    "--modality": "both",
    "--weightsharing": False,
    "--alphas": False,
    "--batchnorm": False,
    "--no-verbose": True,
}
SEARCH = FUSION | {
    "--inner_representation_size": 16,
    "--epochs": 3,
    "--lr_surrogate": 1e-3,
    "--epochs_surrogate": 50,
    "--Ti": 1,
    "--max_fusions": 4,
    "--search_iterations": 3,
    "--num_samples": 15,
    "--initial_temperature": 10,
    "--final_temperature": 0.2,
    "--temperature_decay": 4,
    "--multitask": False,
    "--randsearch": False,
    "--drpt": 0.5,
}
FOUND = FUSION | {
    "--inner_representation_size": 256,
    "--epochs": 70,
    "--Ti": 5,
    "--drpt": 0.4,
    "--test_cp": "",
}
NTU = {
    "--checkpointdir": Path("checkpoints/ntu"),
    "--datadir": Path("data/ntu"),
    "--num_outputs": 60,
    "--batchsize": 20,
    "--ske_cp": "",  # the published file names are looked for: test_ntu_scripts.py
    "--rgb_cp": "",
    "--vid_dim": 256,
    "--vid_fr": 30,
    "--vid_len": [8, 32],
    "--no_bad_skel": False,
    "--no_norm": False,
}
AVMNIST = {
    "--checkpointdir": Path("checkpoints/avmnist"),
    "--datadir": Path("data/avmnist"),
    "--num_outputs": 10,
    "--batchsize": 32,
    "--audio_cp": "audio_model.pkl",
    "--rgb_cp": "image_model.pkl",
    "--channels": 3,
}
UNIMODAL = {
    "--checkpointdir": Path("checkpoints/avmnist"),
    "--datadir": Path("data/avmnist"),
    "--lr": 0.1,
    "--batchsize": 128,
    "--epochs": 50,
}
PUBLISHED = {
    "main_searchable_ntu": NTU | SEARCH,
    "main_found_ntu": NTU | FOUND | {"--conf": "1", "--no-multitask": True},
    "main_searchable_avmnist": AVMNIST | SEARCH,
    "main_found_avmnist": AVMNIST | FOUND | {"--conf": "0", "--multitask": False},
    "train_image": UNIMODAL,
    "train_audio": UNIMODAL,
}


@pytest.fixture
def parser_of(monkeypatch):
    """The parser of a script, with which it would read its command line."""

    class Parsed(Exception):
        pass

    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def parser_of(script: str) -> argparse.ArgumentParser:
        def stop(parser, *_):
            raise Parsed(parser)

        main = importlib.import_module(script).main
        with monkeypatch.context() as patch:
            patch.setattr(cli.Parser, "parse_known_args", stop)  # which `parse_args` calls
            with pytest.raises(Parsed) as caught:
                main()
        return caught.value.args[0]

    yield parser_of
    for script in SCRIPTS:
        sys.modules.pop(script, None)


@pytest.mark.parametrize("script", PUBLISHED)
def test_flags_and_defaults(parser_of, script):
    parser = parser_of(script)
    actions = {spelling: action for action in parser._actions for spelling in action.option_strings}
    defaults = {flag: actions[flag].default if flag in actions else "missing" for flag in PUBLISHED[script]}
    assert defaults == PUBLISHED[script]


@pytest.mark.parametrize(
    ("script", "line", "read"),
    [
        ("train_image", "--learning_rate 0.05 --workers_num 4", {"lr": 0.05, "num_workers": 4}),
        ("train_audio", "--learning_rate 0.05 --workers_num 4", {"lr": 0.05, "num_workers": 4}),
        ("main_searchable_avmnist", "--vid_dim 256 --vid_fr 30 --vid_len 8 32 --j 16", {"num_workers": 16}),
        ("main_searchable_avmnist", "--randsearch True", {"randsearch": True}),
        ("main_searchable_avmnist", "--randsearch False", {"randsearch": False}),
        ("main_searchable_ntu", "--randsearch --num_workers 16", {"randsearch": True, "num_workers": 16}),
        ("main_found_ntu", "--j 16 --no-multitask", {"num_workers": 16, "multitask": False}),
        ("main_found_avmnist", "--multitask", {"multitask": True}),
    ],
)
def test_other_published_spellings(parser_of, script, line, read):
    args = vars(parser_of(script).parse_args(line.split()))
    assert {name: args[name] for name in read} == read
    assert "vid_fr" not in args or script.endswith("ntu")  # AV-MNIST has no use for it
    if "--learning_rate" in line:
        assert "learning_rate" not in parser_of(script).format_help()


def test_randsearch_takes_true_or_false_only(parser_of):
    with pytest.raises(UsageError, match="argument --randsearch: must be True or False, but got perhaps"):
        parser_of("main_searchable_ntu").parse_args(["--randsearch", "perhaps"])


OUT_OF_RANGE = [
    "nan",
    "inf",
    "-inf",
    "1e300",
    "1e300h",
    "9" * 30,
    "9" * 5000,
    "-1",
    "-1h",
    "many",
    "",
    "h",
    "\x1b[31m" * 9999,
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_number_has_a_range(parser_of, script, monkeypatch, capsys):
    """A number outside of it ends the script with one line that states it, before any work."""
    monkeypatch.setattr(interrupts, "install", lambda output: None)
    parser = parser_of(script)
    others = (None, str, Path, cli.boolean, cli.folder, cli.device)
    numbers = [a for a in parser._actions if a.option_strings and a.type not in others]
    assert not [a for a in parser._actions if type(a.default) in (int, float) and a not in numbers]
    for action, value in itertools.product(numbers, OUT_OF_RANGE):
        flag = action.option_strings[0]
        line = [flag, value, value] if action.nargs == 2 else [f"{flag}={value}"]
        if (flag == "--snr_db" and value == "-1") or (action.nargs == 2 and value in ("-inf", "-1h")):
            continue  # a level of noise; what argparse takes for flags
        with pytest.raises(SystemExit) as stopped:
            cli.run(functools.partial(parser.parse_args, line))
        error = capsys.readouterr().err
        assert stopped.value.code == 2, line
        assert error.startswith("error: argument --"), line
        assert ": must " in error
        assert any(word in error for word in (" from ", " above ", " up to ", " <= p < ", "-100..100"))
        assert error.count("\n") == 1
        assert error[:-1].isprintable()
        assert len(error) < 1000
