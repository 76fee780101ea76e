"""What would stop a run late is told before anything is trained or asked, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from recllm_bench import cli
from recllm_bench.language import chat_server, chat_spending
from recllm_bench.language.chat_spending import BUDGET, TokenBudget
from tests.models.answering import answering

FREE = ("decoding=free", "chat={server}")


def error_of(capsys: pytest.CaptureFixture, tmp_path: Path, *arguments: str) -> str:
    """The line that a run ends in, which has made nothing but data."""
    assert cli.main([*arguments]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    made = {path.parent.parent.name for path in (tmp_path / "cache").rglob("artifact.json")}
    assert made <= {"dataset", "candidates", "disclosure"} and "dataset" in made, "nothing was trained"
    return line


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("cesrec", ("feedback={server}",), BUDGET),
        ("cesrec", ("feedback={server}", "use_constructor=false"), BUDGET),
        ("cesrec", FREE, BUDGET),
        ("cesrec", ("backend=relrec", "backend_options.labels=generated", "backend_options.chat={server}"), "token_budget="),
        ("latentcrs", ("conversation.simulator={server}",), BUDGET),
        ("text-retrieval", ("conversation.simulator={server}",), BUDGET),
        ("latentcrs", ("variant_output=F", "extractor={server}"), BUDGET),
        ("latentcrs", ("variant_output=V", "verifier={server}"), BUDGET),
        ("zero-shot", ("chat={server}",), BUDGET),
        ("chat-rec", ("chat={server}",), BUDGET),
        ("interecagent", ("chat={server}",), BUDGET),
        ("asking", ("protocol=latentcrs.multi_turn.n24", "options.model=zero-shot", "options.model_options.chat={server}"), BUDGET),
        ("relrec", ("labels=generated", "chat={server}"), "token_budget="),
    ],
)  # fmt: skip
def test_no_paid_question_without_a_limit(capsys, tmp_path, own_data, monkeypatch, model, settings, said):
    monkeypatch.setattr(chat_server, "NEAR", ())
    monkeypatch.delenv(BUDGET, raising=False)
    with answering(lambda messages: "yes") as (spec, server):
        given = [setting.format(server=spec) for setting in settings]
        line = error_of(capsys, tmp_path, "run", model, str(own_data), "--alone", "--set", *given)
        assert said in line and "paid for" in line
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


def test_a_wording_is_not_paid_for_without_a_limit(capsys, tmp_path, own_data, monkeypatch):
    monkeypatch.delenv(BUDGET, raising=False)
    line = error_of(capsys, tmp_path, "chat", "sasrec", str(own_data), "--llm", "server:m@https://api.example.org/v1")
    assert BUDGET in line
