"""The guard on titles written in every way that people write them, and on what people really say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.conversation.redaction import SMALL_WORDS, Redactor, number_in_words, other_spellings, words
from recllm_bench.conversation.spoken import spoken_title
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.data.film_dialogues import FILES, film_dialogues

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
        "with its edition": f"{plain} (20th Anniversary Edition)",
        "with hyphens": plain.replace(" ", "-"),
        **{f"numbers written otherwise: {form}": form for form in other_spellings(plain) if re.search(r"\w", form)},
    }
    if rest and len(rest[0].split()) > 2:
        found["its subtitle"] = rest[0]
    if len(bare) >= 5:
        place = int(rng.integers(1, len(bare) - 1))
        found["a letter left out"] = bare[:place] + bare[place + 1 :]
        found["a letter doubled"] = bare[:place] + bare[place] + bare[place:]
        found["a letter wrong"] = bare[:place] + "qzxw"[place % 4] + bare[place + 1 :]
        place = int(rng.integers(1, len(bare) - 2))
        found["neighbours exchanged"] = bare[:place] + bare[place + 1] + bare[place] + bare[place + 2 :]
    letters = "".join(word[0] for word in re.findall(r"\w[\w'’]*", re.sub(r"\(.*", "", plain))).upper()
    content = [word for word, _, _ in words(bare) if word not in SMALL_WORDS]
    if len(content) > 3:
        found["three words in a row"] = " ".join(content[-3:])
    if len(letters) > 2 and letters.isalpha():
        found |= {"initials": letters, "initials with points": ".".join(letters) + "."}
    return found


def planted(titles, count: int, seed: int) -> list[tuple[str, int, str]]:
    """Utterances that name an item, with the item and how it is named."""
    rng, guard = np.random.default_rng(seed), Redactor(shelf(titles))
    rows = []
    for item, title in enumerate(titles, 1):
        told = variants(title, rng)
        for word in sorted(guard.rare_words(item))[:1]:
            told |= {"a word of no other title": word, "its possessive": f"{word}'s"}
        for kind, form in told.items():
            rows.append((FRAMES[rng.integers(len(FRAMES))].format(form), item, kind))
    return [rows[place] for place in rng.permutation(len(rows))[:count]]


def missed(titles, count: int, seed: int = 0) -> tuple[list, int]:
    rows, guard = planted(titles, count, seed), Redactor(shelf(titles))
    leaked = guard.redact([text for text, _, _ in rows], [item for _, item, _ in rows]).leaked
    return [row for row, found in zip(rows, leaked, strict=True) if not found], len(rows)


GOLDEN = Path(__file__).parent / "samples" / "leaks.tsv"


def test_two_hundred_leaks_in_all_variants_are_found():
    """The file is kept for people to read; ``python -m tests.conversation.test_leak_suite`` writes it anew."""
    rows = [line.split("\t") for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 200
    kinds = {kind for _, kind, _ in rows}
    assert kinds >= {
        "as it stands", "with its year", "without article", "lower case", "capitals", "without punctuation", "quoted",
        "in one word", "without its subtitle", "a letter wrong", "a letter left out", "initials", "with its edition",
        "three words in a row", "a word of no other title", "its possessive",
    }  # fmt: skip
    guard = Redactor(shelf(INVENTED))
    done = guard.redact([text for _, _, text in rows], [INVENTED.index(title) + 1 for title, _, _ in rows])
    assert done.leaked.mean() >= 0.99
    assert not guard.redact(done.texts, [INVENTED.index(title) + 1 for title, _, _ in rows]).leaked.any()


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
    texts = [
        text for source in FILES for talk in film_dialogues(source)[:1000] for text in (*talk.said, *talk.later)
        if re.search(r"\w", text)
    ]  # fmt: skip
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


def test_a_word_in_common_with_a_title_is_no_leak(data_mirror):
    """Harder: each target shares a word with what is said of other films."""
    lines = (data_mirror / "ml-100k" / "u.item").read_bytes().decode("latin-1").splitlines()
    own = list(dict.fromkeys(re.sub(r" \(\d{4}\)$", "", line.split("|")[1]) for line in lines))
    having: dict[str, list[int]] = {}
    for item, title in enumerate(own, 1):
        for word in {word for word, _, _ in words(title)} - SMALL_WORDS:
            having.setdefault(word, []).append(item)
    guard, rng, clean = Redactor(shelf(own)), np.random.default_rng(0), []
    for text in (text for talk in film_dialogues("redial") for text in talk.said):
        near = [item for word, _, _ in words(text) if len(having.get(word, ())) > 1 for item in having[word]]
        near = [item for item in near if spoken_title(own[item - 1]).casefold() not in text.casefold()]
        if near:
            clean.append((text, near[rng.integers(len(near))]))
    assert len(clean) >= 500
    alarms = guard.redact(*map(list, zip(*clean, strict=True))).leaked
    assert alarms.mean() <= 0.02, [row for row, found in zip(clean, alarms, strict=True) if found][:20]


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


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("I want the president's story.", "American President, The"),  # "Presidents" stands in another title
        ("something like 8 Secnds", "8 Seconds"),
        ("39 Stps please", "39 Steps, The"),
        ("Oliver Company, maybe", "Oliver & Company"),
    ],
)
def test_possessives_numbers_and_signs(text, title):
    assert Redactor(shelf([title, "All the Presidents Men", *INVENTED])).names(text, 1)


if __name__ == "__main__":
    lines = [f"{INVENTED[item - 1]}\t{kind}\t{text}" for text, item, kind in planted(INVENTED, 200, seed=1)]
    GOLDEN.write_text("\n".join(lines) + "\n", encoding="utf-8")
