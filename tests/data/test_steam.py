"""What is Steam's own: Python literals, dates in words, entries without a whole date, games with half an entry."""

from __future__ import annotations

import json

import numpy as np
import pytest
from raw_sources import FORMS, Item, Review, mirror, write_lines

from recllm_bench.data.prepare import format_check, prepare
from recllm_bench.data.prepare.steam import _whole_date
from recllm_bench.data.splits import global_time
from recllm_bench.errors import BenchError

__all__ = ["mirror"]  # a fixture
START = 1_400_025_600  # 2014-05-14
DAY = 86_400


def items_of(prepared, user: int) -> list[str]:
    return [prepared.catalogue.tokens[item] for item in prepared.histories.of(user)]


# --- the reviews of all users ----------------------------------------------------------------------------------------


def test_literals_as_published(mirror):
    lines = [
        rb"""{u'username': u'Chaos "Syren"', u'hours': 0.1, u'product_id': u'725280', u'date': u'2017-12-17', """
        rb"""u'text': u"This isn't \u0431\u043e\u0440\u0449", u'early_access': False, u'page': 1}""",
        rb"""{u'username': u'\U0001f600\xe9', u'product_id': u'725280', u'date': u'2017-12-16', u'text': u''}""",
    ]
    write_lines(mirror / FORMS["steam-literal"].reviews_path, lines)
    prepared = prepare("steam")
    assert list(prepared.user_tokens) == ["", 'Chaos "Syren"', "\U0001f600\xe9"]
    assert prepared.histories.times.tolist() == [1_513_468_800, 1_513_382_400]
    assert prepared.histories.ratings is None
    assert prepared.reviews().of([0, 1]) == ["This isn't \u0431\u043e\u0440\u0449", ""]


def test_both_forms_give_the_same(mirror, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [
        Review(f"u'{n % 5}\"", int(item), START + int(day) * DAY, text=f'It\'s "{n}"\n\u20ac \U0001f600 \\')
        for n, (item, day) in enumerate(zip(rng.integers(0, 9, 50), rng.integers(0, 9, 50), strict=True))
    ]
    found = []
    for name in ("steam-literal", "steam-json"):
        folder = tmp_path / name
        FORMS[name].make(folder, rows, [Item(n, f"It's {n}") for n in range(5)])
        monkeypatch.setenv("RECLLM_DATA_MIRROR", str(folder))
        prepared = prepare("steam")
        found.append((prepared.checksum, prepared.reviews().of(np.arange(50))))
    assert found[0] == found[1]


def test_no_rating_can_be_asked_for(mirror):
    FORMS["steam-json"].make(mirror, [Review()])
    with pytest.raises(BenchError, match="min_rating but this dataset has no ratings; leave min_rating out"):
        prepare("steam", "min_rating=4")


# --- games -----------------------------------------------------------------------------------------------------------


def test_games(mirror):
    form = FORMS["steam-json"]
    games = [
        {"id": 10, "title": "Counter-Strike", "app_name": "CS", "genres": ["Action"], "tags": ["FPS", "Classic "]},
        {"id": "20", "app_name": "Only a name", "release_date": "Jun 2009"},
        {"id": "30", "title": None, "app_name": None, "genres": None, "tags": None, "release_date": "Soon.."},
        {
            "id": "40",
            "title": "",
            "app_name": "Fallback",
            "release_date": "2018-01-04",
            "developer": "Dev",
            "price": "",
        },
        {"app_name": "No id", "title": "No id"},
        {"id": "50", "title": "Year 1984", "release_date": "Coming 21234"},
        {"id": "60", "title": 1984, "genres": ["Indie", None, 5], "release_date": 2001},
    ]
    form.make(mirror, [Review(item=str(n)) for n in range(10, 80, 10)])
    write_lines(mirror / form.items_path, (repr(game).encode() for game in games))
    prepared = prepare("steam")
    catalogue = prepared.catalogue
    rows = zip(catalogue.tokens, catalogue.titles, catalogue.years.tolist(), catalogue.categories, strict=True)
    assert list(rows)[1:] == [
        ("10", "Counter-Strike", 0, ("Action",)),
        ("20", "Only a name", 2009, ()),
        ("30", "", 0, ()),
        ("40", "Fallback", 2018, ()),
        ("50", "Year 1984", 0, ()),
        ("60", "1984", 2001, ("Indie", "5")),
        ("70", "", 0, ()),
    ]
    assert catalogue.text(1) == "Counter-Strike, Action, FPS, Classic"
    assert prepared.facts["noticed"]["metadata without an id"] == 1
    assert prepared.facts["noticed"]["items in the metadata"] == 7


# --- Australian users ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("posted", "with_year", "without"),
    [
        ("Posted November 5, 2011.", "2011-11-05", "2011-11-05"),
        ("Posted May 20.", "2016-05-20", None),
        ("May 20.", "2016-05-20", None),
        ("July 4", "2016-07-04", None),
        ("  Posted December 31, 2013.  ", "2013-12-31", "2013-12-31"),
        ("Posted February 29.", "2016-02-29", None),
        ("Posted February 29, 2015.", None, None),
        ("Posted Smarch 5, 2011.", None, None),
        ("2011-11-05", "2011-11-05", "2011-11-05"),
        ("", "", ""),
        (None, None, None),
        ("yesterday", "yesterday", "yesterday"),
    ],
)
def test_dates_in_words(posted, with_year, without):
    assert _whole_date(posted, 2016) == with_year
    assert _whole_date(posted, None) == without


