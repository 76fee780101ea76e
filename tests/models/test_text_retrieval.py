"""The text retrieval control against brute force, on real vectors of the embedded encoder."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest
import torch

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.loop import run_dialogues
from recllm_bench.conversation.profile import build_profiles
from recllm_bench.conversation.simulators import simulator_named
from recllm_bench.data.splits import Cases
from recllm_bench.errors import BenchError
from recllm_bench.language.encoders import load_text_encoder
from recllm_bench.language.vectors import text_vectors
from recllm_bench.models.text_retrieval import TextRetrieval
from recllm_bench.recipe import recipe_from
from recllm_bench.training.stages import Job, run_stages
from recllm_bench.training.utterances import embedded, other_user, record_utterances, utterance_columns
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


def make_job(root, encoder, **conversation) -> Job:
    store = ArtifactStore(root)
    recipe = recipe_from({"model": "text-retrieval", "dataset": "planted", "conversation": conversation}, "test")
    counts = {"spoken": 0}

    def speak(users, ends, targets, seed):
        counts["spoken"] += 1
        profiles = build_profiles(CATALOGUE, HISTORIES, users, ends, targets)
        return simulator_named("rules:2", CATALOGUE, seed=seed).open(profiles)

    job = Job(
        recipe=recipe,
        dataset=types.SimpleNamespace(catalogue=CATALOGUE, checksum="data"),
        split=types.SimpleNamespace(histories=HISTORIES, checksum="split", test=CASES),
        protocol=types.SimpleNamespace(shown_per_turn=5),
        store=store,
        device=torch.device("cpu"),
        options=None,
        training=types.SimpleNamespace(max_length=50),
        speak=speak,
        encode=lambda texts: text_vectors(encoder, texts, store),
        text_key={"simulator": "rules:2", "encoder": "minilm"},
    )
    object.__setattr__(job, "counts", counts)
    return job


@pytest.fixture(scope="module")
def job(tmp_path_factory, encoder):
    return make_job(tmp_path_factory.mktemp("store"), encoder)


@pytest.fixture(scope="module")
def model(job):
    folders, _ = run_stages(job, TextRetrieval.stages(job), "text-retrieval")
    return TextRetrieval.load(job, folders)


def test_scores_are_cosines(job, model, encoder):
    column = TextRetrieval.case_columns(job, CASES)["utterance_vector"]
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
    queries = model.query_vectors(
        {"utterance_vector": torch.from_numpy(TextRetrieval.case_columns(job, CASES)["utterance_vector"])}
    )
    scores = queries @ model.item_vectors()[1:].T
    own = scores[torch.arange(30), torch.from_numpy(CASES.targets.astype(np.int64)) - 1]
    assert ((scores < own[:, None]).float().mean(1)).mean() > 0.6


def test_shuffled_words_belong_to_somebody_else(job, tmp_path, encoder):
    shuffled_job = make_job(tmp_path, encoder, shuffle_utterances=True)
    plain = utterance_columns(job, CASES)["utterance_vector"]
    shuffled = utterance_columns(shuffled_job, CASES)["utterance_vector"]
    source = other_user(CASES.users, 42)
    np.testing.assert_allclose(shuffled, plain[source], atol=1e-6)
    assert (source != np.arange(30)).all()
    np.testing.assert_array_equal(shuffled, utterance_columns(shuffled_job, CASES)["utterance_vector"])


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
    indices, vectors = record_utterances(job, CASES.users, CASES.ends, CASES.targets)
    np.testing.assert_array_equal(vectors[indices], utterance_columns(job, CASES)["utterance_vector"])
    assert job.counts["spoken"] == 1
    assert len(vectors) == len(np.unique(indices)) <= 30
    utterance_columns(job, CASES.take(np.arange(3)))
    assert job.counts["spoken"] == 2


def test_silent_users_are_marked(tmp_path, encoder):
    job = make_job(tmp_path, encoder)
    talk = job.speak
    silent = dataclasses.replace(job, speak=lambda *a: ["  ", *talk(*a)[1:-1], ""])
    indices, vectors = record_utterances(silent, CASES.users, CASES.ends, CASES.targets)
    assert np.flatnonzero(indices < 0).tolist() == [0, 29]
    assert indices.max() == len(vectors) - 1
    assert np.isfinite(utterance_columns(silent, CASES)["utterance_vector"]).all()
    short = dataclasses.replace(make_job(tmp_path / "other", encoder), speak=lambda *a: ["one"])
    with pytest.raises(BenchError, match="1 utterances for 30"):
        utterance_columns(short, CASES)


def test_missing_voices_are_named(job):
    with pytest.raises(BenchError, match="simulator"):
        utterance_columns(dataclasses.replace(job, speak=None), CASES)
    with pytest.raises(BenchError, match="encoder"):
        embedded(dataclasses.replace(job, encode=None), ["x"])


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
