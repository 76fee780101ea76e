"""A user's own tables: every kind of file, column maps, small cards, and odd values with a defined outcome."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from recllm_bench.data.prepare import json_tables as reader
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepare.own_cards import own_card
from recllm_bench.data.prepare.table_files import table_files
from recllm_bench.data.prepare.tables import read_table
from recllm_bench.errors import BenchError

ROWS = [
    {"user": "u1", "item": "b", "rating": 4, "time": 978300760},
    {"user": "u2", "item": "a", "rating": 5, "time": 978300700},
    {"user": "u1", "item": "a", "rating": 3.5, "time": 978300100},
]
CSV = "user,item,rating,time\nu1,b,4,978300760\nu2,a,5,978300700\nu1,a,3.5,978300100\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def json_lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_kind(path: Path) -> Path:
    """The same rows in the kind of file the name says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(("parquet", "pq")):
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
        return path
    text = json_lines(ROWS) if "json" in name else CSV.replace(",", "\t") if name.endswith("tsv") else CSV
    return write(path, gzip.compress(text.encode()) if path.suffix == ".gz" else text)


def told(rows) -> list[tuple]:
    columns = [rows.users, rows.items, rows.order if rows.order is not None else [None] * len(rows)]
    columns.append(rows.ratings if rows.ratings is not None else [None] * len(rows))
    return [
        (rows.user_tokens[user], rows.item_tokens[item], time, rating)
        for user, item, time, rating in zip(*columns, strict=True)
    ]


def read(tmp_path: Path, text: str | bytes, name: str = "t.csv", **options):
    return read_table({"table": write(tmp_path / name, text)}, **options)


# --- kinds of file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["t.csv", "t.tsv", "t.csv.gz", "t.tsv.gz", "t.parquet", "t.pq", "t.jsonl", "t.ndjson", "t.json", "t.jsonl.gz"],
)
def test_every_kind_gives_the_same(tmp_path, name):
    path = write_kind(tmp_path / name)
    expected = [(row["user"], row["item"], row["time"], row["rating"]) for row in ROWS]
    assert told(read_table({"table": path})) == expected
    prepared = prepare(str(path))
    assert prepared.histories.times.tolist() == [978300100, 978300760, 978300700]
    assert prepared.has_times


def test_json_lines_with_gaps_and_items(tmp_path):
    """Fields may come late or be null; of text, lists are joined or are categories."""
    table = write(tmp_path / "s.jsonl", '{"item": 7, "user": 1}\n{"user": "1", "item": "8", "note": null}\n')
    items = [
        {"item": 7, "title": "Seven", "categories": ["Tools, Home", "Saws"], "description": ["One.", "Two."]},
        {"item": "8", "title": None, "year": 1999.0},
    ]
    write(tmp_path / "s.items.jsonl", json_lines(items))
    rows = read_table(table_files(table))
    assert told(rows) == [("1", "7", None, None), ("1", "8", None, None)]
    assert rows.text["7"].categories == ("Tools, Home", "Saws")
    assert rows.text["7"].description == "One. Two."
    assert (rows.text["8"].title, rows.text["8"].year) == ("", 1999)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"user": 1, "item": 2}\n{"user": 1, item: 2}\n', r"t\.jsonl:2: not one JSON object"),
        ('{"user": 1, "item": 2}\n\n{"user": 1, "item": 3}\n', r"t\.jsonl:2: an empty line"),
        ('{"user": 1, "item": 2}\n[1, 2]\n', r"t\.jsonl:2: not one JSON object"),
        ('[{"user": 1, "item": 2}]', r"t\.jsonl:1: a JSON array; write one object a line"),
        ('{"user": 1, "item": 2}\n{"user": {"id": 1}, "item": 2}\n', r"t\.jsonl:2: the column 'user' holds nested"),
        (
            '{"user": 1, "item": 2}\n{"user": 1, "item": [3]}\n',
            r"t\.jsonl: the column 'item' holds lists; give it plain",
        ),
        ('{"user": 1, "item": 2}\n{"item": 2}\n', r"t\.jsonl:2: the user id is empty"),
        (
            '{"user": 1, "item": 2, "rating": 3}\n{"user": 1, "item": 2}\n',
            r"t\.jsonl:2: the rating is empty; leave the line out, or the column",
        ),
        ('{"user": 1, "item": 2, "rating": "good"}\n', r"t\.jsonl:1: the rating 'good' is not a number"),
        ('{"user": 1, "item": NaN}\n', r"t\.jsonl:1: the item id is empty"),
        (b'{"user": 1, "item": "\xe9"}\n', r"t\.jsonl:1: not one JSON object"),
        ('{"user": 1, "item": "\\ud800"}\n', r"t\.jsonl:1: not one JSON object"),
        ('{"who": 1, "item": 2}\n', r"t\.jsonl:1: no user column among who, item"),
        ("\n", "the file is empty"),
    ],
)
def test_malformed_json_lines(tmp_path, text, message):
    with pytest.raises(BenchError, match=message) as caught:
        read(tmp_path, text, "t.jsonl")
    assert "\n" not in str(caught.value)


