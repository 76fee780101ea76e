"""How people answer what is shown and asked: true, bounded in what it gives away, and dependent on the system."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import numpy as np
import pytest

from recllm_bench.conversation.answers import PERSONAS, Manners
from recllm_bench.conversation.dialogue import Dialogue, Response
from recllm_bench.conversation.dialogue_loop import run_dialogues
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.draws import Draw
from recllm_bench.conversation.people import People, Taste
from recllm_bench.conversation.phrasings import TESTED
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.simulators import simulator_named
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError
from tests.conftest import planted_catalogue, planted_histories

N = 150
HISTORIES, CATALOGUE = planted_histories(N, 400, 30), planted_catalogue(400)
ENDS = HISTORIES.offsets[1:] - 1
CASES = Cases(np.arange(1, N + 1), ENDS, HISTORIES.items[ENDS])
PEOPLE = People(CATALOGUE, 3, leaves=0.4)
READER = StateReader(CATALOGUE, Understanding(CATALOGUE, PEOPLE.attributes))


def made(people=PEOPLE):
    return build_profiles(
        CATALOGUE, HISTORIES, CASES.users, CASES.ends, CASES.targets,
        attributes=people.attributes, train_ends=ENDS - 1,
    )  # fmt: skip


def by_chance(dialogues, ask=""):
    """Shows five items by chance, the same for the same dialogue."""
    found = []
    for talk in dialogues:
        order = np.random.default_rng([talk.user, len(talk.shown)]).permutation(np.arange(1, 401))
        found.append(Response(order[~np.isin(order, talk.shown)][:5].tolist(), ask=ask))
    return found


def held(people, respond=by_chance, turns=5):
    return run_dialogues(respond, people, made(people), CASES, HISTORIES, CATALOGUE, max_turns=turns)


def states(talk: Dialogue):
    return [READER.of(talk, turn) for turn in range(len(talk.user_sentences()))]


@pytest.mark.parametrize("persona", [*PERSONAS, "mixed"])
def test_all_that_is_said_is_true_of_the_target(persona):
    for talk, target in zip(held(People(CATALOGUE, 3, 0.4, persona=persona)).dialogues, CASES.targets, strict=True):
        for state in states(talk):
            assert READER.fits(state)[target], talk.messages


def test_words_never_leave_less_than_is_kept_nor_less_than_half_in_a_turn():
    for keeps in (0.02, 0.2):
        for talk in held(People(CATALOGUE, 3, 0.4, keeps=keeps)).dialogues:
            shown = [[item for each in talk.lists()[:turn] for item in each] for turn in range(6)]
            masks = [READER.fits(state).copy() for state in states(talk)]
            for turn in range(1, len(masks)):
                before, after = masks[turn - 1].copy(), masks[turn].copy()
                before[shown[turn]] = after[shown[turn]] = False
                if after.sum() < before.sum():
                    assert after.sum() >= max(keeps * 400, 0.5 * before.sum())


def test_the_turns_narrow_what_fits_and_the_loop_counts_it():
    outcomes = held(PEOPLE)
    middle = [np.median(column[column >= 0]) for column in outcomes.left.T]
    assert middle == sorted(middle, reverse=True) and middle[-1] < 0.7 * middle[0]
    for row, talk in enumerate(outcomes.dialogues):
        for turn, state in enumerate(states(talk)[: len(talk.sizes)]):  # who leaves speaks once more
            seen = [item for each in talk.lists()[:turn] for item in each]
            assert outcomes.left[row, turn] == READER.fits(state).sum() - READER.fits(state)[list(set(seen))].sum()
        assert (outcomes.left[row] >= 0).sum() == len(talk.sizes)


def test_a_question_gets_a_fact_of_its_kind_the_vague_one_first_or_silence():
    def asks(kind):
        return lambda talks: [Response([], say="?", ask=kind) for _ in talks]

    talkers = People(CATALOGUE, 3, 0.4, silence=0.0, keeps=0.0)
    for kind, kinds in (("category", {"category"}), ("year", {"era", "decade"}), ("decade", {"era", "decade"})):
        told = 0
        for talk in held(talkers, asks(kind), 3).dialogues:
            facts = [{READER.reader.facts[term] for term in state.wanted} for state in states(talk)]
            for before, after in pairwise(facts):
                assert {fact.kind for fact in after - before} <= kinds
                told += len(after - before)
                if any(fact.kind == "decade" for fact in after - before):
                    eras = [fact for fact in talkers.attributes.facts(target_of(talk)) if fact.kind == "era"]
                    assert not eras or before & set(eras)
        assert told > 50
    quiet = held(People(CATALOGUE, 3, 0.4, silence=1.0), asks("category"), 3)
    for talk in quiet.dialogues:
        assert set(talk.user_sentences()[1:]) <= set(TESTED.unsure)
    rate = held(People(CATALOGUE, 3, 0.4, silence=0.3, keeps=0.0), asks("category"), 2)
    unsure = [talk.user_sentences()[1] in TESTED.unsure for talk in rate.dialogues]
    full = held(talkers, asks("category"), 2)
    unable = [talk.user_sentences()[1] in TESTED.unsure for talk in full.dialogues]
    assert np.mean(unsure) - np.mean(unable) == pytest.approx(0.3 * (1 - np.mean(unable)), abs=0.12)


def test_a_question_is_answered_as_one_with_what_was_said_before_where_nothing_is_new():
    asks = lambda talks: [Response([], say="?", ask="category") for _ in talks]  # noqa: E731
    stems = {
        name: [text.format(wish="|").split("|") for text in getattr(TESTED, name)] for name in ("answered", "again")
    }
    kinds = {"new": 0, "told": 0}
    eager, careful = (People(CATALOGUE, 3, 0.4, silence=0.0, keeps=keeps) for keeps in (0.0, 1.0))
    for talk in [*held(eager, asks, 2).dialogues, *held(careful, asks, 2).dialogues]:
        text = talk.user_sentences()[1]
        before, after = states(talk)
        said = {READER.reader.facts[term].kind for term in before.wanted}
        name = "answered" if after != before else "again" if "category" in said else ""
        kinds["new"] += name == "answered"
        kinds["told"] += name == "again"
        if name:
            assert any(text.startswith(head) and text.endswith(tail) for head, tail in stems[name]), text
        else:
            assert text in TESTED.unsure
    assert min(kinds.values()) > 10


def test_nothing_is_refused_that_the_named_example_has():
    people, profiles, compared = People(CATALOGUE, 3, 0.4, persona="talkative"), made(), 0
    for talk, profile in zip(held(people).dialogues, profiles, strict=True):
        like = people._wish(profile)[0].like
        told = states(talk)
        new = {
            READER.reader.facts[term] for state in told[1:] for term in state.unwanted if term not in told[0].unwanted
        }
        compared += bool(like and new)
        assert not like or not new & set(people.attributes.facts(like))
    assert compared > 20


def test_half_of_those_who_are_shown_their_own_history_say_so():
    heard = []
    for profile, text in zip(profiles := made(), PEOPLE.open(profiles), strict=True):
        talk = Dialogue(profile.user, np.zeros(0, np.int32), [("user", text), ("assistant", "x")])
        talk.shown, talk.sizes, talk.asked = list(profile.past[-2:]), [2], [""]
        said = PEOPLE.reply([profile], [talk], [talk.shown])[0].text
        known = [form.format(place=place) for form in TESTED.familiar for place in ("first", "second")]
        told = READER.of(dataclasses.replace(talk, messages=[*talk.messages, ("user", said)]))
        refused = [term for term in told.unwanted if any(READER.having(term)[item] for item in talk.shown)]
        if not refused:  # no dislike, and no correction, which go before
            heard.append(any(form in said for form in known))
    assert len(heard) > 40 and 0.3 < np.mean(heard) < 0.7


def target_of(talk: Dialogue) -> int:
    return int(CASES.targets[talk.user - 1])


def test_who_is_shown_nothing_near_leaves_when_patience_ends():
    def far(talks):  # nothing that is wished for, or what is refused
        found = []
        for talk in talks:
            mask = np.zeros(401, bool)
            state = READER.of(talk)
            has = np.sum([READER.having(term) for term in state.wanted], axis=0) if state.wanted else mask
            found.append(Response(np.flatnonzero(2 * has < max(len(state.wanted), 1))[1:6].tolist()))
        return found

    for patience in (1, 2, 3):
        outcomes = held(People(CATALOGUE, 3, 0.1, patience=patience), far)
        for talk, end in zip(outcomes.dialogues, outcomes.ended, strict=True):
            if READER.of(talk, 0).wanted:
                assert end == "user left" and len(talk.sizes) == patience
    assert "user left" not in held(People(CATALOGUE, 3, 0.1, patience=0), far).ended
    near = lambda talks: [Response([target_of(talk) % 400 + 1, target_of(talk)]) for talk in talks]  # noqa: E731
    assert held(People(CATALOGUE, 3, 0.1, patience=1), near).ended == ["success"] * N


def test_the_same_items_again_bring_nothing():
    def stubborn(talks):
        return [Response([next(i for i in np.flatnonzero(READER.fits(READER.of(t, 0))).tolist()
                               if i != target_of(t))]) for t in talks]  # fmt: skip

    outcomes = held(People(CATALOGUE, 3, 0.4, patience=2), stubborn)
    assert set(outcomes.ended) == {"user left"} and {len(talk.sizes) for talk in outcomes.dialogues} == {3}


def test_what_was_refused_and_is_shown_again_is_corrected():
    profiles, people = made(), People(CATALOGUE, 3, 0.4)
    for profile in profiles[:40]:
        has = people.attributes.facts(profile.target)
        never = next(f for f in people.attributes.vocabulary if f.kind == "category" and f not in has)
        item = next(i for i in range(1, 401) if never in people.attributes.facts(i))
        talk = Dialogue(
            profile.user, np.zeros(0, np.int32), [("user", f"A movie, no {never.value}."), ("assistant", "")]
        )
        talk.shown, talk.sizes, talk.asked = [item], [1], [""]
        said = people.reply([profile], [talk], [[item]])[0].text
        stems = [re.escape(text.split("{")[0].split(",")[0]) for text in TESTED.corrected]
        assert re.match("|".join(stems), said), said


def test_mistakes_are_made_at_the_rate_asked_for():
    def wrong(rate):
        people = People(CATALOGUE, 3, 0.4, mistakes=rate, silence=0.0, keeps=0.0)
        asks = lambda talks: [Response([], say="?", ask="category") for _ in talks]  # noqa: E731
        told, false = 0, 0
        for talk in held(people, asks, 2).dialogues:
            first, second = ({READER.reader.facts[term] for term in state.wanted} for state in states(talk))
            new = second - first
            told += len(new)
            false += len(new - set(people.attributes.facts(target_of(talk))))
        return false / told

    assert wrong(0.0) == 0.0 and wrong(1.0) == 1.0 and 0.15 < wrong(0.3) < 0.5


def test_answers_depend_on_what_was_shown_and_on_nothing_else_in_the_batch():
    people, profiles = People(CATALOGUE, 3, 0.4), made()
    talks = held(people).dialogues
    cut = [Dialogue(t.user, t.history, t.messages[:2], t.shown[:5], t.asked[:1], t.sizes[:1]) for t in talks]
    shown = [talk.shown for talk in cut]
    said = people.reply(profiles, cut, shown)
    assert people.reply(profiles[::-1], cut[::-1], shown[::-1])[::-1] == said
    for reply, talk in zip(said, talks, strict=True):
        assert len(talk.sizes) == 1 or reply.text == talk.user_sentences()[1]
    other = [[1 + (item + 57) % 400 for item in items] for items in shown]
    moved = [dataclasses.replace(talk, shown=items) for talk, items in zip(cut, other, strict=True)]
    assert sum(a != b for a, b in zip(said, people.reply(profiles, moved, other), strict=True)) > N / 2


def test_the_state_of_a_dialogue_is_what_brute_force_reads():
    years, reader = CATALOGUE.years, READER
    kinds = [set(names) for names in CATALOGUE.categories]
    talk = Dialogue(1, np.zeros(0, np.int32), [("user", "A comedy, no horror.")])
    shown = [7, 8, 9]
    for text in ("Older than the second one, please. More like the third one.", "Not a comedy. A drama."):
        talk.messages += [("assistant", "x"), ("user", text)]
        talk.shown += shown
        talk.sizes.append(3)
    state = reader.of(talk)
    expected = [
        item
        for item in range(1, 401)
        if "Drama" in kinds[item] and not {"Comedy", "Horror"} & kinds[item]
        and years[item] < years[8] and kinds[item] & kinds[9]
    ]  # fmt: skip
    assert np.flatnonzero(reader.fits(state)).tolist() == expected
    assert reader.left(talk) == len(set(expected) - set(shown))
    summary = reader.summary(state)
    assert "drama" in summary and "orror" not in summary and f"older than {years[8]}" in summary
    assert reader.of(talk, 0) == reader.add(reader.of(Dialogue(1, talk.history)), "A comedy, no horror.")
    assert reader.summary(reader.of(Dialogue(1, talk.history))) == ""


@pytest.mark.parametrize(
    "said, order", [("Newer than the first one.", "after"), ("Something more recent than the 1st", ""),
                    ("I want one earlier than the last one", "before"), ("Older than the ninth one.", "")],
)  # fmt: skip
def test_comparisons_need_a_place_that_was_shown(said, order):
    state = READER.add(READER.of(Dialogue(1, np.zeros(0, np.int32))), said, [11, 12])
    assert (state.after == CATALOGUE.years[11]) == (order == "after")
    assert (state.before == CATALOGUE.years[12]) == (order == "before")


def test_who_has_no_target_answers_without_it():
    people = Taste(CATALOGUE, 3, 0.4, silence=0.0)
    profiles = made(people)
    talks = [Dialogue(p.user, np.zeros(0, np.int32), [("user", text), ("assistant", "x")], [5, 6], ["category"], [2])
             for p, text in zip(profiles, people.open(profiles), strict=True)]  # fmt: skip
    moved = [dataclasses.replace(profile, target=1 + (profile.target + 31) % 400) for profile in profiles]
    assert people.reply(profiles, talks, [[5, 6]] * N) == people.reply(moved, talks, [[5, 6]] * N)
    assert not any(reply.accepted for reply in people.reply(profiles, talks, [[p.target] for p in profiles]))


def test_who_has_no_target_likes_what_the_history_has_and_its_years():
    people = Taste(CATALOGUE, 3, 0.4)
    for profile in made(people)[:50]:
        years = sorted(int(CATALOGUE.years[item]) for item in profile.past)
        low, high = people.years(profile)
        assert abs(sum(year < low for year in years) - len(years) / 4) <= 2
        assert abs(sum(year > high for year in years) - len(years) / 4) <= 2
        example = set(people.attributes.facts(people._wish(profile)[0].like))
        for fact in people.attributes.vocabulary:
            share = np.mean([fact in people.attributes.facts(item) for item in range(1, 401)])
            often = np.mean([fact in people.attributes.facts(item) for item in profile.past]) >= 0.5 * share
            assert (fact in people.likes(profile)) == (often or fact in example)


def test_manners_that_are_none_are_refused():
    for wrong, words in (({"persona": "rude"}, "persona 'rude'"), ({"silence": 2.0}, "silence"),
                         ({"mistakes": -1.0}, "mistakes"), ({"patience": -1}, "patience")):  # fmt: skip
        with pytest.raises(BenchError, match=words):
            simulator_named("rules", CATALOGUE, **wrong)
    assert Manners().key == {} and Manners(keeps=0.1).key == {"keeps": 0.1}
    mixed = Manners(persona="mixed", silence=0.5)
    found = [mixed.of(Draw(user)) for user in range(200)]
    assert {one["persona"] for one in found} == set(PERSONAS) and {one["silence"] for one in found} == {0.5}


def test_nobody_says_the_same_sentence_twice_where_there_are_other_words():
    talks = held(People(CATALOGUE, 3, 0.4, patience=0, keeps=1.0)).dialogues  # nothing new may be said
    wishes = [[text.rpartition(". ")[2] for text in talk.user_sentences()[1:]] for talk in talks]
    assert sum(map(len, wishes)) > 3 * N
    assert sum(len(each) - len(set(each)) for each in wishes) < 0.1 * sum(map(len, wishes))
