"""Train a found configuration on features of any networks and compare it with its baselines, or test a checkpoint.

    python main_found_features.py --datadir D --conf runs/own/best.json
    python main_found_features.py --datadir D --conf "[[1,0,0],[0,2,3]]" --export found.onnx

D holds train.npz, dev.npz and test.npz (docs/own_data.md). The best dev epoch is tested once and saved in
checkpointdir as best_<rows>_<test score>.checkpoint. The run folder receives args.json, results.json and report.html.
"""

import argparse
from pathlib import Path

from utils import cli
from utils.runs import data_flags, flags


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    flags.add_found_flags(parser, conf=None)
    parser.add_argument_group("export").add_argument(
        "--export",
        type=Path,
        default=None,
        metavar="FILE",
        help="also write the network as .onnx or .pt2 (torch.export)",
    )
    data_flags.add_feature_data(parser)
    flags.add_fusion_flags(parser, inner=256, epochs=None, batchsize=32, period=None, dropout=0.4, multitask=None)
    flags.add_run_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    import torch

    from datasets.features import load_features
    from models.fusion import FeatureLayout, FeatureNetwork
    from utils.candidates.feature_bank import feature_splits
    from utils.results.export import check_export, export_network
    from utils.runs.folder import open_training
    from utils.runs.found import FoundRun
    from utils.runs.found_inputs import choose_configuration, load_weights, tested_checkpoint, top_configurations
    from utils.runs.settings import check_batches, found_settings, head_settings, limits, run_settings, scale_epochs
    from utils.search.space import Space
    from utils.seeds import derive_seed
    from utils.training.devices import on_device

    tested = tested_checkpoint(args.test_cp, args.checkpointdir)
    if args.export:
        check_export(args.export)

    # Data: features of every sample; no dev split when only testing
    names = ("train", "test") if tested else ("train", "dev", "test")
    data = load_features(args.datadir, names, limits(args), args.multi_label)

    # Settings: fewer samples get more epochs
    scale_epochs(args, len(data.labels["train"]), epochs=70, period=5, only_test=tested is not None)
    run, training = run_settings(args), found_settings(args, data.multi_label)
    head = head_settings(args, data.num_outputs, data.multi_label, args.threshold)
    splits = feature_splits(data.rows, data.labels)
    if tested is None:
        check_batches(head, args.batchsize, len(splits["train"]))

    # Network: the configuration's central weights over the features
    space = Space(tuple(map(len, data.widths)), allow_skip=True)
    configuration, searched = choose_configuration(args.conf, space, data.modalities, published=())
    top = top_configurations(searched, args.retrain_top, args.ensemble)
    checkpoints = [tested] if tested else []
    torch.manual_seed(derive_seed(args.seed, "found network"))
    network = FeatureNetwork(configuration, FeatureLayout(data.widths, data.num_outputs, data.has_logits), head)
    inputs = {
        "configuration": configuration,
        "checkpoints": load_weights(network, tested, checkpoints),
        "data": data.checksums,
    }
    on_device(network, run.device)

    facts = {"features": data.feature_names if data.module_names else None, "class_names": data.class_names}

    with open_training(run, inputs) as folder:
        found = FoundRun(run, folder, network, splits, data.modalities, facts)
        if tested is None:
            found.measure_baselines(checkpoints)  # before training changes the weights of their networks
            found.add_search(searched, inputs)
            found.train(training, top, args.ensemble)  # one epoch of the central weights, then all weights
            if args.baselines is not None:
                found.train_baselines(training, args.baselines)
        found.test(args.evaluate_missing)
        found.finish(tested)
        if args.export:
            columns = sum(map(sum, data.widths))
            rows = torch.from_numpy(data.rows["test"][:2, :columns])
            assert isinstance(found.network, FeatureNetwork)
            print(export_network(found.network.cpu().over_features(), rows, args.export))
            print(f"its input: {columns} columns, which are {', '.join(data.feature_names)} side by side")


if __name__ == "__main__":
    cli.run(main)
