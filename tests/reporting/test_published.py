"""The papers' numbers: found, doubted, audited, and held against ours."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from recllm_bench.data.cards import all_cards
from recllm_bench.errors import BenchError
from recllm_bench.evaluation.statistics import Interval
from recllm_bench.reporting import published_numbers as module
from recllm_bench.reporting.published_numbers import (
    flags_of,
    load_flags,
    load_published,
    published,
    published_for,
    published_interval,
    published_users,
    verdict,
)
from tests.reporting.published_audit import audit


def test_lookup():
    cell = published("latentcrs", "ml1m", "latentcrs", "Recall", 5, table="T2", variant="B")
    assert (cell.value, cell.name, cell.place) == (0.1437, "Recall@5", "latentcrs T2")
    assert published("latentcrs", "MovieLens-1M", "UNICORN", "Recall", 20).value == 0.3086
    assert published("relrec", "Yelp", "GRU4Rec", "NDCG", 20).value == 0.0331
    assert published("cesrec", "ml-1m", "SASRec", "HR", 10, variant="base").value == 0.866
    assert published("latentcrs", "ml-100k", "LatentCRS", "Recall", 5) is None
    # Three variants are printed and none was named.
    assert published("cesrec", "ml-1m", "SASRec", "HR", 10, table="T2") is None
    with pytest.raises(BenchError, match="known: cesrec"):
        published("other", "ml1m", "x", "HR", 5)


def test_audit_reproduces_the_flags_that_arithmetic_can_find():
    found, known = audit(load_published()), set(load_flags())
    assert set(found) <= known  # nothing else in any table is impossible
    words = ("NDCG gain", "impossible for one", "multiple of 1/500", "AT=", "for the same run description")
    expected = {
        flag for flag in known if any(word in flag.issue for word in words) and not flag.issue.startswith("S@5=")
    }
    assert set(found) == expected
    assert len(found) == 22


def test_audit_finds_planted_errors():
    row = [cell for cell in load_published() if cell.place == "relrec T2" and cell.model == "GRU4Rec"]
    assert audit(row) == []
    from dataclasses import replace

    broken = [replace(cell, value=0.09) if (cell.metric, cell.k) == ("NDCG", 20) else cell for cell in row]
    assert {flag.dataset for flag in audit(broken)} == {"Yelp", "AmazonBook", "Steam"} & {cell.dataset for cell in row}


def test_flags_touch_their_own_cells_only():
    at = published("latentcrs", "ml1m", "GPT-4", "AT", None, table="T4")
    success = published("latentcrs", "ml1m", "GPT-4", "S", 5, table="T4")
    assert len(flags_of(at)) == 1
    assert flags_of(success) == []
    assert flags_of(published("latentcrs", "ml1m", "CRM", "S", 3, table="T4"))
    assert flags_of(published("latentcrs", "VideoGames", "LatentCRS", "Recall", 5, table="T2", variant="B")) == []
    assert flags_of(published("latentcrs", "ml1m", "LatentCRS", "Recall", 5, table="T2", variant="B"))


def test_users_and_intervals():
    cell = published("latentcrs", "ml1m", "GPT-4", "S", 5, table="T4")
    assert published_users(cell) == 500
    assert published_interval(cell) == pytest.approx((0.5584, 0.6440), abs=1e-3)
    assert published_users(published("latentcrs", "ml1m", "CRM", "Recall", 5, table="T2")) == 6034
    assert published_users(published("cesrec", "ml1m", "SASRec", "HR", 5, variant="base")) == 1000
    assert published_users(published("relrec", "Yelp", "NARM", "Recall", 5)) == 11091
    assert published_interval(published("latentcrs", "ml1m", "GPT-4", "AT", None)) is None


@pytest.mark.parametrize(
    ("mean", "low", "high", "word"),
    [(0.0260, 0.0240, 0.0280, "inside"), (0.0250, 0.0245, 0.0255, "close"), (0.0100, 0.0090, 0.0110, "off")],
)
def test_verdicts(mean: float, low: float, high: float, word: str):
    cell = published("relrec", "Yelp", "GRU4Rec", "Recall", 5)  # 0.0269
    found = verdict(cell, Interval(mean, low, high, 100))
    assert found.word == word
    assert found.gap == pytest.approx(mean / 0.0269 - 1)
    assert verdict(cell, {"mean": mean, "low": low, "high": high}) == found


def test_not_comparable():
    ours = Interval(0.1437, 0.13, 0.15, 100)
    clean = published("latentcrs", "VideoGames", "LatentCRS", "Recall", 5, table="T2", variant="B")
    assert verdict(clean, ours).word == "inside"
    found = verdict(clean, ours, {"simulator": "rules"})
    assert str(found) == "not comparable (substitutes: simulator rules)"
    doubtful = published("latentcrs", "ml1m", "LatentCRS", "Recall", 5, table="T2", variant="B")
    assert verdict(doubtful, ours).word == "not comparable"
    assert verdict(published("cesrec", "ml1m", "SASRec", "HR", 5, variant="base"), ours).word == "not comparable"


def record(model: str, protocol: str, dataset: str = "ml1m", metrics=("Recall@5",), dialogue=(), **recipe):
    return SimpleNamespace(
        recipe={"model": model, **recipe},
        protocol={"name": protocol},
        dataset={"name": dataset},
        metrics=dict.fromkeys(metrics),
        dialogue=dict.fromkeys(dialogue),
    )


def test_a_record_finds_its_row():
    found = published_for(record("latentcrs", "latentcrs.one_turn"))
    assert found["Recall@5"].value == 0.1437
    found = published_for(record("latentcrs", "latentcrs.one_turn", options={"ablation": "direct_kl"}))
    assert found["Recall@5"].value == 0.0847
    assert published_for(record("latentcrs", "latentcrs.one_turn", options={"ablation": "new"})) == {}
    found = published_for(record("latentcrs", "latentcrs.multi_turn", dialogue=("S@3", "AT", "n")))
    assert {name: cell.table for name, cell in found.items()} == {"S@3": "T4", "AT": "T4", "Recall@5": "T3"}
    assert published_for(record("recbole:GRU4Rec", "relrec.full", "yelp"))["Recall@5"].value == 0.0269
    assert published_for(record("latentcrs", "unified.full")) == {}
    assert published_for(record("latentcrs", "latentcrs.one_turn", "ml-100k")) == {}
    for talk in ({"words": "another"}, {"words": "none"}, {"shuffle_utterances": True}):  # the last in older records
        assert published_for(record("latentcrs", "latentcrs.one_turn", conversation=talk)) == {}


@pytest.mark.parametrize(
    ("paper", "ours", "theirs"),
    [
        ("latentcrs", "ml1m", "MovieLens-1M"),
        ("latentcrs", "amazon-2023-video-games", "VideoGames"),
        ("latentcrs", "amazon-2023-cds-and-vinyl", "CDs"),
        ("latentcrs", "amazon-2018-video-games", None),
        ("cesrec", "amazon-2018-video-games", "VideoGames"),
        ("cesrec", "amazon-2018-toys-and-games", "Toys"),
        ("cesrec", "amazon-2023-video-games", None),
        ("relrec", "yelp", "Yelp"),
        ("relrec", "steam", "Steam"),
        ("relrec", "amazon-2014-books", "AmazonBook"),
        ("relrec", "amazon-2018-books", None),
        ("latentcrs", "amazon-cds", "CDs"),
        ("cesrec", "Amazon-Toys", "Toys"),
        ("cesrec", "amazon-2014-video-games", None),
        ("relrec", "steam-au", None),
        ("relrec", "xrec-yelp", None),
        ("relrec", "ml1m", None),
    ],
)
def test_a_data_set_is_the_papers_or_none_of_it(paper: str, ours: str, theirs: str | None):
    """The same shop in another year is another data set."""
    printed = {module._folded(cell.dataset) for cell in load_published() if cell.paper == paper}
    assert (module._name_in(paper, ours) in printed) == (theirs is not None)
    if theirs is not None:
        assert module._name_in(paper, ours) == module._folded(theirs)


def test_somebodys_own_file_is_not_the_papers_data_by_its_name():
    found = record("relrec", "relrec.full", "steam", metrics=("Recall@10",))
    assert published_for(found)
    found.recipe["dataset"] = "/home/me/steam.csv"
    assert published_for(found) == {}


def test_every_printed_data_set_is_on_exactly_one_card():
    claims = [(paper, theirs) for card in all_cards().values() for paper, theirs in card.get("papers", {}).items()]
    assert len(claims) == len(set(claims))
    assert set(claims) == {(cell.paper, cell.dataset) for cell in load_published() if cell.dataset}


def test_dialogues_stand_beside_the_table_of_dialogues_under_every_protocol_of_the_paper():
    for protocol in ("latentcrs.one_turn", "latentcrs.one_turn.sample500", "latentcrs.multi_turn"):
        talked = record("latentcrs", protocol, "amazon-2023-video-games", dialogue=("S@3", "S@5", "AT", "n", "leaks"))
        found = published_for(talked)
        assert {cell.table for name, cell in found.items() if name in ("S@3", "S@5", "AT")} == {"T4"}
        assert set(found) == {"Recall@5", "S@3", "S@5", "AT"}
    assert set(published_for(record("latentcrs", "latentcrs.one_turn"))) == {"Recall@5"}


@pytest.mark.parametrize(
    ("model", "protocol", "dataset", "metric", "value"),
    [
        ("latentcrs", "latentcrs.one_turn", "amazon-2023-video-games", "Recall@5", 0.1378),
        ("sasrec", "cesrec.sampled100", "amazon-2018-toys-and-games", "HR@10", 0.537),
        ("recbole:SASRec", "cesrec.sampled100.n1000", "amazon-2018-video-games", "HR@10", None),
        ("relrec", "relrec.full", "amazon-2014-books", "Recall@20", None),
        ("relrec", "relrec.full", "amazon-2018-books", "Recall@20", "nothing"),
    ],
)
def test_runs_on_the_papers_shops_find_their_rows(model, protocol, dataset, metric, value):
    found = published_for(record(model, protocol, dataset, metrics=(metric,)))
    assert (metric in found) == (value != "nothing")
    assert value in (None, "nothing") or found[metric].value == value


def test_a_further_papers_table_is_one_file_outside_the_package(tmp_path, monkeypatch: pytest.MonkeyPatch):
    head = "paper,table,dataset,protocol,model,variant,metric,k,value\n"
    (tmp_path / "my.csv").write_text(head + "mypaper,T1,ml-100k,full_rank,SASRec,,NDCG,10,0.1200\n")
    (tmp_path / "my_paper.py").write_text(
        "from pathlib import Path\nfrom recllm_bench.api.published import PublishedTables\n"
        "TABLES = PublishedTables('mypaper', {'unified.full': ('T1',)}, lambda recipe: (recipe['model'], ''),\n"
        "    file=str(Path(__file__).with_name('my.csv')))\n"
    )
    facts = tmp_path / "my_paper-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-paper\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[recllm_bench.published]\nmypaper = my_paper:TABLES\n")
    monkeypatch.syspath_prepend(tmp_path)
    module.papers.cache_clear()
    load_published.cache_clear()
    try:
        found = published_for(record("sasrec", "unified.full", "ml-100k", metrics=("NDCG@10",)))
        assert found["NDCG@10"].value == 0.12 and found["NDCG@10"].place == "mypaper T1"
    finally:
        module.papers.cache_clear()
        load_published.cache_clear()


def test_a_malformed_file_names_its_line(tmp_path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "published"
    folder.mkdir()
    head = "paper,table,dataset,protocol,model,variant,metric,k,value\n"
    for paper in module.papers():
        (folder / f"{paper}.csv").write_text(head)
    (folder / "relrec.csv").write_text(head + "relrec,T2,Yelp,full_rank,STAMP,,Recall,5,many\n")
    monkeypatch.setattr(module, "resource", lambda *parts: tmp_path.joinpath(*parts[1:]))
    with pytest.raises(BenchError, match=r"relrec\.csv:2"):
        load_published.__wrapped__()
