"""Delimited text in every form that people have: separators, quotes, encodings, line ends, no header."""

from __future__ import annotations

import gzip

import pytest
from own_tables import CSV, ROWS, prepared_by_card, read, told, write

from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError

# --- separators ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "sign"),
    [
        ('"::"', "::"),
        ('"||"', "||"),
        ('" | "', " | "),
        ('"\\t"', "\t"),
        ("tab", "\t"),
        ("'\\t'", "\t"),
        (";", ";"),
        ("'|'", "|"),
        ("semicolon", ";"),
        ("'<=>'", "<=>"),
        ("\u00a6", "\u00a6"),
        ("'~^~'", "~^~"),
    ],
)
def test_any_separator_that_a_card_names(tmp_path, said, sign):
    prepared = prepared_by_card(tmp_path, f"table: t.csv\ndelimiter: {said}\n", t_csv=CSV.replace(",", sign))
    assert prepared.catalogue.tokens == ["", "a", "b"]
    assert prepared.histories.times.tolist() == [978300100, 978300760, 978300700]


def test_a_long_separator_inside_quotes_is_text(tmp_path):
    items = 'item::title\na::"Alpha :: Beta"\nb::Be:ta\n'
    rows = read(tmp_path, CSV.replace(",", "::"), items=("t.items.csv", items), delimiter="::")
    assert rows.text["a"].title == "Alpha :: Beta"
    assert rows.text["b"].title == "Be:ta"


@pytest.mark.parametrize("sign", [";", "|", "\t", "::", "^", " ", "~"])
def test_another_separator_is_named_with_its_mend(tmp_path, sign):
    shown = {"\t": "\\t"}.get(sign, sign)
    with pytest.raises(BenchError) as caught:
        read(tmp_path, CSV.replace(",", sign))
    assert f"is separated by '{shown}', not by ','" in str(caught.value)
    assert f'delimiter: "{shown}"' in str(caught.value)
    # What the message says to write is written, and works.
    card = f'table: t.csv\ndelimiter: "{shown}"\n'
    assert prepared_by_card(tmp_path, card).catalogue.tokens == ["", "a", "b"]


def test_the_mend_for_a_table_of_items_is_its_own_key(tmp_path):
    write(tmp_path / "t.csv", CSV)
    write(tmp_path / "t.items.csv", "item;title\na;Alpha, the first\nb;Beta\n")
    with pytest.raises(
        BenchError, match=r't\.items\.csv:1: .* write in the card of the interactions: item_delimiter: ";"'
    ):
        prepare(str(tmp_path / "t.csv"))
    prepared = prepared_by_card(tmp_path, 'table: t.csv\nitem_delimiter: ";"\n')
    assert prepared.catalogue.titles == ["", "Alpha, the first", "Beta"]


def test_a_header_of_unknown_names_with_another_separator(tmp_path):
    """As in Book-Crossing: not one name is known, and still the separator is what is wrong."""
    with pytest.raises(BenchError, match=r"separated by ';', not by ','"):
        read(tmp_path, '"User-ID";"ISBN";"Book-Rating"\n"u1";"i4";"4"\n')
    said = "table: t.csv\ndelimiter: ;\ncolumns: {item: ISBN, rating: Book-Rating}\n"
    assert prepared_by_card(tmp_path, said).catalogue.tokens == ["", "i4"]


def test_a_comma_in_a_tsv_and_in_an_atomic_file(tmp_path):
    with pytest.raises(BenchError, match=r"t\.tsv:1: .* separated by ',', not by '\\t'"):
        read(tmp_path, CSV, "t.tsv")
    write(tmp_path / "a/a.inter", "user_id:token,item_id:token\nu,i\n")
    with pytest.raises(BenchError, match=r"a\.inter:1: .*fields are separated by tabs"):
        prepare(str(tmp_path / "a"))


