"""Further odd tables of every kind, each read as it was meant, or refused or told in one line."""

from __future__ import annotations

import pytest
from own_tables import prepared_by_card, read, told, write

from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError

PLAIN = [("u1", "b", 4.0, 978300760), ("u2", "a", 5.0, 978300700)]
ROWS = [["user", "item", "rating", "time"], ["u1", "b", "4", "978300760"], ["u2", "a", "5", "978300700"]]


def joined(separator: str, quote: str = "", end: str = "\n") -> str:
    return end.join(separator.join(f"{quote}{field}{quote}" for field in row) for row in ROWS) + end


@pytest.mark.parametrize(
    "content",
    [
        joined(", ", '"'),
        joined(" , ", '"'),
        joined(",\t", '"'),
        joined(" ,\t", '"'),
        joined(" , "),
        joined(",", '"', " \n"),
        'user, item, rating, time\n"u1", "b", 4, 978300760\n"u2", "a", 5, 978300700\n',
        'user,item,rating,time\n u1 ,"b" ,4,978300760\nu2, "a",5 ,978300700\n',
        joined(",", '"', "\r\n"),
        joined(",", "", "\x0c\n"),
        joined(",", "", "\r\r\n"),
        "\ufeff\ufeff" + joined(","),
        "sep=,\n" + joined(","),
        '"sep=;"\n' + joined(";"),
        joined(",").replace("\n", ",\n"),
    ],
)
def test_blanks_quotes_and_ends_that_mean_nothing(tmp_path, content):
    assert told(read(tmp_path, content)) == PLAIN


def test_blanks_beside_quotes_that_are_text_stay(tmp_path):
    rows = read(tmp_path, 'user,item\nu1,"he said, ""no"", twice"\nu1,"a ""b"" , c"\n')
    assert rows.item_tokens == ['he said, "no", twice', 'a "b" , c']


@pytest.mark.parametrize("sign", ["|", "^", "~", "\x01", " ", "\t", ";"])
def test_one_line_says_the_separator(tmp_path, sign):
    with pytest.raises(BenchError, match="is separated by"):
        read(tmp_path, joined(sign))


@pytest.mark.parametrize("sign", ["\u3000", ":", "\x1f", "/", "\u00a6", "\u2502", "<>", "\u001e"])
def test_no_separator_is_guessed(tmp_path, sign):
    with pytest.raises(BenchError, match=r"no (user|item) column among|is separated by"):
        read(tmp_path, joined(sign))


@pytest.mark.parametrize(
    "encoding", ["cp1252", "shift_jis", "gb18030", "cp500", "koi8-r", "big5", "utf-16-le", "utf-32-be"]
)
def test_an_encoding_is_refused_and_a_card_reads_it(tmp_path, encoding):
    word = {"shift_jis": "テ", "gb18030": "电", "big5": "電", "koi8-r": "Ж"}.get(encoding, "ü")
    content = joined(",").replace("u1", word).encode(encoding)
    with pytest.raises(BenchError, match=r"UTF-8|zero byte"):
        read(tmp_path, content)
    card = f"name: t\ntable: t.csv\nencoding: {encoding}\n"
    assert word in prepared_by_card(tmp_path, card, t_csv=content).user_tokens


@pytest.mark.parametrize(
    "word", ["N.A.", "n.a.", "#NULL!", "#VALUE!", "#REF!", "#DIV/0!", "#NAME?", "#NUM!", "#ERROR!", "<NA>", "\\N"]
)
def test_what_programs_write_for_no_value(tmp_path, word):
    for column in (0, 1, 2, 3):
        rows = [list(row) for row in ROWS]
        rows[1][column] = word
        with pytest.raises(BenchError, match="stands for a missing value"):
            read(tmp_path, "\n".join(",".join(row) for row in rows))
    rows = read(tmp_path, joined(","), items=("t.items.csv", f"item,title\na,{word}\nb,Film\n"))
    assert {token: text.title for token, text in rows.text.items()} == {"a": "", "b": "Film"}


@pytest.mark.parametrize(
    "rating",
    ["Infinity", "1/5", "4,5", "four", "4*", "★★★★", "1e400", "0x5", "٤", "½", "4_0", "$4", "80%", "like", "4.5/5"],
)
def test_a_rating_in_another_tongue_is_named(tmp_path, rating):
    with pytest.raises(BenchError, match=r"t\.csv:2: the rating .* is not a number"):
        read(tmp_path, f'user,item,rating\nu1,a,"{rating}"\nu2,a,5\n')


@pytest.mark.parametrize(
    "time",
    ["01/02/2001", "Jan 1, 2001", "2001-W01-1", "@978300760", "12:30", "2001-13-01", "1.1.2001", "978300760s",
     "Date(978300760000)", "637134336000000000", "132537600000000000", "4102444800", "-1"],
)  # fmt: skip
def test_a_time_that_could_be_misread_is_refused(tmp_path, time):
    with pytest.raises(BenchError, match=r"t\.csv:2: the time "):
        read(tmp_path, f'user,item,time\nu1,a,"{time}"\n')


@pytest.mark.parametrize("step", [36892, 2001, 2451910.5, 10101, 2000, 40000.25, 54321, 1, 0.5, 99999])
def test_days_years_and_places_are_an_order(tmp_path, step):
    table = write(tmp_path / "t.csv", "user,item,time\n" + "".join(f"u,i{n},{step + n}\n" for n in range(5)))
    assert not prepare(str(table)).has_times


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("caf\u00e9{}", "cafe\u0301{}"), ("{}", "\u200b{}"), ("{}", "tt{}"), ("{}", "http://x/{}"), ("a{}", "A{}"),
        ("{}x", "{}-x"), ("{}a", "'{}a"), ("x{}", "x0{}"), ("i_{}", "i-{}"), ("{}b", "{} b"), ("\uff11{}", "1{}"),
    ],
)  # fmt: skip
def test_items_under_other_names_are_refused(tmp_path, here, there):
    lines = [f"u{n % 3},{here.format(n % 7)},{1_600_000_000 + n}" for n in range(30)]
    table = write(tmp_path / "t.csv", "user,item,time\n" + "\n".join(lines))
    write(tmp_path / "t.items.csv", "item,title\n" + "\n".join(f"{there.format(n)},Film" for n in range(7)))
    with pytest.raises(BenchError, match="names none of the 7 items"):
        prepare(str(table))


@pytest.mark.parametrize("items", ["item,price\n0,1\n1,2\n", "item,title\n0,\n1,\n", "item,title\n0,NA\n1,-\n"])
def test_an_item_table_without_any_text_is_said(tmp_path, items, caplog):
    table = write(tmp_path / "t.csv", "user,item,time\n" + "\n".join(f"u,{n % 2},{10**9 + n}" for n in range(9)))
    write(tmp_path / "t.items.csv", items)
    with caplog.at_level("WARNING", logger="recllm_bench"):
        prepare(str(table))
    assert "no item has any text" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"), ("user,item,time\n", "no line of data"), ("\n\n\n", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"), ('[{"user": 1}]', "no line of data|no user column"),
        ("<html><body>x</body></html>", "no line of data|no user column"), ("user\nu1\n", "no item column"),
        ("item\ni1\n", "no user column"), ("user,item,item\nu,a,b\n", "two columns are named"),
        (b"PK\x03\x04" + b"\0" * 30, "zero byte|not UTF-8"),
    ],
)  # fmt: skip
def test_too_little_to_be_a_table(tmp_path, content, message):
    with pytest.raises(BenchError, match=message):
        read(tmp_path, content)
