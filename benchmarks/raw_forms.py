"""The kinds of raw files there are; and how Yelp and Steam write a review and an item."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from raw_amazon import Amazon2014, Amazon2018, Amazon2023
from raw_rows import DAY, Population, Rows, tokens
from raw_text import json_utf8, python_literal, python_strings
from raw_writer import CAPITALS, Writer, calendar, days, filled, numbers, stars

_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_YELP = "yelp_academic_dataset"


@dataclass(frozen=True)
class Form:
    """One kind of raw files.

    Attributes
    ----------
    reviews, items : str
        Paths as the dataset cards know them; ``{}`` stands for the category. ``items`` may be empty.
    dataset : str
        Name of the dataset card; ``{}`` stands for the category.
    words : int
        Mean words of a review, when none are asked for.
    writer : type
        Makes the lines; its ``population`` says how reviews spread over users and items.
    """

    reviews: str
    items: str
    dataset: str
    words: int
    writer: type[Writer]


class Yelp(Writer):
    """``yelp_academic_dataset_review.json`` and ``yelp_academic_dataset_business.json``."""

    escape = staticmethod(json_utf8)
    population = Population(3.5, 46, 1, False, 12600, 19000, 1.6, 1)

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self._dates = calendar(self.population, lambda moment, date: time.strftime("%Y-%m-%d", date))
        clock = [f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}".encode() for second in range(DAY)]
        self._clock = np.array(clock, dtype=object)
        self._votes = [
            b'"useful":%d,"funny":%d,"cool":%d,' % (u, u // 3, u // 2) for u in (0, 0, 0, 0, 1, 1, 2, 3, 5, 9)
        ]

    def user_tokens(self, codes: np.ndarray) -> list[bytes]:
        return tokens(codes, _BASE64, 22, (self.seed, 21))

    def item_tokens(self, codes: np.ndarray) -> list[bytes]:
        return tokens(codes, _BASE64, 22, (self.seed, 22))

    def reviews(self, rows: Rows) -> bytes:
        at = rows.positions
        return filled(
            '{"review_id":"§","user_id":"§","business_id":"§","stars":§,§"text":"§","date":"§ §"}\n',
            tokens(at, _BASE64, 22, (self.seed, 23)),
            self.user_tokens(rows.users),
            self.item_tokens(rows.items),
            stars(rows.ratings),
            self.pick(self._votes, at, 53),
            self.texts(at),
            days(rows.times, self._dates),
            self._clock[rows.times % DAY].tolist(),
        )

    def items(self, codes: np.ndarray, counts: np.ndarray) -> bytes:
        categories = [
            b'"' + b", ".join(names.split(b'", "')) + b'"' if names else b"null"
            for names in (each[2:-2] for each in self.lists(codes, self.categories, 6, 64))
        ]
        return filled(
            '{"business_id":"§","name":"§","address":"§ § St","city":"§","state":"PA","postal_code":"1§",'
            '"latitude":39.§,"longitude":-75.§,"stars":§,"review_count":§,"is_open":1,'
            '"attributes":{"WiFi":"u\'free\'","BikeParking":"True"},"categories":§,'
            '"hours":{"Monday":"0:0-0:0","Tuesday":"8:0-18:30","Saturday":"8:0-14:0"}}\n',
            self.item_tokens(codes),
            self.item_title(codes),
            numbers(1 + codes % 9000),
            self.pick(self.brands, codes, 45),
            self.pick(self.brands[:200], codes, 46, 2.0),
            numbers(1000 + codes * 7 % 9000),
            numbers(10**6 + codes),
            numbers(10**6 + 3 * codes),
            stars(1 + codes % 5),
            numbers(counts),
            categories,
        )


class Steam(Writer):
    """``steam_reviews.json.gz`` and ``steam_games.json.gz``: dictionaries as Python 2 prints them."""

    escape = staticmethod(python_literal)
    population = Population(3, 500, 1, True, 14900, 17500, 1.4)

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self._dates = calendar(self.population, lambda moment, date: time.strftime("%Y-%m-%d", date))
        self._hours = [b"%d.%d" % (n * n // 9, n % 10) for n in range(200)]
        self._funny = [b""] * 8 + [b"u'found_funny': %d, " % n for n in (1, 1, 2, 5)]
        self._compensation = [b""] * 30 + [b"u'compensation': u'Product received for free', "]
        self._nicks = np.array([name.split(b" ")[0].replace(b'"', b"") for name in self.names], dtype=object)

    def user_tokens(self, codes: np.ndarray) -> list[bytes]:
        numbers = tokens(codes, CAPITALS.lower(), 13, (self.seed, 21))
        nicks = self.pick(self._nicks, codes, 47)
        return [nick + b"_" + number for nick, number in zip(nicks, numbers, strict=True)]

    def item_tokens(self, codes: np.ndarray) -> list[bytes]:
        return numbers(10 * (codes + 1) + 10 * (codes // 7))

    def reviews(self, rows: Rows) -> bytes:
        at, users = rows.positions, rows.users
        account = [b"u'user_id': u'%d', " % (76561197960265728 + 2 * code) for code in users.tolist()]
        for index in np.flatnonzero(~self.share(users, 48, 0.6)).tolist():
            account[index] = b""
        return filled(
            "{u'username': u'§', §u'hours': §, u'products': §, u'product_id': u'§', §u'page_order': §, u'date': u'§', "
            "§u'text': §, u'early_access': False, u'page': §}\n",
            self.user_tokens(users),
            self.pick(self._funny, at, 53),
            self.pick(self._hours, at, 56, 2.0),
            numbers(1 + users * 7 % 900),
            self.item_tokens(rows.items),
            account,
            numbers(at % 10),
            days(rows.times, self._dates),
            self.pick(self._compensation, at, 57),
            python_strings(self.texts(at)),
            numbers(1 + at // 10 % 1000),
        )

    def items(self, codes: np.ndarray, counts: np.ndarray) -> bytes:
        ids, titles = self.item_tokens(codes), self.item_title(codes)
        titled = [b"u'app_name': %s, u'title': %s, " % (text, text) for text in python_strings(titles)]
        for index in np.flatnonzero(self.untitled(codes)).tolist():
            titled[index] = b""
        tags = self._plain(self.categories)
        return filled(
            "{u'publisher': §, u'genres': §, §u'url': u'http://store.steampowered.com/app/§/', u'release_date': u'§', "
            "u'tags': §, u'specs': [u'Single-player'], u'price': §.99, u'early_access': False, u'id': u'§'}\n",
            python_strings(self.pick(self.brands, codes, 41)),
            self.lists(codes, tags[:24], 4, 64, "u'"),
            titled,
            ids,
            days((self.population.first_day + codes % 2000) * DAY, self._dates),
            self.lists(codes, tags, 12, 68, "u'"),
            numbers(codes % 60),
            ids,
        )

    @staticmethod
    def _plain(stock: np.ndarray) -> np.ndarray:
        return np.array([text.replace(b"'", b"") for text in stock], dtype=object)


FORMS: dict[str, Form] = {
    form.dataset.removesuffix("-{}"): form
    for form in (
        Form("amazon/2014/reviews_{}_5.json.gz", "", "amazon-2014-{}", 93, Amazon2014),
        Form("amazon/2018/{}_5.json.gz", "amazon/2018/meta_{}.json.gz", "amazon-2018-{}", 82, Amazon2018),
        Form("amazon/2023/{}.jsonl.gz", "amazon/2023/meta_{}.jsonl.gz", "amazon-2023-{}", 70, Amazon2023),
        Form(f"yelp/{_YELP}_review.json", f"yelp/{_YELP}_business.json", "yelp", 105, Yelp),
        Form("steam/steam_reviews.json.gz", "steam/steam_games.json.gz", "steam", 45, Steam),
    )
}
