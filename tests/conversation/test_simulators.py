"""Profiles, attributes and the simulated users: what they say, and what they must not."""

from __future__ import annotations

import dataclasses
import json
import time
from itertools import product

import numpy as np
import pytest

from recllm_bench.conversation.attributes import AttributeTable, Fact
from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.profile import build_profiles, uttered_facts
from recllm_bench.conversation.redaction import Redactor
from recllm_bench.conversation.rules import RuleSimulator, phrase
from recllm_bench.conversation.simulators import GuardedSimulator, simulator_named
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.histories import Histories
from recllm_bench.errors import BenchError
from tests.conftest import planted_catalogue, planted_histories

HISTORIES = planted_histories(60, 100, 30)
CATALOGUE = planted_catalogue(100)


def cases(histories: Histories = HISTORIES):
    users = np.arange(1, histories.n_users + 1)
    ends = histories.offsets[1:] - 1
    return users, ends, histories.items[ends]


def profiles(catalogue: Catalogue = CATALOGUE, **options):
    return build_profiles(catalogue, HISTORIES, *cases(), **options)


def dialogue(profile, *said: str) -> Dialogue:
    return Dialogue(profile.user, np.zeros(0, np.int32), [("user", text) for text in said])


def test_facts_are_ordered_by_how_common_they_are():
    table = AttributeTable(CATALOGUE)
    sizes = np.asarray(table.matrix.sum(0)).ravel()
    assert (np.diff(sizes) <= 0).all()
    for item in (1, 17, 100):
        year = int(CATALOGUE.years[item])
        expected = {Fact("category", name) for name in CATALOGUE.categories[item]}
        expected |= {Fact("decade", f"{year // 10 * 10}s"), Fact("year", str(year))}
        facts = table.facts(item)
        assert set(facts) == expected
        assert [table.index[fact] for fact in facts] == sorted(table.index[fact] for fact in facts)
    assert table.facts(0) == ()


def test_what_every_item_has_says_nothing():
    same = dataclasses.replace(CATALOGUE, categories=[(), *[("Films", *names) for names in CATALOGUE.categories[1:]]])
    assert Fact("category", "Films") not in AttributeTable(same).vocabulary


def test_matches_equal_brute_force():
    table = AttributeTable(CATALOGUE)
    sets = [table.facts(item)[:length] for item, length in product(range(1, 101), (0, 1, 2, 9))]
    sets.append((Fact("category", "Comedy"), Fact("category", "Unheard of")))
    expected = [sum(set(facts) <= set(table.facts(item)) for item in range(1, 101)) for facts in sets]
    assert table.count_matches(sets).tolist() == expected
    assert table.count_matches([]).tolist() == []


def test_profile_holds_the_past_and_the_attributes_alone():
    users, ends, targets = cases()
    made = profiles()
    for row, profile in enumerate(made):
        past = HISTORIES.items[max(HISTORIES.offsets[users[row] - 1], ends[row] - 24) : ends[row]]
        assert profile.history == tuple(CATALOGUE.titles[item] for item in past)
        assert len(profile.history) == 24
        assert profile.facts == AttributeTable(CATALOGUE).facts(targets[row])
        assert (profile.title, profile.domain) == ("", "movie")
    titled = profiles(visibility="title_and_attributes")
    assert [profile.title for profile in titled] == [CATALOGUE.titles[item] for item in targets]
    with pytest.raises(BenchError, match="visibility"):
        profiles(visibility="everything")
    with pytest.raises(BenchError, match="target 101"):
        build_profiles(CATALOGUE, HISTORIES, users[:1], ends[:1], np.array([101]))


def test_what_comes_after_the_target_does_not_reach_the_profile():
    users, ends, targets = cases()
    poisoned = HISTORIES.items.copy()
    poisoned[HISTORIES.offsets[1:] - 1] = 99
    other = dataclasses.replace(HISTORIES, items=poisoned)
    assert build_profiles(CATALOGUE, other, users, ends, targets) == profiles()


