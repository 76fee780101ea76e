"""What is Amazon's own: editions, categories by template, titles out of scraps, variants of a product."""

from __future__ import annotations

import json
import re

import pytest
from raw_sources import FORMS, Item, Review, mirror, write_lines

from recllm_bench.data.cards import all_cards, find_card
from recllm_bench.data.prepare import filter_names, format_check, prepare
from recllm_bench.data.prepare.amazon import category_names, open_amazon
from recllm_bench.errors import BenchError

__all__ = ["mirror"]  # a fixture
DAY = 86_400
START = 1_400_025_600
SCRAP = (
    "<html><head><script>var aPageStart = (new Date()).getTime();</script></head><body>"
    '<span id="productTitle" class="a-size-large">\n   Mario &amp; Luigi\n </span></body></html>'
)


def metadata(mirror, name: str, *items: dict) -> None:
    write = repr if name == "amazon-2014" else json.dumps
    write_lines(mirror / FORMS[name].items_path, (write(item).encode() for item in items))


def catalogue_of(prepared) -> dict[str, tuple]:
    found = prepared.catalogue
    return {
        token: (found.titles[item], found.categories[item], found.descriptions[item], found.text(item))
        for item, token in enumerate(found.tokens)
        if item
    }


# --- the cards -------------------------------------------------------------------------------------------------------


def test_templates():
    cards = all_cards()
    for edition, count in ((2014, 24), (2018, 29), (2023, 34)):
        of_edition = [card for card in cards.values() if card.get("template") == f"amazon-{edition}-{{category}}"]
        assert len(of_edition) == count
        assert all(card["options"] == {"edition": edition} for card in of_edition)
        assert len({card["category"] for card in of_edition}) == count
    names = [name.casefold() for card in cards.values() for name in (card["name"], *card.get("aliases", ()))]
    assert len(set(names)) == len(names), "a name or alias stands for one card"
    for card in cards.values():
        for variant in card["variants"]:
            for entry in variant.get("files", {}).values():
                assert not set("{} ") & set(entry["path"] + entry.get("url", "")), entry
        assert "{" not in card["title"] + card["name"]
    books = find_card("amazon-2014-books")
    assert books["variants"][0]["files"]["reviews"]["path"] == "amazon/2014/reviews_Books_5.json.gz"
    assert books["filters"]["relrec"]["ids"] == "rlmrec"
    assert "ids" not in find_card("amazon-2014-baby")["filters"]["relrec"], "a category's settings are its own"
    assert filter_names("amazon-2023-cds-and-vinyl") == ["all", "latentcrs", "cesrec", "relrec"]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("amazon-2014-muscial-instruments", "amazon-2014-musical-instruments"), ("amazon-2023-book", "amazon-2023-books")],
)
def test_an_unknown_category(wrong, near):
    with pytest.raises(BenchError, match=f"unknown dataset '{wrong}'.*{near}"):
        find_card(wrong)


def test_an_unknown_edition(tmp_path):
    with pytest.raises(BenchError, match="no edition 2019; the editions are 2014, 2018 and 2023"):
        open_amazon({"reviews": tmp_path / "x"}, edition=2019)


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["Root", "A", "B"], ["A", "B"]),
        ([["Root", "A", "B"], ["Root", "A", "C"]], ["A", "B", "C"]),
        ([["Root"]], []),
        (["Root"], []),
        ([], []),
        ([[]], []),
        (None, []),
        ("Root", []),
        ({"a": 1}, []),
        ([["Root", "A"], "stray", None, 7], ["A"]),
        ([None, "A"], ["A"]),
        (["Root", "A", None, 5, "A ", "&amp; B", ""], ["A", "& B"]),
        (["Root", "<span>x</span>", "x" * 61, "A whole sentence.", "x" * 60], ["x" * 60]),
        (["Root", "</li><li>", "Fine"], ["Fine"]),
    ],
)
def test_category_names(paths, names):
    assert category_names(paths) == names


