"""Losses of ReLRec: the chunked softmax, packing, and what may change them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from recllm_bench.data.windows import training_windows
from recllm_bench.errors import BenchError
from recllm_bench.language.packing import best_fit
from recllm_bench.models.relrec import losses as losses_module
from recllm_bench.models.relrec.losses import Block, negative_log_likelihood, weighted_likelihood
from recllm_bench.models.relrec.model import LlamaSeq
from recllm_bench.models.relrec.options import ReLRecOptions
from recllm_bench.models.relrec.packing import ITEM_LABEL, SEQUENCE, USER_LABEL, LabelTokens, join, pack
from recllm_bench.models.relrec.tokens import Vocabulary
from tests.models.relrec_planted import (
    gradients,
    planted_labels,
    planted_split,
    spread,
    tiny_backbone,
    tiny_book,
    tiny_model,
)


def whole(blocks: list[Block], targets: torch.Tensor) -> torch.Tensor:
    """The same by holding everything."""
    parts = []
    for block in blocks:
        logits = block.query @ block.table.T
        logits = logits if block.shift is None else logits + block.shift[:, None]
        parts.append(logits if block.bias is None else logits + block.bias)
    return F.cross_entropy(torch.cat(parts, 1), targets, reduction="none")


def random_blocks(seed: int = 0) -> tuple[list[Block], torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    n = 23
    words = Block(leaf(n, 5), leaf(31, 5).detach(), bias=torch.randn(31, generator=generator, dtype=torch.float64))
    users, items = Block(leaf(n, 3), leaf(7, 3), leaf(n)), Block(leaf(n, 4), leaf(40, 4), leaf(n))
    targets = torch.randint(0, 78, (n,), generator=generator)
    leaves = [words.query, users.query, users.table, users.shift, items.query, items.table, items.shift]
    return [words, users, items], targets, leaves


@pytest.mark.parametrize("at_once", [1, 7, 50, 10_000])
def test_chunked_softmax_equals_the_whole_one(at_once, monkeypatch):
    monkeypatch.setattr(losses_module, "_COLUMNS", 8)
    blocks, targets, leaves = random_blocks()
    weights = torch.linspace(0.1, 2, len(targets), dtype=torch.float64)
    wanted = (whole(blocks, targets) * weights).sum()
    expected = torch.autograd.grad(wanted, leaves)
    got = negative_log_likelihood(blocks, targets, at_once)
    torch.testing.assert_close(got, whole(blocks, targets), rtol=1e-12, atol=1e-12)
    for found, right in zip(torch.autograd.grad((got * weights).sum(), leaves), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("at_once", [10, 78 * 32, 78 * 40, 10_000])
def test_gradients_made_forward_equal_those_made_backward(at_once):
    blocks, targets, leaves = random_blocks()
    weights = torch.linspace(0.1, 2, len(targets), dtype=torch.float64)
    expected = torch.autograd.grad(3 * (whole(blocks, targets) * weights).sum(), leaves)
    loss, values = weighted_likelihood(blocks, targets, weights, at_once)
    torch.testing.assert_close(values, whole(blocks, targets), rtol=1e-12, atol=1e-12)
    assert not values.requires_grad
    for found, right in zip(torch.autograd.grad(3 * loss, leaves), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-10, atol=1e-12)


def test_no_piece_is_larger_than_allowed(monkeypatch):
    blocks, targets, _ = random_blocks()
    sizes = []
    original = losses_module._logits

    def noted(block, rows, columns):
        result = original(block, rows, columns)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(losses_module, "_logits", noted)
    monkeypatch.setattr(losses_module, "_COLUMNS", 8)
    negative_log_likelihood(blocks, targets, 64).sum().backward()
    assert max(sizes) <= 64
    assert sum(sizes) == 2 * 23 * 78  # once forward, once backward


def test_logits_of_half_precision_states_are_full_precision():
    blocks, targets, _ = random_blocks()
    blocks = [Block(block.query.detach().bfloat16(), block.table.detach().bfloat16()) for block in blocks]
    found = negative_log_likelihood(blocks, targets)
    assert found.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(negative_log_likelihood(blocks, targets), found)
    exact = [Block(block.query.double(), block.table.double()) for block in blocks]
    torch.testing.assert_close(found.double(), whole(exact, targets), rtol=1e-5, atol=1e-5)


def test_closed_form_of_orthonormal_rows():
    n, c, j = 9, 2.5, 4
    rows = torch.eye(n, dtype=torch.float64)
    value = negative_log_likelihood([Block(c * rows[j : j + 1], rows)], torch.tensor([j]))
    assert math.isclose(math.exp(-float(value)), math.exp(c) / (math.exp(c) + n - 1), rel_tol=1e-12)


def test_closed_form_through_the_model():
    """The same with a hidden state made to be c X_j, through the model's own items-only head."""
    model = tiny_model(proj="none", seq_softmax="items_only")
    n, c = model.n_items - 1, 1.7
    with torch.no_grad():
        model.tables.items.weight.copy_(torch.linalg.qr(torch.randn(32, n, dtype=torch.float64))[0].T)
    states = c * model.tables.items.weight.detach()
    value = model._next_item(states, torch.arange(1, n + 1))
    np.testing.assert_allclose(np.exp(-value.detach().numpy()), math.exp(c) / (math.exp(c) + n - 1), rtol=1e-12)


