"""A user's small YAML card of a table of their own: where it lies, in which form, and what its columns mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recllm_bench.data.cards import read_yaml, user_card
from recllm_bench.data.prepare.column_names import COLUMNS, ITEM_COLUMNS, TEXT_COLUMNS, check_map
from recllm_bench.data.prepare.delimited import QUOTING
from recllm_bench.data.prepare.table_files import exists, table_files
from recllm_bench.data.prepare.textfiles import read_bytes
from recllm_bench.errors import BenchError, nearest

_WORDS = ("name", "title", "domain", "table", "items", "encoding", "item_encoding", "quoting")
_DELIMITERS = ("delimiter", "item_delimiter")
_LISTS = ("names", "item_names", "missing", "text_fields")
_MAPS = {"columns": COLUMNS, "item_columns": ITEM_COLUMNS}
_OPTIONS = ("columns", "item_columns", "encoding", "item_encoding", "quoting", *_DELIMITERS, *_LISTS[:3])
_KEYS = (*_WORDS, *_DELIMITERS, *_LISTS, *_MAPS)
_SPELLED = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "\\x01": "\x01"}


def own_card(path: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Read a user's card of a table.

    Returns
    -------
    card : dict
        A card as :func:`recllm_bench.data.cards.user_card` makes it, with ``options`` for
        :func:`recllm_bench.data.prepare.tables.read_table`.
    files : dict of str to Path
        ``table`` (and its further parts), and ``items`` when there is one; paths in the card are relative to its
        folder. ``items: null`` leaves out a table of items that lies beside.

    Raises
    ------
    BenchError
        For broken YAML, unknown keys, values of another kind, and files that do not exist.
    """
    said = read_yaml(path, read_bytes(path))
    if not isinstance(said, dict) or said.get("table") is None:
        raise BenchError(f"{path}: a card of your own data needs 'table: file.csv', the table of interactions")
    _check(path, said)
    table = path.parent / Path(said["table"]).expanduser()
    if not exists(table):
        raise BenchError(f"{path}: table: no such file: {table}")
    files = table_files(table)
    if "items" in said:
        files.pop("items", None)
    if said.get("items") is not None:
        files["items"] = path.parent / Path(said["items"]).expanduser()
        if not exists(files["items"]) or files["items"].is_dir():
            raise BenchError(f"{path}: items: no such file: {files['items']}")
    card = user_card(str(said.get("name") or path.stem), "table")
    card["title"] = str(said.get("title") or card["name"])
    card["domain"] = str(said.get("domain") or card["domain"])
    if said.get("text_fields") is not None:
        card["text_fields"] = said["text_fields"]
    card["options"] = {name: said[name] for name in _OPTIONS if said.get(name) or said.get(name) == []}
    for name in _DELIMITERS:
        if name in card["options"]:
            card["options"][name] = _SPELLED.get(said[name], said[name])
    return card, files


def _check(path: Path, said: dict[Any, Any]) -> None:
    for key, value in said.items():
        if key not in _KEYS:
            raise BenchError(f"{path}: unknown key {key!r}.{nearest(str(key), _KEYS)}")
        if value is None:
            continue
        if key in _MAPS:
            check_map(path, key, value, _MAPS[key])
        elif key in _LISTS:
            texts = isinstance(value, list) and all(isinstance(part, str) for part in value)
            if key == "text_fields" and (not texts or not value or any(part not in TEXT_COLUMNS for part in value)):
                wrong = [part for part in value if part not in TEXT_COLUMNS] if texts else value
                raise BenchError(f"{path}: text_fields is a list of {', '.join(TEXT_COLUMNS)}, not {wrong}")
            if not texts or (key != "missing" and len(set(value)) < max(len(value), 1)):
                raise BenchError(
                    f"{path}: {key} is a list of texts, each once, such as [{_EXAMPLES[key]}]; got {value!r}"
                )
        elif key in _DELIMITERS:
            if isinstance(value, str) and value in _SPELLED:
                continue
            if not isinstance(value, str) or not 0 < len(value) <= 8 or any(sign in value for sign in '"\r\n'):
                raise BenchError(f"{path}: {key} is one sign or a few in quotes, such as ';' or '::', not {value!r}")
            if any(sign.isalnum() for sign in value):
                raise BenchError(f"{path}: {key} is no letter and no digit, such as ';' or '::', not {value!r}")
        elif not isinstance(value, (str, int, float)) or (key not in _WORDS[:3] and not isinstance(value, str)):
            raise BenchError(f"{path}: {key} is a text, not {value!r}")
    if said.get("quoting") is not None and said["quoting"] not in QUOTING:
        raise BenchError(f"{path}: quoting is one of {', '.join(QUOTING)}, not '{said['quoting']}'")


_EXAMPLES = {"names": "user_id, item_id", "item_names": "item_id, title", "missing": "NA, unknown"}
