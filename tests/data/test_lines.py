"""Lines as a stream: every way to cut and pack a file gives the same lines, and every kind of damage is named."""

from __future__ import annotations

import gc
import gzip
import threading
import time
import tracemalloc
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.data.prepare import lines as lines_module
from recllm_bench.data.prepare.lines import Chunk, stream_lines
from recllm_bench.errors import BenchError

BOM = b"\xef\xbb\xbf"
TEXT = b'{"a": 1}\n\n{"b": "two"}\r\n{"c": "three \xe2\x82\xac"}\n\n\n{"d": 4}\n'
MANY = b"".join(b'{"n": %d, "text": "%s"}\n' % (n, b"x" * (n * 7 % 50)) for n in range(60_000))


def packed(data: bytes, *cuts: int, padding: bytes = b"") -> bytes:
    """Gzip members of the pieces between the cuts."""
    ends = [0, *cuts, len(data)]
    return padding.join(gzip.compress(data[a:b], 1, mtime=0) for a, b in pairwise(ends))


def chunks(folder: Path, data: bytes, size: int = 1 << 20) -> list[Chunk]:
    path = folder / "reviews.json"
    path.write_bytes(data)
    return list(stream_lines(path, size))


def assert_whole(found: list[Chunk], content: bytes) -> None:
    joined = b"".join(chunk.data for chunk in found)
    assert joined == content[: len(joined)]
    assert not content[len(joined) :].strip(), "only empty lines at the end may be missing"
    start = 0
    for chunk in found:
        assert chunk.first_line == content.count(b"\n", 0, start) + 1
        assert chunk.lines == len(chunk.data.removesuffix(b"\n").split(b"\n"))
        start += len(chunk.data)
        assert chunk.data.endswith(b"\n") or start == len(content)
        assert chunk.data


@pytest.mark.parametrize("ending", [b"", b"no end", b"\n\n\n", b"\r\n"])
@pytest.mark.parametrize("start", [b"", BOM])
def test_every_chunk_size(tmp_path, ending, start):
    content = TEXT + ending
    for size in range(1, len(content) + 2):
        found = chunks(tmp_path, start + content, size)
        assert_whole(found, content)
        assert found == chunks(tmp_path, packed(start + content), size), "how a file is packed does not matter"
        assert all(len(chunk.data) <= size or chunk.data.count(b"\n") <= 1 for chunk in found)


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0" * 1000])
@pytest.mark.parametrize("start", [b"", BOM])
def test_gzip_members_cut_anywhere(tmp_path, padding, start):
    content = start + TEXT
    expected = chunks(tmp_path, content)
    for cut in range(len(content) + 1):
        assert chunks(tmp_path, packed(content, cut, padding=padding) + padding) == expected
    assert chunks(tmp_path, packed(content, *range(1, len(content)), padding=padding)) == expected


@pytest.mark.parametrize("read_bytes", [1, 2, 3, 7, 18, 19])
def test_small_reads(tmp_path, monkeypatch, read_bytes):
    expected = chunks(tmp_path, TEXT, 10)
    monkeypatch.setattr(lines_module, "_READ_BYTES", max(2, read_bytes))
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", max(1, read_bytes))
    assert chunks(tmp_path, TEXT, 10) == expected
    assert chunks(tmp_path, BOM + TEXT, 10) == expected
    assert chunks(tmp_path, packed(TEXT, 5, 30, padding=b"\0" * 40), 10) == expected


def test_padding_longer_than_a_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "_READ_BYTES", 64)
    content = TEXT * 20
    assert_whole(chunks(tmp_path, packed(content, 100, padding=b"\0" * 300)), content)


def test_a_large_file(tmp_path):
    for content in (MANY, MANY + BOM + MANY):  # a mark in the middle is content
        found = chunks(tmp_path, content)
        assert len(found) > 1
        assert_whole(found, content)
        assert found == chunks(tmp_path, packed(content, 12_345, 1_000_000)), "equal content gives equal chunks"


@pytest.mark.parametrize("content", [b"", BOM, b"\n", b"\n" * 10, b" \r\n\t\n", BOM + b"\n\n"])
@pytest.mark.parametrize("pack", [bytes, packed])
def test_nothing_in_it(tmp_path, content, pack):
    with pytest.raises(BenchError, match=r"reviews\.json: the file is empty"):
        chunks(tmp_path, pack(content))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
