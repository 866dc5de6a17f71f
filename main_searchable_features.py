"""Search which features of any networks to fuse, and how, given the features as files (docs/own_data.md).

    python main_searchable_features.py --datadir D --run_dir runs/own
    python main_searchable_features.py --datadir D --activations relu gelu --allow_skip     # a larger space

D holds train.npz and dev.npz with arrays NAME.INDEX (samples x width) for two to five modalities, and label. A
configuration row is one feature index for each modality, in the order of the file, and the activation's index. The run
folder gets args.json, journal.jsonl (every trained candidate), best.json (give it to main_found_features.py --conf),
results.csv and report.html.
"""

from datasets.features import load_features
from models.fusion import ACTIVATION_NAMES, FeatureLayout
from utils import cli
from utils.candidates.feature_bank import bank_of_features, data_identity, feature_splits
from utils.runs import fusion_flags, search_flags
from utils.runs import search as search_run
from utils.search.space import Space


def main() -> None:
    parser = cli.make_parser(__doc__)
    cli.add_feature_data(parser)
    search_flags.add_flags(parser)
    space_flags = parser.add_argument_group("space")
    space_flags.add_argument(
        "--activations", nargs="+", choices=ACTIVATION_NAMES, default=["relu", "sigmoid"], help="of a fusion layer"
    )
    space_flags.add_argument("--allow_skip", action="store_true", help="a layer may leave modalities out (index -1)")
    fusion_flags.add_flags(parser, inner=16, epochs=3, batchsize=32, period=1, dropout=0.5, multitask=None)
    cli.add_run_flags(parser)
    args = parser.parse_args()

    data = load_features(args.datadir, ("train", "dev"), cli.limits(args))
    head = fusion_flags.head_settings(args, data.num_outputs, data.multi_label)
    splits = feature_splits(data.rows, data.labels)
    layout = FeatureLayout(data.widths, data.num_outputs, data.has_logits)
    fusion_flags.check_batches(args, len(splits["train"]))

    activations = sorted({ACTIVATION_NAMES.index(name) for name in args.activations})
    space = Space(tuple(map(len, data.widths)), tuple(activations), args.allow_skip)
    identity = data_identity(args.datadir, ["train.npz", "dev.npz"])
    maker = search_run.on_bank(args, bank_of_features(layout, splits), head, identity)
    facts = {"score": "weighted F1", "multi_label": True} if data.multi_label else {}
    search_run.run_search(args, space, data.modalities, maker, facts)


if __name__ == "__main__":
    cli.run(main)
