"""What stands in the fields of own tables: ids, literals, missing values, times, items that match, repeated rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from own_tables import CSV, prepared_by_card, read, told, write

from recllm_bench.data.prepare import format_check, prepare
from recllm_bench.data.prepare.table_files import table_files
from recllm_bench.data.prepare.tables import read_table
from recllm_bench.data.splits import global_time
from recllm_bench.errors import BenchError


def parquet_table(path: Path, **columns) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


# --- ids that change their type --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "plain"),
    [
        (["4.0", "5.0", "16.0"], ["4", "5", "16"]),
        (["4", "5.0", "16"], ["4", "5", "16"]),
        (["-4.0", "0.0", "7"], ["-4", "0", "7"]),
        (["4.00", "5.00", "6.00"], ["4", "5", "6"]),
        (["1e+05", "2.5e+06", "7.0"], ["100000", "2500000", "7"]),
        (["1.0E7", "2.0E7", "3.5"], ["1.0E7", "2.0E7", "3.5"]),
        (["007", "08", "9"], ["007", "08", "9"]),
        (["007.0", "8.0", "9.0"], ["007.0", "8.0", "9.0"]),
        (["1.0", "2.0", "v3.0"], ["1.0", "2.0", "v3.0"]),
        (["1e5", "2e6", "3d7"], ["1e5", "2e6", "3d7"]),
        (["1e5", "25", "37"], ["1e5", "25", "37"]),
        ([" 4 ", "\u00a05", "6\t"], ["4", "5", "6"]),
        (["9007199254740993", "12345678901234567890", "1"], ["9007199254740993", "12345678901234567890", "1"]),
    ],
    ids=lambda value: " ".join(value).replace("\t", "TAB").replace("\u00a0", "NBSP"),
)
def test_ids_of_a_csv(tmp_path, ids, plain):
    rows = read(tmp_path, "user,item\n" + "".join(f"{one},{one}\n" for one in ids))
    assert rows.item_tokens == rows.user_tokens == plain


@pytest.mark.parametrize("big", ["1.2345678901234568e+17", "12345678901234567890.0", "9007199254740994.0", "1e+16"])
def test_ids_that_lost_digits_are_refused(tmp_path, big):
    with pytest.raises(BenchError, match=r"t\.csv:3: the item id .* lost its last digits on its way through floating"):
        read(tmp_path, f"user,item\n1,7.0\n1,{big}\n")
    path = parquet_table(tmp_path / "t.parquet", user=[1, 1], item=[7.0, float(big)])
    with pytest.raises(BenchError, match=r"t\.parquet:2: the item id .* lost its last digits"):
        read_table({"table": path})
    with pytest.raises(BenchError, match=r"t\.jsonl:1: the item id .* lost its last digits"):
        read(tmp_path, f'{{"user": 1, "item": {float(big)!r}}}\n', "t.jsonl")


@pytest.mark.parametrize("there", ["4", "4.0", " 4", '"4"', "4.00"])
@pytest.mark.parametrize("here", ["4", "4.0", "4 ", '"4.0"'])
def test_one_id_in_two_files(tmp_path, here, there):
    rows = read(tmp_path, f"user,item\n1,{here}\n", items=("t.items.csv", f"item,title\n{there},Four\n"))
    assert rows.text[rows.item_tokens[0]].title == "Four"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([4.0, 5.0, None]),
        pa.array(["4", "5", "6"]).dictionary_encode(),
        pa.array([b"4", b"5", b"6"]),
        pa.array([b"4", b"5", b"6"], pa.binary(1)),
        pa.array([4, 5, 6], pa.uint64()),
        pa.array([4, 5, 6], pa.decimal128(10, 0)),
        pa.array(["4", "5", "6"], pa.large_string()),
        pa.array([4, 5, 6], pa.float32()),
    ],
    ids=lambda column: str(column.type).split("<")[0],
)
def test_one_id_in_files_of_two_kinds(tmp_path, column):
    table = {"user": pa.array(["u"] * 3), "item": column}
    if column.null_count:
        table = {name: values.slice(0, 2) for name, values in table.items()}
    parquet.write_table(pa.table(table), tmp_path / "t.parquet")
    write(tmp_path / "t.items.csv", "item,title\n4,Four\n5,Five\n")
    rows = read_table(table_files(tmp_path / "t.parquet"))
    assert rows.item_tokens[:2] == ["4", "5"]
    assert rows.text["4"].title == "Four"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([b"\xff\xfe", b"a"]), r"t\.parquet: the column 'item' \(binary\) is no text and no numbers"),
        (pa.array([{"a": 1}, {"a": 2}]), r"t\.parquet:1: the column 'item' holds nested values"),
        (pa.array([None, None]), r"t\.parquet:1: the item id is empty"),
        (pa.array(["a", "None"]), r"t\.parquet:2: the item id is 'None', which stands for a missing value"),
    ],
    ids=["bytes", "struct", "nulls", "words"],
)
def test_columns_that_are_no_ids(tmp_path, column, message):
    parquet.write_table(pa.table({"user": ["u", "v"], "item": column}), tmp_path / "t.parquet")
    with pytest.raises(BenchError, match=message):
        read_table({"table": tmp_path / "t.parquet"})


# --- item tables that hardly match -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there", "hint"),
    [
        ("007,008", "7,8", "'007' in the interactions is '7' in the item table"),
        ("7,8", "007,008", "'7' in the interactions is '007' in the item table"),
        ("B00A,B00B", "b00a,b00b", "'B00A' in the interactions is 'b00a' in the item table"),
        ("7.0,x8", "7,8", "'7.0' in the interactions is '7' in the item table"),
        ("caf\u00e9,b", "cafe\u0301,c", "'caf\u00e9' in the interactions is 'cafe\u0301' in the item table"),
        ("a,b", "x,y", "ids are like 'a' in the interactions, like 'x' in the item table"),
    ],
)
def test_an_item_table_of_other_ids_is_refused(tmp_path, here, there, hint):
    table = "user,item\n" + "".join(f"u,{item}\n" for item in here.split(","))
    items = "item,title\n" + "".join(f"{item},Title\n" for item in there.split(","))
    with pytest.raises(BenchError, match=r"names none of the 2 items of the interactions") as caught:
        read(tmp_path, table, items=("t.items.csv", items))
    assert hint in str(caught.value)
    # The mend that the message names.
    assert prepared_by_card(tmp_path, "table: t.csv\nitems: null\n").facts["items_with_text"] == 0


def test_an_item_table_of_few_of_the_items_is_said(tmp_path, caplog):
    table = "user,item\n" + "".join(f"u,i{item}\n" for item in range(10))
    write(tmp_path / "t.csv", table)
    write(tmp_path / "t.items.csv", "item,title\n" + "".join(f"i{item},T\n" for item in range(4)))
    prepared = prepare(str(tmp_path / "t.csv"))
    said = "t.items.csv names 4 of the 10 items of the interactions"
    assert said in format_check(prepared)
    assert said in caplog.text
    write(tmp_path / "t.items.csv", "item,title\n" + "".join(f"i{item},T\n" for item in range(9)))
    assert "names" not in " ".join(prepare(str(tmp_path / "t.csv")).facts["notes"])
    write(tmp_path / "t.items.csv", "item,title\n" + "".join(f"i{item},T\n" for item in range(9)) + "I9,T\n")
    note = "names 9 of the 10 items of the interactions; 1 more but for the form of their ids: 'i9' in the"
    assert note in format_check(prepare(str(tmp_path / "t.csv")))


def test_atomic_items_of_other_ids_are_refused(tmp_path):
    write(tmp_path / "a/a.inter", "user_id:token\titem_id:token\nu\t007\n")
    write(tmp_path / "a/a.item", "item_id:token\ttitle:token_seq\n7\tBond\n")
    with pytest.raises(BenchError, match=r"a\.item: names none of the 1 items .*'007' in the interactions is '7'"):
        prepare(str(tmp_path / "a"))


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


def test_early_dates_are_times(tmp_path):
    """Only of plain numbers must it be found out: a date says what it is."""
    assert read(tmp_path, "user,item,date\nu,1,1970-01-02\n").has_times
    path = parquet_table(tmp_path / "t.parquet", user=["u"], item=["i"], time=pa.array([5], pa.timestamp("s")))
    assert read_table({"table": path}).has_times


# --- repeated rows ---------------------------------------------------------------------------------------------------


def test_rows_that_stand_twice_are_said(tmp_path):
    write(tmp_path / "t.csv", CSV + CSV.split("\n", 1)[1])
    prepared = prepare(str(tmp_path / "t.csv"))
    assert len(prepared.histories.items) == 6
    assert "3 rows repeat another one (same user, item and time); repeats=drop" in format_check(prepared)
    # The mend that it names.
    assert len(prepare(str(tmp_path / "t.csv"), "repeats=drop").histories.items) == 3


@pytest.mark.parametrize(
    "table",
    [CSV, "user,item\nu,1\nu,1\n", "user,item,time\nu,1,978300100\nu,1,978300101\nu,2,978300100\nv,1,978300100\n"],
    ids=["none", "without times", "at other times"],
)
def test_rows_that_only_look_repeated(tmp_path, table):
    assert read(tmp_path, table).notes == ()
