"""Amazon's reviews and products as the editions of 2014, 2018 and 2023 write them: keys, order, types, escapes."""

from __future__ import annotations

from typing import Any

import numpy as np
from raw_rows import Population, Rows, hashed, tokens, uniform
from raw_writer import CAPITALS, SCRAP_SHARE, Writer, calendar, days, filled, numbers, spaced, stars

_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SCRAP = "var aPageStart = (new Date()).getTime();\nvar {0} = {0} || +new Date();\nwindow.{0}_ihb = 1 + ({0} ? 1 : 0);"


class Amazon2014(Writer):
    """``reviews_X_5.json.gz``."""

    population = Population(8.6, 14, 5, True, 11000, 16200)

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        form = '"unixReviewTime": {}, "reviewTime": "{}"}}\n'.format
        self._days = calendar(self.population, lambda moment, date: form(moment, _american(date)))
        self._helpful = [f"[{min(a, b)}, {b}]".encode() for b in range(40) for a in (b, b, b - b // 4, b // 2)]

    def reviews(self, rows: Rows) -> bytes:
        at = rows.positions
        name = [b'"reviewerName": "' + name + b'", ' for name in self.pick(self.names, rows.users, 51, 1.5)]
        for index in np.flatnonzero(self.share(at, 52, 0.003)).tolist():
            name[index] = b""
        return filled(
            '{"reviewerID": "§", "asin": "§", §"helpful": §, "reviewText": "§", "overall": §, "summary": "§", §',
            self.user_tokens(rows.users),
            self.item_tokens(rows.items),
            name,
            self.pick(self._helpful, at, 53, 3.0),
            self.texts(at),
            stars(rows.ratings),
            self.pick(self.summaries, at, 54, 2.0),
            days(rows.times, self._days),
        )


class Amazon2018(Writer):
    """``X_5.json.gz`` and ``meta_X.json.gz``."""

    population = Population(9, 24, 5, True, 12000, 17800)

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self._dates = calendar(self.population, lambda moment, date: _american(date))
        self._moments = calendar(self.population, lambda moment, date: f'"unixReviewTime": {moment}}}\n')
        self._votes = [b""] * 60 + [f'"vote": "{n}", '.encode() for n in (2, 2, 2, 3, 3, 4, 5, 6, 9, "1,204")]
        colors = [b'"Color:": " ' + text + b'"' for text in self.categories[:80]]
        sizes_ = [b'"Size:": " %d oz"' % n for n in range(1, 40)]
        both = [a + b", " + b for a, b in zip(sizes_, colors, strict=False)]
        self._styles = [b""] * 80 + [b'"style": {' + style + b"}, " for style in (*colors, *sizes_, *both)]
        self._verified = [b"true, "] * 4 + [b"false, "]
        ids = tokens(np.arange(5000), CAPITALS, 13, (self.seed, 23))
        self._also = b", ".join(b'"B0%s"' % token[-8:] for token in ids)

    def reviews(self, rows: Rows) -> bytes:
        at = rows.positions
        text = [b'"reviewText": "' + text + b'", ' for text in self.texts(at)]
        for index in np.flatnonzero(self.share(at, 55, 0.001)).tolist():
            text[index] = b""
        return filled(
            '{"overall": §, §"verified": §"reviewTime": "§", "reviewerID": "§", "asin": "§", §"reviewerName": "§", '
            '§"summary": "§", §',
            stars(rows.ratings),
            self.pick(self._votes, at, 56),
            self.pick(self._verified, at, 57),
            days(rows.times, self._dates),
            self.user_tokens(rows.users),
            self.item_tokens(rows.items),
            self.pick(self._styles, at, 58),
            self.pick(self.names, rows.users, 51, 1.5),
            text,
            self.pick(self.summaries, at, 54, 2.0),
            days(rows.times, self._moments),
        )

    def scraps(self, codes: np.ndarray) -> np.ndarray:
        return self.share(codes, 44, SCRAP_SHARE) & ~self.untitled(codes)

    def items(self, codes: np.ndarray, counts: np.ndarray) -> bytes:
        titles = self.item_title(codes)
        for index in np.flatnonzero(self.scraps(codes)).tolist():
            titles[index] = self.escape(_SCRAP.format(f"ue_{int(codes[index]) % 97}"))
        description = [b'["' + text + b'"]' for text in self.texts(codes, 61)]
        for index in np.flatnonzero(self.share(codes, 63, 0.15)).tolist():
            description[index] = b"[]"
        return filled(
            '{"category": §, "tech1": "", "description": §, "fit": "", "title": "§", "also_buy": §, "tech2": "", '
            '"brand": "§", "feature": §, "rank": [], "also_view": §, "main_cat": "§", "similar_item": "", "date": "", '
            '"price": "$§.99", "asin": "§"}\n',
            self._paths(codes),
            description,
            titles,
            self._others(codes, 66),
            self.pick(self.brands, codes, 41, 2.0),
            self.lists(codes, self.titles, 6, 68),
            self._others(codes, 70),
            self.pick(self.categories[:20], codes, 72),
            numbers(codes % 90),
            self.item_tokens(codes),
        )

    def _paths(self, codes: np.ndarray) -> list[bytes]:
        paths = self.lists(codes, self.categories, 3, 64)
        root = b'["' + bytes(self.categories[0])
        return [root + b'"]' if path == b"[]" else root + b'", ' + path[1:] for path in paths]

    def _others(self, codes: np.ndarray, salt: int) -> list[bytes]:
        """Lists of other products' ids, cut from one long list."""
        width = 14  # ten letters, quotes, comma, blank
        size = np.maximum(0, uniform(codes, (self.seed, salt)) * 24 - 8).astype(np.int64).tolist()
        start = (uniform(codes, (self.seed, salt + 1)) * 4900).astype(np.int64).tolist()
        ids = self._also
        return [
            b"[" + ids[a * width : (a + n) * width - 2] + b"]" if n else b"[]" for a, n in zip(start, size, strict=True)
        ]


class Amazon2023(Writer):
    """``X.jsonl.gz`` and ``meta_X.jsonl.gz``."""

    population = Population(2, 16, 1, False, 12000, 19600, 2.0, 1)
    variants = 3

    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self._helpful = [b"0"] * 20 + [str(n).encode() for n in (1, 1, 1, 1, 2, 2, 3, 5, 14)]
        self._verified = [b"true}\n"] * 9 + [b"false}\n"]
        self._images = [b"[]"] * 19 + [
            b'[{"small_image_url": "https://images.example/I/%d._SL256_.jpg", "attachment_type": "IMAGE"}]' % n
            for n in range(7)
        ]

    def user_tokens(self, codes: np.ndarray) -> list[bytes]:
        return tokens(codes, _BASE32, 27, (self.seed, 21), "A")

    def variant(self, rows: Rows) -> np.ndarray:
        """Which variant of its product each review is about: 0 .. ``variants - 1``; 0 has the product's own id."""
        kinds = 1 + hashed(rows.items, (self.seed, 24)) % np.uint64(self.variants)
        return (hashed(rows.positions, (self.seed, 25)) % kinds).astype(np.int64)

    def review_items(self, rows: Rows) -> list[bytes]:
        variant = self.variant(rows)
        total = self.total_items * self.variants
        # A letter of their own keeps the ids of variants apart from those of products.
        others = spaced(rows.items * self.variants + variant, total, 36, 8, (self.seed, 26), b"B1")
        own = self.item_tokens(rows.items)
        return [mine if v == 0 else other for mine, v, other in zip(own, variant.tolist(), others, strict=True)]

    def reviews(self, rows: Rows) -> bytes:
        at = rows.positions
        thousandths = (hashed(at, (self.seed, 27)) % np.uint64(1000)).astype(np.int64)
        return filled(
            '{"rating": §, "title": "§", "text": "§", "images": §, "asin": "§", "parent_asin": "§", "user_id": "§", '
            '"timestamp": §, "helpful_vote": §, "verified_purchase": §',
            stars(rows.ratings),
            self.pick(self.summaries, at, 54, 2.0),
            self.texts(at),
            self.pick(self._images, at, 59),
            self.review_items(rows),
            self.item_tokens(rows.items),
            self.user_tokens(rows.users),
            numbers(rows.times * 1000 + thousandths),
            self.pick(self._helpful, at, 53, 2.0),
            self.pick(self._verified, at, 57),
        )

    def items(self, codes: np.ndarray, counts: np.ndarray) -> bytes:
        description = [b'["' + text + b'"]' for text in self.texts(codes, 61)]
        for index in np.flatnonzero(self.share(codes, 63, 0.4)).tolist():
            description[index] = b"[]"
        store = [b'"%s"' % brand for brand in self.pick(self.brands, codes, 41, 2.0)]
        for index in np.flatnonzero(self.share(codes, 65, 0.05)).tolist():
            store[index] = b"null"
        return filled(
            '{"main_category": "§", "title": "§", "average_rating": 4.§, "rating_number": §, "features": §, '
            '"description": §, "price": null, "images": [], "videos": [], "store": §, "categories": §, '
            '"details": {"Brand": "§"}, "parent_asin": "§", "bought_together": null}\n',
            self.pick(self.categories[:20], codes, 72),
            self.item_title(codes),
            numbers(codes % 10),
            numbers(counts),
            self.lists(codes, self.titles, 6, 68),
            description,
            store,
            self.lists(codes, self.categories, 4, 64),
            self.pick(self.brands, codes, 41, 2.0),
            self.item_tokens(codes),
        )


def _american(date: Any) -> str:
    return f"{date.tm_mon:02d} {date.tm_mday}, {date.tm_year}"
