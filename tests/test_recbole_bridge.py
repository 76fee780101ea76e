"""The bridge against RecBole's own behaviour: data, batches, gradients, the zoo, and our models in plain RecBole."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recllm_bench.api import registry
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.recbole_bridge import (
    build_model,
    interaction,
    load_recbole,
    load_state,
    model_config,
    save_state,
    training_batches,
    training_dataset,
    trains_by_gradient,
    zoo_class,
    zoo_names,
    zoo_options,
    zoo_training,
)
from recllm_bench.testing import planted_histories

GENERAL = ["Pop", "BPR", "ItemKNN", "EASE", "LightGCN", "NeuMF", "MultiVAE", "SLIMElastic", "NCEPLRec", "RecVAE"]
SEQUENTIAL = [
    "SASRec",
    "GRU4Rec",
    "STAMP",
    "NARM",
    "BERT4Rec",
    "HGN",
    "FPMC",
    "Caser",
    "SRGNN",
    "CORE",
    "FEARec",
    "DIEN",
]
QUICK = {"RecVAE": {"hidden_dimension": 16, "latent_dimension": 4}}


@pytest.fixture(scope="module")
def histories() -> Histories:
    return planted_histories(n_users=30, n_items=40, length=9)


@pytest.fixture(scope="module")
def train_ends(histories: Histories) -> np.ndarray:
    return histories.offsets[1:] - 2


def scoring_batch() -> object:
    return interaction(
        {
            "user_id": torch.tensor([1, 2, 3]),
            "item_id_list": torch.tensor([[1, 2, 3], [4, 0, 0], [5, 6, 0]]),
            "item_length": torch.tensor([3, 1, 2]),
        }
    )


def test_importing_the_bridge_and_listing_the_zoo_imports_neither_torch_nor_recbole() -> None:
    code = (
        "import sys; from recllm_bench import recbole_bridge as bridge;"
        "assert 'SASRec' in bridge.zoo_names() and bridge.zoo_options('gru4rec')['hidden_size'] == 128;"
        "assert not {'torch', 'recbole', 'pandas'} & set(sys.modules)"
    )
    assert os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code) == 0


def test_load_recbole_is_idempotent_and_imports_no_ray() -> None:
    load_recbole()
    load_recbole()
    assert "ray" not in sys.modules
    assert "recbole.quick_start" not in sys.modules


def test_zoo_has_every_sequential_and_general_model() -> None:
    names = zoo_names()
    assert {"Pop", "BPR", "LightGCN", "SASRec", "GRU4Rec", "BERT4Rec", "Random"} <= set(names)
    for name in ("Pop", "SASRec", "FEARec", "MultiVAE"):
        assert zoo_class(name.upper()).__name__ == name
    assert zoo_class("no such model") is None


def test_dataset_keeps_our_ids_and_knows_what_has_no_training_interaction() -> None:
    # Item 5 is only a test target, items 6 and 7 never occur; user 3 has nothing to train on.
    data = Histories.from_rows([[3, 1, 5], [2, 2, 4], [1, 2]], n_items=7)
    ends = np.array([2, 5, 6])
    for name in ("BPR", "SASRec"):
        config = model_config(name, {}, seed=1, device="cpu", max_length=4)
        dataset = training_dataset("tiny", data, ends, config)
        assert (dataset.num("item_id"), dataset.num("user_id")) == (8, 4)
        matrix = dataset.inter_matrix(form="csr").toarray()
        expected = np.zeros((4, 8))
        for user, item in [(1, 3), (1, 1), (2, 2), (2, 2)]:
            expected[user, item] += 1
        np.testing.assert_array_equal(matrix, expected)
        assert dataset.token2id("item_id", "5") == 5
    config = model_config("BPR", {}, seed=1, device="cpu", max_length=4)
    items, values, lengths = training_dataset("tiny", data, ends, config).history_item_matrix()
    assert lengths.tolist() == [0, 2, 2, 0]
    assert sorted(items[1].tolist()) == [1, 3]
    assert items[2].tolist() == [2, 2]
    assert values[3].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["BPR", "STAMP", "MultiVAE"])
def test_nothing_after_the_training_prefix_reaches_the_model(name: str) -> None:
    """Two datasets that differ only after the prefixes give the same batches, negatives and losses."""
    clean = planted_histories(n_users=12, n_items=20, length=8)
    items = clean.items.copy()
    ends = clean.offsets[1:] - 2
    poison = np.concatenate([ends, ends + 1])
    items[poison] = items[poison] % 20 + 1
    poisoned = Histories(items, clean.offsets, clean.n_items)
    assert not np.array_equal(clean.items, poisoned.items)
    seen = []
    for data in (clean, poisoned):
        model, _, dataset = build_model(name, data, ends, {}, seed=3, max_length=5)
        feed = zoo_training(model, seed=3)
        torch.manual_seed(0)
        losses = [feed.loss(batch).item() for batch in feed.batches(1)]
        seen.append((losses, dataset.inter_matrix().toarray()))
    assert seen[0][0] == seen[1][0]
    np.testing.assert_array_equal(seen[0][1], seen[1][1])


def test_prefix_rows_equal_those_recbole_makes_from_files(tmp_path: Path) -> None:
    """The same interactions through atomic files, RecBole's augmentation and its leave-one-out split."""
    load_recbole()
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.utils import data_preparation

    data = planted_histories(n_users=7, n_items=11, length=9, seed=2)
    order = {item: number for number, item in enumerate(dict.fromkeys(data.items.tolist()), 1)}
    data = Histories(np.array([order[item] for item in data.items], np.int32), data.offsets, 11)
    folder = tmp_path / "own"
    folder.mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(1, 8):
        lines += [f"u{user}\ti{item}\t{place}" for place, item in enumerate(data.of(user))]
    (folder / "own.inter").write_text("\n".join(lines) + "\n")
    settings = {
        "data_path": str(tmp_path),
        "checkpoint_dir": str(tmp_path),
        "MAX_ITEM_LIST_LENGTH": 4,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "train_neg_sample_args": None,
    }
    config = Config(model="STAMP", dataset="own", config_dict=settings)
    theirs = data_preparation(config, create_dataset(config))[0]._dataset.inter_feat
    own_config = model_config("STAMP", {}, seed=1, device="cpu", max_length=4)
    dataset = training_dataset("own", data, data.offsets[1:] - 2, own_config)
    ours = dataset[np.arange(len(dataset))]
    assert len(dataset) == len(theirs)
    assert _rows(theirs) == _rows(ours)


