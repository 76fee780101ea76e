"""Recommenders as backends of CESRec: trained by their own recipes, never changed, one interface."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recllm_bench.api.method import Job
from recllm_bench.api.registry import model_named
from recllm_bench.artifacts import ArtifactStore
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.models.cesrec.backends import TrainedBackend, backend_cell, trained_backend
from recllm_bench.models.cesrec.options import CESRecOptions, check_options
from recllm_bench.recipe import Recipe
from recllm_bench.training import cells as cells_module
from recllm_bench.training.stages import run_stages
from recllm_bench.training.training_options import TrainingOptions
from tests.conftest import planted_catalogue, planted_histories

N_ITEMS = 40
QUICK = {"epochs": 2, "batch_size": 32, "max_length": 10}


def make_job(tmp_path, **changes) -> Job:
    histories = planted_histories(60, N_ITEMS, 14)
    values = {
        "recipe": Recipe("cesrec", "planted"),
        "dataset": SimpleNamespace(
            checksum="planted", catalogue=planted_catalogue(N_ITEMS), histories=histories, name="planted"
        ),
        "split": leave_one_out(histories),
        "protocol": protocol_named("cesrec.full"),
        "store": ArtifactStore(tmp_path / "store"),
        "device": torch.device("cpu"),
        "options": CESRecOptions(),
        "training": TrainingOptions(),
        "encode": None,
    }
    return Job(**{**values, **changes})


@pytest.mark.parametrize("name", ["sasrec", "GRU4Rec", "iclrec", "NARM", "pop", "BPR", "recbole:SASRec"])
def test_any_model_that_scores_histories_is_a_back_end(tmp_path, name):
    """Ours and RecBole's, with dot products and without: scores are those the evaluator ranks by."""
    job = make_job(tmp_path)
    backend = trained_backend(backend_cell(job, name, {"intents": 8} if name == "iclrec" else None, QUICK))
    cases = job.split.test
    ranks = rank_cases(backend.model, job.split, cases, job.protocol, max_length=backend.history_length, top=1)
    from recllm_bench.models.cesrec.rounds import Loop

    loop = Loop(backend, cases, job.split.histories)
    shown = loop.best(loop.start, np.arange(len(cases)))
    alone = ranks.tied == 1  # among equal scores the evaluator's first is any of them
    clear = alone & (ranks.higher == 0)
    assert np.array_equal(shown[clear], ranks.top[clear, 0])
    if name not in ("pop", "BPR"):
        assert (shown == ranks.top[:, 0]).mean() > 0.95
    items, lengths = loop.start.tensors(np.arange(8), "cpu")
    users = torch.arange(1, 9)
    full = backend.score(items, lengths, users)
    assert full.shape == (8, N_ITEMS + 1)
    some = torch.tensor([[3, 1, 7]] * 8)
    torch.testing.assert_close(backend.score(items, lengths, users, some), full.gather(1, some), rtol=1e-5, atol=1e-5)


def test_the_artifact_is_that_of_the_plain_row(tmp_path, monkeypatch):
    """Nothing is trained twice: the comparison's own row of the same model finds the same folder."""
    job = make_job(tmp_path)
    cell = backend_cell(job, "SASRec", training=QUICK)
    folders, seconds = cell.trained
    assert sum(seconds.values()) > 0
    entry = model_named("sasrec")
    model_class = entry.model
    training = TrainingOptions(**{**model_class.training_defaults, **QUICK})
    plain = dataclasses.replace(
        job,
        recipe=Recipe("sasrec", "planted"),
        options=model_class.Options(),
        training=training,
        code=cells_module.code_of(entry, job.device, training.validate_metric),
    )
    again, _ = run_stages(plain, entry.method(plain).stages(), "sasrec")
    assert again == folders


def test_its_own_recipe_is_followed(tmp_path, monkeypatch):
    recipe = {"options": {"hidden_size": 24}, "training": {"epochs": 1, "max_length": 7, "batch_size": 32}}
    monkeypatch.setattr(cells_module, "shipped_recipe", lambda name, dataset: recipe)
    job = make_job(tmp_path)
    backend = trained_backend(backend_cell(job, "sasrec"))
    assert backend.history_length == 7 and backend.item_vectors().shape == (N_ITEMS + 1, 24)
    assert trained_backend(backend_cell(job, "sasrec", {"hidden_size": 16}, {"max_length": 9})).history_length == 9
    assert backend_cell(job, "sasrec").key != backend_cell(job, "sasrec", {"hidden_size": 16}).key


