"""``compare A B``: differences, settings, groups of users, and users, of runs on a user's own data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from recllm_bench import cli
from recllm_bench.evaluation.own_metrics import training_popularity
from recllm_bench.evaluation.statistics import holm
from recllm_bench.locations import results_folder
from recllm_bench.reporting.records import read_record
from recllm_bench.reporting.two_runs import _quarters
from recllm_bench.reporting.users_file import read_ranks, record_data, user_values


@pytest.fixture
def runs(own_data, capsys) -> dict[str, Path]:
    """Popularity and nearest neighbours on a shop's data."""
    recipe = own_data.parent / "own.yaml"
    recipe.write_text(f"model: recent-knn\ndataset: {own_data}\ncompare: [pop]\n")
    assert cli.main(["run", "--recipe", str(recipe)]) == 0
    capsys.readouterr()
    folders = sorted((results_folder() / "runs").glob("*/"))
    return {read_record(folder).recipe["model"]: folder for folder in folders}


def said(capsys, *arguments: str | Path) -> str:
    assert cli.main(["compare", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def parts(capsys, *arguments) -> dict[str, dict]:
    return {part["title"]: part for part in json.loads(said(capsys, *arguments, "--format", "json"))}


def test_the_difference_is_the_paired_one(capsys, runs):
    found = parts(capsys, runs["recent-knn"], runs["Pop"])
    row = next(row for row in found["What was measured"]["rows"] if row[0] == "NDCG@10")
    first, second = (user_values(read_record(runs[name]))[1]["NDCG@10"] for name in ("recent-knn", "Pop"))
    test = stats.ttest_rel(first, second)
    low, high = test.confidence_interval()
    assert row[1:3] == [f"{first.mean():.4f}", f"{second.mean():.4f}"]
    assert row[3].startswith(f"{(first - second).mean():+.4f}")
    assert row[4] == f"[{low:+.4f}, {high:+.4f}]"
    assert row[5] == ("< 0.001" if test.pvalue < 0.001 else f"{test.pvalue:.3f}")
    other = parts(capsys, runs["Pop"], runs["recent-knn"])
    back = next(row for row in other["What was measured"]["rows"] if row[0] == "NDCG@10")
    assert float(back[3].split()[0]) == -float(row[3].split()[0]), "the other way round"
    assert "recipe.model: recent-knn -> Pop" in found["What was done differently"]["lines"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_it_fits_the_terminal(capsys, runs, monkeypatch, width: int):
    monkeypatch.setenv("COLUMNS", str(width))
    text = said(capsys, *runs.values())
    assert ("What was measured" in text and "significant" in text) or "too narrow" in text
    assert width < 80 or max(map(len, text.splitlines())) <= width


def test_groups_are_those_of_the_users(capsys, runs):
    found = parts(capsys, runs["recent-knn"], runs["Pop"])
    record = read_record(runs["Pop"])
    ranks, (dataset, split) = read_ranks(record), record_data(record)
    values = [user_values(read_record(runs[name]))[1]["NDCG@10"] for name in ("recent-knn", "Pop")]
    shop = dataset.catalogue.categories
    popularity = training_popularity(split)[ranks.targets]
    checked = 0
    for title, member in {
        "By popularity of the target": lambda name: np.isin(popularity, np.arange(*_range(name))),
        "By category of the target": lambda name: np.array([name in shop[target] for target in ranks.targets]),
    }.items():
        single, rows = [], found[title]["rows"][1:]
        for name, users, first, second, gap, _ in rows:
            mask = member(name)
            assert users == f"{mask.sum():,}"
            assert [first, second] == [f"{each[mask].mean():.4f}" for each in values]
            difference = (values[0] - values[1])[mask]
            assert gap.split()[0] == f"{difference.mean():+.4f}"
            single.append(float(stats.ttest_1samp(difference, 0).pvalue))
            checked += 1
        for row, p in zip(rows, holm(single), strict=True):
            assert row[5] == ("< 0.001" if p < 0.001 else f"{p:.3f}")
    assert checked >= 4


def _range(name: str) -> tuple[int, int]:
    numbers = [int(part.replace(",", "")) for part in name.split(" to ")]
    return numbers[0], numbers[-1] + 1


def test_users_of_both_kinds_are_shown_with_titles(capsys, runs):
    text = said(capsys, runs["recent-knn"], runs["Pop"])
    record = read_record(runs["Pop"])
    dataset, ranks = record_data(record)[0], read_ranks(record)
    titles = dataset.catalogue.titles
    for winner in ("ItemKNN", "Pop (RecBole)"):
        assert f"Users for whom {winner}" in text
    flat = " ".join(text.split())
    shown = re.findall(
        r"user (u\d+): (.+?) is number ([\d,.]+)(?: \(tied\))? by .+?; history, newest first: ([^;]+);", flat
    )
    assert len(shown) >= 4
    for user, target, _, newest in shown:
        number = dataset.user_tokens.index(user) if hasattr(dataset.user_tokens, "index") else None
        number = number if number is not None else list(dataset.user_tokens).index(user)
        case = int(np.flatnonzero(ranks.users == number)[0])
        assert titles[ranks.targets[case]] == target
        assert titles[dataset.histories.of(number)[-2]] == newest, "the item before the target"


def test_rows_are_found_by_name_and_mistakes_are_one_line(capsys, runs, own_data):
    by_name = said(capsys, "recent-knn", "pop")
    assert (
        by_name
        == said(capsys, runs["recent-knn"], runs["Pop"])
        == said(capsys, runs["recent-knn"].name, "Pop (RecBole)")
    )

    def error(*arguments) -> str:
        assert cli.main(["compare", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "is held against itself" in error("pop", "pop")
    assert "no row is named 'popp'" in error("popp", "recent-knn")
    assert "a dataset, or two runs" in error("a", "b", "c")
    assert "no one table" in error("pop", "recent-knn", "--format", "csv")
    assert cli.main(["run", "pop", str(own_data), "--alone", "--protocol", "unified.ratio"]) == 0
    other = max((results_folder() / "runs").glob("*/"), key=lambda folder: folder.stat().st_mtime)
    assert "of one dataset under one protocol" in error(runs["recent-knn"], other)


def test_shared_records_say_what_they_cannot_show(capsys, runs, tmp_path):
    assert cli.main(["share", *map(str, runs.values()), "--to", str(tmp_path / "shared")]) == 0
    capsys.readouterr()
    text = said(capsys, "recent-knn", "pop", "--results", tmp_path / "shared")
    assert "not shown: a shared record has no target ids" in text and "By history length" in text


def test_quarters_cover_everyone_once():
    numbers = np.random.default_rng(0).integers(0, 9, 500)
    groups = list(_quarters(numbers))
    assert np.sum([mask for _, mask in groups], axis=0).tolist() == [1] * 500
    assert all(low <= high for low, high in (_range(name) for name, _ in groups))
    assert [name for name, _ in _quarters(np.full(7, 3))] == ["3"]
