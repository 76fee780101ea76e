"""The papers' numbers, how far they can be trusted, and how ours stand to them. Reads CSV only."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from recllm_bench.api.published import PublishedTables
from recllm_bench.api.registry import names, resolve
from recllm_bench.data.cards import all_cards
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.intervals import Interval, wilson
from recllm_bench.locations import resource

CLOSE = 0.10
_RATES = ("Recall", "HR", "S")


@dataclass(frozen=True)
class PublishedCell:
    """One printed number.

    Attributes
    ----------
    paper, table, dataset, protocol, model, variant, metric : str
        Columns of the file; ``variant`` may be empty.
    k : int or None
        Cut-off, None where the metric has none.
    value : float
        The number.
    unit : float
        Unit of its last printed decimal: it was rounded by up to half of that.
    """

    paper: str
    table: str
    dataset: str
    protocol: str
    model: str
    variant: str
    metric: str
    k: int | None
    value: float
    unit: float

    @property
    def name(self) -> str:
        """Metric with its cut-off, such as ``"Recall@5"``."""
        return self.metric if self.k is None else f"{self.metric}@{self.k}"

    @property
    def place(self) -> str:
        """Where it is printed, such as ``"latentcrs T2"``."""
        return f"{self.paper} {self.table}"


@dataclass(frozen=True)
class Flag:
    """A doubt about printed numbers.

    Attributes
    ----------
    paper, table, dataset, model, variant : str
        Which cells: ``T2/T5`` and ``A+B`` name several, ``all`` and ``both`` every one; without a model the doubt is
        about the table as a whole.
    metrics : tuple of str
        Metrics with their cut-offs; empty: the whole row.
    issue : str
        What is wrong, for people.
    """

    paper: str
    table: str
    dataset: str
    model: str
    variant: str
    metrics: tuple[str, ...]
    issue: str

    def concerns(self, cell: PublishedCell) -> bool:
        """Whether the doubt is about this number."""
        if self.paper != cell.paper or cell.table not in self.table.split("/") or not self.model:
            return False
        if self.dataset not in ("all", "both") and cell.dataset not in re.split(r"[+;]", self.dataset):
            return False
        if self.model != cell.model or self.variant not in ("", "all", cell.variant):
            return False
        return not self.metrics or cell.name in self.metrics


@dataclass(frozen=True)
class Verdict:
    """How our number stands to a printed one.

    Attributes
    ----------
    word : str
        ``inside`` (the printed value lies in our 95 % interval), ``close`` (relative gap of at most 10 %), ``off``,
        or ``not comparable``.
    gap : float
        Relative difference of ours from the printed value; NaN when that is 0.
    reason : str
        Why it is not comparable; empty otherwise.
    """

    word: str
    gap: float
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" if self.reason else self.word


@lru_cache(maxsize=1)
def papers() -> dict[str, PublishedTables]:
    """What each paper says of its tables, by the paper's name."""
    found = [resolve("published", name) for name in names("published")]
    return {tables.paper: tables for tables in found}


@lru_cache(maxsize=1)
def load_published() -> tuple[PublishedCell, ...]:
    """All printed numbers, in file order.

    Raises
    ------
    BenchError
        When a file is malformed, with file and line.
    """
    cells = []
    for tables in papers().values():
        for place, row in _rows(tables.file or f"{tables.paper}.csv"):
            try:
                k = int(row["k"]) if row["k"] else None
                value = float(row["value"])
            except (ValueError, TypeError, KeyError) as error:
                raise BenchError(f"{place}: not a row of published numbers ({error})") from error
            columns = ("paper", "table", "dataset", "protocol", "model", "variant", "metric")
            unit = 10.0 ** -len(row["value"].partition(".")[2])
            cells.append(PublishedCell(**{name: row[name] for name in columns}, k=k, value=value, unit=unit))
    return tuple(cells)


@lru_cache(maxsize=1)
def load_flags() -> tuple[Flag, ...]:
    """All doubts about printed numbers, in file order."""
    columns = ("paper", "table", "dataset", "model", "variant")
    return tuple(
        Flag(
            **{name: row[name] for name in columns},
            metrics=tuple(filter(None, row["metrics"].split(";"))),
            issue=row["issue"],
        )
        for _, row in _rows("consistency_flags.csv")
    )


def published(
    paper: str, dataset: str, model: str, metric: str, k: int | None, *, table: str | None = None, variant: str = ""
) -> PublishedCell | None:
    """Look one printed number up.

    Parameters
    ----------
    paper, dataset, model, metric : str
        As in the files; dataset and model without regard to case and punctuation, ``ml1m`` is MovieLens-1M.
    k : int or None
        Cut-off.
    table : str, optional
        Such as ``"T2"``; by default the first table that has the number.
    variant : str
        By default the row without a variant, or the table's only one.

    Returns
    -------
    PublishedCell or None
        None when nothing is printed.
    """
    if paper not in papers():
        raise BenchError(f"no published numbers of '{paper}'; known: {', '.join(papers())}")
    return _printed(paper, _name_in(paper, dataset), model, metric, k, table, variant)


