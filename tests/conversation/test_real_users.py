"""Real people as tested users: what is read of their dialogues, and that nothing of theirs trains or leaks."""

from __future__ import annotations

import dataclasses
import gzip
import json

import numpy as np
import pytest

from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.real_users import TitleIndex, evaluated_data, real_cases
from recllm_bench.conversation.redaction import Redactor
from recllm_bench.data.film_dialogues import film_dialogues
from recllm_bench.data.splits import leave_one_out
from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.evaluation.protocols import PROTOCOLS, Protocol, protocol_named
from recllm_bench.recipe import recipe_from
from recllm_bench.reporting.records import read_record
from recllm_bench.runner import BenchCell
from tests.conftest import planted_catalogue

FILMS = ("Lantern Road (1987)", "Copper Kettle, The (1990)", "Quiet Harbour (1971)", "Quiet Harbour (1995)",
         "Salt Marsh (Saltmyr) (1960)", *(f"Plain Story {number} (1980)" for number in range(25)))  # fmt: skip
SEEKER, OTHER = 1, 2


def talk(number: int, messages, liked=(), disliked=()) -> dict:
    """A dialogue as ReDial writes it; ``@7`` is film 7 of :data:`FILMS`."""
    marks = {str(film): {"suggested": 1, "seen": 1, "liked": int(film in liked)} for film in (*liked, *disliked)}
    return {
        "conversationId": str(number), "initiatorWorkerId": SEEKER, "initiatorQuestions": marks,
        "movieMentions": {str(place): spoken(title) for place, title in enumerate(FILMS)},
        "messages": [{"senderWorkerId": who, "text": text} for who, text in messages],
    }  # fmt: skip


def spoken(title: str) -> str:
    return title.replace("Copper Kettle, The", "The Copper Kettle")


TALKS = [
    talk(1, [(SEEKER, "Hi! I loved @0"), (OTHER, "See @5"), (SEEKER, "No"), (OTHER, "Or @1"), (SEEKER, "Oh, @1!")],
         liked=(0, 1), disliked=(5,)),
    talk(2, [(SEEKER, "Something sad"), (OTHER, "@3 maybe")], liked=(3,)),
    talk(3, [(SEEKER, "I hated @6"), (OTHER, "@7 then")], liked=(7,), disliked=(6,)),
    talk(4, [(SEEKER, "Is lantern road any good?"), (OTHER, "@0 is")], liked=(0,)),  # names the film
    talk(5, [(OTHER, "Take @8"), (SEEKER, "Thanks")], liked=(8,)),  # nothing said before
    talk(6, [(SEEKER, "Anything?"), (OTHER, "@9")], disliked=(9,)),  # nothing liked
]  # fmt: skip


@pytest.fixture
def shop(tmp_path, monkeypatch) -> str:
    """A data set of the films, and a mirror with the dialogues."""
    rng = np.random.default_rng(0)
    rows = [f"{u}\t{i}\t{t}" for u in range(40) for t, i in enumerate(rng.permutation(len(FILMS))[:12])]
    items = [
        f"{place}\t{title[:-7]}\t{title[-5:-1]}\t{('Drum', 'Flute')[place % 2]}" for place, title in enumerate(FILMS)
    ]
    heads = ("user_id:token\titem_id:token\ttimestamp:float",
             "item_id:token\ttitle:token_seq\trelease_year:float\tgenre:token_seq")  # fmt: skip
    folder = tmp_path / "shop"
    folder.mkdir()
    for ending, head, lines in (("inter", heads[0], rows), ("item", heads[1], items)):
        (folder / f"shop.{ending}").write_text("\n".join([head, *lines]) + "\n")
    (tmp_path / "mirror" / "crs" / "redial").mkdir(parents=True)
    monkeypatch.setenv("RECLLM_DATA_MIRROR", str(tmp_path / "mirror"))
    write(tmp_path, TALKS)
    return str(folder)


