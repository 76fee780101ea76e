"""What stands in the fields of own tables: literals, missing values, numbers, times."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from own_tables import CSV, parquet_table, prepared_by_card, read, told, write

from recllm_bench.data.prepare import format_check, prepare
from recllm_bench.data.prepare.tables import read_table
from recllm_bench.data.prepare.values import MISSING
from recllm_bench.data.splits import global_time
from recllm_bench.errors import BenchError

# --- literals of other languages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "-Infinity", "None", "True", "False", "nan", "inf", "undefined", "[NaN, None]", '{"a": NaN}'],
)
def test_a_literal_in_a_column_that_nobody_asks_for(tmp_path, value):
    lines = [f'{{"user": "u1", "item": "i{row}", "price": {value}, "note": "None, NaN and True"}}' for row in range(3)]
    assert told(read(tmp_path, "\n".join(lines) + "\n", "t.jsonl")) == [
        ("u1", f"i{row}", None, None) for row in range(3)
    ]


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("{'item': 'a', 'title': 'It\\'s None', 'ok': True, 'x': None}", "It's None"),
        ("{u'item': u'a', u'title': u'Caf\\xe9'}", "Caf\u00e9"),
        ('{"item": "a", "title": "NaN stays", "year": NaN}', "NaN stays"),
        ('{"item": "a", "title": NaN}', ""),
        ('{"item": "a", "title": None, "year": Infinity}', ""),
        ('{"item": "a", "title": \'mixed "quotes"\', "x": null}', 'mixed "quotes"'),
        ("{'item': 'a', 'title': ['One', None, 'N/A', 'Two'],}", "One Two"),
        ("{'item': 'a', 'title': ('One', 'Two'), 'x': nan, 'y': true}", "One Two"),
    ],
)
def test_items_with_literals(tmp_path, line, title):
    rows = read(tmp_path, '{"user": 1, "item": "a"}\n', "t.jsonl", items=("t.items.jsonl", f"{line}\n"))
    assert rows.text["a"].title == title


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user": 1, "item": None}', "the item id is empty"),
        ('{"user": NaN, "item": 1}', "the user id is empty"),
        ('{"user": Infinity, "item": 1}', "the user id is 'inf', which stands for a missing value"),
        (
            '{"user": 1, "item": 2, "rating": NaN, "time": 978300760}',
            "the rating is empty; leave the line out, or the column",
        ),
        ('{"user": 1, "item": 2, "rating": Infinity, "time": 978300760}', "the rating 'inf' is not a number"),
        ('{"user": 1, "item": 2, "rating": True, "time": 978300760}', "the rating 'True' is not a number"),
        ('{"user": 1, "item": 2, "time": None}', "the time is empty"),
        ('{"user": 1, "item": 2, "x": __import__("os")}', "not one JSON object"),
        ("{'user': 1, 'item': open('x')}", "not one JSON object"),
        ("{'user': b'1', 'item': 2}", "not one JSON object"),
        ("{'user': {1, 2}, 'item': 2}", "the column 'user' holds nested values"),
        ("{1: 2}", "not one JSON object"),
        ("None", "not one JSON object"),
        ('{"user": 1, item: 2}', "not one JSON object"),
    ],
)
def test_literals_where_a_value_is_needed(tmp_path, line, message):
    good = '{"user": 1, "item": 1, "rating": 3, "time": 978300760}'
    with pytest.raises(BenchError, match=r"t\.jsonl:2: ") as caught:
        read(tmp_path, f"{good}\n{line}\n", "t.jsonl")
    assert message in str(caught.value)


# --- spellings of a missing value ------------------------------------------------------------------------------------

SPELLINGS = [
    "NA",
    "N/A",
    "null",
    "NULL",
    "None",
    "\\N",
    "-",
    "nan",
    "NaN",
    "n/a",
    "<NA>",
    "#N/A",
    "NaT",
    "undefined",
    "--",
]


@pytest.mark.parametrize("word", SPELLINGS)
def test_a_missing_value_is_no_text(tmp_path, word):
    items = f"item,title,year,categories,description\na,{word},{word},{word}|War,{word}\nb,Beta {word},1999,War,x\n"
    rows = read(tmp_path, CSV, items=("t.items.csv", items))
    assert (rows.text["a"].title, rows.text["a"].year, rows.text["a"].description) == ("", 0, "")
    assert rows.text["a"].categories == ("War",)
    assert rows.text["b"].title == f"Beta {word}", "a word among others is a word"
    assert f"t.items.csv: 3 fields say '{word}' for a missing value" in rows.notes[0]
    kept = read(tmp_path, CSV, missing=[])
    assert kept.text["a"].title == word


@pytest.mark.parametrize("word", ["", *SPELLINGS])
@pytest.mark.parametrize("column", ["user", "item", "rating", "time"])
def test_a_missing_value_where_one_is_needed(tmp_path, word, column):
    fields = {"user": "u", "item": "i", "rating": "4", "time": "978300760"}
    first, second = ",".join(fields.values()), ",".join({**fields, column: word}.values())
    what = f"{column} id" if column in ("user", "item") else column
    said = f"is '{word}', which stands for a missing value; leave the line out" if word else "is empty; leave the line"
    with pytest.raises(BenchError) as caught:
        read(tmp_path, f"{','.join(fields)}\n{first}\n{second}\n")
    assert f"t.csv:3: the {what} {said}" in str(caught.value)


def test_the_mends_for_missing_values_work(tmp_path):
    table = "user,item,rating,time\nNA,i,NA,978300760\nu,-,4,978300761\n"
    with pytest.raises(BenchError, match="or write 'missing: \\[\\]' in a card if it is an id"):
        read(tmp_path, table)
    prepared = prepared_by_card(tmp_path, "table: t.csv\nmissing: []\ncolumns: {rating: null}\n")
    assert prepared.user_tokens[1] == "NA"
    assert prepared.catalogue.tokens == ["", "i", "-"]
    prepared_by_card(tmp_path, "table: t.csv\nmissing: ['?']\ncolumns: {rating: null}\n")
    with pytest.raises(BenchError, match=r"the item id is '\?'"):
        prepared_by_card(tmp_path, "table: q.csv\nmissing: ['?']\n", q_csv="user,item\nu,?\n")


def test_names_of_people_are_no_missing_values(tmp_path):
    names = ["Nan", "Na", "Nat", "Null-Byte", "none of these", "0"]
    assert read(tmp_path, "user,item\n" + "".join(f"{name},i\n" for name in names)).user_tokens == names


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rating", "message"),
    [
        ("0x10", "the rating '0x10' is not a number"),
        ("0X1F", "the rating '0X1F' is not a number"),
        ("1e308", "the rating '1e308' is too large for a rating"),
        ("-1e39", "the rating '-1e39' is too large"),
        ("1e999", "the rating '1e999' is not a number"),
        ("inf", "the rating 'inf' is not a number"),
        ("1_000", "the rating '1_000' is not a number"),
        ('"4,5"', "the rating '4,5' is not a number"),
        ("4 stars", "the rating '4 stars' is not a number"),
        ("\u0664", "the rating '\u0664' is not a number"),
    ],
)
def test_ratings_that_are_no_numbers(tmp_path, rating, message, recwarn):
    with pytest.raises(BenchError) as caught:
        read(tmp_path, f"user,item,rating\nu,1,3\nu,2,{rating}\n")
    assert f"t.csv:3: {message}" in str(caught.value)
    assert not [warning for warning in recwarn if warning.category is RuntimeWarning]


@pytest.mark.parametrize("kind", ["banana", "int", "Token", "", "token seq", "string:x"])
def test_a_header_type_that_recbole_does_not_know(tmp_path, kind):
    path = write(tmp_path / "a/a.inter", f"user_id:token\titem_id:token\ttimestamp:{kind}\nu\ti\t978300760\n")
    with pytest.raises(
        BenchError, match=r"a\.inter:1: the header field 'timestamp:.*types are token, token_seq, float"
    ):
        prepare(str(path.parent))


# --- times -----------------------------------------------------------------------------------------------------------

SECONDS = 978300760


@pytest.mark.parametrize(
    "time",
    [
        str(SECONDS),
        f"{SECONDS}000",
        f"{SECONDS}000000",
        f"{SECONDS}000000000",
        f"{SECONDS}.0",
        "9.7830076e8",
        "2000-12-31T22:12:40Z",
        "2000-12-31 22:12:40",
        "2000-12-31T22:12:40",
        "2000-12-31T23:12:40+01:00",
        "2000-12-31 14:12:40-0800",
        "2000-12-31 22:12:40 UTC",
        "2000-12-31 22:12:40GMT",
        "2000/12/31 22:12:40",
        "2000-12-31T22:12:40.000000000Z",
        "20001231221240",
    ],
)
def test_one_moment_in_every_form(tmp_path, time):
    rows = read(tmp_path, f"user,item,time\nu,1,{time}\n")
    assert rows.order.tolist() == [SECONDS]
    assert rows.has_times
    quoted = time if time.isdecimal() else json.dumps(time)
    rows = read(tmp_path, f'{{"user": "u", "item": 1, "time": {quoted}}}\n', "t.jsonl")
    assert rows.order.tolist() == [SECONDS]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([SECONDS], pa.timestamp("s")),
        pa.array([SECONDS * 1000], pa.timestamp("ms", "UTC")),
        pa.array([SECONDS * 10**9], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([SECONDS * 10**9]),
        pa.array([float(SECONDS * 10**6)]),
        pa.array(["2000-12-31T22:12:40Z"]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_one_moment_in_every_type(tmp_path, column):
    path = parquet_table(tmp_path / "t.parquet", user=["u"], item=["i"], time=column)
    rows = read_table({"table": path})
    assert rows.order.tolist() == [SECONDS]
    assert rows.has_times


@pytest.mark.parametrize("dates", [["20001231", "20010101"], ["2000-12-31", "2001-01-01"], ["2000/12/31", "2001/1/1"]])
def test_days(tmp_path, dates):
    rows = read(tmp_path, "user,item,date\n" + "".join(f"u,i,{date}\n" for date in dates))
    assert rows.order.tolist() == [978220800, 978307200]
    assert rows.has_times


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("31/12/2000", "the time '31/12/2000' is not a number and no date; write Unix times, or dates like 2001-02-03"),
        ("Dec 31, 2000", "is not a number and no date"),
        ("22:12:40", "is not a number and no date"),
        ("2000-13-31", "the time '2000-13-31' is not a date like 2001-02-03"),
        ("20001231T221240", "is not a number and no date"),
        ("0x3A4F", "is not a number"),
        ("133000000000000000", "lies beyond 2100; times are Unix seconds"),
        ("638000000000000000", "lies beyond 2100; times are Unix seconds"),
        ("97830076000000", "lies beyond 2100; times are Unix seconds, milli-, micro- or nanoseconds"),
        ("1e19", "lies beyond 2100"),
        ("-978300760", "lies before 1970"),
        ("1969-12-31", "lies before 1970"),
    ],
)
def test_times_that_are_none(tmp_path, time, message):
    with pytest.raises(BenchError, match=r"t\.csv:2: the time ") as caught:
        read(tmp_path, f'user,item,time\nu,1,"{time}"\n')
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "times",
    [
        ["1", "2", "3"],
        ["0", "1", "0"],
        ["0.0", "1.0", "2.0"],
        ["1999", "2003", "2001"],
        ["36892", "36893.5", "36894"],
        ["20001331", "20001332", "20001333"],
    ],
    ids=["places", "flags", "floats", "years", "days of a spreadsheet", "no dates"],
)
def test_positions_are_an_order_and_no_times(tmp_path, times):
    write(tmp_path / "t.csv", "user,item,timestamp\n" + "".join(f"u,i{row},{time}\n" for row, time in enumerate(times)))
    prepared = prepare(str(tmp_path / "t.csv"))
    assert not prepared.has_times
    assert prepared.histories.times is None
    ordered = sorted(range(3), key=lambda row: float(times[row]))
    assert [prepared.catalogue.tokens[item] for item in prepared.histories.of(1)] == [f"i{row}" for row in ordered]
    shown = format_check(prepared)
    assert "an order, no Unix times" in shown
    assert "no global time split" in shown
    with pytest.raises(BenchError, match="no global time split"):
        global_time(prepared.histories)


def test_positions_in_atomic_files(tmp_path):
    write(tmp_path / "a/a.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\tb\t2\nu\ta\t1\n")
    assert not prepare(str(tmp_path / "a")).has_times
    write(tmp_path / "b/b.inter", "user_id:token\titem_id_list:token_seq\ttimestamp_list:float_seq\nu\ta b\t1 2\n")
    assert not prepare(str(tmp_path / "b")).has_times


def test_a_few_early_times_are_said(tmp_path):
    rows = read(tmp_path, "user,item,time\nu,1,0\nu,2,978300760\nu,3,12\n")
    assert rows.has_times
    assert rows.notes == ("2 times lie before 1973, such as 0; if they are unknown, leave their rows out",)


def test_early_dates_are_times(tmp_path):
    """Only of plain numbers must it be found out: a date says what it is."""
    assert read(tmp_path, "user,item,date\nu,1,1970-01-02\n").has_times
    path = parquet_table(tmp_path / "t.parquet", user=["u"], item=["i"], time=pa.array([5], pa.timestamp("s")))
    assert read_table({"table": path}).has_times


# --- the documentation -----------------------------------------------------------------------------------------------


def test_the_documentation_lists_every_spelling_of_a_missing_value():
    text = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    assert [word for word in MISSING if word and f"`{word}`" not in text] == []
