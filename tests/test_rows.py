"""Rows of a table on little data: each stands or has its reason, and how long they take is said before the first."""

from __future__ import annotations

import csv
import gzip
import json
import time
from pathlib import Path

import pytest

from recllm_bench import cli
from recllm_bench.estimates import Earlier, Estimate, duration, plan_line
from recllm_bench.reporting.record import RunRecord
from recllm_bench.reporting.record_values import sealed


def small_table(folder: Path, users: int, mirror: Path, *, text: bool = False, most: int = 40) -> Path:
    """The last events of some users of MovieLens (latest-small), as a table of one's own."""
    source = mirror / "ml-latest-small"
    with gzip.open(source / "ratings.csv.gz", "rt") as file:
        rows = list(csv.reader(file))[1:]
    chosen = dict.fromkeys(sorted({row[0] for row in rows}, key=lambda user: (hash_of(user), user))[:users])
    by_user: dict[str, list[list[str]]] = {user: [] for user in chosen}
    for row in rows:
        if row[0] in by_user:
            by_user[row[0]].append(row)
    table = folder / "films.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "item_id", "rating", "timestamp"])
        for own in by_user.values():
            writer.writerows(sorted(own, key=lambda row: int(row[3]))[-most:])
    if text:
        write_items(folder, mirror)
    return table


def hash_of(user: str) -> int:
    return int(user) * 2654435761 % 2**32


def write_items(folder: Path, mirror: Path) -> None:
    with gzip.open(mirror / "ml-latest-small" / "movies.csv.gz", "rt") as file:
        rows = list(csv.reader(file))[1:]
    with open(folder / "films.items.csv", "w", newline="") as file:
        csv.writer(file).writerows([["item", "title", "categories"], *rows])


FEW = ["--quick", "1"]


@pytest.mark.parametrize(("model", "text"), [("sasrec", False), ("latentcrs", True)])
def test_twelve_users_end_in_a_full_table(model, text, tmp_path, data_mirror, capsys):
    table = small_table(tmp_path, 12, data_mirror, text=text)
    assert cli.main(["run", model, str(table), *FEW]) == 0
    text = capsys.readouterr().out
    names = ["Pop (RecBole)", "SASRec (RecBole)", "GRU4Rec (RecBole)", "SASRec (ours)", "ICLRec"]
    assert all(name in text for name in names)
    assert "Not run" not in text


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        ("relrec", "ReLRec", "the items of films have no text for a language model to learn from"),
        ("latentcrs", "LatentCRS", "12 of 12 users have nothing to say, for the catalogue has no facts"),
        ("cesrec", "CESRec", "the items of films have no titles, which its constructor writes"),
    ],
)
def test_what_the_data_lack_is_a_row_with_its_reason(model, name, reason, tmp_path, data_mirror, capsys):
    table = small_table(tmp_path, 12, data_mirror)
    assert cli.main(["run", model, str(table), *FEW]) == 2
    out, err = capsys.readouterr()
    assert f"Not run: {name}" in out
    assert reason in " ".join(out.split())
    assert "SASRec" in out.partition("Not run")[0], "the others stand"
    assert err.splitlines()[-1].startswith(f"error: {name}: ")
    assert err.index(f"{name} is left out") < err.index(" on films ("), "named before the first row trains"
    write_items(tmp_path, data_mirror)  # the hint, followed: what was missing is no longer
    from recllm_bench.planning import comparison_recipes, recipe_values
    from recllm_bench.runner import BenchCell

    ((_, recipe),) = comparison_recipes({**recipe_values(model, str(table)), "compare": []}, "here")
    BenchCell(recipe).check()


@pytest.mark.parametrize("model", ["relrec", "cesrec"])
def test_twelve_users_with_titles_and_a_named_model(model, tmp_path, data_mirror, models_folder, capsys):
    table = small_table(tmp_path, 12, data_mirror, text=True, most=12)
    few = ["--set", "examples=20", "rounds=1"] if model == "cesrec" else []
    assert cli.main(["run", model, str(table), *FEW, "--llm", "domain-llama-4m", *few]) == 0
    assert "Not run" not in capsys.readouterr().out


@pytest.mark.slow
def test_three_thousand_users_end_in_a_full_table(tmp_path, data_mirror, capsys):
    with gzip.open(data_mirror / "ml-1m" / "ratings_ordered.dat.gz", "rt") as file:
        rows = [line.strip().split("::") for line in file]
    by_user: dict[str, list[list[str]]] = {}
    for row in rows:
        by_user.setdefault(row[0], []).append(row)
    table = tmp_path / "many.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerow(["user_id", "item_id", "rating", "timestamp"])
        for user in list(by_user)[:3000]:
            csv.writer(file).writerows(by_user[user][:40])
    assert cli.main(["run", "sasrec", str(table), *FEW]) == 0
    text = capsys.readouterr().out
    assert "3,000 users" in text
    assert "Not run" not in text
    assert text.count("[1]") >= 5


def record(folder: Path, model: str, *, interactions: int, stages: dict, curves: dict | None = None, **recipe) -> None:
    """A record as an earlier run left it."""
    found = RunRecord(
        name=model,
        block="history",
        recipe={"model": model, "dataset": "d", "protocol": "p", **recipe},
        dataset={"name": "d", "interactions": interactions},
        protocol={"name": "p"},
        stages=stages,
        curves=curves or {},
        evaluation_seconds=2.0,
        hardware={"device": "cpu"},
    )
    place = folder / "results" / "runs" / f"{model}-d-p-{interactions}"
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps(sealed(found.as_dict())))


