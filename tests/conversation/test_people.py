"""Users who speak like people: what they say, what their words leave, and what they depend on."""

from __future__ import annotations

import dataclasses
import re
import time

import numpy as np
import pytest

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.conversation.dialogue_loop import run_dialogues
from recllm_bench.conversation.people import People, Taste
from recllm_bench.conversation.phrasings import TESTED, TRAINING
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.redaction import Redactor, contains
from recllm_bench.conversation.simulators import simulator_named
from recllm_bench.conversation.spoken import SpokenFacts, noun_phrase, spoken_title
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError
from tests.conftest import planted_catalogue, planted_histories

HISTORIES = planted_histories(600, 400, 30)
CATALOGUE = planted_catalogue(400)
USERS = np.arange(1, 601)
ENDS = HISTORIES.offsets[1:] - 1


def profiles(catalogue=CATALOGUE, histories=HISTORIES, *, ends=ENDS, targets=None, table=None):
    targets = histories.items[ends] if targets is None else targets
    return build_profiles(
        catalogue, histories, USERS, ends, targets, attributes=table or SpokenFacts(catalogue), train_ends=ENDS - 1
    )


def test_facts_are_vague_and_hold_no_exact_year():
    table = SpokenFacts(CATALOGUE)
    assert {fact.kind for fact in table.vocabulary} == {"category", "decade", "era"}
    eras = sorted(fact.value for fact in table.vocabulary if fact.kind == "era")
    assert [value.split()[0] for value in eras] == ["after", "before"]
    for value in eras:
        side, mark = value.split()
        share = np.mean([Fact("era", value) in table.facts(item) for item in range(1, 401)])
        assert 0.15 < share < 0.35
        for item in range(1, 401):
            year = CATALOGUE.years[item]
            assert (Fact("era", value) in table.facts(item)) == (
                year > int(mark) if side == "after" else year < int(mark)
            )


def test_words_of_descriptions_are_facts_when_they_tell_and_come_in_bursts():
    texts = [f"{'banjo banjo ' * (item % 20 == 0)}a good item with strings number" for item in range(1, 401)]
    shelf = dataclasses.replace(
        CATALOGUE,
        categories=[()] * 401,
        years=np.zeros(401, np.int32),
        descriptions=["", *texts],
        domain="musical instrument",
    )
    table = SpokenFacts(shelf)
    assert table.vocabulary == [Fact("word", "banjo")]
    assert table.facts(20) == (Fact("word", "banjo"),)
    assert table.facts(21) == ()
    assert noun_phrase(table.facts(20), "musical instrument") == "a musical instrument about banjo"


def test_matches_with_refusals_equal_brute_force():
    table, rng = AttributeTable(CATALOGUE), np.random.default_rng(0)
    pick = lambda most: tuple(  # noqa: E731
        table.vocabulary[i] for i in rng.choice(12, rng.integers(0, most + 1), replace=False)
    )
    wanted, refused = zip(*[(pick(3), pick(2)) for _ in range(600)], strict=True)
    has = [set(table.facts(item)) for item in range(1, 401)]
    expected = [
        sum(set(yes) <= facts and not set(no) & facts for facts in has) for yes, no in zip(wanted, refused, strict=True)
    ]
    assert table.count_matches(wanted, refused).tolist() == expected
    assert min(expected) == 0 and max(expected) == 400


@pytest.mark.parametrize("leaves", [0.02, 0.05, 0.2])
def test_an_opening_leaves_the_share_that_is_asked_for(leaves):
    people = People(CATALOGUE, 3, leaves=leaves)
    made = profiles(table=people.attributes)
    left = people.attributes.count_matches(people.facts_said(made), people.facts_refused(made))
    assert leaves / 2 < np.median(left) / 400 < leaves * 2
    for profile, said, refused in zip(made, people.facts_said(made), people.facts_refused(made), strict=True):
        has = people.attributes.facts(profile.target)
        assert set(said) <= set(has) and not set(refused) & set(has)
        assert sum(fact.kind in ("era", "decade") for fact in said) <= 1
        assert 1 <= len(said) <= 4


