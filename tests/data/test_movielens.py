"""MovieLens in all its public forms: what is read, and what a mistake in a file says."""

from __future__ import annotations

import csv
import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.data.cards import all_cards
from recllm_bench.data.facts import check
from recllm_bench.data.prepare import movielens as ml
from recllm_bench.data.prepare import prepare
from recllm_bench.errors import BenchError

CSV = "userId,movieId,rating,timestamp\n7,10,3.5,978300760\n7,20,0.5,978300100\n9,10,4,978300500\n"
MOVIES = (
    'movieId,title,genres\n10,"American President, The (1995)",Comedy|Drama\n'
    "20,Fawlty Towers (1975\u20131979),Comedy\n30,Hyena Road,(no genres listed)\n"
)
DAT = "7::10::3.5::978300760\n7::20::0.5::978300100\n9::10::4::978300500\n"
DAT_MOVIES = "10::Toy Story (1995)::Animation|Comedy\n20::Mis\u00e9rables, Les (1998)::Drama\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def csv_files(folder: Path, ratings: str | bytes = CSV, movies: str | bytes = MOVIES) -> dict[str, Path]:
    return {"ratings": write(folder / "ratings.csv", ratings), "items": write(folder / "movies.csv", movies)}


def same(one, other) -> None:
    for name in ("users", "items", "order", "ratings"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert (one.user_tokens, one.item_tokens) == (other.user_tokens, other.item_tokens)
    assert one.text == other.text


@pytest.mark.parametrize(
    ("text", "title", "year"),
    [
        ("Big Bang Theory, The (2007-)", "Big Bang Theory, The", 2007),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
        ("War (2006\u20132007) ", "War", 2006),
        ("Hyena Road", "Hyena Road", 0),
        ("2001 (a film)", "2001 (a film)", 0),
    ],
)
def test_titles_with_a_span_of_years(text, title, year):
    assert ml.parse_title(text) == (title, year)


def test_csv_files(tmp_path):
    rows = ml.read_csv(csv_files(tmp_path))
    assert (rows.user_tokens, rows.item_tokens) == (["7", "9"], ["10", "20"])
    assert (rows.users.tolist(), rows.items.tolist()) == ([0, 0, 1], [0, 1, 0])
    assert rows.order.tolist() == [978300760, 978300100, 978300500]
    assert rows.ratings.tolist() == [3.5, 0.5, 4]
    assert rows.has_times
    assert (rows.text["10"].title, rows.text["10"].year) == ("American President, The", 1995)
    assert rows.text["10"].categories == ("Comedy", "Drama")
    assert (rows.text["20"].title, rows.text["20"].year) == ("Fawlty Towers", 1975)
    assert (rows.text["30"].year, rows.text["30"].categories) == (0, ())


def test_columns_in_another_order_and_quotes(tmp_path):
    turned = '"timestamp","userId","rating","movieId"\n'
    for line in CSV.splitlines()[1:]:
        user, item, rating, time = line.split(",")
        turned += f'"{time}","{user}","{rating}","{item}"\n'
    same(ml.read_csv(csv_files(tmp_path / "a")), ml.read_csv(csv_files(tmp_path / "b", turned)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.rstrip(b"\n"),
        lambda text: text + b"\r\n\r\n",
    ],
    ids=["CRLF", "byte order mark", "no last line end", "empty lines at the end"],
)
def test_line_ends_and_byte_order_mark(tmp_path, change):
    changed = csv_files(tmp_path / "b", change(CSV.encode()), change(MOVIES.encode()))
    same(ml.read_csv(csv_files(tmp_path / "a")), ml.read_csv(changed))


def test_small_pieces_give_the_same(tmp_path, monkeypatch):
    """Where a large file is cut into pieces must not show: neither in the rows nor in the line of a mistake."""
    lines = [f"{user},{10 + user % 3},{user % 5 + 1},{978300000 + user}" for user in range(1, 60)]
    text = "userId,movieId,rating,timestamp\n" + "\n".join(lines) + "\n"
    whole = ml.read_csv(csv_files(tmp_path / "a", text))
    monkeypatch.setattr(ml, "_PIECE_BYTES", 64)
    same(whole, ml.read_csv(csv_files(tmp_path / "b", text)))
    broken = csv_files(tmp_path / "c", text.replace(lines[40], "41,12,good,978300041"))
    with pytest.raises(BenchError, match=r"ratings\.csv:42: the rating 'good' is not a number"):
        ml.read_csv(broken)


@pytest.mark.parametrize(
    ("ratings", "movies", "message"),
    [
        (CSV + "1,2,3\n", MOVIES, r"ratings\.csv:5: 3 fields instead of 4"),
        (CSV + "1,2,,978300500\n", MOVIES, r"ratings\.csv:5: the rating '' is not a number"),
        (CSV + "1,2,nan,978300500\n", MOVIES, r"ratings\.csv:5: the rating 'nan' is not a number"),
        (CSV + "1,2,3,-1\n", MOVIES, r"ratings\.csv:5: the time -1 lies before 1970"),
        (CSV + "1,,3,978300500\n", MOVIES, r"ratings\.csv:5: the item id is empty"),
        (CSV + "u1,2,3,978300500\n", MOVIES, r"ratings\.csv:5: the user id 'u1' is not a number"),
        (CSV + "1.5,2,3,978300500\n", MOVIES, r"ratings\.csv:5: the user id '1.5' is not a whole number"),
        (CSV.replace("\n9", "\n\n9"), MOVIES, r"ratings\.csv:4: the user id is empty"),
        (CSV.replace("timestamp", "when"), MOVIES, r"ratings\.csv:1: no column timestamp among userId, movieId"),
        ("userId,movieId,rating,timestamp\n", MOVIES, r"ratings\.csv: the file has a header but no line"),
        (CSV, MOVIES + "10,Other (1990),Drama\n", r"movies\.csv:5: the item 10 appears twice with different text"),
        (CSV, MOVIES + ",Other (1990),Drama\n", r"movies\.csv:5: the item id is empty"),
        (CSV, MOVIES.encode() + b"40,Caf\xe9,Drama\n", r"movies\.csv:5: not UTF-8 text"),
        (CSV.encode("utf-16-le"), MOVIES, r"ratings\.csv:1: no column userId among"),
    ],
)
def test_malformed_csv(tmp_path, ratings, movies, message):
    with pytest.raises(BenchError, match=message) as caught:
        ml.read_csv(csv_files(tmp_path, ratings, movies))
    assert "\n" not in str(caught.value)


def test_a_movie_listed_twice_alike_is_one_movie(tmp_path):
    twice = MOVIES + MOVIES.splitlines()[1] + "\n"
    same(ml.read_csv(csv_files(tmp_path / "a")), ml.read_csv(csv_files(tmp_path / "b", CSV, twice)))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_dat_files_in_both_encodings(tmp_path, encoding):
    """The movie table of 1M is latin-1, that of 10M is UTF-8; ratings of 10M have half stars."""
    files = {
        "ratings": write(tmp_path / "ratings.dat", DAT),
        "items": write(tmp_path / "movies.dat", DAT_MOVIES.encode(encoding)),
    }
    rows = ml.read_dat(files, encoding=encoding)
    assert rows.text["20"].title == "Mis\u00e9rables, Les"
    assert rows.ratings.tolist() == [3.5, 0.5, 4]


def test_plots_become_descriptions_of_known_movies_only(tmp_path):
    def plot(movie: int, text: str) -> str:
        return f"{movie}::T::1995::G::-::Drama::A::B::C::{text}::http://x\r\n"

    files = {
        "ratings": write(tmp_path / "ratings.dat", DAT),
        "items": write(tmp_path / "movies.dat", DAT_MOVIES.encode("latin-1")),
    }
    plain = ml.read_dat(files)
    files["plots"] = write(tmp_path / "plots.dat", plot(10, "A caf\u00e9.") + plot(20, "N/A") + plot(99, "Other."))
    told = ml.read_dat(files)
    assert {token: text.description for token, text in told.text.items()} == {"10": "A caf\u00e9.", "20": ""}
    assert told.item_tokens == plain.item_tokens
    assert [(text.title, text.year, text.categories) for text in told.text.values()] == [
        (text.title, text.year, text.categories) for text in plain.text.values()
    ]
    write(files["plots"], plot(10, "A :: B"))
    with pytest.raises(BenchError, match=r"plots\.dat:1: 12 fields instead of 11"):
        ml.read_dat(files)


def test_an_unpacked_folder_is_known_by_its_name(tmp_path, monkeypatch):
    """Editions share file names: ``ml-20m/ratings.csv`` is found by its folder, then its counts are checked."""
    monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)
    csv_files(tmp_path / "ml-20m")
    with pytest.raises(BenchError, match=r"ml-20m under the filter 'all' is not the expected data: users 2 instead"):
        prepare(str(tmp_path / "ml-20m"))
    csv_files(tmp_path / "mine")
    with pytest.raises(BenchError, match="wrong checksum"):
        prepare(str(tmp_path / "mine"))


