"""The contract: near-misses are refused by name, and words reach only who declares to read them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from recllm_bench import cli
from recllm_bench.api import check, model_named, names
from recllm_bench.errors import BenchError
from tests.conftest import planted_catalogue, planted_histories

HEAD = """
from typing import Any
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recllm_bench.api import Method, Stage
from recllm_bench.models.sequence.sasrec import SASRec
from recllm_bench.models.text_retrieval import TextRetrieval, TextRetrievalMethod
"""
LINE = "class Mine(SASRec):\n    "


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that writes a module and returns the name of the class ``Mine`` in it."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(code: str) -> str:
        name = f"planted_{len(list(tmp_path.glob('planted_*.py')))}_{abs(hash(code)) % 10**9}"
        (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(code))
        return f"{name}:Mine"

    return written


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """A user's own file: planted histories with genres."""
    catalogue, histories = planted_catalogue(60), planted_histories(120, 60, 12)
    rows = [
        f"{user},{item},5,{position}"
        for user in range(1, histories.n_users + 1)
        for position, item in enumerate(histories.of(user).tolist())
    ]
    (tmp_path / "shop.csv").write_text("user_id,item_id,rating,timestamp\n" + "\n".join(rows) + "\n")
    items = [f"{item},{catalogue.titles[item]},{'|'.join(catalogue.categories[item])}" for item in range(1, 61)]
    (tmp_path / "shop.items.csv").write_text("item_id,title,categories\n" + "\n".join(items) + "\n")
    return tmp_path / "shop.csv"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (LINE + "def sequence_state(self, a, b): ...", "'sequence_state' is not part of the contract; did you mean"),
        (LINE + "training_default = {}", "did you mean 'training_defaults'?"),
        (LINE + "default_protocols = 'unified.full'", "did you mean 'default_protocol'?"),
        (LINE + "read_words = True", "did you mean 'reads_words'?"),
        (LINE + "items_vectors = None", "did you mean 'item_vectors'?"),
        (LINE + "trainig_loss = None", "did you mean 'training_loss'?"),
        (LINE + "needs = frozenset({'text'})", "write reads_words = True"),
        (LINE + "@classmethod\n    def stages(cls, job): ...", "write a Method class with this model"),
        (LINE + "@classmethod\n    def case_columns(cls, job, cases): ...", "write columns(cases, words)"),
        (LINE + "def sequence_states(self, item_seq): ...", "must take (item_seq, lengths)"),
        (LINE + "def training_loss(self, batch): ...", "must take (batch, generator)"),
        (LINE + "def before_epoch(self): ...", "must take (epoch, context)"),
        (LINE + "def respond(self, job, dialogues): ...", "declare it: reads_words = True"),
        (LINE + "reads_words = 'yes'", "reads_words must be True or False"),
        (LINE + "training_defaults = [1]", "training_defaults must be a mapping"),
        (LINE + "display_name = 5", "display_name must be text"),
        (LINE + "Options = dict", "Options must be a dataclass"),
        (
            "class Mine(SequentialRecommender):\n    def sequence_states(self, item_seq, lengths): ...",
            "needs item_vectors() beside it",
        ),
        ("class Mine(Method):\n    pass", "names no model"),
        ("class Mine(Method):\n    model = SASRec", "defines no stages()"),
        (
            "class Mine(Method):\n    model = SASRec\n    def stages(self): ...\n    def load(self): ...",
            "must take (folders)",
        ),
        ("class Mine(TextRetrievalMethod):\n    def column(self): ...", "did you mean 'columns'?"),
        ("class Mine(TextRetrievalMethod):\n    def columns(self, cases): ...", "must take (cases, words)"),
        ("class Mine:\n    pass", "is not a model"),
        ("def Mine(): ...", "is not a model"),
        ("raise RuntimeError('no licence')\nclass Mine: ...", "RuntimeError: no licence"),
        ("class Mine(:", "invalid syntax"),
        ("import no_such_module", "cannot import"),
        ("Mein = 1", "has no 'Mine'"),
    ],
)
def test_a_class_that_breaks_the_contract_is_one_line(plugin, code: str, message: str) -> None:
    with pytest.raises(BenchError) as caught:
        model_named(plugin(code))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_model_of_the_bench_keeps_the_contract() -> None:
    for name in ("sasrec", "iclrec", "latentcrs", "relrec", "llama2-seq", "cesrec", "text-retrieval", "SASRecF", "pop"):
        entry = model_named(name)
        check(entry.model, name)
        assert entry.method.model is entry.model
    assert {"latentcrs", "cesrec"} <= set(names("models"))