def test_recipes_of_the_project_are_found():
    assert cells_module.shipped_recipe("sasrec", "ml-100k")["training"]["max_length"] == 50
    assert cells_module.shipped_recipe("GRU4Rec", "ml-100k")["model"] == "GRU4Rec"
    assert cells_module.shipped_recipe("sasrec", "nothing") == {}


def test_vectors_and_hash_of_a_back_end(tmp_path):
    backend = trained_backend(backend_cell(make_job(tmp_path), "sasrec", training=QUICK))
    vectors = backend.item_vectors()
    assert not vectors.requires_grad and (vectors[0] == 0).all() and vectors[1:].std() > 0
    before = backend.weights_hash()
    vectors.mul_(3)  # a copy: nothing of the recommender's moves
    assert backend.weights_hash() == before
    with torch.no_grad():
        next(backend.model.parameters()).view(-1)[0] += 1e-3
    assert backend.weights_hash() != before
    assert not any(parameter.requires_grad for parameter in backend.model.parameters())


def test_a_model_without_item_vectors_says_so(tmp_path):
    backend = trained_backend(backend_cell(make_job(tmp_path), "pop"))
    with pytest.raises(BenchError, match="backend Pop has no vector for each item"):
        backend.item_vectors()


def test_a_model_that_changes_is_not_remembered():
    """In plain RecBole the backend trains while it is wrapped: its item table must be read anew."""
    model = torch.nn.Module()
    model.table = torch.nn.Parameter(torch.ones(4, 2))
    model.item_vectors = lambda: model.table
    model.query_vectors = lambda batch: torch.ones(len(batch["user_id"]), 2)
    backend = TrainedBackend("one", model, 3, 5)
    seen = backend.score(torch.ones(1, 1).long(), torch.ones(1).long(), torch.ones(1).long())
    with torch.no_grad():
        model.table.mul_(2)
    assert torch.equal(backend.score(torch.ones(1, 1).long(), torch.ones(1).long(), torch.ones(1).long()), 2 * seen)


def test_latentcrs_lends_its_encoder(tmp_path):
    """A method that reads words is a backend through its history encoder alone."""
    backend = trained_backend(
        backend_cell(
            make_job(tmp_path), "latentcrs", {"backbone": "sasrec", "backbone_training": {**QUICK, "max_length": 9}}
        )
    )
    assert backend.history_length == 9
    alone = trained_backend(backend_cell(make_job(tmp_path), "sasrec", training={**QUICK, "max_length": 9}))
    assert alone.weights_hash() == backend.weights_hash()


def test_mistakes_are_one_line(tmp_path):
    job = make_job(tmp_path)
    with pytest.raises(BenchError, match="Did you mean 'sasrec'"):
        trained_backend(backend_cell(job, "sasrek"))
    with pytest.raises(BenchError, match="backend text-retrieval ranks by what users say"):
        trained_backend(backend_cell(job, "text-retrieval"))
    with pytest.raises(BenchError, match="backend sasrec of cesrec: options: unknown option 'hidden'"):
        backend_cell(job, "sasrec", {"hidden": 3})
    for wrong, words in (
        ({"backend": "CESRec"}, "its own rewriting"),
        ({"decoding": "free"}, "needs chat=local:NAME"),
        ({"chat": "local:x"}, "set decoding=free"),
    ):
        with pytest.raises(BenchError, match=words):
            check_options(CESRecOptions(**wrong))
    assert check_options(CESRecOptions(decoding="free", use_constructor=False)).k == 1


def test_contextual_vectors_are_mean_states(tmp_path):
    job = make_job(tmp_path)
    backend = trained_backend(backend_cell(job, "sasrec", training=QUICK))
    found = backend.contextual_vectors(job.split)
    sums, counts = torch.zeros(N_ITEMS + 1, 64), torch.zeros(N_ITEMS + 1)
    for user in range(1, 61):  # windows of 10 inputs over 12 training items: the newest one, and what is left
        row = job.split.histories.of(user)[:12].tolist()
        for part in (row[:5], row[1:11]):
            items = torch.tensor([part])
            states = backend.model.sequence_states(items, torch.tensor([len(part)]))[0].detach()
            sums.index_add_(0, items[0], states)
            counts.index_add_(0, items[0], torch.ones(len(part)))
    known = counts > 0
    torch.testing.assert_close(found[known], sums[known] / counts[known, None], rtol=1e-4, atol=1e-5)
    assert torch.equal(found[~known], backend.item_vectors()[~known])
    with pytest.raises(BenchError, match="set collab_source=item_table"):
        trained_backend(backend_cell(job, "BPR", training=QUICK)).contextual_vectors(job.split)
