"""ReLRec from labels to rankings on a tiny language model."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recllm_bench.api.method import Job
from recllm_bench.api.registry import model_named
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.data.histories import Histories
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.metrics import aggregate, per_user
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.language import chat_server
from recllm_bench.language.generation import generate
from recllm_bench.language.labels import Labels, label_documents
from recllm_bench.models.relrec import inference, labelling
from recllm_bench.models.relrec import method as method_module
from recllm_bench.models.relrec.inference import own_against_other, reconstruct, similarities
from recllm_bench.models.relrec.method import LlamaSeqMethod, ReLRecMethod
from recllm_bench.models.relrec.model import LlamaSeq, ReLRec
from recllm_bench.models.relrec.optimiser import RowAdamW
from recllm_bench.models.relrec.packing import ITEM_LABEL, SEQUENCE, USER_LABEL, _ragged
from recllm_bench.models.relrec.prompts import USER_PROMPTS
from recllm_bench.models.relrec.trainer import Trainer, label_book
from recllm_bench.recipe import Recipe
from recllm_bench.training import loop
from recllm_bench.training.stages import run_stages
from recllm_bench.training.training_options import TrainingOptions
from tests.conftest import planted_catalogue, planted_histories
from tests.language.planted_reviews import films
from tests.models.answering import answering
from tests.models.relrec_planted import planted_labels, spread, tiny_backbone, tiny_tokenizer

N_USERS, N_ITEMS = 24, 12


def encode(texts) -> np.ndarray:
    """A stub encoder: counts of letters."""
    return np.array(
        [[1 + text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz_"] for text in texts], np.float32
    )


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch):
    """The tiny language model wherever one is loaded, and ready labels."""
    backbone = tiny_backbone(torch.float32)
    monkeypatch.setattr(ReLRecMethod, "backbone", lambda self: backbone)
    monkeypatch.setattr(ReLRecMethod, "_llm_key", lambda self: {"tiny": 1})
    monkeypatch.setattr(ReLRecMethod, "make_miniature", lambda self, work, done: None)

    def ready(job, options, dataset, split, work, budget, is_other=False):
        found = planted_labels(split.histories.n_users, split.histories.n_items)
        return Labels(found.users, found.items, "planted", options.label_scope, {})

    monkeypatch.setattr(labelling, "_labels_of", ready)
    return backbone


def make_job(
    tmp_path, training: dict | None = None, *, model=ReLRec, histories: Histories | None = None, **options
) -> Job:
    histories = histories or planted_histories(N_USERS, N_ITEMS, 9)
    defaults = {**model.training_defaults, "epochs": 3, "batch_size": 8, "max_length": 8, "learning_rate": 1e-2}
    name = "relrec" if model is ReLRec else "llama2-seq"
    return Job(
        recipe=Recipe(name, "planted"),
        dataset=SimpleNamespace(
            checksum="planted", catalogue=planted_catalogue(N_ITEMS), histories=histories, name="planted"
        ),
        split=leave_one_out(histories),
        protocol=protocol_named("relrec.full"),
        store=ArtifactStore(tmp_path / "store"),
        device=torch.device("cpu"),
        options=model.Options(**{"p": 16, "label_tokens": 40, **options}),
        training=TrainingOptions(**{**defaults, **(training or {})}),
        encode=encode,
        encoder_key={"encoder": "stub"},
    )


def train(job: Job, model=ReLRec):
    method = (ReLRecMethod if model is ReLRec else LlamaSeqMethod)(job)
    folders, _ = run_stages(job, method.stages(), job.recipe.model)
    return method.load(folders), folders


def test_the_classes_are_registered():
    assert model_named("relrec").model is ReLRec
    assert model_named("llama2-seq").model is LlamaSeq
    assert model_named("Llama2-Seq").display_name == "Llama2-seq"


def test_the_language_model_stays_what_it_is(tmp_path, tiny):
    """Hash, logits of plain text to the bit, and greedy text, before and after; every trainable number has moved."""
    prompt = torch.tensor([tiny_tokenizer()("Someone who enjoys slow stories")["input_ids"]])
    before_hash = tiny.weights_hash()
    with torch.no_grad():
        before = tiny.model(prompt).logits
    text = generate(tiny, [prompt[0].tolist()], max_new_tokens=12)
    job = make_job(tmp_path)
    start = {name: value.clone() for name, value in ReLRecMethod(job).fresh().tables.state_dict().items()}
    model, folders = train(job)
    with torch.no_grad():
        assert torch.equal(tiny.model(prompt).logits, before)
    assert generate(tiny, [prompt[0].tolist()], max_new_tokens=12) == text
    assert tiny.weights_hash() == before_hash
    facts = json.loads((folders["train"] / "facts.json").read_text())
    assert facts["frozen_sha256"] == before_hash
    assert facts["trainable"] == (N_USERS + N_ITEMS) * 16 + 2 * (16 * 32 + 32)
    assert all(not torch.equal(value, start[name]) for name, value in model.tables.state_dict().items())
    assert not tiny.model.training


def test_a_changed_language_model_is_a_defect(tmp_path, tiny, monkeypatch):
    original = method_module.fit

    def tampering(*args, **named):
        tiny.model.model.norm.weight.data[0] += 1
        return original(*args, **named)

    monkeypatch.setattr(method_module, "fit", tampering)
    with pytest.raises(BenchError, match="changed while training"):
        train(make_job(tmp_path, {"epochs": 1}))


def test_a_rerun_is_equal(tmp_path):
    one, two = (train(make_job(tmp_path / name))[0] for name in ("one", "two"))
    for name, value in one.tables.state_dict().items():
        assert torch.equal(value, two.tables.state_dict()[name]), name
    other = train(dataclasses.replace(make_job(tmp_path / "three"), recipe=Recipe("relrec", "planted", seed=7)))[0]
    assert not torch.equal(other.tables.items.weight, one.tables.items.weight)


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    undisturbed, folders = train(make_job(tmp_path / "one", {"epochs": 4}))
    whole = json.loads((folders["train"] / "terms.json").read_text())
    original, calls = Trainer.batches, []

    def dies(self, epoch):
        calls.append(epoch)
        for number, batch in enumerate(original(self, epoch)):
            if epoch == 3 and number == 1 and calls.count(3) == 1:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Trainer, "batches", dies)
    job = make_job(tmp_path / "two", {"epochs": 4})
    with pytest.raises(KeyboardInterrupt):
        train(job)
    resumed, folders = train(job)
    assert calls == [1, 2, 3, 3, 4]
    for name, value in undisturbed.tables.state_dict().items():
        assert torch.equal(value, resumed.tables.state_dict()[name]), name
    terms = json.loads((folders["train"] / "terms.json").read_text())
    assert terms == whole
    probed = {f"{kind}, {whose} token" for kind in ("user", "item") for whose in ("own", "other")}
    assert set(terms[0]) == {"epoch", "sequence", "user", "item", "validation", "tokens", *probed}


def test_lazy_rows_resume_too(tmp_path, monkeypatch):
    options = {"seq_softmax": "items_only", "recon": False, "user_token": False, "item_head": "separate"}
    undisturbed, _ = train(make_job(tmp_path / "one", {"epochs": 3}, **options))
    original = loop._State.save

    def dies(self, *args):
        original(self, *args)
        if self.epoch == 2:
            raise KeyboardInterrupt

    job = make_job(tmp_path / "two", {"epochs": 3}, **options)
    with monkeypatch.context() as patched:
        patched.setattr(loop._State, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            train(job)
    resumed, _ = train(job)
    for name, value in undisturbed.tables.state_dict().items():
        assert torch.equal(value, resumed.tables.state_dict()[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {"seq_softmax": "items_only"},
        {"item_head": "separate"},
        {"share_projection": True, "proj": "2layer"},
        {"proj": "none", "init": "random"},
        {"seq_template": "Liked by {user}: {items}", "pack_length": 64},
        {"gamma": 0.0},
        {"alpha": 0.0},
        {"checkpointing": "on"},
        {"recon_users": 4, "recon_items": -1, "recon_similarity": "max"},
        {"seq_softmax": "items_only", "recon": False},
    ],
    ids=str,
)
def test_other_options_run(tmp_path, options):
    job = make_job(tmp_path, {"epochs": 1}, **options)
    model, folders = train(job)
    ranks = rank_cases(model, job.split, job.split.test, job.protocol, max_length=model.history_length)
    assert 0 < aggregate(per_user(ranks, ("NDCG",), (10,)))["NDCG@10"] <= 1
    report = ReLRecMethod(job).report(folders)
    if options.get("recon", True):
        assert report["substitutes"]["labels"] == "planted for gpt-3.5-turbo"
        measures = {measure.label: measure.value for measure in report["measures"]}
        assert ("label similarity, items" in measures) == (options.get("recon_items", 0) >= 0)
        assert measures["labels compared, users"] == options.get("recon_users", N_USERS - 1)


def test_llama2_seq_has_items_alone(tmp_path):
    job = make_job(tmp_path, model=LlamaSeq)
    model, folders = train(job, LlamaSeq)
    assert set(folders) == {"miniature", "train"}
    assert {name: tuple(value.shape) for name, value in model.tables.named_parameters()} == {
        "items.weight": (N_ITEMS, 32)  # a row as wide as the language model for each item, and nothing else
    }
    assert LlamaSeqMethod(job).report(folders)["substitutes"] == {"language model": "tiny random Llama for Llama-2-7b"}


@pytest.mark.parametrize(
    ("writers", "expected"),
    [
        (["gpt-3.5-turbo"], ""),
        (["openai/gpt-3.5-turbo-0125"], ""),
        (["gpt-3.5-turbo-16k"], ""),
        (["gpt-3.5-turbo", ""], "some for gpt-3.5-turbo"),  # some lines name no writer
        (["gpt-3.5-turbo", "extractive"], "some for gpt-3.5-turbo"),
        (["local:gpt-3.5-turbo"], "some for gpt-3.5-turbo"),  # a folder of that name
        (["gpt-3.5-turbo-imitation"], "some for gpt-3.5-turbo"),
    ],
    ids=str,
)
def test_labels_are_judged_by_who_wrote_them(writers, expected):
    assert labelling.label_substitute({"source": "some", "writers": writers}) == expected


def test_a_file_of_the_paper_s_generator_makes_a_comparable_run(tmp_path, tiny, monkeypatch):
    """With its labels and its language model a run has no substitute left, and the printed number is compared."""
    from recllm_bench.reporting.published_numbers import published, verdict

    monkeypatch.undo()
    monkeypatch.setattr(ReLRecMethod, "backbone", lambda self: dataclasses.replace(tiny, substitute=""))
    monkeypatch.setattr(ReLRecMethod, "_llm_key", lambda self: {"tiny": 1})
    monkeypatch.setattr(ReLRecMethod, "make_miniature", lambda self, work, done: None)
    lines = [
        {"kind": kind, "id": number, "version": 0, "text": f"likes songs {number}", "model": "gpt-3.5-turbo-0613"}
        for kind, count in (("user", N_USERS), ("item", N_ITEMS))
        for number in range(1, count + 1)
    ]
    for name, changed in (("gpt.jsonl", {}), ("other.jsonl", {"model": "extractive"})):
        file = tmp_path / name
        file.write_text("".join(json.dumps({**line, **changed}) + "\n" for line in lines))
        job = make_job(tmp_path, {"epochs": 1}, labels=str(file), recon_users=-1, recon_items=-1)
        substitutes = ReLRecMethod(job).report(train(job)[1])["substitutes"]
        assert substitutes == ({} if not changed else {"labels": "extractive for gpt-3.5-turbo"})
        cell = published("relrec", "yelp", "relrec", "Recall", 10, table="T2", variant="full")
        word = verdict(cell, {"mean": cell.value, "low": cell.value, "high": cell.value}, substitutes).word
        assert word == ("inside" if not changed else "not comparable")


def test_moving_windows_bring_every_target_in_every_epoch(tmp_path):
    job = make_job(tmp_path, {"coverage": "moving"}, histories=planted_histories(N_USERS, N_ITEMS, 30), recon=False)
    trainer = Trainer(ReLRecMethod(job).fresh(), job, None, tmp_path / "terms.json")
    one, two = ([torch.cat([b.targets for b in trainer.batches(epoch)]), trainer.windows] for epoch in (1, 2))
    assert len(one[0]) == (one[1].ends - one[1].loss_from).sum() == N_USERS * 27
    assert torch.equal(one[0].sort().values, two[0].sort().values)
    assert not np.array_equal(one[1].loss_from, two[1].loss_from)


def test_it_learns_a_small_world_by_heart(tmp_path):
    """8 users and 12 items: the loss of sequences falls below 0.1, and the next training item comes first."""
    rng = np.random.default_rng(0)
    histories = Histories.from_rows([rng.permutation(12)[:7] + 1 for _ in range(8)], n_items=12)
    training = {"epochs": 150, "patience": 0, "learning_rate": 2e-2, "validate_every": 50}
    job = make_job(tmp_path, training, histories=histories, recon=False, seq_softmax="items_only", init="random", p=64)
    model, folders = train(job)
    # The last epoch's weights, not those that validated best: what is tested is that the training loss can vanish.
    pipeline = ReLRecMethod(job)
    model = pipeline.fresh()
    trainer = Trainer(model, job, None, tmp_path / "terms.json")
    optimiser = RowAdamW(model.tables.parameters(), lr=1e-2)
    generator = torch.Generator()
    for epoch in range(1, 301):
        for batch in trainer.batches(epoch):
            optimiser.zero_grad()
            loss = trainer.loss(batch, generator)
            loss.backward()
            optimiser.step()
        if loss.item() / model.options.alpha < 0.05:
            break
    assert loss.item() / model.options.alpha < 0.1
    places = job.split.train_ends - 1
    cases = dataclasses.replace(job.split.test, ends=places, targets=histories.items[places])
    ranks = rank_cases(model.eval(), job.split, cases, job.protocol, max_length=8)
    assert (ranks.higher == 0).all()
    assert (folders["train"] / "outcome.json").exists()


def test_labels_are_reconstructed(tmp_path):
    """Every label is written from its token, compared, and kept; the losses of labels fall."""
    words = ["quiet", "curious", "old", "space", "rain", "books", "films", "songs", "slow", "short"]

    def ready(job, options, dataset, split, work, budget, is_other=False):
        users = [(), *((words[user % 10],) for user in range(split.histories.n_users))]
        items = [(), *((f"{words[item % 10]} like iid_{item + 1}",) for item in range(split.histories.n_items))]
        return Labels(users, items, "planted", "train_only", {})

    labelling._labels_of = ready  # restored by the fixture
    job = make_job(tmp_path, {"epochs": 60, "learning_rate": 2e-2, "patience": 0}, init="random", p=64, alpha=0.05)
    model, folders = train(job)
    measures = json.loads((folders["reconstruction"] / "measures.json").read_text())
    assert measures["user"]["n"] == N_USERS
    assert set(measures["item"]) == {"mean", "n", "empty", "other", "loss"}
    assert all(0 <= measures[kind][name] <= 1 for kind in ("user", "item") for name in ("mean", "other"))
    terms = json.loads((folders["train"] / "terms.json").read_text())
    assert terms[-1]["item"] < terms[0]["item"] - 0.3
    assert terms[-1]["user"] < terms[0]["user"] - 0.3
    written = [json.loads(line) for line in (folders["reconstruction"] / "written.jsonl").read_text().splitlines()]
    assert {(line["kind"], line["id"]) for line in written} == {
        *(("user", user) for user in range(1, N_USERS + 1)),
        *(("item", item) for item in range(1, N_ITEMS + 1)),
    }
    texts = reconstruct(model, "item", list(range(1, N_ITEMS + 1)), most=40, batch_size=5, prompt="random")
    assert texts == [line["text"] for line in written if line["kind"] == "item"]


def test_a_reconstruction_is_nearer_to_its_own_label(tmp_path):
    """After scheduled visits a token gives its own label a higher likelihood than another's token does.

    The epoch that is kept is the first: without its visits a label would have been seen once.
    """
    words = ["quiet", "curious", "old", "space", "rain", "books", "films", "songs", "slow", "short"]

    def ready(job, options, dataset, split, work, budget, is_other=False):
        users = [(), *((f"{words[user % 10]} {words[user // 10]}",) for user in range(split.histories.n_users))]
        items = [(), *((f"{words[item % 10]} {words[-1 - item // 10]}",) for item in range(split.histories.n_items))]
        return Labels(users, items, "planted", "train_only", {})

    labelling._labels_of = ready  # restored by the fixture
    found = {}
    for visits in (0, 60):
        changes = {"epochs": 1, "learning_rate": 2e-2}
        job = make_job(tmp_path / str(visits), changes, init="random", p=64, label_visits=visits)
        _, folders = train(job)
        found[visits] = json.loads((folders["reconstruction"] / "measures.json").read_text())
    for kind, chance in (("user", 0.05), ("item", 0.2)):  # 24 labels, and 12: last digits differ between processors
        before, after = (found[visits][kind]["loss"] for visits in (0, 60))
        assert after["own"] < after["other"] - 0.2 and after["p"] < chance
        assert after["other"] - after["own"] > before["other"] - before["own"] + 0.2
    terms = json.loads((folders["train"] / "terms.json").read_text())
    assert terms[0]["user, own token"] < terms[0]["user, other token"] - 0.3


def test_similarity_of_a_text_with_itself_is_one():
    texts = ["a quiet film", "songs about rain"]
    np.testing.assert_allclose(similarities(texts, [[text] for text in texts], encode), 1, atol=1e-5)
    versions = [["a quiet film", "zzzz"], ["songs about rain", "songs about rain"]]
    mean, best = (similarities(texts, versions, encode, over) for over in ("mean", "max"))
    assert best == pytest.approx([1, 1])
    assert mean[0] < 1 == pytest.approx(mean[1])
    assert similarities(["", "a quiet film"], versions, encode)[0] == 0


def test_switched_labels_change_labels_alone(tmp_path, monkeypatch):
    other = Labels([(), ("u1",), ("u2",)], [(), ("i1",), ("i2",), ("i3",)], "other", "train_only", {})
    own = labelling._labels_of
    monkeypatch.setattr(labelling, "_other_dataset", lambda job, options: ("other", None))

    def labels_of(job, options, dataset, split, work, budget, is_other=False):
        return other if dataset == "other" else own(job, options, dataset, split, work, budget)

    monkeypatch.setattr(labelling, "_labels_of", labels_of)
    plain_job = make_job(tmp_path)
    plain = labelling.make_labels(plain_job, plain_job.options, tmp_path)
    for which in ("users", "items", "both"):
        job = make_job(tmp_path, switched_labels=which, switched_from="other")
        found = labelling.make_labels(job, job.options, tmp_path)
        assert (found.users == plain.users) == (which == "items")
        assert (found.items == plain.items) == (which == "users")
        assert job.split.checksum == plain_job.split.checksum
        if which != "items":
            assert [row[0] for row in found.users[1:6]] == ["u1", "u2", "u1", "u2", "u1"]
        if which != "users":
            assert [row[0] for row in found.items[1:6]] == ["i1", "i2", "i3", "i1", "i2"]
        assert labelling.labels_key(job.options) != labelling.labels_key(plain_job.options)
        book = [
            Trainer(ReLRecMethod(each).fresh(), each, labels, tmp_path / "terms.json").book
            for each, labels in ((plain_job, plain), (job, found))
        ]
        sequences = [one.sequences(ReLRecMethod(job)._windows(ReLRecMethod(job).fresh()), np.arange(5)) for one in book]
        streams = [
            made.flat[_ragged(plan.starts.ravel(), plan.lengths.ravel())]
            for made, plan in zip(book, sequences, strict=True)
        ]
        assert np.array_equal(*streams)


def test_documents_of_training_labels_hold_no_later_review():
    """``train_only``: nothing that was written about a validation or test interaction is read."""
    histories = planted_histories(N_USERS, N_ITEMS, 9)
    split = leave_one_out(histories)
    catalogue = planted_catalogue(N_ITEMS)

    class Reviews:
        def __len__(self):
            return len(histories.items)

        def of(self, positions):
            return [f"poison{position}" for position in positions]

        def batches(self, split, parts=("train", "valid", "test")):
            import pyarrow as pa

            owners = histories.users_of_positions()
            train = np.arange(len(owners)) < split.train_ends[owners - 1]
            chosen = np.flatnonzero(train) if parts == ("train",) else np.arange(len(owners))
            columns = {"user": owners[chosen], "item": histories.items[chosen], "position": chosen}
            yield pa.table({**columns, "text": self.of(chosen), "part": ["train"] * len(chosen)})

    dataset = SimpleNamespace(histories=histories, catalogue=catalogue, reviews=Reviews, has_times=False)
    documents = label_documents(dataset, split, scope="train_only")
    owners = histories.users_of_positions()
    held_out = np.flatnonzero(np.arange(len(owners)) >= split.train_ends[owners - 1])
    words = set(" ".join([*documents.users, *documents.items]).split())
    assert not words & {f"poison{position}" for position in held_out}
    assert words & {f"poison{position}" for position in range(len(owners))}


def test_which_stages_depend_on_what(tmp_path):
    def keys(**options) -> dict:
        return {stage.name: stage.key for stage in ReLRecMethod(make_job(tmp_path, **options)).stages()}

    plain = keys()
    assert list(plain) == ["miniature", "labels", "train", "reconstruction"]
    for options, changed in (
        ({"gamma": 0.5}, {"train"}),
        ({"recon_users": 5}, {"reconstruction"}),
        ({"label_versions": 2}, {"labels"}),
        ({"scores_at_once": 1 << 16, "checkpointing": "off"}, set()),
    ):
        assert {name for name, key in keys(**options).items() if key != plain[name]} == changed, options
    assert list(keys(recon=False)) == ["miniature", "train"]
    assert list(keys(recon=False, llm="smollm2")) == ["train"]
    assert keys(recon=False, gamma=0.1)["train"] == keys(recon=False)["train"]


def test_labels_that_exceed_the_context(tmp_path, tiny):
    tiny.model.config.max_position_embeddings = 50
    with pytest.raises(
        BenchError, match=r"a label with its prompt has \d+ tokens, but tiny has 50 positions; set label_t"
    ):
        train(make_job(tmp_path, {"epochs": 1}))
    _, folders = train(make_job(tmp_path, {"epochs": 1}, long_sequences="cut", recon_users=-1, recon_items=-1))
    facts = json.loads((folders["train"] / "facts.json").read_text())
    assert facts["labels_cut"]["user"] > 0


def test_a_file_of_labels_that_is_missing(tmp_path):
    with pytest.raises(BenchError, match=r"nowhere\.jsonl: no such file of labels"):
        ReLRecMethod(make_job(tmp_path, labels="nowhere.jsonl")).stages()


def test_a_loss_that_explodes_is_reported(tmp_path):
    with pytest.raises(BenchError, match="no longer a number"):
        train(make_job(tmp_path, {"learning_rate": 1e30, "epochs": 3, "clip_norm": 0.0}))


def test_labels_of_items_without_training_are_counted(tmp_path):
    rows = [[1, 2, 3, 4, 5], [2, 3, 4, 5, 1], [3, 4, 5, 1, 2], [4, 5, 1, 2, 3]] * 3
    job = make_job(tmp_path, {"epochs": 2}, histories=Histories.from_rows(rows, n_items=N_ITEMS))
    facts = json.loads((train(job)[1]["train"] / "facts.json").read_text())
    assert facts["items_without_training"] == 7
    assert 0 < facts["labels_of_such_items_drawn"] < 2 * 12
    assert facts["cold_users"] == 0


def test_ranking_speed_is_measured_and_reported(tmp_path):
    job = make_job(tmp_path, timed_batches=3, recon=False)
    _, folders = train(job)
    assert "speed" in folders
    measures = {measure.label: measure.value for measure in ReLRecMethod(job).report(folders)["measures"]}
    assert measures["batches/s (16 users)"] > 0
    assert "speed" not in [stage.name for stage in ReLRecMethod(make_job(tmp_path, recon=False)).stages()]


def test_names_in_imported_labels_become_tokens(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real labels
    job = make_job(tmp_path)
    title = job.dataset.catalogue.titles[3]
    file = tmp_path / "labels.jsonl"
    lines = [{"kind": "user", "id": 1, "version": 0, "text": f"Enjoyed the work '{title}' greatly"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for anonymous, shown in ((True, "iid_3"), (False, title)):
        options = dataclasses.replace(job.options, labels=str(file), anonymise_names=anonymous)
        found = labelling.make_labels(job, options, tmp_path)
        assert shown in found.users[1][0]


def test_prompts_of_the_measure_are_drawn_or_fixed(tmp_path, monkeypatch):
    """Drawn: nearly all openings occur, the draw of an id depends on the seed and on no other id."""
    job = make_job(tmp_path)
    model = ReLRecMethod(job).fresh().eval()
    asked: list[list[int]] = []
    monkeypatch.setattr(
        "recllm_bench.language.generation.generate", lambda b, prompts, **k: asked.extend(prompts) or []
    )

    def openings(ids, **options) -> list[str]:
        asked.clear()
        reconstruct(model, "user", ids, **options)
        return [
            model.vocabulary.decode(row).replace(f"uid_{id}", "{token}") for id, row in zip(ids, asked, strict=True)
        ]

    users = list(range(1, N_USERS + 1))
    assert set(openings(users)) == {USER_PROMPTS[0]}
    drawn = openings(users, prompt="random", seed=3)
    assert len(set(drawn)) > 5 and set(drawn) <= set(USER_PROMPTS)
    assert openings(users[4:7], prompt="random", seed=3) == drawn[4:7]
    assert openings(users, prompt="random", seed=4) != drawn


def test_a_server_writes_nothing_without_a_limit(tmp_path, monkeypatch):
    """The questions are counted and stated; none is asked. With a limit they are asked until it is reached."""
    monkeypatch.undo()
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(chat_server, "NEAR", ())
    monkeypatch.setattr(ReLRecMethod, "_llm_key", lambda self: {"tiny": 1})
    corpus = films()
    monkeypatch.setattr(labelling, "_other_dataset", lambda job, options: films(n_users=20))
    n = corpus[0].histories.n_users + corpus[0].histories.n_items
    with answering(lambda messages: "fond of quiet films") as (spec, server):
        job = make_job(tmp_path, labels="generated", chat=spec.replace("small", "gpt-3.5-turbo"), chat_batch=8)
        job = dataclasses.replace(job, dataset=corpus[0], split=corpus[1])
        with pytest.raises(
            BenchError, match=rf" {4 * n:,} questions .* at most about [\d,]+ tokens.*token_budget=\d+, or -1"
        ):
            ReLRecMethod(job).check()
        switched = dataclasses.replace(job.options, switched_labels="users", switched_from="other")
        with pytest.raises(BenchError, match=rf" {8 * n - 40:,} questions .*token_budget="):
            ReLRecMethod(dataclasses.replace(job, options=switched)).check()
        with pytest.raises(BenchError, match="may have to be paid for: set RECLLM_TOKEN_BUDGET"):
            labelling.make_labels(job, job.options, tmp_path / "work")
        assert not server.bodies
        with pytest.raises(BenchError, match="token_budget=900 is used up"):
            labelling.make_labels(job, dataclasses.replace(job.options, token_budget=900), tmp_path / "work")
        asked = len(server.bodies)
        assert 0 < 10 * asked <= 900
        whole = dataclasses.replace(job.options, token_budget=-1)
        ReLRecMethod(dataclasses.replace(job, options=whole)).check()
        found = labelling.make_labels(job, whole, tmp_path / "work")
        assert all(found.users[1:]) and labelling.label_substitute(found.statistics()) == ""


def test_a_limit_holds_for_both_datasets_of_switched_labels(tmp_path, monkeypatch):
    """Enough for either, too little for both: it ends at the limit."""
    monkeypatch.undo()
    monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(labelling, "_other_dataset", lambda job, options: films(n_users=60, length=5))
    corpus = films()
    with answering(lambda messages: "fond of quiet films") as (spec, server):
        common = {"two_stage": False, "label_versions": 1, "token_budget": 1300}
        job = make_job(
            tmp_path, labels="generated", chat=spec, switched_labels="users", switched_from="other", **common
        )
        job = dataclasses.replace(job, dataset=corpus[0], split=corpus[1])
        alone = dataclasses.replace(job.options, switched_labels="none")
        labelling.make_labels(job, alone, tmp_path / "alone")
        assert len(server.bodies) == 70  # of ten tokens
        monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / "another"))
        with pytest.raises(BenchError, match="token_budget=1300 is used up"):
            labelling.make_labels(job, job.options, tmp_path / "work")
        assert 70 < len(server.bodies) - 70 <= 130


def test_what_the_writer_s_options_decide_is_in_the_key(tmp_path):
    options = make_job(tmp_path, labels="generated", chat="server:x@http://localhost:9/v1").options
    base = labelling.labels_key(options)
    for change in ({"document_words": 99}, {"chat_temperature": 0.7}, {"chat_precision": "bfloat16"}):
        assert labelling.labels_key(dataclasses.replace(options, **change)) != base
    for change in ({"token_budget": 9}, {"chat_batch": 2}, {"chat_device": "cpu"}):  # answers are the same
        assert labelling.labels_key(dataclasses.replace(options, **change)) == base


def test_own_against_other_is_the_loss_of_single_sequences(tmp_path):
    """Each loss against one pass of that prompt, token and label alone; the other token is another labelled id's."""
    job = make_job(tmp_path)
    model = spread(ReLRecMethod(job).fresh().eval())
    labels = planted_labels(N_USERS, N_ITEMS)
    book = label_book(model, job.split.histories, Labels(labels.users, labels.items, "planted", "all"))
    own, other = own_against_other(model, book, "item", sample=7, seed=5)
    assert len(own) == len(other) == 7
    generator = np.random.default_rng([5, 0x0507])
    ids = generator.permutation(np.flatnonzero(book.labels[ITEM_LABEL].count))[:7]
    plan = book.label_plan(ITEM_LABEL, ids, generator)
    for row in range(7):
        spans = zip(plan.starts[row], plan.lengths[row], strict=True)
        tokens = np.concatenate([book.flat[start : start + length] for start, length in spans])
        place, context = int(plan.lengths[row, 0]), int(plan.contexts[row])
        assert tokens[place] == model.vocabulary.item(int(ids[row]))
        for value, item in ((own[row], ids[row]), (other[row], ids[row - 1])):
            tokens[place] = model.vocabulary.item(int(item))
            with torch.no_grad():
                vectors = inference.extended_embedding(model)(torch.from_numpy(tokens[:-1]))
                logits = inference.extended_scores(model)(model.backbone.hidden_states(vectors[None])[0])
            losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(tokens[1:]), reduction="none")
            assert value == pytest.approx(float(losses[context - 1 :].mean()), rel=1e-4)
    assert own_against_other(model, book, "item", sample=1, seed=5)[0].size == 0


