"""The way from a source's files to a prepared dataset in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.data.cards import USER_FILTERS
from recllm_bench.data.facts import count, refuse_unexpected
from recllm_bench.data.interactions import Interactions, apply_filter, build_histories, read_filter
from recllm_bench.data.prepare.sources import Source, find_source
from recllm_bench.data.prepared import PreparedDataset
from recllm_bench.data.storage import load_prepared, save_prepared
from recllm_bench.errors import BenchError, nearest
from recllm_bench.progress import log

# Part of every artifact's key: raise it when the same files would now give other ids, order or text.
_VERSION = 1


def prepare_dataset(name_or_path: str, filter: str, store: ArtifactStore) -> PreparedDataset:
    """Find, read, filter, number and store; see :func:`recllm_bench.data.prepare.prepare`."""
    source = find_source(name_or_path, store)
    card, variant = source.card, source.variant
    spec, notes = _filter_spec(card, filter)
    key = {
        "name": card["name"],
        "filter": filter,
        "settings": spec,
        "sources": source.checksums,
        "reader": source.reader,
        "variant": variant["name"],
        "times": variant.get("times", True),
        "domain": card["domain"],
        "drop_root": bool(card.get("drop_category_root")),
        "version": _VERSION,
    }

    def make(work: Path) -> None:
        log.info(f"preparing {card['name']} (filter {filter}, {variant['name']})")
        rows = _read(source)
        settings, remarks = dict(spec), list(notes)
        if rows.ratings is None and card.get("own") and filter in USER_FILTERS and settings.pop("min_rating", None):
            remarks.append("the data has no ratings: the filter's min_rating was left out")
        catalogue_items = len(rows.text) or len(rows.item_tokens)
        options = read_filter(settings, f"filter '{filter}' of {card['name']}")
        kept, rounds = apply_filter(rows, options)
        histories, catalogue, user_tokens = build_histories(kept, card["domain"])
        facts: dict[str, Any] = count(histories, catalogue.titles, catalogue_items)
        facts.update(
            has_times=kept.has_times,
            has_ratings=kept.ratings is not None,
            variant=variant["name"],
            settings=settings,
            rounds=rounds,
            sources={
                role: {"file": path.name, "sha256": source.checksums[role]} for role, path in source.files.items()
            },
            notes=remarks,
        )
        save_prepared(work, histories, catalogue, user_tokens, facts)
        # Before the folder gets its final name: wrong data must never be found ready.
        refuse_unexpected(load_prepared(work, card["name"], filter, card))

    folder = store.build("dataset", key, make)
    return load_prepared(folder, card["name"], filter, card)


def _read(source: Source) -> Interactions:
    # Each reader is imported when needed, so that one kind of data does not wait for the libraries of another.
    files, times = source.files, source.variant.get("times", True)
    reader = source.reader
    if reader == "movielens-dat":
        from recllm_bench.data.prepare.movielens import read_dat

        return read_dat(files, times)
    if reader == "movielens-u":
        from recllm_bench.data.prepare.movielens import read_u

        return read_u(files, times)
    if reader == "sequences":
        from recllm_bench.data.prepare.sequence_files import read_sequences

        return read_sequences(files, bool(source.card.get("drop_category_root")))
    if reader == "pairs":
        from recllm_bench.data.prepare.sequence_files import read_pairs

        return read_pairs(files)
    if reader == "atomic":
        from recllm_bench.data.prepare.tables import read_atomic

        return read_atomic(files)
    if reader == "table":
        from recllm_bench.data.prepare.tables import read_table

        return read_table(files["table"])
    if ":" in reader:
        return _plugin_reader(reader, source.card["name"])(files)
    raise BenchError(f"the card of {source.card['name']} names an unknown reader '{reader}'")


def _plugin_reader(reader: str, name: str):
    import importlib

    module, _, function = reader.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise BenchError(f"the reader '{reader}' of dataset {name} cannot be imported: {error}") from error


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
