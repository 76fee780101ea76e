"""Writing a corpus: numbers by first appearance, and how little memory it takes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from raw_sources import FORMS, Review, write_lines

from recllm_bench.data.prepare.corpus import Stream, open_corpus, review_batch, write_corpus
from recllm_bench.errors import BenchError


def test_numbering_against_a_plain_loop(tmp_path):
    rng = np.random.default_rng(3)
    stream = Stream()
    batches = [
        review_batch(
            pa.array([f"u{n}" for n in rng.integers(0, 40, size)], pa.string()),
            pa.array([f"i{n}" for n in rng.integers(0, 90, size)], pa.string()),
            parent=pa.array([f"p{n}" for n in rng.integers(0, 30, size)], pa.string()),
        )
        for size in (1, 50, 3, 200, 40)
    ]
    stream.reviews = iter(batches)
    write_corpus(tmp_path, stream)
    rows = open_corpus(tmp_path)
    table = pa.Table.from_batches(batches).to_pydict()
    users, items = list(dict.fromkeys(table["user"])), list(dict.fromkeys(table["item"]))
    assert rows.user_tokens.to_pylist() == users
    assert rows.item_tokens.to_pylist()[: len(items)] == items
    assert [rows.user_tokens[code].as_py() for code in rows.users.tolist()] == table["user"]
    assert [rows.item_tokens[code].as_py() for code in rows.items.tolist()] == table["item"]
    products: dict[str, str] = {}
    for item, parent in zip(table["item"], table["parent"], strict=True):
        products.setdefault(item, parent)
    tokens = rows.item_tokens.to_pylist()
    assert len(set(tokens)) == len(tokens)
    assert {tokens[code]: tokens[parent] for code, parent in enumerate(rows.parents.tolist())} == {
        **{token: token for token in tokens},
        **products,
    }
    assert (rows.order, rows.has_times, rows.ratings, rows.text) == (None, False, None, {})
    assert not (tmp_path / "reviews.parquet").exists()


def test_an_empty_stream(tmp_path):
    with pytest.raises(BenchError, match="the files hold no review"):
        write_corpus(tmp_path, Stream())


def test_one_user_with_a_million_rows(tmp_path, monkeypatch):
    """In a process of its own, so that time and memory are its alone."""
    path = tmp_path / "mirror" / FORMS["yelp"].reviews_path
    path.parent.mkdir(parents=True)
    record = FORMS["yelp"].review(Review("me", "ITEM", "2014-05-14 00:00:00", 4, "Fine."))
    start, end = json.dumps(record).split("ITEM")
    with open(path, "w") as file:
        for begin in range(0, 1_000_000, 10_000):
            file.write("".join(f"{start}i{n % 1000}{end}\n" for n in range(begin, begin + 10_000)))
    write_lines(tmp_path / "mirror" / FORMS["yelp"].items_path, [b'{"business_id": "i7", "name": "Seven"}'])
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(path.parent.parent))
    found = measured("prepare('yelp')")
    assert (found["users"], found["items"], found["interactions"]) == (1, 1000, 1_000_000)
    assert found["seconds"] < 10
    assert found["peak"] < 700, "MiB"


MEASURE = """
import json, re, time
from pathlib import Path
import pyarrow, msgspec
from recllm_bench.data.prepare import pipeline, corpus, yelp, amazon, prepare
start = time.perf_counter()
prepared = {call}
facts = {{name: prepared.facts[name] for name in ("users", "items", "interactions")}}
# Not ru_maxrss: a child inherits its parent's.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps({{**facts, "seconds": time.perf_counter() - start, "peak": peak}}))
"""


def measured(call: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(call=call)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_memory_does_not_hold_the_texts(tmp_path, monkeypatch):
    form = FORMS["amazon-2018"]
    rng = np.random.default_rng(0)
    words = [rng.bytes(3).hex() for _ in range(20_000)]
    peaks = []
    for factor in (1, 10):
        folder = tmp_path / str(factor)
        path = folder / form.reviews_path
        path.parent.mkdir(parents=True)
        start, end = form.line(Review("USER", "i1", text="TEXT")).decode().split("TEXT")
        with gzip.open(path, "wt", compresslevel=1) as file:
            for n in range(30_000):
                text = " ".join(words[(n * 7 + k) % 20_000] for k in range(60 * factor))
                file.write(f"{start}{text}{end}\n".replace("USER", f"u{n % 5000}"))
        monkeypatch.setenv("RECLLM_DATA_MIRROR", str(folder))
        monkeypatch.setenv("RECLLM_CACHE", str(folder / "cache"))
        peaks.append(measured(f"prepare('{form.dataset}')"))
    assert [peak["interactions"] for peak in peaks] == [30_000, 30_000]
    # The longer file has 126 MB of text, the shorter 13 MB.
    assert peaks[1]["peak"] - peaks[0]["peak"] < 50, peaks
