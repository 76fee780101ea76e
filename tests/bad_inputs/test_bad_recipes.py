"""Recipe and sweep files that hold no recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

HEAD = "model: sasrec\ndataset: {shop}\n"
FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "a recipe is a mapping"),
    "a list": ("- model: sasrec\n", "a recipe is a mapping"),
    "a word": ("sasrec\n", "a recipe is a mapping"),
    "a number": ("5\n", "a recipe is a mapping"),
    "not UTF-8": (b"model: sasrec\ndataset: caf\xe9\n", ":2: not UTF-8"),
    "UTF-16": ("model: sasrec\n".encode("utf-16"), "not UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00", "not UTF-8"),
    "a NUL": ("model: sas\x00rec\n", "not valid YAML"),
    "an open list": (HEAD + "compare: [pop\n", "not valid YAML"),
    "an open mapping": (HEAD + "options: {hidden_size: 8\n", "not valid YAML"),
    "an open quote": (HEAD + "budget: 'half\n", "not valid YAML"),
    "a tab": (HEAD + "options:\n\thidden_size: 8\n", "not valid YAML"),
    "wrong indent": (HEAD + "options:\n  a: 1\n b: 2\n", "not valid YAML"),
    "an unknown alias": (HEAD + "options: *other\n", "not valid YAML"),
    "an object": (HEAD + "options: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
    "an unknown tag": (HEAD + "options: !mine {a: 1}\n", "not valid YAML"),
    "two documents": (HEAD + "---\nmodel: pop\n", "not valid YAML"),
    "a list that holds itself": (HEAD + "compare: &a [*a]\n", "contains itself"),
    "a mapping that holds itself": (HEAD + "options: &a {b: *a}\n", "contains itself"),
    "a budget that holds itself": (HEAD + "budget: &a [*a]\n", "contains itself"),
    "nested deep": (HEAD + "options: " + "[" * 2000 + "]" * 2000 + "\n", "nested"),
    "aliases of aliases": (
        HEAD + "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in ("ab", "bc", "cd", "de", "ef", "fg")
        ),
        "not valid YAML",
    ),
    "a key twice": (HEAD + "seed: 1\nseed: 2\n", "twice"),
    "an option twice": (HEAD + "options: {hidden_size: 8, hidden_size: 9}\n", "twice"),
    "no seeds": (HEAD + "seeds: 0\n", "seeds must be a number from 1"),
    "too many seeds": (HEAD + "seeds: 1000000\n", "seeds must be a number from 1"),
    "seeds as words": (HEAD + "seeds: many\n", "seeds is a number such as 5"),
    "an empty list of seeds": (HEAD + "seeds: []\n", "seeds is a number such as 5"),
    "a seed of seeds twice": (HEAD + "seeds: [1, 2, 1]\n", "name each seed once"),
    "seeds beyond the last": (HEAD + "seed: 4294967295\nseeds: 2\n", "seed must be a whole number"),
    "seeds of one row": (HEAD + "compare: [{model: pop, seeds: 3}]\n", "'seeds' stands for several runs"),
    "a number as a key": (HEAD + "5: 6\n", "5 is not text"),
    "null as a key": (HEAD + "null: 6\n", "not text"),
    "a date as a key": (HEAD + "2020-01-01: 6\n", "2020-01-01 is not text"),
    "true as a key": (HEAD + "true: 6\n", "true is not text"),
    "a list as a key": (HEAD + "? [a]\n: 6\n", "not text"),
    "a number as an option": (HEAD + "options: {5: 6}\n", "5 is not text"),
    "an impossible date": (HEAD + "options: {dropout: 2020-13-45}\n", "not valid YAML"),
    "a date as an option": (HEAD + "options: {dropout: 2020-01-01}\n", "dropout"),
    "a date in training": (HEAD + "training: {learning_rate: 2020-01-01}\n", "learning_rate"),
    "bytes as an option": (HEAD + "options: {activation: !!binary aGVsbG8=}\n", "activation"),
    "a set as an option": (HEAD + "options: {activation: !!set {a: null}}\n", "activation"),
    "a long number": (HEAD + "options: {hidden_size: " + "9" * 5000 + "}\n", "not valid YAML"),
    "a large number": (HEAD + "options: {hidden_size: 99999999999}\n", "hidden_size"),
    "no model": ("dataset: ml-100k\n", "'model' is missing"),
    "no dataset": ("model: sasrec\n", "'dataset' is missing"),
    "an empty model": ("model:\ndataset: ml-100k\n", "'model' is missing"),
    "a number as a model": ("model: 5\ndataset: ml-100k\n", "'model' must be a name"),
    "a list as a model": ("model: [sasrec]\ndataset: ml-100k\n", "'model' must be a name"),
    "a date as a dataset": ("model: sasrec\ndataset: 2020-01-01\n", "'dataset' must be a name"),
    "an unknown model": ("model: sasrek\ndataset: ml-100k\n", "Did you mean 'sasrec'?"),
    "an unknown dataset": ("model: sasrec\ndataset: ml-10k\n", "Did you mean 'ml-100k'?"),
    "an unknown key": (HEAD + "optoins: {}\n", "Did you mean 'options'?"),
    "an unknown option": (HEAD + "options: {hiden_size: 8}\n", "Did you mean 'hidden_size'?"),
    "an unknown training option": (HEAD + "training: {epcohs: 8}\n", "Did you mean 'epochs'?"),
    "an unknown talk option": (HEAD + "conversation: {usres: 8}\n", "Did you mean 'users'?"),
    "an unknown protocol": (HEAD + "protocol: unified.ful\n", "Did you mean 'unified.full'?"),
    "options as a list": (HEAD + "options: [hidden_size]\n", "options"),
    "options as text": (HEAD + "options: abc\n", "options"),
    "training as a number": (HEAD + "training: 5\n", "training"),
    "training as false": (HEAD + "training: false\n", "training"),
    "conversation as a list": (HEAD + "conversation: [rules]\n", "conversation"),
    "a seed as text": (HEAD + "seed: many\n", "seed"),
    "a seed as a list": (HEAD + "seed: [1, 2]\n", "seed"),
    "a seed too large": (HEAD + "seed: 4294967296\n", "seed"),
    "a negative seed": (HEAD + "seed: -3\n", "seed"),
    "a budget as a mapping": (HEAD + "budget: {a: 1}\n", "budget"),
    "a protocol as a list": (HEAD + "protocol: [unified.full]\n", "protocol"),
    "a device as a number": (HEAD + "device: 0\n", "device"),
    "quick as true": (HEAD + "quick: true\n", "quick"),
    "modules as text": (HEAD + "modules: mine.py\n", "modules"),
    "modules as a number": (HEAD + "modules: 5\n", "modules"),
    "modules of numbers": (HEAD + "modules: [5]\n", "modules"),
    "a module that is not there": (HEAD + "modules: [nowhere.py]\n", "nowhere.py"),
    "rows to compare as text": (HEAD + "compare: pop\n", "compare"),
    "a number to compare with": (HEAD + "compare: [5]\n", "compare"),
    "a row without a model": (HEAD + "compare: [{label: x}]\n", "compare"),
    "a row with a number": (HEAD + "compare: [{model: 5}]\n", "compare"),
    "a row with a list of options": (HEAD + "compare: [{model: pop, options: [a]}]\n", "options"),
    "a label as a list": (HEAD + "compare: [{model: pop, label: [a]}]\n", "label"),
    "an unknown row": (HEAD + "compare: [grru4rec]\n", "Did you mean 'GRU4Rec'?"),
    "a base that is not there": ("base: sasrec-ml100k\n", "Did you mean 'sasrec-ml-100k'?"),
    "a base as a list": ("base: [sasrec-ml-100k]\n", "base"),
    "a base as a number": ("base: 5\n", "base"),
    "a base as a folder": ("base: .\n", "folder"),
}  # fmt: skip
SWEEPS: dict[str, tuple[str, str]] = {
    "no rows": (HEAD, "a sweep needs 'rows'"),
    "empty rows": (HEAD + "rows: []\n", "a sweep needs 'rows'"),
    "rows as text": (HEAD + "rows: abc\n", "a sweep needs 'rows'"),
    "rows as a mapping": (HEAD + "rows: {options: {intents: 4}}\n", "a sweep needs 'rows'"),
    "a row as text": (HEAD + "rows: [abc]\n", "each row of a sweep is a mapping"),
    "a row as a number": (HEAD + "rows: [5]\n", "each row of a sweep is a mapping"),
    "an empty row": (HEAD + "rows: [null]\n", "each row of a sweep is a mapping"),
    "a row of options as text": (HEAD + "rows: [{options: abc}]\n", "options"),
    "options below as text": (HEAD + "options: abc\nrows: [{options: {hidden_size: 8}}]\n", "options"),
    "an unknown key in a row": (HEAD + "rows: [{optoins: {}}]\n", "Did you mean 'options'?"),
    "an unknown option in a row": (HEAD + "rows: [{options: {hiden_size: 8}}]\n", "Did you mean 'hidden_size'?"),
    "an unknown model in a row": (HEAD + "rows: [{model: sasrek}]\n", "Did you mean 'sasrec'?"),
    "a bad seed in a row": (HEAD + "rows: [{seed: many}]\n", "seed"),
    "a label as a mapping": (HEAD + "rows: [{label: {a: 1}}]\n", "label"),
    "a published table that is not there": (HEAD + "published: no.such\nrows: [{seed: 1}]\n", "no.such"),
    "a published table as a list": (HEAD + "published: [a]\nrows: [{seed: 1}]\n", "published"),
}


def written(folder: Path, content: str | bytes, shop: Path) -> Path:
    path = folder / "mine.yaml"
    data = content if isinstance(content, bytes) else content.replace("{shop}", str(shop)).encode()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_recipe(refused, shop, tmp_path, kind: str) -> None:
    content, said = FILES[kind]
    path = written(tmp_path, content, shop)
    line = refused(["run", "--recipe", path], said)
    names_the_row = ("a row with a list of options", "an unknown row")
    if kind not in (*names_the_row, "an unknown model", "an unknown dataset", "an unknown protocol", "an unknown row"):
        assert "mine.yaml" in line or "nowhere.py" in line or "folder" in line or "base" in kind


@pytest.mark.parametrize("kind", SWEEPS)
def test_a_file_that_is_no_sweep(refused, shop, tmp_path, kind: str) -> None:
    content, said = SWEEPS[kind]
    refused(["sweep", written(tmp_path, content, shop)], said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", ""], "no recipe ''"),
        (["run", "--recipe", ""], "no recipe ''"),
        (["sweep", "latentcrs-ml1m-abblations"], "Did you mean 'latentcrs-ml1m-ablations'?"),
        (["sweep", "/no/such/sweep.yaml"], "/no/such/sweep.yaml"),
        (["sweep", "."], "folder"),
        (["run", "--recipe", "/etc"], "folder"),
        (["run", "--recipe", "a\nb"], "no recipe"),
        (["run", "--recipe", "x" * 5000], "no recipe"),
    ],
)
def test_a_recipe_that_is_not_there(refused, arguments: list[str], said: str) -> None:
    refused(arguments, said)


def test_a_recipe_that_is_its_own_base(refused, tmp_path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    refused(["run", "--recipe", "a.yaml"], "its own base")
