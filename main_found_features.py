"""Train a found configuration over features of any networks and set it beside its baselines, or test a checkpoint.

    python main_found_features.py --datadir D --conf runs/own/best.json
    python main_found_features.py --datadir D --conf "[[1,0,0],[0,2,3]]" --export found.onnx

D holds train.npz, dev.npz and test.npz (docs/own_data.md). The best dev epoch is kept, tested once and saved in
checkpointdir as best_<rows>_<test score>.checkpoint. The run folder gets args.json, results.json and report.html.
"""

from pathlib import Path

import torch

from datasets.features import load_features
from models.fusion import FeatureLayout, FeatureNetwork
from utils import cli
from utils.candidates.feature_bank import data_identity, feature_splits
from utils.results.export import check_export, export_network
from utils.runs import found, fusion_flags
from utils.search.space import Space


def main() -> None:
    parser = cli.make_parser(__doc__)
    found.add_flags(parser, conf=None)
    parser.add_argument_group("export").add_argument(
        "--export",
        type=Path,
        default=None,
        metavar="FILE",
        help="write the network as .onnx or .pt2 (torch.export) too",
    )
    cli.add_feature_data(parser)
    fusion_flags.add_flags(parser, inner=256, epochs=70, batchsize=32, period=5, dropout=0.4, multitask=None)
    cli.add_run_flags(parser)
    args = parser.parse_args()
    if args.export:
        check_export(args.export)

    names = ("train", "test") if args.test_cp else ("train", "dev", "test")
    data = load_features(args.datadir, names, cli.limits(args))
    head = fusion_flags.head_settings(args, data.num_outputs, data.multi_label)
    splits = feature_splits(data.rows, data.labels)
    layout = FeatureLayout(data.widths, data.num_outputs, data.has_logits)
    if not args.test_cp:
        fusion_flags.check_batches(args, len(splits["train"]))

    def export(network: FeatureNetwork) -> str:
        columns = sum(map(sum, data.widths))
        said = export_network(network.over_features(), torch.from_numpy(data.rows["test"][:2, :columns]), args.export)
        return f"{said}\nits input: {columns} columns, which are {', '.join(data.feature_names)} side by side"

    task = found.Task(data.modalities, Space(tuple(map(len, data.widths)), allow_skip=True), published=())
    configuration = found.chosen_configuration(args, task)
    found.run_found(
        args,
        task,
        build=lambda: FeatureNetwork(configuration, layout, head),
        splits=splits,
        checkpoints=[],
        facts={},
        data_identity=data_identity(args.datadir, [f"{name}.npz" for name in names]),
        export=export if args.export else None,
    )


if __name__ == "__main__":
    cli.run(main)