def test_poisoned_attributes_do_not_name_the_target():
    poison = dataclasses.replace(
        CATALOGUE,
        titles=["", *[f"Grand Invented Story Number{item}" for item in range(1, 101)]],
        categories=[(), *[("Comedy", f"Grand Invented Story Number{item}", f"number{item}") for item in range(1, 101)]],
        descriptions=["", *[f"Grand invented story number{item} is a tale. Number{item}!" for item in range(1, 101)]],
    )
    made = profiles(poison)
    guard = Redactor(poison)
    for profile in made:
        for text in (*[fact.value for fact in profile.facts], profile.description):
            assert f"number{profile.target}" not in text.casefold()
            assert not guard.names(text, profile.target)
        assert profile.description
    simulator = RuleSimulator(poison, 3, facts_in_opening="all")
    shown = [[1 + profile.target % 100] for profile in made]
    texts = simulator.open(made) + [
        reply.text for reply in simulator.reply(made, [dialogue(profile, "x") for profile in made], shown)
    ]
    assert not any(guard.names(text, profile.target) for text, profile in zip(texts, made * 2, strict=True))


def test_opening_utters_the_first_fact():
    made = profiles()
    for count, expected in ((1, 1), (2, 2), ("all", 9)):
        texts = RuleSimulator(CATALOGUE, 1, facts_in_opening=count).open(made)
        for profile, text in zip(made, texts, strict=True):
            assert set(profile.facts[:expected]) <= set(uttered_facts(profile, [text]))
            if count == 1:
                assert phrase(profile.facts[:1], "movie") in text
                assert len(uttered_facts(profile, [text])) == 1
    assert len({text.split(" a ")[0] for text in texts}) > 3
    with pytest.raises(BenchError, match="facts_in_opening"):
        RuleSimulator(CATALOGUE, 1, facts_in_opening=3)


def test_item_without_attributes_still_has_a_sentence():
    bare = dataclasses.replace(CATALOGUE, categories=[()] * 101, years=np.zeros(101, np.int32))
    texts = RuleSimulator(bare).open(profiles(bare))
    assert all("a movie I will like" in text for text in texts)


def test_reply_names_one_lacking_attribute_and_one_new_fact():
    made, table = profiles(), AttributeTable(CATALOGUE)
    simulator = RuleSimulator(CATALOGUE, 7)
    talks = [dialogue(profile, text) for profile, text in zip(made, simulator.open(made), strict=True)]
    shown = [[1 + (profile.target + 7) % 100, profile.target % 100 + 1] for profile in made]
    for turn in range(1, 9):
        replies = simulator.reply(made, talks, shown)
        for profile, talk, items, reply in zip(made, talks, shown, replies, strict=True):
            lacking = [fact for fact in table.facts(items[0]) if fact not in table.facts(profile.target)]
            if lacking:
                assert phrase(lacking[:1], "movie") in reply.text
            new = profile.facts[turn : turn + 1]
            assert reply.end == (not new)
            assert not reply.accepted
            if new:
                assert phrase(new, "movie") in reply.text
            talk.messages.append(("user", reply.text))
    assert all(set(uttered_facts(p, t.user_sentences())) == set(p.facts) for p, t in zip(made, talks, strict=True))


def test_reply_accepts_the_target_by_id_and_survives_an_empty_list():
    made = profiles()[:2]
    talks = [dialogue(profile, "x") for profile in made]
    first, second = RuleSimulator(CATALOGUE).reply(made, talks, [[5, made[0].target], []])
    assert (first.accepted, first.end) == (True, True)
    assert not second.accepted
    assert second.text


def test_words_depend_on_seed_user_and_turn_alone():
    made = profiles()
    simulator = RuleSimulator(CATALOGUE, 5)
    texts = simulator.open(made)
    assert RuleSimulator(CATALOGUE, 5).open(made) == texts
    assert simulator.open(made[::-1])[::-1] == texts
    assert [simulator.open([profile])[0] for profile in made] == texts
    assert RuleSimulator(CATALOGUE, 6).open(made) != texts
    talks = [dialogue(profile, "x") for profile in made]
    shown = [[3, 4]] * len(made)
    replies = simulator.reply(made, talks, shown)
    alone = [simulator.reply([p], [d], [[3, 4]])[0] for p, d in zip(made, talks, strict=True)]
    assert replies == alone
    assert simulator.open([]) == []


def test_templates_avoid_the_titles_own_words():
    shelf = dataclasses.replace(CATALOGUE, titles=["", "Recommend Mood Looking", *CATALOGUE.titles[2:]])
    histories = Histories.from_rows([[2, 1]] * 300, n_items=100)
    made = build_profiles(shelf, histories, np.arange(1, 301), histories.offsets[1:] - 1, np.ones(300, dtype=np.int64))
    texts = RuleSimulator(shelf, 2).open(made)
    assert not any("recommend" in text or "looking" in text for text in texts)
    assert len({text.split(" a")[0] for text in texts}) >= 5
    assert not Redactor(shelf).redact(texts, [1] * 300).leaked.any()


