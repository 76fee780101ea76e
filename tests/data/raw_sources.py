"""Small raw files in the shape in which each source publishes them."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from recllm_bench.data import cards


@dataclass(frozen=True)
class Review:
    """One interaction before it takes a source's form; ``time`` is a whole day in Unix seconds."""

    user: Any = "u1"
    item: Any = "i1"
    time: Any = 1_400_025_600  # 2014-05-14
    rating: Any = 5.0
    text: Any = "Good enough."


@dataclass(frozen=True)
class Item:
    """One item before it takes a source's form."""

    token: Any = "i1"
    title: Any = "A Title"
    categories: tuple[str, ...] = ("First", "Second")
    description: str = "What it is."


@dataclass(frozen=True)
class Form:
    """A source's raw form: its dataset, files, and how a line is written."""

    name: str
    dataset: str
    reviews_path: str
    items_path: str
    review: Callable[[Review], Any]
    item: Callable[[Item], Any]
    write: Callable[[Any], str]
    has_ratings: bool = True
    has_dates_as_text: bool = False
    names: tuple[str, str, str, str] = ("", "", "", "")  # fields of user, item, time, rating

    def line(self, review: Review) -> bytes:
        """A line of the review file, without its end."""
        return self.write(self.review(review)).encode()

    def make(self, folder: Path, reviews: Iterable[Review], items: Iterable[Item] | None = None) -> Path:
        """Write the files under a mirror folder; return the review file."""
        write_lines(folder / self.reviews_path, map(self.line, reviews))
        if items is not None:
            item_write = repr if self.name.startswith(("amazon-2014", "steam")) else json.dumps
            write_lines(folder / self.items_path, (item_write(self.item(item)).encode() for item in items))
        return folder / self.reviews_path


def write_lines(path: Path, lines: Iterable[bytes], end: bytes = b"\n") -> Path:
    """Write lines; gzipped when the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(line + end for line in lines)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def day(time: Any) -> Any:
    """Unix seconds as an ISO date; anything else as it is."""
    usual = isinstance(time, (int, float)) and 0 <= time < 4_000_000_000
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d") if usual else time


def posted(time: Any) -> Any:
    """Unix seconds in Steam's words."""
    usual = isinstance(time, (int, float)) and time >= 0
    return f"Posted {datetime.fromtimestamp(time, timezone.utc):%B %-d, %Y}." if usual else time


def _amazon(review: Review) -> dict[str, Any]:
    return {
        "reviewerID": review.user,
        "asin": review.item,
        "reviewerName": 'J. "Jo" Doe',
        "helpful": [0, 1],
        "reviewText": review.text,
        "overall": review.rating,
        "summary": "In short",
        "unixReviewTime": review.time,
        "reviewTime": "05 14, 2014",
    }


def _amazon_2018(review: Review) -> dict[str, Any]:
    return {**_amazon(review), "verified": True, "style": {"Color:": " Blue"}, "vote": "2", "image": ["http://x"]}


def _amazon_2023(review: Review) -> dict[str, Any]:
    return {
        "rating": review.rating,
        "title": "In short",
        "text": review.text,
        "images": [{"small_image_url": "http://x"}],
        "asin": review.item,
        "parent_asin": review.item,
        "user_id": review.user,
        "timestamp": review.time * 1000 if isinstance(review.time, int) and 0 < review.time < 1e11 else review.time,
        "helpful_vote": 0,
        "verified_purchase": True,
    }


def _yelp(review: Review) -> dict[str, Any]:
    date = day(review.time)
    return {
        "review_id": "r",
        "user_id": review.user,
        "business_id": review.item,
        "stars": review.rating,
        "useful": 0,
        "text": review.text,
        "date": f"{date} 00:00:00" if date != review.time else date,
    }


def _business(item: Item) -> dict[str, Any]:
    return {
        "business_id": item.token,
        "name": item.title,
        "address": "1 Main St",
        "city": "Affton",
        "state": "MO",
        "stars": 3.5,
        "review_count": 15,
        "attributes": {"ByAppointmentOnly": "True"},
        "categories": ", ".join(item.categories),
        "hours": None,
    }


def _steam(review: Review) -> dict[str, Any]:
    return {
        "username": review.user,
        "hours": 3.5,
        "products": 30,
        "product_id": review.item,
        "page_order": 0,
        "date": day(review.time),
        "text": review.text,
        "early_access": False,
        "page": 1,
    }


def _game(item: Item) -> dict[str, Any]:
    return {
        "publisher": "Somebody",
        "genres": list(item.categories),
        "app_name": item.title,
        "title": item.title,
        "release_date": "2009-06-01",
        "tags": ["Tag One", "Tag Two"],
        "price": 4.99,
        "early_access": False,
        "id": item.token,
        "developer": "Somebody else",
    }


