"""CESRec from its backend to rankings, on planted data with a tiny language model."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recllm_bench.api.method import Job
from recllm_bench.api.registry import model_named, resolve
from recllm_bench.api.words import Undeclared
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.conversation.simulated_words import SimulatedWords
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.candidates import evaluated_cases, protocol_candidates
from recllm_bench.evaluation.metrics import aggregate, per_user
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.language.chat_answers import Answer, Chat
from recllm_bench.language.pool import empty_pool
from recllm_bench.models.cesrec import language_model as language_model_module
from recllm_bench.models.cesrec import method as method_module
from recllm_bench.models.cesrec import round_store as store_module
from recllm_bench.models.cesrec.free_constructor import FreeConstructor
from recllm_bench.models.cesrec.method import CESRecMethod
from recllm_bench.models.cesrec.model import CESRec
from recllm_bench.models.cesrec.options import CESRecOptions
from recllm_bench.models.cesrec.outcomes import by_length, by_round
from recllm_bench.models.cesrec.round_store import RoundStore
from recllm_bench.recipe import ConversationOptions, Recipe
from recllm_bench.training.stages import run_stages
from recllm_bench.training.training_options import TrainingOptions
from tests.conftest import planted_catalogue, planted_histories
from tests.models.relrec_planted import tiny_backbone

N_USERS, N_ITEMS = 30, 130
SMALL = {
    "backend_training": {"epochs": 2, "batch_size": 16, "max_length": 12},
    "adapter_hidden": 16,
    "adapter_epochs": 3,
    "prompt_items": 5,
    "examples": 20,
    "lora_rank": 2,
    "tune_epochs": 1,
    "tune_batch": 8,
    "tune_tokens": 400,
    "latency_users": 2,
}


@lru_cache(maxsize=1)
def tiny():
    return tiny_backbone(torch.float32, context=400)


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch: pytest.MonkeyPatch):
    """The tiny language model wherever one is loaded."""
    empty_pool()
    monkeypatch.setattr(language_model_module, "language_model", lambda job, options: tiny())
    for module in (method_module,):
        monkeypatch.setattr(module, "language_model", lambda job, options: tiny())
        monkeypatch.setattr(module, "llm_key", lambda job, options: {"text": "tiny"})
    monkeypatch.setattr(CESRecMethod, "make_miniature", lambda self, work, done: None)
    monkeypatch.setattr(language_model_module, "llm_key", lambda job, options: {"text": "tiny"})
    yield
    empty_pool()


@lru_cache(maxsize=1)
def planted():
    return planted_histories(N_USERS, N_ITEMS, 12)


def make_job(tmp_path, protocol: str = "cesrec.sampled100", catalogue: Catalogue | None = None, **options) -> Job:
    histories = planted()
    catalogue = catalogue or planted_catalogue(N_ITEMS)
    dataset = SimpleNamespace(checksum="planted", catalogue=catalogue, histories=histories, name="planted", said=None)
    split, store = leave_one_out(histories), ArtifactStore(tmp_path / "store")
    return Job(
        recipe=Recipe("cesrec", "planted", protocol),
        dataset=dataset,
        split=split,
        protocol=protocol_named(protocol),
        store=store,
        device=torch.device("cpu"),
        options=CESRecOptions(**{**SMALL, **options}),
        training=TrainingOptions(),
        encode=None,
        words=SimulatedWords(ConversationOptions(), dataset, split, 42, store, None, {}),
    )


def train(job: Job):
    method = CESRecMethod(job)
    folders, _ = run_stages(job, method.stages(), "cesrec")
    return method.load(folders), folders


def columns_of(job: Job, whose: str = "own"):
    return CESRecMethod(job).columns(job.split.test, job.words.of(whose))


def report_of(job: Job):
    method = CESRecMethod(job)
    method.columns(evaluated_cases(job.split.test, job.protocol), job.words)
    report = method.report(method.folders)
    measures = {measure.label: measure.value for measure in report["measures"]}
    assert len(measures) == len(report["measures"]), "every measure has a label of its own"
    return {**report, "measures": measures}


def rounds_of(job: Job) -> RoundStore:
    return RoundStore(CESRecMethod(job), job.split.test, job.words)


def scored(job: Job, model, columns=None) -> dict[str, float]:
    cases = evaluated_cases(job.split.test, job.protocol)
    candidates = protocol_candidates(job.protocol, job.split, cases, job.store)
    ranks = rank_cases(
        model, job.split, cases, job.protocol, columns=columns, candidates=candidates, max_length=model.history_length
    )
    return aggregate(per_user(ranks, job.protocol.metrics, job.protocol.cutoffs, job.protocol.ties))


def names(job: Job) -> list[str]:
    return [stage.name for stage in CESRecMethod(job).stages()]


def test_the_class_is_registered():
    assert resolve("models", "cesrec") is CESRecMethod
    assert model_named("CESRec").model is CESRec and model_named("CESRec").display_name == "CESRec"


def test_the_papers_own_simulator_is_no_stand_in(tmp_path, monkeypatch):
    spoken = lambda self, words, cases=None: words.feedback("rules", 2)  # noqa: E731  nobody asks a server here
    monkeypatch.setattr(CESRecMethod, "speaker_of", spoken)
    said = {}
    for feedback in ("server:gpt-4o-mini@https://api.openai.com/v1", "server:gpt-4o@https://api.openai.com/v1"):
        said[feedback] = report_of(make_job(tmp_path, feedback=feedback, use_masking=False))["substitutes"]["simulator"]
    assert list(said.values()) == ["", "rules for gpt-4o-mini"]


@pytest.mark.parametrize("protocol", ["cesrec.sampled100", "cesrec.full"])
def test_from_the_back_end_to_a_record(tmp_path, protocol):
    job = make_job(tmp_path, protocol, rounds=2)
    model, folders = train(job)
    assert list(folders) == ["backend", "miniature", "adapter", "pairs", "constructor"]
    columns = columns_of(job)
    found = scored(job, model, columns)
    report = report_of(job)
    assert set(report) == {"measures", "substitutes", "tokens", "notes"}
    measures = report["measures"]
    assert all(isinstance(value, float) for value in measures.values())
    for metric in ("HR@10", "NDCG@10"):
        assert measures[f"{metric}, round 2"] == pytest.approx(found[metric])
        assert measures[f"{metric}, round 0"] == pytest.approx(scored(job, model.recommender)[metric]), "the backend"
    assert measures["fallback rate"] == 0, "titles are decoded from the catalogue alone"
    counters = [name for name in measures if name.startswith("n_")]
    assert {"n_lines", "n_exact", "n_ambiguous", "n_changed_positions", "n_unparsable"} <= set(counters)
    for name in (
        "masking, seconds a user",
        "masking, vectors made anew, seconds a user",
        "construction, seconds a user",
    ):
        assert measures[name] > 0
    if protocol == "cesrec.sampled100":
        twin = make_job(tmp_path, "cesrec.full", rounds=2)
        for name, value in scored(twin, model, columns).items():
            if name.endswith("@10"):
                assert measures[f"{name}, in full ranking, round 2"] == pytest.approx(value)
    assert report["substitutes"]["language model"].startswith("tiny random Llama")
    assert report["substitutes"]["simulator"] == "rules for gpt-4o-mini"
    assert report["tokens"]["tuned"] > 0 and report["tokens"]["prompt"] > 0
    held_out = json.loads((folders["pairs"] / "pairs.json").read_text())["held_out"]
    assert report["notes"]["constructor"].endswith(f"tuned on {held_out.count(False)} pairs (1 pass)")
    assert "masking" not in report["notes"]
    assert json.dumps(report)


def test_what_the_tail_of_a_history_holds_after_a_round_is_said(tmp_path):
    job = make_job(tmp_path, rounds=2, mask_mode="tail", use_constructor=False)
    train(job)
    assert "mask_mode=tail: what a round masks stands last" in report_of(job)["notes"]["masking"]


def test_the_back_end_stays_what_it_is(tmp_path):
    """Oracle 9.3, last part: the recommender's weights are the same before and after the whole pipeline."""
    job = make_job(tmp_path)
    alone = method_module.trained_backend(CESRecMethod(job).cell).weights_hash()
    model, folders = train(job)
    columns_of(job)
    assert (
        model.backend.weights_hash() == alone == json.loads((folders["backend"] / "facts.json").read_text())["sha256"]
    )
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_back_end_that_changes_is_a_defect(tmp_path, monkeypatch):
    job = make_job(tmp_path, use_constructor=False)
    _, folders = train(job)
    loading = method_module.trained_backend

    def tampered(cell):
        backend = loading(cell)
        next(backend.model.parameters()).data.view(-1)[0] += 1
        return backend

    monkeypatch.setattr(method_module, "trained_backend", tampered)
    with pytest.raises(BenchError, match="has changed since it was trained"):
        CESRecMethod(job).load(folders)