def test_a_hundred_thousand_openings_take_seconds():
    histories, shelf = planted_histories(5000, 3000, 21), planted_catalogue(3000)
    users = np.repeat(np.arange(1, 5001), 20)
    ends = histories.offsets[users - 1] + np.tile(np.arange(1, 21), 5000)
    start = time.process_time()
    made = build_profiles(shelf, histories, users, ends, histories.items[ends])
    texts = simulator_named("rules:1", shelf, seed=1).open(made)
    assert len(texts) == 100_000
    assert time.process_time() - start < 10


class Tattler:
    """Says the title whatever it is told, and the second time nothing."""

    def __init__(self, catalogue, seed=0):
        self.catalogue = catalogue

    def open(self, profiles):
        return [f"I want  {self.catalogue.titles[profile.target].upper()}!" for profile in profiles]

    def reply(self, profiles, dialogues, shown):
        return [Reply(f"no, invented-story {profile.target}", end=True) for profile in profiles]


def test_guard_stands_between_simulator_and_system(tmp_path):
    made = profiles()[:5]
    record = tmp_path / "said.jsonl"
    guarded = GuardedSimulator(Tattler(CATALOGUE), CATALOGUE, record)
    assert guarded.open(made) == ["I want this one!"] * 5
    assert guarded.leaked.all()
    replies = guarded.reply(made, [dialogue(profile, "x") for profile in made], [[1]] * 5)
    assert [reply.text for reply in replies] == ["no, this one"] * 5
    assert all(reply.end for reply in replies)
    assert guarded.redactor.n_leaks == 10
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(lines) == 10
    assert lines[0]["raw"] == f"I want  INVENTED STORY {made[0].target}!"
    assert (lines[0]["text"], lines[0]["leaked"], lines[0]["turn"], lines[5]["turn"]) == (
        "I want this one!",
        True,
        0,
        1,
    )

    again = simulator_named(f"replay:{record}", CATALOGUE)
    assert again.open(made) == ["I want this one!"] * 5
    repeated = again.reply(made, [dialogue(profile, "x") for profile in made], [[1]] * 5)
    assert repeated == replies
    with pytest.raises(BenchError, match="no reply 2 of user"):
        again.reply(made[:1], [dialogue(made[0], "x", "y")], [[1]])


def test_replay_names_the_bad_line(tmp_path):
    path = tmp_path / "said.jsonl"
    path.write_text('{"user": 1, "target": 2, "turn": 0, "raw": "hi"}\n\n{"user": 1}\n')
    with pytest.raises(BenchError, match=r"said.jsonl:3"):
        simulator_named(f"replay:{path}", CATALOGUE)
    with pytest.raises(BenchError, match="cannot read"):
        simulator_named("replay:/no/such/file", CATALOGUE)
    with pytest.raises(BenchError, match="needs its file"):
        simulator_named("replay", CATALOGUE)


def test_names_and_options():
    made = profiles()
    two = simulator_named("rules:2", CATALOGUE, seed=4).open(made)
    assert two == RuleSimulator(CATALOGUE, 4, facts_in_opening=2).open(made)
    assert simulator_named("rules:1", CATALOGUE, seed=4).open(made) == RuleSimulator(CATALOGUE, 4).open(made)
    with pytest.raises(BenchError, match="facts_in_opening"):
        simulator_named("rules:7", CATALOGUE)
    with pytest.raises(BenchError, match="simulator rules"):
        simulator_named("rules", CATALOGUE, temperature=1)
    with pytest.raises(BenchError, match="Did you mean 'rules'"):
        simulator_named("rule", CATALOGUE)


def test_a_plug_in_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "parrots.py").write_text(
        "class Parrot:\n"
        "    def __init__(self, catalogue, seed=0, word='hello'):\n"
        "        self.word = f'{word} {seed}'\n"
        "    def open(self, profiles):\n"
        "        return [self.word] * len(profiles)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    parrot = simulator_named("parrots:Parrot", CATALOGUE, seed=3, word="hi")
    assert isinstance(parrot, GuardedSimulator)
    assert parrot.open(profiles()[:2]) == ["hi 3", "hi 3"]


def test_a_simulator_that_miscounts_is_refused():
    class Short(Tattler):
        def open(self, profiles):
            return ["hello"]

    with pytest.raises(BenchError, match="1 answers for 2 users"):
        GuardedSimulator(Short(CATALOGUE), CATALOGUE).open(profiles()[:2])