@pytest.mark.parametrize("pack", [bytes, packed])
def test_utf16(tmp_path, encoding, pack):
    content = ("" if encoding == "utf-16" else "\ufeff") + TEXT.decode()
    with pytest.raises(BenchError, match=r"reviews\.json:1: UTF-16 text; save the file as UTF-8"):
        chunks(tmp_path, pack(content.encode(encoding)))


def test_truncated_gzip_names_the_line(tmp_path):
    whole = packed(MANY)
    path = tmp_path / "reviews.json.gz"
    ends = [2, 9, 10, 11, len(whole) - 9, len(whole) - 8, len(whole) - 1]
    for end in [*ends, *np.random.default_rng(0).integers(100, len(whole), 12).tolist()]:
        path.write_bytes(whole[:end])
        with pytest.raises(BenchError, match=r"reviews\.json\.gz:\d+: truncated or damaged gzip file") as caught:
            list(stream_lines(path))
        line = int(str(caught.value).split("reviews.json.gz:")[1].split(":")[0])
        # What another implementation can still read of it.
        assert line == zlib.decompressobj(31).decompress(whole[:end]).count(b"\n") + 1


def test_truncation_after_some_chunks_were_read(tmp_path):
    path = tmp_path / "reviews.json.gz"
    path.write_bytes(packed(MANY, len(MANY) // 2)[:-100])
    stream = stream_lines(path, 1 << 16)
    assert next(stream).first_line == 1
    with pytest.raises(BenchError, match=r"reviews\.json\.gz:\d{4,}: truncated or damaged"):
        list(stream)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8, 0.9999])
def test_damaged_gzip(tmp_path, place):
    data = bytearray(packed(np.random.default_rng(1).bytes(300_000).hex("\n", 40).encode()))
    data[int((len(data) - 5) * place)] ^= 255
    with pytest.raises(BenchError, match=r"reviews\.json:\d+: truncated or damaged gzip file"):
        chunks(tmp_path, bytes(data))


@pytest.mark.parametrize("tail", [b"trailing", b"\0\0trailing", b"\x1f\x8b"])
def test_something_else_behind_a_member(tmp_path, tail):
    with pytest.raises(BenchError, match="truncated or damaged gzip file"):
        chunks(tmp_path, packed(TEXT) + tail)


@pytest.mark.parametrize("unit", [b"\0", b"\n", b'{"a":1}\n'])
def test_a_bomb(tmp_path, unit):
    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(200):
            file.write(unit * ((1 << 20) // len(unit)))
    tracemalloc.start()
    try:
        with pytest.raises(BenchError, match=r"bomb\.json\.gz: grows over 200 times when unpacked; refused as unsafe"):
            for _ in stream_lines(path):
                pass
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_a_line_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(lines_module, "_LONGEST_LINE", 1000)
    for size in (100, 500):
        assert len(chunks(tmp_path, b"ok\n" + b"x" * 999 + b"\nok\n", size)) >= 2
        for content in (b"ok\n" + b"x" * 1001 + b"\nok\n", b"ok\n" + b"x" * 5000):
            with pytest.raises(BenchError, match=r"reviews\.json:2: a line of over 0 MiB; expected one record a line"):
                chunks(tmp_path, content, size)


def test_unreadable(tmp_path):
    with pytest.raises(BenchError, match=r"cannot read .*none\.json: No such file"):
        list(stream_lines(tmp_path / "none.json"))
    with pytest.raises(BenchError, match=r"cannot read .*: Is a directory"):
        list(stream_lines(tmp_path))


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_read_ahead" in thread.name]


@pytest.mark.parametrize("how", ["close", "raise", "forget"])
def test_the_reader_ends_with_its_consumer(tmp_path, monkeypatch, how):
    path = tmp_path / "reviews.json"
    path.write_bytes(MANY)
    made = []
    original = lines_module._chunks
    monkeypatch.setattr(
        lines_module, "_chunks", lambda *given: (made.append(piece) or piece for piece in original(*given))
    )
    stream = stream_lines(path, 1000)
    next(stream)
    assert len(readers()) == 1
    if how == "close":
        stream.close()
    elif how == "raise":
        with pytest.raises(RuntimeError):
            stream.throw(RuntimeError("the consumer failed"))
    else:
        del stream
        gc.collect()
    assert not readers()
    assert len(made) < 20, "of two thousand"


def test_the_reader_does_not_run_far_ahead(tmp_path):
    path = tmp_path / "reviews.json"
    path.write_bytes(MANY * 20)
    tracemalloc.start()
    try:
        stream = stream_lines(path, 1 << 20)
        next(stream)
        time.sleep(0.3)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20 < path.stat().st_size
        stream.close()
    finally:
        tracemalloc.stop()
