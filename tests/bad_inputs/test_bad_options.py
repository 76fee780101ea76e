"""Bad values of every option of every model, of training and of the user side; bad ``--set`` texts."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

import pytest

from recllm_bench.api.registry import model_named
from recllm_bench.recipe import ConversationOptions
from recllm_bench.training.training_options import TrainingOptions

MODELS = ("sasrec", "iclrec", "latentcrs", "relrec", "llama2-seq", "cesrec", "text-retrieval")
"""Every model of the bench; RecBole's follow below."""
_TYPES: dict[Any, tuple[str, ...]] = {
    int: ("many", "2.5", "true", "[1]", "{a: b}", "1" + "0" * 400),
    float: ("fast", ".nan", ".inf", "true", "[1]", "{a: b}", "2020-01-01"),
    bool: ("perhaps", "2", "[true]", "{a: b}"),
    str: ("[a]", "{a: b}", "true", "2020-01-01"),
    dict: ("5", "text", "[1]", "true"),
    tuple: ("{a: b}", "[[a]]", "true"),
}
"""For each type of option what it is not, as YAML."""


def bad_values(kind: Any, limits: dict[str, Any]) -> list[str]:
    """Values that an option of a type with such limits cannot have."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    found = list(_TYPES[typing.get_origin(kind) or kind])
    if limits.get("choices"):
        found += ["no-such-choice", str(limits["choices"][0]).upper() + "x"]
    if limits.get("low") is not None:
        found.append(str(limits["low"] - 1))
    if limits.get("high") is not None:
        found.append(str(limits["high"] + 1))
    return found


def cases() -> list[Any]:
    # llama2-seq has relrec's options: only other defaults
    groups = [(f"{model}", model, model_named(model).options, "options.") for model in MODELS if model != "llama2-seq"]
    groups.append(("training", "sasrec", TrainingOptions, "training."))
    groups.append(("conversation", "text-retrieval", ConversationOptions, "conversation."))
    found = []
    for group, model, options, prefix in groups:
        assert options is not None
        hints = typing.get_type_hints(options)
        for field in dataclasses.fields(options):
            for value in bad_values(hints[field.name], dict(field.metadata)):
                setting = f"{prefix}{field.name}={value}"
                found.append(pytest.param(model, field.name, setting, id=f"{group}:{field.name}={value[:20]}"))
    return found


OPTION_CASES = cases()


@pytest.mark.parametrize(("model", "name", "setting"), OPTION_CASES)
def test_a_value_that_an_option_cannot_have(refused, shop, model: str, name: str, setting: str) -> None:
    refused(["run", model, shop, "--alone", "--set", setting], name, model)


@pytest.mark.parametrize("model", MODELS)
def test_every_option_misspelt_is_named(refused, shop, model: str) -> None:
    """One letter is missing; the hint must name an option (which one depends on what is near)."""
    for field in dataclasses.fields(model_named(model).options):  # type: ignore[arg-type]
        if len(field.name) > 5:
            wrong = field.name[:3] + field.name[4:]
            line = refused(["run", model, shop, "--alone", "--set", f"options.{wrong}=1"], f"'{wrong}'")
            assert "Did you mean" in line


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("[1", "write it as key=value"),
        ("=5", "write it as key=value"),
        ("", "write it as key=value"),
        ("hidden_size=[1", "not valid YAML"),
        ("hidden_size={a: b", "not valid YAML"),
        ("hidden_size=*a", "not valid YAML"),
        ("hidden_size=&a [*a]", "hidden_size"),
        ("hidden_size=\x00", "not valid YAML"),
        ("hidden_size=" + "9" * 5000, "hidden_size"),
        ("hidden_size=!!python/object:os.system {}", "not valid YAML"),
        ("hidden_size=" + "[" * 3000 + "]" * 3000, "hidden_size"),
        ("hidden_size=\ud800", "hidden_size"),
        ("hidden_size=-", "hidden_size"),
        ("hidden_size=", "hidden_size"),
        ("hidden_size=2020-01-01", "hidden_size"),
        ("hidden_size=2020-13-45", "hidden_size"),
        ("hidden_size=100000000000", "hidden_size"),
        ("training.max_length=100000000000", "max_length"),
        ("training.batch_size=1e30", "batch_size"),
        ("training.=5", "training."),
        ("options.=5", "options."),
        (".epochs=5", "unknown section ''"),
        ("training.epochs.more=5", "epochs"),
        ("options.hidden_size.x=5", "hidden_size"),
        ("training=5", "training"),
        ("options=5", "options"),
        ("conversation=5", "conversation"),
        ("training.decay=2020-01-01", "decay"),
        ("options.dropout=12:30:59", "dropout"),
        ("model=5", "'model'"),
        ("model=", "'model'"),
        ("model=[sasrec]", "'model'"),
        ("dataset=5", "'dataset'"),
        ("dataset={a: b}", "'dataset'"),
        ("protocol=[a]", "protocol"),
        ("protocol=5", "protocol"),
        ("protocol={a: b}", "protocol"),
        ("protocol=2020-01-01", "protocol"),
        ("device=[cpu]", "device"),
        ("device=5", "device"),
        ("device={a: b}", "device"),
        ("device=cpu:x", "device"),
        ("device=cuda:99", "device"),
        ("device=cuda:-1", "device"),
        ("device=2020-01-01", "device"),
        ("seed=4294967296", "seed"),
        ("seed=-1", "seed"),
        ("seed=1.5", "seed"),
        ("seed=true", "seed"),
        ("seed=many", "seed"),
        ("seed=[1]", "seed"),
        ("seed=2020-01-01", "seed"),
        ("seed=" + "9" * 400, "seed"),
        ("quick=-1", "quick"),
        ("quick=true", "quick"),
        ("quick=some", "quick"),
        ("quick=1.5", "quick"),
        ("quick=[2]", "quick"),
        ("budget=[a]", "budget"),
        ("budget={a: b}", "budget"),
        ("compare=pop", "compare"),
        ("compare=5", "compare"),
        ("compare=[5]", "compare"),
        ("compare=[null]", "compare"),
        ("compare=[[pop]]", "compare"),
        ("compare=[{model: 5}]", "compare"),
        ("compare=[{model: [a]}]", "compare"),
        ("compare=[{label: x}]", "compare"),
        ("compare=[{model: pop, options: 5}]", "options"),
        ("compare=[{model: pop, optoins: {}}]", "'optoins'"),
        ("compare=[{model: pop, label: [x]}]", "label"),
        ("compare=[{5: pop}]", "compare"),
        ("compare=[no-such-model]", "'no-such-model'"),
        ("compare={model: pop}", "compare"),
        ("compare=[{model: pop, training: {epochs: many}}]", "epochs"),
        ("compare=[{model: sasrec, training: {epcohs: 3}}]", "'epcohs'"),
        ("options={5: 6}", "5"),
        ("options={null: 6}", "null is not text"),
        ("options={2020-01-01: 6}", "2020"),
        ("options={[a]: 6}", "not text"),
        ("training={5: 6}", "5"),
        ("training={true: 6}", "true is not text"),
        ("conversation={5: 6}", "5"),
    ],
)
def test_a_setting_that_cannot_be_read(refused, shop, setting: str, said: str) -> None:
    refused(["run", "sasrec", shop, "--set", setting], said)


@pytest.mark.parametrize(
    ("model", "setting", "said"),
    [
        ("latentcrs", "conversation.template={", "not valid YAML"),
        ("latentcrs", "conversation.template='no place'", "template"),
        ("latentcrs", "conversation.template='{txt}'", "template"),
        ("latentcrs", "conversation.simulator=nosuch", "simulator"),
        ("latentcrs", "conversation.simulator=rules:x", "'x' is not one of 1, 2, all"),
        ("latentcrs", "conversation.simulator=replay:/no/such.jsonl", "/no/such.jsonl"),
        ("latentcrs", "conversation.encoder=/no/such/folder", "/no/such/folder"),
        ("latentcrs", "backbone_options=5", "backbone_options"),
        ("latentcrs", "backbone_options={hiden_size: 8}", "'hiden_size'"),
        ("latentcrs", "backbone_options={5: 8}", "5"),
        ("latentcrs", "backbone_training={epochs: many}", "epochs"),
        ("latentcrs", "backbone_training={epcohs: 3}", "'epcohs'"),
        ("latentcrs", "backbone_training=[1]", "backbone_training"),
        ("latentcrs", "backbone=no-such", "no-such"),
        ("latentcrs", "backbone=pop", "pop"),
        ("latentcrs", "rec_form=other", "rec_form"),
        ("latentcrs", "w_e_rec=0", "w_e_rec"),
        ("latentcrs", "train_encoder=true", "encoder_states=live"),
        ("latentcrs", "intents=1000", "intents"),
        ("cesrec", "backend=no-such", "no-such"),
        ("cesrec", "backend=cesrec", "backend"),
        ("cesrec", "backend_options={hiden_size: 8}", "'hiden_size'"),
        ("cesrec", "backend_training={epochs: 0}", "epochs"),
        ("cesrec", "decoding=free", "chat"),
        ("cesrec", "chat=local:x", "decoding=free"),
        ("cesrec", "feedback=nosuch", "feedback"),
        ("cesrec", "llm=/no/such/folder", "/no/such/folder"),
        ("relrec", "llm=/no/such/folder", "/no/such/folder"),
        ("relrec", "labels=/no/such.jsonl", "/no/such.jsonl"),
        ("relrec", "labels=generated", "chat"),
        ("relrec", "seq_template=none", "seq_template"),
        ("relrec", "user_token=false", "user_token"),
        ("relrec", "switched_labels=users", "switched_from"),
        ("recbole:SASRec", "hiden_size=8", "'hiden_size'"),
        ("recbole:SASRec", "hidden_size=many", "hidden_size"),
        ("recbole:SASRec", "hidden_size=2020-01-01", "hidden_size"),
        ("recbole:SASRec", "n_heads=3", "heads"),
        ("recbole:SASRec", "epochs=3", "training.epochs"),
        ("recbole:SASRec", "hidden_size=-1", "SASRec: Trying to create tensor with negative dimension -1"),
        ("recbole:SASRec", "options.5=3", "5"),
        ("recbole:SASRec", "loss_type=XE", "loss_type"),
        ("GRU4Rec", "dropout_prob=2", "dropout"),
        ("GRU4Rec", "embedding_size=0.5", "embedding_size"),
        ("BPR", "embedding_size=[1]", "embedding_size"),
        ("sasrec", "n_heads=3", "heads"),
        ("iclrec", "intents=1000", "intents"),
        ("sasrec", "training.validate_metric=NDGC@10", "'NDGC'"),
        ("sasrec", "training.validate_metric=NDCG", "NDCG"),
        ("sasrec", "training.validate_metric=NDCG@x", "NDCG@x"),
    ],
)
def test_a_setting_that_a_model_cannot_use(refused, shop, model: str, setting: str, said: str) -> None:
    refused(["run", model, shop, "--set", "compare=[]", setting], said)