def write(folder, talks) -> None:
    with gzip.open(folder / "mirror" / "crs" / "redial" / "valid_data.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(each) + "\n" for each in talks)


RULES = Protocol("people", dialogues="redial", metrics=("Recall",), cutoffs=(5,), has_text=True)


def test_a_talk_is_read_up_to_what_was_liked(shop):
    first = film_dialogues("redial")[0]
    assert first.said == ("Hi! I loved Lantern Road (1987)", "No")
    assert (first.named, first.liked) == (("Lantern Road (1987)",), "The Copper Kettle (1990)")
    assert first.later == ("Oh, The Copper Kettle (1990)!",)


def test_every_talk_is_a_case_or_counted(shop):
    data, split = evaluated_data(shop, RULES)
    title = data.catalogue.titles
    rows = {data.user_tokens[user]: [title[item] for item in data.histories.of(user)] for user in split.test.users}
    common = rows["redial:2"][0]
    assert rows == {
        "redial:1": ["Lantern Road", "Copper Kettle, The"],
        "redial:2": [common, "Quiet Harbour"],
        "redial:3": [common, "Plain Story 2"],  # the film that was hated is no history
    }
    year = data.catalogue.years[split.test.targets[1]]
    assert year == 1995
    assert split.dropped == {
        "dialogues": 6, "with a liked recommendation": 5, "title in the catalogue": 5, "nothing said before": 1,
        "film named by the seeker": 1, "cases": 3, "without a named film": 2,
    }  # fmt: skip
    assert [data.said[user] for user in split.test.users] == [
        "Hi! I loved Lantern Road (1987). No.", "Something sad.", "I hated Plain Story 1 (1980).",
    ]  # fmt: skip


def test_nothing_of_theirs_trains(shop):
    data, split = evaluated_data(shop, RULES)
    plain, _ = evaluated_data(shop, dataclasses.replace(RULES, dialogues=""))
    before = leave_one_out(plain.histories)
    own = plain.histories.n_users
    trained = data.histories.before(split.train_ends)
    assert trained.sum() == plain.histories.before(before.train_ends).sum()
    assert not trained[plain.histories.offsets[-1] :].any()
    assert (split.test.users > own).all()
    assert (split.valid.users <= own).all()
    assert np.array_equal(split.valid.targets, before.valid.targets)
    counts = np.bincount(plain.histories.items[plain.histories.before(before.train_ends)])
    assert counts[data.histories.of(own + 2)[0]] == counts.max()  # the film that stands for a missing history


def test_other_words_are_other_data(shop, tmp_path):
    one, _ = evaluated_data(shop, RULES)
    write(tmp_path, [talk(2, [(SEEKER, "Something glad"), (OTHER, "@3 maybe")], liked=(3,)), *TALKS[:1]])
    monkeyed = evaluated_data(shop, dataclasses.replace(RULES, user_seed=1))[0]
    assert monkeyed.checksum == one.checksum  # the cases were read before: the artifact stands for the file
    again = real_cases(one.catalogue, "redial")[0]
    assert [case["words"] for case in again] == ["Something glad.", "Hi! I loved Lantern Road (1987). No."]


@pytest.fixture
def protocol(tmp_path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text("dialogues: redial\nmetrics: [Recall]\ncutoffs: [5]\nhas_text: true\n")
    return str(path)


def recipe(shop, protocol, model, **options):
    values = {"model": model, "dataset": shop, "protocol": protocol, "device": "cpu", "options": options,
              "conversation": {"simulator": "rules:1"}}  # fmt: skip
    return recipe_from(values, "test")


def test_any_reader_of_words_is_measured_on_them(shop, protocol):
    cell = BenchCell(recipe(shop, protocol, "words-fit"))
    record = read_record(cell.run())
    assert record.dataset["dialogues"]["cases"] == record.split["dropped"]["cases"] == 3
    assert record.speaker["simulator"] == "people, trained with rules:1"
    words = cell._words("own")
    assert words.openings(cell.split.test) == list(cell.dataset.said.values())
    assert not set(words.openings(cell.split.valid)) & set(cell.dataset.said.values())
    assert sorted(cell._words("another").openings(cell.split.test)) == sorted(cell.dataset.said.values())
    assert {"items that fit the words"} <= {measure.name for measure in record.measures}


def test_what_people_had_in_mind_is_not_known(shop, protocol):
    cell = BenchCell(recipe(shop, protocol, "facts-fit"))
    with pytest.raises(NotEnough, match="what real people had in mind"):
        cell.check()
    words = cell._words("own")
    with pytest.raises(BenchError, match="cannot be asked for feedback"):
        words.feedback("rules", 1)
    speaker, profiles = words.speaker(), words.profiles(cell.split.test)
    with pytest.raises(BenchError, match="said what they said"):
        speaker.reply(profiles, [None] * 3, [[]] * 3)
    trained = words.profiles(cell.split.valid.take(np.arange(3)))
    talks = [Dialogue(profile.user, np.zeros(0, np.int32)) for profile in trained]
    assert all(reply.text for reply in speaker.reply(trained, talks, [[1], [2], [3]]))


def test_data_without_films_and_dialogues_that_are_not_there_are_told(shop, tmp_path, monkeypatch):
    write(tmp_path, TALKS[3:])
    with pytest.raises(NotEnough, match="no dialogue of redial is about an item of"):
        evaluated_data(shop, RULES)
    with pytest.raises(NotEnough, match=r"dialogues of inspired are not here.*RECLLM_DATA_MIRROR"):
        evaluated_data(shop, dataclasses.replace(RULES, dialogues="inspired"))
    with pytest.raises(BenchError, match=r"unknown dialogues 'redail'\. Did you mean 'redial'"):
        evaluated_data(shop, dataclasses.replace(RULES, dialogues="redail"))
    (tmp_path / "mirror" / "crs" / "redial" / "valid_data.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(BenchError, match="not as redial publishes it"):
        film_dialogues("redial")


@pytest.mark.parametrize(
    ("title", "found"),
    [
        ("Invented Story 7", 7), ("invented story: 7 (1999)", 0), ("An Invented Story 7", 7), ("Story 7", 0),
        ("Invented Story 7 (Historia)", 7), ("Another Title (Invented Story 7)", 7), ("", 0), ("(1999)", 0),
    ],
)  # fmt: skip
def test_titles_of_other_collections(title, found):
    shelf = planted_catalogue(20)
    shelf.years[7] = 1970
    assert TitleIndex(shelf).find(title) == found


def test_a_year_decides_between_films_of_one_title():
    shelf = planted_catalogue(3)
    shelf.titles[1:3] = ["Twin", "Twin, The"]
    shelf.years[1:3] = [1950, 1980]
    index = TitleIndex(shelf)
    assert [index.find(f"The Twin{year}") for year in (" (1950)", " (1981)", " (1965)", "")] == [1, 2, 0, 0]


def test_protocols_without_dialogues_are_what_they_were():
    assert (
        PROTOCOLS["unified.full"].fingerprint()
        == dataclasses.replace(PROTOCOLS["unified.full"], about="").fingerprint()
    )
    prints = {protocol_named(f"people.{name}").fingerprint() for name in ("redial", "inspired", "opendialkg", "all")}
    assert len(prints) == 4
    assert PROTOCOLS["latentcrs.one_turn"].fingerprint() not in prints


def test_the_published_dialogues_give_cases_that_name_no_target(data_mirror):
    data, split = evaluated_data("ml-100k", PROTOCOLS["people.all"])
    counts = data.facts["dialogues"]
    assert counts["dialogues"] == 7535
    assert counts["cases"] == len(split.test) > 450
    sources = {data.user_tokens[user].partition(":")[0] for user in split.test.users}
    assert sources == {"redial", "inspired", "opendialkg"}
    texts = [data.said[user] for user in split.test.users]
    assert not Redactor(data.catalogue).redact(texts, split.test.targets.tolist()).leaked.any()
