"""The kernel that counts inside the product, on a GPU or in Triton's interpreter (``TRITON_INTERPRET=1``)."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
import torch

from recllm_bench.evaluation import filtering
from recllm_bench.evaluation.counting import Counter
from recllm_bench.evaluation.filtering import count_filtered
from tests.evaluation.test_filtering import FULL, KINDS, POLICIES, brute_force, split_of, vectors

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton"),
    pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="needs a GPU or TRITON_INTERPRET=1"),
]
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture
def fused(monkeypatch):
    from recllm_bench.evaluation import fused_counting

    if INTERPRETED:  # its interpreter multiplies the bits of bfloat16: the halves come as float32, which holds them
        halves = filtering._high_and_low
        monkeypatch.setattr(filtering, "_high_and_low", lambda x: tuple(part.float() for part in halves(x)))
        monkeypatch.setattr(fused_counting, "_FORMS", ((16, 16, 4, 1),))
    monkeypatch.setattr(fused_counting, "_PROGRAMS", 12)
    return fused_counting


def counted(queries, items, split, protocol, fused):
    counter = Counter(split.histories, split.test, protocol, DEVICE, 0, None)
    done = count_filtered(queries.to(DEVICE), items.to(DEVICE), counter, halves=True, fused=fused)
    return done, [values.cpu().numpy() for values in (counter.higher, counter.tied, counter.candidates)]


@pytest.mark.parametrize("width", [3, 16, 40])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_ranks_are_those_of_brute_force(kind, policy, width, fused, monkeypatch):
    monkeypatch.setattr(filtering, "_ROWS", 25)  # several launches, the last one smaller
    split = split_of(60, 150)
    queries, items = vectors(kind, 60, 150, width, split.test.targets)
    done, found = counted(queries, items, split, POLICIES[policy], fused)
    assert done
    np.testing.assert_array_equal(found, brute_force(queries, items, split, POLICIES[policy]))


def test_a_list_that_is_too_short_is_made_anew_in_halves(fused, monkeypatch):
    monkeypatch.setattr(fused, "_ROOM", 40)
    split = split_of(60, 150)
    queries, items = vectors("near ties", 60, 150, 16, split.test.targets)
    done, found = counted(queries, items, split, FULL, fused)
    assert done
    np.testing.assert_array_equal(found, brute_force(queries, items, split, FULL))


def test_near_pairs_everywhere_are_left_to_the_plain_way(fused, monkeypatch):
    monkeypatch.setattr(filtering, "_MOST_NEAR", 0.0)
    split = split_of(300, 400)
    done, found = counted(torch.zeros(300, 8), torch.zeros(401, 8), split, FULL, fused)
    assert not done and not any(part.any() for part in found)


def test_a_kernel_that_cannot_run_is_replaced_by_tiles(fused, monkeypatch, caplog):
    def refused(self, rows):
        raise RuntimeError("no such device\nand more")

    monkeypatch.setattr(fused.Fused, "count", refused)
    split = split_of(60, 150)
    queries, items = vectors("by chance", 60, 150, 16, split.test.targets)
    with caplog.at_level("INFO", logger="recllm_bench"):
        done, found = counted(queries, items, split, FULL, fused)
    assert done and caplog.text.count("(no such device)") == 1
    np.testing.assert_array_equal(found, brute_force(queries, items, split, FULL))
