"""Ids of own tables: their types, the items that match them, rows that stand twice."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from own_tables import CSV, parquet_table, prepared_by_card, read, write

from recllm_bench.data.prepare import format_check, prepare
from recllm_bench.data.prepare.table_files import table_files
from recllm_bench.data.prepare.tables import read_table
from recllm_bench.errors import BenchError

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


@pytest.mark.parametrize("header", ["user,item", "user,item,rating", "User ID,asin,time"])
def test_files_joined_with_their_headers(tmp_path, header):
    row = "u,1" + {"rating": ",4", "time": ",978300760"}.get(header.split(",")[-1], "")
    with pytest.raises(BenchError, match=r"t\.csv:3: the header stands here once more; delete the line"):
        read(tmp_path, f"{header}\n{row}\n{header}\n{row}\n")
    assert len(read(tmp_path, "user,item\nuser,1\nu,item\n")) == 2, "an id may be a column's name"
