"""Outlier masking: the specification's example, a brute-force loop, ties, guards, and what becomes of masked items."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recllm_bench.errors import BenchError
from recllm_bench.models.cesrec.masking import MODES, SIMILARITIES, mask_outliers

PLANE = torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])


def brute_force(vectors, rows, lengths, k, min_keep, similarity):
    """The definition, a user and an item at a time, in double precision."""
    masked = np.zeros(rows.shape, dtype=bool)
    for row, length in enumerate(lengths):
        own = vectors[rows[row, :length]].astype(np.float64)
        mean = own.mean(0) if length else None
        if similarity == "cosine":
            likeness = [float(v @ mean / (np.linalg.norm(v) * np.linalg.norm(mean))) for v in own]
        else:
            likeness = [-float(np.linalg.norm(v - mean)) for v in own]
        order = np.argsort(np.array(likeness), kind="stable")
        masked[row, order[: max(0, min(k, int(length) - min_keep))]] = True
    return masked


def random_histories(seed, users=300, items=80, width=6, longest=17):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((items + 1, width)).astype(np.float32)
    lengths = rng.integers(0, longest + 1, users)
    rows = np.argsort(rng.random((users, items)), 1)[:, :longest] + 1  # no repeats, so no ties
    rows[np.arange(longest) >= lengths[:, None]] = 0
    return vectors, rows, lengths


def run(vectors, rows, lengths, **options):
    return mask_outliers(torch.as_tensor(vectors), torch.as_tensor(rows), torch.as_tensor(lengths), **options)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_odd_one_out_is_masked(similarity):
    """Mean (2/3, 1/3); cosines 0.894, 0.894, 0.447; distances 0.471, 0.471, 0.943."""
    found = run(PLANE, [[1, 2, 3]], [3], k=1, min_keep=0, similarity=similarity)
    assert found.masked.tolist() == [[False, False, True]]
    assert found.items.tolist() == [[1, 2, 0]]
    assert found.lengths.tolist() == [2]


def test_cosine_and_distance_can_disagree():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 0.1], [1.0, -0.1], [9.0, 0.0], [0.6, 0.5]])
    picks = {
        name: run(vectors, [[1, 2, 3, 4]], [4], k=1, similarity=name).masked[0].tolist().index(True)
        for name in SIMILARITIES
    }
    assert picks == {"cosine": 3, "l2": 2}  # the one that points elsewhere, the one far along


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_equals_the_loop_over_users(similarity, k):
    vectors, rows, lengths = random_histories(k)
    found = run(vectors, rows, lengths, k=k, similarity=similarity)
    expected = brute_force(vectors, rows, lengths, k, 3, similarity)
    np.testing.assert_array_equal(found.masked.numpy(), expected)
    assert found.reduced == int((expected.sum(1) < k).sum()) > 0
    for row, length in enumerate(lengths):
        kept = rows[row, :length][~expected[row, :length]].tolist()
        assert found.items[row, : found.lengths[row]].tolist() == kept
        assert not found.items[row, found.lengths[row] :].any()


def test_parts_of_a_batch_give_what_the_batch_gives(monkeypatch):
    vectors, rows, lengths = random_histories(1)
    whole = run(vectors, rows, lengths, k=2)
    monkeypatch.setattr("recllm_bench.models.cesrec.masking._AT_ONCE", {"cpu": 100})
    assert torch.equal(run(vectors, rows, lengths, k=2).masked, whole.masked)


def test_nothing_masked_is_the_identity():
    vectors, rows, lengths = random_histories(2)
    for mode in MODES:
        found = run(vectors, rows, lengths, k=0, mode=mode)
        assert not found.masked.any() and found.reduced == 0
        assert torch.equal(found.items, torch.as_tensor(rows))
        assert torch.equal(found.lengths, torch.as_tensor(lengths))


def test_at_least_so_many_items_stay():
    rows = [[1, 2, 3, 0], [1, 2, 3, 1], [3, 0, 0, 0], [0, 0, 0, 0]]
    found = run(PLANE, rows, [3, 4, 1, 0], k=3)
    assert found.masked.sum(1).tolist() == [0, 1, 0, 0]
    assert found.lengths.tolist() == [3, 3, 1, 0]
    assert found.reduced == 4
    assert run(PLANE, rows, [3, 4, 1, 0], k=1, min_keep=2).reduced == 2


@pytest.mark.parametrize("k", [1, 2, 6])
def test_of_equals_the_older_is_masked(k):
    """Also where equal items stand at places that vector instructions treat differently."""
    vectors = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    rows = [[1] * 13 + [2] * 13]
    for similarity in SIMILARITIES:
        found = run(vectors, rows, [26], k=k, similarity=similarity)
        places = found.masked[0].nonzero()[:, 0].tolist()
        assert places in (list(range(k)), list(range(13, 13 + k)))


def test_a_zero_vector_is_like_nothing():
    """Its cosine is 0: less like the mean than one at a right angle is not."""
    found = run(PLANE, [[1, 4, 2, 1]], [4], k=1)
    assert found.masked.tolist() == [[False, True, False, False]]


def test_modes():
    rows, lengths = [[1, 3, 2, 1, 0]], [4]
    dropped, marked, moved = (run(PLANE, rows, lengths, k=1, mode=mode) for mode in MODES)
    assert dropped.masked.tolist() == marked.masked.tolist() == moved.masked.tolist() == [[0, 1, 0, 0, 0]]
    assert dropped.items.tolist() == [[1, 2, 1, 0, 0]] and dropped.lengths.tolist() == [3]
    assert marked.items.tolist() == rows and marked.lengths.tolist() == [4]
    assert moved.items.tolist() == [[1, 2, 1, 3, 0]] and moved.lengths.tolist() == [4]


def test_the_tail_keeps_the_order_of_what_was_masked():
    vectors, rows, lengths = random_histories(3)
    found = run(vectors, rows, lengths, k=4, mode="tail")
    for row, length in enumerate(lengths):
        own, masked = rows[row, :length], found.masked[row, :length].numpy()
        assert found.items[row, :length].tolist() == [*own[~masked], *own[masked]]


def test_padding_vector_is_not_read():
    vectors, rows, lengths = random_histories(4)
    poisoned = vectors.copy()
    poisoned[0] = 1e6
    assert torch.equal(run(poisoned, rows, lengths, k=2).masked, run(vectors, rows, lengths, k=2).masked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"similarity": "dot"}, "similarity 'dot'"),
        ({"mode": "hide"}, "mode 'hide'"),
        ({"k": -1}, "k=-1"),
        ({"min_keep": -2}, "min_keep=-2"),
    ],
)
def test_refuses_what_has_no_meaning(options, said):
    with pytest.raises(BenchError, match=said):
        run(PLANE, [[1, 2, 3]], [3], **{"k": 1, **options})


def test_refuses_vectors_that_are_no_numbers():
    vectors = PLANE.clone()
    vectors[2, 0] = torch.nan
    with pytest.raises(BenchError, match="not numbers"):
        run(vectors, [[1, 2, 3]], [3], k=1)
