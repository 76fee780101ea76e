"""What a record depends on, and what has changed since."""

from __future__ import annotations

import copy

import pytest

from recllm_bench import __version__, cli
from recllm_bench.errors import BenchError
from recllm_bench.provenance import versions_of_libraries
from recllm_bench.reporting.dependence import GROUPS, depends_of, difference, why
from recllm_bench.reporting.records import read_record

DEPENDS = {
    "data": {"name": "ml1m", "checksum": "data-1"},
    "catalogue text": "text-1",
    "split": {"name": "leave_one_out", "checksum": "split-1"},
    "protocol": {"name": "latentcrs.one_turn", "fingerprint": "p-1"},
    "recipe": {"seed": 42, "options": {"width": 8, "layers": [1, 2]}},
    "stages": {"train": {"key": "k-1", "code": "c-1"}},
    "language model": {},
    "encoder": "minilm@abc",
    "classes": {"planted:Model": "h-1"},
    "training": {"package": "t-1", "threads": 2},
    "evaluation": {"code": "e-1"},
    "words": {"simulator": "rules"},
    "libraries": versions_of_libraries(["torch", "numpy"]),
    "package": {"version": __version__},
}

CHANGES = {
    "data.checksum: data-1 -> data-2": lambda new: new["data"].update(checksum="data-2"),
    "catalogue text: text-1 -> text-2": lambda new: new.update({"catalogue text": "text-2"}),
    "split.checksum: split-1 -> split-2": lambda new: new["split"].update(checksum="split-2"),
    "protocol.fingerprint: p-1 -> p-2": lambda new: new["protocol"].update(fingerprint="p-2"),
    "recipe.seed: 42 -> 43": lambda new: new["recipe"].update(seed=43),
    "recipe.options.width: 8 -> 16": lambda new: new["recipe"]["options"].update(width=16),
    "recipe.options.layers: [1, 2] -> [2, 1]": lambda new: new["recipe"]["options"].update(layers=[2, 1]),
    "recipe.options.heads: new (4)": lambda new: new["recipe"]["options"].update(heads=4),
    "recipe.options.width: gone (8)": lambda new: new["recipe"]["options"].pop("width"),
    "stages.train.key: k-1 -> k-2": lambda new: new["stages"]["train"].update(key="k-2"),
    "stages.train.code: c-1 -> c-2": lambda new: new["stages"]["train"].update(code="c-2"),
    "stages.embed.code: new (c-3)": lambda new: new["stages"].update(embed={"code": "c-3"}),
    "language model: {} -> llm@1": lambda new: new.update({"language model": "llm@1"}),
    "encoder: minilm@abc -> minilm@abd": lambda new: new.update(encoder="minilm@abd"),
    "classes.planted:Model: h-1 -> h-2": lambda new: new["classes"].update({"planted:Model": "h-2"}),
    "training.threads: 2 -> 1": lambda new: new["training"].update(threads=1),
    "words.simulator: rules -> rules:2": lambda new: new["words"].update(simulator="rules:2"),
    "libraries.recbole: new (1.2.1)": lambda new: new["libraries"].update(recbole="1.2.1"),
    f"package.version: {__version__} -> 99": lambda new: new["package"].update(version="99"),
    "simulator: new (rules)": lambda new: new.update(simulator="rules"),
    "encoder: gone (minilm@abc)": lambda new: new.pop("encoder"),
}


@pytest.mark.parametrize("line", CHANGES)
def test_each_change_is_a_line(line: str) -> None:
    new = copy.deepcopy(DEPENDS)
    CHANGES[line](new)
    found = difference(DEPENDS, new)
    assert found == [line]
    assert difference(new, new) == difference(DEPENDS, copy.deepcopy(DEPENDS)) == []


def test_lines_come_in_the_order_of_the_groups() -> None:
    new = {group: "other" for group in reversed(GROUPS)}
    assert [line.partition(":")[0] for line in difference({group: "one" for group in GROUPS}, new)] == list(GROUPS)


def test_no_number_is_equal_to_itself() -> None:
    assert difference({"x": {"a": float("nan")}}, {"x": {"a": float("nan")}}) == []


def test_depends_survive_the_file(make) -> None:
    record = make("SASRec", depends=DEPENDS)
    assert read_record(record.folder).depends == DEPENDS


def test_why_names_every_group_and_what_changed(make) -> None:
    record = make("SASRec", depends=DEPENDS)
    same = why(record, lambda _: DEPENDS)
    assert "nothing has changed since" in same and "only libraries" not in same
    for group in GROUPS:
        assert f"\n  {group}" in same
    assert "    train.code = c-1" in same and "    options.width = 8" in same and "  encoder: minilm@abc" in same
    new = copy.deepcopy(DEPENDS)
    new["catalogue text"], new["stages"]["train"]["code"] = "text-2", "c-2"
    said = why(record, lambda _: new).splitlines()
    assert said[said.index("changed since") + 1 :] == [
        "  stages.train.code: c-1 -> c-2",
        "  catalogue text: text-1 -> text-2",
    ]


def test_why_compares_libraries_where_the_run_cannot_be_looked_at(make, monkeypatch) -> None:
    record = make("SASRec", depends=DEPENDS)

    def fails(_: object) -> dict:
        raise BenchError("the data are gone")

    assert "cannot be looked at now: the data are gone" in why(record, fails)
    monkeypatch.setattr(
        "recllm_bench.reporting.dependence.versions_of_libraries", lambda names: dict.fromkeys(names, "9")
    )
    for said in (why(record, fails), why(record)):
        assert f"  libraries.torch: {DEPENDS['libraries']['torch']} -> 9" in said
        assert "only libraries and the package's version were compared" in said


def test_a_record_of_an_earlier_version(make, capsys) -> None:
    record = make("SASRec", options={"width": 8})
    assert record.depends == {}
    assert depends_of(record)["data"] == {"name": "ml1m", "filter": "all", "checksum": "data-1"}
    assert cli.main(["why", str(record.folder)]) == 0
    said = capsys.readouterr().out
    assert "an earlier version made this record" in said and "options.width = 8" in said
    assert "nothing has changed since" in said
    assert cli.main(["why", str(record.folder / "nowhere")]) == 2
    assert "holds no run record" in capsys.readouterr().err