def test_targets_differ_from_recboles_only_where_its_times_are_too_coarse(tmp_path: Path, monkeypatch) -> None:
    """RecBole scales times to [0, 1] and keeps them in float32, where neighbouring seconds of ml-100k are one value.

    Such ties take the order of the file. Four users' last two items are a second apart, and there the file's own times
    say that our target is the later one.
    """
    load_recbole()
    import pandas as pd
    import recbole
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation

    monkeypatch.setattr(sys, "argv", ["plain"])
    monkeypatch.chdir(tmp_path)
    columns = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None}
    config = Config(model="SASRec", dataset="ml-100k", config_dict={**columns, "checkpoint_dir": str(tmp_path)})
    dataset = create_dataset(config)
    feat = data_preparation(config, dataset)[2]._dataset.inter_feat
    users, items = (dataset.id2token(field, feat[field].numpy()) for field in ("user_id", "item_id"))
    theirs = dict(zip(users.tolist(), items.tolist(), strict=True))
    prepared = prepare("ml-100k")
    cases = leave_one_out(prepared.histories).test
    ours = {
        prepared.user_tokens[user]: prepared.catalogue.tokens[item]
        for user, item in zip(cases.users, cases.targets, strict=True)
    }
    assert theirs.keys() == ours.keys()
    differ = {user for user in ours if ours[user] != theirs[user]}
    assert differ == {"167", "239", "392", "444"}
    file = pd.read_csv(Path(recbole.__file__).parent / "dataset_example/ml-100k/ml-100k.inter", sep="\t", dtype=str)
    file.columns = ["user", "item", "rating", "time"]
    file["time"] = file["time"].astype(float)
    times = file.set_index(["user", "item"])["time"]
    assert all(times[user, ours[user]] == times[user, theirs[user]] + 1 for user in differ)
    file["coarse"] = ((file.time - file.time.min()) / (file.time.max() - file.time.min())).astype(np.float32)
    for key, expected in (("time", ours), ("coarse", theirs)):
        last = file.sort_values(key, kind="stable").groupby("user").tail(1)
        assert dict(zip(last.user, last.item, strict=True)) == expected


