"""Datasets by name: what is known, what is kept, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from source_files import CSV, MOVIES, RATINGS, tokens_of, write

from recllm_bench.artifacts import MANIFEST
from recllm_bench.data.cards import all_cards, find_card, read_card
from recllm_bench.data.facts import check, count
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepare import canonical_name, filter_names, prepare
from recllm_bench.errors import BenchError


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch):
    monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)


@pytest.mark.parametrize(
    ("name", "filter", "message"),
    [
        ("ml-10k", "all", "unknown dataset 'ml-10k'. Did you mean 'ml-100k'"),
        ("", "all", "no dataset given"),
        ("./nowhere", "all", "no such file or folder"),
        ("data.csv", "all", "no such file or folder"),
        ("ml-100k", "latentcsr", "Did you mean 'latentcrs'"),
        ("ml-100k", "min_ratng=4", "Did you mean 'min_rating'"),
        ("ml-100k", "min_rating=", "key=value"),
    ],
)
def test_names_and_filters(name, filter, message):
    with pytest.raises(BenchError, match=message):
        prepare(name, filter)


def test_unknown_kinds_of_file(tmp_path):
    with pytest.raises(BenchError, match="not a known kind of data"):
        prepare(str(write(tmp_path / "a.xlsx", "x")))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("x", "y")
    with pytest.raises(BenchError, match="an archive of no known dataset"):
        prepare(str(tmp_path / "a.zip"))


def test_a_mirror_that_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path / "none"))
    with pytest.raises(BenchError, match="RECLLM_DATA_MIRROR"):
        prepare("ml1m")


def test_a_truncated_archive_on_the_mirror(tmp_path, monkeypatch):
    write(tmp_path / "ml-1m.zip", "PK truncated")
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path))
    with pytest.raises(BenchError, match=r"ml-1m\.zip: wrong checksum"):
        prepare("ml1m")


def test_names():
    assert canonical_name("ML-1M") == canonical_name("MovieLens-1m") == "ml1m"
    assert filter_names("ml-1m") == ["all", "latentcrs", "cesrec", "relrec"]


def test_prepared_once_then_mapped(tmp_path):
    path = write(tmp_path / "mine.csv", CSV)
    first = prepare(str(path))
    stamp = (first.folder / MANIFEST).stat().st_mtime_ns
    second = prepare(str(path))
    assert second.folder == first.folder
    assert (second.folder / MANIFEST).stat().st_mtime_ns == stamp
    assert second.checksum == first.checksum
    assert second.catalogue.tokens == first.catalogue.tokens
    second.histories.items[0] = 7  # a private copy: the file stays as it is
    assert prepare(str(path)).histories.items[0] != 7
    path.write_text(CSV.replace("u2,a", "u2,b"))
    third = prepare(str(path))
    assert third.folder != first.folder
    assert third.checksum != first.checksum


def test_facts_count_by_hand():
    histories = Histories.from_rows([[1, 2, 2], [2]], n_items=5, times=[[1, 4, 4], [4]])
    facts = count(histories, ["", "a", "", "", "", "e"], 9)
    assert facts["users"] == 2
    assert facts["items"] == 2
    assert facts["interactions"] == 4
    assert facts["catalogue_items"] == 9
    assert facts["mean_length"] == 2
    assert (facts["min_length"], facts["max_length"]) == (1, 3)
    assert facts["sparsity"] == 0
    assert facts["items_with_text"] == 1
    assert facts["time_ties"] == 50


def test_cards_are_complete():
    from recllm_bench.data.interactions import read_filter
    from recllm_bench.data.prepare.pipeline import _filter_spec

    cards = all_cards()
    assert {"ml1m", "ml-100k", "s3rec-beauty", "s3rec-sports", "s3rec-yelp"} <= set(cards)
    for card in cards.values():
        for name in card["filters"]:
            read_filter(_filter_spec(card, name)[0], name)
        assert set(card.get("expected", {})) <= set(card["filters"])
        assert card["licence"]["notice"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n bad: [\n", r"c\.yaml:\d+: not valid YAML"),
        ("- a\n", "is a mapping"),
        ("name: x\n", "lacks title"),
    ],
)
def test_broken_cards(tmp_path, text, message):
    with pytest.raises(BenchError, match=message):
        read_card(write(tmp_path / "c.yaml", text))


def test_a_plugin_dataset(tmp_path, monkeypatch):
    """A package with a card, a data file and a reader of its own becomes a dataset by name."""
    import importlib.metadata

    package = tmp_path / "plugged_data"
    write(package / "__init__.py", "")
    write(
        package / "source.py",
        "import numpy as np\n"
        "from recllm_bench.data.interactions import Interactions\n"
        "def read(files):\n"
        "    users = files['log'].read_text().split()\n"
        "    n = len(users)\n"
        "    return Interactions(np.zeros(n, int), np.arange(n), ['u'], users)\n"
        "CARD = dict(name='plugged', title='Plugged', domain='thing', licence=dict(name='free', notice=''),\n"
        "            reader='plugged_data.source:read', filters=dict(all={}),\n"
        "            variants=[dict(name='own', package='plugged_data', files=dict(log=dict(path='log.txt')))])\n",
    )
    write(package / "log.txt", "a b c")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("plugged", "plugged_data.source:CARD", "recllm_bench.datasets")
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda **select: [point] if select["group"] == point.group else []
    )
    prepared = prepare("plugged")
    assert tokens_of(prepared, 1) == ["a", "b", "c"]
    assert prepared.catalogue.domain == "thing"


def printed(code: str) -> str:
    """What code prints in an interpreter of its own."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    return done.stdout.strip()


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from recllm_bench.data.listing import dataset_table, listed_datasets;"
        "from recllm_bench.data.prepare import canonical_name; dataset_table(listed_datasets());"
        "canonical_name('ml1m'); print([m for m in ('torch', 'recbole', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    assert printed(code) == "[]"


