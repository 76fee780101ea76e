"""Tokens, rows, scores and the optimiser of ReLRec."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.protocols import protocol_named
from recllm_bench.evaluation.ranks import rank_cases
from recllm_bench.models.relrec import memory
from recllm_bench.models.relrec.model import LlamaSeq, ReLRec
from recllm_bench.models.relrec.optimiser import RowAdamW
from recllm_bench.models.relrec.options import LlamaSeqOptions, ReLRecOptions, check_options
from recllm_bench.models.relrec.packing import prompt_tokens
from recllm_bench.models.relrec.prompts import ITEM_PROMPTS, SLOT, USER_PROMPTS
from recllm_bench.models.relrec.tokens import Projection, SideTables, Vocabulary
from tests.models.relrec_planted import WIDTH, planted_split, spread, tiny_backbone, tiny_model, tiny_tokenizer


def vocabulary(n_users: int = 30, n_items: int = 25) -> Vocabulary:
    return Vocabulary(tiny_tokenizer(), len(tiny_tokenizer()), n_users, n_items)


def test_every_token_is_one_id_and_comes_back():
    words = vocabulary()
    names = [f"uid_{user}" for user in range(1, 31)] + [f"iid_{item}" for item in range(1, 26)]
    expected = np.arange(words.n_words, len(words)).tolist()
    assert [ids for row in words.encode(names) for ids in row] == expected
    assert [words.decode([number]) for number in expected] == names
    for name, number, ids in zip(
        names, expected, words.encode([f"people like {n}, not uid_x" for n in names]), strict=True
    ):
        assert ids.count(number) == 1
        assert sum(value >= words.n_words for value in ids) == 1
        assert words.decode(ids) == f"people like {name}, not uid_x"


def test_the_shared_tokenizers_keep_tokens_whole(models_folder):
    from transformers import AutoTokenizer

    for name in ("llama2-tokenizer", "llama2-stories260k", "domain-llama-4m"):
        tokenizer = AutoTokenizer.from_pretrained(models_folder / name)
        words = Vocabulary(tokenizer, len(tokenizer), 10_000, 10_000)
        ids = words.encode(["Films such as iid_9999 and iid_1 please uid_10000."])[0]
        expected = [words.item(9999), words.item(1), words.user(10_000)]
        assert [value for value in ids if value >= words.n_words] == expected
        assert words.decode(ids) == "Films such as iid_9999 and iid_1 please uid_10000."
        assert tokenizer.bos_token_id not in ids


def test_no_stray_piece_inside_a_text(models_folder):
    """Pieces around a token are those of one sentence, under a tokenizer that marks where a text begins."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models_folder / "llama2-tokenizer")
    words = Vocabulary(tokenizer, len(tokenizer), 10, 10)
    stray = tokenizer.convert_tokens_to_ids("▁")
    alone = tokenizer([", or", "like "], add_special_tokens=False)["input_ids"]  # what is to be left out
    assert tokenizer.convert_ids_to_tokens(alone[0])[0] == "▁," and alone[1][-1] == stray

    def pieces(text: str, inside: bool = False) -> list[str]:
        return [
            "*" if id >= words.n_words else tokenizer.convert_ids_to_tokens(id)
            for id in words.encode([text], inside)[0]
        ]

    assert pieces(" drama films", inside=True) == ["▁drama", "▁films"]
    assert pieces("drama films") == ["▁drama", "▁films"]
    assert pieces("like iid_3, or iid_4.") == ["▁like", "*", ",", "▁or", "*", "."]
    assert pieces(": drama", inside=True) == [":", "▁drama"]
    for prompt in (*USER_PROMPTS, *ITEM_PROMPTS):
        before, after = prompt_tokens(words, prompt)
        assert stray not in (*before, *after) and before[0] == tokenizer.bos_token_id
        assert not tokenizer.convert_ids_to_tokens(after[0]).startswith("▁") or prompt.split(SLOT)[1][0] == " "
    for name in ("llama2-stories260k", "domain-llama-4m"):
        other = AutoTokenizer.from_pretrained(models_folder / name)
        assert words.decode(words.encode([" a quiet film, iid_3"], inside=True)[0]) == "a quiet film, iid_3"
        assert Vocabulary(other, len(other), 10, 10).encode(["a film. It"], inside=True)[0]


def test_numbers_that_are_no_tokens_stay_words():
    words = vocabulary()
    for text in ("iid_007", "xiid_3", "iid_3b", "uid_", "iid 3"):
        assert max(words.encode([text])[0]) < words.n_words, text
    with pytest.raises(BenchError, match="item id 26 is out of range"):
        words.encode(["like iid_26"])


