"""Names to classes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recllm_bench.api import registry
from recllm_bench.errors import BenchError


def test_listing_names_imports_nothing_heavy() -> None:
    code = (
        "import sys; from recllm_bench.api import registry; registry.names('models');"
        "registry.canonical_name('latentcrs');"
        "assert not {'torch', 'recbole', 'numpy', 'pandas', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_built_in_name_resolves() -> None:
    for kind in ("models", "simulators"):
        for name, target in registry._built_in(kind).items():
            found = registry.resolve(kind, name.upper())
            assert f"{found.__module__}:{found.__qualname__}" == target


def test_ours_come_before_recboles_and_a_prefix_asks_for_recboles() -> None:
    assert registry.resolve("models", "SASRec").__module__ == "recllm_bench.models.sequence.sasrec"
    assert registry.resolve("models", "recbole:sasrec").__module__ == "recbole.model.sequential_recommender.sasrec"
    assert registry.resolve("models", "gru4rec").__name__ == "GRU4Rec"
    assert not registry.model_named("SASREC").is_zoo
    assert registry.model_named("lightgcn").is_zoo and registry.model_named("RecBole:SASRec").is_zoo
    assert {"sasrec", "recbole:SASRec", "GRU4Rec"} <= set(registry.names("models"))
    assert "SASRec" not in registry.names("models")


def test_display_names() -> None:
    assert registry.model_named("gru4rec").display_name == "GRU4Rec (RecBole)"
    assert registry.model_named("recbole:SASRec").display_name == "SASRec (RecBole)"
    assert registry.model_named("sasrec").display_name == registry.resolve("models", "sasrec").display_name


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("models", "latentcr", "unknown model 'latentcr'. Did you mean 'latentcrs'"),
        ("models", "GRU4Recc", "Did you mean 'GRU4Rec'"),
        ("models", "recbole:SASRek", "Did you mean 'SASRec'"),
        ("models", "no_such_package.models:Mine", "cannot import no_such_package.models"),
        ("models", "recllm_bench.models.sequence.sasrec:SASRek", "has no 'SASRek'. Did you mean 'SASRec'"),
        ("models", "collections:OrderedDict", "not a model: a model subclasses a RecBole recommender"),
        ("models", "two words:Class", "not of the form package.module:Class"),
        ("models", "", "unknown model ''"),
        ("simulators", "rulez", "Did you mean 'rules'"),
        ("datasets", "nothing", "unknown dataset 'nothing'"),
    ],
)
def test_a_wrong_name_is_one_clear_line(kind: str, name: str, message: str) -> None:
    with pytest.raises(BenchError) as caught:
        registry.resolve(kind, name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entry_points_and_explicit_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "planted_plugin"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from recbole.model.abstract_recommender import GeneralRecommender\n\n"
        "class Mine(GeneralRecommender):\n    def calculate_loss(self, rows): ...\n    def predict(self, rows): ...\n\n"
        "class Talker:\n    pass\n"
    )
    facts = tmp_path / "planted_plugin-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: planted-plugin\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[recllm_bench.models]\nplanted-model = planted_plugin:Mine\nSASRec = planted_plugin:Mine\n"
        "[recllm_bench.simulators]\nplanted-talker = planted_plugin:Talker\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = registry.resolve("models", "Planted-Model")
    assert mine is registry.resolve("models", "planted_plugin:Mine")
    assert mine.__name__ == registry.model_named("planted-model").display_name == "Mine"
    assert not registry.model_named("planted-model").is_zoo
    assert registry.resolve("models", "sasrec") is not mine  # a plug-in does not replace a built-in model
    assert registry.resolve("simulators", "planted-talker").__name__ == "Talker"
    assert "planted-model" in registry.names("models")
    assert {"planted-talker", "rules"} <= set(registry.names("simulators"))
    with pytest.raises(BenchError, match="Did you mean 'planted-model'"):
        registry.resolve("models", "planted-modle")


def test_a_model_has_one_spelling():
    names = ("gru4rec", "GRU4REC", "recbole:gru4rec", "SASRec", "recbole:sasrec", "LatentCRS", "a.b:C")
    found = [registry.canonical_name(name) for name in names]
    assert found == ["GRU4Rec", "GRU4Rec", "GRU4Rec", "sasrec", "recbole:SASRec", "latentcrs", "a.b:C"]
