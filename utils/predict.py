"""Predict the classes of new samples with a network found on features of your own networks.

    python -m utils.predict checkpoints/features/best_....checkpoint new.npz --out predictions.csv

new.npz holds the feature arrays NAME.INDEX of the training data (docs/own_data.md); labels are not needed. The same in
Python, for features (N, D) side by side in the order of train.npz:

    from utils.results.load import load_network
    network, results = load_network(Path("checkpoints/features/best_....checkpoint"))
    probabilities = network(torch.from_numpy(features)).softmax(1)
"""

from pathlib import Path

from utils import cli

ROWS_AT_ONCE = 4096


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="written by main_found_features.py")
    parser.add_argument("features", type=Path, help="new.npz")
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"), help="file to write")
    args = parser.parse_args()

    # Imports (here, so that --help does not wait for torch)
    import torch

    from utils.results.load import load_network, read_rows
    from utils.results.predictions import write_predictions
    from utils.training.metrics import scores

    network, results = load_network(args.checkpoint)
    rows = torch.from_numpy(read_rows(args.features, results["modalities"], results["widths"]))
    with torch.no_grad():
        threshold = network.settings.threshold
        predicted = torch.cat([scores(network(part), threshold) for part in rows.split(ROWS_AT_ONCE)])
    write_predictions(
        args.out,
        {args.features.stem: (predicted, None)},
        network.settings,
        results.get("class_names") or (),
    )
    print(f"{len(rows)} samples: {args.out}")


if __name__ == "__main__":
    cli.run(main)
