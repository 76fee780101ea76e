"""The benchmark's generated files against a recount of every line, and the benchmark itself at a small size."""

from __future__ import annotations

import ast
import gzip
import importlib
import json
import subprocess
import sys
import zlib
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recllm_bench.errors import BenchError

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LINES = 3000
FORMS = ("amazon-2014", "amazon-2018", "amazon-2023", "yelp", "steam")
# Names of user, item, rating and text in a review, and of id and title in an item entry.
KEYS = {
    "amazon-2014": ("reviewerID", "asin", "overall", "reviewText", "", ""),
    "amazon-2018": ("reviewerID", "asin", "overall", "reviewText", "asin", "title"),
    "amazon-2023": ("user_id", "asin", "rating", "text", "parent_asin", "title"),
    "yelp": ("user_id", "business_id", "stars", "text", "business_id", "name"),
    "steam": ("username", "product_id", "", "text", "id", "title"),
}


@pytest.fixture(scope="module")
def load():
    """Import a module of the benchmarks, which are scripts and no package."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def raw_reviews(load) -> ModuleType:
    return load("raw_reviews")


@pytest.fixture(scope="module")
def made(raw_reviews, tmp_path_factory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Files of every form, by form: their folder and what the generator says of them."""
    folder = tmp_path_factory.mktemp("raw")
    return {form: (folder / form, raw_reviews.generate(folder / form, form, LINES)) for form in FORMS}