@pytest.mark.parametrize("name", ["amazon-2014", "amazon-2018", "amazon-2023"])
def test_item_text(name, mirror):
    """Title, category path without its root, first paragraph of the description (LatentCRS, section 5)."""
    form = FORMS[name]
    form.make(
        mirror, [Review(item="i1")], [Item("i1", "Pok\xe9mon &amp; Co", ("Games", "Nintendo DS"), "First, here.")]
    )
    text = catalogue_of(prepare(form.dataset))["i1"]
    assert text[0] == "Pok\xe9mon & Co"
    assert text[3] == "Pok\xe9mon & Co, Games, Nintendo DS, First, here."
    assert text[2].split("\n")[1:] == ([] if name == "amazon-2014" else ["Second paragraph."])


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (["", "  ", "One &lt;b&gt;bold&lt;/b&gt;", "Two<br />lines"], "One bold\nTwo lines"),
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        (["a\nb"], "a b"),
        (None, ""),
        ([None, 5, {"a": 1}, "x"], "x"),
        ([], ""),
        ({"a": 1}, ""),
    ],
)
def test_descriptions(description, expected, mirror):
    form = FORMS["amazon-2018"]
    form.make(mirror, [Review(item="i1")])
    metadata(mirror, form.name, {"asin": "i1", "title": "T", "description": description})
    assert catalogue_of(prepare(form.dataset))["i1"][2] == expected


def test_scraps_for_titles(mirror):
    form = FORMS["amazon-2018"]
    titles = {
        "i1": SCRAP,
        "i2": "var aPageStart = (new Date()).getTime();",
        "i3": "</li><li>Fine?",
        "i4": "I <3 cats & dogs > birds",
        "i5": ["a", "list"],
        "i6": 1984,
        "i7": '<span id="btAsinTitle">Old <i>page</i></span>',
        "i8": '{"json": 1}',
    }
    form.make(mirror, [Review(item=token) for token in titles])
    metadata(mirror, form.name, *({"asin": token, "title": title} for token, title in titles.items()))
    prepared = prepare(form.dataset)
    found = {token: text[0] for token, text in catalogue_of(prepared).items()}
    expected = {"i1": "Mario & Luigi", "i4": titles["i4"], "i7": "Old"}
    assert found == {token: expected.get(token, "") for token in titles}
    noticed = prepared.facts["noticed"]
    assert noticed["titles that are scraps of HTML"] == 5
    assert noticed["titles recovered from a scrap"] == 2
    assert noticed["titles lost to a scrap"] == 3
    assert "titles lost to a scrap: 3" in format_check(prepared)
    assert prepared.facts["items_with_text"] == 3


def test_metadata_of_2014_is_never_run(mirror, tmp_path):
    form = FORMS["amazon-2014"]
    touched = tmp_path / "touched"
    form.make(mirror, [Review(item="i1")])
    hostile = f"{{'asin': 'i1', 'title': open({str(touched)!r}, 'w')}}".encode()
    fine = b"{'asin': 'i1', 'title': \"Rock'n'Roll \\xe9\", 'imUrl': 'http://x', 'salesRank': {'Toys': 211836}}"
    write_lines(mirror / form.items_path, [hostile, fine])
    prepared = prepare(form.dataset, most_bad=0.5)
    assert prepared.catalogue.titles[1] == "Rock'n'Roll \xe9"
    assert prepared.facts["noticed"]["lines skipped in items"] == 1
    assert not touched.exists()


# --- interactions ----------------------------------------------------------------------------------------------------


def test_repeats_keep_the_earliest(mirror):
    form = FORMS["amazon-2018"]
    rows = [
        Review("u", "a", START + 3 * DAY, 3, "late"),
        Review("u", "b", START + 2 * DAY, 4, "b"),
        Review("u", "a", START, 1, "early"),
        Review("u", "a", START, 2, "as early, but later in the file"),
        Review("v", "a", START + DAY, 5, "another user"),
    ]
    form.make(mirror, rows)
    everything, dropped = prepare(form.dataset), prepare(form.dataset, "cesrec")
    assert everything.facts["repeats"] == 2
    assert dropped.facts["repeats"] == 0
    assert [text.split("\n")[1] for text in dropped.reviews().of([0, 1, 2])] == ["early", "b", "another user"]
    assert dropped.histories.ratings.tolist() == [1, 4, 5]


def variant_lines(mirror) -> None:
    """Three colours of one product, the product itself, and items of their own."""
    form = FORMS["amazon-2023"]
    rows = [("u1", "red", "P"), ("u1", "blue", "P"), ("u2", "red", "P"), ("u2", "own", "own"), ("u3", "P", "P")]
    rows += [("u3", "stray", None), ("u3", "empty", "")]
    lines = []
    for n, (user, item, parent) in enumerate(rows):
        record = form.review(Review(user, item, START + n * DAY, 5.0, f"Text {n}."))
        record["parent_asin"] = parent
        if parent is None:
            del record["parent_asin"]
        lines.append(json.dumps(record).encode())
    write_lines(mirror / form.reviews_path, lines)
    metadata(
        mirror,
        form.name,
        {"parent_asin": "P", "title": "The Product", "store": "Shop"},
        {"parent_asin": "own", "title": "On its own"},
        {"asin": "red", "title": "No parent_asin"},
    )