def test_a_spreadsheet_says_its_separator(tmp_path):
    assert told(read(tmp_path, "sep=;\r\n" + CSV.replace(",", ";").replace("\n", "\r\n"))) == ROWS
    with pytest.raises(BenchError, match=r"t\.csv:4: the item id is empty"):
        read(tmp_path, "sep=;\n" + "user;item\nu;1\nu;\n")


def test_semicolons_in_a_field_are_no_separators(tmp_path):
    rows = read(tmp_path, CSV, items=("t.items.csv", "item,title,a;b;c;d\na,x;y;z;w;v,1\nb,Beta,2\n"))
    assert rows.text["a"].title == "x;y;z;w;v"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("delimiter: 1", r"delimiter is one sign or a few in quotes, such as ';' or '::', not 1"),
        ("delimiter: ''", r"delimiter is one sign or a few in quotes"),
        ("delimiter: [a]", r"delimiter is one sign or a few in quotes.* not \['a'\]"),
        ("delimiter: a", r"delimiter is no letter and no digit"),
        ("delimiter: '5'", r"delimiter is no letter and no digit"),
        ("delimiter: '\"'", r"delimiter is one sign"),
        ('delimiter: "\\n"', r"delimiter is one sign"),
        ("delimiter: '123456789'", r"delimiter is one sign"),
        ("text_fields: [[a]]", r"text_fields is a list of title, .*, not \[\['a'\]\]"),
        ("text_fields: [{a: b}]", r"text_fields is a list of title"),
        ("text_fields: []", r"text_fields is a list of title"),
        ("names: user", r"names is a list of texts, each once, such as \[user_id, item_id\]; got 'user'"),
        ("names: [user, 1]", r"names is a list of texts"),
        ("names: [user, user]", r"names is a list of texts, each once"),
        ("missing: NA", r"missing is a list of texts"),
        ("encoding: 5", r"encoding is a text, not 5"),
        ("quoting: some", r"quoting is one of fields, lines, none, not 'some'"),
        ("items: [a]", r"items is a text, not \['a'\]"),
        ("name: {a: b}", r"name is a text"),
        ('delimiter: "\\ud800,"', r"not valid YAML"),
        ("title: 2001-13-45", r"not valid YAML"),
        ("title: &a [*a]", r"not valid YAML"),
        ("title: \x01", r"not valid YAML"),
        ("title: " + "[" * 2000, r"not valid YAML"),
        ("items: " + "9" * 400 + ".csv", r"items: no such file"),
        ('"a\\nb": c', r"unknown key 'a\\nb'"),
        ("? [a]: b", r"unknown key|not valid YAML"),
        ("columns: {user: [a]}", r"columns: the column of 'user' is a name, not \['a'\]"),
    ],
)
def test_wrong_values_in_a_card(tmp_path, said, message):
    with pytest.raises(BenchError, match=rf"card\.yaml:(\d+:)? {message}") as caught:
        prepared_by_card(tmp_path, f"table: t.csv\n{said}\n", t_csv=CSV)
    assert "\n" not in str(caught.value)


# --- quotes ----------------------------------------------------------------------------------------------------------

ITEMS = ("a", "b", "c", "d", "e")
TABLE = "user,item\n" + "".join(f"u,{item}\n" for item in ITEMS)


