"""Make raw review files of any size that look like the published ones; the people and products are invented.

    python benchmarks/raw_reviews.py --lines 20000000 --form amazon-2018 --words 250 --output FOLDER

The files lie in FOLDER under the paths of the dataset cards, so that FOLDER can be a ``RECLLM_DATA_MIRROR``. Beside
them ``raw_reviews.json`` says what is in them. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from raw_files import RawFile
from raw_forms import FORMS, Form
from raw_rows import CHUNK, Reviews, Rows
from raw_writer import UNLISTED_SHARE, Writer

from recllm_bench.errors import BenchError, nearest
from recllm_bench.progress import show_log, track

SUMMARY = "raw_reviews.json"
CATEGORY = "Toys_and_Games"
VERSION = 1
"""Raise it when the same arguments would give other bytes; files kept from before are then made again."""


def generate(
    folder: Path,
    form: str,
    lines: int,
    words: float | None = None,
    category: str = CATEGORY,
    seed: int = 1,
    level: int = 1,
    item_file: bool = True,
    threads: int = 2,
) -> dict[str, Any]:
    """Write the raw files of one form.

    Parameters
    ----------
    folder : Path
        Where; made when missing.
    form : str
        One of ``FORMS``.
    lines : int
        Reviews.
    words : float, optional
        Mean words of a review; by default what makes lines as long as the published ones.
    category : str
        Amazon's category.
    seed : int
        Another seed, other files.
    level : int
        Of zlib.
    item_file : bool
        Write the item file, too.
    threads : int
        Threads that compress; they do not change the bytes.

    Returns
    -------
    dict
        What ``raw_reviews.json`` says: the arguments, ``dataset`` (the card's name), ``files`` (by path: lines, bytes,
        raw bytes), and the exact ``reviews``, ``users``, ``items`` (with their variants where the form has any),
        ``products`` (without), ``ratings`` (reviews by stars), ``first_time``, ``last_time`` (Unix seconds),
        ``listed`` (reviewed products in the item file), ``scraps`` and ``untitled`` (of those).

    Raises
    ------
    BenchError
        For an unknown form or impossible sizes.
    """
    kind = _form(form)
    words = kind.words if words is None else words
    if lines < 1 or not 0 < words <= 1000 or not 1 <= level <= 9:
        raise BenchError("raw reviews: --lines must be above 0, --words from 1 to 1000, --level from 1 to 9")
    start = time.perf_counter()
    source = Reviews(kind.writer.population, lines, seed)
    writer = kind.writer(len(source.item_counts), words, lines, seed)
    files: dict[str, dict[str, int]] = {}
    counts = _Counts(source, writer)
    reviews = folder / kind.reviews.format(category)
    with RawFile(reviews, level, threads) as file, track(None, f"writing {reviews.name}", lines, "line") as bar:
        for rows in source:
            file.add(writer.reviews(rows), len(rows.positions))
            counts.add(rows)
            bar.update(len(rows.positions))
    files[kind.reviews.format(category)] = file.facts()
    if kind.items and item_file:
        path = kind.items.format(category)
        with RawFile(folder / path, level, threads) as file:
            _write_items(file, source, writer, counts)
        files[path] = file.facts()
    summary = {
        **arguments(form, lines, words, category, seed, level, item_file),
        "dataset": kind.dataset.format(category.lower().replace("_", "-")),
        "files": files,
        **counts.facts(),
    }
    text = json.dumps(summary, indent=1) + "\n"
    (folder / SUMMARY).write_text(text, encoding="utf-8")
    return {**summary, "seconds": round(time.perf_counter() - start, 2)}


def arguments(
    form: str, lines: int, words: float | None, category: str, seed: int, level: int, item_file: bool = True
) -> dict[str, Any]:
    """What decides the bytes of the files, as it stands in the summary."""
    words = _form(form).words if words is None else words
    return {
        "version": VERSION,
        "form": form,
        "lines": lines,
        "words": words,
        "category": category,
        "seed": seed,
        "level": level,
        "item_file": item_file,
    }


def write_inter(path: Path, form: str, lines: int, seed: int = 1) -> int:
    """Write the same reviews as a RecBole atomic file: user, item, rating and time, no text.

    Users and items have the ids of the raw files; where products have variants, an item is a variant.

    Returns
    -------
    int
        Bytes of the file.
    """
    kind = _form(form)
    source = Reviews(kind.writer.population, lines, seed)
    writer = kind.writer(len(source.item_counts), 1, 1, seed)
    with RawFile(path) as file:
        file.add(b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n", 1)
        for rows in source:
            users, items = writer.user_tokens(rows.users), writer.review_items(rows)
            columns = zip(users, items, rows.ratings.tolist(), rows.times.tolist(), strict=True)
            file.add(b"".join([b"%s\t%s\t%d\t%d\n" % row for row in columns]), len(users))
    return file.raw_bytes


class _Counts:
    """What is in the files, from the rows as they are written."""

    def __init__(self, source: Reviews, writer: Writer) -> None:
        self._source, self._writer = source, writer
        self._seen = np.zeros(len(source.item_counts) * writer.variants, dtype=bool)
        self._ratings = np.zeros(6, dtype=np.int64)
        self._first, self._last = 1 << 62, 0
        self.listed = self.scraps = self.untitled = 0

    def add(self, rows: Rows) -> None:
        self._seen[rows.items * self._writer.variants + self._writer.variant(rows)] = True
        self._ratings += np.bincount(rows.ratings, minlength=6)
        self._first = min(self._first, int(rows.times.min()))
        self._last = max(self._last, int(rows.times.max()))

    def facts(self) -> dict[str, Any]:
        return {
            "reviews": self._source.lines,
            "users": len(self._source.user_counts),
            "items": int(self._seen.sum()),
            "products": len(self._source.item_counts),
            "ratings": self._ratings[1:].tolist(),
            "first_time": self._first,
            "last_time": self._last,
            "listed": self.listed,
            "scraps": self.scraps,
            "untitled": self.untitled,
        }


def _write_items(file: RawFile, source: Reviews, writer: Writer, counts: _Counts) -> None:
    reviewed, total = writer.n_items, writer.total_items
    for start in track(range(0, total, CHUNK), f"writing {file.path.name}", unit="chunk"):
        codes = np.arange(start, min(start + CHUNK, total))
        codes = codes[(codes >= reviewed) | ~writer.share(codes, 49, UNLISTED_SHARE)]
        known = codes < reviewed
        times = np.zeros(len(codes), dtype=np.int64)
        times[known] = source.item_counts[codes[known]]
        if len(codes):
            file.add(writer.items(codes, times), len(codes))
        counts.listed += int(known.sum())
        counts.scraps += int((writer.scraps(codes) & known).sum())
        counts.untitled += int((writer.untitled(codes) & known).sum())


def _form(name: str) -> Form:
    if name not in FORMS:
        raise BenchError(f"raw reviews: unknown form '{name}'.{nearest(name, FORMS)}")
    return FORMS[name]


def main(words: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=1_000_000, help="reviews (default: 1,000,000)")
    parser.add_argument("--form", default="amazon-2018", help=f"one of {', '.join(FORMS)} (default: amazon-2018)")
    parser.add_argument("--output", type=Path, required=True, help="folder, laid out as a data mirror")
    parser.add_argument("--words", type=float, help="mean words of a review (default: as published; 250: long ones)")
    parser.add_argument("--category", default=CATEGORY, help=f"Amazon's category (default: {CATEGORY})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--level", type=int, default=1, help="of zlib, 1 to 9 (default: 1)")
    parser.add_argument("--inter", action="store_true", help="also write the reviews as atomic/raw/raw.inter")
    given = parser.parse_args(words)
    show_log()
    try:
        facts = generate(given.output, given.form, given.lines, given.words, given.category, given.seed, given.level)
        if given.inter:
            write_inter(given.output / "atomic" / "raw" / "raw.inter", given.form, given.lines, given.seed)
    except (BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