def test_variants_take_the_text_of_their_product(mirror):
    variant_lines(mirror)
    prepared = prepare("amazon-2023-video-games")
    titles = {token: text[0] for token, text in catalogue_of(prepared).items()}
    product = dict.fromkeys(("red", "blue", "P"), "The Product")
    assert titles == {**product, "own": "On its own", "stray": "", "empty": ""}
    assert prepared.facts["noticed"]["metadata without an id"] == 1
    assert (prepared.facts["users"], prepared.facts["items"], prepared.facts["interactions"]) == (3, 6, 7)


def test_merged_variants(mirror):
    variant_lines(mirror)
    prepared = prepare("amazon-2023-video-games", "merge_variants=true")
    tokens = prepared.catalogue.tokens
    assert tokens == ["", "P", "own", "stray", "empty"]
    assert [[tokens[item] for item in prepared.histories.of(user)] for user in (1, 2, 3)] == [
        ["P", "P"],
        ["P", "own"],
        ["P", "stray", "empty"],
    ]
    assert prepare("amazon-2023-video-games", "merge_variants=true,repeats=drop").facts["interactions"] == 6
    # The cut comes after the merger: the product has four interactions, its variants have at most two.
    assert prepare("amazon-2023-video-games", "merge_variants=true,items_min=3").facts["items"] == 1
    with pytest.raises(BenchError, match="leaves no interaction"):
        prepare("amazon-2023-video-games", "items_min=3")


def test_variants_of_other_editions(mirror):
    FORMS["amazon-2018"].make(mirror, [Review()])
    with pytest.raises(BenchError, match="merge_variants but this dataset knows no variants"):
        prepare("amazon-2018-video-games", "merge_variants=true")


def test_listed_items(mirror):
    """``a`` is not in the metadata: cut inside the rounds it takes its user along, cut afterwards it does not."""
    form = FORMS["amazon-2018"]
    rows = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b"), ("u2", "c"), ("u3", "b"), ("u3", "c")]
    form.make(mirror, [Review(u, i, START + n * DAY) for n, (u, i) in enumerate(rows)], [Item("b"), Item("c")])

    def kept(settings: str) -> list[tuple[str, list[str]]]:
        prepared = prepare(form.dataset, settings)
        tokens = prepared.catalogue.tokens
        return [
            (token, [tokens[item] for item in prepared.histories.of(user)])
            for user, token in enumerate(prepared.user_tokens)
            if user
        ]

    assert kept("users_min=2,listed=rounds") == [("u2", ["b", "c"]), ("u3", ["b", "c"])]
    assert kept("users_min=2,listed=after") == [("u1", ["b"]), ("u2", ["b", "c"]), ("u3", ["b", "c"])]
    assert kept("users_min=2")[0] == ("u1", ["a", "b"])


@pytest.mark.parametrize("items", [None, [Item("never reviewed")]])
def test_listed_items_without_a_list(mirror, items):
    form = FORMS["amazon-2023"]
    form.make(mirror, [Review()], items)
    with pytest.raises(BenchError, match="listed items but this dataset has no item list; leave listed out"):
        prepare(form.dataset, "latentcrs")


def test_reviews_alone_on_the_mirror_say_nothing_of_meta(mirror):
    form = FORMS["amazon-2014"]
    form.make(mirror, [Review()])
    assert prepare(form.dataset).facts["items_with_text"] == 0


def test_a_review_with_title_or_text_alone(mirror):
    form = FORMS["amazon-2023"]
    records = [form.review(Review("u", f"i{n}", START + n * DAY)) for n in range(4)]
    records[1]["title"] = records[2]["text"] = None
    del records[3]["title"], records[3]["text"]
    write_lines(mirror / form.reviews_path, (json.dumps(record).encode() for record in records))
    assert prepare(form.dataset).reviews().of(range(4)) == ["In short\nGood enough.", "Good enough.", "In short", ""]


def test_the_message_for_a_file_of_another_edition(mirror):
    form = FORMS["amazon-2023"]
    write_lines(mirror / form.reviews_path, [FORMS["amazon-2018"].line(Review())] * 3)
    with pytest.raises(BenchError, match=re.escape(":1: the field user_id is missing; 3 of 3 lines are bad")):
        prepare(form.dataset)