def test_february_in_a_year_without_its_29th():
    assert _whole_date("Posted February 29.", 2015) is None


def published(*entries: dict, user: str = "u1", kind: str = "reviews") -> bytes:
    return repr({"user_id": user, "user_url": "http://x", kind: list(entries)}).encode()


def test_published_reviews(mirror):
    form = FORMS["steam-published"]
    first = [
        {"funny": "", "posted": "Posted May 20.", "item_id": "30", "recommend": True, "review": "this year"},
        {"funny": "", "posted": "Posted November 5, 2011.", "item_id": 10, "recommend": True, "review": "oldest"},
        {"funny": "", "posted": "Posted July 15, 2012.", "item_id": "20", "recommend": False, "review": 'It\'s "ok"'},
    ]
    lines = [published(*first), published(user="nobody"), published({"posted": None, "item_id": ""}, user="u2")]
    write_lines(
        mirror / form.reviews_path, [*lines, published({"posted": "Posted June 1.", "item_id": "10"}, user="u3")]
    )
    prepared = prepare("steam-au")
    assert list(prepared.user_tokens) == ["", "u1", "u3"]
    assert items_of(prepared, 1) == ["10", "20", "30"], "undated ones are of the year of the crawl"
    assert prepared.has_times
    assert prepared.reviews().of(np.arange(4)) == ["oldest", 'It\'s "ok"', "this year", ""]
    assert prepared.facts["noticed"]["entries without an item"] == 1
    assert prepared.facts["noticed"]["lines in reviews"] == 4


def test_undated_entries_come_last(mirror):
    rows = [("30", "May 20."), ("10", "2013-01-01"), ("40", None), ("20", "2012-01-01"), ("50", "today")]
    lines = [{"user_id": "u1", "item_id": item, "posted": date, "review": item} for item, date in rows]
    path = mirror / "steam/australian_user_reviews_notext.jsonl.gz"
    write_lines(path, (json.dumps(line).encode() for line in lines))
    prepared = prepare("steam-au")
    assert prepared.variant == "flattened"
    assert items_of(prepared, 1) == ["20", "10", "30", "40", "50"], "undated ones last, in file order"
    assert not prepared.has_times
    assert prepared.histories.times is None
    assert prepared.facts["noticed"]["entries without a whole date"] == 3
    assert "no times in this variant" in format_check(prepared)
    with pytest.raises(BenchError, match="no global time split"):
        global_time(prepared.histories)
    kept = prepare("steam-au", "repeats=drop")
    assert items_of(kept, 1) == ["20", "10", "30", "40", "50"]


@pytest.mark.parametrize("nested", [True, False])
def test_libraries(mirror, nested):
    games = [
        {"item_id": str(n), "item_name": f"Game {n}", "playtime_forever": 6, "playtime_2weeks": 0} for n in (30, 10)
    ]
    if nested:
        lines = [published(*games, kind="items"), published(kind="items", user="owns nothing")]
        write_lines(mirror / "steam/australian_users_items.json.gz", lines)
    else:
        lines = [json.dumps({"user_id": "u1", **game}).encode() for game in games]
        write_lines(mirror / "steam/australian_users_items.jsonl.gz", lines)
    prepared = prepare("steam-au-library")
    assert prepared.variant == ("published" if nested else "flattened")
    assert items_of(prepared, 1) == ["30", "10"]
    assert prepared.facts["users"] == 1
    assert not prepared.has_times
    assert prepared.reviews() is None


def test_a_user_with_seven_thousand_games(mirror):
    """The longest lines of the published file: a megabyte of literals."""
    games = [{"item_id": str(n), "item_name": "x" * 60, "playtime_forever": 0} for n in range(7_800)]
    write_lines(mirror / "steam/australian_users_items.json.gz", [published(*games, kind="items")])
    assert prepare("steam-au-library").facts["interactions"] == 7_800


def test_one_wrong_entry_makes_a_bad_line(mirror):
    form = FORMS["steam-published"]
    good = published({"posted": "Posted May 20.", "item_id": "1", "review": "x"})
    write_lines(mirror / form.reviews_path, [published({"posted": 5, "item_id": "1"}, user="bad"), good])
    prepared = prepare("steam-au", most_bad=0.5)
    assert prepared.facts["users"] == 1
    assert prepared.facts["noticed"]["lines skipped in reviews"] == 1


def test_a_bad_first_line_does_not_decide_the_kind(mirror):
    for name in ("steam-flattened", "steam-literal"):
        form = FORMS[name]
        rows = [form.line(Review(item=n, time=START + n * DAY)) for n in range(5)]
        write_lines(mirror / form.reviews_path, [rows[0][:-9], *rows])
        prepared = prepare(form.dataset, most_bad=0.5)
        assert (prepared.facts["interactions"], prepared.facts["noticed"]["lines skipped in reviews"]) == (5, 1)