def step(model, split, seed=3):
    """Plan of one step over all windows, with labels where the model reconstructs."""
    book = tiny_book(model, split)
    windows = training_windows(split.histories, split.train_ends, 8, "last")
    generator = np.random.default_rng(seed)
    plans = [book.sequences(windows, np.arange(len(windows)))]
    if model.options.recon:
        plans.append(book.label_plan(USER_LABEL, windows.users, generator))
        plans.append(book.label_plan(ITEM_LABEL, generator.integers(1, split.histories.n_items + 1, 14), generator))
    return book, join(plans)


def by_hand(model, book, plan, kind):
    """One kind's loss in a pass of its own: padded rows, full logits at all places, no packing."""
    tables, vocabulary = model.tables, model.vocabulary
    parts = [model._words]
    parts += [table(torch.arange(len(table.weight))) for table in (tables.users, tables.items) if table is not None]
    inputs_table, head = torch.cat(parts), [*parts]
    head[0] = model._word_head
    if tables.output is not None:
        head[-1] = tables.output(torch.arange(len(tables.output.weight)))
    rows = []
    for place in np.flatnonzero(plan.kinds == kind):
        pieces = [
            book.flat[start : start + length]
            for start, length in zip(plan.starts[place], plan.lengths[place], strict=True)
        ]
        rows.append((np.concatenate(pieces), int(plan.contexts[place])))
    width = max(len(row) for row, _ in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for number, (row, context) in enumerate(rows):
        tokens[number, : len(row)] = torch.from_numpy(row)
        labels[number, context : len(row)] = torch.from_numpy(row[context:])
    states = model.backbone.model.base_model(
        inputs_embeds=inputs_table[tokens], attention_mask=(tokens >= 0).long(), use_cache=False
    ).last_hidden_state
    logits = states @ torch.cat(head).T
    if kind == SEQUENCE and model.options.seq_softmax == "items_only":
        logits[..., : vocabulary.n_words + vocabulary.n_users] = -torch.inf
    values = F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100)
    scored = (labels[:, 1:] >= 0).double()
    return (values.nan_to_num() * scored).sum(1).div(scored.sum(1)).mean()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seq_softmax": "items_only"},
        {"item_head": "separate"},
        {"proj": "none"},
        {"proj": "2layer", "share_projection": True},
        {"seq_template": "Books read by {user}: {items}"},
        {"user_token": False, "recon": False},
        {"user_token": False, "recon": False, "item_head": "separate", "seq_softmax": "items_only"},
    ],
    ids=str,
)
@pytest.mark.parametrize("capacity", [0, 64])
def test_one_packed_pass_equals_separate_passes(options, capacity):
    split = planted_split()
    model = spread(tiny_model(split=split, **options))
    book, plan = step(model, split)
    batch = pack(book, plan, capacity=capacity)
    assert batch.words.shape[0] < len(plan), "some sequences share a row"
    found = model.losses(batch)
    packed = gradients(model, model.weighted(found))
    names = {"sequence": SEQUENCE, "user": USER_LABEL, "item": ITEM_LABEL}
    separate = {name: by_hand(model, book, plan, kind) for name, kind in names.items() if name in found}
    assert set(separate) == ({"sequence", "user", "item"} if model.options.recon else {"sequence"})
    for name, value in separate.items():
        assert found[name].item() == pytest.approx(value.item(), abs=1e-5)
        alone = model.losses(pack(book, plan.only(names[name]), alone=True))[name]
        assert alone.item() == pytest.approx(value.item(), abs=1e-5)
    expected = gradients(model, model.weighted(separate))
    loss, terms = model.step_loss(batch)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        {name: value.item() for name, value in found.items()}
    )
    fused = gradients(model, loss)
    assert all(torch.allclose(fused[name], packed[name], rtol=1e-5, atol=1e-6) for name in packed)
    for name, gradient in packed.items():
        # Over items alone a separate head's bias adds the same to every logit, and nothing can be learnt of it.
        assert gradient.abs().max() > 1e-4 or (name == "output.projection.outer.bias" and not model.options.recon)
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-5, msg=name)


