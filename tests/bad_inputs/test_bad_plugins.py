"""Models from outside that cannot be imported, made, trained or scored."""

from __future__ import annotations

import textwrap

import pytest

HEAD = """
from dataclasses import dataclass
import torch
from recbole.model.abstract_recommender import GeneralRecommender, SequentialRecommender
from recllm_bench.api import Method, Stage
from recllm_bench.models.sequence.sasrec import SASRec
from recllm_bench.options import option
"""
OWN = """
class Mine(SASRec):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        {}
"""
MODULES: dict[str, tuple[str, str]] = {
    "a syntax error": ("class Mine(:\n", "invalid syntax"),
    "an error when imported": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "an error of several lines": ("raise ValueError('first\\nsecond')", "ValueError: first second"),
    "exit when imported": ("raise SystemExit(7)", "SystemExit"),
    "a package that is not there": ("import no_such_package", "no_such_package"),
    "another name": ("Other = 1", "has no 'Mine'"),
    "a number": ("Mine = 5", "is not a model"),
    "a function": ("def Mine(): ...", "is not a model"),
    "no recommender": ("class Mine: ...", "is not a model"),
    "a plain module": ("class Mine(torch.nn.Module): ...", "is not a model"),
    "Options as a dict": ("class Mine(SASRec):\n    Options = {'a': 1}", "Options must be a dataclass"),
    "Options as a class": ("class Mine(SASRec):\n    class Options:\n        a = 1", "Options must be a dataclass"),
    "Options with an unknown name": (
        "@dataclass\nclass O:\n    a: 'NoSuch' = option(1, 'x')\nclass Mine(SASRec):\n    Options = O", "NoSuch"
    ),
    "Options without a default": (
        "@dataclass\nclass O:\n    a: int\nclass Mine(SASRec):\n    Options = O", "'a'"
    ),
    "a name one letter off": ("class Mine(SASRec):\n    reads_word = True", "did you mean 'reads_words'?"),
    "training defaults of another bench": ("class Mine(SASRec):\n    training_defaults = {'epoch': 3}", "'epoch'"),
    "training defaults as text": ("class Mine(SASRec):\n    training_defaults = {'max_length': 'x'}", "max_length"),
    "training defaults by number": ("class Mine(SASRec):\n    training_defaults = {5: 3}", "5"),
    "an unknown protocol": ("class Mine(SASRec):\n    default_protocol = 'unified.ful'", "Did you mean 'unified.full'"),
    "a KeyError when made": (OWN.format("{}['my bug']"), "KeyError: 'my bug'"),
    "a ValueError when made": (OWN.format("int('my bug')"), "my bug"),
    "a TypeError when made": (OWN.format("5()"), "TypeError"),
    "a StopIteration when made": (OWN.format("next(iter([]))"), "StopIteration"),
    "no forward": ("class Mine(SequentialRecommender): ...", "Mine"),
    "no loss": (
        "class Mine(GeneralRecommender):\n"
        "    def __init__(self, c, d):\n        super().__init__(c, d)\n        self.w = torch.nn.Linear(2, 2)",
        "calculate_loss",
    ),
    "a loss that fails": (
        "class Mine(SASRec):\n    def training_loss(self, batch, generator):\n        raise KeyError('late bug')",
        "late bug",
    ),
    "a loss that is no number": (
        "class Mine(SASRec):\n    def training_loss(self, batch, generator):\n        return 'high'", "backward"
    ),
    "states that fail": (
        "class Mine(SASRec):\n    def sequence_states(self, item_seq, lengths):\n        return {}['late bug']",
        "late bug",
    ),
    "a method without a model": ("class Mine(Method): ...", "names no model"),
    "stages that fail": (
        "class Mine(Method):\n    model = SASRec\n    def stages(self):\n        return {}['my bug']\n"
        "    def load(self, folders): ...", "my bug"
    ),
    "stages of nothing": (
        "class Mine(Method):\n    model = SASRec\n    def stages(self):\n        return None\n"
        "    def load(self, folders): ...", "stages"
    ),
    "a stage that fails": (
        "class Mine(Method):\n    model = SASRec\n    def stages(self):\n"
        "        return [Stage('a', {}, lambda work, done: 1 / 0)]\n    def load(self, folders): ...",
        "ZeroDivisionError",
    ),
    "a load that fails": (
        "class Mine(Method):\n    model = SASRec\n    def stages(self):\n        return []\n"
        "    def load(self, folders):\n        return folders['none']", "KeyError"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODULES)
def test_a_model_that_does_not_work(refused, shop, tmp_path, monkeypatch, kind: str) -> None:
    code, said = MODULES[kind]
    name = f"broken_{abs(hash(kind)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    line = refused(["run", f"{name}:Mine", shop, "--alone", "--set", "training.epochs=1"], said)
    assert "Mine" in line or name in line


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no.such.module:Mine", "cannot import"),
        ("no.such.module:", "is not of the form"),
        (":Mine", "is not of the form"),
        ("a b:Mine", "is not of the form"),
        ("os:path:x", "is not of the form"),
        ("../mine.py:Mine", "is not of the form"),
        ("os:no_such_name", "has no 'no_such_name'"),
        ("os:path", "is not a model"),
        ("builtins:dict", "is not a model"),
        ("recbole:", "RecBole has no"),
        ("recbole:SASReck", "Did you mean 'SASRec'?"),
        ("", "model"),
        (" ", "model"),
        ("sas rec", "sasrec"),
        ("-", "model"),
        ("\u202ecersas", "model"),
        ("x" * 3000, "model"),
        ("KSR", "knowledge graph"),
        ("LDiffRec", "pre-trained"),
        ("S3Rec", "pre-training"),
    ],
)
def test_a_name_that_is_no_model(refused, shop, target: str, said: str) -> None:
    refused(["run", target, shop, "--alone"], said)