def test_the_facts_said_are_in_the_words():
    people = People(CATALOGUE, 3)
    made = profiles(table=people.attributes)
    for profile, text, said, refused in zip(
        made, people.open(made), people.facts_said(made), people.facts_refused(made), strict=True
    ):
        for fact in said:
            forms = (fact.value, *people.attributes.wordings(fact))
            assert any(form.casefold() in text.casefold() for form in forms), (text, fact)
        for fact in refused:
            assert fact.value.casefold().rstrip("y") in text.casefold(), (text, fact)
        assert text[0].isupper() and text[-1] in ".?"
        year = str(CATALOGUE.years[profile.target])
        assert not re.search(rf"(?<!before )(?<!after )\b{year}\b", text)


@pytest.mark.parametrize("kind", [People, Taste])
def test_what_is_said_can_be_understood(kind):
    people = kind(CATALOGUE, 3)
    made = profiles(table=people.attributes) + profiles(ends=ENDS - 8, table=people.attributes)
    reader, texts = Understanding(CATALOGUE, people.attributes), people.open(made)
    told = reader.told(list(zip(people.facts_said(made), people.facts_refused(made), strict=True)))
    wrong = [text for text, read, meant in zip(texts, reader.read(texts), told, strict=True) if read != meant]
    assert not wrong


def test_there_are_dozens_of_ways_to_say_it_and_the_target_is_not_named():
    people = People(CATALOGUE, 3)
    made = profiles(table=people.attributes)
    texts = people.open(made)
    assert not Redactor(CATALOGUE).redact(texts, [profile.target for profile in made]).leaked.any()
    starts = {" ".join(text.split()[:2]) for text in texts}
    assert len(starts) > 20
    assert sum("Invented Story" in text for text in texts) > 100  # comparisons with the history
    assert sum(bool(refused) for refused in people.facts_refused(made)) > 100


@pytest.mark.parametrize("kind", [People, Taste])
def test_words_depend_on_seed_user_and_target_alone(kind):
    people = kind(CATALOGUE, 5)
    made = profiles()
    texts = people.open(made)
    assert kind(CATALOGUE, 5).open(made[::-1])[::-1] == texts
    assert [kind(CATALOGUE, 5).open([profile])[0] for profile in made[:20]] == texts[:20]
    assert kind(CATALOGUE, 6).open(made) != texts
    assert people.open([]) == []


def test_phrasings_of_tested_users_do_not_occur_in_training():
    for name in TRAINING._fields:
        assert not set(getattr(TRAINING, name)) & set(getattr(TESTED, name))
    inner = [Dialogue(p.user, np.zeros(0, np.int32), [("user", "x")]) for p in profiles()]
    for kind in (People, Taste):
        people, training, tested = kind(CATALOGUE, 5), profiles(ends=ENDS - 8), profiles()
        assert not any(profile.tested for profile in training) and all(profile.tested for profile in tested)
        said = [*people.open(training), *(r.text for r in people.reply(training, inner, [[1]] * len(inner)))]
        heard = [*people.open(tested), *(r.text for r in people.reply(tested, inner, [[2]] * len(inner)))]
        facts = people.attributes.vocabulary
        for texts, pool in ((said, TESTED), (heard, TRAINING)):
            pieces = {piece for each in pool for text in each for piece in _fixed(text)}
            found = {piece for piece in pieces if any(piece in f" {text} " for text in texts)}
            assert not found
        assert facts


def _fixed(template: str) -> list[str]:
    """What stands around the slots of a template, where it is three words long or more."""
    for slot in ("{wish}", "{like}", "{never}", "{place}"):
        template = template.replace(slot, "|")
    return [piece.strip() for piece in template.split("|") if len(piece.split()) > 2]