def test_rows_of_the_ablation_share_what_they_have_in_common(tmp_path):
    """Table 3: 'w/o d.a.' has the very constructor, 'w/o c.' the very adapter of the full method."""
    full, without_masks, without_constructor = (
        make_job(tmp_path, **changes) for changes in ({}, {"use_masking": False}, {"use_constructor": False})
    )
    _, folders = train(full)
    assert train(without_masks)[1] == folders
    assert train(without_constructor)[1] == {name: folders[name] for name in ("backend", "miniature", "adapter")}
    assert names(make_job(tmp_path, use_constructor=False, use_masking=False)) == ["backend"]
    assert names(make_job(tmp_path, k=0)) == ["backend", "miniature", "pairs", "constructor"]
    assert names(make_job(tmp_path, k=0, train_k=1)) == ["backend", "miniature", "adapter", "pairs", "constructor"]
    with_neighbours = names(make_job(tmp_path, k=0, replace_with="neighbour"))
    assert with_neighbours == ["backend", "miniature", "adapter", "pairs", "constructor"]


def test_nothing_on_is_the_back_end(tmp_path):
    job = make_job(tmp_path, use_constructor=False, use_masking=False, rounds=3)
    model, _ = train(job)
    columns = columns_of(job)
    assert scored(job, model, columns) == scored(job, model.recommender)


