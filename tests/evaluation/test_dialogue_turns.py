"""The difficulty curve and the conventions of failure, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from recllm_bench.evaluation.dialogue_turns import (
    BLIND,
    COUNTED,
    FITTING,
    GONE,
    HELD,
    SUCCESS,
    convention_measures,
    turn_measures,
)


def by_label(measures):
    return {measure.label: measure.value for measure in measures}


def test_turns_and_classes_by_hand():
    turns = np.array([2, 0, 1, -1])  # success at 2, failure, success at 1, invalid
    left = np.array([[400, 20, -1], [40, 8, 0], [5, -1, -1], [9, 9, 9]])
    found = by_label(turn_measures(turns, left, [False, True, False, True], 5))
    assert found[f"{HELD}, dialogues"] == pytest.approx((2 + 3 + 1) / 3)
    assert found[f"{GONE}, dialogues"] == pytest.approx(1 / 3)
    assert [found[f"{FITTING}, turn {turn}"] for turn in (1, 2, 3)] == [40, 14, 0]
    few = "0 to 10 items still fit"  # 8 and 0 of the failure, 5 of the success at once
    assert found[f"{COUNTED}, {few}"] == 3 and found[f"{SUCCESS}, {few}"] == pytest.approx(1 / 3)
    assert found[f"{BLIND}, {few}"] == pytest.approx((5 / 8 + 0 + 1) / 3)
    assert found[f"{SUCCESS}, 11 to 30 items still fit"] == 1 and found[f"{BLIND}, 11 to 30 items still fit"] == 0.25
    assert found[f"{BLIND}, 301 to 1000 items still fit"] == 5 / 400
    assert "101 to 300" not in "".join(found) and "1001" not in "".join(found)
    assert turn_measures(np.array([-1]), np.array([[3]]), [False], 5) == []


def test_a_blind_pick_is_what_picking_by_chance_finds():
    rng, n = np.random.default_rng(0), 4000
    left = rng.integers(6, 900, n)
    hits = np.array([rng.permutation(count)[:5].min() == 0 for count in left])  # the wanted one is number 0
    found = by_label(turn_measures(np.where(hits, 1, 0), left[:, None], [False] * n, 5))
    for about in ("31 to 100 items still fit", "301 to 1000 items still fit"):
        assert found[f"{SUCCESS}, {about}"] == pytest.approx(found[f"{BLIND}, {about}"], abs=0.03)


def test_conventions_by_hand_with_and_without_flagged_dialogues():
    turns, flagged = np.array([1, 3, 0, -1]), np.array([True, False, False, True])
    found = by_label(convention_measures(turns, 5, flagged))
    assert [found[f"S@{turn}, dialogues"] for turn in (1, 2, 3, 5)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert found["AT, dialogues, a failure counts all turns"] == 3.0
    assert found["AT, dialogues, a failure counts one turn more"] == pytest.approx(10 / 3)
    assert found["AT, dialogues, successes alone"] == 2.0
    clean = "dialogues without a leak"
    assert found[f"S@1, {clean}"] == 0 and found[f"AT, {clean}, successes alone"] == 3.0
    assert not any("without" in label for label in by_label(convention_measures(turns, 5, np.zeros(4, bool))))
    assert not any("successes" in label for label in by_label(convention_measures(np.array([0, 0]), 5, np.zeros(2))))
