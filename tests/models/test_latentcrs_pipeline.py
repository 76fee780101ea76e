"""LatentCRS from records to rankings, on planted data with a small encoder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from recllm_bench.api.method import Job
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.simulated_words import SimulatedWords
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.metrics import aggregate, per_user
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.models.latentcrs import method as method_module
from recllm_bench.models.latentcrs.backbone import last_states
from recllm_bench.models.latentcrs.method import LatentCRSMethod
from recllm_bench.models.latentcrs.model import LatentCRS
from recllm_bench.models.latentcrs.options import ABLATIONS, LatentCRSOptions
from recllm_bench.options import read_options
from recllm_bench.recbole_bridge.bare import Ids, bare_config
from recllm_bench.recipe import ConversationOptions, Recipe
from recllm_bench.testing.product_differences import differences
from recllm_bench.training.stages import run_stages
from recllm_bench.training.training_options import TrainingOptions
from tests.conftest import planted_catalogue, planted_histories

WIDTH, N_ITEMS = 8, 60


class TinyEncoder(nn.Module):
    """Weighted sum of the items so far, with dropout; weights count positions from the padded start."""

    def __init__(self, n_items: int = N_ITEMS) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.items = nn.Embedding(n_items + 1, WIDTH)
        first = [genres[0] if genres else "" for genres in planted_catalogue(n_items).categories]
        names = sorted(set(first))
        with torch.no_grad():  # items of one genre lie together, so that there is something for words to find
            self.items.weight.mul_(0.3)[torch.arange(n_items + 1), [names.index(name) for name in first]] += 1.5
        self.positions = nn.Parameter(torch.rand(40, 1))
        self.max_seq_length = 40
        self.dropout = nn.Dropout(0.3)

    def sequence_states(self, item_seq: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        column = torch.arange(item_seq.shape[1]) + (self.max_seq_length - lengths)[:, None]
        x = self.items(item_seq) * self.positions[column.clamp(max=39)] * (item_seq > 0).unsqueeze(-1)
        return self.dropout(x.cumsum(1) / (1 + torch.arange(item_seq.shape[1]))[None, :, None])

    def padded_states(self, left_seq: torch.Tensor) -> torch.Tensor:
        return self.items(left_seq)

    def item_vectors(self) -> torch.Tensor:
        return self.items.weight


class TinyBackbone:
    """Stands where the pre-trained encoder's cell would."""

    job = SimpleNamespace(training=TrainingOptions(max_length=40))

    key: ClassVar[dict] = {"model": "tiny"}
    trained = ({}, {})
    entry, schedule = SimpleNamespace(display_name="Tiny"), "3 epochs"

    def load(self) -> nn.Module:
        return TinyEncoder().eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_module, "backbone_of", lambda job, options: TinyBackbone())
    monkeypatch.setattr(method_module, "trained_encoder", lambda cell: cell.load())


def encode(texts) -> np.ndarray:
    rows = [
        np.random.default_rng(int(hashlib.md5(text.encode()).hexdigest()[:8], 16)).normal(size=12) for text in texts
    ]
    return np.stack(rows).astype(np.float32)


class NamesCategory(SimulatedWords):
    """Users who say the first category of what they want."""

    def _spoken(self, cases):
        return [f"some {self.dataset.catalogue.categories[item][0]}" for item in cases.targets]


def make_job(tmp_path, training: dict | None = None, **options) -> Job:
    histories = planted_histories(80, N_ITEMS, 16)
    catalogue = planted_catalogue(N_ITEMS)
    split = leave_one_out(histories)
    values = {"intents": 6, "text_hidden": 16, "train_repeat": 2, "negatives": 5, "w_rec": 5.0, **options}
    if values.get("encoder_states") == "live":
        values.setdefault("neg_resample", "epoch")
    dataset = SimpleNamespace(checksum="planted", catalogue=catalogue, histories=histories, name="planted", said=None)
    store = ArtifactStore(tmp_path / "store")
    defaults = {**LatentCRS.training_defaults, "epochs": 4, "batch_size": 128, **(training or {})}
    return Job(
        recipe=Recipe("latentcrs", "planted"),
        dataset=dataset,
        split=split,
        protocol=protocol_named("latentcrs.one_turn"),
        store=store,
        device=torch.device("cpu"),
        options=read_options(LatentCRSOptions, values, "options"),
        training=TrainingOptions(**defaults),
        encode=encode,
        words=NamesCategory(ConversationOptions(), dataset, split, 42, store, encode, {"encoder": "test"}),
    )