def test_cards_name_official_archives_with_checksums():
    cards = {name: card for name, card in all_cards().items() if name.startswith("ml")}
    for size in ("10m", "20m", "25m", "32m"):
        archive = cards[f"ml-{size}"]["variants"][0]["archive"]
        assert archive["url"] == f"https://files.grouplens.org/datasets/movielens/ml-{size}.zip"
        assert re.fullmatch("[0-9a-f]{32}", archive["checksums"]["md5"])
        assert list(cards[f"ml-{size}"]["filters"]) == ["all", "latentcrs", "cesrec", "relrec"]
    assert cards["ml-latest-small-2018"]["expected"]["all"]["users"] == 610


# --- the real files --------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror(data_mirror, monkeypatch):
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(data_mirror))
    return data_mirror


@pytest.mark.shared
@pytest.mark.parametrize("filter", ["all", "latentcrs", "relrec"])
def test_latest_small_equals_a_plain_reading(mirror, filter):
    prepared = prepare("ml-latest-small", filter)
    assert all(row.ok for row in check(prepared) if row.expected is not None)
    least = {"all": (0, 1), "latentcrs": (4, 5), "relrec": (3, 5)}[filter]
    rows: dict[str, list[tuple[int, int, str]]] = {}
    with gzip.open(mirror / "ml-latest-small/ratings.csv.gz", "rt", newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            if float(row["rating"]) >= least[0]:
                rows.setdefault(row["userId"], []).append((int(row["timestamp"]), number, row["movieId"]))
    rows = {user: sorted(row) for user, row in rows.items() if len(row) >= least[1]}
    assert list(prepared.user_tokens[1:]) == list(rows)
    tokens = np.array(prepared.catalogue.tokens)
    assert tokens[prepared.histories.items].tolist() == [item for row in rows.values() for *_, item in row]
    assert prepared.histories.times.tolist() == [time for row in rows.values() for time, *_ in row]
    assert prepared.has_times
    item = prepared.catalogue.tokens.index("150")
    assert prepared.catalogue.text(item) == "Apollo 13, 1995, Adventure, Drama, IMAX"
    assert all(prepared.catalogue.titles[1:])


@pytest.mark.shared
def test_the_two_editions_of_latest_small_are_not_mixed(mirror):
    with pytest.raises(BenchError, match=r"wrong checksum.*ml-latest-small-2018, variant edition-2018"):
        prepare("ml-latest-small-2018")
    assert prepare(str(mirror / "ml-latest-small")).facts["users"] == 671


@pytest.mark.shared
def test_ml1m_with_plots_has_the_ids_of_ml1m_and_more_text(mirror):
    told, plain = prepare("ml1m-plots", "latentcrs"), prepare("ml1m", "latentcrs")
    assert (told.histories.items == plain.histories.items).all()
    assert told.user_tokens == plain.user_tokens
    assert told.catalogue.tokens == plain.catalogue.tokens
    assert not any(plain.catalogue.descriptions)
    assert np.mean([bool(text) for text in told.catalogue.descriptions][1:]) > 0.98
    toy = told.catalogue.tokens.index("1")
    assert told.catalogue.descriptions[toy].startswith("A little boy named Andy loves to be in his room")
    assert told.catalogue.text(toy).startswith(plain.catalogue.text(toy) + ", A little boy")
