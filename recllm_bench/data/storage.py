"""A prepared dataset on disk: arrays that are mapped, text as JSON."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.artifacts import write_atomic, write_json
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepared import PreparedDataset

_OPTIONAL = ("times", "ratings")


def save_prepared(
    folder: Path, histories: Histories, catalogue: Catalogue, user_tokens: list[str], facts: dict[str, Any]
) -> None:
    """Write everything but the card into a folder; ``facts`` gets the ``checksum`` of ids, order and text."""
    digest = hashlib.sha256()
    for name in ("items", "offsets", *_OPTIONAL):
        array = getattr(histories, name)
        if array is None:
            continue
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
        write_atomic(folder / f"{name}.npy", lambda file, array=array: np.save(file, array, allow_pickle=False))
    text = {
        "domain": catalogue.domain,
        "tokens": catalogue.tokens,
        "titles": catalogue.titles,
        "years": catalogue.years.tolist(),
        "categories": catalogue.categories,
        "descriptions": catalogue.descriptions,
    }
    for name, value in (("catalogue", text), ("users", user_tokens)):
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        digest.update(written)
        write_atomic(folder / f"{name}.json", lambda file, written=written: file.write(written))
    write_json(folder / "facts.json", {**facts, "n_items": histories.n_items, "checksum": digest.hexdigest()[:16]})


def load_prepared(folder: Path, name: str, filter: str, card: dict[str, Any]) -> PreparedDataset:
    """Map a prepared dataset from its folder; the arrays are private copies-on-write, the files never change."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    arrays = {
        part: np.load(path, mmap_mode="c", allow_pickle=False)
        for part in ("items", "offsets", *_OPTIONAL)
        if (path := folder / f"{part}.npy").exists()
    }
    text = json.loads((folder / "catalogue.json").read_bytes().decode("utf-8", "surrogatepass"))
    catalogue = Catalogue(
        tokens=text["tokens"],
        titles=text["titles"],
        years=np.array(text["years"], dtype=np.int32),
        categories=[tuple(names) for names in text["categories"]],
        descriptions=text["descriptions"],
        domain=text["domain"],
    )
    # Plain views on the mapped pages: a memmap subclass slows every small slice.
    arrays = {part: np.asarray(array) for part, array in arrays.items()}
    return PreparedDataset(
        name=name,
        filter=filter,
        folder=folder,
        histories=Histories(n_items=facts["n_items"], **arrays),
        catalogue=catalogue,
        user_tokens=json.loads((folder / "users.json").read_bytes().decode("utf-8", "surrogatepass")),
        facts=facts,
        checksum=facts["checksum"],
        has_times=facts["has_times"],
        variant=facts["variant"],
        card=card,
    )