def test_who_has_no_target_says_the_same_whatever_the_target_is():
    rng = np.random.default_rng(1)
    guarded = simulator_named("taste", CATALOGUE, seed=2)
    made = profiles(table=guarded.attributes)
    poisoned = profiles(targets=rng.integers(1, 401, 600), table=guarded.attributes)
    in_history = [profile.past[-1] for profile in made]  # a title that the sentence may name
    named = profiles(targets=np.array(in_history), table=guarded.attributes)
    assert [profile.target for profile in made] != [profile.target for profile in poisoned]
    texts = guarded.open(made)
    assert guarded.open(poisoned) == texts
    assert guarded.open(named) == texts
    assert guarded.facts_said(poisoned) == guarded.facts_said(made)
    shown = [[int(item)] for item in rng.integers(1, 401, 600)]
    talks = [Dialogue(p.user, np.zeros(0, np.int32), [("user", text)]) for p, text in zip(made, texts, strict=True)]
    assert guarded.reply(made, talks, shown) == guarded.reply(poisoned, talks, shown)
    assert len(set(texts)) > 300


def test_who_has_no_target_wishes_for_what_the_history_is_full_of():
    shelf = dataclasses.replace(
        CATALOGUE, categories=[(), *[("Horror",) if item <= 40 else ("Drama",) for item in range(1, 401)]]
    )
    rows = [[*range(1 + user % 20, 11 + user % 20), 300, 301, 302] for user in range(600)]
    histories = type(HISTORIES).from_rows(rows, n_items=400)
    made = build_profiles(
        shelf,
        histories,
        USERS,
        histories.offsets[1:] - 1,
        np.full(600, 302),
        train_ends=histories.offsets[1:] - 2,
    )
    said = Taste(shelf, 1, leaves=0.1).facts_said(made)
    assert np.mean([Fact("category", "Horror") in facts for facts in said]) > 0.4  # a tenth of the items
    assert not any(Fact("category", "Drama") in facts for facts in said)


def test_titles_and_wishes_read_well():
    assert spoken_title("Postman, The (Il Postino)") == "The Postman"
    assert spoken_title("Heat") == "Heat"
    facts = [Fact("category", "Comedy"), Fact("category", "Romance"), Fact("decade", "1990s")]
    assert noun_phrase(facts, "movie") == "a romantic comedy from the 1990s"
    assert noun_phrase(facts, "movie", vague=True) == "a funny, romantic movie from the 1990s"
    assert noun_phrase([Fact("category", "Action"), Fact("era", "after 1995")], "movie") == (
        "an action movie made after 1995"
    )
    assert noun_phrase([Fact("category", "Acoustic Guitars")], "product") == "a product listed under Acoustic Guitars"
    assert noun_phrase([], "album") == "an album"


def test_six_thousand_openings_take_two_seconds():
    histories, shelf = planted_histories(6000, 3500, 30), planted_catalogue(3500)
    users, ends = np.arange(1, 6001), histories.offsets[1:] - 1
    made = build_profiles(shelf, histories, users, ends, histories.items[ends])
    for name in ("rules", "taste"):
        seconds: list[float] = []
        # The quickest of three counts: another process on the core's other thread halves its speed.
        while len(seconds) < 3 and min(seconds, default=4) >= 4:
            guarded = simulator_named(name, shelf, seed=1)
            start = time.process_time()
            assert len(set(guarded.open(made))) > 2000
            seconds.append(time.process_time() - start)
        assert min(seconds) < 4  # under 2 on a quiet machine


def test_a_share_that_is_none_is_refused():
    with pytest.raises(BenchError, match="leaves is a share"):
        simulator_named("rules", CATALOGUE, leaves=0)


def test_dialogues_count_what_fits_by_the_words_of_these_users():
    cases = Cases(USERS[:50], ENDS[:50], HISTORIES.items[ENDS[:50]])
    guarded = simulator_named("rules", CATALOGUE, seed=3)
    made = profiles(table=guarded.attributes)[:50]
    outcomes = run_dialogues(lambda talks: [Response([1]) for _ in talks], guarded, made, cases, HISTORIES, CATALOGUE)
    stated = [
        [fact for fact in profile.facts if any(
            contains(" . ".join(talk.user_sentences()), form)
            for form in (fact.value, *guarded.attributes.wordings(fact))
        )]
        for profile, talk in zip(made, outcomes.dialogues, strict=True)
    ]  # fmt: skip
    assert outcomes.n_match.tolist() == guarded.attributes.count_matches(stated).tolist()
    assert outcomes.n_match.min() >= 1 and not outcomes.leaked.any()
    assert {end for end in outcomes.ended} <= {"turns", "success", "user left"}