def test_a_time_is_scaled_by_interactions_and_epochs(tmp_path):
    record(
        tmp_path, "mine", interactions=1000, stages={"labels": 30.0, "train": 40.0},
        curves={"train": [[1, 0.1], [20, 0.2]]}, training={"epochs": 20},
    )  # fmt: skip
    earlier = Earlier({"mine", "other"})
    # Half the data: labels 15, train 40 / 20 epochs * 5 / 2 = 5, evaluation 1.
    assert earlier.seconds("mine", "cpu", 500, 5, ["labels", "train"]) == pytest.approx(15 + 5 + 1)
    assert earlier.seconds("mine", "cpu", 500, 5, []) == pytest.approx(1.0), "what is made already costs nothing"
    assert earlier.seconds("mine", "cpu", 1000, 100, ["train"]) == pytest.approx(40 * 5 + 2)
    assert earlier.seconds("mine", "cuda", 500, 5, []) is None
    assert earlier.seconds("mine", "cpu", 500, 5, ["another stage"]) is None
    assert earlier.seconds("other", "cpu", 500, 5, []) is None


def test_what_stopped_by_itself_is_expected_to_again(tmp_path):
    record(tmp_path, "mine", interactions=100, stages={"train": 30.0}, curves={"train": [[1, 0.1], [30, 0.2]]})
    earlier = Earlier({"mine"})
    assert earlier.seconds("mine", "cpu", 100, 300, ["train"]) == pytest.approx(30 + 2)
    assert earlier.seconds("mine", "cpu", 100, 3, ["train"]) == pytest.approx(3 + 2)


def test_the_nearest_size_and_the_same_limit_decide(tmp_path):
    record(tmp_path, "mine", interactions=100, stages={"train": 10.0})
    record(tmp_path, "mine", interactions=10_000, stages={"train": 1000.0})
    record(tmp_path, "mine", interactions=200, stages={"train": 1.0}, quick=2)
    earlier = Earlier({"mine"})
    assert earlier.seconds("mine", "cpu", 200, 9, ["train"]) == pytest.approx(24)
    assert earlier.seconds("mine", "cpu", 200, 9, ["train"], quick=2) == pytest.approx(3)
    assert earlier.seconds("mine", "cpu", 9000, 9, ["train"]) == pytest.approx(0.9 * 1002)


def test_a_thousand_records_cost_less_than_a_second(tmp_path):
    for number in range(1000):
        record(tmp_path, "mine", interactions=number + 1, stages={"train": 1.0})
    (tmp_path / "results" / "runs" / "mine-d-p-1" / "run.json").write_text("{")
    start = time.perf_counter()
    assert Earlier({"mine"}).seconds("mine", "cpu", 500, 5, ["train"]) is not None
    assert time.perf_counter() - start < 1


def test_the_line_says_what_is_unknown():
    rows = [Estimate("A", 0.0, cached=True), Estimate("B", 100.0), Estimate("C", None)]
    assert plan_line(rows) == (
        "3 rows; 1 cached; about 2 min, scaled from earlier runs by interactions and epochs; "
        "time unknown (no earlier run to scale): C"
    )
    assert [str(row) for row in rows] == ["A, cached", "B, about 2 min", "C, time unknown"]
    assert [duration(seconds) for seconds in (0.1, 89, 600, 9000)] == ["1 s", "89 s", "10 min", "2.5 h"]


def test_the_estimate_comes_first_and_knows_what_is_there(tmp_path, data_mirror, capsys):
    table = small_table(tmp_path, 12, data_mirror)
    recipe = ["run", "sasrec", str(table), "--set", "compare=[pop, bpr]", *FEW]
    assert cli.main(recipe) == 0
    lines = capsys.readouterr().err.splitlines()
    plan = next(number for number, line in enumerate(lines) if line.startswith("3 rows; about"))
    assert lines[plan + 1].startswith("row 1 of 3: SASRec (ours), ")
    assert cli.main(recipe) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("row ")] == [
        "row 1 of 3: SASRec (ours), cached",
        "row 2 of 3: Pop (RecBole), cached",
        "row 3 of 3: BPR (RecBole), cached",
    ]


def test_a_default_protocol_gives_way_where_the_catalogue_is_small(tmp_path, capsys):
    from recllm_bench.errors import NotEnough
    from recllm_bench.planning import comparison_recipes, recipe_values
    from recllm_bench.runner import BenchCell

    lines = [f"{user},{item},{user * 100 + place}" for user in range(12) for place, item in enumerate(range(20))]
    (tmp_path / "few.csv").write_text("user,item,timestamp\n" + "\n".join(lines))
    (tmp_path / "few.items.csv").write_text("item,title\n" + "\n".join(f"{item},Film {item}" for item in range(20)))
    values = {**recipe_values("cesrec", str(tmp_path / "few.csv")), "options": {}}
    names = {recipe.protocol for _, recipe in comparison_recipes(values, "here")}
    assert names == {"cesrec.full"}, "every row of the table is measured in one way"
    asked = {**values, "protocol": "cesrec.sampled100", "compare": []}
    ((_, recipe),) = comparison_recipes(asked, "here")
    assert recipe.protocol == "cesrec.sampled100", "what was asked for is not changed"
    with pytest.raises(NotEnough, match="fewer than the 100 candidates wanted"):
        BenchCell(recipe).check()