def _printed(
    paper: str, wanted: str, model: str, metric: str, k: int | None, table: str | None, variant: str
) -> PublishedCell | None:
    """As :func:`published`, of a data set named as the paper has it (:func:`_name_in`)."""
    found = [
        cell
        for cell in load_published()
        if cell.paper == paper
        and (table is None or cell.table == table)
        and _folded(cell.dataset) == wanted
        and _folded(cell.model) == _folded(model)
        and (cell.metric, cell.k) == (metric, k)
        and "improvement" not in cell.variant
    ]
    exact = [cell for cell in found if cell.variant == variant]
    if exact:
        return exact[0]
    return found[0] if not variant and len({cell.variant for cell in found}) == 1 else None


def published_for(record: Any) -> dict[str, PublishedCell]:
    """The printed numbers that a run record can be held against.

    Parameters
    ----------
    record : RunRecord
        Its protocol names the table, its recipe the row.

    Returns
    -------
    dict of str to PublishedCell
        By metric name, such as ``"Recall@5"``; empty when the papers have no such row.
    """
    protocol = record.protocol.get("name", "")
    tables = next((tables for tables in papers().values() if protocol in tables.tables), None)
    place = None if tables is None or _is_control(record.recipe) else tables.row(record.recipe)
    if tables is None or place is None:
        return {}
    name = record.dataset["name"]
    if Path(record.recipe.get("dataset") or "").is_absolute() and name not in tables.datasets:
        return {}  # somebody's own file may have a card's name
    model, variant = place[0].rpartition(":")[2], place[1]
    wanted = _name_in(tables.paper, name)  # once: it asks every plug-in for its cards
    found: dict[str, PublishedCell] = {}
    for names_of, places in ((record.metrics, tables.tables[protocol]), (record.dialogue, tables.dialogues)):
        for table, measured in product(places, names_of):
            metric, _, cut = measured.partition("@")
            cut_off = int(cut) if cut.isdigit() else None
            cell = _printed(tables.paper, wanted, model, metric, cut_off, table, variant)
            if cell is not None:
                found.setdefault(measured, cell)
    return found


def _is_control(recipe: Mapping[str, Any]) -> bool:
    """Whether the words were not the user's own."""
    talk = recipe.get("conversation", {})
    return talk.get("words", "own") != "own" or bool(talk.get("shuffle_utterances"))


def flags_of(cell: PublishedCell) -> list[Flag]:
    """Doubts about a printed number."""
    return [flag for flag in load_flags() if flag.concerns(cell)]


def published_users(cell: PublishedCell) -> int | None:
    """Number of users behind a printed number, stated or inferred; None when it is unknown."""
    if "500_users" in cell.protocol:
        return 500
    counts = (
        int(other.value)
        for other in load_published()
        if other.paper == cell.paper and other.dataset == cell.dataset and other.metric == "n_users"
    )
    return papers()[cell.paper].users(cell, next(counts, None))


def published_interval(cell: PublishedCell) -> tuple[float, float] | None:
    """Wilson 95 % interval of a printed rate; None for other metrics or unknown n."""
    n = published_users(cell)
    if n is None or cell.metric not in _RATES or not 0 <= cell.value <= 1:
        return None
    return wilson(cell.value * n, n)


def verdict(
    cell: PublishedCell, ours: Interval | Mapping[str, float], substitutes: Mapping[str, str] | None = None
) -> Verdict:
    """Say how our number stands to a printed one.

    Parameters
    ----------
    cell : PublishedCell
        The printed number.
    ours : Interval or mapping
        Our mean with ``low`` and ``high``.
    substitutes : mapping
        What stood in for the paper's language model or simulator: with any of it numbers do not compare.
    """
    facts = ours.as_dict() if isinstance(ours, Interval) else ours
    gap = (facts["mean"] - cell.value) / abs(cell.value) if cell.value else math.nan
    flags = flags_of(cell)
    if substitutes:
        stand_ins = ", ".join(f"{what} {who}" for what, who in substitutes.items())
        return Verdict("not comparable", gap, f"substitutes: {stand_ins}")
    if flags:
        return Verdict("not comparable", gap, f"the printed number is doubtful: {flags[0].issue}")
    if reason := papers()[cell.paper].not_comparable:
        return Verdict("not comparable", gap, reason)
    if facts["low"] <= cell.value <= facts["high"]:
        return Verdict("inside", gap)
    return Verdict("close" if abs(gap) <= CLOSE else "off", gap)


def _rows(name: str) -> Iterable[tuple[str, dict[str, str]]]:
    path = Path(name) if Path(name).is_absolute() else resource("results", "published", name)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield f"{path.name}:{reader.line_num}", row


def _folded(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def is_dataset(cell: PublishedCell, dataset: str) -> bool:
    """Whether a printed number is about a data set of ours."""
    return _folded(cell.dataset) == _name_in(cell.paper, dataset)


def _name_in(paper: str, dataset: str) -> str:
    """A data set's name as a paper has it, plain."""
    own = {_folded(ours): theirs for ours, theirs in papers()[paper].datasets.items()}
    if theirs := own.get(_folded(dataset)):
        return _folded(theirs)
    for card in all_cards().values():
        if dataset.casefold() in (known.casefold() for known in (card["name"], *card.get("aliases", ()))):
            return _folded(card.get("papers", {}).get(paper, dataset))
    return _folded(dataset)
