"""Talk with a trained model on the terminal."""

from __future__ import annotations

import sys

from recllm_bench.errors import BenchError
from recllm_bench.recipe import Recipe
from recllm_bench.runner import BenchCell


def talk(recipe: Recipe, user: int) -> None:
    """Talk with a conversational model on the terminal, as one of the dataset's users.

    Raises
    ------
    BenchError
        When the model does not converse, or there is no such user.
    """
    from recllm_bench.conversation.dialogue import Dialogue

    cell = BenchCell(recipe)
    dataset = cell.dataset
    if not cell.entry.converses:
        raise BenchError(f"{recipe.model} does not converse; try text-retrieval")
    if not 1 <= user <= dataset.histories.n_users:
        raise BenchError(f"--user {user}: {dataset.name} has users 1 to {dataset.histories.n_users}")
    model, job = cell.cell.load(), cell.talking_job()
    titles = dataset.catalogue.titles
    history = dataset.histories.of(user)
    print(f"user {user} likes: " + "; ".join(titles[item] for item in history[-5:]))
    print("say what you are looking for; an empty line ends")
    dialogue = Dialogue(user=user, history=history, messages=[], shown=[])
    while sentence := _said():
        dialogue.messages.append(("user", sentence))
        answer = model.respond(job, [dialogue])[0]
        dialogue.shown.extend(answer.items)
        dialogue.messages.append(("assistant", answer.say))
        for number, item in enumerate(answer.items, 1):
            print(f"  {number}. {dataset.catalogue.text(item)}")


def _said() -> str:
    """The next sentence; empty at the end of the input."""
    try:
        return input("> ").strip()
    except EOFError:
        print()
        return ""
    except UnicodeDecodeError as error:
        code = sys.stdin.encoding
        raise BenchError(f"chat: the input is not {code} ({error.reason}); set the terminal to {code}") from error
