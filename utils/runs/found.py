"""A found network with its baselines, from training to report; or the test of a checkpoint."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.fusion import ACTIVATIONS, FusionNetwork
from utils import interrupts
from utils.errors import UsageError
from utils.files import write_json
from utils.progress import Progress
from utils.reading import at_least_0, read_json
from utils.report import write_report
from utils.report.board import write_training
from utils.results.robustness import evaluate_missing, format_missing
from utils.results.statistics import significance
from utils.results.table import Row, baseline_rows, baselines, check_memory, checkpoint_name, format_table, test_found
from utils.runs.folder import RunSettings
from utils.search.space import Configuration, Space, format_configuration, parse_configuration, read_search
from utils.training.batches import Split
from utils.training.checkpoints import load_backbones, load_into, save_state
from utils.training.devices import data_parallel
from utils.training.loop import ModelTraining, TrainingSettings, adam, train_and_evaluate
from utils.training.resume import NetworkRecord


def choose_configuration(
    conf: str, space: Space, modalities: Sequence[str], published: Sequence[Configuration]
) -> tuple[Configuration, dict[str, Any]]:
    """Return the configuration that `--conf` names, and the best.json that it comes from (empty if it is none).

    Raises:
        UsageError: there is no such configuration, or it has an index that does not exist.
    """
    configuration = parse_configuration(conf, published)
    searched = read_search(conf)
    if searched.get("modalities") not in (None, list(modalities)):
        raise UsageError(
            f"{conf} is from a search over {searched['modalities']}, but this script fuses {list(modalities)}"
        )
    if searched.get("sizes") not in (None, list(space.sizes)):
        raise UsageError(
            f"{conf} is from a search over {searched['sizes']} features of {list(modalities)}, "
            f"but the data have {list(space.sizes)}"
        )
    space.check(configuration, len(ACTIVATIONS))
    return configuration, searched


def tested_checkpoint(test_cp: str, checkpointdir: Path) -> Path | None:
    """Path of the checkpoint that `--test_cp` names; None if a network is to be trained."""
    if not test_cp:
        return None
    return Path(test_cp) if Path(test_cp).is_file() else checkpointdir / test_cp


def load_weights(network: FusionNetwork, tested: Path | None, checkpoints: Sequence[Path]) -> list[str]:
    """Load the checkpoint to be tested, or those of the unimodal networks, first modality first.

    Returns:
        SHA-256 of the files that were read.

    Raises:
        UsageError: a checkpoint does not fit, or the results beside it are of another configuration.
    """
    if tested is None:
        return load_backbones(network, checkpoints)
    _check_results(tested.with_suffix(".json"), tested, network)
    return [load_into(network, tested)]


def _check_results(path: Path, tested: Path, network: FusionNetwork) -> None:
    """Compare the settings that the weights alone do not identify with those in the results beside a checkpoint."""
    results = read_json(path, {"configuration?": list, "head?": dict}) if path.exists() else {}
    own = [list(row) for row in network.configuration]
    trained = results.get("configuration", own)
    if trained != own:
        raise UsageError(f"{tested} was trained with --conf {json.dumps(trained)}, not {json.dumps(own)}")
    head = results.get("head", {})
    for flag in ("alphas", "multitask"):
        wanted = getattr(network.settings, flag)
        if head.get(flag, wanted) != wanted:
            raise UsageError(f"{tested} was trained with {flag}={head[flag]}, but this command has {flag}={wanted}")


def recorded_seconds(checkpoints: Sequence[Path]) -> list[float | None]:
    """Training seconds of each unimodal network, from the results beside its checkpoint; None if not known.

    Raises:
        UsageError: a file of results is damaged.
    """
    seconds: list[float | None] = []
    for path in checkpoints:
        record = path.with_suffix(".json")
        form = {"seconds?": (None, at_least_0)}
        seconds.append(read_json(record, form).get("seconds") if record.exists() else None)
    return seconds


class FoundRun:
    """One found network in its run folder."""

    def __init__(
        self,
        run: RunSettings,
        folder: Path,
        network: FusionNetwork,
        splits: Mapping[str, Split],
        modalities: Sequence[str],
        facts: Mapping[str, object],
    ) -> None:
        """
        Args:
            network: on the device, weights loaded.
            splits: train, dev and test; the last is enough to test a checkpoint.
            modalities: names, in the order of a configuration row.
            facts: further entries of the results, such as {"stand_in": False}.
        """
        self.run, self.folder, self.network, self.modalities = run, folder, network, modalities
        self.model = data_parallel(network, run.compute.use_dataparallel)
        check_memory(network, splits, run.device)
        self.splits = {name: split.to(run.device) for name, split in splits.items()}
        self.results: dict[str, Any] = {
            "modalities": modalities,
            "sizes": [len(widths) for widths in network.feature_layout.widths],
            "configuration": network.configuration,
            "head": dataclasses.asdict(network.settings),
            "bfloat16": run.compute.bfloat16,
            **facts,
        }
        self.row = Row("found network", configuration=network.configuration)
        self.rows: list[Row] = []  # of the baselines
        self.scores: dict[str, dict[str, Tensor]] = {}  # of the baselines, by split and name
        self.lines: list[dict[str, Any]] = []  # one per epoch
        self.seconds: list[float | None] = []  # of all training that the network needs; None if not known

    def measure_baselines(self, checkpoints: Sequence[Path]) -> None:
        """Evaluate each unimodal network and late fusion; called before training changes their weights."""
        seconds = recorded_seconds(checkpoints)
        self.scores = baselines(self.network, self.splits, self.modalities)
        self.rows = baseline_rows(self.scores, self.splits, self.modalities, seconds)
        self.seconds += seconds

    def add_search(self, searched: Mapping[str, Any], inputs: Mapping[str, object]) -> None:
        """Add the cost of a search from its best.json; warn if it fused other unimodal networks."""
        if searched.get("inputs", {}).get("checkpoints", inputs["checkpoints"]) != inputs["checkpoints"]:
            print("warning: the search in --conf fused unimodal networks other than these", file=sys.stderr)
        self.seconds.append(searched.get("seconds", 0))
        self.row.candidates_trained = searched.get("candidates_trained")

    def train(self, training: TrainingSettings) -> None:
        """Train the central weights for one epoch, then all weights for `epochs` (published), or resume.

        The best dev epoch is saved as best.checkpoint and loaded into the network at the end.
        """
        network, run, record = self.network, self.run, NetworkRecord(self.network, self.folder)
        self.lines, phases, first = record.lines, self._phases(training.epochs), 0
        total = sum(epochs for *_, epochs in phases)
        if run.verbose:
            name, bfloat16 = format_configuration(network.configuration), ", bfloat16" * run.compute.bfloat16
            print(f"training {name} on {len(self.splits['train'])} samples, {total} epochs, {run.device}{bfloat16}")
        with Progress(total=total, initial=len(self.lines), desc="epochs", verbose=run.verbose) as progress:
            for phase, parameters, epochs in phases:  # each with its own optimizer and learning-rate cycle
                schedule = dataclasses.replace(training, epochs=epochs)
                done = sum(line["phase"] == phase for line in self.lines)
                network.requires_grad_(False)
                for parameter in parameters:
                    parameter.requires_grad_(True)
                optimizer = adam(parameters, training)
                if done and self.lines[-1]["phase"] == phase:
                    record.restore(network, optimizer)
                train_pass = ModelTraining(self.model, optimizer, network.train, run.compute.bfloat16, run.verbose)
                place = ("found", phase)
                for result in train_and_evaluate(
                    self.model, self.splits, schedule, train_pass, place, epochs, first_pass=first, done=done
                ):
                    line = {"epoch": len(self.lines), "phase": phase, **result.figures(), "learning_rate": result.rate}
                    record.add(line, optimizer)
                    self._write([])
                    interrupts.check()
                    best = record.best_line["dev_accuracy"]
                    progress.set_postfix_str(f"{phase}, on dev {line['dev_accuracy']:.4f}, best {best:.4f}")
                    progress.update()
                first += epochs
        record.load_best()
        self.seconds.append(record.seconds)
        self.row.seconds = None if None in self.seconds else sum(filter(None, self.seconds))

    def _phases(self, epochs: int) -> list[tuple[str, list[nn.Parameter], int]]:
        """Name, trained weights and epochs of each phase; without backbones there is only the last."""
        central = [("central", self.network.central_parameters(), 1)] if self.network.backbones() else []
        return [*central, ("all", list(self.network.parameters()), epochs)]

    def test(self, missing: bool) -> None:
        """Test the network and compare it with the best baseline; `missing` also mutes or disturbs each modality."""
        self.results |= test_found(self.row, self.model, self.splits, self.scores)
        if missing:
            test, seed = self.splits["test"], self.run.seed
            self.results["missing"] = evaluate_missing(self.network, self.model, test, self.modalities, seed)

    def finish(self, tested: Path | None) -> None:
        """Save the network unless a checkpoint was tested; write results and report, and print the table."""
        checkpoint = tested or self.run.checkpointdir / checkpoint_name(self.network.configuration, self.row.test)
        if not tested:
            save_state(checkpoint, self.network.state_dict())
        self.results["checkpoint"] = str(checkpoint)
        if "missing" in self.results:
            print(format_missing(self.results["missing"], self.row.test))
        self._write([*self.rows, self.row])
        print(format_table([*self.rows, self.row]))
        if "mcnemar" in self.results:
            print(significance(self.results["mcnemar"]))
        page = write_report(self.folder)
        if self.run.tensorboard:
            write_training(self.folder)
        if not tested:
            about = {"test_accuracy": self.row.test, "run_dir": str(self.folder)}
            write_json(checkpoint.with_suffix(".json"), self.results | about)
        if self.results.get("stand_in"):
            print("the data set is a stand-in: these figures are not results on the real one")
        print(f"checkpoint: {checkpoint}\nreport: {page}")

    def _write(self, rows: Sequence[Row]) -> None:
        """Write results.json; it has no rows while the training is unfinished."""
        best_epoch = max(self.lines, key=lambda e: e["dev_accuracy"])["epoch"] if self.lines else None
        epochs = {"rows": [dataclasses.asdict(row) for row in rows], "epochs": self.lines, "best_epoch": best_epoch}
        write_json(self.folder / "results.json", self.results | epochs)
