"""A found network with its baselines, from training to report; or the test of a checkpoint."""

import copy
import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.fusion import FusionNetwork, LateFusion
from utils import distributed
from utils.files import sweep, whole_file, write_json
from utils.reading import read_json
from utils.report import write_report
from utils.report.board import write_training
from utils.report.contents import FOUND
from utils.report.live import LiveReport
from utils.results.baselines import baseline_scores, ensemble_scores
from utils.results.predictions import write_predictions
from utils.results.robustness import evaluate_missing, format_missing
from utils.results.simple import regressions
from utils.results.statistics import significance
from utils.results.table import Row, check_memory, checkpoint_name, compare, confusion, f1_scores, format_table
from utils.runs.folder import RunSettings, warn_of_stand_in
from utils.runs.found_inputs import recorded_seconds
from utils.runs.fusion_training import phases, train_network
from utils.search.space import Configuration, Space, format_configuration, random_configuration
from utils.seeds import derive_seed
from utils.training.batches import Split
from utils.training.checkpoints import save_state
from utils.training.devices import data_parallel
from utils.training.evaluation import predict, unimodal_outputs
from utils.training.loop import Diverged, TrainingSettings
from utils.training.resume import NetworkRecord
from utils.training.standardization import standardize_network

LAYERS = 4  # at most, of a random configuration: the published --max_fusions


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
        self.live = LiveReport(folder)
        check_memory(network, splits, run.device)
        self.splits = {name: split.to(run.device) for name, split in splits.items()}
        widths = network.feature_layout.widths
        self.facts: dict[str, Any] = {"sizes": list(map(len, widths)), "widths": widths, **facts}
        self.row = Row(FOUND, configuration=network.configuration, baseline=False, parameters=parameters(network))
        self.rows: list[Row] = []  # of everything else
        self.scores: dict[str, Tensor] = {}  # of the found network, by split
        self.lines: list[dict[str, Any]] = []  # one per epoch
        self.unimodal_seconds: list[float | None] = []  # of each network's training; None if not known
        self.search_seconds = 0.0

    def measure_baselines(self, checkpoints: Sequence[Path]) -> None:
        """Evaluate each unimodal network and late fusion; called before training changes their weights."""
        if distributed.rank():
            return
        self.unimodal_seconds = recorded_seconds(checkpoints)
        self.facts["unimodal_time"] = sum_known(self.unimodal_seconds) is not None
        logits = {name: unimodal_outputs(self.network, self.splits[name])[1] for name in ("dev", "test")}
        if not logits["test"]:
            return
        head = self.network.settings
        scores = {
            name: baseline_scores(self.modalities, parts, head.multi_label, head.threshold)
            for name, parts in logits.items()
        }
        sizes: list[int | None] = [parameters(backbone) for backbone in self.network.backbones()]
        for place, name in enumerate(scores["test"]):
            alone = place < len(self.modalities)  # each modality comes before their late fusions
            seconds = self.unimodal_seconds[place : place + 1] if alone else self.unimodal_seconds
            size = sum_known(sizes[place : place + 1] if alone else sizes)
            row = Row(name, seconds=sum_known(seconds), parameters=None if size is None else int(size))
            self.rows.append(row.judge({split: scores[split][name] for split in scores}, self.splits))

    def add_search(self, searched: Mapping[str, Any], inputs: Mapping[str, object]) -> None:
        """Add the cost of a search from its best.json; warn if it fused other unimodal networks."""
        if searched.get("inputs", {}).get("checkpoints", inputs["checkpoints"]) != inputs["checkpoints"]:
            print("warning: the search in --conf fused unimodal networks other than these", file=sys.stderr)
        self.search_seconds = searched.get("seconds", 0)
        self.row.candidates_trained = searched.get("candidates_trained")

    def train(self, training: TrainingSettings, top: Sequence[Configuration] = (), ensemble: bool = False) -> None:
        """Train the network to completion, or resume its training; the best dev epoch is saved as best.checkpoint.

        Args:
            top: further configurations of the search; the best of all networks on dev becomes the found one.
            ensemble: also evaluate the mean of their probabilities.
        """
        if self.network.settings.standardize:
            standardize_network(self.network, self.splits["train"], self.modalities)
        self.start, trained = copy.deepcopy(self.network), []
        for rank, configuration in enumerate([self.network.configuration, *top], 1):
            network = self.network if rank == 1 else self._with_configuration(configuration, rank)
            row = Row(f"configuration {rank} of the search", configuration=configuration, baseline=False)
            record = self._train(row, network, f"top/{rank}" if rank > 1 else ".", training)
            scores = self._scores(network)
            trained.append((row.judge(scores, self.splits), network, record, scores))
        seconds = sum_known([row.seconds for row, *_ in trained], [self.search_seconds], self.unimodal_seconds)
        chosen = max(trained, key=lambda one: one[0].dev or 0)
        if ensemble:
            head = self.network.settings
            scores = ensemble_scores([one[-1] for one in trained], head.multi_label, head.threshold)
            size = sum(row.parameters or 0 for row, *_ in trained)
            row = Row(f"ensemble of {len(trained)}", seconds=seconds, baseline=False, parameters=size)
            self.rows.append(row.judge(scores, self.splits))
        for row, *_ in trained:
            row.seconds = sum_known([row.seconds], self.unimodal_seconds)
            if row is not chosen[0]:
                self.rows.append(row)
        row, self.network, record, self.scores = chosen
        row.name, row.seconds, row.candidates_trained = FOUND, seconds, self.row.candidates_trained
        self.row, self.lines = row, record.lines

    def train_baselines(self, training: TrainingSettings, count: int) -> None:
        """Train the simple alternatives in the same way, and judge logistic regression.

        They are the last features joined in one layer, `count` random configurations, and late fusion of the
        unimodal networks, if there are any to fine-tune.
        """
        space = Space(tuple(len(widths) for widths in self.start.feature_layout.widths))
        rng = np.random.default_rng(derive_seed(training.seed, "random baselines"))
        joined: Configuration = ((*(size - 1 for size in space.sizes), 0),)
        named = [("joined", "last features joined", joined)]
        for i in range(1, count + 1):
            name = f"random configuration {i}" if count > 1 else "random configuration"
            named.append((f"random-{i}", name, random_configuration(space, LAYERS, rng)))
        for place, name, configuration in named:
            network = self._with_configuration(configuration, place)
            self._add_trained(Row(name, configuration=configuration), network, place, training)
        if backbones := copy.deepcopy(self.start.backbones()):
            late = LateFusion(backbones, self.start.settings).to(self.run.device)
            self._add_trained(Row("late fusion, fine-tuned"), late, "late", training)
        if distributed.rank():
            return
        for name, weights, scores, seconds in regressions(self.start, self.splits, training.balanced):
            took = sum_known([seconds], self.unimodal_seconds)
            size = weights + sum(parameters(backbone) for backbone in self.start.backbones())
            self.rows.append(Row(name, seconds=took, parameters=size).judge(scores, self.splits))

    def _with_configuration(self, configuration: Configuration, place: int | str) -> FusionNetwork:
        """Make a network for another configuration, with the unimodal networks that the found one started from."""
        torch.manual_seed(derive_seed(self.run.seed, "found network", place))
        return self.start.with_configuration(configuration).to(self.run.device)

    def _add_trained(
        self, row: Row, network: FusionNetwork | LateFusion, place: str, training: TrainingSettings
    ) -> None:
        try:
            self._train(row, network, f"baselines/{place}", training)
        except Diverged as error:
            if distributed.world() > 1:  # the others wait for this process
                raise
            print(f"warning: without the baseline {row.name}: {error}", file=sys.stderr)
            self.facts.setdefault("left_out", {})[row.name] = str(error)
            return
        row.seconds = sum_known([row.seconds], self.unimodal_seconds)
        self.rows.append(row.judge(self._scores(network), self.splits))

    def _train(
        self, row: Row, network: FusionNetwork | LateFusion, place: str, training: TrainingSettings
    ) -> NetworkRecord:
        """Train one network in a subfolder, and fill in the row's seconds and size."""
        folder = self.folder / place
        folder.mkdir(parents=True, exist_ok=True)
        if not distributed.rank():
            sweep(folder)
        record = NetworkRecord(network, folder)
        if network is self.network:
            self.lines = record.lines
        name = format_configuration(row.configuration) if row.configuration else row.name
        total = sum(epochs for *_, epochs in phases(network, training.epochs))
        for line in train_network(self.run, name, network, self.splits, training, record):
            if network is self.network:
                self._write([])
            if not distributed.rank():
                self.live.update(f"{name}, epoch {line['epoch'] + 1} of {total}")
        row.seconds, row.parameters = record.seconds, parameters(network)
        return record

    def _scores(self, network: nn.Module) -> dict[str, Tensor]:
        """Scores (N, C) on dev, if it is given, and test."""
        model = data_parallel(network, self.run.compute.use_dataparallel)
        return {name: predict(model, self.splits[name], spread=True) for name in ("dev", "test") if name in self.splits}

    def test(self, missing: bool) -> None:
        """Compare the network with its baselines on test; `missing` also mutes or disturbs each modality.

        From here on, process 0 of a run works alone.
        """
        scores, labels = self.scores or self._scores(self.network), self.splits["test"].labels
        if distributed.rank():
            raise SystemExit
        self.scores = scores
        self.row.judge(scores, self.splits)
        self.facts |= {"f1": f1_scores(scores["test"], labels), **compare(self.row, self.rows, self.run.seed)}
        if labels.ndim == 2:
            self.facts |= {"score": "weighted F1", "multi_label": True}
        else:
            self.facts["confusion"] = confusion(scores["test"], labels)
        if missing:
            model = data_parallel(self.network, self.run.compute.use_dataparallel)
            test, seed = self.splits["test"], self.run.seed
            self.facts["missing"] = evaluate_missing(self.network, model, test, self.modalities, seed)

    def finish(self, tested: Path | None) -> None:
        """Save the network unless a checkpoint was tested; write results and report, and print the table."""
        checkpoint = tested or self._free_checkpoint()
        if not tested:
            save_state(checkpoint, self.network.state_dict())
        self.facts["checkpoint"] = str(checkpoint)
        if "missing" in self.facts:
            print(format_missing(self.facts["missing"], self.row.test))
        rows = [*self.rows, self.row]
        results = self._write(rows)
        with whole_file(self.folder / "test_correct.npy") as file:
            np.save(file, np.stack([row.correct for row in rows if row.correct is not None]))
        labels = {name: self.splits[name].labels for name in self.scores}
        parts = {name: (scores, labels[name]) for name, scores in self.scores.items()}
        names = results.get("class_names") or ()
        write_predictions(self.folder / "predictions.csv", parts, self.network.settings, names)
        print(format_table(rows, results.get("score", "accuracy")))
        if "verdict" in results:
            print(results["verdict"])
        if "mcnemar" in results:
            print(significance(results["mcnemar"]))
        page = write_report(self.folder)
        if self.run.tensorboard:
            write_training(self.folder)
        if not tested:
            about = {"test_accuracy": self.row.test, "run_dir": str(self.folder)}
            write_json(checkpoint.with_suffix(".json"), results | about)
        warn_of_stand_in(results)
        print(f"checkpoint: {checkpoint}\nreport: {page}")

    def _free_checkpoint(self) -> Path:
        """Path of this run's checkpoint; numbered if another run reached the same accuracy with the same rows."""
        path = wanted = self.run.checkpointdir / checkpoint_name(self.network.configuration, self.row.test)
        results = self.folder / "results.json"  # which name the checkpoint if this run was at its end before
        own = read_json(results, {"checkpoint?": str}, missing={}).get("checkpoint")
        for number in itertools.count(2):
            if str(path) == own or not path.with_suffix(".json").exists():
                return path
            path = wanted.with_stem(f"{wanted.stem}-{number}")
        raise AssertionError("unreachable")

    def _write(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Write results.json; it has no rows while the training is unfinished."""
        best_epoch = max(self.lines, key=lambda e: e["dev_accuracy"])["epoch"] if self.lines else None
        results = {
            "modalities": self.modalities,
            "configuration": self.network.configuration,
            "head": dataclasses.asdict(self.network.settings),
            "bfloat16": self.run.compute.bfloat16,
            **self.facts,
            "rows": [row.record() for row in rows],
            "epochs": self.lines,
            "best_epoch": best_epoch,
        }
        if not distributed.rank():
            write_json(self.folder / "results.json", results)
        return results


def parameters(network: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in network.parameters())


def sum_known(*parts: Sequence[float | None]) -> float | None:
    """Sum of all numbers; None if one is not known, or if there are none."""
    values = [value for part in parts for value in part]
    known = [value for value in values if value is not None]
    return sum(known) if values and len(known) == len(values) else None