def test_a_tokenizer_that_breaks_tokens_is_refused():
    class Broken:
        eos_token_id, bos_token_id = 2, 1

        def __call__(self, texts, **options):
            return {"input_ids": [[5] for _ in texts]}

        def decode(self, ids, **options):
            return "uid"

    class Splitting(Vocabulary):
        def encode(self, texts):
            return [[5, 6] for _ in texts]

    Vocabulary(Broken(), 10, 3, 3)
    with pytest.raises(BenchError, match=r"takes the token '[ui]id_\d' apart"):
        Splitting(Broken(), 10, 3, 3)


def test_prompts():
    for prompts in (USER_PROMPTS, ITEM_PROMPTS):
        assert len(set(prompts)) >= 8
        assert all(prompt.count(SLOT) == 1 for prompt in prompts)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(("proj", "inner"), [("none", 0), ("1layer", 0), ("2layer", 1)])
def test_trainable_parameters(proj, inner, share):
    model = tiny_model(proj=proj, share_projection=share)
    users, items, p = 14, 12, 16
    rows = (users + items) * (WIDTH if proj == "none" else p)
    one = 0 if proj == "none" else p * WIDTH + WIDTH + inner * (p * p + p)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(parameter.numel() for parameter in model.parameters()) == rows + one * (1 if share else 2)
    assert {name.split(".")[1] for name in trainable} == {"users", "items"}
    assert not any(parameter.requires_grad for parameter in model.backbone.model.parameters())
    assert not any("backbone" in name for name in model.state_dict())


@pytest.mark.parametrize("proj", ["none", "1layer", "2layer"])
def test_average_initialisation(proj):
    options = ReLRecOptions(p=64, proj=proj, init_noise=0.0)
    centre = torch.randn(48)
    torch.manual_seed(0)
    tables = SideTables(9, 7, 48, options, centre).double()
    for table in (tables.users, tables.items):
        rows = table(torch.arange(len(table.weight)))
        assert torch.equal(table.weight, table.weight[:1].expand_as(table.weight))
        torch.testing.assert_close(rows, centre.double().expand_as(rows), rtol=1e-5, atol=1e-6)
    noisy = SideTables(9, 7, 48, ReLRecOptions(p=64, proj=proj), centre)
    for table in (noisy.users, noisy.items):
        rows = table(torch.arange(len(table.weight)))
        away = (rows - centre).abs().max()
        # Noise of rows (1e-3 in each of 64 numbers) and of the projection (1e-3 / 8), at most 5 standard deviations.
        bound = 5e-3 * (1 + float(centre.abs().max()) * 8) if proj != "none" else 5e-3
        assert 0 < away < bound
        assert len(rows.unique(dim=0)) == len(rows)
    random = SideTables(9, 7, 48, ReLRecOptions(p=64, proj=proj, init="random"), centre)
    assert float(random.items.weight.detach().std()) == pytest.approx(0.02, rel=0.3)
    assert (random.items(torch.arange(7)) - centre).abs().max() > 0.5


@pytest.mark.parametrize("kind", ["1layer", "2layer"])
def test_scores_are_products_with_projected_rows(kind):
    torch.manual_seed(1)
    for p, narrow in ((5, True), (16, True), (40, False)):
        tables = SideTables(4, 6, 16, ReLRecOptions(p=p, proj=kind, init="random"), torch.randn(16)).double()
        nn.init.normal_(tables.items.projection.outer.bias)
        states = torch.randn(3, 16, dtype=torch.float64)
        query, table, shift = tables.items.scoring(states)
        assert query.shape[1] == (p if narrow else 16)
        found = query @ table.T + (0 if shift is None else shift[:, None])
        torch.testing.assert_close(found, states @ tables.items(torch.arange(6)).T)


def test_llama2_seq_trains_item_embeddings_alone():
    """I x D numbers: 144,000 for the 900 items of Musical Instruments and a miniature of width 160."""
    tables = SideTables(0, 900, 160, LlamaSeqOptions(), torch.zeros(160))
    assert sum(parameter.numel() for parameter in tables.parameters()) == 900 * 160 == 144_000


def test_shared_projections_are_one_module():
    model = tiny_model(share_projection=True)
    assert model.tables.users.projection is model.tables.items.projection
    assert isinstance(model.tables.users.projection, Projection)


