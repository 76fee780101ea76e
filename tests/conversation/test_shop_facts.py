"""Makers and prices as facts that users say: who has which, how they are worded, and how they are understood."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from recllm_bench.conversation.attributes import Fact
from recllm_bench.conversation.people import People
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.redaction import Redactor
from recllm_bench.conversation.rules import RuleSimulator
from recllm_bench.conversation.spoken import CHEAP, EXPENSIVE, MODERATE, SpokenFacts, noun_phrase
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.data.catalogue import Catalogue
from tests.conftest import planted_histories

MAKERS = ("Fender", "Gibson & Co.", "D'Addario", "Always", "A.B.C.", "Ernie Ball", "1887")
KINDS = ("Strings", "Straps", "Effects Pedals", "Microphones")


def shop(n: int = 140) -> Catalogue:
    """Invented instruments; each seventh has the maker of seven before it, a tenth has no price."""
    rng = np.random.default_rng(3)
    prices = np.exp(rng.normal(3, 1, n)).round(2)
    prices[::10] = np.nan
    return Catalogue(
        tokens=["", *(f"t{item}" for item in range(n))],
        titles=["", *(f"Model {chr(65 + item % 26)}{item}" for item in range(n))],
        years=np.zeros(n + 1, dtype=np.int32),
        categories=[(), *((KINDS[item % 4],) for item in range(n))],
        descriptions=[""] * (n + 1),
        domain="instrument",
        brands=["", *(MAKERS[item % 7] for item in range(n))],
        prices=np.concatenate([[np.nan], prices]).astype(np.float32),
    )


def of_kind(catalogue: Catalogue, kind: str) -> list[str]:
    facts = [SpokenFacts(catalogue).facts(item) for item in range(len(catalogue))]
    return [next((fact.value for fact in row if fact.kind == kind), "") for row in facts]


def people_of(catalogue: Catalogue, seed: int = 0):
    people = People(catalogue, seed=seed)
    histories = planted_histories(60, len(catalogue) - 1, 12, seed=1)
    ends = histories.offsets[1:] - 1
    made = build_profiles(
        catalogue, histories, np.arange(1, 61), ends, histories.items[ends], attributes=people.attributes
    )
    return people, made


def test_each_price_lies_in_a_third_of_the_known_ones():
    catalogue = shop()
    bands, prices = np.array(of_kind(catalogue, "price")), catalogue.prices
    assert prices is not None
    known = prices[~np.isnan(prices)]
    assert set(bands[~np.isnan(prices)]) == {CHEAP, MODERATE, EXPENSIVE}
    assert set(bands[np.isnan(prices)]) == {""}, "a price that is not known is in no band"
    assert prices[bands == CHEAP].max() < prices[bands == MODERATE].min()
    assert prices[bands == MODERATE].max() < prices[bands == EXPENSIVE].min()
    assert all(len(known) / 4 < (bands == band).sum() < len(known) / 2 for band in (CHEAP, MODERATE, EXPENSIVE))


@pytest.mark.parametrize("prices", [None, [5.0] * 140, [5.0, 7.0] * 70, [np.nan] * 138 + [1.0, 2.0]])
def test_prices_that_have_no_thirds_are_no_facts(prices):
    column = None if prices is None else np.array([np.nan, *prices], dtype=np.float32)
    assert set(of_kind(replace(shop(), prices=column), "price")) == {""}


def test_most_items_at_one_price_leave_every_item_in_its_own_band():
    prices = np.array([np.nan, *[25.0] * 120, *[3.0] * 10, *[90.0] * 10], dtype=np.float32)
    bands = np.array(of_kind(replace(shop(), prices=prices), "price"))
    assert set(bands[prices == 90]) == {EXPENSIVE}
    assert len(set(bands[prices == 25])) == 1
    assert EXPENSIVE not in bands[prices == 25]


def test_a_maker_is_a_fact_when_it_names_no_single_item_and_can_be_said():
    catalogue = shop()
    brands = list(catalogue.brands)
    brands[1:3] = ["Two Of Us", "two of us"]
    brands[8] = brands[8].upper()
    told = of_kind(replace(catalogue, brands=brands), "brand")
    assert set(told) == {"", "Fender", "Gibson & Co", "D'Addario", "Always", "Ernie Ball"}
    assert told[8] == "Fender", "spelt as most of its items spell it"
    assert not any(of_kind(replace(catalogue, brands=()), "brand"))


def test_what_has_neither_speaks_as_before():
    bare = replace(shop(), brands=(), prices=None)
    kinds = {fact.kind for fact in SpokenFacts(bare).vocabulary}
    assert kinds == {"category"}
    assert RuleSimulator(shop()).key == RuleSimulator(bare).key, "users of templates know kinds and years alone"
    assert People(shop()).key != People(bare).key


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("Something from Fender, not too expensive.", {"fender", CHEAP}, set()),
        ("An affordable instrument by Ernie Ball?", {"ernie ball", CHEAP}, set()),
        ("I always buy strings from D'Addario.", {"strings", "daddario"}, set()),
        ("nothing expensive, please", set(), {EXPENSIVE}),
        ("not from Fender", set(), {"fender"}),
        ("a mid-priced one that fenders off rain", {MODERATE}, set()),
        ("high-end microphones from Always", {EXPENSIVE, "microphones", "always"}, set()),
    ],
)
def test_what_is_understood(text, wanted, unwanted):
    reader = Understanding(shop())
    wish = reader.read([text])[0]
    assert tuple({" ".join(reader.terms[term]) for term in side} for side in wish) == (wanted, unwanted)


def test_phrases_read_well():
    facts = [Fact("category", "Strings"), Fact("brand", "Fender"), Fact("price", CHEAP)]
    assert noun_phrase(facts, "item") == "a cheap item listed under Strings from Fender"
    assert (
        noun_phrase(facts, "item", vague=True) == "an item listed under Strings from Fender that is not too expensive"
    )
    assert noun_phrase([Fact("price", EXPENSIVE)], "guitar") == "an expensive guitar"


def test_people_say_them_and_are_understood_and_nothing_names_the_target():
    catalogue = shop()
    people, made = people_of(catalogue)
    texts, said = people.open(made), people.facts_said(made)
    assert {"brand", "price"} <= {fact.kind for facts in said for fact in facts}
    reader = Understanding(catalogue, people.attributes)
    told = reader.told(list(zip(said, people.facts_refused(made), strict=True)))
    assert reader.read([text or "" for text in texts]) == told
    assert not Redactor(catalogue).redact([text or "" for text in texts], [each.target for each in made]).leaked.any()
    assert any(re.search("from (Fender|Gibson|D'Addario|Always|Ernie)", text or "") for text in texts)
    assert any("not too expensive" in (text or "") for text in texts)


def test_a_maker_whose_name_is_the_targets_is_never_said():
    catalogue = shop()
    people, made = people_of(catalogue)
    speaker = next(each for each in made if Fact("brand", "Fender") in people.known(each))
    titles = list(catalogue.titles)
    titles[speaker.target] = "Fender Stratocaster"  # of all titles this alone has the maker's name
    people, made = people_of(replace(catalogue, titles=titles))
    again = next(each for each in made if each.user == speaker.user)
    assert again.target == speaker.target
    assert Fact("brand", "Fender") not in people.known(again)
