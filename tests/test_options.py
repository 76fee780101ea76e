"""Typed options: what they read, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from recllm_bench.errors import BenchError, nearest
from recllm_bench.options import describe_options, option, options_from_config, read_options


@dataclass(frozen=True)
class Planted:
    layers: int = option(2, "how many", low=1, high=8)
    rate: float = option(0.1, "how fast", low=0)
    mode: str = option("fast", "which way", choices=("fast", "exact"))
    tie: bool = option(False, "whether")
    limit: int | None = option(None, "at most", low=1)
    cutoffs: tuple[int, ...] = option((5, 10), "where", low=1)


def test_defaults_and_every_type_from_text() -> None:
    assert read_options(Planted, {}, "here") == Planted()
    text = {"layers": "3", "rate": "1e-3", "mode": "exact", "tie": "yes", "limit": "7", "cutoffs": "1, 20"}
    assert read_options(Planted, text, "here") == Planted(3, 1e-3, "exact", True, 7, (1, 20))
    plain = {"layers": 3.0, "rate": 1, "tie": True, "limit": None, "cutoffs": [3]}
    assert read_options(Planted, plain, "here") == Planted(3, 1.0, "fast", True, None, (3,))
    assert read_options(Planted, {"limit": "none", "cutoffs": 4}, "here") == Planted(cutoffs=(4,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layer": 3}, "here: unknown option 'layer'. Did you mean 'layers'?"),
        ({"layers": 0}, "here: layers: 0 is out of range (1 to 8)"),
        ({"layers": "nine"}, "here: layers: expected a whole number, got 'nine'"),
        ({"layers": 2.5}, "here: layers: expected a whole number, got 2.5"),
        ({"layers": True}, "here: layers: expected a whole number, got True"),
        ({"rate": -1}, "here: rate: -1.0 is out of range (at least 0)"),
        ({"rate": "quick"}, "here: rate: expected a number, got 'quick'"),
        ({"mode": "slow"}, "here: mode: 'slow' is not one of fast, exact"),
        ({"tie": "perhaps"}, "here: tie: expected true or false, got 'perhaps'"),
        ({"limit": 0}, "here: limit: 0 is out of range (at least 1)"),
        ({"cutoffs": "5,0"}, "here: cutoffs: 0 is out of range (at least 1)"),
        ({"cutoffs": "5,x"}, "here: cutoffs: expected a whole number, got 'x'"),
    ],
)
def test_nonsense_is_refused_in_one_line(values: dict, message: str) -> None:
    with pytest.raises(BenchError) as caught:
        read_options(Planted, values, "here")
    assert str(caught.value) == message


@pytest.mark.parametrize("value", ["nan", float("nan"), "inf"])
def test_numbers_that_are_none_are_refused(value: object) -> None:
    with pytest.raises(BenchError, match="rate"):
        read_options(Planted, {"rate": value}, "here")


def test_description_names_default_help_and_choices() -> None:
    rows = {name: (default, text) for name, default, text in describe_options(Planted)}
    assert rows["mode"] == ("fast", "which way [fast | exact]")
    assert rows["layers"] == ("2", "how many")


def test_options_out_of_a_recbole_like_configuration() -> None:
    assert options_from_config(Planted, {"layers": 4, "something_else": 1}) == Planted(layers=4)
    with pytest.raises(BenchError, match="configuration of Planted: layers: 9 is out of range"):
        options_from_config(Planted, {"layers": 9})


def test_nearest_suggests_or_lists() -> None:
    assert nearest("LatenCRS", ["latentcrs", "sasrec"]) == " Did you mean 'latentcrs'?"
    assert nearest("zzz", ["b", "a"]) == " Known: a, b."
    assert nearest("zzz", [f"name{number}" for number in range(10)], limit=2).endswith("name0, name1 and 8 more.")
    assert nearest("anything", []) == ""
