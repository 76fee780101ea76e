"""An item table beside interactions: how many of the items it names, and why it names so few."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from recllm_bench.data.interactions import Interactions, ItemText
from recllm_bench.errors import BenchError

_FEW = 0.5


def match_items(
    rows: Interactions, path: Path, text: Mapping[str, ItemText], notes: tuple[str, ...] = ()
) -> Interactions:
    """Give interactions the text of their items, and say when hardly any of it is theirs.

    Parameters
    ----------
    rows : Interactions
        Without text.
    path : Path
        The item table, for messages.
    text : mapping of str to ItemText
        Text by item id.
    notes : tuple of str
        What was noticed in the table.

    Raises
    ------
    BenchError
        When the table names none of the items, with an id of each that are alike.
    """
    tokens = [str(token) for token in rows.item_tokens]
    without = [token for token in tokens if token not in text]
    alike = _alike(without, text.keys() - set(tokens)) if without else []
    hint = f"'{alike[0][0]}' in the interactions is '{alike[0][1]}' in the item table" if alike else ""
    if len(without) == len(tokens):
        hint = hint or f"ids are like '{tokens[0]}' in the interactions, like '{next(iter(text))}' in the item table"
        raise BenchError(
            f"{path}: names none of the {len(tokens):,} items of the interactions: {hint}; write the same ids in both, "
            "or leave the item table out ('items: null' in a card)"
        )
    said = list(notes)
    if len(without) > _FEW * len(tokens) or alike:
        found = len(tokens) - len(without)
        said.append(
            f"{path.name} names {found:,} of the {len(tokens):,} items of the interactions"
            + (f"; {len(alike):,} more but for the form of their ids: {hint}" if hint else "")
        )
    return replace(rows, text=text, notes=(*rows.notes, *said))


def _alike(tokens: list[str], others: set[str]) -> list[tuple[str, str]]:
    """Pairs of ids that differ only in case, leading zeros, a decimal point, quotes or the form of their accents."""
    bare = {_bare(other): other for other in sorted(others, reverse=True)}
    return [(token, bare[_bare(token)]) for token in tokens if _bare(token) in bare]


def _bare(token: str) -> str:
    bare = unicodedata.normalize("NFKC", token).casefold().strip("\"' ")
    whole, point, fraction = bare.partition(".")
    if point and whole.isdecimal() and not fraction.strip("0"):
        bare = whole
    return bare.lstrip("0") or "0"