def test_label_visits_come_before_the_first_sequence(tmp_path):
    """Each labelled user and item once a visit, no sequence among them, in the first epoch alone."""
    job = make_job(tmp_path, label_visits=3)
    labels = planted_labels(N_USERS, N_ITEMS)
    made = Labels(labels.users, labels.items, "planted", "all")
    trainer = Trainer(ReLRecMethod(job).fresh(), job, made, tmp_path / "terms.json")
    plans = list(trainer.visits())
    for kind, rows, first in ((USER_LABEL, made.users, "user"), (ITEM_LABEL, made.items, "item")):
        seen = [int(trainer.book.flat[start]) for plan in plans for start in plan.only(kind).starts[:, 1]]
        ids = [number for number, versions in enumerate(rows) if versions]
        assert sorted(seen) == sorted(3 * [int(getattr(trainer.model.vocabulary, first)(number)) for number in ids])
    assert all(len(plan) and not len(plan.only(SEQUENCE)) for plan in plans)
    counts = [[batch.counts[SEQUENCE] for batch in trainer.batches(epoch)] for epoch in (1, 2)]
    assert counts[0][: len(plans)] == [0] * len(plans) and all(counts[0][len(plans) :]) and all(counts[1])
    assert len(counts[0]) == len(counts[1]) + len(plans)
    # Without visits, steps are what they were.
    job = make_job(tmp_path)
    plain = Trainer(ReLRecMethod(job).fresh(), job, made, tmp_path / "plain.json")
    after = list(trainer.batches(1))[len(plans) :]
    for one, two in zip(plain.batches(1), after, strict=True):
        assert torch.equal(one.targets, two.targets)


def test_half_precision_trains_alike(tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        _, folders = train(make_job(tmp_path / precision, {"epochs": 2, "precision": precision}))
        losses.append([entry["loss"] for entry in json.loads((folders["train"] / "history.json").read_text())])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]