def _rows(feat: object) -> list[tuple[list[int], ...]]:
    """Prefix rows in an order of their own: RecBole sorts its users anew."""
    fields = ("user_id", "item_length", "item_id", "item_id_list")
    return sorted(zip(*(feat[field].tolist() for field in fields), strict=True))


def test_command_line_and_cuda_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--learning_rate=77", "--hidden_size=3"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    config = model_config(
        "SASRec", {"n_layers": "1", "hidden_dropout_prob": "1e-1"}, seed=1, device="cpu", max_length=5
    )
    assert config["hidden_size"] == 64
    assert (config["n_layers"], config["hidden_dropout_prob"]) == (1, 0.1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    assert config["device"] == torch.device("cpu")


def test_strings_are_never_evaluated(tmp_path: Path) -> None:
    victim = tmp_path / "made"
    text = f"open({str(victim)!r}, 'w')"
    with pytest.raises(BenchError):
        build_model("SASRec", planted_histories(5, 20, 6), np.arange(6, 31, 6) - 2, {"hidden_act": text}, seed=1)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hiden_size": 3}, "Did you mean 'hidden_size'"),
        ({"hidden_size": "many"}, "expected a whole number, got 'many'"),
        ({"hidden_dropout_prob": "lots"}, "expected a number"),
        ({"n_layers": True}, "expected a whole number"),
        ({"learning_rate": 0.1}, "set training.learning_rate"),
        ({"loss_type": "XE"}, "loss_type"),
    ],
)
def test_wrong_options_are_one_clear_line(histories, train_ends, options: dict, message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        build_model("recbole:SASRec", histories, train_ends, options, seed=1)
    assert "\n" not in str(caught.value)


def test_models_without_their_data_say_so(histories, train_ends) -> None:
    with pytest.raises(BenchError, match="knowledge graph"):
        build_model("KSR", histories, train_ends, {}, seed=1)
    with pytest.raises(BenchError, match="item categories"):
        build_model("SASRecF", histories, train_ends, {}, seed=1, categories=[()] * 41)
    everything = Histories.from_rows([[1, 2, 3], [1, 2]], n_items=3)
    model, _, _ = build_model("BPR", everything, np.array([3, 5]), {}, seed=1)
    with pytest.raises(BenchError, match="all items"):
        zoo_training(model)


@pytest.mark.parametrize("name", GENERAL + SEQUENTIAL)
def test_zoo_trains_scores_and_is_saved(name: str, histories, train_ends, tmp_path: Path) -> None:
    """One epoch by RecBole's own loss and batches; finite scores; the saved state scores the same."""
    torch.set_num_threads(1)
    built = [build_model(name, histories, train_ends, QUICK.get(name, {}), seed=5, max_length=6) for _ in range(2)]
    model, other = built[0][0], built[1][0]
    assert type(model) is zoo_class(name)
    if trains_by_gradient(model):
        free = [part.requires_grad for part in model.parameters()]
        feed = zoo_training(model, seed=5)
        optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
        model.train()
        steps = 0
        for batch in feed.batches(1):
            optimiser.zero_grad()
            loss = feed.loss(batch)
            assert torch.isfinite(loss)
            loss.backward()
            optimiser.step()
            steps += 1
        assert steps == feed.steps > 0
        assert [part.requires_grad for part in model.parameters()] == free
    save_state(model, tmp_path / "state.pt")
    load_state(other, tmp_path / "state.pt")
    scores = []
    for network in (model.eval(), other.eval()):
        torch.manual_seed(0)
        with torch.no_grad():
            scores.append(network.full_sort_predict(scoring_batch()))
    if name not in ("SASRec", "GRU4Rec", "RecVAE"):  # the first two flatten nothing; RecVAE samples when it scores
        assert scores[0].shape == (3, histories.n_items + 1)
    assert torch.isfinite(scores[0].reshape(3, -1)[:, 1:]).all()
    torch.testing.assert_close(scores[0], scores[1])


def test_item_features_reach_the_models_that_read_them(histories, train_ends) -> None:
    categories = [()] + [(f"c{item % 3}", "all") for item in range(40)]
    model, _, dataset = build_model("GRU4RecF", histories, train_ends, {}, seed=1, max_length=6, categories=categories)
    assert dataset.num("class") == 5
    feed = zoo_training(model)
    assert torch.isfinite(feed.loss(next(iter(feed.batches(1)))))


def test_prototypes_of_ncl_are_renewed_and_left_out_while_it_warms_up(histories, train_ends) -> None:
    options = {"num_clusters": 3, "warm_up_step": 1}
    model, _, _ = build_model("NCL", histories, train_ends, options, seed=1)
    feed = zoo_training(model)
    feed.before_epoch(1)
    batch = next(iter(feed.batches(1)))
    parts = model.calculate_loss(batch)
    torch.testing.assert_close(feed.loss(batch), sum(parts[:-1]))
    feed.before_epoch(2)
    torch.testing.assert_close(feed.loss(batch), sum(model.calculate_loss(batch)))


def test_pop_counts_training_interactions_exactly(histories, train_ends) -> None:
    model, _, _ = build_model("pop", histories, train_ends, {}, seed=1)
    counts = np.zeros(histories.n_items + 1)
    for user in range(1, histories.n_users + 1):
        for item in histories.of(user)[:-2]:
            counts[item] += 1
    np.testing.assert_array_equal(model.item_cnt[:, 0].numpy(), counts)
    with torch.no_grad():
        scores = model.full_sort_predict(scoring_batch())
    np.testing.assert_allclose(scores[1].numpy(), counts / counts.max())


def test_an_epoch_is_a_function_of_seed_and_number(histories, train_ends) -> None:
    for name in ("BPR", "BERT4Rec"):
        model, _, _ = build_model(name, histories, train_ends, {}, seed=5, max_length=6)
        feed = zoo_training(model, seed=9)
        list(feed.batches(1))
        again = zoo_training(model, seed=9)
        for late, early in zip(feed.batches(2), again.batches(2), strict=True):
            for field in late.interaction:
                assert torch.equal(late[field], early[field])


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_all_positions_give_the_gradient_of_all_prefixes(name: str, histories, train_ends) -> None:
    """One pass over whole histories against RecBole's prefix-by-prefix loss, both the mean over all targets."""
    options = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0} if name == "SASRec" else {"dropout_prob": 0.0}
    model, _, dataset = build_model(name, histories, train_ends, options, seed=7, max_length=8)
    assert type(model) is zoo_class(name)
    assert not {"sequence_states", "item_vectors"} & set(dict(model.named_parameters()))
    rows = dataset[np.arange(len(dataset))]
    model.train()
    model.calculate_loss(rows).backward()
    expected = {key: part.grad.clone() for key, part in model.named_parameters()}
    model.zero_grad()

    sequences = torch.stack([torch.from_numpy(histories.of(user)[:-2].astype(np.int64)) for user in range(1, 31)])
    inputs, targets = sequences[:, :-1], sequences[:, 1:]
    lengths = torch.full((30,), inputs.shape[1])
    states = model.sequence_states(inputs, lengths)
    logits = states.reshape(-1, states.shape[-1]) @ model.item_vectors().T
    torch.nn.functional.cross_entropy(logits, targets.reshape(-1)).backward()
    for key, part in model.named_parameters():
        torch.testing.assert_close(part.grad, expected[key], rtol=1e-4, atol=1e-5, msg=key)


