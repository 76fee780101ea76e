"""Reading a wish: every phrasing of the rules, negations, titles, and items that fit by brute force."""

from __future__ import annotations

import types

import numpy as np
import pytest

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.feedback import RuleFeedback
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.rules import RuleSimulator
from recllm_bench.conversation.understanding import Understanding, Wish
from recllm_bench.data.catalogue import Catalogue
from tests.conftest import planted_catalogue, planted_histories

FILMS = {
    "Star Wars (1977)": (1977, ("Action", "Sci-Fi", "War")),
    "The Long Wedding (1995)": (1995, ("Comedy", "Romance")),
    "Dark Alleys (1946)": (1946, ("Film-Noir", "Crime")),
    "A Small Duck (1992)": (1992, ("Children's", "Comedy")),
    "Dust (1992)": (1992, ("Western",)),
}
CATALOGUE = Catalogue(
    tokens=["", *"abcde"],
    titles=["", *FILMS],
    years=np.array([0, *(year for year, _ in FILMS.values())], dtype=np.int32),
    categories=[(), *(kinds for _, kinds in FILMS.values())],
    descriptions=[""] * 6,
    domain="movie",
)
READER = Understanding(CATALOGUE, AttributeTable(CATALOGUE))


def said(text: str) -> tuple[set[str], set[str]]:
    wish = READER.read([text])[0]
    return tuple({" ".join(READER.terms[term]) for term in side} for side in wish)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("I want a Comedy movie from the 1990s.", {"comedy", "1990s"}, set()),
        ("comedies from the nineties please", {"comedy", "1990s"}, set()),
        ("Something noir? A film noir, of 1946!", {"film noir", "1946"}, set()),
        ("a sci-fi or science thing", {"sci fi"}, set()),
        ("A children's movie.", {"childrens"}, set()),
        ("No, I do not want a War movie. I would rather have a Comedy.", {"comedy"}, {"war"}),
        ("No westerns, but a romance.", {"romance"}, {"western"}),
        ("Not quite: please, not a Western movie.", set(), {"western"}),
        ("Thanks, but a western is not for me. I like crime.", {"crime"}, {"western"}),
        ("I have no wish for war. Rather a comedy.", {"comedy"}, {"war"}),
        ("A comedy rather than a western", {"comedy"}, {"western"}),
        ("I prefer a comedy to a war movie", {"comedy"}, {"war"}),
        ("I'm tired of crime, give me romance", {"romance"}, {"crime"}),
        ("Anything but war", set(), {"war"}),
        ("Don't show me any western; a drama of the 40s", {"1940s"}, {"western"}),
        ("not only action but war as well", {"action", "war"}, set()),
        ("No, a western!", {"western"}, set()),
        ("Without romance or war, from the '70s", set(), {"romance", "war", "1970s"}),
        ("Something like Star Wars (1977), with romance", {"romance"}, set()),
        ("like Star Wars but a comedy", {"comedy"}, set()),
        ("I am looking for something I will like.", set(), set()),
        ("", set(), set()),
    ],
)
def test_a_sentence_is_read(text, wanted, unwanted):
    assert said(text) == (wanted, unwanted)


def test_every_opening_of_the_rules_is_understood_as_it_was_meant():
    catalogue, histories = planted_catalogue(), planted_histories()
    reader = Understanding(catalogue, AttributeTable(catalogue))
    users = np.arange(1, 201)
    profiles = build_profiles(
        catalogue, histories, users, histories.offsets[users] - 1, histories.items[histories.offsets[users] - 1]
    )
    for first in (1, 2, "all"):
        simulator = RuleSimulator(catalogue, seed=3, facts_in_opening=first)
        told = reader.told([(said, ()) for said in simulator.facts_said(profiles)])
        assert reader.read(simulator.open(profiles)) == told
        assert all(reader.fits(wish)[profile.target] for wish, profile in zip(told, profiles, strict=True))


def test_remarks_name_a_dislike_and_wishes():
    catalogue = planted_catalogue()
    table = AttributeTable(catalogue)
    reader, speaker = Understanding(catalogue, table), RuleFeedback(catalogue, seed=1, facts=2)
    shown, targets = np.arange(1, 51), np.arange(51, 101)
    for wish, item, target in zip(reader.read(speaker.say(shown, shown, targets)), shown, targets, strict=True):
        values = [{fact.value.casefold() for fact in table.facts(each)} for each in (item, target)]
        wanted, unwanted = ({" ".join(reader.terms[term]) for term in side} for side in wish)
        assert wanted and wanted <= values[1] and unwanted <= values[0] - values[1]


def test_who_fits_by_brute_force():
    facts = {item: {fact.value for fact in AttributeTable(CATALOGUE).facts(item)} for item in range(1, 6)}
    for text, wanted, unwanted in (
        ("a comedy", {"Comedy"}, set()),
        ("a comedy from the 1990s, no romance", {"Comedy", "1990s"}, {"Romance"}),
        ("no comedy", set(), {"Comedy"}),
        ("a western from the 1940s", {"Western", "1940s"}, set()),
        ("whatever", set(), set()),
    ):
        mask = READER.fits(READER.read([text])[0])
        assert not mask[0]
        assert [item for item in facts if mask[item]] == [
            item for item, has in facts.items() if wanted <= has and not unwanted & has
        ]


def test_facts_said_by_the_same_words_are_one_term():
    vocabulary = [Fact("category", "Comedy"), Fact("tag", "comedy"), Fact("tag", "dark")]
    table = types.SimpleNamespace(
        vocabulary=vocabulary, matrix=AttributeTable(CATALOGUE).matrix[:, :3], wordings=lambda fact: ()
    )
    reader = Understanding(CATALOGUE, table)  # type: ignore[arg-type]
    assert reader.terms == [("comedy",), ("dark",)]
    both = (table.matrix[:, 0] + table.matrix[:, 1]).toarray()[:, 0] > 0
    np.testing.assert_array_equal(reader.fits(Wish((0,))), both)
