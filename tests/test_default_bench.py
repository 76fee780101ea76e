"""The default bench as a user runs it, in full (slow), and the same code on a CUDA device (gpu)."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from recllm_bench import cli


def records(folder: Path) -> dict[str, dict]:
    found = [json.loads(path.read_text()) for path in (folder / "results" / "runs").glob("*/run.json")]
    return {record["name"]: record for record in found}


@pytest.mark.slow
def test_the_default_bench_keeps_its_promises(capsys, tmp_path):
    start = time.perf_counter()
    assert cli.main(["run", "latentcrs", "ml-100k"]) == 0
    assert time.perf_counter() - start < 480, "eight minutes on two quiet cores"
    table = capsys.readouterr().out
    start = time.perf_counter()
    assert cli.main(["run", "latentcrs", "ml-100k"]) == 0
    assert time.perf_counter() - start < 20, "everything is cached"
    assert capsys.readouterr().out == table
    found = records(tmp_path)
    rows = {
        "Pop (RecBole)",
        "SASRec (RecBole)",
        "GRU4Rec (RecBole)",
        "SASRec (ours)",
        "ICLRec",
        "ItemKNN (recent items)",
    }
    orders = ("Popularity", "ItemKNN", "Best history row")
    words = {f"{who} among items that fit{what}" for who in orders for what in (" the words", ", told the facts")}
    words |= {"Text retrieval only", "Text retrieval with the best history row", "LatentCRS"}
    assert set(found) == rows | words | {"LatentCRS, another user's words", "LatentCRS, no words"}
    score = {name: record["metrics"]["NDCG@20"] for name, record in found.items()}
    assert score["LatentCRS"]["low"] > score["LatentCRS, another user's words"]["high"]
    assert all(score[name]["low"] > score["Pop (RecBole)"]["high"] for name in rows - {"Pop (RecBole)"})
    assert max(record["hardware"]["peak_memory_gib"] for record in found.values()) < 4


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["sasrec", "iclrec", "recbole:SASRec", "GRU4Rec", "BPR", "latentcrs"])
def test_every_kind_of_model_runs_on_cuda(model, tmp_path):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    settings = ["training.epochs=2"] + (["warmup_epochs=2", "conversation.users=50"] if model == "latentcrs" else [])
    arguments = ["run", model, "ml-100k", "--alone", "--protocol", "latentcrs.one_turn"]
    assert cli.main([*arguments, "--device", "cuda", "--set", *settings]) == 0
    (record,) = records(tmp_path).values()
    assert record["hardware"]["device"].startswith("cuda")
    assert 0 < record["metrics"]["Recall@20"]["mean"] < 1
