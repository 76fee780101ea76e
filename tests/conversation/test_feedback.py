"""Feedback on one recommendation: a dislike and a wish, never a name."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest

from recllm_bench.conversation.feedback import ChatFeedback, RuleFeedback, feedback_named
from recllm_bench.conversation.redaction import Redactor, contains, title_forms
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.errors import BenchError
from recllm_bench.language.chat_answers import Answer, Chat
from tests.conftest import planted_catalogue


def films(**changes) -> Catalogue:
    values = {
        "tokens": ["", "f1", "f2", "f3", "f4", "f5"],
        "titles": ["", "Quiet Harbour", "Comedy", "The Zephyr Sentences", "Quiet Harbour", ""],
        "years": np.array([0, 1995, 1983, 1995, 0, 0], dtype=np.int32),
        "categories": [(), ("Comedy", "Drama"), ("Comedy",), ("Horror",), ("Drama", "Horror"), ()],
        "descriptions": ["", "", "A clerk tells jokes.", "The Zephyr Sentences is about a storm. Zephyr!", "", ""],
        "domain": "film",
    }
    return Catalogue(**{**values, **changes})


class Parrot(Chat):
    """A chat model that answers with a fixed text and remembers what it was asked."""

    def __init__(self, text: str, cache=None) -> None:
        super().__init__(cache)
        self.name, self.text, self.asked = "parrot", text, []

    def key(self) -> dict:
        return {"parrot": self.text}

    def ask(self, conversations, *, max_tokens, temperature, seed):
        assert temperature == 0
        self.asked += conversations
        for place, _ in enumerate(conversations):
            yield place, Answer(self.text, 5, 3)


def test_a_dislike_of_the_shown_item_and_a_wish_of_the_target():
    said = RuleFeedback(films(), seed=1).say([7], [3], [1])[0]
    assert "Horror" in said, "what the shown film is and the target is not"
    assert "Comedy" in said and "Drama" in said, "what the target is and the shown film is not"
    assert "1995" not in said and "1990s" not in said, "both are of that year: it would tell nothing new"


def test_what_both_share_is_said_when_nothing_else_is_left():
    catalogue = films(categories=[(), ("Drama",), ("Comedy",), ("Drama",), (), ()])
    said = RuleFeedback(catalogue).say([1], [1], [3])[0]
    assert "Drama" in said and said.count(".") >= 2


def test_without_attributes_there_is_a_plain_refusal():
    speaker = RuleFeedback(films())
    said = speaker.say([1, 2], [5, 1], [5, 5])
    assert all(said) and speaker.n_empty == 1, "the second user still names a dislike"
    assert not any("{" in text for text in said)


def test_words_depend_on_the_row_alone():
    catalogue = planted_catalogue(40)
    rng = np.random.default_rng(0)
    users, shown, targets = np.arange(1, 60), rng.integers(1, 41, 59), rng.integers(1, 41, 59)
    whole = RuleFeedback(catalogue, seed=3).say(users, shown, targets, 1)
    order = rng.permutation(59)
    again = RuleFeedback(catalogue, seed=3).say(users[order], shown[order], targets[order], [1] * 59)
    assert [whole[row] for row in order] == again
    assert RuleFeedback(catalogue, seed=4).say(users, shown, targets, 1) != whole
    assert len(set(RuleFeedback(catalogue, seed=3).say([1] * 4, [2] * 4, [9] * 4, range(4)))) > 1, "rounds differ"


def test_the_number_of_facts_in_a_wish():
    catalogue = films(
        categories=[(), ("A1", "B2", "C3"), ("D4",), ("E5",), ("A1",), ("B2",)], years=np.zeros(6, np.int32)
    )
    count = [sum(kind in RuleFeedback(catalogue, facts=n).say([1], [2], [1])[0] for kind in "ABC") for n in (1, 2, 3)]
    assert count == [1, 2, 3]
    with pytest.raises(BenchError, match="at least one attribute"):
        RuleFeedback(catalogue, facts=0)


def test_no_utterance_names_its_target():
    """Oracle 9.9 for the rules: a genre that is the target's title is not said, whatever is shown."""
    catalogue = films()
    speaker = RuleFeedback(catalogue)
    pairs = [(shown, target) for shown in range(1, 6) for target in range(1, 6) if shown != target]
    for turn in range(3):
        shown, targets = zip(*pairs, strict=True)
        for text, target in zip(speaker.say([1] * len(pairs), shown, targets, turn), targets, strict=True):
            assert not Redactor(catalogue).names(text, target), text
            forms = title_forms(catalogue.titles[target])
            assert not any(contains(text, form) for form in forms), (text, target)
    assert speaker.redactor.n_leaks == 0, "the rules say nothing that had to be taken out"


