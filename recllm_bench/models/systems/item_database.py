"""The catalogue as an embedded SQLite database that can only be read: what a plan's attribute queries run on."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from recllm_bench.conversation.spoken import spoken_title
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

FILE = "items.sqlite"
_STEPS = 200_000_000  # of SQLite's machine in one query: a bound that no clock and no load of the machine moves
_WHERE = {
    ("category", "is"): "id IN (SELECT item FROM categories WHERE name = ? COLLATE NOCASE)",
    ("category", "not"): "id NOT IN (SELECT item FROM categories WHERE name = ? COLLATE NOCASE)",
    ("year", "is"): "year = ?",
    ("year", "not"): "year <> ?",
    ("year", "from"): "year >= ?",
    ("year", "to"): "year <= ? AND year > 0",
    ("title", "has"): "instr(lower(title), lower(?)) > 0",
    ("title", "is"): "title = ? COLLATE NOCASE",
}
"""Everything a condition may become; values are bound, never written into the statement."""
FIELDS = {field: sorted(rule for name, rule in _WHERE if name == field) for field, _ in _WHERE}
"""Rules of each field."""
RULES = "; ".join(f"{field}: {', '.join(rules)}" for field, rules in FIELDS.items())
"""The same in words."""


class Condition(NamedTuple):
    """One condition of an attribute query.

    Attributes
    ----------
    field : str
        ``category``, ``year`` or ``title``.
    rule : str
        One of :data:`FIELDS`.
    value : str or int
        A whole number for a year.
    """

    field: str
    rule: str
    value: str | int


def write_database(path: Path, catalogue: Catalogue) -> None:
    """Write a catalogue as a database: ``items(id, title, year)`` and ``categories(item, name)``."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, title TEXT NOT NULL, year INTEGER NOT NULL)")
        database.execute("CREATE TABLE categories (item INTEGER NOT NULL, name TEXT NOT NULL)")
        items = range(1, len(catalogue))
        rows = ((item, spoken_title(catalogue.titles[item]), int(catalogue.years[item])) for item in items)
        database.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
        named = ((item, name.strip()) for item in items for name in catalogue.categories[item])
        database.executemany("INSERT INTO categories VALUES (?, ?)", named)
        database.execute("CREATE INDEX by_name ON categories (name COLLATE NOCASE, item)")
    database.close()


class ItemDatabase:
    """A written catalogue, opened to be read alone.

    Parameters
    ----------
    path : Path
        From :func:`write_database`.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        self._database.execute("PRAGMA query_only = ON")
        self._size = int(self._database.execute("SELECT count(*) FROM items").fetchone()[0])

    def query(self, conditions: Sequence[Condition]) -> list[int]:
        """Ids of the items that meet every condition, ascending.

        Raises
        ------
        BenchError
            For a field, rule or value that there is not, or a query of too many steps: the plan's fault, so a system
            catches it.
        """
        where, values = [], []
        for condition in conditions:
            clause = _WHERE.get((condition.field, condition.rule))
            if clause is None:
                raise BenchError(f"no condition '{condition.field} {condition.rule}'; there are {RULES}")
            if condition.field == "year" and not isinstance(condition.value, int):
                raise BenchError(f"year {condition.rule} '{condition.value}': write a whole number")
            where.append(f"({clause})")
            values.append(condition.value)
        self._database.set_progress_handler(lambda: True, _STEPS)
        statement = f"SELECT id FROM items WHERE {' AND '.join(where) or '1'} ORDER BY id LIMIT ?"
        try:
            return [row[0] for row in self._database.execute(statement, [*values, self._size])]
        except (sqlite3.Error, OverflowError) as error:
            raise BenchError(f"the query cannot be run ({error})") from error