def _australian(review: Review) -> dict[str, Any]:
    entry = {"funny": "", "posted": posted(review.time), "last_edited": "", "item_id": review.item, "recommend": True}
    return {"user_id": review.user, "user_url": "http://x", "reviews": [{**entry, "review": review.text}]}


def _flattened(review: Review) -> dict[str, Any]:
    entry = {"user_id": review.user, "posted": day(review.time), "item_id": review.item, "review": review.text}
    return {**entry, "user_url": "http://x", "funny": None, "last_edited": None, "recommend": True}


def _meta_2014(item: Item) -> dict[str, Any]:
    paths = [["Root", *item.categories]]
    return {"asin": item.token, "title": item.title, "description": item.description, "categories": paths, "brand": "B"}


def _meta_2018(item: Item) -> dict[str, Any]:
    path = ["Root", *item.categories]
    text = [item.description, "Second paragraph."]
    return {"category": path, "description": text, "title": item.title, "brand": "B", "rank": [], "asin": item.token}


def _meta_2023(item: Item) -> dict[str, Any]:
    meta = {"main_category": "Root", "title": item.title, "average_rating": 3.9, "features": [], "store": "B"}
    return {
        **meta,
        "description": [item.description, "Second paragraph."],
        "categories": ["Root", *item.categories],
        "details": {},
        "parent_asin": item.token,
    }


_AMAZON_NAMES = ("reviewerID", "asin", "unixReviewTime", "overall")
FORMS = {
    form.name: form
    for form in (
        Form(
            "amazon-2014",
            "amazon-2014-video-games",
            "amazon/2014/reviews_Video_Games_5.json.gz",
            "amazon/2014/meta_Video_Games.json.gz",
            _amazon,
            _meta_2014,
            json.dumps,
            names=_AMAZON_NAMES,
        ),
        Form(
            "amazon-2018",
            "amazon-2018-video-games",
            "amazon/2018/Video_Games_5.json.gz",
            "amazon/2018/meta_Video_Games.json.gz",
            _amazon_2018,
            _meta_2018,
            json.dumps,
            names=_AMAZON_NAMES,
        ),
        Form(
            "amazon-2023",
            "amazon-2023-video-games",
            "amazon/2023/Video_Games.jsonl.gz",
            "amazon/2023/meta_Video_Games.jsonl.gz",
            _amazon_2023,
            _meta_2023,
            json.dumps,
            names=("user_id", "asin", "timestamp", "rating"),
        ),
        Form(
            "yelp",
            "yelp",
            "yelp/yelp_academic_dataset_review.json",
            "yelp/yelp_academic_dataset_business.json",
            _yelp,
            _business,
            json.dumps,
            has_dates_as_text=True,
            names=("user_id", "business_id", "date", "stars"),
        ),
        *(
            Form(
                f"steam-{kind}",
                "steam",
                "steam/steam_reviews.json.gz",
                "steam/steam_games.json.gz",
                _steam,
                _game,
                write,
                has_ratings=False,
                has_dates_as_text=True,
                names=("username", "product_id", "date", ""),
            )
            for kind, write in (("literal", repr), ("json", json.dumps))
        ),
        Form(
            "steam-published",
            "steam-au",
            "steam/australian_user_reviews.json.gz",
            "steam/steam_games.json.gz",
            _australian,
            _game,
            repr,
            has_ratings=False,
            has_dates_as_text=True,
            names=("user_id", "item_id", "posted", ""),
        ),
        Form(
            "steam-flattened",
            "steam-au-text",
            "steam/australian_user_reviews_text.jsonl.gz",
            "steam/steam_games.json.gz",
            _flattened,
            _game,
            json.dumps,
            has_ratings=False,
            has_dates_as_text=True,
            names=("user_id", "item_id", "posted", ""),
        ),
    )
}


def cards_that_expect_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's cards without checksums and expected counts, so that invented files may stand for the real ones."""
    real = cards._own_cards

    def stripped(folder: Path) -> tuple[tuple[str, dict[str, Any]], ...]:
        found = copy.deepcopy(real(folder))
        for _, card in found:
            for settings in (card, *card["variants"]):
                settings.pop("expected", None)
                for entry in settings.get("files", {}).values():
                    entry.pop("sha256", None)
        return found

    monkeypatch.setattr(cards, "_own_cards", stripped)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mirror for invented files."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(folder))
    cards_that_expect_nothing(monkeypatch)
    return folder
