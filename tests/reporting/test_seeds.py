"""Records of several seeds become one row, with an interval over seeds and users."""

from __future__ import annotations

import numpy as np
import pytest

from recllm_bench.errors import BenchError
from recllm_bench.evaluation.families import Rows
from recllm_bench.evaluation.intervals import mean_interval
from recllm_bench.reporting.comparison import compare
from recllm_bench.reporting.html import write_report
from recllm_bench.reporting.records import read_record
from recllm_bench.reporting.seeds import over_seeds
from recllm_bench.reporting.table import comparison_table
from recllm_bench.reporting.users_file import user_values


@pytest.fixture
def trained(make):
    """``trained(name, qualities, **changes)``: a record for each quality, each under a seed of its own."""

    def build(name: str, qualities: list[float], **changes):
        return [
            make(name, quality, seed=10 + number, training_seed=number, **changes)
            for number, quality in enumerate(qualities)
        ]

    return build


def matrix(records, metric: str) -> np.ndarray:
    return np.stack([user_values(record)[1][metric] for record in records])


def test_seeds_are_one_row_and_the_subject_stays_last(trained, make):
    sasrec, pop = trained("SASRec", [2.0, 2.2, 1.8]), make("Popularity", 0.5, model="pop", training_seed=1)
    rows = over_seeds([sasrec[0], pop, *sasrec[1:]])
    assert [row.name for row in rows] == ["Popularity", "SASRec"]
    assert rows[0] is pop
    row = rows[1]
    assert row.members == sasrec and row.recipe["seed"] == [0, 1, 2]
    expected = mean_interval(matrix(sasrec, "NDCG@20"))
    shown = next(record for record in compare([sasrec[2], pop, *sasrec[:2]]).records if record.name == "SASRec")
    assert shown.metrics["NDCG@20"] == pytest.approx(expected.as_dict())
    assert row.metrics["NDCG@20"]["mean"] == pytest.approx(np.mean([r.metrics["NDCG@20"]["mean"] for r in sasrec]))
    assert row.stages == {"train": 12.5, "embed": 2.5}
    assert any("mean of seeds 0, 1, 2" in note for note in row.notes)
    assert "members" not in row.as_dict() and "folder" not in row.as_dict()


def test_what_differs_in_more_than_the_seed_stays_apart(trained, make):
    one, two = trained("SASRec", [2.0, 2.1])
    others = [
        make("SASRec", 2.0, seed=20, training_seed=1, options={"hidden_size": 8}),
        make("SASRec, other name", 2.0, seed=21, training_seed=1),
        make("SASRec", 2.0, seed=22, training_seed=1, protocol="unified.full"),
        make("SASRec", 2.0, seed=23, training_seed=0),  # the same seed again
    ]
    for other in others[:3]:
        assert over_seeds([one, other]) == [one, other]
    assert over_seeds([one, two, others[3]]) == [one, two, others[3]]


def test_differences_are_over_seeds_and_users(trained, make, monkeypatch: pytest.MonkeyPatch):
    gru, sasrec = trained("GRU4Rec", [2.0, 2.6], model="GRU4Rec"), trained("SASRec", [2.1, 2.3, 2.9])
    pop = make("Popularity", 0.5, model="pop")
    found = compare([pop, *gru, *sasrec], metrics=["NDCG@20"], subject="SASRec")
    assert [found.records[each.row].name for each in found.planned] == ["GRU4Rec", "Popularity"]
    rows = Rows([matrix(sasrec, "NDCG@20"), matrix(gru, "NDCG@20"), matrix([pop], "NDCG@20")])
    for each, expected in zip(found.planned, rows.contrasts([(0, 1), (0, 2)]), strict=True):
        assert (each.pair.mean, each.pair.p) == pytest.approx((expected.estimate, expected.p))
        assert each.pair.low < each.pair.mean < each.pair.high
    assert found.deviations == pytest.approx(
        {row: matrix(found.records[row].members, "NDCG@20").mean(1).std(ddof=1) for row in (0, 2)}
    )
    text = comparison_table([pop, *gru, *sasrec], metrics=["NDCG@20"])
    assert text.count("GRU4Rec [") == 1
    flat = " ".join(text.split())
    assert "mean of seeds 0, 1: the interval is over seeds and users" in flat
    assert "one seed: differences between seeds are not in these intervals of Popularity" in flat
    assert "Standard deviation between seeds, NDCG@20: GRU4Rec 0.0" in flat
    assert comparison_table([*sasrec[::-1], pop, *gru[::-1]], metrics=["NDCG@20"]) == text
    with pytest.raises(BenchError, match="several seeds; use --test max-t or t"):
        compare([*gru, *sasrec], test="sign-flip")

    def refuse(*_):
        raise AssertionError("per-user values were read again")

    monkeypatch.setattr("recllm_bench.reporting.seeds.user_values", refuse)  # all is remembered
    again = [read_record(record.folder) for record in (pop, *gru, *sasrec)]
    assert comparison_table(again, metrics=["NDCG@20"]) == text


def test_dialogues_of_seeds_and_the_report(trained, make, tmp_path):
    turns = [np.random.default_rng(seed).integers(0, 5, 200) for seed in range(2)]
    turns[1][0] = -1  # could not be held
    records = [
        make("LatentCRS", 3.0, model="latentcrs", block="text", seed=n, training_seed=n, turns=turns[n])
        for n in range(2)
    ]
    row = over_seeds(records)[0]
    assert row.dialogue["n"] == sum(record.dialogue["n"] for record in records)
    held = turns[1] != -1
    successes = np.stack([(each[held] > 0) & (each[held] <= 3) for each in turns]).astype(float)
    assert compare(records).records[0].dialogue["S@3"]["mean"] == pytest.approx(successes.mean())
    other = make("Text retrieval", 1.0, model="text-retrieval", block="text", seed=5, turns=turns[0])
    page = write_report([other, *records], tmp_path / "report.html").read_text()
    assert page.count("<h2><bdi>LatentCRS</bdi></h2>") == 1
    assert "mean of seeds 0, 1" in page
