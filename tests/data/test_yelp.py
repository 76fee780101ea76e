"""What is Yelp's own: how its files come, dates, categories, and stars that must stay out of the text."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from raw_sources import FORMS, Item, Review, mirror, write_lines

from recllm_bench.data.item_texts import ItemTable
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepare.corpus import open_corpus, write_corpus
from recllm_bench.data.prepare.yelp import open_yelp
from recllm_bench.errors import BenchError

__all__ = ["mirror"]  # a fixture
FORM = FORMS["yelp"]
START = 1_400_025_600
REVIEWS = [Review("u1", "b1", START, 4, "One."), Review("u1", "b2", START + 86_400, 2, "Two.")]
BUSINESSES = [Item("b1", "Bar", ("Nightlife", "Bars")), Item("b2", "Caf\xe9", ())]
NAMES = ("yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json")


def archive(path: Path, packed: str = "", prefix: str = "", members: tuple[str, ...] = NAMES) -> Path:
    lines = ((FORM.review(review) for review in REVIEWS), (FORM.item(item) for item in BUSINESSES))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, f"w:{packed}") as file:
        for name, records in zip(members, lines, strict=False):
            data = "".join(json.dumps(record) + "\n" for record in records).encode()
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
        agreement = tarfile.TarInfo(prefix + "Dataset_User_Agreement.pdf")
        file.addfile(agreement, io.BytesIO())
    return path


def assert_read(prepared) -> None:
    assert prepared.catalogue.titles == ["", "Bar", "Caf\xe9"]
    assert prepared.histories.times.tolist() == [START, START + 86_400]
    assert prepared.histories.ratings.tolist() == [4, 2]
    assert prepared.reviews().of([0, 1]) == ["One.", "Two."]


@pytest.mark.parametrize("packed", ["plain", "gz"])
def test_files_on_the_mirror(mirror, packed):
    FORM.make(mirror, REVIEWS, BUSINESSES)
    if packed == "gz":
        for name in NAMES:
            path = mirror / "yelp" / name
            path.with_name(name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    assert_read(prepare("yelp"))
    assert_read(prepare(str(mirror / "yelp")))


@pytest.mark.parametrize("place", ["yelp_dataset.tar", "yelp_dataset/yelp_dataset.tar"])
@pytest.mark.parametrize("packed", ["", "gz"])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_archive_on_the_mirror(mirror, place, packed, prefix):
    archive(mirror / place, packed, prefix)
    assert_read(prepare("yelp"))


@pytest.mark.parametrize(
    ("name", "packed"), [("yelp_dataset.tar", ""), ("yelp_dataset.tar.gz", "gz"), ("yelp_dataset.tgz", "gz")]
)
def test_the_archive_by_its_path(tmp_path, name, packed):
    assert_read(prepare(str(archive(tmp_path / name, packed))))


def test_an_archive_without_the_businesses(mirror):
    archive(mirror / "yelp_dataset.tar", members=NAMES[:1])
    with pytest.raises(BenchError, match=r"has no member yelp_academic_dataset_business\.json"):
        prepare("yelp")


def test_nothing_there(mirror):
    with pytest.raises(BenchError) as caught:
        prepare("yelp")
    said = str(caught.value)
    assert "form at https://business.yelp.com/data/resources/open-dataset/" in said
    assert "yelp/yelp_academic_dataset_review.json and yelp/yelp_academic_dataset_business.json (plain or .gz)" in said
    assert "yelp_dataset.tar as it comes" in said
    assert "RECLLM_DATA_MIRROR" in said
    assert "\n" not in said


def test_dates_with_and_without_a_time_of_day(mirror):
    records = [FORM.review(Review("u", f"b{n}")) for n in range(3)]
    for record, date in zip(records, ("2014-05-14 20:30:31", "2014-05-14", "2014-05-14T09:00:00"), strict=True):
        record["date"] = date
    FORM.make(mirror, [], BUSINESSES)
    write_lines(mirror / FORM.reviews_path, (json.dumps(record).encode() for record in records))
    prepared = prepare("yelp")
    assert prepared.histories.times.tolist() == [START, START + 9 * 3600, START + 20 * 3600 + 30 * 60 + 31]
    assert prepared.catalogue.tokens[1:] == ["b1", "b2", "b0"]


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ("Bars, Nightlife,Food ", ("Bars", "Nightlife", "Food")),
        ("", ()),
        (" , ,", ()),
        (None, ()),
        (["Bars", " Food", ""], ("Bars", "Food")),
        ([], ()),
    ],
)
def test_categories(mirror, categories, expected):
    FORM.make(mirror, REVIEWS, BUSINESSES)
    business = {**FORM.item(BUSINESSES[0]), "categories": categories}
    write_lines(mirror / FORM.items_path, [json.dumps(business).encode()])
    assert prepare("yelp").catalogue.categories[1] == expected


@pytest.mark.parametrize("stars", [3.7, "3.7", None, "good"])
def test_average_stars_stay_out_of_the_text(tmp_path, mirror, stars):
    FORM.make(mirror, REVIEWS)
    business = {**FORM.item(BUSINESSES[0]), "stars": stars, "review_count": 918_273}
    write_lines(mirror / FORM.items_path, [json.dumps(business).encode()])
    catalogue = prepare("yelp").catalogue
    assert catalogue.text(1) == "Bar, Nightlife, Bars, Affton, MO"
    assert not any("3.7" in text or "918273" in text for text in (*catalogue.texts(), *catalogue.descriptions))
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_corpus(folder, open_yelp({"reviews": mirror / FORM.reviews_path, "items": mirror / FORM.items_path}))
    table = open_corpus(folder).text
    assert isinstance(table, ItemTable)
    kept = table.file.take([0], ["token", "city", "state", "stars"]).to_pylist()[0]
    assert (kept["token"], kept["city"], kept["state"]) == ("b1", "Affton", "MO")
    assert kept["stars"] == (pytest.approx(3.7) if stars in (3.7, "3.7") else None)


def test_a_business_with_nothing_but_its_id(mirror):
    FORM.make(mirror, REVIEWS)
    write_lines(
        mirror / FORM.items_path, [b'{"business_id": "b1"}', b'{"business_id": "b2", "name": null, "city": "X"}']
    )
    prepared = prepare("yelp")
    assert prepared.catalogue.texts() == ["", "", "X"]
    assert prepared.facts["items_with_text"] == 0
