"""A prepared dataset on disk: arrays and text that are mapped, not read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recllm_bench.artifacts import file_hash, write_atomic, write_json
from recllm_bench.data.catalogue import TEXT_FIELDS, Catalogue
from recllm_bench.data.columns import MappedStrings, TextFile, TextRows, map_columns, strings, write_columns
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepared import PreparedDataset
from recllm_bench.files import write_array

_OPTIONAL = ("times", "ratings")
_AT_ONCE = 4096


def save_prepared(
    folder: Path,
    histories: Histories,
    catalogue: Catalogue,
    user_tokens: Sequence[str],
    facts: dict[str, Any],
    rows: np.ndarray | None = None,
) -> None:
    """Write everything but the card into a folder; ``facts`` gets the ``checksum`` of ids, order and text."""
    digest = hashlib.sha256()
    for name in ("items", "offsets", *_OPTIONAL):
        array = getattr(histories, name)
        if array is None:
            continue
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
        write_atomic(folder / f"{name}.npy", partial(np.save, arr=array, allow_pickle=False))
    if rows is not None:
        write_array(folder / "rows.npy", rows)
    columns: dict[str, Any] = {
        "tokens": catalogue.tokens,
        "titles": catalogue.titles,
        "years": catalogue.years.tolist(),
        "categories": catalogue.categories,
    }
    # What a source does not have is left out, so that it changes no checksum.
    if catalogue.brands:
        columns["brands"] = catalogue.brands
    if catalogue.prices is not None:
        columns["prices"] = catalogue.prices.tolist()
    if isinstance(catalogue.descriptions, TextRows):  # many: they go from file to file
        places = catalogue.descriptions.copy_to(folder / "descriptions.parquet")
        write_array(folder / "descriptions.npy", places)
        digest.update(file_hash(folder / "descriptions.parquet").encode())
        digest.update(places.data)
    else:
        columns["descriptions"] = catalogue.descriptions
    for piece in _as_json({"domain": catalogue.domain, **columns}):
        digest.update(piece)
    for piece in _as_json(user_tokens):
        digest.update(piece)
    texts = {name: strings(columns[name]) for name in ("tokens", "titles", "descriptions", "brands") if name in columns}
    tables: dict[str, dict[str, pa.Array]] = {
        "catalogue": texts
        | {
            "years": pa.array(catalogue.years, pa.int32()),
            "categories": _lists(catalogue.categories),
        }
        | ({} if catalogue.prices is None else {"prices": pa.array(catalogue.prices, pa.float32())}),
        "users": {"tokens": strings(user_tokens)},
    }
    for name, parts in tables.items():
        write_atomic(folder / f"{name}.arrow", partial(write_columns, table=pa.table(parts)))
    facts = {**facts, "domain": catalogue.domain, "text_fields": catalogue.text_fields}
    write_json(folder / "facts.json", {**facts, "n_items": histories.n_items, "checksum": digest.hexdigest()[:16]})


def load_prepared(folder: Path, name: str, filter: str, card: dict[str, Any]) -> PreparedDataset:
    """Map a prepared dataset from its folder; the arrays are private copies-on-write, the files never change."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    arrays = {
        part: np.load(path, mmap_mode="c", allow_pickle=False)
        for part in ("items", "offsets", *_OPTIONAL)
        if (path := folder / f"{part}.npy").exists()
    }
    text = map_columns(folder / "catalogue.arrow")
    catalogue = Catalogue(
        tokens=text["tokens"].to_pylist(),
        titles=text["titles"].to_pylist(),
        years=text["years"].to_numpy(),
        categories=[tuple(names) for names in text["categories"].to_pylist()],
        descriptions=_descriptions(folder, text),
        domain=facts["domain"],
        text_fields=tuple(facts.get("text_fields", TEXT_FIELDS)),
        brands=text["brands"].to_pylist() if "brands" in text.column_names else (),
        prices=text["prices"].to_numpy() if "prices" in text.column_names else None,
    )
    # Plain views on the mapped pages: a memmap subclass slows every small slice.
    arrays = {part: np.asarray(array) for part, array in arrays.items()}
    return PreparedDataset(
        name=name,
        filter=filter,
        folder=folder,
        histories=Histories(n_items=facts["n_items"], **arrays),
        catalogue=catalogue,
        user_tokens=MappedStrings(map_columns(folder / "users.arrow")["tokens"]),
        facts=facts,
        checksum=facts["checksum"],
        has_times=facts["has_times"],
        variant=facts["variant"],
        card=card,
    )


def _descriptions(folder: Path, text: pa.Table) -> Sequence[str]:
    if "descriptions" in text.column_names:
        return MappedStrings(text["descriptions"])
    rows = np.load(folder / "descriptions.npy", allow_pickle=False)
    return TextRows(TextFile(folder / "descriptions.parquet"), rows, "description")


def _as_json(value: Any) -> Iterator[bytes]:
    """The compact JSON of a value, long lists in pieces, so that hashing text needs no copy of it all."""
    if isinstance(value, dict):
        for number, (name, part) in enumerate(value.items()):
            yield (("," if number else "{") + json.dumps(name) + ":").encode()
            yield from _as_json(part)
        yield b"}"
    elif isinstance(value, str) or len(value) <= _AT_ONCE:
        yield _json(value)
    else:
        for start in range(0, len(value), _AT_ONCE):
            yield (b"," if start else b"[") + _json(value[start : start + _AT_ONCE])[1:-1]
        yield b"]"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _lists(rows: Sequence[Sequence[str]]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
    return pa.LargeListArray.from_arrays(offsets, strings([name for row in rows for name in row]))