def test_own_names_that_are_near_nothing_are_free(plugin) -> None:
    entry = model_named(plugin(LINE + "def word_vectors(self): ...\n    def users_of(self): ...\n    pace = 3"))
    assert not entry.reads_words and entry.display_name == "SASRec (ours)"


CHEATS = {
    "the flag alone": """
        class Quiet(TextRetrieval):
            reads_words = False


        class Mine(TextRetrievalMethod):
            model = Quiet
    """,
    "words asked for when cases are ranked": """
        class Quiet(SASRec):
            display_name = "Quiet"


        class Mine(Method):
            model = Quiet

            def stages(self):
                return []

            def load(self, folders):
                return torch.nn.Identity()

            def columns(self, cases, words):
                assert not cases.targets.any(), "targets are withheld too"
                return {"utterance_vector": words.opening_vectors(cases)}
    """,
    "words asked for in a stage": """
        class Quiet(SASRec):
            display_name = "Quiet"


        class Mine(Method):
            model = Quiet

            def stages(self):
                return [Stage("listen", {}, lambda work, done: self.job.words.openings(self.job.split.test))]

            def load(self, folders):
                return torch.nn.Identity()
    """,
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_model_that_hides_that_it_reads_words_gets_none(plugin, own_data: Path, capsys, cheat: str) -> None:
    """Such a row would stand among those that see past interactions and nothing else."""
    assert cli.main(["run", plugin(CHEATS[cheat]), str(own_data), "--alone"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "reads_words = True" in error


READER = """
class Reader(TextRetrieval):
    display_name = "Reader"


class Mine(TextRetrievalMethod):
    model = Reader
"""


def test_a_plug_in_that_reads_words_meets_its_own_controls(plugin, own_data: Path, tmp_path: Path, capsys) -> None:
    """Not another model's: the rows are the plug-in itself with other words, and nothing else is trained for them."""
    name = plugin(READER)
    recipe = tmp_path / "reader.yaml"
    recipe.write_text(f"model: {name}\ndataset: {own_data}\nprotocol: latentcrs.one_turn\n")
    from recllm_bench.planning import comparison_recipes
    from recllm_bench.recipe import read_recipe_file

    labels = [label for label, _ in comparison_recipes(read_recipe_file(str(recipe)), "reader")]
    assert labels[-3:] == ["Reader, another user's words", "Reader, no words", ""]
    recipe.write_text(
        recipe.read_text()
        + f"""compare:
- {{model: "{name}", label: other, conversation: {{words: another}}}}
- {{model: "{name}", label: none, conversation: {{words: none}}}}
conversation: {{simulator: "rules:2"}}
"""
    )
    assert cli.main(["run", "--recipe", str(recipe)]) == 0
    import json

    found = {}
    for path in (tmp_path / "results" / "runs").glob("*/run.json"):
        record = json.loads(path.read_text())
        found[record["name"]] = record
    assert set(found) == {"Reader", "other", "none"}
    assert len({json.dumps(record["stages"], sort_keys=True) for record in found.values()}) == 1, "one training"
    ndcg = {name: record["metrics"]["NDCG@20"]["mean"] for name, record in found.items()}
    assert ndcg["Reader"] > 2 * max(ndcg["other"], ndcg["none"])
