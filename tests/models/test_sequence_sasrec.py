"""Transformer blocks and SASRec: shapes, causality, exact layouts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from recllm_bench.dropout import Dropout
from recllm_bench.errors import BenchError
from recllm_bench.models.sequence.sasrec import SASRec, SASRecOptions
from recllm_bench.models.sequence.transformer import Block, CausalAttention
from recllm_bench.recbole_bridge.bare import Ids, bare_config


def sasrec(n_items=30, max_length=12, **options) -> SASRec:
    torch.manual_seed(0)
    options = SASRecOptions(hidden_size=16, inner_size=32, **options)
    return SASRec(bare_config(options, max_length, torch.device("cpu")), Ids(n_items))


def right_padded(lengths, width=12, n_items=30):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor(lengths)
    seq = torch.randint(1, n_items + 1, (len(lengths), width), generator=generator)
    return seq * (torch.arange(width) < lengths[:, None]), lengths


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_states_depend_on_the_past_alone(norm):
    model = sasrec(norm=norm).eval()
    seq, lengths = right_padded([12, 12, 12])
    changed = seq.clone()
    changed[:, 7:] = seq[:, 7:] % 30 + 1
    before, after = model.sequence_states(seq, lengths), model.sequence_states(changed, lengths)
    assert before.shape == (3, 12, 16)
    assert torch.equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] - after[:, 7:]).abs().amin(dim=(0, 1)).max() > 1e-4


def test_padding_and_batch_mates_do_not_matter():
    model = sasrec().eval()
    seq, lengths = right_padded([3, 12, 7])
    together = model.last_states(seq, lengths)
    for row, length in enumerate([3, 12, 7]):
        alone = model.last_states(seq[row : row + 1, :length], torch.tensor([length]))
        assert torch.allclose(together[row], alone[0], atol=1e-6)


def test_attention_is_a_masked_softmax():
    torch.manual_seed(0)
    layer = CausalAttention(8, 2, 0.0)
    x = torch.randn(2, 5, 8)
    query, key, value = layer.project(x).chunk(3, -1)
    expected = torch.zeros(2, 5, 8)
    for batch in range(2):
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            for place in range(5):
                seen = slice(0, place + 1)
                weights = torch.softmax(key[batch, seen, part] @ query[batch, place, part] / math.sqrt(4), 0)
                expected[batch, place, part] = weights @ value[batch, seen, part]
    assert torch.allclose(layer(x), layer.dense(expected), atol=1e-6)


@pytest.mark.parametrize("with_bias", [False, True])
def test_both_attention_paths_agree(with_bias):
    """With the dropout probability below one byte's step nothing is dropped: the two paths are then the same sum."""
    torch.manual_seed(0)
    fused, whole = CausalAttention(8, 2, 0.0), CausalAttention(8, 2, 0.5)
    whole.load_state_dict(fused.state_dict())
    whole.dropout.forward = lambda weights: weights
    bias = torch.full((5, 5), -10000.0).triu(1)[None, None].expand(2, 1, 5, 5) if with_bias else None
    x = torch.randn(2, 5, 8)
    assert torch.allclose(fused.train()(x, bias), whole.train()(x, bias), atol=1e-6)
    assert torch.allclose(fused(x), fused(x, torch.full((5, 5), -10000.0).triu(1)[None, None]), atol=1e-6)


def test_block_layouts_by_hand():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8)
    for norm_first in (True, False):
        block = Block(8, 2, 16, 0.3, 0.0, "gelu", 1e-12, norm_first).eval()

        def norm(layer, values):
            return F.layer_norm(values, (8,), layer.weight, layer.bias, 1e-12)

        def network(values, block=block):
            wide = values @ block.widen.weight.T + block.widen.bias
            return (wide * (1 + torch.erf(wide / math.sqrt(2))) / 2) @ block.narrow.weight.T + block.narrow.bias

        if norm_first:
            middle = x + block.attention(norm(block.attention_norm, x))
            expected = middle + network(norm(block.network_norm, middle))
        else:
            middle = norm(block.attention_norm, x + block.attention(x))
            expected = norm(block.network_norm, middle + network(middle))
        assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(probability):
    torch.manual_seed(0)
    layer = Dropout(probability)
    x = torch.ones(500, 801)
    out = layer(x)
    share = round(256 * probability) / 256
    assert (out == 0).float().mean().item() == pytest.approx(share, abs=0.002)
    assert out.max().item() == pytest.approx(1 / (1 - share))
    assert out.mean().item() == pytest.approx(1.0, abs=0.004)
    # neighbours share a random word but no bits of it
    dropped = (out == 0).float()
    assert (dropped[:, 1:] * dropped[:, :-1]).mean().item() == pytest.approx(share**2, abs=0.003)
    assert layer.eval()(x) is x


def test_dropout_passes_the_gradient_of_what_it_kept():
    torch.manual_seed(0)
    x = torch.ones(7, 9, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_scores_are_products_and_padding_has_none():
    model = sasrec().eval()
    seq, lengths = right_padded([4, 9])
    batch = {"item_id_list": seq, "item_length": lengths, "item_id": torch.tensor([3, 8])}
    scores = model.full_sort_predict(batch)
    assert scores.shape == (2, 31)
    assert (scores[:, 0] == -torch.inf).all()
    assert torch.allclose(model.predict(batch), scores[torch.arange(2), batch["item_id"]], atol=1e-6)
    plain = F.cross_entropy(scores, batch["item_id"])
    assert torch.allclose(model.calculate_loss(batch), plain, atol=1e-5)


def test_saved_weights_give_equal_scores():
    model, other = sasrec().eval(), sasrec(initializer_range=0.5).eval()
    other.load_state_dict(model.state_dict())
    seq, lengths = right_padded([4, 9])
    assert torch.equal(model.last_states(seq, lengths), other.last_states(seq, lengths))


def test_heads_must_share_the_width():
    with pytest.raises(BenchError, match="multiple of n_heads 3"):
        sasrec(n_heads=3)


def test_unknown_activation_is_refused():
    with pytest.raises(BenchError, match="not one of gelu"):
        sasrec(activation="tanh")