def test_checkpointing_changes_no_gradient():
    split = planted_split()
    model = spread(tiny_model(split=split))
    batch = pack(*step(model, split))
    kept = gradients(model, model.weighted(model.losses(batch)))
    model.checkpointing = True
    again = gradients(model, model.weighted(model.losses(batch)))
    assert all(torch.allclose(kept[name], again[name], rtol=1e-12) for name in kept)


def test_a_sequence_sees_no_neighbour():
    """Other tokens in the same row change no state of a sequence, and neither do later tokens of its own."""
    split = planted_split()
    model = spread(tiny_model(split=split))
    batch = pack(*step(model, split), capacity=200)
    seen = []
    hidden = model.backbone.hidden_states
    model.backbone = dataclasses.replace(model.backbone)
    model.backbone.hidden_states = lambda *args, **named: seen.append(hidden(*args, **named)) or seen[-1]
    model.losses(batch)
    first = (batch.segments == 1).flatten()
    words = batch.words.flatten().clone()
    words[~first & (batch.segments.flatten() > 0)] = 7
    model.losses(dataclasses.replace(batch, words=words.view_as(batch.words)))
    one, two = (states.reshape(-1, states.shape[-1]) for states in seen)
    torch.testing.assert_close(one[first], two[first], rtol=0, atol=1e-12)
    assert not torch.allclose(one[~first], two[~first])


def test_targets_at_prompts_do_not_matter():
    split = planted_split()
    model = spread(tiny_model(split=split))
    book, plan = step(model, split)
    labels = plan.only(USER_LABEL)
    batch = pack(book, labels, alone=True)
    scored = torch.zeros(batch.words.numel(), dtype=torch.bool)
    scored[batch.scored] = True
    context = torch.from_numpy(labels.contexts)
    assert torch.equal(scored.view_as(batch.words).int().argmax(1), context - 1), "the token before the label is first"
    assert int(scored.sum()) == int((labels.lengths.sum(1) - labels.contexts).sum())
    # A loss over all places with the prompt's targets masked out does not change with these targets.
    targets = torch.zeros(batch.words.numel(), dtype=torch.long)
    targets[batch.scored] = batch.targets
    changed = torch.where(scored, targets, (targets + 17) % len(model.vocabulary))
    one, two = (
        model.losses(dataclasses.replace(batch, targets=some[batch.scored]))["user"] for some in (targets, changed)
    )
    assert one.item() == two.item()
    other = dataclasses.replace(batch, targets=(batch.targets + 1) % len(model.vocabulary))
    assert model.losses(other)["user"].item() != pytest.approx(one.item())