def titles(tmp_path, kind: str, lines: list[str], **options) -> dict[str, str]:
    sign = "\t" if kind == "tsv" else ","
    text = f"item{sign}title\n" + "".join(f"{line}\n" for line in lines).replace("|", sign)
    rows = read(tmp_path, TABLE, items=(f"t.items.{kind}", text), **options)
    assert set(rows.text) == set(ITEMS)
    return {token: item.title for token, item in rows.text.items()}


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (['"Heroes', "Two", '"Heroes 4', "Four", "Five"], ['"Heroes', "Two", '"Heroes 4', "Four", "Five"]),
        (["One", '"Two', "Three", "Four", "Five"], ["One", '"Two', "Three", "Four", "Five"]),
        (["One", '"Two" more', "Three", "Four", "Five"], ["One", '"Two" more', "Three", "Four", "Five"]),
        (["One", '"Two', "Three", "Four", "Five" + '"s'], ["One", '"Two', "Three", "Four", 'Five"s']),
        (['"One"', '"Two', '"Three ""3"""', "Four", "Five"], ["One", '"Two', 'Three "3"', "Four", "Five"]),
        (["One", "Two", "Three", "Four", '"'], ["One", "Two", "Three", "Four", '"']),
        (['"A \\"real\\" one"', "Two", "Three", "Four", "Five"], ['A "real" one', "Two", "Three", "Four", "Five"]),
        (['5" disk', "Two", 'a 3" one', "Four", "Five"], ['5" disk', "Two", 'a 3" one', "Four", "Five"]),
    ],
    ids=["two open", "one open", "text behind", "one inside", "open among closed", "alone", "backslash", "inches"],
)
def test_a_quote_that_does_not_close_swallows_nothing(tmp_path, kind, said, expected):
    found = titles(tmp_path, kind, [f"{item}|{title}" for item, title in zip(ITEMS, said, strict=True)])
    assert list(found.values()) == expected


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_rows_that_a_quoted_field_would_swallow_whole(tmp_path, kind):
    """The quotes of two titles make one proper field: nothing but its lines tells."""
    lines = ["a|One", 'b|"Two', "c|Three", 'd|Four"', "e|Five"]
    with pytest.raises(BenchError, match=r"t\.items\.\w+:3: a field in quotes holds whole lines .*'quoting: lines'"):
        titles(tmp_path, kind, lines)
    assert titles(tmp_path, kind, lines, quoting="lines")["d"] == 'Four"'
    assert titles(tmp_path, kind, lines, quoting="none")["b"] == '"Two'


def test_text_that_spans_lines_is_text(tmp_path):
    items = 'item,title,description\na,Alpha,"One, two\nthree\n\nfour"\nb,"Be ""ta""","x\ny, z"\n'
    rows = read(tmp_path, CSV, items=("t.items.csv", items))
    assert rows.text["a"].description == "One, two three four"
    assert rows.text["b"].title == 'Be "ta"'
    # Beside an inch sign inside a field, which is no quote.
    rows = read(tmp_path, CSV, items=("t.items.csv", 'item,title\na,5" disk\nb,"two\nlines"\n'))
    assert [rows.text[item].title for item in "ab"] == ['5" disk', "two lines"]


def test_quotes_that_cannot_be_told_apart_are_refused(tmp_path):
    items = 'item,title,note\na,"Alpha, first,x\nb,"Be,ta",y\n'
    with pytest.raises(BenchError, match=r"t\.items\.csv:2: a quote opens here and does not close .*'quoting: none'"):
        read(tmp_path, CSV, items=("t.items.csv", items))


def test_open_quotes_in_the_interactions(tmp_path):
    rows = read(tmp_path, 'user,item,time\n"ann,a,978300100\nbob,b,978300200\n"cid,a,978300300\n')
    assert rows.user_tokens == ['"ann', "bob", '"cid']
    assert rows.notes == ("quotes that do not close (t.csv:2) were read as text",)


# --- encodings and line ends -----------------------------------------------------------------------------------------

ENDS = {
    "LF": lambda text: text,
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR alone": lambda text: text.replace("\n", "\r"),
    "CRLF twice": lambda text: text.replace("\n", "\r\r\n"),
    "mixed": lambda text: text.replace("\n", "\r\n", 1).replace("0\n", "0\r"),
    "CR, then LF": lambda text: text.replace("\n", "\r", 2),
    "CR and no end": lambda text: text.rstrip("\n").replace("\n", "\r"),
}


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "csv.gz"])
def test_line_ends(tmp_path, ends, kind):
    if kind == "jsonl":
        text = "".join(
            f'{{"user": "{user}", "item": "{item}", "rating": {rating}, "time": {time}}}\n'
            for user, item, rating, time in ROWS
        )
    else:
        text = CSV.replace(",", "\t") if kind == "tsv" else CSV
    data = ends(text).encode()
    rows = read(tmp_path, gzip.compress(data) if kind.endswith("gz") else data, f"t.{kind}")
    assert told(rows) == ROWS


