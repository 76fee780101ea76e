"""Records: every bad line is counted and named, whatever it tries, and every odd value has one outcome."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np
import pytest

from recllm_bench.data.prepare import line_records as records_module
from recllm_bench.data.prepare.bad_lines import BadLines
from recllm_bench.data.prepare.line_records import (
    Records,
    dates,
    floats,
    ids,
    literal,
    missing,
    ratings,
    seconds,
)
from recllm_bench.data.prepare.lines import stream_lines
from recllm_bench.errors import BenchError


class Row(msgspec.Struct, gc=False):
    id: str | int | None = None
    number: float | int | str | None = None
    text: str | None = None


GOOD = b'{"id": "a", "number": 1}'


def write(folder: Path, content: bytes) -> Path:
    path = folder / "rows.json"
    path.write_bytes(content)
    return path


def read(folder: Path, content: bytes, most: float = 1.0, literals: bool = False, size: int = 1 << 20) -> Records:
    """Read a whole file; the rows end up in ``found`` and their lines in ``numbers``."""
    records = Records(write(folder, content), Row, most, literals)
    records.found, records.numbers = [], []
    original = records_module.stream_lines
    try:
        records_module.stream_lines = lambda path: stream_lines(path, size)
        for chunk in records.chunks():
            records.found += chunk.records
            records.numbers += list(chunk._numbers)
    finally:
        records_module.stream_lines = original
    return records


def bad_numbers(records: Records) -> list[int]:
    return [int(said.removeprefix(f"{records.path}:").split(":")[0]) for said in records.bad.first]


# --- which line is bad -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 30, 100, 1 << 20])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("literals", [False, True])
def test_numbers_of_lines(tmp_path, size, end, literals):
    lines = [b'{"id": %d}' % number for number in range(1, 41)]
    for number in (3, 4, 21):
        lines[number - 1] = b""
    for number in (7, 22, 40):
        lines[number - 1] = b'{"id": broken}'
    for content in (end.join(lines), end.join(lines) + end, b"\xef\xbb\xbf" + end.join(lines)):
        records = read(tmp_path, content, literals=literals, size=size)
        good = [number for number in range(1, 41) if number not in (3, 4, 21, 7, 22, 40)]
        assert [row.id for row in records.found] == good
        assert records.numbers == good
        assert (records.lines, records.bad.count, bad_numbers(records)) == (40, 3, [7, 22, 40])


def test_dropped_records_keep_their_lines(tmp_path):
    records = Records(write(tmp_path, b'\n{"id":1}\n{"id":2}\n\n{"id":3}\nbad\n{"id":4}\n'), Row, 1.0)
    (chunk,) = records.chunks()
    chunk.drop(np.array([False, False, False, False]), lambda index: "no")
    assert (records.bad.count, chunk.column("id")) == (1, [1, 2, 3, 4])
    chunk.drop(np.array([True, False, False, False]), lambda index: f"number {index}")
    assert chunk.column("id") == [2, 3, 4]
    chunk.drop(np.array([False, False, True]), lambda index: f"then {index}")
    assert chunk.column("id") == [2, 3]
    assert [said.split(":", 1)[1] for said in records.bad.first[1:]] == ["2: number 0", "7: then 2"]
    assert records.bad.count == 3


def test_a_record_is_a_line(tmp_path):
    # The decoder alone would take all three for records: with whatever line comes next the answer would change.
    spread = b'{"id":\n1}\n'
    pair = b'{"id": 1} {"id": 2}\n'
    for content in (spread, pair, spread + b"bad\n", pair + b"bad\n"):
        records = read(tmp_path, GOOD + b"\n" + content)
        assert [row.id for row in records.found] == ["a"]
        assert bad_numbers(records)[0] == 2


def test_the_first_three_are_shown(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "recllm_bench"):
        records = read(tmp_path, (GOOD + b"\nbad\n") * 5)
    shown = [record.getMessage() for record in caplog.records]
    assert len(shown) == 4
    assert all("the line is skipped" in line for line in shown[:3])
    assert [f"rows.json:{number}: " in line for number, line in zip((2, 4, 6), shown, strict=False)] == [True] * 3
    assert shown[3] == f"{records.path}: 5 of 10 lines were skipped"


# --- how many may be bad ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "lines", "allowed"),
    [
        (0.001, 241, 0),
        (0.001, 999, 0),
        (0.001, 1000, 1),
        (0.001, 1999, 1),
        (0.0, 10_000, 0),
        (0.07, 100, 7),
        (0.29, 100, 29),
        (1.0, 5, 5),
    ],
)
def test_the_limit_is_a_share(most, lines, allowed):
    for count, fits in ((allowed, True), (allowed + 1, False)):
        bad = BadLines(Path("x.json"), most)
        for line in range(count):
            bad.add(line + 1, "wrong")
        if fits:
            bad.finish(lines)
        elif most < 1:
            with pytest.raises(BenchError, match=rf"x\.json:1: wrong; {count} of [\d,]+ lines are bad, more than the"):
                bad.finish(lines)


@pytest.mark.parametrize("most", [-0.1, 1.1, math.nan])
def test_an_impossible_share(most):
    with pytest.raises(BenchError, match="from 0 to 1"):
        BadLines(Path("x"), most)


def test_refusal_names_the_first_and_the_way_out(tmp_path):
    with pytest.raises(BenchError, match=r"rows\.json:2: .*2 of 4 lines .* 0\.1 % .*--bad-lines") as caught:
        read(tmp_path, GOOD + b"\nbad\n" + GOOD + b"\nbad\n", 0.001)
    assert "\n" not in str(caught.value)
    assert read(tmp_path, GOOD + b"\nbad\n" + GOOD + b"\nbad\n", 0.5).bad.count == 2


def test_a_file_of_another_kind_is_not_read_to_its_end(tmp_path):
    path = write(tmp_path, b"a,b,c\n" * 500_000)
    records = Records(path, Row)
    with pytest.raises(BenchError, match=r"rows\.json:1: .* 1,001 of 1,001 lines are bad"):
        list(records.chunks())


def test_many_bad_lines_within_the_share(tmp_path):
    assert read(tmp_path, b"bad\n" * 1001 + (GOOD + b"\n") * 200, most=0.9).bad.count == 1001


# --- what is bad -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"no json", "not a readable record"),
        (b'{"id": "a"', "not a readable record"),
        (b'{"id": "a"} x', "not a readable record"),
        (b'{"id": "a",}', "not a readable record"),
        (b'{"id": "a", "number": NaN}', "not a readable record"),
        (b'{"id": "a", "number": 1e999}', "not the record expected"),
        (b'{"id": "a", "number": [1]}', "not the record expected"),
        (b'{"id": true}', "not the record expected"),
        (b'{"id": {"a": 1}}', "not the record expected"),
        (b'{"id": 7.5}', "not the record expected"),
        (b'["a", 1]', "not the record expected"),
        (b"7", "not the record expected"),
        (b"null", "not the record expected"),
        (b'{"id": "\\ud800"}', "not a readable record"),
        (b'{"id": "\xff"}', "not UTF-8 text"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8 text"),
        ('{"id": "é"}'.encode("latin-1"), "not UTF-8 text"),
        ('{"id": "é"}'.encode("utf-16-le"), "not a readable record|not UTF-8"),
        (b'{"id": "a\0"}', "not a readable record"),
        (b'\0{"id": "a"}', "not a readable record"),
        (b'{"other": ' + b"[" * 200_000 + b"}", "nested too deeply"),
        (b'{"other": ' * 100_000, "nested too deeply"),
        (b"[" * 200_000, "not the record expected"),
    ],
)
def test_bad_json(tmp_path, line, why):
    records = read(tmp_path, GOOD + b"\n" + line + b"\n" + GOOD)
    assert [row.id for row in records.found] == ["a", "a"]
    assert records.bad.count == 1
    assert records.numbers == [1, 3]
    import re

    assert re.search(rf"rows\.json:2: ({why})", records.bad.first[0])
    assert len(records.bad.first[0]) < 400


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b'{"id": 7}', Row(7)),
        (b'{"id": "7"}', Row("7")),
        (b'{"id": "a", "id": "b"}', Row("b")),
        (b'{"id": null}', Row()),
        (b"{}", Row()),
        (b'{"id": "\\u0000"}', Row("\0")),
        (b'{"id": "\\ud83d\\ude00"}', Row("\U0001f600")),
        (b'{"text": "\xe2\x80\xa8\xc2\x85"}', Row(text="\u2028\x85")),
        (b'\t {"id": "a"}  \r', Row("a")),
        (b'{"id": "a", "other": "\xff"}', Row("a")),  # what is passed over is not looked at
        (b'{"id": "a", "other": ' + b"[" * 100 + b"]" * 100 + b"}", Row("a")),
    ],
)
def test_good_json(tmp_path, line, row):
    records = read(tmp_path, b"bad\n" + line + b"\n")
    assert records.found == [row]
    assert read(tmp_path, line + b"\n").found == [row]


def test_a_json_array(tmp_path):
    for content in (b'[{"id": 1},\n{"id": 2}]\n', b'\n  [\n{"id": 1}\n]'):
        with pytest.raises(BenchError, match=r"rows\.json:1: a JSON array; expected one object a line"):
            read(tmp_path, content)


def test_truncated_file_after_good_lines(tmp_path):
    import gzip

    data = gzip.compress((GOOD + b"\n") * 10_000, 0)
    with pytest.raises(BenchError, match=r"rows\.json:\d+: truncated"):
        read(tmp_path, data[: len(data) // 2])


# --- Python literals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"{u'id': u'a', u'number': 4.5, u'flag': True, u'none': None}", Row("a", 4.5)),
        (b"""{'id': "it's", "text": 'say "so"'}""", Row("it's", None, 'say "so"')),
        (b"{u'text': u'caf\\xe9 \\u20ac \\U0001f600 \\n'}", Row(text="caf\xe9 \u20ac \U0001f600 \n")),
        (b"{u'text': u'\\ud83d\\ude00!'}", Row(text="\U0001f600!")),  # as a narrow Python 2 wrote it
        (b"{u'text': u'\\uD83D x'}", Row(text="\ufffd x")),
        (b"{'text': 'a\\\\ud83d'}", Row(text="a\\ud83d")),
        ("{'text': 'schön'}".encode(), Row(text="schön")),
        (b"{'id': 7}", Row(7)),
        (b"{'id': 'a', 'id': 'b'}", Row("b")),
        (b"  {'id': 'a'}\r", Row("a")),
        (b"{'text': 'no \\d escape'}", Row(text="no \\d escape")),
        (b'{"id": "json", "number": null}', Row("json")),
    ],
)
def test_good_literals(tmp_path, line, row, recwarn):
    assert read(tmp_path, b"{u'id': 1}\n" + line + b"\n", literals=True).found == [Row(1), row]
    assert not recwarn.list


HOSTILE = [
    b"__import__('os').system('touch PATH')",
    b"{'id': __import__('os').system('touch PATH')}",
    b"{'id': open('PATH', 'w')}",
    b"{'id': [open('PATH', 'w') for _ in [1]]}",
    b"{'id': (lambda: open('PATH', 'w'))()}",
    b"{'id': f\"{open('PATH', 'w')}\"}",
    b"{'id': 1}; open('PATH', 'w')",
    b"{'id': 1} if open('PATH', 'w') else 2",
    b"{**{'id': open('PATH', 'w')}}",
    b"{'id': 9**9**9}",
    b"{'id': 'a' * 10**10}",
    b"{[]: 1}",
    b"{{}: 1}",
    b"{'id': {[1]}}",
    b"{7: 1, 'id': ...}",
    b"{'id': b'bytes'}",
    b"{'id': 1j}",
    b"{'id': " + b"9" * 5000 + b"}",
    b"{'id': '\0'}",
    b"{'id': 'open}",
    b"{'id': true}",
    b"[" * 200_000,
    b"{'a':" * 200_000,
    b"(" * 100_000 + b")" * 100_000,
    b"{'id': " + b"-" * 200_000 + b"1}",
    b"{'id': 1" + b"+1" * 200_000 + b"}",
    b"{'id': a" + b".b" * 200_000 + b"}",
    b"{'id': a" + b"[0]" * 200_000 + b"}",
    b"{'id': " + b"not " * 200_000 + b"1}",
    b"{'id': " + b"lambda:" * 100_000 + b"1}",
    b"{'id': [" + b"1," * (1 << 20) + b"]}",
    b"\xff\xfe{'id': 1}",
    b"'just text'",
    b"None",
    b"{1, 2}",
]


def test_hostile_literals_are_bad_lines(tmp_path):
    # In a process of its own: what crashes the interpreter must fail this test, not end the run.
    touched = tmp_path / "touched"
    lines = [line.replace(b"PATH", str(touched).encode()) for line in HOSTILE]
    write(tmp_path, b"{u'id': u'first'}\n" + b"\n".join(lines) + b"\n{u'id': u'last'}\n")
    code = (
        "import json, re, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from test_raw_records import Records, Row\n"
        "records = Records(Path(sys.argv[1]), Row, 1.0, literals=True)\n"
        "found = [row.id for chunk in records.chunks() for row in chunk.records]\n"
        'peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) >> 10\n'
        "print(json.dumps([found, records.bad.count, records.lines, peak]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rows.json"), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, bad, lines, peak = json.loads(done.stdout)
    assert (found, bad, lines) == (["first", "last"], len(HOSTILE), len(HOSTILE) + 2)
    assert peak < 1200, "MiB"
    assert not touched.exists()


def test_each_hostile_literal_says_why(tmp_path):
    for line in (HOSTILE[1], b"{[]: 1}", b"{'id': " + b"-" * 50_000 + b"1}"):
        records = read(tmp_path, line + b"\n", literals=True)
        assert records.bad.first[0].endswith(
            "not a readable record (neither JSON nor a Python literal of plain values)"
        )
    with pytest.raises(ValueError, match="over 2 MiB"):
        literal(b"'" + b"x" * (2 << 20) + b"'")
    assert literal(b"'" + b"x" * (1 << 20) + b"'") == "x" * (1 << 20)


def test_literals_only_where_they_are_allowed(tmp_path):
    assert read(tmp_path, b"{'id': 'a'}\n").bad.count == 1


def test_json_and_literals_may_alternate(tmp_path):
    lines = [b"{'id': %d}" % n if n % 2 else b'{"id": %d}' % n for n in range(50)]
    records = read(tmp_path, b"\n".join([b"broken first line", *lines]), literals=True, size=64)
    assert [row.id for row in records.found] == list(range(50))
    assert bad_numbers(records) == [1]


# --- values ----------------------------------------------------------------------------------------------------------


def test_ids():
    assert ids([7, "7", None, "", 10**30]).to_pylist() == ["7", "7", None, "", str(10**30)]
    assert ids(["a", None]).to_pylist() == ["a", None]
    assert ids([]).to_pylist() == []
    assert ids([None, None]).to_pylist() == [None, None]
    assert missing(ids(["a", "", None, 0, " "])).tolist() == [False, True, True, False, False]


def test_floats_and_ratings():
    values = [4, 4.5, "3.5", " 2 ", "1e0", None, "", "good", "nan", "inf", "-Infinity", 10**400, "1" * 400]
    found = floats(values)
    assert found[:5].tolist() == [4, 4.5, 3.5, 2, 1]
    assert np.isnan(found[5:9]).all()
    with np.errstate(all="raise"):
        found = ratings(values)
    assert found.dtype == np.float32
    assert found[:5].tolist() == [4, 4.5, 3.5, 2, 1]
    assert np.isnan(found[5:]).all(), "what is not finite is none"
    assert np.isnan(ratings([1e39, "1e39", -1e300])).all()
    assert floats([]).tolist() == []


def test_seconds():
    good = {0: 0, 1393545600: 1393545600, "1393545600": 1393545600, 1588687728923: 1588687728.923}
    good |= {1588687728923000: 1588687728.923, 1588687728923000000: 1588687728.923}
    good |= {"1588687728923": 1588687728.923, 99_999_999: 99_999_999, 1.5: 1.5, 100_000_000_000: 100_000_000}
    assert seconds(list(good)).tolist() == list(good.values()), "each is judged by itself"
    bad = [-1, "-1", 4_102_444_800, 99_999_999_999, 4_102_444_800_000, 15886877289230, None, "", "now", "nan", "inf"]
    assert np.isnan(seconds([*bad, 10**400])).all()


@pytest.mark.parametrize(
    "text",
    [
        "2014-02-05",
        "2014-02-05 20:30",
        "2014-02-05 20:30:31",
        "2014-02-05T20:30:31",
        "2014-02-05 20:30:31.999",
        "2014-02-05T20:30:31Z",
        "2014-02-05T20:30:31.123456+00:00",
        " 2014-02-05 ",
        "1970-01-01",
        "2099-12-31 23:59:59",
        "2016-02-29",
    ],
)
def test_dates(text):
    plain = text.strip().split(".")[0].removesuffix("Z")
    expected = datetime.fromisoformat(plain).replace(tzinfo=timezone.utc).timestamp()
    assert dates([text]).tolist() == [expected]
    assert dates([None, text, "2011-02-30"])[1] == expected


def test_impossible_dates():
    bad = [None, "", "now", "today", "NaT", "nat", "2014", "2014-02", "2014-2-5", "20140205", "5.2.2014", "1391558400"]
    bad += ["2011-02-30", "2015-02-29", "1969-12-31", "2100-01-01", "9999-12-31", "-2014-02-05", "2014-13-01"]
    bad += ["2014-02-05 25:00", "2014-02-05 20:30:61", "2014-02-05+05:00", "2014-02-05 20:30:31-08:00"]
    bad += ["Posted May 20.", "\u0662014-02-05", "2014-02-05 20:30.5", "2014-02-05x", "x" * 100_000]
    for one in bad:
        assert np.isnan(dates([one])).all(), one
    assert np.isnan(dates(bad)).all()
    assert dates([]).tolist() == []
