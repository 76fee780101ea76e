"""A protocol and a metric from one file each outside the package: trained by, ranked by, printed, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recllm_bench import cli
from recllm_bench.api import modules
from tests.test_cli import QUICK, error_of, records, run

MEASURES = '''
import numpy as np

def rarity(targets, k):
    """Hits among the first k, each worth the target's rarity."""
    worth = 1 / (1 + targets.facts["popularity"][targets.facts["items"]])
    return np.bincount(targets.owner, (targets.higher < k) * worth, targets.n_rankings)
rarity.needs = ("popularity", "items")
'''


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a protocol and a file of metrics, which is the current one."""
    monkeypatch.setattr(modules, "_targets", {kind: {} for kind in modules.KINDS})
    monkeypatch.setattr(modules, "_owners", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "measures.py").write_text(MEASURES + 'METRICS = {"Rarity": rarity}\n')
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols" / "lab.yaml").write_text(
        "lab.strict:\n  base: unified.full\n  about: ties count against the model\n  ties: pessimistic\n"
        "  metrics: [NDCG, Recall]\n  cutoffs: [5]\n"
    )
    return tmp_path


def test_a_protocol_and_a_metric_from_outside_are_benched(lab, own_data, capsys):
    (lab / "bench.yaml").write_text(
        f"model: sasrec\ndataset: {own_data}\nprotocol: lab.strict\nmodules: [measures.py]\ncompare: [pop]\n"
        "training: {validate_metric: Rarity@5}\n"
    )
    assert run("run", "--recipe", "bench.yaml", *QUICK, "--metrics", "NDCG@5,Rarity,MRR") == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ("Rarity@5", "MRR", "lab.strict", "ties count against the model"))
    assert "Recall" not in table
    found = {record["name"]: record for record in records(lab)}
    own = found["SASRec (ours)"]
    assert list(own["metrics"]) == ["NDCG@5", "Recall@5"], "what is printed changes no record"
    assert own["protocol"]["ties"] == "pessimistic"
    best = max(value for _, value in next(iter(own["curves"].values())))
    assert 0 < best < own["metrics"]["Recall@5"]["mean"], "validation was by rarity, which is a fraction of a hit"

    assert run("compare", "--metrics", "measures.py:rarity") == 0
    assert "rarity@5" in capsys.readouterr().out

    (lab / "protocols" / "lab.yaml").write_text("lab.strict:\n  base: unified.full\n  cutoffs: [5]\n")
    assert run("run", "--recipe", "bench.yaml", "--alone", *QUICK) == 0
    prints = {record["fingerprint"] for record in records(lab)}
    assert len(prints) == 2, "a changed file under the same name does not pair with what was run before"


def test_a_metric_of_the_protocol_is_recorded_with_its_code(lab, own_data, capsys):
    (lab / "mine.yaml").write_text("base: unified.full\nmetrics: [Rarity, NDCG]\ncutoffs: [5]\n")
    (lab / "bench.yaml").write_text(
        f"model: pop\ndataset: {own_data}\nprotocol: mine.yaml\nmodules: [measures.py]\ncompare: []\n"
    )
    assert run("run", "--recipe", "bench.yaml", *QUICK) == 0
    assert "Rarity@5" in capsys.readouterr().out
    (record,) = records(lab)
    assert len(record["metrics"]["Rarity@5"]["code"]) == 16
    assert "code" not in record["metrics"]["NDCG@5"]
    assert run("compare") == 0
    path = next((lab / "results" / "runs").glob("*/run.json"))
    assert json.loads(path.read_text())["protocol"]["name"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics", "NDGC"], "--metrics: unknown metric 'NDGC'. Did you mean 'NDCG'"),
        (["--metrics", ""], "--metrics is empty"),
        (["--metrics", ", ,"], "--metrics is empty"),
        (["--metrics", "NDCG@0"], "--metrics: metric 'NDCG@0': the cut-off must be"),
        (["--metrics", "none.py:f"], "--metrics: there is no file none.py"),
        (["--metrics", "measures.py:rarit"], "--metrics: measures.py has no 'rarit'. Did you mean 'rarity'"),
        (["--metrics", "no.such:f"], "cannot import no.such"),
        (["--set", "training.validate_metric=NDGC@10"], "validate_metric: unknown metric 'NDGC'"),
        (["--set", "training.validate_metric=NDCG"], "write it as metric@K"),
        (["--protocol", "lab.stric"], "Did you mean 'lab.strict'"),
        (["--protocol", "none.yaml"], "there is no file none.yaml"),
    ],
)
def test_a_mistake_is_named_before_anything_trains(arguments, said, lab, own_data, capsys):
    assert said in error_of(capsys, "run", "sasrec", own_data, *arguments)
    assert not (lab / "results" / "runs").exists()


def test_protocols_and_metrics_are_listed_with_a_line_each(lab, capsys):
    modules.load_modules(["measures.py"])
    assert cli.main(["list", "metrics"]) == 0
    text = capsys.readouterr().out
    assert "Rarity     Hits among the first k, each worth the target's rarity." in text
    assert "NDCG       Gain 1 / log2(rank + 1)" in text
    assert cli.main(["list", "protocols"]) == 0
    text = capsys.readouterr().out
    assert "unified.full " in text
    assert "ties count against the model" in text


def test_a_changed_validation_metric_trains_again(lab, own_data, capsys):
    (lab / "bench.yaml").write_text(
        f"model: sasrec\ndataset: {own_data}\nmodules: [measures.py]\ncompare: []\n"
        "training: {validate_metric: Rarity@5}\n"
    )
    for text in (None, None, MEASURES.replace("1 / (1 +", "2 / (1 +") + 'METRICS = {"Rarity": rarity}\n'):
        if text:
            (lab / "measures.py").write_text(text)
        assert run("run", "--recipe", "bench.yaml", *QUICK) == 0
    found = records(lab)
    assert len(found) == 2, "the second run found everything; the third has other code"
    best = sorted(max(value for _, value in next(iter(record["curves"].values()))) for record in found)
    assert best[1] == pytest.approx(2 * best[0])