def test_recbole_is_found_without_being_imported():
    pytest.importorskip("recbole")
    code = (
        "import sys; from recllm_bench.data.prepare import prepare; prepare('ml-100k'); print('recbole' in sys.modules)"
    )
    assert printed(code) == "False"


def test_embedded_ml100k():
    pytest.importorskip("recbole")
    prepared = prepare("ml-100k")
    assert (prepared.variant, prepared.has_times) == ("recbole-wheel", True)
    assert [row.ok for row in check(prepared)[:3]] == [True] * 3
    times, owners = np.asarray(prepared.histories.times), prepared.histories.users_of_positions()
    assert (np.diff(times)[owners[1:] == owners[:-1]] >= 0).all()
    assert "nan" not in {title.lower() for title in prepared.catalogue.titles}


def test_archive_from_path_mirror_and_download(tmp_path, monkeypatch):
    """The zip of a dataset gives the same data from a path, from a mirror folder, and from an address."""
    import hashlib
    import http.server
    import threading
    from functools import partial

    from recllm_bench.data.prepare import sources

    place = tmp_path / "place"
    place.mkdir()
    with zipfile.ZipFile(place / "tiny.zip", "w") as file:
        file.writestr("ml-1m/ratings.dat", RATINGS)
        file.writestr("ml-1m/movies.dat", MOVIES.encode("latin-1"))
    card = json.loads(json.dumps(find_card("ml1m")))
    card.update(name="tiny", aliases=[], expected={}, variants=card["variants"][:1])
    for entry in card["variants"][0]["files"].values():
        del entry["sha256"]
    digest = hashlib.sha256((place / "tiny.zip").read_bytes()).hexdigest()
    card["variants"][0]["archive"] = {"url": "http://127.0.0.1:9/tiny.zip", "checksums": {"sha256": digest}}
    monkeypatch.setattr(sources, "all_cards", lambda: {"tiny": card})
    monkeypatch.setattr(sources, "find_card", lambda name: card)

    by_path = prepare(str(place / "tiny.zip"))
    assert by_path.has_times
    assert tokens_of(by_path, 1) == ["20", "10", "30"]
    checksums = {by_path.checksum}
    for route in ("folder", "mirror address", "owner address"):
        monkeypatch.setenv("RECLLM_CACHE", str(tmp_path / route))
        monkeypatch.delenv("RECLLM_DATA_MIRROR", raising=False)
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(place))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_address[1]}"
            if route == "folder":
                monkeypatch.setenv("RECLLM_DATA_MIRROR", str(place))
            elif route == "mirror address":
                monkeypatch.setenv("RECLLM_DATA_MIRROR", address)
            else:
                card["variants"][0]["archive"]["url"] = f"{address}/tiny.zip"
            checksums.add(prepare("tiny").checksum)
            server.shutdown()
        assert prepare("tiny").checksum in checksums, "the second call needs no network"
    assert len(checksums) == 1
