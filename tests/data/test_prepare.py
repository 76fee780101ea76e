"""Every source format from small files, and every mistake a file can hold."""

from __future__ import annotations

import gzip
import json

import pytest
from source_files import CSV, MOVIES, RATINGS, dat_files, tokens_of, write

from recllm_bench.artifacts import MANIFEST
from recllm_bench.data.cards import default_store, find_card
from recllm_bench.data.facts import check
from recllm_bench.data.prepare import format_check, prepare
from recllm_bench.data.prepare.movielens import parse_title, read_dat, read_u
from recllm_bench.errors import BenchError


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch):
    monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)


# --- MovieLens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Shawshank Redemption, The (1994)", "Shawshank Redemption, The", 1994),
        ("Seven (Se7en) (1995)", "Seven (Se7en)", 1995),
        ("Land Before Time III (1995) (V)", "Land Before Time III", 1995),
        ("2001: A Space Odyssey (1968) ", "2001: A Space Odyssey", 1968),
        ("unknown", "unknown", 0),
        ("(1995)", "(1995)", 0),
    ],
)
def test_titles(text, title, year):
    assert parse_title(text) == (title, year)


def test_dat_files(tmp_path):
    rows = read_dat(dat_files(tmp_path))
    assert rows.user_tokens == ["7", "9"]
    assert rows.item_tokens == ["10", "20", "30"]
    assert rows.order.tolist() == [978300760, 978300100, 978300500, 978300760]
    assert rows.text["20"].title == "Mis\xe9rables, Les"
    assert rows.text["10"].categories == ("Animation", "Children's")
    assert rows.text["30"].categories == ()
    assert rows.text["30"].year == 0


def test_u_files(tmp_path):
    flags = "|".join("1" if k in (3, 5) else "0" for k in range(19))
    files = {
        "ratings": write(tmp_path / "u.data", "1\t2\t3\t881250949\n1\t1\t3\t881250940\n"),
        "items": write(
            tmp_path / "u.item", f"1|Toy Story (1995)|01-Jan-1995||http://x|{flags}\n2|Odd|05-Feb-1997|||{flags}\n"
        ),
    }
    rows = read_u(files)
    assert rows.text["1"].categories == ("Animation", "Comedy")
    assert (rows.text["2"].title, rows.text["2"].year) == ("Odd", 1997)


@pytest.mark.parametrize(
    ("ratings", "movies", "message"),
    [
        (RATINGS + "1::2::3\n", MOVIES, r"ratings\.dat:5: 3 fields instead of 4"),
        (RATINGS + "1::2::3::4::5\n", MOVIES, r"ratings\.dat:5: 5 fields instead of 4"),
        (RATINGS + "1::2::good::978300760\n", MOVIES, r"ratings\.dat:5: the rating 'good' is not a number"),
        (RATINGS + "1::2::3::\n", MOVIES, r"ratings\.dat:5: the timestamp '' is not a number"),
        ("7::10::5::978300760\n\n7::20::3::978300100\n", MOVIES, r"ratings\.dat:2: the user id is empty"),
        ("7::1\t0::5::978300760\n", MOVIES, r"ratings\.dat:1: a tab"),
        ("7::10::5::1\n7::20::3::2\n", MOVIES, r"ratings\.dat:1: the fourth field holds positions"),
        ("", MOVIES, r"ratings\.dat: the file is empty"),
        (RATINGS, MOVIES + "40::No genres\n", r"movies\.dat:4: 2 fields instead of 3"),
        (RATINGS, MOVIES + "10::Again (1990)::Drama\n", r"movies\.dat:4: the item 10 appears twice"),
        (RATINGS, "\n", r"movies\.dat: the file is empty"),
    ],
)
def test_malformed_movielens(tmp_path, ratings, movies, message):
    with pytest.raises(BenchError, match=message) as caught:
        read_dat(dat_files(tmp_path, ratings, movies))
    assert "\n" not in str(caught.value)


def test_order_variant_refuses_times(tmp_path):
    with pytest.raises(BenchError, match="holds Unix times"):
        read_dat(dat_files(tmp_path), times=False)


@pytest.mark.parametrize(
    "change", [lambda t: t.replace("\n", "\r\n"), lambda t: "\xef\xbb\xbf" + t, lambda t: t.rstrip("\n")]
)
def test_line_ends_and_byte_order_mark(tmp_path, change):
    plain = read_dat(dat_files(tmp_path / "a"))
    other = read_dat(dat_files(tmp_path / "b", change(RATINGS), change(MOVIES)))
    for name in ("users", "items", "order", "ratings"):
        assert getattr(plain, name).tolist() == getattr(other, name).tolist()
    assert plain.item_tokens == other.item_tokens
    assert plain.text == other.text