@pytest.mark.parametrize("options", [{}, {"proj": "none"}, {"proj": "2layer"}, {"p": 64}, {"item_head": "separate"}])
@torch.no_grad()
def test_ranking_scores_are_the_items_logits(options):
    """Query times item vectors orders items as the logits of the last state do, alone and in padded batches."""
    model = spread(tiny_model(**options)).eval()
    rows = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11, 12]]
    item_seq = torch.tensor([row + [0] * (8 - len(row)) for row in rows])
    batch = {
        "user_id": torch.tensor([3, 1, 14]),
        "item_id_list": item_seq,
        "item_length": torch.tensor([3, 1, 8]),
    }
    scores = model.query_vectors(batch) @ model.item_vectors().T
    words, head = model.vocabulary, model.tables.head
    for number, row in enumerate(rows):
        inputs = [model.word_vectors(torch.tensor(words.start)), model.tables.users(batch["user_id"][number, None] - 1)]
        inputs.append(model.tables.items(torch.tensor(row) - 1))
        state = model.backbone.hidden_states(torch.cat(inputs)[None])[0, -1]
        logits = head(torch.arange(12)) @ state
        found = scores[number, 1:] - scores[number, 1]
        torch.testing.assert_close(found, logits - logits[0], rtol=1e-8, atol=1e-8)
    full = model.full_sort_predict(batch)
    assert (full[:, 0] == -torch.inf).all()
    alone = model.predict({**batch, "item_id": torch.tensor([2, 5, 7])})
    torch.testing.assert_close(alone, full[torch.arange(3), torch.tensor([2, 5, 7])])


@torch.no_grad()
def test_a_word_is_never_ranked():
    """Whatever a word's logit is, the ranking has items alone; greedy text, which may hold words, takes it."""
    from recllm_bench.models.relrec.inference import extended_scores

    model = spread(tiny_model())
    batch = {"user_id": torch.tensor([3]), "item_id_list": torch.tensor([[1, 2, 3]]), "item_length": torch.tensor([3])}
    before = model.full_sort_predict(batch)
    state = model._last_states(batch)
    model._word_head = model._word_head.clone()
    model._word_head[7] += 1e4 * state[0] / state[0].square().sum()
    after = model.full_sort_predict(batch)
    assert torch.equal(before, after)
    assert after.shape == (1, 13)
    assert 1 <= int(after.argmax()) <= 12
    scores = extended_scores(model)(state)
    assert scores.shape == (1, len(model.vocabulary))
    assert int(scores.argmax()) == 7
    items = scores[:, model.vocabulary.n_words + model.vocabulary.n_users :]
    torch.testing.assert_close(items - items[:, :1], (after - after[:, 1:2])[:, 1:])


@torch.no_grad()
def test_cold_users_get_the_mean_row():
    model = spread(tiny_model()).eval()
    model.warm_users[[2, 5]] = False
    rows = model.user_rows(torch.tensor([3, 6, 1, 0, 99]))
    weight = model.tables.users.weight
    mean = model.tables.users.projection(weight[model.warm_users].mean(0))
    for place in (0, 1, 3, 4):
        torch.testing.assert_close(rows[place], mean)
    torch.testing.assert_close(rows[2], model.tables.users(torch.tensor([0]))[0])


def test_the_shared_evaluator_ranks_by_products():
    split = planted_split()
    model = spread(tiny_model(split=split)).eval()
    protocol = protocol_named("relrec.full")
    ranks = rank_cases(model, split, split.test, protocol, max_length=model.history_length)
    higher = []
    with torch.no_grad():
        for user, end, target in zip(split.test.users, split.test.ends, split.test.targets, strict=True):
            history = split.histories.items[max(split.histories.offsets[user - 1], end - 8) : end].astype(np.int64)
            batch = {
                "user_id": torch.tensor([int(user)]),
                "item_id_list": torch.from_numpy(history)[None],
                "item_length": torch.tensor([len(history)]),
            }
            scores = model.full_sort_predict(batch)[0]
            higher.append(int((scores > scores[int(target)]).sum()))
    assert ranks.higher.tolist() == higher


def test_too_long_for_the_context():
    with pytest.raises(
        BenchError, match=r"8 items and 2 tokens .* 10 positions, but tiny has 9; set training.max_length=7"
    ):
        tiny_model(tiny_backbone(context=9))
    assert tiny_model(tiny_backbone(context=9), long_sequences="cut").history_length == 7
    assert tiny_model(tiny_backbone(context=9), LlamaSeq).history_length == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"user_token": False}, "recon=false"),
        ({"seq_template": "{items} of {user}"}, "at its end"),
        ({"seq_template": "{items}"}, "{user} once"),
        ({"alpha": 0.0, "recon": False}, "nothing to train"),
        ({"labels": "generated"}, "chat="),
        ({"switched_labels": "both"}, "switched_from"),
        ({"two_stage": False}, "written labels"),
    ],
)
def test_options_without_a_meaning(values, message):
    with pytest.raises(BenchError, match=message):
        check_options(ReLRecOptions(**values))
    assert check_options(ReLRecOptions())
    assert check_options(LlamaSeqOptions())


