"""The way from a source's files to a prepared dataset in the store."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.artifacts import ArtifactStore, content_hash
from recllm_bench.data.cards import user_filters
from recllm_bench.data.catalogue import TEXT_FIELDS
from recllm_bench.data.facts import count, refuse_unexpected
from recllm_bench.data.interactions import Interactions, NothingLeft, apply_filter, build_histories, read_filter
from recllm_bench.data.prepare.bad_lines import Skipped, allowed_share, refuse_too_many
from recllm_bench.data.prepare.id_lists import keep_listed_ids
from recllm_bench.data.prepare.sources import Source, find_id_lists, find_source
from recllm_bench.data.prepared import PreparedDataset
from recllm_bench.data.storage import load_prepared, save_prepared
from recllm_bench.errors import BenchError, nearest
from recllm_bench.progress import log
from recllm_bench.provenance import code_hash, package_code_hash

# Part of every artifact's key: raise it when the same files would now give other ids, order or text.
_VERSION = 6

# Each reader is imported when needed, so that one kind of data does not wait for the libraries of another.
_IN_MEMORY = {
    "movielens-dat": "recllm_bench.data.prepare.movielens:read_dat",
    "movielens-u": "recllm_bench.data.prepare.movielens:read_u",
    "movielens-csv": "recllm_bench.data.prepare.movielens:read_csv",
    "sequences": "recllm_bench.data.prepare.sequence_files:read_sequences",
    "pairs": "recllm_bench.data.prepare.sequence_files:read_pairs",
    "sequence-json": "recllm_bench.data.prepare.sequence_files:read_json_sequences",
    "atomic": "recllm_bench.data.prepare.tables:read_atomic",
    "table": "recllm_bench.data.prepare.tables:read_table",
}
# These read in a stream and share what they read between filters.
_STREAMED = {
    "amazon": "recllm_bench.data.prepare.amazon:open_amazon",
    "yelp": "recllm_bench.data.prepare.yelp:open_yelp",
    "steam": "recllm_bench.data.prepare.steam:open_steam",
    "steam-australian": "recllm_bench.data.prepare.steam:open_australian",
    "saved-reviews": "recllm_bench.data.prepare.saved_reviews:open_saved_reviews",
}


def prepare_dataset(
    name_or_path: str, filter: str, store: ArtifactStore, most_bad: float | None = None
) -> PreparedDataset:
    """Find, read, filter, number and store; see :func:`recllm_bench.data.prepare.prepare`."""
    share = allowed_share(most_bad)
    source = find_source(name_or_path, store)
    card, variant = source.card, source.variant
    spec, notes = _filter_spec(card, filter)
    lists = find_id_lists(card, spec["ids"], store) if "ids" in spec else None
    key = {
        "name": card["name"],
        "filter": filter,
        "settings": spec,
        "sources": source.checksums,
        "reader": source.reader,
        "options": source.options,
        "times": variant.get("times", True),
        "variant": variant["name"],
        "domain": card["domain"],
        "text_fields": card.get("text_fields", TEXT_FIELDS),
        "id_lists": lists.checksums if lists else {},
        "version": _VERSION,
        "code": _code(source.reader),
    }

    def make(work: Path) -> None:
        log.info(f"preparing {card['name']} (filter {filter}, {variant['name']})")
        rows = _read(source, store, share)
        settings, remarks = dict(spec), [*notes, *rows.notes]
        for note in rows.notes:
            log.warning(f"{card['name']}: {note}")
        if rows.ratings is None and card.get("own") and filter in user_filters() and settings.pop("min_rating", None):
            remarks.append("the data has no ratings: the filter's min_rating was left out")
        consumed = int(np.count_nonzero(np.bincount(rows.items)))
        before = {"users": len(rows.user_tokens), "items": consumed, "interactions": len(rows)}
        catalogue_items = rows.noticed.get("items in the metadata") or len(rows.text) or len(rows.item_tokens)
        facts: dict[str, Any] = {}
        if lists:
            rows, facts["id_lists"] = keep_listed_ids(rows, lists)
        options = read_filter(settings, f"filter '{filter}' of {card['name']}")
        try:
            kept, rounds = apply_filter(rows, options)
        except NothingLeft as error:
            said = ", ".join(f"{name}={value}" for name, value in settings.items())
            raise NothingLeft(
                f"{card['name']}, {before['interactions']:,} interactions: the filter '{filter}'"
                f"{f' ({said})' if said and said != filter else ''} {error}"
            ) from error
        histories, catalogue, user_tokens, places = build_histories(
            kept, card["domain"], card.get("text_fields", TEXT_FIELDS)
        )
        facts |= count(histories, catalogue.titles, catalogue_items)
        facts.update(
            has_times=kept.has_times,
            has_ratings=kept.ratings is not None,
            variant=variant["name"],
            settings=settings,
            rounds=rounds,
            before=before,
            noticed=dict(rows.noticed),
            sources={
                role: {"file": path.name, "sha256": source.checksums[role]} for role, path in source.files.items()
            },
            notes=remarks,
            skipped=list(rows.skipped),
        )
        if rows.rows is not None:
            facts["reviews"] = {"corpus": content_hash(_corpus_key(source)), "rows": len(rows)}
        refuse_unexpected(facts, card, filter)
        save_prepared(work, histories, catalogue, user_tokens, facts, places)

    folder = store.build("dataset", key, make)
    prepared = load_prepared(folder, card["name"], filter, card)
    # It may have been prepared by a call that let more lines through.
    refuse_too_many([Skipped(*file) for file in prepared.facts["skipped"]], share)
    return replace(prepared, asked=name_or_path, read_reviews=review_file)


def review_file(asked: str, corpus: str, rows: int, store: ArtifactStore) -> Path | None:
    """The file of what users wrote, read from the source when that has not been done; None when it is nothing.

    Parameters
    ----------
    asked : str
        Name or path under which the dataset was prepared.
    corpus : str
        Hash of the corpus' key.
    rows : int
        Reviews in the corpus.

    Raises
    ------
    BenchError
        When the raw files are gone, or are others than those that were prepared.
    """
    folder = store.find_named("reviews", corpus)
    if folder is None:
        from recllm_bench.data.prepare.corpus import write_reviews

        source = find_source(asked, store)
        key = _corpus_key(source)
        if content_hash(key) != corpus:
            raise BenchError(f"the files of {asked} have changed since they were prepared; prepare it again")
        read = _reader(source)
        log.info(f"reading the reviews of {source.card['name']}")
        # Any share of bad lines: the corpus was accepted with them.
        folder = store.build(
            "reviews", key, lambda work: write_reviews(work, read(source.files, most_bad=1.0, with_text=True), rows)
        )
    path = folder / "reviews.parquet"
    return path if path.exists() else None


def _read(source: Source, store: ArtifactStore, share: float) -> Interactions:
    read = _reader(source)
    if source.reader not in _STREAMED:
        return read(source.files)
    # Here, so that small data does not wait for the libraries of large data.
    from recllm_bench.data.prepare.corpus import open_corpus, write_corpus

    rows = open_corpus(
        store.build("corpus", _corpus_key(source), lambda work: write_corpus(work, read(source.files, most_bad=share)))
    )
    refuse_too_many([Skipped(*file) for file in rows.skipped], share)
    return rows


def _corpus_key(source: Source) -> dict[str, Any]:
    return {
        "sources": source.checksums,
        "reader": source.reader,
        "options": source.options,
        "times": source.variant.get("times", True),
        "version": _VERSION,
        "code": _code(source.reader),
    }


def _code(reader: str) -> list[str]:
    """Hashes of the code that prepares: this floor's, and that of a reader from outside."""
    own = package_code_hash(["data"])
    module = reader.partition(":")[0] if ":" in reader else ""
    if not module:
        return [own]
    try:
        return [own, code_hash(importlib.import_module(module))]
    except ImportError:
        return [own]  # named when it is needed