def test_nested_fields_that_nobody_reads_do_no_harm(tmp_path):
    text = '{"user": 1, "item": 2, "meta": {"a": [1]}, "tags": [[1], [2]]}\n{"user": 1, "item": 3, "meta": null}\n'
    assert len(read(tmp_path, text, "t.jsonl")) == 2


def test_json_lines_in_small_pieces_give_the_same(tmp_path, monkeypatch):
    rows = [
        {"user": row % 3, "item": f"i{row}", "late": row} if row > 20 else {"user": "0", "item": row}
        for row in range(30)
    ]
    items = [{"item": f"i{row}", "tags": ["a", "b"] if row == 25 else "a", "more": {"x": 1} if row == 9 else row}
             for row in range(30)]  # fmt: skip
    files = {
        "table": write(tmp_path / "t.jsonl", json_lines(rows)),
        "items": write(tmp_path / "i.jsonl", json_lines(items)),
    }
    options = {"item_columns": {"item": "item", "categories": "tags"}}
    whole = read_table(files, **options)
    assert whole.text["i25"].categories == ("a", "b")
    monkeypatch.setattr(reader, "_PIECE_BYTES", 100)
    cut = read_table(files, **options)
    assert told(cut) == told(whole)
    assert cut.text == whole.text
    with pytest.raises(BenchError, match=r"i\.jsonl:10: the column 'more' holds nested values"):
        read_table(files, item_columns={"description": "more"})
    write(files["table"], json_lines(rows) + "{}\n\n{}\n")
    with pytest.raises(BenchError, match=r"t\.jsonl:32: an empty line"):
        read_table(files)


def test_nested_columns_of_parquet(tmp_path):
    table = pa.table({"user": [["a"], ["b"]], "item": [1, 2]})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(BenchError, match=r"t\.parquet: the column 'user' holds lists; give it plain"):
        read_table({"table": tmp_path / "t.parquet"})


# --- column maps -----------------------------------------------------------------------------------------------------

SALES = "buyer,sku,bought,stars,user\n1,x,2001-02-03,4,wrong\n2,y,2001-02-04,5,wrong\n"


def test_a_map_wins_over_recognition(tmp_path):
    rows = read(tmp_path, SALES, columns={"user": "buyer", "item": "sku", "time": "bought"})
    assert told(rows) == [("1", "x", 981158400, 4), ("2", "y", 981244800, 5)]
    rows = read(tmp_path, SALES, columns={"user": "buyer", "item": "sku", "rating": None})
    assert rows.ratings is None
    assert rows.order is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": "buyr"}, r"t\.csv:1: the column map says 'buyr' for user, but the columns are buyer, sku.*'buyer'"),
        ({"usr": "buyer"}, r"columns has no 'usr'\. Did you mean 'user'"),
        ({"user": 3}, r"the column of 'user' is a name, not 3"),
        (["user"], r"columns is a mapping"),
        ({"user": "buyer"}, r"t\.csv:1: no item column among buyer, sku"),
        ({"user": None, "item": "sku"}, r"t\.csv:1: no user column"),
    ],
)
def test_wrong_maps(tmp_path, columns, message):
    with pytest.raises(BenchError, match=message):
        read(tmp_path, SALES, columns=columns)


