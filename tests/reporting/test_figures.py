"""Line plots of run records."""

from __future__ import annotations

from recllm_bench.api.measure import Measure
from recllm_bench.reporting.figures import figures_of
from recllm_bench.reporting.records import RunRecord


def record(
    name: str, measures: list[Measure] | None = None, value: float = 0.5, model: str = "cesrec", **options
) -> RunRecord:
    metrics = {"HR@10": {"mean": value, "low": value - 0.1, "high": value + 0.1, "n": 9}}
    recipe = {"model": model, "options": options}
    return RunRecord(name, "text", recipe, {"name": "planted"}, {"name": "p"}, metrics=metrics, measures=measures or [])


def by_round(*values: float) -> list[Measure]:
    return [Measure("NDCG@10", value, round=number) for number, value in enumerate(values)]


def test_rounds_of_feedback_make_a_line_each():
    rows = [
        record("short", by_round(0.1, 0.2)),
        record("long", by_round(0.1, 0.2, 0.3)),
        record("w/o c.", by_round(0.1, 0.1, 0.05)),
    ]
    (figure,) = figures_of(rows)
    assert figure.ticks == ["0", "1", "2"] and set(figure.lines) == {"long", "w/o c."}
    assert figure.lines["w/o c."][2] == (0.05, 0.05, 0.05)


def test_a_run_that_is_the_beginning_of_another_is_no_line_of_its_own():
    rows = [record("3 rounds", by_round(0.1, 0.2, 0.3, 0.4)), record("2 rounds", by_round(0.1, 0.2, 0.3))]
    (figure,) = figures_of(rows)
    assert list(figure.lines) == ["3 rounds"]


def test_lengths_of_histories_in_their_order():
    measures = [Measure("users", 7.0, lengths=(101, None))]
    for bucket, values in {(101, None): (0.1, 0.4), (1, 5): (0.2, 0.3), (51, 100): (0.5, 0.6)}.items():
        measures += [Measure("NDCG@10", value, round=at, lengths=bucket) for at, value in enumerate(values)]
    (figure,) = figures_of([record("CESRec", measures)])
    assert figure.ticks == ["1 to 5", "51 to 100", "above 100"]
    assert [value[1] for _, value in sorted(figure.lines["CESRec"].items())] == [0.3, 0.6, 0.4]
    assert [value[1] for _, value in sorted(figure.lines["before any feedback"].items())] == [0.2, 0.5, 0.1]


def test_a_sweep_over_one_number_is_a_line_with_intervals():
    rows = [record(f"k = {k}", value=value, k=k, llm="x") for k, value in ((2, 0.4), (0, 0.2), (1, 0.3))]
    (figure,) = figures_of(rows, "HR@10")
    assert figure.axis == "k" and figure.ticks == ["0", "1", "2"]
    assert figure.lines["cesrec"][1] == (0.3 - 0.1, 0.3, 0.3 + 0.1)


def test_what_is_no_sweep_makes_no_figure():
    assert figures_of([record("a", k=1), record("b", k=2)]) == [], "two points are no line"
    assert figures_of([record("a", k=1), record("b", k=2), record("c", k=3, llm="y")]) == []
    assert figures_of([record(str(flag), use=flag) for flag in (True, False)] + [record("c", use="x")]) == []
    assert figures_of([record("a", k=1), record("b", k=1.0), record("c", k=2)]) == []
    assert figures_of([]) == []
