"""Prices as shops write them, and makers and prices on their way into a catalogue; what is no price is none."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from own_tables import prepared_by_card
from raw_sources import FORMS, Item, Review, mirror, write_lines

from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.prepare import prepare
from recllm_bench.data.prepare.prices import price_of
from recllm_bench.data.storage import save_prepared
from tests.conftest import planted_catalogue, planted_histories

__all__ = ["mirror"]  # a fixture
SCRAP = ".a-box-inner{background-color:#fff}#alohaBuyBoxWidget .selected{font-size:12px}"


@pytest.mark.parametrize(
    ("written", "price"),
    [
        ("$25.00", 25.0),
        ("$1,299.99", 1299.99),
        ("1.299,99 €", 1299.99),
        ("12,5", 12.5),
        ("from 14.99", 14.99),
        ("US$ 3.99", 3.99),
        ("$10.00 - $25.00", 10.0),
        ("$10.00–$25.00", 10.0),
        ("£7 to £9", 7.0),
        ("  5 ", 5.0),
        ("1,000,000", 1e6),
        (".99", 0.99),
        (19, 19.0),
        (4.99, 4.99),
        (0, 0.0),
        ("Free to Play", 0.0),
        ("free", 0.0),
        *((wrong, None) for wrong in ("", None, "None", "—", "-5.00", "$-5.00", -5, -0.01, True, SCRAP)),
        *((wrong, None) for wrong in ("Freedom", "12 34", "1,29,9", "10.00.00", "call us: 555 1234", "$", "two", "5%")),
        *((wrong, None) for wrong in (math.nan, math.inf, "inf", "nan", "1e5", "99999999999", 10**400, [4.99], {})),
        *((wrong, None) for wrong in ("٣", "$9.99 $8.99", "<b>$9.99</b>", "9" * 400, "1_000")),
    ],
)
def test_what_a_price_is(written, price):
    assert price_of(written) == price


@pytest.mark.parametrize(
    ("name", "maker"), [("amazon-2014", "brand"), ("amazon-2018", "brand"), ("amazon-2023", "store")]
)
def test_makers_and_prices_of_amazon(mirror, name, maker):
    form = FORMS[name]
    form.make(mirror, [Review("u1", token) for token in "abcde"], [])
    said = [
        {maker: "by Fender &amp; Sons", "price": "$1,299.99" if name == "amazon-2018" else 1299.99},
        {maker: "<img src=x>", "price": SCRAP},
        {maker: None, "price": None},
        {maker: ["Fender"], "price": "$10.00 - $25.00"},
    ]
    write = repr if name == "amazon-2014" else json.dumps
    entries = ({**form.item(Item(token)), **own} for token, own in zip("abcd", said, strict=True))
    write_lines(mirror / form.items_path, (write(entry).encode() for entry in entries))
    found = prepare(form.dataset).catalogue
    ids = [found.tokens.index(token) for token in "abcde"]
    assert [found.brands[item] for item in ids] == ["Fender & Sons", "", "", "", ""]
    assert found.prices is not None and found.prices.dtype == np.float32
    assert found.prices[ids].tolist() == pytest.approx([1299.99, math.nan, math.nan, 10.0, math.nan], nan_ok=True)
    assert "Fender" not in found.text(ids[0]), "what an encoder reads is what it was"


def test_makers_and_prices_of_steam(mirror):
    form = next(form for name, form in FORMS.items() if form.dataset == "steam")
    form.make(mirror, [Review("u1", token) for token in ("1", "2")], [])
    games = (
        {"id": "1", "title": "A", "developer": "Valve", "price": 4.99},
        {"id": "2", "title": "B", "price": "Free To Play"},
    )
    write_lines(mirror / form.items_path, (repr(game).encode() for game in games))
    found = prepare(form.dataset).catalogue
    assert sorted(zip(found.tokens, found.brands, found.prices.tolist(), strict=True))[1:] == [
        ("1", "Valve", pytest.approx(4.99)),
        ("2", "", 0.0),
    ]


def test_makers_and_prices_of_a_table_of_ones_own(tmp_path):
    found = prepared_by_card(
        tmp_path,
        "table: t.csv\nitems: i.csv\n",
        t_csv="user,item\nu,a\nu,b\nu,c\n",
        i_csv='item,title,Brand,price\na,A,Fender,"$1,299.99"\nb,B,N/A,ask us\nc,C,Gibson,7\n',
    ).catalogue
    assert dict(zip(found.tokens, found.brands, strict=True)) == {"": "", "a": "Fender", "b": "", "c": "Gibson"}
    assert found.prices.tolist() == pytest.approx([math.nan, 1299.99, math.nan, 7.0], nan_ok=True)


def test_a_source_without_them_keeps_its_checksum_and_one_with_them_gets_another(tmp_path):
    histories, shelf = planted_histories(20, 30, 5), planted_catalogue(30)

    def checksum(name: str, catalogue: Catalogue) -> str:
        (tmp_path / name).mkdir()
        save_prepared(tmp_path / name, histories, catalogue, [""] * 21, {})
        return json.loads((tmp_path / name / "facts.json").read_text())["checksum"]

    fields = {name: getattr(shelf, name) for name in Catalogue.__dataclass_fields__}
    prices = np.arange(31, dtype=np.float32)
    plain = checksum("plain", shelf)
    assert plain == "bbf4dd37354afefc", "as it was before makers and prices were read"
    others = [
        checksum("made", Catalogue(**{**fields, "brands": ["", *["Fender"] * 30]})),
        checksum("sold", Catalogue(**{**fields, "prices": prices})),
        checksum("dearer", Catalogue(**{**fields, "prices": prices + 1})),
    ]
    assert len({plain, *others}) == 4