def test_truncated_gzip(tmp_path):
    whole = gzip.compress(RATINGS.encode() * 1000)
    path = write(tmp_path / "ratings.dat.gz", whole[: len(whole) // 2])
    with pytest.raises(BenchError, match=r"ratings\.dat\.gz: truncated or damaged gzip"):
        read_dat({"ratings": path, "items": dat_files(tmp_path)["items"]})
    with pytest.raises(BenchError, match="truncated or damaged gzip"):
        read_dat({"ratings": write(path, b"no gzip at all"), "items": dat_files(tmp_path)["items"]})


def test_a_known_name_with_other_content_is_refused(tmp_path):
    dat_files(tmp_path / "ml-1m")
    with pytest.raises(BenchError, match=r"ratings\.dat: wrong checksum.*ml1m, variant grouplens"):
        prepare(str(tmp_path / "ml-1m"))


def test_unexpected_counts_are_refused_and_nothing_is_kept(tmp_path, monkeypatch):
    from recllm_bench.data.prepare import sources

    dat_files(tmp_path / "ml-1m")
    card = json.loads(json.dumps(find_card("ml1m")))
    for entry in card["variants"][0]["files"].values():
        del entry["sha256"]
    monkeypatch.setattr(sources, "all_cards", lambda: {"ml1m": card})
    with pytest.raises(BenchError, match="users 2 instead of 6,040"):
        prepare(str(tmp_path / "ml-1m"))
    assert not list((default_store().root / "dataset").glob(f"*[!.partial]/{MANIFEST}"))
    card["expected"]["all"] = {"users": 2, "items": 3, "interactions": 4}
    prepared = prepare(str(tmp_path / "ml-1m"))
    assert [row.ok for row in check(prepared)[:3]] == [True] * 3
    assert "users" in format_check(prepared)
    assert "WRONG" not in format_check(prepared)


# --- sequence files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_sequences_keep_their_ids(tmp_path, packed):
    text = b"1 5 3 5\n2 1 2\n"
    path = write(tmp_path / ("Toys.txt.gz" if packed else "Toys.txt"), gzip.compress(text) if packed else text)
    prepared = prepare(str(path))
    assert prepared.name == "Toys"
    assert prepared.histories.of(1).tolist() == [5, 3, 5]
    assert prepared.histories.of(2).tolist() == [1, 2]
    assert prepared.histories.n_items == 5
    assert prepared.facts["items"] == 4
    assert not prepared.has_times
    assert prepared.user_tokens == ["", "1", "2"]


def test_pairs(tmp_path):
    prepared = prepare(str(write(tmp_path / "Video.txt", "1 4\n2 1\n1 2\n1 4\n")))
    assert prepared.variant == "pairs"
    assert prepared.histories.of(1).tolist() == [4, 2, 4]
    assert prepared.histories.of(2).tolist() == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 5 3 5\n2\n", r"t\.txt:2: the user has no items"),
        ("1 5 3 5\n2 0 1\n", r"t\.txt:2: the item id '0'"),
        ("1 5 3 5\n\n2 1 x\n", r"t\.txt:3: the item id 'x'"),
        ("1 5 3 5\n2 1 2.5\n", r"t\.txt:2: the item id '2\.5'"),
        ("1 5 3 5\n2 1 99999999999999999999\n", r"t\.txt:2: the item id '9+'"),
        ("1 5 3 5\n1 2 3\n", r"t\.txt:2: the user 1 appears twice"),
        ("1 5 3 5\n2 1 2000000\n", r"renumber them"),
        ("  \n", "the file is empty"),
    ],
)
def test_malformed_sequences(tmp_path, text, message):
    with pytest.raises(BenchError, match=message):
        prepare(str(write(tmp_path / "t.txt", text)))


# --- own tables ------------------------------------------------------------------------------------------------------


def test_csv_with_text_beside_it(tmp_path):
    path = write(tmp_path / "mine.csv", CSV)
    write(
        tmp_path / "mine.items.csv",
        'item,title,year,categories,description\na,"Alpha, the first",1999,Drama|War,"two\nlines"\nb,nan,,,\n',
    )
    prepared = prepare(str(path))
    assert tokens_of(prepared, 1) == ["a", "b"]
    assert prepared.histories.times.tolist() == [978300100, 978300760, 978300700]
    assert prepared.histories.ratings.tolist() == [3, 4, 5]
    catalogue = prepared.catalogue
    assert catalogue.titles == ["", "Alpha, the first", ""]
    assert "mine.items.csv: 1 field says 'nan'" in " ".join(prepared.facts["notes"])
    assert catalogue.years.tolist() == [0, 1999, 0]
    assert catalogue.categories == [(), ("Drama", "War"), ()]
    assert catalogue.descriptions == ["", "two lines", ""]
    assert prepared.has_times
    assert prepare(str(path), "min_rating=4").facts["interactions"] == 2
    assert prepare(str(path), "all").name == "mine"
    card = write(tmp_path / "words.yaml", "table: mine.csv\nmissing: []\n")
    assert prepare(str(card)).catalogue.titles[2] == "nan", "where a card says so, the word nan is a word"


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        (("978300760000", "978300100000"), [978300100, 978300760]),
        (("978300760.5", "978300100.25"), [978300100, 978300760]),
        (("2000-12-31T22:12:40Z", "2000-12-31"), [978220800, 978300760]),
    ],
)
def test_times_in_other_forms(tmp_path, stamps, expected):
    text = "user,item,time\n" + "".join(f"u,i{k},{stamp}\n" for k, stamp in enumerate(stamps))
    prepared = prepare(str(write(tmp_path / "t.csv", text)))
    assert prepared.histories.times.tolist() == expected
    assert tokens_of(prepared, 1) == ["i1", "i0"]


