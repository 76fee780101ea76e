"""What a paper says of its own printed tables: one object of this class in the paper's folder, or in a plug-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def as_stated(cell: Any, stated: int | None) -> int | None:
    """The users that a paper states for a data set."""
    return stated


def apart(options: Mapping[str, Any], main: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe that make another method than a printed row's.

    Parameters
    ----------
    options : mapping
        What the recipe sets; what it leaves out has its main value.
    main : mapping
        The value that the printed row was made with, by option; a tuple holds several that serve. What is not listed,
        such as a size or a budget, makes no other method.
    """
    served = {name: value if isinstance(value, tuple) else (value,) for name, value in main.items()}
    return {name: options[name] for name in served if name in options and options[name] not in served[name]}


@dataclass(frozen=True)
class PublishedTables:
    """How run records find their printed rows.

    Attributes
    ----------
    paper : str
        Column ``paper`` of the file, and what tables call it.
    tables : mapping
        For each protocol the tables that hold its numbers, the first that has one wins.
    row : callable
        ``row(recipe) -> (model, variant)``: which printed row a run record stands beside, by its recipe; None without
        one. An empty variant is the row without one, or a table's only one.
    dialogues : tuple of str
        Tables of dialogues, also of those held beside a ranking whose own protocol has no turns.
    datasets : mapping
        The paper's name of a data set by ours, where its card does not say it (``papers``).
    users : callable
        ``users(cell, stated) -> int | None``: the users behind a printed number, given what the paper's statistics
        say of its data set.
    not_comparable : str
        Why none of the numbers compare, where that is so.
    repeats : tuple of (str, str)
        Tables that print the same runs.
    measures : mapping
        What our measures are called, by the name under which the paper prints them.
    file : str
        Path of the CSV file; empty: ``results/published/<paper>.csv``.
    """

    paper: str
    tables: Mapping[str, tuple[str, ...]]
    row: Callable[[Mapping[str, Any]], tuple[str, str] | None]
    dialogues: tuple[str, ...] = ()
    datasets: Mapping[str, str] = field(default_factory=dict)
    users: Callable[[Any, int | None], int | None] = as_stated
    not_comparable: str = ""
    repeats: tuple[tuple[str, str], ...] = ()
    measures: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