def test_without_masking_the_masker_is_never_called(tmp_path, monkeypatch):
    train(make_job(tmp_path))  # its adapter and constructor are the row's
    monkeypatch.setattr(method_module, "mask_outliers", lambda *args, **named: pytest.fail("the masker was called"))
    job = make_job(tmp_path, use_masking=False)
    train(job)
    assert columns_of(job)["pseudo_length"].min() > 0


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path, monkeypatch):
    train(make_job(tmp_path))
    short = rounds_of(make_job(tmp_path, rounds=1)).played
    calls = []
    original = store_module.Loop.next
    monkeypatch.setattr(
        store_module.Loop, "next", lambda self, last, number: calls.append(number) or original(self, last, number)
    )
    job = make_job(tmp_path, rounds=3)
    longer = rounds_of(job).played
    assert calls == [2, 3]
    assert np.array_equal(longer.rounds[1].pseudo.items, short.rounds[1].pseudo.items)
    assert len(by_round(longer, job.protocol)) == 4 * 2
    again = rounds_of(job).played
    assert calls == [2, 3] and again.rounds[3].feedback == longer.rounds[3].feedback


def test_rounds_have_keys_of_their_own(tmp_path):
    train(make_job(tmp_path))
    keys = set()
    for changes in (
        {}, {"use_masking": False}, {"forbid_target": True}, {"pool": "catalogue"}, {"refine_from": "original"},
        {"early_accept": False}, {"k": 2, "train_k": 1}, {"similarity": "l2"}, {"most_edits": 1}, {"speculate": False},
    ):  # fmt: skip
        job = make_job(tmp_path, **changes)
        keys.add(json.dumps(rounds_of(job).key(1), sort_keys=True, default=str))
    assert len(keys) == 10
    one, three = (rounds_of(make_job(tmp_path, rounds=n)).key(1) for n in (1, 3))
    assert one == three


def test_a_strict_run_never_writes_the_target(tmp_path):
    job = make_job(tmp_path, forbid_target=True, rounds=3, early_accept=False)
    train(job)
    played = rounds_of(job).played
    assert not any(one.inserted.any() for one in played.rounds)
    assert sum(one.counters.get("n_changed_positions", 0) for one in played.rounds) > 0