def read(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def records(path: Path, form: str) -> list[dict[str, Any]]:
    content = read(path)
    assert content.endswith(b"\n")
    lines = content.decode().split("\n")[:-1]
    return [ast.literal_eval(line) if form == "steam" else json.loads(line) for line in lines]


def moment(review: dict[str, Any]) -> int:
    """Unix seconds of a review, from whatever its source writes."""
    if "unixReviewTime" in review:
        day = datetime.strptime(review["reviewTime"], "%m %d, %Y").replace(tzinfo=timezone.utc)
        assert day.timestamp() == review["unixReviewTime"]
        return review["unixReviewTime"]
    if "timestamp" in review:
        return review["timestamp"] // 1000
    form = "%Y-%m-%d %H:%M:%S" if ":" in review["date"] else "%Y-%m-%d"
    return int(datetime.strptime(review["date"], form).replace(tzinfo=timezone.utc).timestamp())


@pytest.mark.parametrize("form", FORMS)
def test_the_summary_is_what_a_recount_finds(form, made):
    folder, summary = made[form]
    user, item, rating, text, token, title = KEYS[form]
    reviews_file, *item_files = summary["files"]
    reviews = records(folder / reviews_file, form)
    assert len(reviews) == summary["reviews"] == LINES
    assert len({review[user] for review in reviews}) == summary["users"]
    assert len({review[item] for review in reviews}) == summary["items"]
    times = [moment(review) for review in reviews]
    assert (min(times), max(times)) == (summary["first_time"], summary["last_time"])
    if rating:
        stars = Counter(review[rating] for review in reviews)
        assert [stars[float(n)] for n in range(1, 6)] == summary["ratings"]
    assert np.mean([bool(review.get(text)) for review in reviews]) > 0.99
    products = {review.get("parent_asin", review[item]) for review in reviews}
    assert len(products) == summary["products"]
    for path in item_files:
        entries = {entry[token]: entry for entry in records(folder / path, form)}
        assert len(entries) == summary["files"][path]["lines"]  # no product has two
        listed = [entries[product] for product in products if product in entries]
        assert len(listed) == summary["listed"] < len(entries)
        assert sum("getTime" in entry.get(title, "") for entry in listed) == summary["scraps"]
        assert sum(not entry.get(title) for entry in listed) == summary["untitled"]
    for path, facts in summary["files"].items():
        content = read(folder / path)
        assert facts["raw_bytes"] == len(content)
        assert facts["lines"] == content.count(b"\n")
        assert facts["bytes"] == (folder / path).stat().st_size


def test_users_and_items_are_as_the_published_files_have_them(made):
    for form in ("amazon-2014", "amazon-2018"):
        folder, summary = made[form]
        reviews = records(folder / next(iter(summary["files"])), form)
        items = [review["asin"] for review in reviews]
        assert items == sorted(items)
        assert min(Counter(items).values()) >= 5
        assert min(Counter(review["reviewerID"] for review in reviews).values()) >= 5
        assert any(item.isdigit() and item.startswith("0") for item in items)  # a book's id is no number
    folder, summary = made["amazon-2023"]
    reviews = records(folder / "amazon/2023/Toys_and_Games.jsonl.gz", "amazon-2023")
    variants = {}
    for review in reviews:
        assert variants.setdefault(review["asin"], review["parent_asin"]) == review["parent_asin"]
    assert summary["items"] > summary["products"]
    folder, _ = made["steam"]
    accounts: dict[str, str | None] = {}
    for review in records(folder / "steam/steam_reviews.json.gz", "steam"):
        assert accounts.setdefault(review["username"], review.get("user_id")) == review.get("user_id")


def test_texts_need_every_escape(made):
    for form in FORMS:
        folder, summary = made[form]
        reviews = records(folder / next(iter(summary["files"])), form)
        text = "".join(review.get(KEYS[form][3], "") for review in reviews)
        for sign in "\n\"'&<\u2014\u00e9\U0001f44d":
            assert sign in text, (form, sign)
    content = read(made["steam"][0] / "steam/steam_reviews.json.gz")
    assert b"u'text': u\"" in content  # Python's repr takes double quotes for a text with an apostrophe
    assert b"\\'" in content  # and escapes when there are both
    assert content.isascii()
    assert read(made["amazon-2018"][0] / "amazon/2018/Toys_and_Games_5.json.gz").isascii()


def test_equal_arguments_give_equal_bytes(raw_reviews, made, tmp_path):
    folder, summary = made["amazon-2018"]
    raw_reviews.generate(tmp_path / "again", "amazon-2018", LINES, threads=1)
    raw_reviews.generate(tmp_path / "other", "amazon-2018", LINES, seed=2)
    for path in summary["files"]:
        assert (tmp_path / "again" / path).read_bytes() == (folder / path).read_bytes()
        assert (tmp_path / "other" / path).read_bytes() != (folder / path).read_bytes()
    kept = json.loads((folder / raw_reviews.SUMMARY).read_text(encoding="utf-8"))
    assert kept == {name: value for name, value in summary.items() if name != "seconds"}
    assert {name: kept[name] for name in kept if name in raw_reviews.arguments("yelp", 1, 1, "", 1, 1)} == (
        raw_reviews.arguments("amazon-2018", LINES, None, raw_reviews.CATEGORY, 1, 1)
    )


def test_lines_are_as_long_and_as_dense_as_the_published_ones(raw_reviews, made, tmp_path):
    """Musical Instruments 2014 has 726 bytes a line, 33 % of them when gzipped at level 6, 39 % at level 1."""
    folder = tmp_path / "2014"
    summary = raw_reviews.generate(folder, "amazon-2014", 20_000)
    content = read(folder / next(iter(summary["files"])))
    assert 650 < len(content) / 20_000 < 800
    assert 0.30 < len(zlib.compress(content, 6)) / len(content) < 0.36
    assert 0.36 < len(zlib.compress(content, 1)) / len(content) < 0.42
    (facts,) = summary["files"].values()
    assert facts["bytes"] / facts["raw_bytes"] == pytest.approx(len(zlib.compress(content, 1)) / len(content), rel=0.02)
    # 20 million reviews in 12 GB: long texts.
    summary = raw_reviews.generate(tmp_path / "long", "amazon-2018", 5000, words=250)
    assert 550 < summary["files"]["amazon/2018/Toys_and_Games_5.json.gz"]["bytes"] / 5000 < 700


def test_the_atomic_file_has_the_same_rows(raw_reviews, made, tmp_path):
    for form in ("amazon-2023", "yelp"):
        folder, summary = made[form]
        user, item, rating, *_ = KEYS[form]
        raw_reviews.write_inter(tmp_path / "raw.inter", form, LINES)
        header, *rows = (tmp_path / "raw.inter").read_text(encoding="utf-8").splitlines()
        assert header == "user_id:token\titem_id:token\trating:float\ttimestamp:float"
        reviews = records(folder / next(iter(summary["files"])), form)
        assert rows == [f"{each[user]}\t{each[item]}\t{each[rating]:.0f}\t{moment(each)}" for each in reviews]


def test_a_random_order_is_one_to_one_and_needs_no_table(load):
    rows = load("raw_rows")
    for total in (1, 2, 3, 5, 64, 65, 1000, 4097):
        places = rows.shuffled(np.arange(total), total, (1, 2))
        assert sorted(places.tolist()) == list(range(total))
        assert rows.shuffled(np.arange(total)[::-1], total, (1, 2)).tolist() == places[::-1].tolist()
    assert abs(np.corrcoef(np.arange(4097), places)[0, 1]) < 0.05
    # Rows do not depend on the pieces in which they are asked for.
    reviews = rows.Reviews(rows.Population(4, 10, 1, False, 100, 200), 500, 3)
    whole = reviews.rows(np.arange(500))
    assert np.array_equal(reviews.rows(np.arange(200, 300)).users, whole.users[200:300])
    assert np.array_equal(np.bincount(whole.users), reviews.user_counts)
    assert np.array_equal(np.bincount(whole.items), reviews.item_counts)


@pytest.mark.parametrize("lines", [1, 2, 7, 30])
def test_tiny_files(raw_reviews, tmp_path, lines):
    for form in FORMS:
        summary = raw_reviews.generate(tmp_path / form, form, lines)
        reviews = records(tmp_path / form / next(iter(summary["files"])), form)
        assert len(reviews) == lines
        assert len({review[KEYS[form][0]] for review in reviews}) == summary["users"]


def test_mistakes_are_one_line(raw_reviews, tmp_path, capsys):
    with pytest.raises(BenchError, match="Did you mean 'amazon-2018'"):
        raw_reviews.generate(tmp_path, "amazon-2081", 10)
    assert raw_reviews.main(["--output", str(tmp_path), "--lines", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_limits(load):
    prepare = load("prepare")
    for speed, peak, count in ((150_000, 4.0, 0), (149_999, 4.0, 1), (150_000, 4.1, 1), (1, 9.0, 2)):
        result = {"median": {"prepare": {"lines_per_second": speed, "peak_gib": peak}}}
        assert len(prepare.failures(result)) == count


def test_a_preparation_that_differs_from_what_was_generated_is_refused(load, raw_reviews, tmp_path):
    prepare = load("prepare")
    summary = raw_reviews.generate(tmp_path / "raw", "yelp", 300)
    with pytest.raises(BenchError, match="generated"):
        prepare.measure(tmp_path / "raw", {**summary, "users": summary["users"] + 1}, tmp_path / "cache")


def test_the_benchmark_at_a_small_size(tmp_path):
    """All its processes, RecBole's as well; so few lines are slow, so ``--assert`` has to object."""
    command = [sys.executable, str(BENCHMARKS / "prepare.py"), "--lines", "4000", "--repeat", "1", "--assert"]
    command += ["--folder", str(tmp_path / "raw"), "--json", str(tmp_path / "result.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "lines/s are less than 150,000" in done.stderr
    assert "ratio against RecBole" in done.stdout
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    ours, theirs = (result["peer"]["median"][what] for what in ("prepare", "RecBole load"))
    assert ours["found"] == theirs["found"] == result["median"]["another filter"]["found"]
    assert ours["found"]["interactions"] == 4000
    assert ours["lines_per_second"] == pytest.approx(4000 / ours["seconds"])
    assert 0.03 < ours["peak_gib"] < 1
    assert result["peer"]["ratio"]["speed"] == pytest.approx(theirs["seconds"] / ours["seconds"])
    assert not (tmp_path / "raw" / "cache").exists()
