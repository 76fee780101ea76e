"""Something changed under what was prepared, and it is asked for again: the old answer never comes back."""

from __future__ import annotations

import http.server
import os
import shutil
import threading
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
from own_tables import CSV, write
from raw_sources import FORMS, Item, Review, cards_that_expect_nothing, mirror, write_lines

from recllm_bench import cli
from recllm_bench.artifacts import content_hash, file_hash
from recllm_bench.data.cards import all_cards, default_store
from recllm_bench.data.prepare import prepare, sources
from recllm_bench.data.prepare.bad_lines import VARIABLE
from recllm_bench.errors import BenchError

__all__ = ["mirror"]  # a fixture

# --- downloads -------------------------------------------------------------------------------------------------------


def test_no_two_addresses_share_a_download():
    """Of all cards: where two files are kept in one place, it is because their checksums are the same."""
    places: dict[str, set[str]] = defaultdict(set)
    names: dict[str, set[str]] = defaultdict(set)
    for card in all_cards().values():
        for variant in card["variants"]:
            for entry in variant.get("files", {}).values():
                if url := entry.get("url"):
                    checksums = {"sha256": entry["sha256"]} if "sha256" in entry else {}
                    places[content_hash(sources.download_key(url, checksums))].add(str(checksums or url))
                    names[url.rsplit("/", 1)[1]].add(url)
    assert sum(len(urls) > 1 for urls in names.values()) >= 19, "there are many that share a name"
    assert all(len(urls) == 1 for urls in places.values())


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A folder that is also the address of the mirror."""
    folder = tmp_path / "web"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("RECLLM_DATA_MIRROR", f"http://127.0.0.1:{server.server_address[1]}")
        yield folder
        server.shutdown()


def test_two_editions_with_files_of_one_name(web, monkeypatch):
    """Each edition gets its own titles, in whatever order they are asked for."""
    cards_that_expect_nothing(monkeypatch)
    for year in ("2014", "2018"):
        form = FORMS[f"amazon-{year}"]
        form.make(web, [Review(item="i1")], [Item("i1", f"Edition {year}")])
    titles = {year: prepare(FORMS[f"amazon-{year}"].dataset).catalogue.titles[1] for year in ("2014", "2018", "2014")}
    assert titles == {"2014": "Edition 2014", "2018": "Edition 2018"}


def test_a_wrong_download_does_not_stay(web, tmp_path, monkeypatch):
    """The mend of a wrong checksum is to get the file again: the wrong one must not be what is found then."""
    good = "1 2 3\n2 3 4\n"
    path, digest = write(web / "s.txt", "cut"), file_hash(write(tmp_path / "good", good))
    card = {
        **{"name": "tiny", "title": "Tiny", "domain": "item", "reader": "sequences", "filters": {"all": {}}},
        "licence": {"name": "free", "notice": ""},
        "variants": [
            {
                "name": "own",
                "files": {"sequences": {"path": "s.txt", "sha256": [digest]}},
            }
        ],
    }
    monkeypatch.setattr(sources, "find_card", lambda name: card)
    with pytest.raises(BenchError, match=r"s\.txt: wrong checksum"):
        prepare("tiny")
    path.write_text(good)
    assert prepare("tiny").facts["users"] == 2


# --- large files whose time stamps were kept -------------------------------------------------------------------------


def rewrite_in_place(path: Path, text: str) -> None:
    stat = path.stat()
    path.write_text(text)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace_by_copy(path: Path, text: str) -> None:
    other = path.with_name("other")
    other.write_text(text)
    shutil.copystat(path, other)
    os.replace(other, path)


def copy_over(path: Path, text: str) -> None:
    other = path.with_name("other")
    other.write_text(text)
    shutil.copystat(path, other)
    shutil.copy2(other, path)


def patch_bytes(path: Path, text: str) -> None:
    stat = path.stat()
    with open(path, "r+") as file:
        file.write(text)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [rewrite_in_place, replace_by_copy, copy_over, patch_bytes])
@pytest.mark.parametrize("settled_ns", [0, sources._SETTLED_NS], ids=["settled", "young"])
def test_a_large_file_changed_with_its_time_kept(tmp_path, monkeypatch, change, settled_ns):
    monkeypatch.setattr(sources, "_LARGE", 1)
    monkeypatch.setattr(sources, "_SETTLED_NS", settled_ns)
    path = write(tmp_path / "mine.csv", CSV)
    first, stamp = prepare(str(path)), path.stat().st_mtime_ns
    change(path, CSV.replace("u2,a", "u2,b"))
    assert path.stat().st_mtime_ns == stamp
    assert path.stat().st_size == len(CSV)
    second = prepare(str(path))
    assert second.checksum != first.checksum
    assert second.facts["sources"]["table"]["sha256"] == file_hash(path)


def test_an_untouched_large_file_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LARGE", 1)
    monkeypatch.setattr(sources, "_SETTLED_NS", 0)
    path, read = write(tmp_path / "mine.csv", CSV), []
    monkeypatch.setattr(sources, "file_hash", lambda path: read.append(path) or file_hash(path))
    assert {sources._hash(path, default_store()) for _ in range(3)} == {file_hash(path)}
    assert len(read) == 1
    os.chmod(path, 0o600)  # moves the time of the inode: hashed once more, and the same
    assert sources._hash(path, default_store()) == file_hash(path)
    assert len(read) == 2


def test_a_young_file_and_one_that_changes_meanwhile_are_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_LARGE", 1)
    path = write(tmp_path / "mine.csv", CSV)
    sources._hash(path, default_store())
    assert not (default_store().root / "checksum").exists()
    monkeypatch.setattr(sources, "_SETTLED_NS", 0)
    monkeypatch.setattr(sources, "file_hash", lambda path: (file_hash(path), path.write_text(CSV + "\n"))[0])
    sources._hash(path, default_store())
    assert not (default_store().root / "checksum").exists()


# --- bad lines that somebody let through -----------------------------------------------------------------------------


def planted(mirror: Path, bad: int = 6) -> str:
    form = FORMS["amazon-2018"]
    reviews = [Review(user=f"u{row % 7}", item=f"i{row % 11}", time=1_400_000_000 + row) for row in range(60)]
    path = form.make(mirror, reviews, [Item("i1")])
    write_lines(path, [*(form.line(review) for review in reviews), *([b"garbage"] * bad)])
    return form.dataset


def test_a_lenient_answer_is_never_served_to_a_strict_call(mirror):
    dataset = planted(mirror)
    with pytest.raises(BenchError, match=r"6 of 66 lines are bad, more than the 0\.1 %"):
        prepare(dataset)
    lenient = prepare(dataset, most_bad=0.5)
    assert lenient.facts["noticed"]["lines skipped in reviews"] == 6
    for filter in ("all", "users_min=2"):  # what is prepared, and what is prepared anew from the same corpus
        for share in (None, 0.0, 0.0001, 0.09):
            with pytest.raises(BenchError, match=r":61: .*; 6 of 66 lines are bad, more than the .*--bad-lines"):
                prepare(dataset, filter, most_bad=share)
    for share in (0.5, 0.1, 1.0):
        assert prepare(dataset, most_bad=share).folder == lenient.folder, "nothing is read twice"
    assert prepare(dataset, "users_min=2", most_bad=0.1).facts["interactions"] == 60


def test_the_environment_lets_lines_through_for_every_command(mirror, monkeypatch, capsys):
    dataset = planted(mirror)
    monkeypatch.setenv(VARIABLE, "0.1")
    assert prepare(dataset).facts["interactions"] == 60
    assert cli.main(["describe", dataset]) == 0
    assert cli.main(["prepare", dataset, "--filter", "all", "--bad-lines", "0.01"]) == 2, "what is said wins"
    monkeypatch.delenv(VARIABLE)
    capsys.readouterr()
    assert cli.main(["describe", dataset]) == 2
    assert f"{VARIABLE} for every command" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["-1", "nan", "1.5", "inf", "-0.001"])
@pytest.mark.parametrize("dataset", ["ml-100k", "own"])
def test_an_impossible_share_is_refused_whatever_the_data(tmp_path, monkeypatch, capsys, share, dataset):
    name = str(write(tmp_path / "own.csv", CSV)) if dataset == "own" else dataset
    assert cli.main(["prepare", name, f"--bad-lines={share}"]) == 2
    assert "--bad-lines is the share of lines that may be bad, a number from 0 to 1, got" in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, share)
    assert cli.main(["prepare", name]) == 2
    assert f"{VARIABLE} is the share of lines" in capsys.readouterr().err
    monkeypatch.setenv(VARIABLE, "few")
    assert cli.main(["prepare", name]) == 2


def test_one_bad_line_of_a_few_is_more_than_the_share(mirror):
    with pytest.raises(BenchError, match=r"1 of 61 lines are bad, more than the 0\.1 %"):
        prepare(planted(mirror, bad=1))