def test_wishes_for_an_item_are_different_and_never_name_it():
    speaker = RuleFeedback(films(titles=["", "Comedy", "Comedy", "Zephyr", "", ""]), seed=1)
    wishes = speaker.wishes(1, 20, np.random.default_rng(0))
    assert 2 <= len(wishes) == len(set(wishes)) <= 20
    assert all("Comedy" not in wish for wish in wishes), "an attribute that is the title is no attribute to name"
    assert any("Drama" in wish for wish in wishes) and any("1995" in wish for wish in wishes)
    assert speaker.wishes(1, 20, np.random.default_rng(0)) == wishes
    assert speaker.wishes(5, 20, np.random.default_rng(0)) == [], "nothing is known of it"
    assert len(speaker.wishes(1, 1, np.random.default_rng(0))) == 1


def test_prompts_of_a_chat_model_never_name_the_target():
    """Oracle 9.9 for chat models: the description names the target, an equal title is shown, a rare word is in ours."""
    catalogue = films()
    chat = Parrot("Not this. Something calmer.")
    speaker = ChatFeedback(catalogue, chat)
    pairs = [(shown, target) for shown in range(1, 6) for target in range(1, 6) if shown != target]
    shown, targets = zip(*pairs, strict=True)
    for prompt, target in zip(speaker.prompts(shown, targets), targets, strict=True):
        assert [message["role"] for message in prompt] == ["system", "user"]
        text = "\n".join(message["content"] for message in prompt)
        assert not Redactor(catalogue).names(text, target), text
    prompt = speaker.prompts([1], [2])[0][1]["content"]
    assert "Quiet Harbour" in prompt and "clerk" in prompt and "1995" in prompt


def test_what_a_chat_model_says_is_redacted_and_counted(tmp_path):
    chat = Parrot("I hate it.\n Give me The Zephyr  Sentences, or zephyr!")
    speaker = ChatFeedback(films(), chat)
    chat.remember(tmp_path / "answers.jsonl")
    said = speaker.say([1, 2], [1, 1], [3, 3])
    assert "zephyr" not in said[0].casefold() and said[0].startswith("I hate it.")
    assert speaker.redactor.n_leaks == 2 and len(chat.asked) == 1, "equal questions are asked once"
    again = ChatFeedback(films(), other := Parrot(chat.text, tmp_path / "answers.jsonl"))
    assert again.say([5], [1], [3]) == said[:1] and not other.asked, "the answer was kept"


def test_an_empty_answer_is_a_plain_refusal():
    speaker = ChatFeedback(films(), Parrot("  "))
    assert speaker.say([1], [1], [3]) == ["No, that is not it. Something else, please."]
    assert speaker.n_empty == 1


def everything(n_items: int = 40):
    """Every item shown to who wants every other one."""
    pairs = np.array([(a, b) for a in range(1, n_items + 1) for b in range(1, n_items + 1) if a != b])
    return np.ones(len(pairs), int), pairs[:, 0], pairs[:, 1]


@pytest.mark.parametrize("facts", [2, 3])
def test_a_wish_names_a_decade_or_a_year(facts):
    catalogue = planted_catalogue(40)
    for turn in range(4):
        said = RuleFeedback(catalogue, seed=2, facts=facts).say(*everything(), turn)
        old = RuleFeedback(catalogue, seed=2, facts=facts, exact=True).say(*everything(), turn)
        wished = [[re.findall(r"\b\d{4}s?\b", text.split(". ", 1)[1]) for text in texts] for texts in (said, old)]
        assert all(len(times) <= 1 for times in wished[0])
        assert any(len(times) == 2 for times in wished[1]), "what the first version did"
    rng = np.random.default_rng(0)
    for item in range(1, 41):
        for wish in RuleFeedback(catalogue, facts=facts).wishes(item, 10, rng):
            assert len(re.findall(r"\d{4}", wish)) <= 1, wish