def train(job: Job):
    method = LatentCRSMethod(job)
    folders, _ = run_stages(job, method.stages(), "latentcrs")
    return method.load(folders), folders


def test_metrics(job: Job, model: LatentCRS, whose: str = "own") -> dict[str, float]:
    columns = LatentCRSMethod(job).columns(job.split.test, job.words.of(whose))
    ranks = rank_cases(model, job.split, job.split.test, job.protocol, columns=columns, max_length=model.history_length)
    return aggregate(per_user(ranks, ("NDCG",), (10,)))


test_metrics.__test__ = False


def test_words_help_and_a_rerun_is_equal(tmp_path) -> None:
    schedule = {"epochs": 12, "learning_rate": 1e-2}
    job = make_job(tmp_path, schedule)
    model, folders = train(job)
    value = test_metrics(job, model)
    gemini = ConversationOptions(simulator="server:gemini-1.5-pro@http://host/v1")
    said = LatentCRSMethod(dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, conversation=gemini)))
    assert said.report(folders)["substitutes"] == {"simulator": ""}, "the paper's own is no stand-in"
    assert LatentCRSMethod(job).report(folders)["substitutes"] == {}, "the run tells its own"
    alone = {measure.label: measure.value for measure in LatentCRSMethod(job).report(folders)["measures"]}
    assert value["NDCG@10"] > alone["NDCG@20, q alone"]
    assert 0 < alone["NDCG@5, encoder alone"] <= alone["NDCG@20, encoder alone"]
    curves = json.loads((folders["joint"] / "curves.json").read_text())
    assert {row["epoch"] for row in curves} == set(range(1, len(curves) + 1))
    assert {"e_kl", "e_rec", "m_kl", "m_nce", "m_rec", "validation"} <= set(curves[0])
    again = make_job(tmp_path / "again", schedule)
    assert test_metrics(again, train(again)[0]) == value
    for whose in ("another", "none"):  # controls: the trained model itself, without training anything
        assert test_metrics(job, model, whose)["NDCG@10"] < value["NDCG@10"]


def test_other_test_targets_change_no_stage(tmp_path) -> None:
    """Nothing that training leaves rests on a test case: neither its target nor the history before it."""
    products = {}
    for name, changed in (("as_is", False), ("swapped", True)):
        job = make_job(tmp_path / name, {"epochs": 1})
        if changed:
            test = job.split.test
            swapped = dataclasses.replace(test, targets=test.targets[::-1].copy(), ends=test.ends - 1)
            job = dataclasses.replace(job, split=dataclasses.replace(job.split, test=swapped))
        products[name] = train(job)[1]
    for stage, folder in products["as_is"].items():
        assert not differences(folder, products["swapped"][stage]), stage


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_runs(tmp_path, ablation: str) -> None:
    job = make_job(tmp_path, {"epochs": 2}, ablation=ablation)
    model, folders = train(job)
    assert ("joint" in folders) == (ablation != "no_inference")
    assert (model.inference is None) == (ablation == "no_inference")
    records = len(np.load(folders["states"] / "clean.npy"))
    assert records == (80 if ablation == "no_augmentation" else 80 * 6)
    assert 0 < test_metrics(job, model)["NDCG@10"] < 1
    if ablation == "no_rec":
        curves = json.loads((folders["joint"] / "curves.json").read_text())
        assert "m_rec" not in curves[0]
        assert "e_rec" not in curves[0]


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "paper"},
        {"tie_value_map": True},
        {"encoder_states": "live", "train_encoder": True},
        {"encoder_states": "live", "pad_to": "batch_max"},
        {"intent_pool": "mean_nonpad", "encoder_dropout_in_train": False},
    ],
)
def test_other_options_run(tmp_path, options: dict) -> None:
    job = make_job(tmp_path, {"epochs": 2}, **options)
    model, _ = train(job)
    assert 0 < test_metrics(job, model)["NDCG@10"] < 1
    moved = model.generative.encoder
    assert (moved is not None) == ("train_encoder" in options)
    if moved is not None:
        assert not torch.equal(moved.items.weight, model.encoder.items.weight)