def test_parquet_with_nulls_in_its_text(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"uid": [3, 3, 8], "asin": ["x", "y", "x"], "timestamp": pd.to_datetime([2, 1, 3], unit="s")})
    frame.to_parquet(tmp_path / "p.parquet")
    prepared = prepare(str(tmp_path / "p.parquet"))
    assert tokens_of(prepared, 1) == ["y", "x"]
    assert prepared.histories.times.tolist() == [1, 2, 3]
    assert prepared.user_tokens == ["", "3", "8"]


def test_filters_without_ratings(tmp_path):
    text = "user,item\n" + "".join(f"u{u},i{k}\n" for u in range(3) for k in range(3 + u))
    path = str(write(tmp_path / "t.csv", text))
    prepared = prepare(path, "latentcrs")
    assert prepared.facts["users"] == 1
    assert "min_rating was left out" in prepared.facts["notes"][0]
    with pytest.raises(BenchError, match="no ratings"):
        prepare(path, "min_rating=4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("who,what\n1,2\n", r"t\.csv:1: no user column among who, what; name one of them 'user_id'"),
        ("user,thing\n1,2\n", r"no item column among user, thing"),
        ("user,user,item\n1,2,3\n", "two columns are named 'user'"),
        ("user,item,time\n1,2,3\n1,2\n", r"t\.csv:3: 2 fields instead of 3"),
        ("user,item,time\n1,2,3\n\n1,2,5\n", r"t\.csv:3: the user id is empty"),
        ("user,item,time\n1,2,3\n1,,5\n", r"t\.csv:3: the item id is empty"),
        ("user,item,time\n1,2,3\n1,2,soon\n", r"t\.csv:3: the time 'soon' is not a number"),
        ("user,item,time\n1,2,2001-01-01\n1,2,nan\n", r"t\.csv:2: the time|t\.csv:3: the time"),
        ("user,item,rating\n1,2,nan\n", r"t\.csv:2: the rating is 'nan', which stands for a missing value"),
        ("user,item\n", "header but no line"),
        ("", "the file is empty"),
        (b"user,item\n1,caf\xe9\n", r"t\.csv:2: not UTF-8 text"),
    ],
)
def test_malformed_csv(tmp_path, text, message):
    with pytest.raises(BenchError, match=message) as caught:
        prepare(str(write(tmp_path / "t.csv", text)))
    assert "\n" not in str(caught.value)


def test_not_a_parquet_file(tmp_path):
    with pytest.raises(BenchError, match="not a readable Parquet"):
        prepare(str(write(tmp_path / "t.parquet", "PAR1 no")))


def test_atomic_files(tmp_path):
    write(tmp_path / "shop/shop.inter", "user_id:token\titem_id:token\ttimestamp:float\nu1\tb\t20\nu1\ta\t10\n")
    write(tmp_path / "shop/shop.item", "item_id:token\ttitle:token_seq\tgenre:token_seq\na\tAn apple\tFruit Red\n")
    prepared = prepare(str(tmp_path / "shop"))
    assert tokens_of(prepared, 1) == ["a", "b"]
    assert prepared.catalogue.titles == ["", "An apple", ""]
    assert prepared.catalogue.categories[1] == ("Fruit", "Red")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.inter": "user_id\titem_id:token\n1\t2\n"}, r"a\.inter:1: the header field 'user_id' has no type"),
        ({"a.inter": "user_id:token\tx:token\n1\t2\n"}, "no item column among"),
        ({"a.inter": "user_id:token\titem_id:token\n1\t2\n", "b.inter": "x"}, "several .inter files"),
        ({"readme.md": "x"}, r"no \.inter file.*readme\.md"),
    ],
)
def test_malformed_atomic_files(tmp_path, files, message):
    for name, text in files.items():
        write(tmp_path / "shop" / name, text)
    with pytest.raises(BenchError, match=message):
        prepare(str(tmp_path / "shop"))
