"""The text retrieval control against brute force, on real vectors of the embedded encoder."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest
import torch

from recllm_bench.api.method import Job
from recllm_bench.api.words import NEUTRAL_OPENING
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.dialogue_loop import run_dialogues
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.simulated_words import SimulatedWords, other_user
from recllm_bench.conversation.simulators import simulator_named
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError
from recllm_bench.language.encoders import load_text_encoder
from recllm_bench.language.vectors import text_vectors
from recllm_bench.models.text_retrieval import TextRetrievalMethod, TextRetrievalOptions
from recllm_bench.recipe import ConversationOptions, recipe_from
from recllm_bench.training.stages import run_stages
from tests.conftest import planted_catalogue, planted_histories

HISTORIES = planted_histories(30, 40, 8)
CATALOGUE = planted_catalogue(40)
CATALOGUE = dataclasses.replace(
    CATALOGUE, titles=[*CATALOGUE.titles[:-1], ""], years=CATALOGUE.years * (np.arange(41) < 40)
)
CATALOGUE.categories[40] = ()
CASES = Cases(np.arange(1, 31), HISTORIES.offsets[1:] - 1, HISTORIES.items[HISTORIES.offsets[1:] - 1])


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder()


class Counted(SimulatedWords):
    """Counts how often somebody is asked to speak."""

    def profiles(self, cases):
        COUNTS["spoken"] += 1
        return super().profiles(cases)


COUNTS = {"spoken": 0}


def make_job(root, encoder) -> Job:
    store = ArtifactStore(root)
    dataset = types.SimpleNamespace(catalogue=CATALOGUE, histories=HISTORIES, checksum="data", said=None)
    ends = HISTORIES.offsets[1:] - 1
    split = types.SimpleNamespace(histories=HISTORIES, checksum="split", test=CASES, train_ends=ends)
    COUNTS["spoken"] = 0

    def encode(texts):
        return text_vectors(encoder, texts, store)

    return Job(
        recipe=recipe_from({"model": "text-retrieval", "dataset": "planted"}, "test"),
        dataset=dataset,
        split=split,
        protocol=types.SimpleNamespace(shown_per_turn=5, exclude_history=False),
        store=store,
        device=torch.device("cpu"),
        options=TextRetrievalOptions(),
        training=types.SimpleNamespace(max_length=50),
        encode=encode,
        encoder_key={"encoder": "minilm"},
        words=Counted(
            ConversationOptions(simulator="rules:2"), dataset, split, 42, store, encode, {"encoder": "minilm"}
        ),
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory, encoder):
    return make_job(tmp_path_factory.mktemp("store"), encoder)


def columns_of(job, whose="own"):
    return TextRetrievalMethod(job).columns(CASES, job.words.of(whose))["utterance_vector"]


@pytest.fixture(scope="module")
def model(job):
    method = TextRetrievalMethod(job)
    folders, _ = run_stages(job, method.stages(), "text-retrieval")
    return method.load(folders)


def test_scores_are_cosines(job, model, encoder):
    column = columns_of(job)
    assert column.shape == (30, 384)
    profiles = build_profiles(CATALOGUE, HISTORIES, CASES.users, CASES.ends, CASES.targets)
    said = simulator_named("rules:2", CATALOGUE, seed=42).open(profiles)
    np.testing.assert_allclose(column, encoder.encode(said), atol=1e-5)
    queries = model.query_vectors({"utterance_vector": torch.from_numpy(column * 3)})
    scores = (queries @ model.item_vectors().T).numpy()
    for row, item in ((0, 1), (7, 20), (29, 39)):
        query, text = encoder.encode([said[row], CATALOGUE.text(item)]).astype(np.float64)
        cosine = query @ text / np.linalg.norm(query) / np.linalg.norm(text)
        assert scores[row, item] == pytest.approx(cosine, abs=1e-5)
    assert (scores[:, 40] == 0).all()  # the item without text
    batch = {"utterance_vector": torch.from_numpy(column), "item_id": torch.arange(1, 31)}
    np.testing.assert_allclose(model.predict(batch), scores[np.arange(30), np.arange(1, 31)], atol=1e-6)
    whole = model.full_sort_predict(batch)
    assert torch.isneginf(whole[:, 0]).all()
    np.testing.assert_allclose(whole[:, 1:], scores[:, 1:], atol=1e-6)
    assert model.calculate_loss(batch).item() == 0


def test_words_find_better_than_chance(job, model):
    queries = model.query_vectors({"utterance_vector": torch.from_numpy(columns_of(job))})
    scores = queries @ model.item_vectors()[1:].T
    own = scores[torch.arange(30), torch.from_numpy(CASES.targets.astype(np.int64)) - 1]
    assert ((scores < own[:, None]).float().mean(1)).mean() > 0.6


def test_another_users_words_belong_to_somebody_else(job):
    plain, other = columns_of(job), columns_of(job, "another")
    source = other_user(CASES.users, 42)
    np.testing.assert_allclose(other, plain[source], atol=1e-6)
    assert (source != np.arange(30)).all()
    np.testing.assert_array_equal(other, columns_of(job, "another"))


def test_no_words_are_a_neutral_sentence_for_everybody(job, encoder):
    vectors = columns_of(job, "none")
    assert (vectors == vectors[0]).all()
    np.testing.assert_allclose(vectors[0], encoder.encode([NEUTRAL_OPENING])[0], atol=1e-5)


@pytest.mark.parametrize("users", [np.arange(50), np.repeat(np.arange(6), [1, 4, 2, 3, 1, 4]), np.array([1, 2])])
def test_nobody_keeps_their_own_words(users):
    seen = set()
    for seed in range(20):
        source = other_user(users, seed)
        assert sorted(source) == list(range(len(users)))
        assert (users[source] != users).all()
        seen.add(tuple(source.tolist()))
    assert len(seen) > 1 or len(users) == 2


def test_one_user_cannot_be_shuffled():
    for users in (np.array([3]), np.array([1, 1, 1, 2])):
        with pytest.raises(BenchError, match="half of the cases"):
            other_user(users, 0)
    assert len(other_user(np.zeros(0, dtype=int), 0)) == 0


def test_nothing_is_spoken_twice(tmp_path, encoder):
    job = make_job(tmp_path, encoder)
    rows, vectors = job.words.distinct_vectors(CASES)
    np.testing.assert_array_equal(vectors[rows], columns_of(job))
    assert COUNTS["spoken"] == 1
    assert len(vectors) == len(np.unique(rows)) <= 30
    job.words.opening_vectors(CASES.take(np.arange(3)))
    assert COUNTS["spoken"] == 2


class Mumbling(SimulatedWords):
    """Nobody hears the first and the last user."""

    def _spoken(self, cases):
        return ["", *super()._spoken(cases)[1:-1], ""]


def test_silent_users_are_marked(tmp_path, encoder):
    words = make_job(tmp_path, encoder).words
    silent = Mumbling(**{field.name: getattr(words, field.name) for field in dataclasses.fields(words)})
    rows, vectors = silent.distinct_vectors(CASES)
    assert np.flatnonzero(rows < 0).tolist() == [0, 29]
    assert rows.max() == len(vectors) - 1
    assert np.isfinite(silent.opening_vectors(CASES)).all()


def test_respond_shows_the_nearest_items_and_none_twice(job, model, encoder):
    texts = [CATALOGUE.text(item) for item in (7, 9)]
    dialogues = [
        Dialogue(1, HISTORIES.of(1), [("user", texts[0])]),
        Dialogue(2, HISTORIES.of(2), [("user", texts[1]), ("assistant", "x"), ("user", "yes")], shown=[9, 3, 4]),
        Dialogue(3, HISTORIES.of(3), [("user", "")]),
    ]
    answers = model.respond(job, dialogues)
    assert answers[0].items[0] == 7
    assert [len(answer.items) for answer in answers] == [5, 5, 5]
    assert not {9, 3, 4} & set(answers[1].items)
    query = encoder.encode([texts[1] + " yes"])[0]
    cosines = model.item_vectors().numpy() @ query
    cosines[[0, 9, 3, 4]] = -np.inf
    assert answers[1].items == np.argsort(-cosines, kind="stable")[:5].tolist()
    nearly_all = Dialogue(1, HISTORIES.of(1), [("user", "x")], shown=list(range(1, 39)))
    assert sorted(model.respond(job, [nearly_all])[0].items) == [39, 40]


def test_whole_dialogues(job, model):
    profiles = build_profiles(CATALOGUE, HISTORIES, CASES.users, CASES.ends, CASES.targets)
    outcomes = run_dialogues(
        lambda dialogues: model.respond(job, dialogues),
        simulator_named("rules:2", CATALOGUE, seed=1),
        profiles,
        CASES,
        HISTORIES,
        CATALOGUE,
    )
    assert (outcomes.turns > 0).mean() > 0.5  # five of forty at random, five times, is 0.49 at most
    assert not outcomes.leaked.any()