# --- small cards -----------------------------------------------------------------------------------------------------

CARD = """\
table: data/sales.csv
columns: {user: buyer, item: sku, time: bought, rating: stars}
items: products.csv
item_columns: {item: sku, title: label, description: blurb}
domain: product
"""


def test_own_card(tmp_path):
    write(tmp_path / "data/sales.csv", SALES)
    write(tmp_path / "products.csv", "sku,label,blurb,name\nx,Ex,Long text,no\ny,Why,,no\n")
    path = write(tmp_path / "shop.yaml", CARD)
    card, files = own_card(path)
    assert files == {"table": tmp_path / "data/sales.csv", "items": tmp_path / "products.csv"}
    assert (card["name"], card["domain"], card["reader"], card["own"]) == ("shop", "product", "table", True)
    prepared = prepare(str(path), "min_rating=5")
    assert prepared.catalogue.titles == ["", "Why"]
    prepared = prepare(str(path))
    assert (prepared.name, prepared.catalogue.domain) == ("shop", "product")
    assert list(prepared.catalogue.descriptions) == ["", "Long text", ""]
    assert prepared.histories.times.tolist() == [981158400, 981244800]
    before = prepared.checksum
    write(tmp_path / "products.csv", "sku,label,blurb\nx,Ex2,Long text\ny,Why,\n")
    assert prepare(str(path)).checksum != before, "the text is part of the data"


def test_own_card_finds_items_beside_the_table(tmp_path):
    write(tmp_path / "sales.csv", CSV)
    write(tmp_path / "sales.items.csv", "item,title\na,Alpha\n")
    path = write(tmp_path / "mine.yaml", "table: sales.csv\ntext_fields: [title, description]\nname: other\n")
    card, files = own_card(path)
    assert files["items"].name == "sales.items.csv"
    assert (card["name"], card["text_fields"]) == ("other", ["title", "description"])
    assert "options" not in card or not card["options"]


def test_own_card_of_another_encoding_and_delimiter(tmp_path):
    write(tmp_path / "alt.csv", "K\u00e4ufer;Artikel\nJos\u00e9;\u00dcbung\n".encode("cp1252"))
    said = "table: alt.csv\nencoding: cp1252\ndelimiter: ';'\ncolumns: {user: K\u00e4ufer, item: Artikel}\n"
    prepared = prepare(str(write(tmp_path / "alt.yaml", said)))
    assert prepared.catalogue.tokens == ["", "\u00dcbung"]
    assert list(prepared.user_tokens) == ["", "Jos\u00e9"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("columns: {user: a}\n", r"c\.yaml: a card of your own data needs 'table: file\.csv'"),
        ("- a\n", r"c\.yaml: a card of your own data needs"),
        ("table: t.csv\ncolums: {user: a}\n", r"c\.yaml: unknown key 'colums'\. Did you mean 'columns'"),
        ("table: none.csv\n", r"c\.yaml: table: no such file: .*none\.csv"),
        ("table: t.csv\nitems: none.csv\n", r"c\.yaml: items: no such file"),
        ("table: t.csv\ncolumns: {usr: a}\n", r"c\.yaml: columns has no 'usr'\. Did you mean 'user'"),
        ("table: t.csv\nitem_columns: {rating: a}\n", r"c\.yaml: item_columns has no 'rating'"),
        ("table: t.csv\ncolumns: buyer\n", r"c\.yaml: columns is a mapping"),
        ("table: [\n", r"c\.yaml:\d+: not valid YAML"),
        ("table: t.csv\ntext_fields: [titel]\n", r"c\.yaml: text_fields is a list of title"),
        ("table: t.csv\ntext_fields: title\n", r"c\.yaml: text_fields is a list of title"),
    ],
)
def test_wrong_cards(tmp_path, said, message):
    write(tmp_path / "t.csv", CSV)
    with pytest.raises(BenchError, match=message) as caught:
        own_card(write(tmp_path / "c.yaml", said))
    assert "\n" not in str(caught.value)