def test_a_wish_is_as_long_as_its_facts_allow():
    """One time is left out, not a place of the wish: two genres and a time make three facts, four make two wishes."""
    catalogue = planted_catalogue(40)
    for text, target in zip(RuleFeedback(catalogue, facts=3).say(*everything()), everything()[2], strict=True):
        wish = text.split(". ", 1)[1]
        kinds = set(catalogue.categories[target])
        assert sum(kind.casefold() in wish.casefold() for kind in kinds) + len(re.findall(r"\d{4}", wish)) == 3


@pytest.mark.parametrize("facts", [1, 2])
def test_no_round_repeats_a_sentence(facts):
    catalogue, rounds = planted_catalogue(40), 12
    speaker = RuleFeedback(catalogue, seed=5, facts=facts)
    said = np.array([speaker.say(*everything(), turn) for turn in range(rounds)])
    assert all(len(set(column)) == rounds for column in said.T)
    old = RuleFeedback(catalogue, seed=5, facts=facts, exact=True)
    said = np.array([old.say(*everything(), turn) for turn in range(rounds)])
    assert any(len(set(column)) < rounds for column in said.T), "what the first version did"
    bare = films(categories=[()] * 6, years=np.zeros(6, np.int32))
    said = [RuleFeedback(bare).say([1], [2], [3], turn)[0] for turn in range(8)]
    assert len(set(said)) == 8, "the plain sentences take turns too"


def test_the_first_version_speaks_as_it_did():
    """Golden hashes of what the speaker of earlier records said, and its key: artifacts of then still serve."""

    def hashed(texts) -> str:
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]

    speaker = RuleFeedback(planted_catalogue(40), seed=3, exact=True)
    assert hashed(text for turn in range(4) for text in speaker.say(*everything(), turn)) == "fd59fef3bd37308e"
    wishes = (speaker.wishes(item, 10, np.random.default_rng(item)) for item in range(1, 41))
    assert hashed(text for texts in wishes for text in texts) == "7b529c48525c894c"
    key = feedback_named("exact", films(), seed=3).key()
    assert key == {"feedback": "rules", "facts": 2, "seed": 3, "version": 1}


def test_keys_follow_what_decides_the_words():
    keys = [
        RuleFeedback(films()).key(),
        RuleFeedback(films(), seed=2).key(),
        RuleFeedback(films(), facts=1).key(),
        RuleFeedback(films(), exact=True).key(),
        ChatFeedback(films(), Parrot("a")).key(),
        ChatFeedback(films(), Parrot("b")).key(),
    ]
    assert len({json.dumps(key, sort_keys=True) for key in keys}) == len(keys)


def test_mistakes_are_one_line():
    with pytest.raises(BenchError, match="use rules, exact, local:NAME, server:MODEL@URL or replay:FILE"):
        feedback_named("rulez", films())
    assert feedback_named("rules", films(), facts=1).facts == 1
    with pytest.raises(BenchError, match="differ in number"):
        RuleFeedback(films()).say([1], [1, 2], [3])
    with pytest.raises(BenchError, match="shown item 9 is not in the catalogue of 5"):
        RuleFeedback(films()).say([1], [9], [3])
    with pytest.raises(BenchError, match="target 0"):
        RuleFeedback(films()).say([1], [1], [0])


@pytest.mark.shared
def test_a_small_real_model_speaks(models_folder, tmp_path):
    speaker = feedback_named("local:llama2-stories260k", films(), cache=tmp_path / "answers.jsonl")
    said = speaker.say([1, 2], [1, 2], [3, 3])
    assert all(said) and said == speaker.say([1, 2], [1, 2], [3, 3])
    assert not any(Redactor(films()).names(text, 3) for text in said)


def test_a_chat_user_is_asked_for_something_new_in_each_round():
    chat = Parrot("Not that.")
    speaker = ChatFeedback(films(), chat)
    for turn in range(3):
        speaker.say([1], [2], [3], turn)
    questions = [asked[-1]["content"] for asked in chat.asked]
    assert len(set(questions)) == 3 and "2 times before" in questions[2] and "before" not in questions[0]
    wanted = [next(line for line in text.split("\n") if "rather have" in line) for text in questions]
    assert wanted[0] != wanted[1]  # another attribute comes first
