"""The real review files: exact counts, and independent readings of them."""

from __future__ import annotations

import ast
import gzip
import json
from datetime import datetime, timezone

import numpy as np
import pytest
from raw_sources import write_lines

from recllm_bench.data.facts import check
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepare.id_lists import read_ids
from recllm_bench.data.splits import leave_one_out

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def mirror(data_mirror, monkeypatch):
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(data_mirror))
    return data_mirror


def lines_of(path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def counts_of(prepared) -> tuple[int, int, int]:
    rows = [row for row in check(prepared) if row.expected is not None]
    assert rows
    assert all(row.ok for row in rows), rows
    return tuple(prepared.facts[name] for name in ("interactions", "users", "items"))


def assert_a_plain_reading(prepared, rows: list[tuple]) -> None:
    """Compare with (user, item, time, rating or None, review) in file order."""
    histories: dict[str, list[tuple]] = {}
    for row in rows:
        histories.setdefault(row[0], []).append(row)
    expected = [row for user in histories.values() for row in sorted(user, key=lambda row: row[2])]
    found = prepared.histories
    assert list(prepared.user_tokens[1:]) == list(histories)
    assert found.lengths.tolist() == [len(user) for user in histories.values()]
    tokens = np.array(prepared.catalogue.tokens)
    assert tokens[found.items].tolist() == [row[1] for row in expected]
    assert prepared.catalogue.tokens[1:] == list(dict.fromkeys(row[1] for row in expected))
    if prepared.has_times:
        assert found.times.tolist() == [row[2] for row in expected]
    if found.ratings is not None:
        assert found.ratings.tolist() == [row[3] for row in expected]
    reviews = prepared.reviews()
    assert reviews.of(np.arange(len(reviews))) == [row[4] for row in expected]


def amazon_rows(path) -> list[tuple]:
    return [
        (
            line["reviewerID"],
            line["asin"],
            line["unixReviewTime"],
            line["overall"],
            "\n".join(part for part in (line.get("summary"), line.get("reviewText")) if part),
        )
        for line in lines_of(path)
    ]


@pytest.mark.parametrize(
    ("name", "file", "counts"),
    [
        ("amazon-musical-instruments", "2014/reviews_Musical_Instruments_5.json.gz", (10_261, 1_429, 900)),
        ("amazon-gift-cards", "2018/Gift_Cards_5.json.gz", (2_972, 458, 148)),
        ("amazon-all-beauty", "2018/All_Beauty_5.json.gz", (5_269, 991, 85)),
    ],
)
def test_amazon(mirror, name, file, counts):
    prepared = prepare(name)
    assert counts_of(prepared) == counts
    rows = amazon_rows(mirror / "amazon" / file)
    assert_a_plain_reading(prepared, rows)
    assert prepared.facts["noticed"]["lines in reviews"] == len(rows)
    assert "lines skipped in reviews" not in prepared.facts["noticed"]


def test_gift_cards(mirror):
    prepared = prepare("amazon-gift-cards")
    assert prepared.facts["items_with_text"] == 148
    assert all(prepared.catalogue.titles[1:])
    titles = {
        line["asin"]: line["title"] for line in reversed(lines_of(mirror / "amazon/2018/meta_Gift_Cards.json.gz"))
    }
    plain = [
        item for item, token in enumerate(prepared.catalogue.tokens) if item and not set("&<") & set(titles[token])
    ]
    assert len(plain) > 100
    for item in plain:
        assert prepared.catalogue.titles[item] == " ".join(titles[prepared.catalogue.tokens[item]].split())
    assert counts_of(prepare("amazon-gift-cards", "cesrec"))[0] == 2_965
    assert prepare("amazon-gift-cards", "cesrec").facts["repeats"] == 0


def test_the_first_review_of_a_user():
    prepared = prepare("amazon-musical-instruments")
    user = list(prepared.user_tokens).index("A2IBPI20UZIR0U")
    (place,) = [
        place
        for place in range(*prepared.histories.offsets[user - 1 : user + 1])
        if prepared.catalogue.tokens[prepared.histories.items[place]] == "1384719342"
    ]
    text = prepared.reviews().of(np.array([place]))[0]
    assert text.startswith("good\nNot much to write about here, but it does exactly what it's supposed to.")


def test_yelp(mirror):
    for name, file, counts in (
        ("yelp-sample", "yelp_academic_dataset_review_4000.json.gz", (4_000, 1_219, 3_719)),
        ("yelp-sample-current", "yelp_academic_dataset_review_999.json.gz", (999, 993, 822)),
    ):
        prepared = prepare(name)
        assert counts_of(prepared) == counts
        rows = []
        for line in lines_of(mirror / "yelp" / file):
            moment = datetime.fromisoformat(line["date"]).replace(tzinfo=timezone.utc)
            rows.append((line["user_id"], line["business_id"], int(moment.timestamp()), line["stars"], line["text"]))
        assert_a_plain_reading(prepared, rows)
    catalogue = prepared.catalogue
    named = [item for item, title in enumerate(catalogue.titles) if title]
    assert len(named) == 63
    businesses = {
        line["business_id"]: line for line in lines_of(mirror / "yelp/yelp_academic_dataset_business_999.json.gz")
    }
    for item in named:
        business = businesses[catalogue.tokens[item]]
        assert catalogue.titles[item] == " ".join(business["name"].split())
        assert catalogue.categories[item] == tuple(business["categories"].split(", "))
        assert catalogue.descriptions[item] == f"{business['city']}, {business['state']}"


def steam_rows(path, dated: bool) -> list[tuple]:
    """Whole dates count; all others are the newest, in file order."""
    rows = []
    for line in lines_of(path):
        posted = line.get("posted") if dated else "1970-01-01"
        whole = posted is not None and len(posted) == 10 and posted[4] == "-"
        time = datetime.fromisoformat(posted).replace(tzinfo=timezone.utc).timestamp() if whole else float("inf")
        rows.append((str(line["user_id"]), str(line["item_id"]), time, None, line.get("review") or ""))
    return rows


def test_steam_reviews_and_games(mirror):
    prepared = prepare("steam-au")
    assert counts_of(prepared) == (59_161, 25_467, 3_682)
    assert prepared.facts["noticed"]["items in the metadata"] == 32_135
    assert prepared.facts["noticed"]["metadata without an id"] == 2
    rows = steam_rows(mirror / "steam/australian_user_reviews_notext.jsonl.gz", dated=True)
    assert prepared.reviews() is None
    histories: dict[str, list[tuple]] = {}
    for row in rows:
        histories.setdefault(row[0], []).append(row)
    expected = [row[1] for user in histories.values() for row in sorted(user, key=lambda row: row[2])]
    assert np.array(prepared.catalogue.tokens)[prepared.histories.items].tolist() == expected
    games: dict[str, dict] = {}
    with gzip.open(mirror / "steam/steam_games.json.gz", "rt", encoding="utf-8") as file:
        for line in list(file)[::20]:
            game = ast.literal_eval(line)
            games.setdefault(str(game.get("id")), game)
    compared = 0
    for item, token in enumerate(prepared.catalogue.tokens):
        if token in games:
            game = games[token]
            title = game.get("title") or game.get("app_name") or ""
            assert prepared.catalogue.titles[item] == " ".join(title.split())
            assert prepared.catalogue.categories[item] == tuple(game.get("genres") or ())
            compared += 1
    assert compared > 100


def test_steam_text_and_libraries(mirror):
    prepared = prepare("steam-au-text")
    assert counts_of(prepared) == (29_638, 16_711, 2_295)
    assert prepared.has_times
    wrote = [row[4] for row in steam_rows(mirror / "steam/australian_user_reviews_text.jsonl.gz", dated=False)]
    reviews = prepared.reviews()
    in_file_order = reviews.of(np.argsort(reviews._rows))
    assert in_file_order == wrote
    batches = list(reviews.batches(leave_one_out(prepared.histories)))
    assert [text or "" for batch in batches for text in batch["text"].to_pylist()] == wrote
    library = prepare("steam-au-library")
    assert counts_of(library) == (178_428, 16_438, 4_185)
    rows = steam_rows(mirror / "steam/australian_users_items.jsonl.gz", dated=False)
    histories: dict[str, list[str]] = {}
    for user, item, *_ in rows:
        histories.setdefault(user, []).append(item)
    expected = [item for items in histories.values() for item in items]
    assert np.array(library.catalogue.tokens)[library.histories.items].tolist() == expected


def test_amazon_2023_from_real_texts(mirror, tmp_path, monkeypatch):
    """The sample's nested histories, laid out as the raw files are."""
    reviews, items = [], {}
    for part in ("training", "validation", "test"):
        for line in lines_of(mirror / f"amazon/2023_sample/{part}.jsonl.gz"):
            for entry in line["history"]:
                reviews.append(
                    {
                        "rating": entry["rating"],
                        "title": entry["review_title"],
                        "text": entry["review_full"],
                        "images": [],
                        "asin": entry["parent_asin"],
                        "parent_asin": entry["parent_asin"],
                        "user_id": f"{part}-{line['category']}-{line['user_id']}",
                        "timestamp": entry["timestamp_ms"],
                        "verified_purchase": True,
                    }
                )
                product = entry["product"]
                items.setdefault(
                    entry["parent_asin"],
                    {
                        "main_category": product["main_category"],
                        "title": product["title"],
                        "categories": [product["main_category"]],
                        "description": [],
                        "store": product["brand"],
                        "parent_asin": entry["parent_asin"],
                    },
                )
    assert len(reviews) > 500
    for name, records in (("All_Beauty", reviews), ("meta_All_Beauty", items.values())):
        path = tmp_path / f"mirror/amazon/2023/{name}.jsonl.gz"
        write_lines(path, (json.dumps(record).encode() for record in records))
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path / "mirror"))
    prepared = prepare("amazon-2023-all-beauty")
    rows = [
        (
            review["user_id"],
            review["asin"],
            review["timestamp"] // 1000,
            review["rating"],
            "\n".join(part for part in (review["title"], review["text"]) if part),
        )
        for review in sorted(reviews, key=lambda review: review["timestamp"])
    ]
    # Milliseconds order what falls into one second; users are numbered by the file, which is not sorted.
    first = {review["user_id"]: None for review in reviews}
    rows = [row for user in first for row in rows if row[0] == user]
    assert_a_plain_reading(prepared, rows)
    titled = {token for token, item in items.items() if item["title"]}
    assert prepared.facts["items_with_text"] == len(titled & set(prepared.catalogue.tokens))