def test_a_killed_joint_stage_goes_on(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path / "one", {"epochs": 5})
    undisturbed = train(job)[0].state_dict()
    job = make_job(tmp_path / "two", {"epochs": 5})
    original, calls = method_module.ExpectationMaximisation.joint, []

    def dies(self, epoch):
        calls.append(epoch)
        if epoch == 4 and calls.count(4) == 1:
            raise KeyboardInterrupt
        yield from original(self, epoch)

    monkeypatch.setattr(method_module.ExpectationMaximisation, "joint", dies)
    with pytest.raises(KeyboardInterrupt):
        train(job)
    resumed, folders = train(job)
    assert calls == [1, 2, 3, 4, 4, 5]
    assert all(torch.equal(value, undisturbed[name]) for name, value in resumed.state_dict().items())
    assert [row["epoch"] for row in json.loads((folders["joint"] / "curves.json").read_text())] == [1, 2, 3, 4, 5]


def test_changing_one_weight_reuses_what_does_not_depend_on_it(tmp_path) -> None:
    one = {stage.name: stage.key for stage in LatentCRSMethod(make_job(tmp_path)).stages()}
    other = make_job(tmp_path, w_rec=1.0, posterior_form="exact_log")
    two = {stage.name: stage.key for stage in LatentCRSMethod(other).stages()}
    changed = {name for name in one if one[name] != two[name]}
    assert changed == {"generative", "joint"}
    three = {stage.name: stage.key for stage in LatentCRSMethod(make_job(tmp_path, intents=7)).stages()}
    assert {name for name in one if one[name] != three[name]} == {"intents"}  # later ones by what comes before them


@pytest.fixture(scope="module")
def plain_model() -> LatentCRS:
    options = LatentCRSOptions(intents=5, text_hidden=16, text_width=12)
    return LatentCRS(bare_config(options, 24, torch.device("cpu")), Ids(N_ITEMS), TinyEncoder()).eval()


def batch_of(lengths: list[int]) -> dict[str, torch.Tensor]:
    item_seq = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        item_seq[row, :length] = torch.arange(row + 1, row + 1 + length) % N_ITEMS + 1
    return {
        "item_id_list": item_seq,
        "item_length": torch.tensor(lengths),
        "utterance_vector": torch.from_numpy(encode([f"text {row}" for row in range(len(lengths))])),
    }


@torch.no_grad()
def test_scores_do_not_depend_on_batch_mates(plain_model: LatentCRS) -> None:
    batch = batch_of([3, 24, 1])
    together = plain_model.full_sort_predict(batch)
    for row, length in enumerate([3, 24, 1]):
        one = {name: value[row : row + 1] for name, value in batch.items()}
        one["item_id_list"] = one["item_id_list"][:, :length]
        torch.testing.assert_close(plain_model.full_sort_predict(one)[0], together[row], atol=1e-5, rtol=0)
    assert (together[:, 0] == -torch.inf).all()
    scores = plain_model.query_vectors(batch) @ plain_model.item_vectors().T
    torch.testing.assert_close(scores[:, 1:], together[:, 1:])
    assert (scores[:, 0] == 0).all()


@torch.no_grad()
def test_batch_max_moves_positions() -> None:
    encoder, batch = TinyEncoder().eval(), batch_of([3, 24])
    args = batch["item_id_list"], batch["item_length"]
    pretrain, other = (last_states(encoder, *args, pad_to) for pad_to in ("pretrain_len", "batch_max"))
    assert encoder.max_seq_length == 40
    assert not torch.allclose(pretrain, other)
    encoder.max_seq_length = 24
    torch.testing.assert_close(last_states(encoder, *args, "pretrain_len"), other)


def respond_job() -> SimpleNamespace:
    return SimpleNamespace(encode=encode, protocol=protocol_named("latentcrs.multi_turn"))


