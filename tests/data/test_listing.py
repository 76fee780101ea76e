"""The listing of datasets: counts, what is prepared, where files are, templates as one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.data.listing import dataset_table, human_size, listed_datasets
from recllm_bench.errors import BenchError


def card(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "title": f"Title of {name}",
        "domain": "thing",
        "licence": {"name": "open"},
        "reader": "table",
        "variants": [{"name": "v", "files": {"table": {"path": f"{name}/data.csv.gz"}}}],
        "filters": {"all": {}, "small": {}},
        **more,
    }


def category(name: str) -> dict[str, Any]:
    title = f"Shop reviews 2018: {name.title()}"
    return card(f"shop-2018-{name}", title=title, template="shop-2018-{category}", category=name)


def listed(*cards: dict[str, Any], tmp_path: Path, **options: Any) -> dict[str, Any]:
    rows = listed_datasets(cards={c["name"]: c for c in cards}, store=ArtifactStore(tmp_path / "store"), **options)
    assert [row.name for row in rows] == sorted(row.name for row in rows)
    return {row.name: row for row in rows}


@pytest.fixture(autouse=True)
def mirror(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(folder))
    return folder


def put(folder: Path, path: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b"x")


def test_where_the_files_are(tmp_path, mirror, monkeypatch):
    url = "https://example.org/some.zip"
    cards = [
        card("installed", variants=[{"name": "v", "package": "recllm_bench", "files": {}}]),
        card("absent-package", variants=[{"name": "v", "package": "no_such_package_here", "files": {}}]),
        card("plain"),
        card("unpacked"),
        card("half", variants=[{"files": {"a": {"path": "half/a.csv"}, "b": {"path": "half/b.csv"}}}]),
        card("enough", variants=[{"files": {"a": {"path": "e.csv"}, "b": {"path": "f.csv", "optional": True}}}]),
        card("archived", variants=[{"files": {"a": {"path": "a/a.csv"}}, "archive": {"url": url}}]),
        card("tarred", variants=[{"files": {"a": {"path": "t/a.json"}}, "archive": {"file": "all.tar"}}]),
        card("loaded", variants=[{"files": {"a": {"path": "b/a.csv", "url": url}}}]),
        card("half-loaded", variants=[{"files": {"a": {"path": "c/a.csv", "url": url}, "b": {"path": "c/b.csv"}}}]),
    ]
    for path in ("plain/data.csv.gz", "unpacked/data.csv", "half/a.csv", "e.csv"):
        put(mirror, path)
    wanted = {
        "installed": "package",
        "absent-package": "by form",
        "plain": "mirror",
        "unpacked": "mirror",
        "half": "by form",
        "enough": "mirror",
        "archived": "download",
        "tarred": "by form",
        "loaded": "download",
        "half-loaded": "by form",
    }
    assert {name: row.place for name, row in listed(*cards, tmp_path=tmp_path).items()} == wanted
    for name in ("some.zip", "all.tar"):
        put(mirror, name)
    assert {listed(*cards, tmp_path=tmp_path)[name].place for name in ("archived", "tarred")} == {"mirror"}
    monkeypatch.delenv("RECLLM_DATA_MIRROR")
    assert listed(*cards, tmp_path=tmp_path)["plain"].place == "by form"


def test_counts_are_those_of_the_whole_source_where_the_card_has_them(tmp_path):
    whole = {"users": 3, "items": 2, "interactions": 5}
    cards = [
        card("whole", expected={"small": {"users": 1}, "all": whole}, published={"all": {"users": 9}}),
        card("printed", published={"small": {"users": 1234, "mean_length": 2.5}, "all": whole}),
        card("filtered", published={"small": {"users": 1234, "mean_length": 2.5}}),
        card("unknown", expected={"all": {"min_length": 5}}),
        card("fuller", expected={"small": {"interactions": 1}}, published={"other": whole}),
    ]
    rows = listed(*cards, tmp_path=tmp_path)
    assert (rows["whole"].counts, rows["whole"].counted) == (whole, "all")
    assert (rows["printed"].counts, rows["printed"].counted) == (whole, "all, published")
    assert (rows["filtered"].counts, rows["filtered"].counted) == ({"users": 1234}, "small, published")
    assert (rows["fuller"].counts, rows["fuller"].counted) == (whole, "other, published")
    assert (rows["unknown"].counts, rows["unknown"].counted) == ({}, "")
    table = dataset_table(rows.values())
    assert "1,234*" in table
    assert (
        "* not of the whole source, but after a filter or as a paper prints it: all, published; other, published; small"
        in table
    )
    assert "*" not in dataset_table([rows["whole"]])
    narrow = dataset_table(rows.values(), 80)
    assert max(map(len, narrow.splitlines()[: len(rows) + 1])) <= 80 and "(too narrow for licence" in narrow
    assert "licence" in table.splitlines()[0] and "too narrow" not in dataset_table(rows.values(), 1000)


def test_what_is_prepared_and_its_size(tmp_path):
    store = ArtifactStore(tmp_path / "store")

    def fill(work: Path) -> None:
        (work / "part").mkdir()
        (work / "part" / "items.npy").write_bytes(b"x" * 5000)

    files = {"sources": {"reviews": "f00"}, "reader": "amazon"}
    for filter in ("small", "all"):
        store.build("dataset", {"name": "one", "filter": filter, **files}, fill)
    store.build("corpus", files, fill)
    store.build("corpus", {"sources": {"reviews": "ba5"}, "reader": "amazon"}, fill)
    store.build("vectors", {"name": "one", **files}, fill)
    (store.root / "dataset" / "odd").mkdir()
    (store.root / "dataset" / "odd" / "artifact.json").write_text("{")
    rows = listed(card("one"), card("two"), tmp_path=tmp_path)
    assert rows["one"].prepared == ("all", "small")
    assert 15_000 < rows["one"].bytes < 20_000, "two filters and the corpus that they share"
    assert (rows["two"].prepared, rows["two"].bytes) == ((), 0)
    assert rows["one"].counts == {}


def test_prepared_data_has_its_own_counts(tmp_path):
    store, whole = ArtifactStore(tmp_path / "store"), {"users": 3, "items": 2, "interactions": 5}

    def fill(work: Path) -> None:
        (work / "facts.json").write_text(json.dumps({**whole, "min_length": 1}))

    store.build("dataset", {"name": "one", "filter": "all"}, fill)
    store.build("dataset", {"name": "two", "filter": "small"}, fill)
    cards = [card(name, published={"small": {"users": 9}}) for name in ("one", "two")]
    rows = listed(*cards, tmp_path=tmp_path)
    assert (rows["one"].counts, rows["one"].counted) == (whole, "all")
    assert (rows["two"].counts, rows["two"].counted) == ({"users": 9}, "small, published")


def test_a_template_is_one_line_and_its_present_categories(tmp_path, mirror):
    cards = [category(name) for name in ("games", "books", "music")] + [card("zoo")]
    rows = listed(*cards, tmp_path=tmp_path)
    assert set(rows) == {"shop-2018-{category}", "zoo"}
    assert rows["shop-2018-{category}"].title == "Shop reviews 2018 (3 categories)"
    put(mirror, "shop-2018-games/data.csv.gz")
    ArtifactStore(tmp_path / "store").build("dataset", {"name": "shop-2018-music", "filter": "all"}, lambda work: None)
    rows = listed(*cards, tmp_path=tmp_path)
    assert set(rows) == {"shop-2018-{category}", "shop-2018-games", "shop-2018-music", "zoo"}
    assert rows["shop-2018-{category}"].place == "mirror, by form"
    assert rows["shop-2018-{category}"].prepared == ("1 of 3",)
    assert "datasets --all" in dataset_table(rows.values())
    every = listed(*cards, tmp_path=tmp_path, every=True)
    assert set(every) == {c["name"] for c in cards}
    assert set(listed(*cards, tmp_path=tmp_path, wanted=["BOOK", "zoo"])) == {"shop-2018-books", "zoo"}
    assert set(listed(*cards, tmp_path=tmp_path, wanted=["title-OF"])) == {"zoo"}


def test_a_wanted_name_that_nothing_has(tmp_path):
    with pytest.raises(BenchError, match=r"no dataset has 'zooo' in its name\. Did you mean 'zoo'\?"):
        listed(card("zoo"), tmp_path=tmp_path, wanted=["zoo", "zooo"])


@pytest.mark.parametrize(
    ("count", "said"),
    [(999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (999_600, "1.0 MB"), (4e11, "400 GB")],
)
def test_sizes_for_people(count, said):
    assert human_size(int(count)) == said


def test_the_projects_own_cards_are_listed_without_heavy_imports():
    code = (
        "import sys; from recllm_bench.data.listing import dataset_table, listed_datasets;"
        "print(dataset_table(listed_datasets())); print({'numpy', 'pyarrow', 'torch', 'recbole'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"
    line = next(line for line in result.stdout.splitlines() if line.startswith("  ml-100k "))
    assert line.split("  ")[1] == "ml-100k"
    assert "943" in line and "1,682" in line and "100,000" in line and "package" in line
