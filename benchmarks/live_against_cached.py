"""Do the feature bank and the networks themselves rank configurations alike? All one-layer configurations, both ways.

    python benchmarks/live_against_cached.py --limit_train 5500 --limit_dev 2500

Runs the first step of main_searchable_avmnist.py, which trains the 30 one-layer configurations, with --features cached
and with --features live (as published); flags that this script does not know are passed on. Prints both dev accuracies
and Spearman's rank correlation; writes them with --out FILE.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from scipy import stats

ROOT = Path(__file__).parents[1]


def first_step(features: str, flags: list[str]) -> tuple[dict[str, float], float]:
    """Dev accuracy by configuration, and the seconds that their training took."""
    with tempfile.TemporaryDirectory() as run_dir:
        command = [sys.executable, str(ROOT / "main_searchable_avmnist.py"), "--features", features, *flags]
        one_step = ["--max_fusions", "1", "--search_iterations", "1", "--run_dir", run_dir]
        subprocess.run(command + one_step, check=True)
        lines = [json.loads(line) for line in (Path(run_dir) / "journal.jsonl").read_text().splitlines()]
    candidates = [line for line in lines if line["kind"] == "candidate"]
    accuracies = {json.dumps(c["configuration"]): max(c["accuracies"]) for c in candidates}
    return accuracies, sum(c["seconds"] for c in candidates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args, flags = parser.parse_known_args()
    cached, cached_seconds = first_step("cached", flags)
    live, live_seconds = first_step("live", flags)
    print("configuration  cached    live")
    for configuration, accuracy in cached.items():
        print(f"{configuration:13}  {accuracy:.4f}  {live[configuration]:.4f}")
    spearman = float(stats.spearmanr(list(cached.values()), list(live.values())).statistic)
    print(f"Spearman {spearman:.3f}; training took {cached_seconds:.1f} s cached, {live_seconds:.1f} s live")
    if args.out:
        figures = {"spearman": spearman, "cached": cached, "live": live}
        args.out.write_text(json.dumps(figures | {"seconds": [cached_seconds, live_seconds]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
