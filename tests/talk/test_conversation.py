"""What a conversation remembers, shows and says, against the catalogue itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recllm_bench.data.histories import Histories
from recllm_bench.errors import BenchError
from recllm_bench.language.chat_answers import Chat
from recllm_bench.talk import conversation_of, titles_of, user_number
from recllm_bench.talk.console import printable
from recllm_bench.talk.neighbours import Neighbours
from recllm_bench.talk.session import Conversation
from recllm_bench.talk.wording import Wording
from tests.talk.conftest import FILMS, cell_of, write_films

Fresh = Callable[..., Conversation]
KINDS = {title: set(kinds.split("|")) for title, _, kinds in FILMS if title != "Orbit of Glass"}


def titles(conversation: Conversation, items: list[int]) -> list[str]:
    return [conversation.catalogue.titles[item] for item in items]


def test_every_turn_is_remembered(fresh: Fresh) -> None:
    talk = fresh()
    assert all("Comedy" in KINDS[title] for title in titles(talk, talk.answer("a comedy").items))
    nineties = talk.answer("from the 1990s").items
    assert sorted(titles(talk, nineties)) == ["The Laughing Lamp", "Two Brides Too Many"]
    assert titles(talk, talk.answer("without romance").items) == ["The Laughing Lamp"]
    eighties = talk.answer("rather from the 80s").items
    assert set(titles(talk, eighties)) == {"Twelve Kettles", "A Giggle in the Dark"}


def test_the_order_is_the_models(fresh: Fresh) -> None:
    """Popularity ranks: the list is the catalogue by interactions in the training part, filtered."""
    talk = fresh()
    items = talk.answer("no comedies").items
    left = [item for item in range(1, len(talk.catalogue)) if "Comedy" not in talk.catalogue.categories[item]]
    left = [item for item in left if item not in talk.state.history]
    counts = talk.orders.popularity
    assert [counts[item] for item in items] == sorted((counts[item] for item in left), reverse=True)[:5]


def test_nothing_known_or_shown_comes_again(fresh: Fresh) -> None:
    talk, seen = fresh(), set()
    for _ in range(3):
        items = talk.answer("more").items
        assert not seen & {*items} and not {*items} & {*talk.state.history}
        seen |= {*items}
    assert len(seen) == len(FILMS) - 1
    assert "That is all" in talk.answer("more").says[0]


def test_a_noun_takes_the_place_and_an_adjective_joins(fresh: Fresh) -> None:
    talk = fresh()
    talk.answer("a horror film")
    assert titles(talk, talk.answer("funny").items) == ["A Giggle in the Dark"]
    says = talk.answer("a western").says
    assert says[0].startswith("In place of: Horror, Comedy") and "Western" in says[-1]
    talk.answer("a drama")
    assert titles(talk, talk.answer("also romance").items) == ["Letters to Marigold"]


def test_undo_takes_back_one_sentence_after_the_other(fresh: Fresh) -> None:
    talk = fresh()
    first, second = talk.answer("a comedy").items, talk.answer("not romantic").items
    talk.answer("horror")
    assert talk.answer("undo").items == second
    assert talk.answer("undo").items == first
    assert talk.answer("undo").items == [] and not talk.state.wishes
    assert talk.answer("undo").says == ["There is nothing to take back."]


@pytest.mark.parametrize("sentence", ["hello", "thanks, that is great!", "quantum physics", "help", "?"])
def test_small_talk_changes_nothing(fresh: Fresh, sentence: str) -> None:
    talk = fresh()
    talk.answer("a comedy")
    before = talk.state
    assert talk.answer(sentence).items == []
    assert talk.state == before


def test_what_nothing_fits_is_loosened_in_the_open(fresh: Fresh) -> None:
    talk = fresh()
    reply = talk.answer("a western from the 1920s")
    assert reply.says[0] == "Nothing fits 'Western, 1920s': instead of 1920s I take 1953."
    assert titles(talk, reply.items) == ["Dust and Saddles"]
    reply = talk.answer("and for my kids")
    assert "I leave out 'Children's'" in reply.says[0] and reply.items
    assert talk.answer("any year").items, "what was left out stays out"


def test_taking_and_knowing_join_the_history(fresh: Fresh) -> None:
    talk = fresh()
    items = talk.answer("surprise me").items
    assert "Enjoy" in talk.answer("the second one please").says[0]
    assert talk.state.history[-1] == items[1]
    shown = talk.answer("I have seen 1 and 3").items
    assert talk.state.history[-2:] == (items[0], items[2]) and not {*shown} & {*talk.state.history}
    assert talk.answer("9").says == ["There is no number 9 in the list."]
    talk.answer("I'll take The Last Bugle")
    assert talk.catalogue.titles[talk.state.history[-1]] == "The Last Bugle"


def test_it_asks_which_title_is_meant(fresh: Fresh) -> None:
    talk = fresh()
    reply = talk.answer("like Orbit of Glass but no thrillers")
    assert reply.says == ["Which one do you mean by 'Orbit of Glass'?"] and len(reply.lines) == 2
    place = next(n for n, (line, _) in enumerate(reply.lines, 1) if "1968" in line)
    reply = talk.answer(str(place))
    assert [str(wish) for wish in talk.state.wishes] == ["no Thriller", "like Orbit of Glass (1968)"]
    assert [int(talk.vocabulary.years[item]) for item in reply.items] == [1997]
    talk.answer("like Orbit of Glass")
    talk.answer("a western instead")
    assert "Western" in [str(wish) for wish in talk.state.wishes], "a question may be passed over"


def test_reasons_name_facts_and_counted_neighbours(fresh: Fresh) -> None:
    talk = fresh("Harbour, The", "Trenches of Snow")
    reply = talk.answer("a comedy from the 1990s, nothing scary")
    for item, (_, reason) in zip(reply.items, reply.lines, strict=True):
        fits, _, near = reason.partition("; near ")
        assert fits == f"fits Comedy, {talk.vocabulary.years[item]}, no Horror"
        for one in talk.neighbours.near(item, talk.state.history):
            assert f"({one.both}" in near


def test_neighbours_are_counted_in_the_training_part() -> None:
    rows = [[1, 2, 3], [1, 2, 3], [1, 2, 4], [3, 4, 1], [4, 3, 2]]
    histories = Histories.from_rows(rows, n_items=4)
    found = Neighbours(histories, histories.offsets[1:] - 1)  # of every user all but the last
    assert found.near(2, [1]) == [(1, 3, 3)]
    assert found.near(4, [3]) == [], "two shared users are chance"
    assert found.beside(2).tolist() == [False, True, True, False, False]


def test_without_the_filter_the_model_is_alone(fresh: Fresh) -> None:
    talk = fresh()
    everything = talk.answer("surprise me").items
    talk.filters = False
    reply = talk.answer("a western")
    assert reply.items == everything and reply.says == ["No filter; ranked by Pop (RecBole)."]


def test_a_catalogue_without_years_or_categories(tmp_path: Path) -> None:
    rows = [(f"Lamp for shelf {n}", 0, "Lamps|Home") if n % 2 else (f"Rug {n} wool", 0, "Rugs|Home") for n in range(14)]
    talk = conversation_of(cell_of(write_films(tmp_path, rows, years=False), tmp_path / "cache"), say=lambda line: None)
    talk.state = type(talk.state)(history=(1,))
    assert all("Lamp" in title for title in titles(talk, talk.answer("a lamp").items))
    reply = talk.answer("from the 1990s")
    assert reply.items == [] and reply.says[0].startswith(
        "This catalogue has no years, so I leave out 'from the 1990s'"
    )
    bare = [(title, 0, "") for title, _, _ in rows]
    talk = conversation_of(
        cell_of(write_films(tmp_path / "b", bare, years=False), tmp_path / "b"), say=lambda line: None
    )
    talk.state = type(talk.state)(history=(1,))
    assert all("Rug" in title for title in titles(talk, talk.answer("a wool rug").items))


def test_a_history_of_titles_is_matched_and_asked_about(fresh: Fresh) -> None:
    talk, asked, said = fresh(), list[str](), list[str]()

    def ask(question: str) -> str:
        asked.append(question)
        return "1"

    known = titles_of(talk, "Harbour, The, dust and sadles, Orbit of Glass", ask, said.append)
    assert titles(talk, known) == ["Harbour, The", "Dust and Saddles", "Orbit of Glass"]
    assert len(asked) == 1 and "1968" in asked[0] and "1997" in asked[0]
    assert said == ["'dust and sadles' is taken for Dust and Saddles (1953)."]
    assert titles(talk, titles_of(talk, "Orbit of Glass (1968); The Last Bugle", ask)) == [
        "Orbit of Glass",
        "The Last Bugle",
    ]
    with pytest.raises(BenchError, match="no title of items here is like 'Zzyzx'"):
        titles_of(talk, "Zzyzx", ask)
    with pytest.raises(BenchError, match="write the title whole"):
        titles_of(talk, "Orbit of Glass", lambda question: "neither")


def test_users_go_by_the_datas_own_ids(tmp_path: Path) -> None:
    cell = cell_of(write_films(tmp_path, FILMS), tmp_path / "cache")
    assert cell.dataset.user_tokens[user_number(cell, "u17")] == "u17"
    assert user_number(cell, "") == 1
    with pytest.raises(BenchError, match=r"--user u171: .* Did you mean 'u17'\?"):
        user_number(cell, "u171")


HOSTILE = "Evil \x1b[31mRed\x1b]0;owned\x07 &#27;[2J \u202egnp.exe\u2028 \x00\x9b31m"


def test_hostile_text_never_reaches_the_terminal(tmp_path: Path, capsys) -> None:
    from recllm_bench.talk.console import Console
    from tests.talk.test_golden_chat import typed

    talk = conversation_of(cell_of(write_films(tmp_path, FILMS), tmp_path / "cache"), say=lambda line: None)
    wild = [""] + [f"{HOSTILE} {n}" for n in range(1, len(talk.catalogue))]
    talk.catalogue.titles[:] = wild
    talk.catalogue.categories[:] = [(), *[(HOSTILE, *kinds) for kinds in talk.catalogue.categories[1:]]]
    talk.state = type(talk.state)(history=(1, 2))
    plain = Console(interactive=False)
    for line in talk.greeting("You"):
        plain.say(line)
    for sentence in ("surprise me", "history", "comedy", f"like {wild[3]}", "filter"):
        plain.show(talk.answer(sentence))
    printed = capsys.readouterr().out
    assert "Evil" in printed and all(letter.isprintable() for line in printed.split("\n") for letter in line)
    screen = typed(talk, "surprise me\r\x04")
    for part in ("\x1b[31m", "\x1b]0;", "\x07", "\x1b[2J", "\u202e", "\x00", "\x9b"):
        assert part not in screen
    assert printable("a\x1b[0m\nb") == "a [0m b"


class Parrot(Chat):
    """Says what it is given to say, through everything that a chat model has."""

    name = "parrot"

    def __init__(self, *texts: str) -> None:
        super().__init__(None)
        self.texts = list(texts)

    def key(self):
        return {"parrot": self.texts}

    def ask(self, conversations, *, max_tokens, temperature, seed):
        from recllm_bench.language.chat_replies import Answer

        for place in range(len(conversations)):
            text = self.texts.pop(0)
            if text == "fail":
                raise BenchError("the server is away")
            yield place, Answer(text, 10, 5, True)


@pytest.mark.parametrize(
    ("sentence", "stays"),
    [
        ("Here are comedies for your evening.", True),
        ("You may enjoy The Laughing Lamp.", True),
        ("Have a look! And much more.", True),
        ("These comedies are from the 1990s.", False),
        ("You may enjoy Dust and Saddles.", False),
        ('Try "Gone Away".', False),
        ("Here are five horror films.", False),
        ("Here are 17 films.", False),
        ("", False),
        ("word " * 60 + ".", False),
    ],
)
def test_a_chat_model_words_and_never_decides(fresh: Fresh, sentence: str, stays: bool) -> None:
    talk = fresh()
    silent = talk.answer("a comedy")
    talk = fresh()
    talk.wording = Wording(Parrot(sentence), talk.reader, lambda line: None)
    worded = talk.answer("a comedy")
    assert (worded.items, worded.lines) == (silent.items, silent.lines)
    said = sentence.split("!")[0] + "!" if "!" in sentence else sentence
    assert worded.says == [*silent.says, *([said] if stays else [])]


def test_a_chat_model_that_fails_is_left_alone(fresh: Fresh) -> None:
    talk, said = fresh(), list[str]()
    talk.wording = Wording(Parrot("fail"), talk.reader, said.append)
    assert talk.answer("a comedy").items and talk.answer("horror").items
    assert len(said) == 1 and "the server is away" in said[0]


def test_models_that_hear_get_the_wishes_alone(fresh: Fresh, monkeypatch) -> None:
    talk, heard = fresh(), list[tuple[str, ...]]()
    order = talk.orders.order
    monkeypatch.setattr(talk.orders, "hears", True)
    monkeypatch.setattr(talk.orders, "order", lambda user, history, said: heard.append(said) or order(user, history))
    for sentence in ("hello", "a comedy", "more", "with robots of quantum", "undo", "thanks"):
        talk.answer(sentence)
    assert heard == [("a comedy",), ("a comedy", "with robots of quantum")], "there was no more to rank"


def test_order_of_a_model_is_that_of_its_ranking(cinema: Conversation) -> None:
    with pytest.raises(BenchError, match="history is empty"):
        cinema.orders.order(1, [])
    order = cinema.orders.order(1, [3])
    assert sorted(order) == list(range(1, len(cinema.catalogue)))
    counts = cinema.orders.popularity[order]
    assert (np.diff(counts) <= 0).all()