def test_plain_recbole_needs_a_named_model():
    with pytest.raises(BenchError, match="llm"):
        ReLRec(
            {**dict.fromkeys(("LIST_SUFFIX", "ITEM_LIST_LENGTH_FIELD", "NEG_PREFIX", "USER_ID_FIELD"), "x")}
            | {"ITEM_ID_FIELD": "item_id", "MAX_ITEM_LIST_LENGTH": 5, "device": torch.device("cpu")},
            type("Counts", (), {"num": lambda self, field: 9})(),
        )


def test_row_updates_equal_dense_ones_where_all_rows_are_touched():
    generator = torch.Generator().manual_seed(0)
    one, two = (nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).clone()) for _ in range(2))
    also, same = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(2))
    rows = RowAdamW([one, also], lr=0.1, weight_decay=0.05, clip_norm=0.7)
    dense = torch.optim.AdamW([two, same], lr=0.1, weight_decay=0.05)
    for _ in range(6):
        direction = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        for weight, extra, optimiser, sparse in ((one, also, rows, True), (two, same, dense, False)):
            optimiser.zero_grad()
            places = torch.tensor([3, 0, 1, 2, 3])
            found = nn.functional.embedding(places, weight, sparse=sparse)
            ((found * direction[places]).sum() + (found**2).sum() + extra.square().sum()).backward()
            if optimiser is dense:
                nn.utils.clip_grad_norm_([two, same], 0.7)
            optimiser.step()
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(also, same, rtol=1e-10, atol=1e-12)


def test_rows_without_gradient_stay():
    weight = nn.Parameter(torch.arange(8.0).view(4, 2))
    optimiser = RowAdamW([weight], lr=0.1, weight_decay=0.5)
    start = weight.detach().clone()
    for places in ([1, 1], [1], [3]):
        optimiser.zero_grad()
        nn.functional.embedding(torch.tensor(places), weight, sparse=True).sum().backward()
        optimiser.step()
    assert torch.equal(weight[[0, 2]], start[[0, 2]])
    assert optimiser.state[weight]["row_steps"].tolist() == [0, 2, 0, 1]
    # Row 3 has moved once as a first step does: decay, then the full learning rate.
    torch.testing.assert_close(weight[3], start[3] * (1 - 0.1 * 0.5) - 0.1)


def test_which_tables_have_sparse_gradients():
    for options, users, items in (
        ({}, False, False),
        ({"seq_softmax": "items_only"}, False, False),
        ({"seq_softmax": "items_only", "recon": False}, True, False),
        ({"item_head": "separate"}, False, True),
    ):
        tables = tiny_model(**options).tables
        assert (tables.users.sparse, tables.items.sparse) == (users, items)


def test_memory_estimate_and_refusal(monkeypatch):
    backbone = tiny_backbone(torch.float32)
    plain, again = (memory.step_memory(backbone, 1000, 4096, 1 << 20, again) for again in (False, True))
    assert again < plain
    weights = sum(parameter.numel() for parameter in backbone.model.parameters()) * 4
    layer = 4096 * (10 * WIDTH + 4 * 48) * 4
    assert plain * memory.GIB == pytest.approx(weights + 16_000 + 2 * layer + 12 * (1 << 20))
    assert memory.choose_checkpointing("auto", backbone, 1000, 4096, 1 << 20, "relrec") is False
    backbone.device = torch.device("cuda")
    for room, wanted, expected in ((10.0, "auto", False), (plain * 1.01, "auto", True), (again * 1.1, "auto", True)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, room=room: (int(room * memory.GIB), 0))
        assert memory.choose_checkpointing(wanted, backbone, 1000, 4096, 1 << 20, "relrec") is expected
    weights /= memory.GIB
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int((again * 1.01 - weights) * memory.GIB), 0))
    with pytest.raises(BenchError, match="checkpointing=on"):
        memory.choose_checkpointing("off", backbone, 1000, 4096, 1 << 20, "relrec")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    with pytest.raises(BenchError, match="batch_size"):
        memory.choose_checkpointing("auto", backbone, 1000, 4096, 1 << 20, "relrec")


def test_leave_one_out_of_short_histories_counts_cold_users():
    """A user with a single training item has no step, and is cold."""
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.windows import training_windows
    from recllm_bench.models.relrec.trainer import mark_warm_users

    split = leave_one_out(Histories.from_rows([[1, 2, 3, 4], [2, 3, 4], [5, 6, 7, 8, 9]], n_items=12))
    model = tiny_model(split=split)
    mark_warm_users(model, training_windows(split.histories, split.train_ends, 8, "last"))
    assert model.warm_users.tolist() == [True, False, True]