@pytest.mark.parametrize("ends", ["\r", "\r\n", "\r\r\n"])
def test_line_ends_of_other_own_files(tmp_path, ends):
    write(tmp_path / "s.txt", "1 2 3 4\n2 3 4 5\n".replace("\n", ends))
    assert prepare(str(tmp_path / "s.txt")).facts["users"] == 2
    write(tmp_path / "p.txt", "1 2\n1 3\n2 3\n".replace("\n", ends))
    assert prepare(str(tmp_path / "p.txt")).facts["interactions"] == 3
    atomic = "user_id:token\titem_id:token\nu\ta\nu\tb\n"
    write(tmp_path / "a/a.inter", atomic.replace("\n", ends))
    assert prepare(str(tmp_path / "a")).facts["interactions"] == 2


def test_a_wrong_line_is_found_whatever_the_line_ends(tmp_path):
    for ends in ("\n", "\r", "\r\n"):
        with pytest.raises(BenchError, match=r"t\.csv:3: the item id is empty"):
            read(tmp_path, "user,item\nu,1\nu,\nu,3\n".replace("\n", ends))


NAMES = "user,item\nJos\u00e9,\u00dcbung\nAnna,caf\u00e9\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le+mark", "utf-16-be+mark"])
def test_an_encoding_that_the_file_says_itself(tmp_path, encoding):
    plain, _, mark = encoding.partition("+")
    rows = read(tmp_path, (("\ufeff" if mark else "") + NAMES).encode(plain))
    assert rows.user_tokens == ["Jos\u00e9", "Anna"]
    assert rows.item_tokens == ["\u00dcbung", "caf\u00e9"]


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("latin-1", r"t\.csv:2: not UTF-8 text; .*encoding: latin-1"),
        ("cp1252", r"t\.csv:2: not UTF-8 text"),
        ("utf-16-le", r"t\.csv:1: a zero byte: UTF-16 text without a mark .*'encoding: utf-16-le'"),
        ("utf-16-be", r"t\.csv:1: a zero byte"),
        ("utf-32-le", r"t\.csv:1: a zero byte"),
    ],
)
def test_an_encoding_that_nothing_says_is_named_and_a_card_reads_it(tmp_path, encoding, message):
    with pytest.raises(BenchError, match=message):
        read(tmp_path, NAMES.encode(encoding))
    prepared = prepared_by_card(tmp_path, f"table: t.csv\nencoding: {encoding}\n")
    assert prepared.catalogue.tokens == ["", "\u00dcbung", "caf\u00e9"]


def test_tables_in_two_encodings(tmp_path):
    write(tmp_path / "t.csv", CSV)
    write(tmp_path / "t.items.csv", "item,title\na,Caf\u00e9\nb,Be\n".encode("latin-1"))
    with pytest.raises(BenchError, match=r"t\.items\.csv:2: not UTF-8 text"):
        prepare(str(tmp_path / "t.csv"))
    assert prepared_by_card(tmp_path, "table: t.csv\nitem_encoding: latin-1\n").catalogue.titles[1] == "Caf\u00e9"


def test_no_text_at_all(tmp_path):
    with pytest.raises(BenchError, match=r"t\.csv:1: a zero byte"):
        read(tmp_path, b"user,item\0\n1,2\n")
    with pytest.raises(BenchError, match=r"t\.csv:3: a zero byte"):
        read(tmp_path, b"user,item\n1,2\n1,\0\n")


