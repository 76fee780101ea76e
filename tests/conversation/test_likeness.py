"""How far utterances are from people's: closed forms, and what the acts find."""

from __future__ import annotations

from collections import Counter

import pytest

from recllm_bench.conversation.likeness import act_shares, jensen_shannon, likeness, likeness_table
from recllm_bench.errors import BenchError


def test_equal_utterances_are_at_no_distance():
    texts = ["I want a drama.", "Hello! Any western?", "No horror, please."]
    same = likeness(texts, list(reversed(texts)))
    assert (same.length_distance, same.divergence, same.covered, same.act_distance) == (0, 0, 1, 0)


def test_divergence_in_closed_form():
    assert jensen_shannon(Counter("aab"), Counter("ccd")) == pytest.approx(1)
    # (1, 0) against (1/2, 1/2): the middle is (3/4, 1/4).
    expected = 0.5 * 0.4150374992788437 + 0.5 * (0.5 * -0.5849625007211562 + 0.5 * 1.0)
    assert jensen_shannon(Counter("a"), Counter("ab")) == pytest.approx(expected)
    assert jensen_shannon(Counter("aabb"), Counter("ab")) == pytest.approx(0)


def test_lengths_are_laid_over_each_other():
    short, long = ["one two"] * 10, ["one two three four five"] * 10
    assert likeness(short, long).length_distance == pytest.approx(3)
    assert likeness([*short, *long], long).length_distance == pytest.approx(1.5, abs=0.01)
    assert likeness(short, long).words == (2, 2, 2)


def test_words_of_people_that_are_covered_count_each_time():
    assert likeness(["a b"], ["a a a c"]).covered == 0.75


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        ("Hello, how are you?", {"greets", "asks"}),
        ("I loved Raising Arizona", {"says a liking", "compares with a title", "tells of oneself"}),
        ("something with Sandra Bullock", {"names a person"}),
        ("no westerns please", {"says a dislike", "thanks, please"}),
        ("i don't like sad ones", {"says a liking", "says a dislike", "tells of oneself"}),
        ("a drama from the 1990s", set()),
    ],
)
def test_acts(text, acts):
    assert {act for act, share in act_shares([text]).items() if share} == acts


def test_the_table_holds_chance_first():
    table = likeness_table({"rules": ["A drama."] * 4}, ["I want a drama.", "Hello?", "A western!", "No."]).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert [line.split("|")[1].strip() for line in table[2:]] == ["people, half against half", "rules"]


def test_nothing_said_cannot_be_compared():
    with pytest.raises(BenchError, match="no words to compare"):
        likeness(["..."], ["a"])
