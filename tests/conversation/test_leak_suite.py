"""The guard on titles written in every way that people write them, and on what people really say."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest

from recllm_bench.conversation.redaction import Redactor, number_in_words, other_spellings
from recllm_bench.conversation.spoken import spoken_title
from recllm_bench.data.catalogue import Catalogue

INVENTED = (
    "Lantern at Midnight, The", "Garden of Iron Birds, The", "Seven Quiet Rivers", "Tollkeeper II", "Mister Umbrella",
    "12 Candles", "Hollow Star: A Sailor's Return", "Queen of the Salt Marsh, The", "Kestrel", "Moons (Papirmaner)",
    "Three Wagons West", "1984 Winters", "Café Cordoba", "Night Ferry & Other Tales", "Orchard Street Irregulars",
    "Copper Canyon Rangers IV", "Marzipan", "Long Road to Tallinn, A", "Under the Glass Mountain", "Dr. Featherstone",
)  # fmt: skip
FRAMES = (
    "I watched {} yesterday and want more of that.",
    "Have you got something like {}?",
    "It should be {}.",
    "My friend keeps on about {}, so I want that one.",
    "{} please",
)


def shelf(titles) -> Catalogue:
    n = len(titles) + 1
    return Catalogue(
        tokens=["", *(f"i{item}" for item in range(1, n))],
        titles=["", *titles],
        years=np.zeros(n, np.int32),
        categories=[()] * n,
        descriptions=[""] * n,
        domain="movie",
    )


def variants(title: str, rng: np.random.Generator) -> dict[str, str]:
    """The title as people write it."""
    plain = spoken_title(title)
    bare = re.sub(r"^(?:The|An?) ", "", plain)
    first, *rest = re.split(r": ", plain, maxsplit=1)
    found = {
        "as it stands": title,
        "with its year": f"{title} (1987)",
        "article moved": plain,
        "without article": bare,
        "lower case": plain.lower(),
        "capitals": plain.upper(),
        "without punctuation": re.sub(r"[^\w\s]", "", plain),
        "in one word": plain.replace(" ", ""),
        "without its subtitle": first,
        "quoted": f'"{plain}"',
        **{f"numbers written otherwise: {form}": form for form in other_spellings(plain) if re.search(r"\w", form)},
    }
    if rest and len(rest[0].split()) > 2:
        found["its subtitle"] = rest[0]
    if len(bare) >= 5:
        place = int(rng.integers(1, len(bare) - 1))
        found["a letter left out"] = bare[:place] + bare[place + 1 :]
        found["a letter doubled"] = bare[:place] + bare[place] + bare[place:]
        place = int(rng.integers(1, len(bare) - 2))
        found["neighbours exchanged"] = bare[:place] + bare[place + 1] + bare[place] + bare[place + 2 :]
    letters = "".join(word[0] for word in re.findall(r"\w[\w'’]*", re.sub(r"\(.*", "", plain))).upper()
    if len(letters) > 2 and letters.isalpha():
        found |= {"initials": letters, "initials with points": ".".join(letters) + "."}
    return found


def planted(titles, count: int, seed: int) -> list[tuple[str, int, str]]:
    rng = np.random.default_rng(seed)
    rows = []
    for item, title in enumerate(titles, 1):
        for kind, form in variants(title, rng).items():
            rows.append((FRAMES[rng.integers(len(FRAMES))].format(form), item, kind))
    return [rows[place] for place in rng.permutation(len(rows))[:count]]


def missed(titles, count: int, seed: int = 0) -> tuple[list, int]:
    rows, guard = planted(titles, count, seed), Redactor(shelf(titles))
    leaked = guard.redact([text for text, _, _ in rows], [item for _, item, _ in rows]).leaked
    return [row for row, found in zip(rows, leaked, strict=True) if not found], len(rows)


def test_planted_leaks_are_found():
    lost, count = missed(INVENTED, 1000)
    assert count >= 250
    assert len(lost) <= 0.01 * count, lost


def test_planted_leaks_of_real_titles_are_found(data_mirror):
    lines = (data_mirror / "ml-100k" / "u.item").read_bytes().decode("latin-1").splitlines()
    titles = [re.sub(r" \(\d{4}\)$", "", line.split("|")[1]) for line in lines]
    long = [title for title in dict.fromkeys(titles) if len(re.sub(r"\W", "", spoken_title(title))) >= 8]
    lost, count = missed(long, 1500)
    assert count >= 1000
    assert len(lost) <= 0.01 * count, lost


def test_numbers_are_read_aloud():
    read = {12: "twelve", 20: "twenty", 101: "one hundred one", 1984: "nineteen eighty four", 2001: "two thousand one"}
    assert {number: number_in_words(number) for number in read} == read
    assert "Tollkeeper two" in other_spellings("Tollkeeper II") and "XII Candles" in other_spellings("12 Candles")


def test_what_real_people_say_of_other_films_is_no_leak(data_mirror):
    texts = real_sentences(data_mirror)
    lines = (data_mirror / "ml-100k" / "u.item").read_bytes().decode("latin-1").splitlines()
    own = list(dict.fromkeys(re.sub(r" \(\d{4}\)$", "", line.split("|")[1]) for line in lines))
    guard, rng = Redactor(shelf(own)), np.random.default_rng(0)
    targets = rng.integers(1, len(own) + 1, len(texts)).tolist()
    clean = [
        (text, target)
        for text, target in zip(texts, targets, strict=True)
        if spoken_title(own[target - 1]).casefold() not in text.casefold()
    ]
    assert len(clean) >= 500
    alarms = guard.redact(*map(list, zip(*clean, strict=True))).leaked
    assert alarms.mean() <= 0.02, [row for row, found in zip(clean, alarms, strict=True) if found][:20]


def with_titles(text: str, names: dict[str, str]) -> str:
    return re.sub(r"@(\d+)", lambda found: names.get(found[1]) or "it", text)


def real_sentences(mirror) -> list[str]:
    """What seekers said in ReDial's validation dialogues, titles in place of their ids."""
    texts = []
    with gzip.open(mirror / "crs" / "redial" / "valid_data.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            talk = json.loads(line)
            for message in talk["messages"]:
                if message["senderWorkerId"] == talk["initiatorWorkerId"]:
                    texts.append(with_titles(message["text"], talk["movieMentions"] or {}))
    return texts


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("I am in the mood for a movie from the 1990s.", "Wood, The"),
        ("I want something with a large cargo ship.", "Fargo"),
        ("A horror movie like The Ring, please.", "Rings of Saturn, The"),
    ],
)
def test_what_only_sounds_alike_is_no_leak(text, title):
    assert not Redactor(shelf([title, *INVENTED])).names(text, 1)


def test_another_part_of_a_series_is_another_film():
    guard = Redactor(shelf(["Copper Canyon 2", "Copper Canyon 3", "Copper Canyon 12"]))
    assert not guard.names("I liked Copper Canyon 3 a lot.", 1)
    assert not guard.names("I liked Copper Canyon 12 a lot.", 1)
    assert guard.names("I liked Coper Canyon 2 a lot.", 1)
