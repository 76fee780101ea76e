"""LatentCRS trained as it is used: it hears whole dialogues, and validation dialogues choose what it embeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from recllm_bench.conversation.dialogue_loop import run_dialogues
from recllm_bench.conversation.dialogue_state import FORMS
from recllm_bench.conversation.simulated_words import SimulatedWords
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.models.latentcrs.method import LatentCRSMethod
from recllm_bench.recipe import ConversationOptions
from tests.models.test_latentcrs_pipeline import make_job, tiny_backbone, train  # noqa: F401  (an automatic fixture)


def bag_of_words(texts) -> np.ndarray:
    """Sums of a random vector for each word, so that equal facts are near each other."""

    def vector(word: str) -> np.ndarray:
        return np.random.default_rng(int(hashlib.md5(word.encode()).hexdigest()[:8], 16)).normal(size=12)

    return np.stack([sum(map(vector, text.casefold().split())) for text in texts]).astype(np.float32)


def job_in_use(tmp_path, **options):
    job = make_job(tmp_path, {"epochs": 6, "learning_rate": 1e-2}, **options)
    rules = dataclasses.replace(protocol_named("latentcrs.multi_turn"), users=0)
    talk = ConversationOptions(opens=0.4, patience=0)
    words = SimulatedWords(talk, job.dataset, job.split, 42, job.store, bag_of_words, {"encoder": "bag"})
    return dataclasses.replace(job, protocol=rules, encode=bag_of_words, words=words)


def dialogues(job, model) -> float:
    cases, words = job.split.test, job.words
    outcomes = run_dialogues(
        lambda talks: model.respond(job, talks), words.speaker(), words.profiles(cases), cases,
        job.split.histories, job.dataset.catalogue,
    )  # fmt: skip
    return float((outcomes.turns > 0).mean())


def test_validation_dialogues_choose_what_is_embedded_and_it_is_told(tmp_path) -> None:
    job = job_in_use(tmp_path)
    method = LatentCRSMethod(job)
    assert [stage.name for stage in method.stages()][-1] == "choose"
    model, folders = train(job)
    chosen = json.loads((folders["choose"] / "chosen.json").read_text())
    assert set(chosen["found"]) == set(FORMS) and chosen["dialogues"] == len(job.split.valid)
    assert model.x_text == max(chosen["found"], key=chosen["found"].get)
    assert chosen["x_text"] in method.report(folders)["notes"]["embedded"]
    assert dialogues(job, model) > 25 / 60  # twenty-five of sixty items shown by chance
    rows = np.load(folders["utterances"] / "records_rows.npy")
    assert len(rows) == len(method.records()) and (rows >= 0).all()


@pytest.mark.parametrize(
    "options, protocol, forms",
    [({}, "latentcrs.one_turn", ()), ({"train_text": "openings"}, "latentcrs.multi_turn", ()),
     ({"x_text": "all"}, "latentcrs.multi_turn", ("all",)), ({"x_text": "all"}, "latentcrs.one_turn", ()),
     ({"train_text": "dialogues"}, "latentcrs.one_turn", FORMS), ({}, "latentcrs.multi_turn", FORMS)],
)  # fmt: skip
def test_who_learns_from_dialogues(tmp_path, options, protocol, forms) -> None:
    job = dataclasses.replace(make_job(tmp_path, **options), protocol=protocol_named(protocol))
    method = LatentCRSMethod(job)
    assert method.forms == forms
    assert ("choose" in [stage.name for stage in method.stages()]) == (len(forms) > 1)