def _reader(source: Source) -> Callable[..., Any]:
    """The card's reader with its options set."""
    reader, name = source.reader, source.card["name"]
    target = _IN_MEMORY.get(reader) or _STREAMED.get(reader) or (reader if ":" in reader else None)
    if target is None:
        known = nearest(reader, [*_IN_MEMORY, *_STREAMED])
        raise BenchError(f"the card of {name} names an unknown reader '{reader}'.{known}")
    module, _, function = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BenchError(f"the reader '{reader}' of dataset {name} cannot be imported: {error}") from error
    taken = inspect.signature(found).parameters
    unknown = [option for option in source.options if option not in taken]
    if unknown:
        raise BenchError(
            f"the card of {name} gives its reader '{reader}' an unknown option '{unknown[0]}'."
            f"{nearest(unknown[0], list(taken)[1:])}"
        )
    without_times = {"times": False} if "times" in taken and source.variant.get("times") is False else {}
    return functools.partial(found, **source.options, **without_times)


def _filter_spec(card: dict[str, Any], filter: str) -> tuple[dict[str, Any], list[str]]:
    if "=" in filter:
        spec: dict[str, Any] = {}
        for setting in filter.split(","):
            key, equals, value = setting.partition("=")
            if not equals or not value.strip():
                raise BenchError(f"filter '{filter}': write settings as key=value,key=value, such as min_rating=4")
            spec[key.strip()] = value.strip()
        read_filter(spec, f"filter '{filter}'")
        return spec, []
    if filter not in card["filters"]:
        raise BenchError(f"{card['name']} has no filter '{filter}'.{nearest(filter, card['filters'])}")
    spec = dict(card["filters"][filter] or {})
    note = spec.pop("note", None)
    return spec, [note] if note else []
