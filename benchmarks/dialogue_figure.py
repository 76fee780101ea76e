"""Draw what ``dialogues.py --json`` recorded: success by turn, and success of a turn against what still fitted.

Usage: python benchmarks/dialogue_figure.py results/reference/benchmarks/dialogues-ml1m-rules.json FILE.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from recllm_bench.evaluation.dialogue_turns import BLIND, SUCCESS

GREY = "0.55"


def curve(row: dict[str, Any], name: str) -> dict[str, float]:
    """A measure of turns by how many items still fitted before them."""
    return {about.replace(" items still fit", "").replace(" items or more still fit", " or more"): value
            for measure, about, value in row["measures"] if measure == name}  # fmt: skip


def main(record: Path, picture: Path) -> None:
    """Read the record, write the picture; equal records give equal files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "dialogues", "svg.fonttype": "none", "font.size": 9})
    found = json.loads(record.read_text(encoding="utf-8"))
    rows, turns = found["rows"], range(1, len(found["hit rate"]) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    curves = {name: curve(row, SUCCESS) for name, row in rows.items() if name != "oracle"}
    classes = sorted({label for each in curves.values() for label in each}, key=lambda label: int(label.split()[0]))
    right.set_xticks(range(len(classes)), classes)
    for name, row in rows.items():
        (line,) = left.plot(turns, row["success"], marker="o", markersize=3, label=name)
        if points := curves.get(name):
            places = [classes.index(label) for label in points]
            right.plot(places, list(points.values()), marker="o", markersize=3, color=line.get_color())
    left.plot(turns, found["hit rate"], color=GREY, linestyle=":", label="popularity's hit rate")
    blind = curve(rows["popularity, fits"], BLIND)
    places = [classes.index(label) for label in blind]
    right.plot(places, list(blind.values()), color=GREY, linestyle="--", label="a blind pick among what fits")
    left.set(xlabel="turn", ylabel="share of dialogues that succeeded", xticks=turns, ylim=(0, 1.02))
    right.set(xlabel="items that still fit before the turn", ylabel="success of the turn", ylim=(0, None))
    left.legend(frameon=False, fontsize=7)
    right.legend(frameon=False, fontsize=7)
    figure.suptitle(f"{found['dataset']}, users: {found['simulator']}, {found['users']} dialogues", fontsize=9)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    main(given.record, given.picture)
