"""Search for which features of any networks to fuse, and how, given the features as files (docs/own_data.md).

    python main_searchable_features.py --datadir D --run_dir runs/own
    python main_searchable_features.py --datadir D --activations relu gelu --allow_skip     # a larger space
    python main_searchable_features.py --datadir D --search published

D holds train.npz and dev.npz with arrays NAME.INDEX (samples x width) for two to five modalities, and label. A
configuration row is one feature index for each modality, in the order of the file, and the activation's index. The run
folder receives args.json, journal.jsonl (every trained candidate), best.json (for main_found_features.py --conf),
results.csv and report.html.
"""

import argparse

from models.rows import ACTIVATION_NAMES
from utils import cli
from utils.runs import data_flags, flags, search_flags


def parse_args() -> argparse.Namespace:
    parser = cli.make_parser(__doc__)
    data_flags.add_feature_data(parser)
    search_flags.add_search_flags(parser, search="improved")
    group = parser.add_argument_group("space")
    group.add_argument(
        "--activations",
        nargs="+",
        choices=ACTIVATION_NAMES,
        default=["relu", "sigmoid"],
        help="activations of a fusion layer",
    )
    group.add_argument("--allow_skip", action="store_true", help="let a layer skip modalities (index -1)")
    flags.add_fusion_flags(parser, inner=16, epochs=None, batchsize=32, period=None, dropout=0.5, multitask=None)
    flags.add_run_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()

    # Imports (here, so that --help does not wait for torch)
    from datasets.features import load_features
    from models.fusion import FeatureLayout
    from utils.candidates.evaluators import CachedEvaluator
    from utils.candidates.feature_bank import bank_of_features, feature_splits
    from utils.runs.search import open_search
    from utils.runs.settings import (
        budget,
        check_batches,
        head_settings,
        limits,
        run_settings,
        scale_epochs,
        search_method,
        search_settings,
        training_settings,
    )
    from utils.search.space import Space

    # Data: the features of every sample, already computed
    data = load_features(args.datadir, ("train", "dev"), limits(args), args.multi_label)

    # Settings: fewer samples get more epochs
    scale_epochs(args, len(data.labels["train"]), epochs=3, period=1)
    run, settings = run_settings(args), search_settings(args)
    training = training_settings(args)
    head = head_settings(args, data.num_outputs, data.multi_label, args.threshold)
    splits = feature_splits(data.rows, data.labels)
    check_batches(head, args.batchsize, len(splits["train"]))
    activations = sorted({ACTIVATION_NAMES.index(name) for name in args.activations})
    space = Space(tuple(map(len, data.widths)), tuple(activations), args.allow_skip)
    inputs = {"data": data.checksums}

    named = data.feature_names if data.module_names else ()
    with open_search(run, settings, space, data.modalities, inputs, search_method(args), named) as search:
        # Feature bank
        bank = bank_of_features(FeatureLayout(data.widths, data.num_outputs, data.has_logits), splits)
        if head.standardize:
            bank = bank.standardized(data.modalities)
        evaluator = CachedEvaluator(
            bank, head, training, run.device, args.weightsharing, search.folder, verbose=run.verbose
        )

        # Search: propose candidates, train them, learn from the results
        completed = search.carry_out(evaluator, budget(args))

        # Best network, baselines and report
        facts = {"score": "weighted F1", "multi_label": True} if data.multi_label else {}
        best = search.write_best(evaluator, completed, facts)
        if args.with_random:
            best = search.compare_with_random(evaluator, best)
        search.report(best)
        cli.show_next(args.verbose, "main_found_features.py", "--conf", search.folder / "best.json")


if __name__ == "__main__":
    cli.run(main)