@pytest.mark.parametrize("output", ["edits", "sequence"])
@pytest.mark.parametrize("mode", ["drop", "mark", "tail"])
def test_every_output_and_mask_mode_ends_in_catalogue_items(tmp_path, output, mode):
    job = make_job(tmp_path, output=output, mask_mode=mode, tune_tokens=400)
    train(job)
    pseudo = rounds_of(job).played.rounds[-1].pseudo
    inside = np.arange(pseudo.items.shape[1]) < pseudo.lengths[:, None]
    assert ((pseudo.items > 0) == inside).all() and pseudo.items.max() <= N_ITEMS
    start = rounds_of(job).played.rounds[0].pseudo
    assert (pseudo.lengths <= start.lengths).all() and (pseudo.lengths >= start.lengths - 1).all()


def test_titles_that_repeat_or_break_lines_are_no_trouble(tmp_path):
    plain = planted_catalogue(N_ITEMS)
    titles = list(plain.titles)
    titles[5], titles[6], titles[7] = "Two\nLines\u0007 of it", titles[8], ""
    job = make_job(tmp_path, catalogue=dataclasses.replace(plain, titles=titles))
    model, _ = train(job)
    columns = columns_of(job)
    assert 0 <= scored(job, model, columns)["HR@10"] <= 1
    measures = report_of(job)["measures"]
    assert measures["duplicates, titles"] == 2 and measures["untitled, titles"] == 1


def test_outside_the_bench_nobody_speaks(tmp_path):
    job = dataclasses.replace(make_job(tmp_path), words=Undeclared("cesrec"))
    with pytest.raises(BenchError, match="set reads_words = True"):
        CESRecMethod(job).stages()


def test_a_miniature_reads_training_interactions_alone(tmp_path):
    """What users validate and test on is not in the lists; every title is in a sentence or two."""
    job = make_job(tmp_path)
    texts = list(language_model_module._texts(job, job.options))
    lists = [text for text in texts if text.startswith("1. ")]
    histories = job.split.histories
    assert len(lists) == N_USERS
    for user, text in enumerate(lists, 1):
        trained = histories.of(user)[: job.split.train_ends[user - 1] - histories.offsets[user - 1]]
        titles = [job.dataset.catalogue.titles[item] for item in trained]
        assert text == "\n".join(f"{number}. {title}" for number, title in enumerate(titles, 1))
    remarks = [text for text in texts if text.startswith("User: ") and text.endswith(" -> Invented Story 7\n")]
    wishes = [text for text in texts if text.endswith(": Invented Story 7")]
    assert len(set(remarks)) == 2 and all("\nChanges:\n" in text for text in remarks)
    assert len(wishes) == len(set(wishes)) > 1 and all("Invented Story" not in text.split(":")[0] for text in wishes)


class Scribe(Chat):
    """A chat model that replaces the first line by a title of the catalogue, or talks nonsense."""

    def __init__(self) -> None:
        super().__init__(None)
        self.name, self.asked = "scribe", []

    def key(self) -> dict:
        return {"scribe": 1}

    def ask(self, conversations, *, max_tokens, temperature, seed):
        self.asked += conversations
        for place, _ in enumerate(conversations):
            text = (
                "1 -> invented  story 90!",
                "2 -> Invented Story 9l",
                "nothing of the kind",
                "77 -> Invented Story 3",
            )
            yield place, Answer(text[place % 4], 9, 6)


def test_free_writing_is_matched_with_the_catalogue(tmp_path):
    catalogue, chat = planted_catalogue(N_ITEMS), Scribe()
    options = CESRecOptions(**{**SMALL, "decoding": "free", "chat": "local:x"})
    free = FreeConstructor(options, catalogue, ArtifactStore(tmp_path), np.ones(N_ITEMS + 1), chat, encoder=None)
    items = [[1, 2, 3, 4, 5, 6, 7]] * 4
    written = free.construct(items, None, ["I want something else.", "b", "c", "d"], None)
    assert written.lists[0] == [1, 2, 90, 4, 5, 6, 7], "line 1 is the third item: five are shown"
    assert written.lists[2] == written.lists[3] == items[0]
    assert written.counters["n_exact"] >= 1 and written.counters["n_unparsable"] >= 2
    asked = chat.asked[0][0]["content"]
    assert "1. Invented Story 3" in asked and "Invented Story 2\n" not in asked and "something else" in asked
    masked = [[False] * 6 + [True]] * 4
    assert "(masked)" in free.conversation([0], "x")[0]["content"]
    assert free.construct(items, masked, list("abcd"), None).lists[2][-1] in (0, 7)