def test_activation_in_one_step_is_recboles(histories, train_ends) -> None:
    model, _, _ = build_model("SASRec", histories, train_ends, {}, seed=7, max_length=8)
    parts = [layer.feed_forward for layer in model.trm_encoder.layer]
    assert parts and all(part.intermediate_act_fn is torch.nn.functional.gelu for part in parts)
    x = torch.cat((torch.randn(1000) * 3, torch.tensor([0.0, -0.0, 40.0, -40.0, 1e-30]))).requires_grad_()
    for part in parts:
        ours, theirs = part.intermediate_act_fn(x), part.gelu(x)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        slopes = [torch.autograd.grad(value.sum(), x)[0] for value in (ours, theirs)]
        torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)
    other = build_model("SASRec", histories, train_ends, {"hidden_act": "relu"}, seed=7, max_length=8)[0]
    assert other.trm_encoder.layer[0].feed_forward.intermediate_act_fn is torch.nn.functional.relu


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_every_position_equals_its_prefix(name: str, histories, train_ends) -> None:
    model, _, _ = build_model(name, histories, train_ends, {}, seed=7, max_length=8)
    model.eval()
    row = torch.tensor([[3, 1, 4, 1, 5, 0, 0]])
    with torch.no_grad():
        states = model.sequence_states(row, torch.tensor([5]))
        for length in range(1, 6):
            alone = model.forward(row[:, :length], torch.tensor([length]))
            torch.testing.assert_close(states[:, length - 1], alone, rtol=1e-5, atol=1e-6)