def test_dialogues_are_one_batch_and_repeat_nothing(plain_model: LatentCRS) -> None:
    seen: list[int] = []
    dialogues = [
        Dialogue(1, np.arange(1, 30, dtype=np.int32), [("user", "some Drama")]),
        Dialogue(2, np.array([7], dtype=np.int32), [("user", "some Horror")]),
    ]
    for _ in range(5):
        answers = plain_model.respond(respond_job(), dialogues)
        for dialogue, answer in zip(dialogues, answers, strict=True):
            assert len(answer.items) == 5
            assert 0 not in answer.items
            dialogue.shown.extend(answer.items)
        seen.extend(answers[0].items)
    assert len(set(seen)) == 25
    alone = plain_model.respond(respond_job(), [Dialogue(2, np.array([7]), [("user", "some Horror")])])[0].items
    assert alone == dialogues[1].shown[:5]
    assert plain_model.respond(respond_job(), []) == []


def test_a_small_catalogue_runs_out(plain_model: LatentCRS) -> None:
    dialogue = Dialogue(1, np.array([3]), [("user", "")], shown=list(range(1, N_ITEMS - 1)))
    assert set(plain_model.respond(respond_job(), [dialogue])[0].items) == {N_ITEMS - 1, N_ITEMS}
    with pytest.raises(BenchError, match="empty history"):
        plain_model.respond(respond_job(), [Dialogue(1, np.array([], dtype=np.int32), [("user", "x")])])


def test_which_sentences_are_read(plain_model: LatentCRS, monkeypatch: pytest.MonkeyPatch) -> None:
    dialogue = Dialogue(1, np.array([3]), [("user", "one"), ("assistant", "a list"), ("user", "two")])
    read: list[str] = []
    job = SimpleNamespace(encode=lambda texts: (read.extend(texts), encode(texts))[1], protocol=respond_job().protocol)
    for x_text, expected in (("last", "two"), ("all", "one two")):
        monkeypatch.setattr(plain_model, "options", dataclasses.replace(plain_model.options, x_text=x_text))
        read.clear()
        plain_model.respond(job, [dialogue])
        assert read == [expected]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_vectors_that_say_nothing_are_refused(tmp_path, value: float) -> None:
    job = make_job(tmp_path)
    words = dataclasses.replace(job.words, encode=lambda texts: np.full((len(texts), 4), value, np.float32))
    job = dataclasses.replace(job, words=words)
    with pytest.raises(BenchError, match="zero or not a number"):
        train(job)


def test_too_many_intents(tmp_path) -> None:
    with pytest.raises(BenchError, match="intents=81 is more than the 80 users"):
        train(make_job(tmp_path, intents=81))


def test_backbones_own_centroids_need_the_same_number(tmp_path) -> None:
    with pytest.raises(BenchError, match="intent_source=recluster"):
        train(make_job(tmp_path, intent_source="backbone"))


def test_a_loss_that_explodes_is_reported(tmp_path) -> None:
    with pytest.raises(BenchError, match="no longer a number"):
        train(make_job(tmp_path, {"learning_rate": 1e30, "epochs": 3}))


@pytest.mark.parametrize("values", [{}, {"variant": "paper"}, {"encoder_states": "live"}, {"ablation": "direct_kl"}])
def test_half_precision_trains_alike(tmp_path, values: dict) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        _, folders = train(make_job(tmp_path / precision, {"epochs": 2, "precision": precision}, **values))
        stage = folders.get("joint", list(folders.values())[-1])
        losses.append([entry["loss"] for entry in json.loads((stage / "history.json").read_text())])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


def test_direct_kl_is_one_loop_from_the_start(tmp_path) -> None:
    """No warm-up goes before it, and none of the warm-ups' options is part of what it depends on."""
    method = LatentCRSMethod(make_job(tmp_path, ablation="direct_kl"))
    names = [stage.name for stage in method.stages()]
    assert names == ["backbone", "utterances", "states", "intents", "joint"]
    other = LatentCRSMethod(make_job(tmp_path, ablation="direct_kl", warmup_epochs=3))
    assert [stage.key for stage in method.stages()] == [stage.key for stage in other.stages()]
    folders, _ = run_stages(method.job, method.stages(), "latentcrs")
    model, start = method.load(folders), torch.from_numpy(np.load(folders["intents"] / "intents.npy"))
    for network in (model.inference, model.generative):
        assert not torch.equal(network.intents.cpu(), start), "both sides learn"
    history = json.loads((folders["joint"] / "history.json").read_text())
    assert history[-1]["loss"] < history[0]["loss"]
    assert {"e_kl", "e_rec", "m_kl", "m_rec"} <= set(json.loads((folders["joint"] / "curves.json").read_text())[0])