def test_the_whole_pipeline_with_a_chat_model(tmp_path, monkeypatch):
    from recllm_bench.language import chat as chat_module

    monkeypatch.setattr(chat_module, "chat_model", lambda spec: Scribe())
    job = make_job(tmp_path, decoding="free", chat="server:x@http://localhost:9/v1")
    assert names(job) == ["backend", "miniature", "adapter"]
    original = FreeConstructor.__init__
    monkeypatch.setattr(FreeConstructor, "__init__", lambda self, *rows: original(self, *rows, encoder=None))
    train(job)
    report = report_of(job)
    assert 0 < report["measures"]["fallback rate"] <= 1 or report["measures"]["n_exact"] > 0
    assert report["notes"]["constructor"].startswith("free text")


@pytest.mark.parametrize(
    ("given", "named"), [({}, "tune_checkpointing=true or set "), ({"tune_checkpointing": True}, "")]
)
def test_tuning_that_does_not_fit_names_what_can_be_set(tmp_path, monkeypatch, given, named):
    """Options of CESRec, and none that is set already."""

    def no_room(backbone, packed, **changes):
        assert changes.get("checkpointing", False) == bool(given)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    method = CESRecMethod(make_job(tmp_path, use_masking=False, k=0, examples=2, **given))
    monkeypatch.setattr("recllm_bench.language.tuning.answer_loss", no_room)
    one = [([1] * 50, [2])]
    monkeypatch.setattr("recllm_bench.models.cesrec.pairs.Pairs.examples", lambda self, prompts: (one, []))
    with pytest.raises(BenchError) as caught:
        run_stages(method.job, method.stages(), "cesrec")
    said = str(caught.value)
    assert said.endswith(f"does not fit on the GPU; tune a smaller model or set {named}a smaller tune_tokens")
    known = {field.name for field in dataclasses.fields(CESRecOptions)}
    assert set(re.findall(r"tune_\w+", said)) <= known


def test_buckets_cover_every_user_once(tmp_path):
    job = make_job(tmp_path, use_constructor=False)
    train(job)
    played = rounds_of(job).played
    found = by_length(played, job.protocol)
    users = {measure.lengths: measure.value for measure in found if measure.name == "users"}
    assert sum(users.values()) == N_USERS
    widest = {measure.lengths: measure.value for measure in found if measure.round == 1}
    (whole,) = (each.value for each in by_round(played, job.protocol) if each.label == "NDCG@10, round 1")
    assert sum(value * users[bucket] for bucket, value in widest.items()) / N_USERS == pytest.approx(whole)


def test_rows_to_compare_with_follow_the_back_end():
    rows = CESRecMethod.comparison_rows({"backend": "GRU4Rec", "backend_training": {"epochs": 3}})
    assert rows[0] == {"model": "GRU4Rec", "training": {"epochs": 3}}
    assert [row.get("label") for row in rows[1:3]] == ["CESRec w/o d.a.", "CESRec w/o c."]
    assert all(row["options"]["early_accept"] is False for row in rows[3:]), "controls are played without acceptance"
    assert CESRecMethod.comparison_rows({})[0]["model"] == "sasrec"


def test_in_plain_recbole_it_is_its_back_end(tmp_path):
    from recllm_bench.recbole_bridge import build_model, interaction

    split = leave_one_out(planted())
    model, _, _ = build_model(CESRec, split.histories, split.train_ends, {}, seed=1, max_length=8)
    assert type(model.recommender).__name__ == "SASRec"
    batch = interaction(
        {"user_id": torch.tensor([1]), "item_id_list": torch.tensor([[3, 4]]), "item_length": torch.tensor([2])}
    )
    with torch.no_grad():
        scores = model.full_sort_predict(batch)
    assert scores.shape == (1, N_ITEMS + 1) and torch.isfinite(scores[:, 1:]).all()
