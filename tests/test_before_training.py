"""What would stop a run late is told before anything is trained or asked, in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recllm_bench import cli, sweeping
from recllm_bench.language import chat_server, chat_spending
from recllm_bench.language.chat_spending import BUDGET, TokenBudget
from recllm_bench.recipe import Recipe
from tests.models.answering import answering


def error_of(capsys: pytest.CaptureFixture, tmp_path: Path, *arguments: str) -> str:
    """The line that a run ends in, which has made nothing but data."""
    assert cli.main([*arguments]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    made = {path.parent.parent.name for path in (tmp_path / "cache").rglob("artifact.json")}
    assert made <= {"dataset", "candidates", "disclosure"} and "dataset" in made, "nothing was trained"
    return line


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("cesrec", "feedback={server}"),
        ("cesrec", "feedback={server} use_constructor=false"),
        ("cesrec", "decoding=free chat={server}"),
        ("cesrec", "backend=relrec backend_options.labels=generated backend_options.chat={server}"),
        ("latentcrs", "conversation.simulator={server}"),
        ("text-retrieval", "conversation.simulator={server}"),
        ("latentcrs", "variant_output=F extractor={server}"),
        ("latentcrs", "variant_output=V verifier={server}"),
        ("zero-shot", "chat={server}"),
        ("chat-rec", "chat={server}"),
        ("interecagent", "chat={server}"),
        ("asking", "protocol=latentcrs.multi_turn.n24 options.model=zero-shot options.model_options.chat={server}"),
        ("relrec", "labels=generated chat={server}"),
    ],
)
def test_no_paid_question_without_a_limit(capsys, tmp_path, own_data, monkeypatch, model, settings):
    monkeypatch.setattr(chat_server, "NEAR", ())
    monkeypatch.delenv(BUDGET, raising=False)
    with answering(lambda messages: "yes") as (spec, server):
        given = settings.format(server=spec).split()
        line = error_of(capsys, tmp_path, "run", model, str(own_data), "--alone", "--set", *given)
        assert "paid for" in line and (BUDGET in line or "token_budget=" in line)
        assert not server.bodies


def test_a_used_up_limit_ends_a_run_that_then_goes_on(capsys, tmp_path, own_data, monkeypatch):
    """Every question is asked once over both runs; a finished record asks for no limit."""
    monkeypatch.setattr(chat_server, "NEAR", ())
    monkeypatch.setattr(chat_spending, "_PROCESS", TokenBudget(BUDGET))
    with answering(lambda messages: "1. Invented Story 3 (1990)") as (spec, server):
        command = ["run", "zero-shot", str(own_data), "--alone", "--set", f"chat={spec}", "conversation.users=0"]
        monkeypatch.setenv(BUDGET, "480")
        assert cli.main(command) == 2
        assert f"{BUDGET}=480 is used up" in capsys.readouterr().err
        asked = len(server.bodies)
        assert 0 < 10 * asked <= 480
        monkeypatch.setenv(BUDGET, "-1")
        assert cli.main(command) == 0
        questions = [str(body["messages"]) for body in server.bodies]
        assert len(questions) == len(set(questions)) > asked
        monkeypatch.delenv(BUDGET)
        assert cli.main(command) == 0
        assert len(server.bodies) == len(questions)


def test_cells_of_a_sweep_have_equal_shares_of_a_limit(monkeypatch):
    seen = []

    def begun(row, label, recipe):
        seen.append(os.environ[BUDGET])
        raise KeyboardInterrupt

    monkeypatch.setenv(BUDGET, "1000")
    monkeypatch.setattr(sweeping, "_Running", begun)
    with pytest.raises(KeyboardInterrupt):
        sweeping.run_apart([("", Recipe("pop", "ml-100k"))] * 4, 2)
    assert seen == ["250"] and os.environ[BUDGET] == "1000"


def test_a_wording_is_not_paid_for_without_a_limit(capsys, tmp_path, own_data, monkeypatch):
    monkeypatch.delenv(BUDGET, raising=False)
    line = error_of(capsys, tmp_path, "chat", "sasrec", str(own_data), "--llm", "server:m@https://api.example.org/v1")
    assert BUDGET in line


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("cesrec", "decoding=free chat=local:nope", "language model 'nope'"),
        ("cesrec", "decoding=free chat=srver:x", "chat model 'srver:x': write local:NAME"),
        ("cesrec", "decoding=free chat=smollm2", "chat model 'smollm2': write local:NAME"),
        ("cesrec", "feedback=local:nope", "language model 'nope'"),
        ("cesrec", "feedback=srver:x use_constructor=false", "feedback 'srver:x' is unknown"),
        ("cesrec", "lora_modules=foo", "lora_modules: language model 'miniature' has no layers foo; it has down_proj"),
        ("cesrec", "lora_modules=foo llm=llama2-stories260k", "-stories260k' has no layers foo; it has down_proj"),
        ("cesrec", "lora_modules=q_proj,foo llm=llama2-stories260k", "has no layers foo"),
        ("cesrec", "backend=relrec backend_options.labels=generated backend_options.chat=srver:x", "srver:x"),
        ("relrec", "labels=generated chat=servr:x", "chat model 'servr:x': write local:NAME"),
        ("relrec", "labels=generated chat=local:nope", "language model 'nope'"),
        ("relrec", "switched_labels=both switched_from=nope", "unknown dataset 'nope'"),
        ("relrec", "switched_labels=items switched_from=ml-10k", "Did you mean 'ml-100k'"),
        ("latentcrs", "variant_output=V verifier=srver:x", "chat model 'srver:x'"),
        ("latentcrs", "variant_output=F extractor=local:nope", "language model 'nope'"),
        ("zero-shot", "chat=srver:x", "chat model 'srver:x'"),
        ("latentcrs", "conversation.simulator=srver:x", "srver"),
    ],
)
def test_a_name_that_is_none_is_told_first(capsys, tmp_path, own_data, monkeypatch, model, settings, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert said in error_of(capsys, tmp_path, "run", model, str(own_data), "--alone", "--set", *settings.split())


def test_names_of_layers_that_there_are(models_folder):
    """As the loaded model has them."""
    from recllm_bench.language.adapters import check_layers, linear_layers
    from recllm_bench.language.backbone import load_backbone

    named = str(models_folder / "llama2-stories260k")
    for layers in (linear_layers(load_backbone(named, device="cpu").model), ("self_attn.q_proj",), ("all-linear",)):
        check_layers(named, layers, "lora_modules")
