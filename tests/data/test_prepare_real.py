"""The real files: exact counts, and an independent reading of them."""

from __future__ import annotations

import gzip
import http.server
import shutil
import threading
import time
from functools import partial

import numpy as np
import pytest

from recllm_bench.data.facts import check
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import global_time, leave_one_out
from recllm_bench.errors import BenchError

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def mirror(data_mirror, monkeypatch):
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(data_mirror))
    return data_mirror


def assert_expected(prepared) -> None:
    rows = [row for row in check(prepared) if row.expected is not None]
    assert rows
    assert all(row.ok for row in rows), rows


@pytest.mark.parametrize("filter", ["all", "latentcrs"])
def test_ml1m(filter):
    start = time.perf_counter()
    prepared = prepare("ML-1M", filter)
    assert time.perf_counter() - start < 10
    assert_expected(prepared)
    counts = {"all": (6040, 3706, 1_000_209), "latentcrs": (6034, 3533, 575_272)}[filter]
    assert (prepared.facts["users"], prepared.facts["items"], prepared.facts["interactions"]) == counts
    assert (prepared.variant, prepared.has_times) == ("order-only", False)
    start = time.perf_counter()
    again = prepare("ml1m", filter)
    assert time.perf_counter() - start < 0.3
    assert again.checksum == prepared.checksum
    assert leave_one_out(prepared.histories).dropped == {"short users": 0}
    with pytest.raises(BenchError, match="no global time split"):
        global_time(prepared.histories)


@pytest.mark.parametrize("name", ["ml1m", "ml-100k"])
@pytest.mark.parametrize("filter", ["cesrec", "relrec"])
def test_other_filters(name, filter):
    assert_expected(prepare(name, filter))


def test_ml1m_equals_a_plain_reading(mirror):
    prepared = prepare("ml1m", "latentcrs")
    rows: dict[str, list] = {}
    with gzip.open(mirror / "ml-1m/ratings_ordered.dat.gz", "rt") as file:
        for line in file:
            user, item, rating, order = line.rstrip("\n").split("::")
            rows.setdefault(user, [])
            if int(rating) >= 4:
                rows[user].append((int(order), item))
    rows = {user: sorted(row) for user, row in rows.items() if len(row) >= 5}
    assert prepared.user_tokens[1:] == list(rows)
    tokens = np.array(prepared.catalogue.tokens)
    expected = [item for row in rows.values() for _, item in row]
    assert tokens[prepared.histories.items].tolist() == expected
    assert prepared.catalogue.tokens[1:] == list(dict.fromkeys(expected))
    by_token = dict(zip(prepared.catalogue.tokens, range(len(tokens)), strict=True))
    item = by_token["73"]
    assert prepared.catalogue.text(item) == "Mis\xe9rables, Les, 1995, Drama, Musical"
    assert all(prepared.catalogue.titles[1:])
    assert (prepared.catalogue.years[1:] > 1900).all()


def test_both_ml100k_variants_agree(mirror):
    wheel, original = prepare("ml-100k"), prepare(str(mirror / "ml-100k"))
    assert (wheel.variant, original.variant) == ("recbole-wheel", "grouplens")
    for name in ("items", "offsets", "times", "ratings"):
        assert (getattr(wheel.histories, name) == getattr(original.histories, name)).all()
    assert wheel.user_tokens == original.user_tokens
    assert wheel.catalogue.tokens == original.catalogue.tokens
    assert wheel.catalogue.categories == original.catalogue.categories
    same = [a == b for a, b in zip(wheel.catalogue.titles, original.catalogue.titles, strict=True)]
    assert np.mean(same) > 0.98, "titles differ only in spelling"


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions"),
    [
        ("s3rec-beauty", 22_363, 12_101, 198_502),
        ("s3rec-sports", 35_598, 18_357, 296_337),
        ("s3rec-yelp", 30_431, 20_033, 316_354),
    ],
)
def test_sequences_line_up_with_the_source(mirror, name, users, items, interactions):
    prepared = prepare(name)
    assert_expected(prepared)
    assert (prepared.facts["users"], prepared.histories.n_items) == (users, items)
    assert (prepared.facts["items"], prepared.facts["interactions"]) == (items, interactions)
    file = {"beauty": "Beauty", "sports": "Sports_and_Outdoors", "yelp": "Yelp"}[name.split("-")[1]]
    with gzip.open(mirror / f"sequences/s3rec/{file}.txt.gz", "rt") as lines:
        expected = [int(item) for line in lines for item in line.split()[1:]]
    assert prepared.histories.items.tolist() == expected
    if name != "s3rec-sports":
        assert prepared.facts["items_with_text"] > 0.99 * items


def test_beauty_titles(mirror):
    catalogue = prepare(str(mirror / "sequences/s3rec/Beauty.txt.gz")).catalogue
    assert catalogue.titles[2] == "OPI Red Shatter Crackle Nail Polish E55 New"
    assert catalogue.categories[2] == ("Makeup", "Nails", "Nail Polish")
    assert catalogue.domain == "beauty product"


def test_pairs_file(mirror):
    prepared = prepare(str(mirror / "sequences/sasrec/Video.txt.gz"))
    assert prepared.facts["interactions"] == 287_107
    assert prepared.histories.of(1)[:2].tolist() == [6393, 13504]


def test_a_mirror_behind_an_address(mirror, monkeypatch):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(mirror))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("RECLLM_DATA_MIRROR", f"http://127.0.0.1:{server.server_address[1]}")
        prepared = prepare("ml1m", "latentcrs")
        beauty = prepare("s3rec-beauty")
        server.shutdown()
    assert prepared.facts["interactions"] == 575_272
    assert beauty.catalogue.titles[1]
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(mirror))
    assert prepare("ml1m", "latentcrs").checksum == prepared.checksum


def test_a_changed_file_on_the_mirror_is_refused(mirror, tmp_path, monkeypatch):
    copy = tmp_path / "mirror" / "ml-1m"
    copy.mkdir(parents=True)
    shutil.copy(mirror / "ml-1m/movies.dat", copy)
    data = (mirror / "ml-1m/ratings_ordered.dat.gz").read_bytes()
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(copy.parent))
    (copy / "ratings_ordered.dat.gz").write_bytes(data[:100_000])
    with pytest.raises(BenchError, match=r"ratings_ordered\.dat\.gz: truncated"):
        prepare("ml1m")
    text = gzip.decompress(data)
    (copy / "ratings_ordered.dat.gz").write_bytes(gzip.compress(text[:-20], 1))
    with pytest.raises(BenchError, match=r"ratings_ordered\.dat\.gz: wrong checksum"):
        prepare("ml1m")
    (copy / "ratings_ordered.dat.gz").unlink()
    (copy / "ratings_ordered.dat").write_bytes(text)
    assert prepare("ml1m").variant == "order-only"
