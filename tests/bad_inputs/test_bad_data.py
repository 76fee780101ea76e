"""Tables, archives and cards of own data that hold no interactions, through the command that prepares them."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

HEAD = "user_id,item_id,timestamp\n"
GOOD = "".join(f"u{user},m{item},{1000 + item}\n" for user in range(9) for item in range(6))


def parquet(columns: dict[str, list]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "an empty CSV": ("a.csv", lambda: b""),
    "a head alone": ("a.csv", lambda: HEAD.encode()),
    "line ends alone": ("a.csv", lambda: b"\n\n\n"),
    "no such columns": ("a.csv", lambda: b"a,b,c\n1,2,3\n"),
    "no item column": ("a.csv", lambda: b"user_id,timestamp\nu1,5\n"),
    "no user column": ("a.csv", lambda: b"item_id,timestamp\nm1,5\n"),
    "a column twice": ("a.csv", lambda: b"user_id,user_id,item_id\nu1,u1,m1\n"),
    "a row too short": ("a.csv", lambda: (HEAD + GOOD + "u1,m1\n" * 40).encode()),
    "a row too long": ("a.csv", lambda: (HEAD + GOOD + "u1,m1,5,6,7\n" * 40).encode()),
    "times as words": ("a.csv", lambda: (HEAD + "u1,m1,yesterday\n" * 20).encode()),
    "ratings as words": ("a.csv", lambda: ("user_id,item_id,rating\n" + "u1,m1,good\n" * 20).encode()),
    "ratings too large": ("a.csv", lambda: ("user_id,item_id,rating\n" + "u1,m1,1e400\n" * 20).encode()),
    "not UTF-8": ("a.csv", lambda: HEAD.encode() + b"\xff\xfe\xfd,m1,5\n" * 30),
    "a picture": ("a.csv", lambda: b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    "HTML": ("a.csv", lambda: b"<!doctype html><html><body>404 not found</body></html>\n"),
    "JSON": ("a.csv", lambda: json.dumps({"user_id": ["u1"]}).encode()),
    "no gzip": ("a.csv.gz", lambda: b"user_id,item_id\n"),
    "a gzip cut": ("a.csv.gz", lambda: gzip.compress((HEAD + GOOD).encode())[:60]),
    "an empty gzip": ("a.csv.gz", lambda: b""),
    "an empty Parquet": ("a.parquet", lambda: b""),
    "no Parquet": ("a.parquet", lambda: b"PAR1 but no more PAR1"),
    "a Parquet cut": ("a.parquet", lambda: parquet({"user_id": ["a"] * 9, "item_id": ["b"] * 9})[:90]),
    "Parquet without rows": ("a.parquet", lambda: parquet({"user_id": [], "item_id": []})),
    "Parquet of other columns": ("a.parquet", lambda: parquet({"a": [1], "b": [2]})),
    "Parquet without items": ("a.parquet", lambda: parquet({"user_id": [1], "timestamp": [2]})),
    "Parquet of lists": ("a.parquet", lambda: parquet({"user_id": [[1]], "item_id": [[2]], "timestamp": [3]})),
    "Parquet of nulls": ("a.parquet", lambda: parquet({"user_id": [None] * 5, "item_id": [None] * 5})),
    "a zip": ("a.zip", lambda: zipped({"a.txt": b"hello"})),
    "a strange ending": ("a.docx", lambda: b"hello"),
    "no ending": ("plain", lambda: b"hello"),
    "a pickle": ("a.pkl", lambda: b"\x80\x04K\x05."),
}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("verb", ["prepare", "run"])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_without_interactions(refused, tmp_path, kind: str, verb: str) -> None:
    name, content = FILES[kind]
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / name
    path.write_bytes(content())
    extra = ["--filter", "all"] if verb == "prepare" else []
    arguments = ["run", "pop", path, "--alone"] if verb == "run" else ["prepare", path, *extra]
    refused(arguments, Path(name).name.split(".")[0])


FOLDERS: dict[str, dict[str, bytes]] = {
    "empty": {},
    "a text alone": {"readme.txt": b"hello"},
    "atomic without head": {"own.inter": b""},
    "atomic without types": {"own.inter": b"user_id\titem_id\nu1\tm1\n"},
    "atomic with another type": {"own.inter": b"user_id:banana\titem_id:token\nu1\tm1\n"},
    "atomic without rows": {"own.inter": b"user_id:token\titem_id:token\ttimestamp:float\n"},
    "atomic without items": {"own.inter": b"user_id:token\ttimestamp:float\nu1\t5\n"},
    "an item file alone": {"own.item": b"item_id:token\ttitle:token_seq\nm1\tAlien\n"},
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_without_interactions(refused, tmp_path, kind: str) -> None:
    (tmp_path / "own").mkdir()
    for name, content in FOLDERS[kind].items():
        (tmp_path / "own" / name).write_bytes(content)
    refused(["prepare", tmp_path / "own", "--filter", "all"], "own")


CARDS: dict[str, bytes] = {
    "empty": b"",
    "no YAML": b"name: [a\n",
    "a list": b"- a\n",
    "a number": b"5\n",
    "no table": b"name: mine\n",
    "not UTF-8": b"table: own.csv\ntitle: caf\xe9\n",
    "an object": b"table: own.csv\ntitle: !!python/object:os.system {}\n",
    "an unknown key": b"table: own.csv\ntitel: mine\n",
    "filters": b"table: own.csv\nfilters: {mine: {users_min: 5}}\n",
    "a table that is not there": b"table: other.csv\n",
    "a table as a number": b"table: 5\n",
    "a table as a list": b"table: [own.csv]\n",
    "items that are not there": b"table: own.csv\nitems: other.csv\n",
    "a delimiter of three signs": b"table: own.csv\ndelimiter: ';;;'\n",
    "a delimiter as a number": b"table: own.csv\ndelimiter: 5\n",
    "text fields in lists": b"table: own.csv\ntext_fields: [[a]]\n",
    "text fields that are not there": b"table: own.csv\ntext_fields: [nobody]\n",
    "a column that is not there": b"table: own.csv\ncolumns: {user_id: nobody}\n",
    "a column that is none": b"table: own.csv\ncolumns: {user_idd: user_id}\n",
    "columns as text": b"table: own.csv\ncolumns: user\n",
    "columns by number": b"table: own.csv\ncolumns: {5: 6}\n",
    "an unknown encoding": b"table: own.csv\nencoding: utf-99\n",
    "an encoding as a number": b"table: own.csv\nencoding: 5\n",
    "an unknown quoting": b"table: own.csv\nquoting: maybe\n",
    "missing as a mapping": b"table: own.csv\nmissing: {a: b}\n",
    "names too few": b"table: own.csv\nnames: [a]\n",
    "a title as a list": b"table: own.csv\ntitle: [a]\n",
    "a date as a title": b"table: own.csv\ntitle: 2020-01-01\n",
    "an impossible date": b"table: own.csv\ntitle: 2020-13-45\n",
    "a title that holds itself": b"table: own.csv\ntitle: &a [*a]\n",
}


@pytest.mark.parametrize("kind", CARDS)
def test_a_card_that_says_nothing_of_use(refused, tmp_path, kind: str) -> None:
    (tmp_path / "own.csv").write_text(HEAD + GOOD)
    (tmp_path / "own.yaml").write_bytes(CARDS[kind])
    refused(["prepare", tmp_path / "own.yaml"], "own.")
