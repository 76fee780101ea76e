"""What sentences of a conversation are read as, each written beside what a person means by it."""

from __future__ import annotations

import pytest

from recllm_bench.talk.session import Conversation

WISHES = [
    ("a comedy from the 1990s", ["Comedy", "1990s"]),
    ("scary", ["Horror"]),
    ("something funny", ["Comedy"]),
    ("not horror", ["no Horror"]),
    ("no war films, please", ["no War"]),
    ("sci fi not too scary", ["Sci-Fi", "no Horror"]),
    ("instead of a drama, a thriller", ["no Drama", "Thriller"]),
    ("anything but romance", ["no Romance"]),
    ("I don't like musicals", ["no Musical"]),
    ("less scary", ["no Horror"]),
    ("a comedy or a drama", ["Comedy or Drama"]),
    ("a rom-com", ["Romance", "Comedy"]),
    ("commedy", ["Comedy"]),
    ("older than 1980", ["before 1980"]),
    ("not older than 1980", ["since 1980"]),
    ("made before the 70s", ["before 1970"]),
    ("after 1990", ["after 1990"]),
    ("after the eighties", ["after 1989"]),
    ("since 1995", ["since 1995"]),
    ("from 1994 on", ["since 1994"]),
    ("1994 or later", ["since 1994"]),
    ("until the 60s", ["until 1969"]),
    ("between 1950 and 1960", ["1950 to 1960"]),
    ("1985-1989", ["1985 to 1989"]),
    ("late '80s", ["1987 to 1989"]),
    ("early nineties", ["1990 to 1993"]),
    ("nothing from the 50s", ["not 1950s"]),
    ("from the last 5 years", ["after 1993"]),
    ("something like The Cellar Below but not scary", ["like The Cellar Below (1979)", "no Horror"]),
    ("I loved Letters to Marigold", ["like Letters to Marigold (1995)"]),
    ("nothing like Dust and Saddles", ["not like Dust and Saddles (1953)"]),
    ("like dust and sadles", ["like Dust and Saddles (1953)"]),
    ("like 12 kettles and the harbour", ["like Twelve Kettles (1984)", "like The Harbour (1991)"]),
    ("Orbit of Glass 1968", ["like Orbit of Glass (1968)"]),
    ("I'd like a western", ["Western"]),
    ("I like horror", ["Horror"]),
]
COMMANDS = [
    ("more", "more"),
    ("show me some more films please", "more"),
    ("something else", "more"),
    ("undo", "undo"),
    ("start over", "start over"),
    ("my history", "history"),
    ("what can I say?", "help"),
    ("?", "help"),
    ("bye", "quit"),
    ("surprise me", "show"),
    ("recommend me something", "show"),
    ("hello", "small talk"),
    ("good morning, how are you?", "small talk"),
    ("thank you!", "small talk"),
    ("...", "small talk"),
]


@pytest.mark.parametrize(("sentence", "meant"), WISHES, ids=[sentence for sentence, _ in WISHES])
def test_a_wish_is_read(cinema: Conversation, sentence: str, meant: list[str]) -> None:
    request = cinema.reader.read(sentence)
    assert [str(each) for each in request.constraints] == meant
    assert not request.command and not request.questions


@pytest.mark.parametrize(("sentence", "command"), COMMANDS, ids=[sentence for sentence, _ in COMMANDS])
def test_a_command_is_no_wish(cinema: Conversation, sentence: str, command: str) -> None:
    request = cinema.reader.read(sentence)
    assert request.command == command and not request.constraints


@pytest.mark.parametrize(
    ("sentence", "number"), [("2", 2), ("the second one please", 2), ("I'll take number 3", 3), ("accept the last", -1)]
)
def test_an_item_of_the_list_is_taken(cinema: Conversation, sentence: str, number: int) -> None:
    request = cinema.reader.read(sentence, [4, 5, 6])
    assert (request.command, request.number) == ("accept", number)


def test_numbers_of_the_list_stand_for_its_items(cinema: Conversation) -> None:
    years = cinema.vocabulary.years
    shown = [cinema.catalogue.titles.index(title) for title in ("Dust and Saddles", "Letters to Marigold")]
    read = cinema.reader.read
    assert read("I've seen 1 and 2", shown).items == tuple(shown)
    assert read("like 2", shown).constraints[0].item == shown[1]
    assert read("something newer", shown).constraints[0].low == years[shown].max() + 1
    assert read("something older", shown).constraints[0].high == years[shown].min() - 1
    assert read("newer than 1", shown).constraints[0].low == 1954


def test_titles_with_several_meanings_are_asked_about(cinema: Conversation) -> None:
    for said in ("movies like Orbit of Glass", "something like orbit of glas but no thrillers"):
        (question,) = cinema.reader.read(said).questions
        assert sorted(int(cinema.vocabulary.years[item]) for item in question.items) == [1968, 1997]


def test_what_names_nothing_is_told(cinema: Conversation) -> None:
    assert cinema.reader.read("quantum comedy").unknown == ["quantum"]
    assert cinema.reader.read("like Zzyzx").notes == ["no title here is like 'Zzyzx'"]


def test_what_is_given_up(cinema: Conversation) -> None:
    read = cinema.reader.read
    assert read("any year").kinds == ["years"] and read("never mind the genre").kinds == ["facts"]
    assert [str(each) for each in read("forget the comedy").dropped] == ["Comedy"]
    assert [str(each) for each in read("war is fine").dropped] == ["War"]
    request = read("drop the drama, a western instead")
    assert [str(each) for each in request.constraints] == ["Western"] and len(request.dropped) == 1
