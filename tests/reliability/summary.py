"""`python -m tests.reliability.summary FILE`: the table of faults from the lines that the tests wrote to FILE."""

import json
import sys
from collections import Counter
from pathlib import Path


def table(lines: list[dict]) -> str:
    """Markdown: faults injected, survived, lost by script and kind; those of a test that failed count as lost."""
    injected, lost = Counter(), Counter()
    for line in lines:
        for kind, count in line["injected"].items():
            injected[line["script"], kind] += count
            lost[line["script"], kind] += 0 if line["passed"] else count
    rows = ["| script | fault | injected | survived | lost |", "| --- | --- | --- | --- | --- |"]
    for (script, kind), count in sorted(injected.items()):
        gone = lost[script, kind]
        rows.append(f"| {script} | {kind} | {count} | {count - gone} | {gone} |")
    total, gone = injected.total(), lost.total()
    rows.append(f"| all | | {total} | {total - gone} | {gone} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]))
