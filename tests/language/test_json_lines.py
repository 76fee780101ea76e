"""Files of JSON lines: read whole, appended to, torn by a kill, damaged."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import random

import pytest

from recllm_bench.errors import BenchError
from recllm_bench.language.json_lines import append, appended, json_line, read_lines


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n \n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_are_read_with_their_places(tmp_path, packed, ends, mark):
    text = (mark + ends.join(['{"a": "é"}', '{"b": [1, NaN]}', ""])).encode()
    path = tmp_path / "lines"
    path.write_bytes(gzip.compress(text) if packed else text)
    found = list(read_lines(path, "thing"))
    step = ends.count("\n")
    assert [place for place, _ in found] == [f"{path}:1", f"{path}:{1 + step}"]
    assert found[0][1] == {"a": "é"} and list(found[1][1]) == ["b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1}\n{"a"\n', r":2: not valid JSON .*; a line is one thing"),
        (b'{"a": 1}\n' + b"[" * 200_000, ":2: not valid JSON"),
        (b'{"a": 1}\n3\n', ":2: a line is an object, one thing"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', ": not UTF-8"),
        (gzip.compress(json_line({"a": 1}) * 5000)[:-30], ": damaged"),
        (b"\x1f\x8bnothing of the kind", ": damaged"),
        (gzip.compress(b'{"a": 1}\n{"a"\n'), ":2: not valid JSON"),
    ],
)
def test_what_is_no_such_file_is_named_in_one_line(tmp_path, data, message):
    path = tmp_path / "lines"
    path.write_bytes(data)
    with pytest.raises(BenchError, match=r"lines" + message) as caught:
        list(read_lines(path, "thing"))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_or_written(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BenchError, match="cannot read the things: "):
            list(read_lines(path, "thing"))
    with pytest.raises(BenchError, match=r"cannot write .*; free space or set RECLLM_CACHE"):
        append(tmp_path, [{"a": 1}])
    assert list(appended(tmp_path / "none")) == []


def test_what_is_appended_is_read_from_where_one_stopped(tmp_path):
    path = tmp_path / "deep" / "lines"
    append(path, [{"a": "half \ud83d"}, {"a": 2}])
    first = list(appended(path))
    assert [value for _, value in first] == [{"a": "half \ufffd"}, {"a": 2}]
    assert first[-1][0] == path.stat().st_size
    with open(path, "ab") as file:
        file.write(b'{"torn": ')
    assert list(appended(path, first[-1][0])) == []
    append(path, [{"a": 3}])
    (_, torn), (end, value) = appended(path, first[-1][0])
    assert isinstance(torn, ValueError)
    assert (value, end) == ({"a": 3}, path.stat().st_size)


def write_many(path, name):
    for number in range(40):
        append(path, [{"name": name, "number": number, "fill": "x" * random.randrange(9000)}])


def test_several_processes_may_append(tmp_path):
    path = tmp_path / "lines"
    writers = [multiprocessing.get_context("fork").Process(target=write_many, args=(path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [(value["name"], value["number"]) for _, value in appended(path)]
    assert sorted(found) == [(name, number) for name in "abc" for number in range(40)]
    assert all(json.loads(line) for line in path.read_text().splitlines())
