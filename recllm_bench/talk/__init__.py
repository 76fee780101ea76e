"""Talk with a trained recommender on the terminal: ``recllm-bench chat``.

Wishes are understood by the catalogue's own words and filter in the open; the model, any model, orders what fits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from recllm_bench.errors import BenchError, nearest
from recllm_bench.recipe import Recipe
from recllm_bench.runner import BenchCell

if TYPE_CHECKING:
    from recllm_bench.talk.session import Conversation

_ME = 1  # the user id under which somebody with a history of their own is ranked


def talk(
    recipe: Recipe, user: str = "", history: str = "", *, llm: str = "", shown: int = 5, filters: bool = True
) -> None:
    """Talk with a model on the terminal, as one of the dataset's users or with a history of one's own.

    Parameters
    ----------
    recipe : Recipe
        Which model, resolved; trained first where it is not yet, which is said with about how long it takes.
    user : str
        The data's own id of a user; the first one by default.
    history : str
        Titles with commas between them, instead of a user.
    llm : str
        A chat model that words an answer's first sentence, such as ``smollm2`` or ``server:MODEL@URL``.
    shown : int
        Items of a list.
    filters : bool
        Whether wishes filter; without, the model is alone.

    Raises
    ------
    BenchError
        For a user, a title or a chat model that is not there.
    """
    from recllm_bench.talk.console import Console

    if user and history:
        raise BenchError("--user and --history both say what is known; give one of them")
    if shown < 1:
        raise BenchError(f"--items {shown}: a list has at least 1")
    cell, console = BenchCell(recipe), Console()
    number = user_number(cell, user)
    conversation = conversation_of(cell, wording=llm, say=console.say)
    if history:
        known, who, number = titles_of(conversation, history, console.ask, console.say), "You", _ME
    else:
        known, who = cell.dataset.histories.of(number).tolist(), f"User {cell.dataset.user_tokens[number]}"
    conversation.user, conversation.shown, conversation.filters = number, shown, filters
    conversation.state = type(conversation.state)(history=tuple(known))
    for line in (*conversation.greeting(who), *_of_users(conversation, bool(history), cell)):
        console.say(line)
    console.run(conversation)


def user_number(cell: BenchCell, token: str) -> int:
    """Our id of a user of the data; of the first without a token.

    Raises
    ------
    BenchError
        When there is no such user.
    """
    tokens = cell.dataset.user_tokens
    if not token:
        return 1
    for number in range(1, len(tokens)):
        if tokens[number] == token:
            return number
    some = [tokens[number] for number in range(1, min(len(tokens), 2000))]
    raise BenchError(f"--user {token}: {cell.dataset.name} has no such user.{nearest(token, some, 3)}")


def conversation_of(cell: BenchCell, *, wording: str = "", say: Callable[[str], None] = print) -> Conversation:
    """A conversation with a cell's model, which is trained first where it is not yet; its history is still empty.

    Parameters
    ----------
    wording : str
        A chat model for the wording; none by default.
    say : callable
        Gets a line about what takes time.
    """
    from recllm_bench.talk.model_order import ModelOrder
    from recllm_bench.talk.neighbours import Neighbours
    from recllm_bench.talk.reading import Reader
    from recllm_bench.talk.session import Conversation
    from recllm_bench.talk.titles_said import TitlesSaid
    from recllm_bench.talk.vocabulary import Vocabulary
    from recllm_bench.talk.wording import Wording

    dataset = cell.dataset
    words = _chat(wording) if wording else None  # what cannot be found is said before anything is trained
    cell.cell.method.check()
    _say_what_trains(cell, say)
    orders = ModelOrder(cell)
    neighbours = Neighbours(dataset.histories, cell.split.train_ends)
    vocabulary = Vocabulary(dataset.catalogue, neighbours)
    titles = TitlesSaid(dataset.catalogue.titles, vocabulary.years, orders.popularity)
    reader = Reader(dataset.catalogue, vocabulary, titles)
    worded = Wording(words, reader, say) if words is not None else None
    return Conversation(dataset.catalogue, vocabulary, reader, orders, neighbours, wording=worded)


def titles_of(
    conversation: Conversation, text: str, ask: Callable[[str], str], say: Callable[[str], None] = print
) -> list[int]:
    """Items of titles with commas or semicolons between them; where several may be meant, it is asked which.

    Raises
    ------
    BenchError
        For a title that nothing is like.
    """
    titles, called = conversation.reader.titles, conversation.reader.called
    parts = [part.strip() for part in text.split(";" if ";" in text else ",") if part.strip()]
    found: list[int] = []
    while parts:
        # "Usual Suspects, The" has a comma of its own: the longest title first
        joined = [", ".join(parts[:length]) for length in range(len(parts), 0, -1)]
        exact = next((said for said in joined if titles.exact(said)), parts[0])
        parts = parts[exact.count(", ") + 1 :] if exact != parts[0] else parts[1:]
        items, way = titles.find(exact)
        if not items:
            raise BenchError(f"--history: no title of {conversation.catalogue.domain}s here is like '{exact}'")
        item = items[0]
        if len(items) > 1:
            item = _asked(exact, items, called, ask)
        elif way != "exact":
            say(f"'{exact}' is taken for {called(item)}.")
        found.append(item)
    return list(dict.fromkeys(found))


def _say_what_trains(cell: BenchCell, say: Callable[[str], None]) -> None:
    from recllm_bench.estimates import duration
    from recllm_bench.rows import estimates

    missing = [name for name, path in cell.products().items() if not path.exists()]
    if not missing:
        return
    seconds = estimates([cell], [False])[0].seconds
    took = (
        "how long is not known: no earlier run to scale"
        if seconds is None
        else f"about {duration(seconds)}, by earlier runs"
    )
    say(f"{cell.name} is not trained on {cell.dataset.name} yet; that comes first ({', '.join(missing)}): {took}.")
    say("Ctrl-C stops it; the same command goes on from there.")


def _asked(said: str, items: list[int], called: Callable[[int], str], ask: Callable[[str], str]) -> int:
    """Which of several items is meant."""
    listed = "; ".join(f"{number}. {called(item)}" for number, item in enumerate(items, 1))
    answer = ask(f"Which one do you mean by '{said}'? {listed}").strip()
    if answer.isdigit() and 1 <= int(answer) <= len(items):
        return items[int(answer) - 1]
    raise BenchError(f"--history: '{said}' may be {listed}; write the title whole, with its year")


def _of_users(conversation: Conversation, own: bool, cell: BenchCell) -> list[str]:
    """What must be said of a model that knows users by number, or does not look at their history."""
    if not own:
        return []
    orders, known = conversation.orders, conversation.state.history
    other = next(item for item in range(1, len(conversation.catalogue)) if item not in known)
    first, name = orders.order(_ME, known)[:100].tolist(), orders.name
    user = f"user {cell.dataset.user_tokens[_ME]}"
    if first == orders.order(_ME, [other])[:100].tolist():
        return [f"{name} does not rank by what somebody knows: your titles serve the reasons alone."]
    if cell.dataset.histories.n_users > 1 and first != orders.order(_ME + 1, known)[:100].tolist():
        return [f"{name} also knows users by number; you are ranked as {user} with your titles."]
    return []


def _chat(spec: str) -> Any:
    from recllm_bench.language.chat import chat_model

    chat = chat_model(spec if spec.partition(":")[0] in ("local", "server", "replay") else f"local:{spec}")
    chat.check_limit()
    return chat
