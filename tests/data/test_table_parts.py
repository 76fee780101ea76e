"""Tables in parts, prepared under filters of which some leave nothing, by the command as people type it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from own_tables import CSV, ROWS, prepared_by_card, told, write

from recllm_bench import cli
from recllm_bench.data.cards import hide_card_folder
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepare.table_files import table_files
from recllm_bench.data.prepare.tables import read_table
from recllm_bench.errors import BenchError

CHECKOUT = Path(cli.__file__).resolve().parents[2]


def part(path: Path, rows: list[tuple], **types) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = dict(zip(("user", "item", "rating", "time"), zip(*rows, strict=True), strict=True))
    parquet.write_table(
        pa.table({name: pa.array(list(values), types.get(name)) for name, values in columns.items()}), path
    )
    return path


# --- folders of parts ------------------------------------------------------------------------------------------------


def test_a_folder_of_parquet_parts_is_one_table(tmp_path):
    folder = tmp_path / "sales"
    part(folder / "part-00001.parquet", ROWS[1:])
    part(folder / "part-00000.parquet", ROWS[:1])
    write(folder / "_SUCCESS", "")
    write(folder / ".part-00000.parquet.crc", "x")
    write(folder / "_delta_log/0.checkpoint.parquet", "no part")
    write(folder / "items.csv", "item,title\na,Alpha\nb,Beta\n")
    assert told(read_table(table_files(folder))) == ROWS
    prepared = prepare(str(folder))
    assert (prepared.name, prepared.catalogue.titles) == ("sales", ["", "Alpha", "Beta"])
    whole = prepare(str(write(tmp_path / "one/sales.csv", CSV)))
    assert prepared.histories.times.tolist() == whole.histories.times.tolist()
    part(folder / "part-00002.parquet", [("u3", "a", 1.0, 978300761)])
    assert prepare(str(folder)).facts["users"] == 3, "a part more is other data"
    card = prepared_by_card(tmp_path, "table: sales\nitems: null\n")
    assert card.facts["items_with_text"] == 0


def test_an_id_that_changes_its_type_between_parts(tmp_path):
    part(tmp_path / "p/a.parquet", [(1, 7, 4.0, 978300760)])
    part(tmp_path / "p/b.parquet", [(1.0, "7", 4.0, 978300761)], user=pa.float64())
    part(tmp_path / "p/c.parquet", [("1", 7, 4.0, 978300762)], item=pa.int16())
    prepared = prepare(str(tmp_path / "p"))
    assert (prepared.facts["users"], prepared.facts["items"]) == (1, 1)


def test_other_parts_and_folders_in_folders(tmp_path):
    write(tmp_path / "p/part-0.csv", CSV)
    write(tmp_path / "p/part-1.csv", "user,item,rating,time\nu9,b,1,978300761\n")
    assert prepare(str(tmp_path / "p")).facts["users"] == 3
    part(tmp_path / "h/year=2000/x.parquet", ROWS[:2])
    part(tmp_path / "h/year=2001/x.parquet", ROWS[2:])
    assert prepare(str(tmp_path / "h")).facts["interactions"] == 3


def test_positions_are_judged_over_all_parts(tmp_path):
    part(tmp_path / "p/a.parquet", [("u", "a", 1.0, 0)])
    part(tmp_path / "p/b.parquet", [("u", "b", 1.0, 978300760)])
    assert prepare(str(tmp_path / "p")).has_times
    part(tmp_path / "p/b.parquet", [("u", "b", 1.0, 9)])
    assert not prepare(str(tmp_path / "p")).has_times


def test_parts_that_do_not_belong_together(tmp_path):
    part(tmp_path / "p/a.parquet", ROWS)
    parquet.write_table(pa.table({"movie": ["a"], "title": ["Alpha"]}), tmp_path / "p/b.parquet")
    with pytest.raises(BenchError, match=r"p/b\.parquet:1: no user column among movie, title"):
        prepare(str(tmp_path / "p"))
    parquet.write_table(pa.table({"user": ["a"], "item": ["b"]}), tmp_path / "p/b.parquet")
    with pytest.raises(BenchError, match=r"p: some parts have a time column and some have none"):
        prepare(str(tmp_path / "p"))
    part(tmp_path / "p/b.parquet", [("u", None, 4.0, 978300760)])
    with pytest.raises(BenchError, match=r"p/b\.parquet:1: the item id is empty"):
        prepare(str(tmp_path / "p"))
    write(tmp_path / "p/b.parquet", b"PAR1 cut")
    with pytest.raises(BenchError, match=r"p/b\.parquet: not a readable Parquet file"):
        prepare(str(tmp_path / "p"))
    with pytest.raises(BenchError, match=r"has no \.inter file .* and no Parquet file; it holds other\.txt"):
        prepare(str(write(tmp_path / "q/other.txt", "x").parent))
    write(tmp_path / "m/part-0.csv", CSV)
    write(tmp_path / "m/part-1.tsv", CSV)
    with pytest.raises(BenchError, match=r"m: parts of several kinds \(\.csv, \.tsv\)"):
        prepare(str(tmp_path / "m"))


# --- one filter that leaves nothing ----------------------------------------------------------------------------------


def test_a_filter_that_leaves_nothing_does_not_stop_the_others(tmp_path, capsys):
    path = write(tmp_path / "mine.csv", CSV.replace(",5,", ",2,"))
    assert cli.main(["prepare", str(path)]) == 0
    shown = capsys.readouterr().out
    for name in ("all", "cesrec"):
        assert f"mine (mine), filter {name}, variant table" in shown
    assert (
        "mine, 3 interactions: the filter 'latentcrs' (min_rating=4, users_min=5) leaves no interaction; lower "
        "min_rating or users_min"
    ) in shown
    assert "the filter 'relrec' (min_rating=3, users_min=5) leaves no interaction" in shown
    assert shown.index("'latentcrs'") < shown.index("filter cesrec")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("latentcrs", "the filter 'latentcrs' (min_rating=4, users_min=5) leaves no interaction; lower min_rating or"),
        ("users_min=9", "the filter 'users_min=9' leaves no interaction; lower users_min"),
        ("min_rating=6,items_min=2", "the filter 'min_rating=6,items_min=2' (min_rating=6, items_min=2) leaves no"),
    ],
)
def test_a_filter_that_was_asked_for_must_leave_something(tmp_path, capsys, asked, said):
    assert cli.main(["prepare", str(write(tmp_path / "mine.csv", CSV)), "--filter", asked]) == 2
    assert said in capsys.readouterr().err


def test_describe_refuses_a_folder_before_it_works(tmp_path, capsys):
    assert cli.main(["describe", str(write(tmp_path / "mine.csv", CSV)), "--json", str(tmp_path)]) == 2
    assert f"--json names a file, but {tmp_path} is a folder" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


# --- the folder of cards is no package -------------------------------------------------------------------------------

LOOK = """
import importlib.util, sys
from recllm_bench import cli
assert cli.main(["datasets", "ml-100k"]) == 0
spec = importlib.util.find_spec("datasets")
print("FOUND", None if spec is None else spec.origin)
"""


def look(folder: Path, *path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run([sys.executable, "-c", LOOK], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))[6:]


@pytest.mark.parametrize("path", [(), (CHECKOUT,)], ids=["from the root", "root on PYTHONPATH"])
def test_the_cards_are_not_taken_for_a_package(tmp_path, path):
    """``python -c`` and ``python -m`` put the current folder first on the path."""
    found = look(CHECKOUT if not path else tmp_path, *path)
    assert found == "None" or Path(found).name == "__init__.py", "nothing, or the real package where it is installed"


def test_the_real_package_stays(tmp_path):
    real = write(tmp_path / "site/datasets/__init__.py", "")
    assert look(CHECKOUT, CHECKOUT, real.parent.parent) == str(real)


def test_somebody_elses_folder_of_this_name_stays(tmp_path, monkeypatch):
    write(tmp_path / "datasets/mine/x.py", "")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    hide_card_folder()
    assert "datasets" not in sys.modules