# --- files without a header ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    ["u1,i4,4,1000001000", "A2CMX45JPSCTUJ,0528881469,5.0,1382659200", "1,2,3,4", "5,5,3,881250949", "u1,i1,0.5,0"],
)
def test_a_first_line_that_is_a_row_is_named_and_a_card_gives_names(tmp_path, first):
    rest = "u9,i9,4,1000001001\n"
    with pytest.raises(BenchError, match=r"t\.csv:1: the first line \(.*\) is a row, no header; .* names: \[user_id"):
        read(tmp_path, f"{first}\n{rest}")
    prepared = prepared_by_card(tmp_path, "table: t.csv\nnames: [user_id, item_id, rating, timestamp]\n")
    user, item, rating, _ = first.split(",")
    assert (prepared.user_tokens[1], prepared.catalogue.tokens[1]) == (user, item)
    assert prepared.histories.ratings.tolist() == [float(rating), 4]


def test_names_in_a_card_go_with_everything_else_in_it(tmp_path):
    said = (
        "table: t.dat.csv\ndelimiter: '::'\nnames: [who, what, x, when]\ncolumns: {user: who, item: what, time: when}\n"
    )
    write(tmp_path / "t.dat.csv", "1::10::5::978300760\n2::20::4::978300761\n")
    write(tmp_path / "i.csv", "10::Alpha\n20::Beta\n")
    prepared = prepared_by_card(tmp_path, said + "items: i.csv\nitem_names: [item, title]\n")
    assert prepared.catalogue.titles == ["", "Alpha", "Beta"]
    assert prepared.has_times


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("names: [user, item]", r"t\.csv:1: 4 fields, but the card names 2; name every column"),
        ("names: [who, item, rating, time]", r"no user column among who, item, rating, time"),
    ],
)
def test_names_that_do_not_fit(tmp_path, said, message):
    with pytest.raises(BenchError, match=message):
        prepared_by_card(tmp_path, f"table: t.csv\n{said}\n", t_csv="\n".join(CSV.splitlines()[1:]))
    with pytest.raises(BenchError, match=r"names are for delimited text without a header"):
        prepared_by_card(tmp_path, "table: t.jsonl\nnames: [a]\n", t_jsonl="{}\n")


def test_a_line_number_counts_from_the_first_line_without_header(tmp_path):
    with pytest.raises(BenchError, match=r"t\.csv:2: the item id is empty"):
        read(tmp_path, "u,1\nu,\n", names=["user", "item"])


def test_the_mend_for_names_that_are_not_known(tmp_path):
    with pytest.raises(BenchError, match=r"no item column among user, ware; .*'columns: \{item: NAME\}'"):
        read(tmp_path, "user,ware\nu,1\n")
    assert prepared_by_card(tmp_path, "table: t.csv\ncolumns: {item: ware}\n").catalogue.tokens == ["", "1"]
    write(tmp_path / "t.items.csv", "ware,title\n1,One\n")
    with pytest.raises(BenchError, match=r"no item column among ware, title; .*'item_columns: \{item: NAME\}'"):
        prepared_by_card(tmp_path, "table: t.csv\ncolumns: {item: ware}\n")
    said = "table: t.csv\ncolumns: {item: ware}\nitem_columns: {item: ware}\n"
    assert prepared_by_card(tmp_path, said).catalogue.titles == ["", "One"]


def test_odd_headers(tmp_path):
    with pytest.raises(BenchError, match=r"t\.csv:1: the first line is empty; delete it"):
        read(tmp_path, "\nuser,item\nu,1\n")
    with pytest.raises(BenchError, match=r"t\.csv:1: which is the user: user_id or User ID\?"):
        read(tmp_path, "user_id,User ID,item\n1,2,3\n")
    assert read(tmp_path, "user_id,User ID,item\n1,2,3\n", columns={"user": "User ID"}).user_tokens == ["2"]