@pytest.mark.parametrize(
    ("name", "users", "items"), [("yelp", 11_091, 11_010), ("amazon", 11_000, 9_332), ("steam", 23_310, 5_237)]
)
def test_published_id_lists(mirror, name, users, items):
    lists = [read_ids(mirror / f"profiles/rlmrec/{name}_{what}.json.gz") for what in ("user", "item")]
    assert [len(one) for one in lists] == [users, items]
    for one in lists:
        assert len(set(one)) == len(one)


def test_a_corpus_cut_to_the_published_ids(mirror, tmp_path, monkeypatch):
    users, items = (read_ids(mirror / f"profiles/rlmrec/steam_{what}.json.gz") for what in ("user", "item"))
    lines = []
    for n, user in enumerate([*users[:40], "nobody in the list"]):
        for k in range(7 if n % 2 else 4):
            record = {"username": user, "product_id": items[n + k], "date": f"2017-01-{k + 1:02}", "text": "x"}
            lines.append(repr(record).encode())
        lines.append(repr({**record, "product_id": "not in the list"}).encode())
    write_lines(tmp_path / "mirror/steam/steam_reviews.json.gz", lines)
    (tmp_path / "mirror/profiles").symlink_to(mirror / "profiles")
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path / "mirror"))
    prepared = prepare("steam", "relrec")
    assert list(prepared.user_tokens[1:]) == users[1:40:2], "with seven listed games; the others have four"
    assert prepared.facts["interactions"] == 20 * 7
    assert set(prepared.catalogue.tokens[1:]) <= set(items)
    assert prepared.facts["id_lists"]["users"] == {"listed": 23_310, "in the corpus": 40}
