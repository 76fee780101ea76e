"""Who wins where: the ranks of every method over datasets and protocols, controls apart."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from recllm_bench.reporting.comparison import BLOCKS, Comparison
from recllm_bench.reporting.conclusion import conclusion
from recllm_bench.reporting.record_families import has, mean_of
from recllm_bench.reporting.site.leaderboards import MARK_WORDS, kind_of, run_id, table_id
from recllm_bench.reporting.table import MARKS


@dataclass(frozen=True)
class Place:
    """A method in one table: its rank among the methods of its block (0: a control, which has none)."""

    rank: int
    of: int
    value: float
    mark: str
    said: str
    run: str


@dataclass
class Standing:
    """A method over all tables."""

    name: str
    places: dict[str, Place] = field(default_factory=dict)

    @property
    def wins(self) -> int:
        """Tables in which it is first among at least two."""
        return sum(place.rank == 1 and place.of > 1 for place in self.places.values())

    @property
    def contests(self) -> int:
        """Tables in which it stands beside another method."""
        return sum(place.of > 1 for place in self.places.values())

    @property
    def mean_rank(self) -> float | None:
        """Over the tables in which it stands beside another method."""
        ranks = [place.rank for place in self.places.values() if place.of > 1]
        return statistics.fmean(ranks) if ranks else None


@dataclass
class Group:
    """Methods that see the same kind of thing, and the controls of that kind."""

    title: str
    reason: str
    columns: list[tuple[str, str, str, str]]
    methods: list[Standing]
    controls: list[Standing]


def overview(comparisons: Sequence[Comparison]) -> list[Group]:
    """Standings of each block, over the tables that have it.

    A column is a table and, with words, who speaks: rows that hear others are not compared.
    """
    groups = []
    for block, (title, reason) in BLOCKS.items():
        columns: list[tuple[str, str, str, str]] = []
        found: dict[tuple[bool, str], Standing] = {}
        for comparison in comparisons:
            records, metric = comparison.records, comparison.primary
            for key in comparison.blocks:
                rows = [row for row in comparison.rows(key) if key.partition(":")[0] == block]
                rows = [row for row in rows if has(records[row], metric)]
                if not rows:
                    continue
                first = records[rows[0]]
                where = f"{table_id(first)}/{key}"
                columns.append(
                    (where, f"{first.dataset.get('name')}, {first.protocol.get('name')}", metric, first.users)
                )
                ranked = [row for row in rows if kind_of(records[row]) == "method"]
                for row in rows:
                    record, control = records[row], row not in ranked
                    word = comparison.marks.get((key, row, metric), "")
                    standing = _standing(found, control, record.name, where)
                    rank = 0 if control else 1 + ranked.index(row)
                    place = Place(
                        rank,
                        len(ranked),
                        mean_of(record, metric),
                        MARKS.get(word, ""),
                        MARK_WORDS.get(word, ""),
                        run_id(record),
                    )
                    standing.places[where] = place
        if columns:
            methods = [each for (control, _), each in found.items() if not control]
            controls = [each for (control, _), each in found.items() if control]
            methods.sort(key=lambda each: (each.mean_rank is None, each.mean_rank or 0, -each.wins, each.name))
            controls.sort(key=lambda each: each.name)
            groups.append(Group(title, reason, columns, methods, controls))
    return groups


def _standing(found: dict[tuple[bool, str], Standing], control: bool, name: str, where: str) -> Standing:
    """The standing of a name; a second row of the same name in a table gets one of its own."""
    number, shown = 1, name
    while where in found.setdefault((control, shown), Standing(shown)).places:
        number += 1
        shown = f"{name} ({number})"
    return found[control, shown]


def sentences(comparison: Comparison) -> list[str]:
    """What follows from each block of a table."""
    said = (conclusion(comparison, block) for block in (*comparison.blocks, *comparison.dialogue_blocks[:1]))
    return [line for line in said if line]