# --- odd values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.rstrip(b"\n"),
        lambda text: text + b"\n\n",
        lambda text: text.replace(b",", b" , "),
        lambda text: b"\n".join(b",".join(b'"' + part + b'"' for part in line.split(b",")) for line in text.split()),
    ],
    ids=["CRLF", "byte order mark", "no last line end", "empty lines at the end", "spaces", "quotes"],
)
def test_the_same_table_in_other_clothes(tmp_path, change):
    assert told(read(tmp_path, change(CSV.encode()))) == told(read(tmp_path, CSV))


@pytest.mark.parametrize("change", [lambda t: t.replace(b"\n", b"\r\n"), lambda t: b"\xef\xbb\xbf" + t])
def test_the_same_json_lines_in_other_clothes(tmp_path, change):
    text = json_lines(ROWS)
    assert told(read(tmp_path, change(text.encode()), "a.jsonl")) == told(read(tmp_path, text, "b.jsonl"))


def test_a_number_and_its_text_are_one_id(tmp_path):
    text = json_lines([{"user": 7, "item": 1}, {"user": "7", "item": 1.0}, {"user": 7.0, "item": "1"}])
    rows = read(tmp_path, text, "t.jsonl")
    assert (rows.user_tokens, rows.item_tokens) == (["7"], ["1"])
    long = read(tmp_path, json_lines([{"user": 2**70, "item": 1}, {"user": str(2**70), "item": 2}]), "l.jsonl")
    assert long.user_tokens == [str(2**70)]
    # An integer column with a gap becomes floats on its way through pandas.
    frame = pa.table({"user": pa.array([7.0, 8.0]), "item": pa.array(["1", "2"])})
    parquet.write_table(frame, tmp_path / "t.parquet")
    parquet.write_table(pa.table({"item": [1, 2], "title": ["One", "Two"]}), tmp_path / "t.items.parquet")
    rows = read_table(table_files(tmp_path / "t.parquet"))
    assert rows.user_tokens == ["7", "8"]
    assert rows.text["2"].title == "Two"


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_ids_in_parquet(tmp_path, missing):
    parquet.write_table(pa.table({"user": pa.array([7.0, missing]), "item": ["1", "2"]}), tmp_path / "t.parquet")
    with pytest.raises(BenchError, match=r"t\.parquet:2: the user id is empty"):
        read_table({"table": tmp_path / "t.parquet"})


def test_infinite_ratings_and_fine_times_in_parquet(tmp_path):
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"user": [1, 1], "item": [1, 2], "rating": [4.0, float("inf")]}), path)
    with pytest.raises(BenchError, match=r"t\.parquet:2: the rating 'inf' is not a number"):
        read_table({"table": path})
    stamps = pa.array([1_500_000_000_123_456_789], pa.timestamp("ns", "UTC"))
    parquet.write_table(pa.table({"user": [1], "item": [1], "time": stamps}), path)
    assert read_table({"table": path}).order.tolist() == [1_500_000_000.123456]
    parquet.write_table(pa.table({"user": [1], "item": [1], "time": pa.array([3], pa.time32("ms"))}), path)
    with pytest.raises(BenchError, match=r"the column 'time' \(time32\[ms\]\) holds no points in time"):
        read_table({"table": path})


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (["978300760", "978300100"], [978300760, 978300100]),
        (["978300760000", "978300100500"], [978300760, 978300100.5]),
        (["978300760000", "978300100"], [978300760, 978300100]),
        (["0", "978300100.5"], [0, 978300100.5]),
        (["2000-12-31", "2000-12-31T22:12:40+01:00"], [978220800, 978297160]),
    ],
    ids=["seconds", "milliseconds", "mixed", "fractions", "dates"],
)
def test_times(tmp_path, times, seconds):
    rows = read(tmp_path, "user,item,time\n" + "".join(f"u,{row},{time}\n" for row, time in enumerate(times)))
    assert rows.order.tolist() == seconds


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("-1", r"t\.csv:3: the time -1 lies before 1970; leave the line out"),
        ("-978300100000", r"t\.csv:3: the time -978300100000 lies before 1970"),
        ("97830010000000", r"t\.csv:3: the time 97830010000000 lies beyond 2100; times are Unix seconds, milli-"),
        ("", r"t\.csv:3: the time is empty"),
        ("nan", r"t\.csv:3: the time is 'nan', which stands for a missing value; leave the line out, or the column"),
    ],
)
def test_impossible_times(tmp_path, time, message):
    with pytest.raises(BenchError, match=message):
        read(tmp_path, f"user,item,time\nu,1,978300760\nu,2,{time}\n")


