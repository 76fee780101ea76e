"""The leakage guard: every form of a title, and no more than that."""

from __future__ import annotations

import time

import numpy as np
import pytest

from recllm_bench.conversation.redaction import NEUTRAL, Redactor, contains, title_forms
from recllm_bench.data.catalogue import Catalogue


def catalogue(*titles: str, tokens: list[str] | None = None) -> Catalogue:
    n = len(titles)
    return Catalogue(
        ["", *(tokens or [str(item) for item in range(1, n + 1)])],
        ["", *titles],
        np.zeros(n + 1, np.int32),
        [()] * (n + 1),
        [""] * (n + 1),
    )


OTHERS = (
    "King of the Hill",
    "The Ring",
    "Return to Me",
    "Lord Jim",
    "List of Names",
    "Story of Us",
    "The Fellowship",
    "Point of Return",
)


def guarded(title: str, text: str, token: str = "1"):
    shelf = catalogue(title, *OTHERS, tokens=[token, *map(str, range(2, 2 + len(OTHERS)))])
    return Redactor(shelf).redact([text], [1])


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("Toy Story", "Something like Toy Story please"),
        ("Toy Story", "something like toy story please"),
        ("Toy Story", "something like TOY   STORY please"),
        ("Toy Story", "I loved ToyStory"),
        ("Toy Story", "that toy-story film"),
        ("Toy Story (1995)", "toy story, please"),
        ("Matrix, The", "I want the Matrix"),
        ("The Matrix", "I want matrix"),
        ("Godfather, The", "the GODFATHER, you know"),
        ("Schindler's List", "it is schindlers list"),
        ("Schindler's List", "it is Schindler’s List"),
        ("Schindler's List", "the one about Schindler"),
        ("Amélie", "I liked Amelie"),
        ("Spider-Man", "like spiderman or so"),
        ("Spider-Man", "like Spider Man"),
        ("Romeo & Juliet", "that romeo and juliet film"),
        ("M*A*S*H", "as in MASH"),
        ("Alien: Resurrection", "an Alien film"),
        ("Star Wars: Episode IV - A New Hope", "star wars"),
        ("Halo 3 Limited Edition", "halo 3"),
        ("Blade Runner (Director's Cut)", "blade runner"),
        ("Final Quest - Collector's Edition", "final quest"),
        ("Seven (a.k.a. Se7en)", "that se7en film"),
        ("City of Lost Children, The (Cité des enfants perdus, La)", "la cite des enfants perdus"),
        ("Lord of the Rings: The Fellowship of the Ring", "lord rings fellowship"),
        ("The Long Dark Road to the Old Mill House", "a dark road at an old mill"),
        ("Casablanca", "as in casablanca"),
        ("Lord Jumanji", "what about jumanji?"),
        ("It", 'the film called "It"'),
        ("It", "I want to see It again"),
        ("Her", "have you seen “her”?"),
        ("Heat", "films such as Heat, say"),
    ],
)
def test_forms_of_a_title_are_replaced(title, text):
    result = guarded(title, text)
    assert result.leaked[0], result.texts
    assert NEUTRAL in result.texts[0]
    again = guarded(title, result.texts[0])
    assert not again.leaked[0]
    assert again.texts == result.texts


@pytest.mark.parametrize(
    ("title", "text", "ambiguous"),
    [
        ("It", "I like it when it rains", 2),
        ("It", "It should be long", 1),
        ("Her", "a film about her", 1),
        ("Heat", "a film with heat", 1),
        ("Toy Story", "a story about a toy", 0),
        ("Lord of the Rings", "a lord and many kings", 0),
        ("King of the Ring", "the king of comedy", 0),
        ("Return to Me", "return of the king", 0),
        ("", "anything at all", 0),
        ("List of Names", "a list, please", 0),
    ],
)
def test_other_words_stay(title, text, ambiguous):
    result = guarded(title, text)
    assert result.texts == [text]
    assert not result.leaked[0]
    assert result.ambiguous[0] == ambiguous


def test_a_word_is_rare_only_if_no_other_title_has_it():
    text = ["something with pirates"]
    assert Redactor(catalogue("Pirates of Nowhere", "Nowhere Land")).redact(text, [1]).leaked[0]
    assert not Redactor(catalogue("Pirates of Nowhere", "Land of Pirates")).redact(text, [1]).leaked[0]
    same = Redactor(catalogue("Pirates of Nowhere", "Pirates of Nowhere"))  # two editions are one title
    assert same.redact(text, [1]).leaked[0]


def test_ids_and_addresses_go():
    result = guarded(
        "Toy Story", "see https://shop.example/B00ABCDEF1 or B00ABCDEF1, item id: 42 (tt0114709)", "B00ABCDEF1"
    )
    assert result.identifiers[0] >= 4
    for part in ("http", "B00", "42", "tt0"):
        assert part not in result.texts[0]
    own = guarded("Toy Story", "it is number qz-778-x", "QZ-778-x")
    assert own.leaked[0]
    assert "778" not in own.texts[0]
    years = guarded("Toy Story", "a film of 1995, for 12 year olds", "1995")
    assert years.texts == ["a film of 1995, for 12 year olds"]


def test_counters_and_batches():
    guard = Redactor(catalogue("Toy Story", "It", *OTHERS))
    texts = ["toy story", "a comedy", "I saw it", "toy story"]
    result = guard.redact(texts, [1, 1, 2, 2])
    assert result.leaked.tolist() == [True, False, False, False]  # the same words do not name item 2
    assert guard.n_leaks == 1
    assert guard.redact([], []).texts == []


def test_leak_across_a_removed_leak():
    result = guarded("Blue Velvet", "blue blue velvet velvet")
    assert not guarded("Blue Velvet", result.texts[0]).leaked[0]


def test_title_forms():
    assert {"Lion King", "The Lion King"} <= set(title_forms("Lion King, The (1994)"))
    assert "Halo 3" in title_forms("Halo 3 - Game of the Year Edition")
    assert all(title_forms(title) == [] for title in ("", "  "))


def test_contains_matches_whole_words():
    assert contains("a Sci-Fi film", "sci fi")
    assert contains("from the 1990s", "1990s")
    assert not contains("from the 1990s", "1990")
    assert not contains("dramatic", "Drama")


def test_many_texts_are_fast():
    rng = np.random.default_rng(0)
    names = [f"Tale {chr(97 + i % 26)}{i} of the River" for i in range(2000)]
    guard = Redactor(catalogue(*names))
    texts = [f"I want a comedy about number {i}, with many horses" for i in range(10_000)]
    start = time.perf_counter()
    guard.redact(texts, rng.integers(1, 2001, len(texts)).tolist())
    assert time.perf_counter() - start < 5
