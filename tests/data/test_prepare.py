"""Every source format from small files, and every mistake a file can hold."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.artifacts import MANIFEST
from recllm_bench.data.cards import all_cards, default_store, find_card, read_card
from recllm_bench.data.facts import count
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepare import canonical_name, check, filter_names, format_check, prepare
from recllm_bench.data.prepare.movielens import parse_title, read_dat, read_u
from recllm_bench.errors import BenchError

RATINGS = "7::10::5::978300760\n7::20::3::978300100\n9::10::4::978300500\n7::30::4::978300760\n"
MOVIES = (
    "10::Toy Story (1995)::Animation|Children's\n20::Mis\xe9rables, Les (1998)::Drama\n30::Odd::(no genres listed)\n"
)


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch):
    monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("latin-1"))
    return path


def dat_files(folder: Path, ratings=RATINGS, movies=MOVIES) -> dict[str, Path]:
    return {"ratings": write(folder / "ratings.dat", ratings), "items": write(folder / "movies.dat", movies)}


def tokens_of(prepared, user: int) -> list[str]:
    return [prepared.catalogue.tokens[item] for item in prepared.histories.of(user)]


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

CSV = "User ID,movieId,rating,Timestamp\nu1,b,4,978300760\nu2,a,5,978300700\nu1,a,3,978300100\n"


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
    assert catalogue.titles == ["", "Alpha, the first", "nan"], "the word nan in a file is a word"
    assert catalogue.years.tolist() == [0, 1999, 0]
    assert catalogue.categories == [(), ("Drama", "War"), ()]
    assert catalogue.descriptions == ["", "two lines", ""]
    assert prepared.has_times
    assert prepare(str(path), "min_rating=4").facts["interactions"] == 2
    assert prepare(str(path), "all").name == "mine"


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
        ("user,item,rating\n1,2,nan\n", r"t\.csv:2: the rating 'nan' is not a number"),
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


# --- names, filters, the store ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "filter", "message"),
    [
        ("ml-10k", "all", "unknown dataset 'ml-10k'. Did you mean 'ml-100k'"),
        ("", "all", "no dataset given"),
        ("./nowhere", "all", "no such file or folder"),
        ("data.csv", "all", "no such file or folder"),
        ("ml-100k", "latentcsr", "Did you mean 'latentcrs'"),
        ("ml-100k", "min_ratng=4", "Did you mean 'min_rating'"),
        ("ml-100k", "min_rating=", "key=value"),
    ],
)
def test_names_and_filters(name, filter, message):
    with pytest.raises(BenchError, match=message):
        prepare(name, filter)


def test_unknown_kinds_of_file(tmp_path):
    with pytest.raises(BenchError, match="not a known kind of data"):
        prepare(str(write(tmp_path / "a.xlsx", "x")))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x", "y")
    with pytest.raises(BenchError, match="an archive of no known dataset"):
        prepare(str(tmp_path / "a.zip"))


def test_a_mirror_that_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path / "none"))
    with pytest.raises(BenchError, match="RECLLM_DATA_MIRROR"):
        prepare("ml1m")


def test_a_truncated_archive_on_the_mirror(tmp_path, monkeypatch):
    write(tmp_path / "ml-1m.zip", "PK truncated")
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path))
    with pytest.raises(BenchError, match=r"ml-1m\.zip: wrong checksum"):
        prepare("ml1m")


def test_names():
    assert canonical_name("ML-1M") == canonical_name("MovieLens-1m") == "ml1m"
    assert filter_names("ml-1m") == ["all", "latentcrs", "cesrec", "relrec"]


def test_prepared_once_then_mapped(tmp_path):
    path = write(tmp_path / "mine.csv", CSV)
    first = prepare(str(path))
    stamp = (first.folder / MANIFEST).stat().st_mtime_ns
    second = prepare(str(path))
    assert second.folder == first.folder
    assert (second.folder / MANIFEST).stat().st_mtime_ns == stamp
    assert second.checksum == first.checksum
    assert second.catalogue.tokens == first.catalogue.tokens
    second.histories.items[0] = 7  # a private copy: the file stays as it is
    assert prepare(str(path)).histories.items[0] != 7
    path.write_text(CSV.replace("u2,a", "u2,b"))
    third = prepare(str(path))
    assert third.folder != first.folder
    assert third.checksum != first.checksum


def test_facts_count_by_hand():
    histories = Histories.from_rows([[1, 2, 2], [2]], n_items=5, times=[[1, 4, 4], [4]])
    facts = count(histories, ["", "a", "", "", "", "e"], 9)
    assert facts["users"] == 2
    assert facts["items"] == 2
    assert facts["interactions"] == 4
    assert facts["catalogue_items"] == 9
    assert facts["mean_length"] == 2
    assert (facts["min_length"], facts["max_length"]) == (1, 3)
    assert facts["sparsity"] == 0
    assert facts["items_with_text"] == 1
    assert facts["time_ties"] == 50


def test_cards_are_complete():
    from recllm_bench.data.interactions import read_filter
    from recllm_bench.data.prepare.pipeline import _filter_spec

    cards = all_cards()
    assert {"ml1m", "ml-100k", "s3rec-beauty", "s3rec-sports", "s3rec-yelp"} <= set(cards)
    for card in cards.values():
        for name in card["filters"]:
            read_filter(_filter_spec(card, name)[0], name)
        assert set(card.get("expected", {})) <= set(card["filters"])
        assert card["licence"]["notice"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n bad: [\n", r"c\.yaml:\d+: not valid YAML"),
        ("- a\n", "is a mapping"),
        ("name: x\n", "lacks title"),
    ],
)
def test_broken_cards(tmp_path, text, message):
    with pytest.raises(BenchError, match=message):
        read_card(write(tmp_path / "c.yaml", text))


def test_a_plugin_dataset(tmp_path, monkeypatch):
    """A package with a card, a data file and a reader of its own becomes a dataset by name."""
    import importlib.metadata

    package = tmp_path / "plugged_data"
    write(package / "__init__.py", "")
    write(
        package / "source.py",
        "import numpy as np\n"
        "from recllm_bench.data.interactions import Interactions\n"
        "def read(files):\n"
        "    users = files['log'].read_text().split()\n"
        "    n = len(users)\n"
        "    return Interactions(np.zeros(n, int), np.arange(n), ['u'], users)\n"
        "CARD = dict(name='plugged', title='Plugged', domain='thing', licence=dict(name='free', notice=''),\n"
        "            reader='plugged_data.source:read', filters=dict(all={}),\n"
        "            variants=[dict(name='own', package='plugged_data', files=dict(log=dict(path='log.txt')))])\n",
    )
    write(package / "log.txt", "a b c")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("plugged", "plugged_data.source:CARD", "recllm_bench.datasets")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda **select: [point] if select["group"] == point.group else []
    )
    prepared = prepare("plugged")
    assert tokens_of(prepared, 1) == ["a", "b", "c"]
    assert prepared.catalogue.domain == "thing"


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from recllm_bench.data.listing import dataset_table, listed_datasets;"
        "from recllm_bench.data.prepare import canonical_name; dataset_table(listed_datasets());"
        "canonical_name('ml1m'); print([m for m in ('torch', 'recbole', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.strip() == "[]"


def test_recbole_is_found_without_being_imported():
    pytest.importorskip("recbole")
    code = (
        "import sys; from recllm_bench.data.prepare import prepare; prepare('ml-100k'); print('recbole' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert out.stdout.strip() == "False"


def test_embedded_ml100k():
    pytest.importorskip("recbole")
    prepared = prepare("ml-100k")
    assert (prepared.variant, prepared.has_times) == ("recbole-wheel", True)
    assert [row.ok for row in check(prepared)[:3]] == [True] * 3
    times, owners = np.asarray(prepared.histories.times), prepared.histories.users_of_positions()
    assert (np.diff(times)[owners[1:] == owners[:-1]] >= 0).all()
    assert "nan" not in {title.lower() for title in prepared.catalogue.titles}


def test_archive_from_path_mirror_and_download(tmp_path, monkeypatch):
    """The zip of a dataset gives the same data from a path, from a mirror folder, and from an address."""
    import hashlib
    import http.server
    import threading
    from functools import partial

    from recllm_bench.data.prepare import sources

    place = tmp_path / "place"
    place.mkdir()
    with zipfile.ZipFile(place / "tiny.zip", "w") as file:
        file.writestr("ml-1m/ratings.dat", RATINGS)
        file.writestr("ml-1m/movies.dat", MOVIES.encode("latin-1"))
    card = json.loads(json.dumps(find_card("ml1m")))
    card.update(name="tiny", aliases=[], expected={}, variants=card["variants"][:1])
    for entry in card["variants"][0]["files"].values():
        del entry["sha256"]
    digest = hashlib.sha256((place / "tiny.zip").read_bytes()).hexdigest()
    card["variants"][0]["archive"] = {"url": "http://127.0.0.1:9/tiny.zip", "checksums": {"sha256": digest}}
    monkeypatch.setattr(sources, "all_cards", lambda: {"tiny": card})
    monkeypatch.setattr(sources, "find_card", lambda name: card)

    by_path = prepare(str(place / "tiny.zip"))
    assert by_path.has_times
    assert tokens_of(by_path, 1) == ["20", "10", "30"]
    checksums = {by_path.checksum}
    for route in ("folder", "mirror address", "owner address"):
        monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / route))
        monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(place))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_address[1]}"
            if route == "folder":
                monkeypatch.setenv("RECLLM_DATA_MIRROR", str(place))
            elif route == "mirror address":
                monkeypatch.setenv("RECLLM_DATA_MIRROR", address)
            else:
                card["variants"][0]["archive"]["url"] = f"{address}/tiny.zip"
            checksums.add(prepare("tiny").checksum)
            server.shutdown()
        assert prepare("tiny").checksum in checksums, "the second call needs no network"
    assert len(checksums) == 1