def test_dates_before_1970(tmp_path):
    with pytest.raises(BenchError, match=r"t\.csv:3: the time .* lies before 1970"):
        read(tmp_path, "user,item,date\nu,1,2001-02-03\nu,2,1900-01-01\n")
    stamps = pa.array([1, -86_400], pa.timestamp("s"))
    parquet.write_table(pa.table({"user": [1, 1], "item": [1, 2], "time": stamps}), tmp_path / "t.parquet")
    with pytest.raises(BenchError, match=r"t\.parquet:2: the time .* lies before 1970"):
        read_table({"table": tmp_path / "t.parquet"})


def test_ratings_written_as_text(tmp_path):
    rows = read(tmp_path, 'user,item,rating\nu,1,"4.0"\nu,2, 5 \nu,3,1e0\n')
    assert rows.ratings.tolist() == [4, 5, 1]
    assert rows.ratings.dtype == np.float32
    rows = read(tmp_path, json_lines([{"user": 1, "item": 2, "rating": "4.5"}]), "t.jsonl")
    assert rows.ratings.tolist() == [4.5]
    with pytest.raises(BenchError, match=r"t\.csv:2: the rating '4,5' is not a number"):
        read(tmp_path, 'user,item,rating\nu,1,"4,5"\n')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user,item\n1,2\n1,caf\u00e9\n".encode("latin-1"), r"t\.csv:3: not UTF-8 text; save the file as UTF-8"),
        ("user,item\n1,2\n".encode("utf-16-le"), r"t\.csv:1: a zero byte: UTF-16 text without a mark"),
        (b"user,item\n1,\n", r"t\.csv:2: the item id is empty"),
        (b'user,item\n1,"  "\n', r"t\.csv:2: the item id is empty"),
        (b"user,item\n1,2\n1\n", r"t\.csv:3: 1 fields instead of 2"),
    ],
)
def test_refused_text(tmp_path, content, message):
    with pytest.raises(BenchError, match=message):
        read(tmp_path, content)


def test_a_said_encoding_is_read(tmp_path):
    text = "user,item\n1,caf\u00e9\n"
    for encoding in ("latin-1", "utf-16", "UTF-8"):
        assert read(tmp_path, text.encode(encoding), encoding=encoding).item_tokens == ["caf\u00e9"]
    with pytest.raises(BenchError, match=r"unknown encoding 'latin-99'; write utf-8"):
        read(tmp_path, text, encoding="latin-99")
    with pytest.raises(BenchError, match=r"t\.csv:2: not ASCII text"):
        read(tmp_path, text, encoding="ascii")


def test_items_listed_twice_and_without_titles(tmp_path):
    table = write(tmp_path / "t.csv", "user,item\nu,a\nu,b\nu,c\n")
    items = write(tmp_path / "i.csv", "item,title,year\na,Alpha,1999\nb,,\na,Alpha,1999\n")
    rows = read_table({"table": table, "items": items})
    assert [rows.text[token].title for token in "ab"] == ["Alpha", ""]
    assert "c" not in rows.text
    write(items, "item,title\na,Alpha\na,Beta\n")
    with pytest.raises(BenchError, match=r"i\.csv:3: the item a appears twice with different text"):
        read_table({"table": table, "items": items})