def test_initialisation_is_reproducible_and_follows_the_seed(histories, train_ends) -> None:
    tables = [build_model("SASRec", histories, train_ends, {}, seed=seed)[0].item_vectors() for seed in (1, 1, 2)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_general_batches_have_negatives_outside_the_training_history(histories, train_ends) -> None:
    _, config, dataset = build_model("BPR", histories, train_ends, {}, seed=1)
    used = {user: set(histories.of(user)[:-2].tolist()) for user in range(1, 31)}
    pairs = 0
    for batch in training_batches(config, dataset):
        for user, item, negative in zip(
            batch["user_id"].tolist(), batch["item_id"].tolist(), batch["neg_item_id"].tolist(), strict=True
        ):
            assert item in used[user]
            assert negative not in used[user]
            pairs += 1
    assert pairs == 30 * 7


def test_a_state_of_another_model_is_refused(histories, train_ends, tmp_path: Path) -> None:
    save_state(build_model("BPR", histories, train_ends, {}, seed=1)[0], tmp_path / "bpr.pt")
    with pytest.raises(BenchError, match=r"bpr\.pt: does not fit STAMP"):
        load_state(build_model("STAMP", histories, train_ends, {}, seed=1)[0], tmp_path / "bpr.pt")


def test_options_of_the_zoo_are_recboles_defaults() -> None:
    options = zoo_options("sasrec")
    assert options["n_layers"] == 2
    assert options["layer_norm_eps"] == 1e-12
    with pytest.raises(BenchError, match="Did you mean 'SASRec'"):
        zoo_options("sasrecc")


@pytest.mark.parametrize("name", ["sasrec", "iclrec", "latentcrs", "recbole:SASRec"])
def test_models_run_in_plain_recbole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole's documented way for a custom model, with its own Trainer, on ml-100k as its wheel brings it."""
    load_recbole()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["plain"])
    model_class = registry.model_named(name).model
    settings = {
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
        "val_interval": {"rating": "[5,5]", "timestamp": "[0,880000000]"},
        "user_inter_num_interval": "[8,inf)",
        "item_inter_num_interval": "[8,inf)",
        "MAX_ITEM_LIST_LENGTH": 10,
        "epochs": 1,
        "train_batch_size": 1024,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "checkpoint_dir": str(tmp_path / "saved"),
        "show_progress": False,
    }
    config = Config(model=model_class, dataset="ml-100k", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    model = model_class(config, train.dataset).to(config["device"])
    trainer = Trainer(config, model)
    score, _ = trainer.fit(train, valid, verbose=False)
    result = trainer.evaluate(test)  # loads the checkpoint that fit wrote
    assert 0 <= score <= 1
    assert 0 <= result["recall@10"] <= 1
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("saved", "cache", "results")] == []


def test_the_zoo_leaves_torch_as_it_was():
    assert zoo_class("SINE").__name__ == "SINE"
    assert not torch.is_anomaly_enabled()
