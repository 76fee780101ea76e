"""Dialogues to learn from: true, of every length, of training interactions alone."""

from __future__ import annotations

import dataclasses

import numpy as np

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.conversation.dialogue_state import FORMS, StateReader, dialogue_text
from recllm_bench.conversation.practice import ANSWERS, read, written
from recllm_bench.conversation.simulated_words import SimulatedWords
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import Cases, leave_one_out
from recllm_bench.recipe import ConversationOptions
from tests.conftest import planted_catalogue, planted_histories

HISTORIES, CATALOGUE = planted_histories(200, 400, 20), planted_catalogue(400)


def words(tmp_path, histories=HISTORIES, **talk) -> tuple[SimulatedWords, Cases]:
    split = leave_one_out(histories)
    dataset = type(
        "Data", (), {"checksum": "x", "catalogue": CATALOGUE, "histories": histories, "name": "planted", "said": None}
    )
    made = SimulatedWords(
        ConversationOptions(**talk), dataset, split, 1, ArtifactStore(tmp_path), lambda texts: texts, {}
    )
    ends = split.train_ends - 1
    return made, Cases(np.arange(1, 201), ends, histories.items[ends])


def test_dialogues_have_every_length_and_all_in_them_is_true(tmp_path):
    said, cases = words(tmp_path / "a", patience=0)
    talks = said.practice(cases)
    lengths = np.array([len(talk.sizes) for talk in talks])
    assert set(lengths.tolist()) == set(range(ANSWERS + 1)) and np.bincount(lengths).min() > 15
    reader = StateReader(CATALOGUE, Understanding(CATALOGUE, said.attributes))
    for talk, target in zip(talks, cases.targets.tolist(), strict=True):
        assert reader.fits(reader.of(talk))[target] and target not in talk.shown
        assert len(set(talk.shown)) == len(talk.shown) == 5 * len(talk.sizes)
        assert talk.messages[-1][0] == "user"
    assert said.practice(cases) is not talks and [t.messages for t in said.practice(cases)] == [
        t.messages for t in talks
    ]
    assert words(tmp_path / "b", patience=0)[0].practice(cases)[3].messages == talks[3].messages
    copies = read(written(talks), cases, HISTORIES)
    assert [(t.messages, t.shown, t.sizes, t.asked) for t in copies] == [
        (t.messages, t.shown, t.sizes, t.asked) for t in talks
    ]


def test_they_depend_on_training_interactions_alone(tmp_path):
    """Poisoned validation and test items change nothing."""
    rows = [HISTORIES.of(user).tolist() for user in range(1, 201)]
    poisoned = Histories.from_rows([[*row[:-2], 1 + row[-2] % 400, 1 + row[-1] % 400] for row in rows], n_items=400)
    (clean, cases), (dirty, others) = words(tmp_path / "a"), words(tmp_path / "b", poisoned)
    assert cases.targets.tolist() == others.targets.tolist()
    assert [talk.messages for talk in clean.practice(cases)] == [talk.messages for talk in dirty.practice(others)]


def test_who_plays_is_in_the_key(tmp_path):
    base = words(tmp_path)[0].practice_key
    for changes in ({"opens": 0.3}, {"keeps": 0.1}, {"persona": "terse"}, {"patience": 1}, {"simulator": "rules:2"},
                    {"mistakes": 0.5}, {"silence": 0.9}):  # fmt: skip
        assert words(tmp_path, **changes)[0].practice_key != base
        own = words(tmp_path, **changes)[0].key == words(tmp_path)[0].key
        assert own == ("simulator" not in changes), "one turn does not depend on manners"


def test_the_forms_of_a_dialogue(tmp_path):
    said, cases = words(tmp_path)
    reader = StateReader(CATALOGUE, Understanding(CATALOGUE, said.attributes))
    talks = [talk for talk in said.practice(cases) if len(talk.sizes) > 1]
    for talk in talks:
        texts = {form: dialogue_text(talk, form, reader) for form in FORMS}
        assert texts["all"].endswith(texts["last"]) and talk.user_sentences()[0] in texts["all"]
        refused = [reader.reader.facts[term].value for term in reader.of(talk).unwanted]
        assert not any(value.casefold().rstrip("y") in texts["summary"].casefold() for value in refused)
        again = reader.add(reader.of(dataclasses.replace(talk, messages=[])), texts["summary"])
        assert set(again.wanted) <= set(reader.of(talk).wanted)
    assert len({dialogue_text(talk, "summary", reader) for talk in talks}) > len(talks) / 3