def test_every_label_ends_with_the_end_token():
    """A cut one too: what a token learns to write must learn to end."""
    model = tiny_model()
    texts = ("quiet books", "old songs about rain and space and rain and space")
    whole = LabelTokens([(), texts], model.vocabulary, 100)
    assert whole.cut == 0
    tokens = LabelTokens([(), texts], model.vocabulary, 15)
    for held in (whole, tokens):
        assert (held.flat[held.starts + held.lengths - 1] == model.vocabulary.end).all()
        assert (held.flat == model.vocabulary.end).sum() >= 2
    assert tokens.cut == 1
    assert tokens.lengths.max() == 15
    last = slice(int(tokens.starts[1]), int(tokens.starts[1]) + 14)
    assert (tokens.flat[last] == whole.flat[last]).all()  # all but the end is as it was


def test_two_hundred_words_are_not_cut_by_default(models_folder):
    """A written label of the most words that are asked for, under the tokenizer of the paper's model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models_folder / "llama2-tokenizer")
    words = Vocabulary(tokenizer, len(tokenizer), 10, 3000)
    text = " ".join(["remarkably", "versatile", "microphone", "for", "home", "studios", "beside", "iid_2999,"] * 25)
    assert len(text.split()) == 200
    held = LabelTokens([(), (text,)], words, ReLRecOptions().label_tokens)
    assert held.cut == 0 and held.flat[-1] == tokenizer.eos_token_id


def test_without_label_weights_gradients_are_those_of_no_label_pass():
    split = planted_split()
    model = spread(tiny_model(split=split, beta=0.0, gamma=0.0, seq_softmax="items_only"))
    book, plan = step(model, split)
    all_passes = gradients(model, model.weighted(model.losses(pack(book, plan))))
    alone = gradients(model, model.weighted(model.losses(pack(book, plan.only(SEQUENCE)))))
    for name in alone:
        torch.testing.assert_close(all_passes[name], alone[name], rtol=1e-8, atol=1e-12, msg=name)


def test_without_sequences_rows_outside_labels_get_no_gradient_from_inputs():
    """alpha = 0 and words alone as classes: only rows named by a prompt or a label move; the projection always does."""
    split = planted_split()
    model = spread(tiny_model(split=split, alpha=0.0))
    labels = planted_labels()
    labels.users[5:], labels.items[6:] = [()] * 10, [()] * 7
    labels.users = [tuple(text.split(" like ")[0] for text in row) for row in labels.users]
    labels.items = [tuple(text.split(" like ")[0] for text in row) for row in labels.items]
    book = tiny_book(model, split, labels)
    generator = np.random.default_rng(0)
    plan = join(
        [
            book.label_plan(USER_LABEL, np.arange(1, 15), generator),
            book.label_plan(ITEM_LABEL, np.arange(1, 13), generator),
        ]
    )
    model.blocks = lambda states, items_only=False: [Block(states, model._word_head)]
    found = gradients(model, model.weighted(model.losses(pack(book, plan))))
    touched = found["users.weight"].abs().sum(1) > 0
    assert touched.tolist() == [user in (1, 3, 4) for user in range(1, 15)]
    touched = found["items.weight"].abs().sum(1) > 0
    assert touched.tolist() == [item in (1, 2, 4, 5) for item in range(1, 13)]
    assert found["users.projection.outer.weight"].abs().max() > 0


def test_absent_labels_leave_the_mean_over_present_ones():
    split = planted_split()
    model = spread(tiny_model(split=split))
    book = tiny_book(model, split)
    with_absent = book.label_plan(USER_LABEL, np.array([1, 2, 4]), np.random.default_rng(1))
    assert len(with_absent) == 2
    one = model.losses(pack(book, with_absent))["user"]
    each = []
    for row in range(2):
        fields = (getattr(with_absent, name)[row : row + 1] for name in with_absent.__dataclass_fields__)
        each.append(model.losses(pack(book, type(with_absent)(*fields)))["user"])
    assert float(one) == pytest.approx((float(each[0]) + float(each[1])) / 2, rel=1e-9)


def test_mean_over_users_of_the_mean_over_steps():
    """Equation (1): a long history weighs as much as a short one."""
    model = spread(tiny_model())
    split = planted_split()
    book = tiny_book(model, split)
    windows = training_windows(split.histories, split.train_ends, 8, "last")
    short = dataclasses.replace(windows, starts=windows.starts.copy(), loss_from=windows.loss_from.copy())
    short.starts[0] = short.ends[0] - 3
    short.loss_from[0] = short.starts[0] + 1
    batch = pack(book, book.sequences(short, np.arange(2)))
    assert batch.weights[batch.segments.flatten()[batch.scored] == 1].tolist() == pytest.approx([1 / 4] * 2)
    total = [float(model.losses(pack(book, book.sequences(short, np.array([row]))))["sequence"]) for row in range(2)]
    assert float(model.losses(batch)["sequence"]) == pytest.approx(sum(total) / 2, rel=1e-9)


def test_windows_without_loss_on_their_first_targets():
    split = planted_split(length=20)
    model = tiny_model(split=split)
    book = tiny_book(model, split)
    windows = training_windows(split.histories, split.train_ends, 8, "all")
    batch = pack(book, book.sequences(windows, np.arange(len(windows))))
    expected = int((split.train_ends - split.histories.offsets[:-1] - 1).sum())
    assert len(batch.targets) == (windows.ends - windows.loss_from).sum() == expected


def test_packing_loses_and_doubles_nothing():
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 90, 200)
    rows, columns = best_fit(lengths, 128)
    taken = np.zeros((rows.max() + 1, 128), dtype=int)
    for row, column, length in zip(rows, columns, lengths, strict=True):
        taken[row, column : column + length] += 1
    assert taken.max() == 1
    assert taken.sum() == lengths.sum()
    assert taken.mean() > 0.93


def test_versions_are_drawn_uniformly():
    model = tiny_model()
    tokens = LabelTokens([(), ("quiet", "old", "slow")], model.vocabulary, 9)
    ids = np.ones(3000, dtype=np.int64)
    drawn = tokens.draw(ids, np.random.default_rng(4))[1]
    again = tokens.draw(ids, np.random.default_rng(4))[1]
    assert np.array_equal(drawn, again)
    sigma = math.sqrt(3000 * (1 / 3) * (2 / 3))
    assert np.abs(np.bincount(drawn, minlength=3) - 1000).max() < 3 * sigma


def test_ids_outside_the_tables_are_refused():
    model = tiny_model()
    vocabulary = model.vocabulary
    for call in (lambda: vocabulary.user(15), lambda: vocabulary.item(np.array([1, 13])), lambda: vocabulary.user(0)):
        with pytest.raises(BenchError, match="out of range"):
            call()
    with pytest.raises(BenchError, match="item id 99"):
        LabelTokens([(), ("like iid_99",)], vocabulary, 9)


def test_training_without_labels_agrees_with_the_packed_sequence_loss():
    """The padded path that plain training uses gives the same loss (1)."""
    from recllm_bench.data.windows import DeviceHistories

    split = planted_split()
    model = spread(tiny_model(kind=LlamaSeq, split=split))
    book = tiny_book(model, split)
    windows = training_windows(split.histories, split.train_ends, 8, "last")
    rows = np.arange(len(windows))
    batch = DeviceHistories(split.histories, "cpu").window_batch(windows, rows, 8)
    padded = model.training_loss(batch, torch.Generator())
    packed = model.losses(pack(book, book.sequences(windows, rows)))["sequence"]
    assert float(padded) == pytest.approx(float(packed), rel=1e-9)


def test_untied_heads_score_by_their_own_rows():
    model = tiny_model(tiny_backbone(tied=False))
    assert not torch.equal(model._word_head, model._words)
    assert torch.equal(model._word_head, model.backbone.head().weight)
