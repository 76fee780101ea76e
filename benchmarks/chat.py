"""How many of the items that a chat shows fit what was asked: thirty requests, with the filter and by the model alone.

    python benchmarks/chat.py                                    # SASRec on ml-100k, two epochs, 20 users
    python benchmarks/chat.py text-retrieval ml-100k --users 50
    python benchmarks/chat.py pop steam-au
    python benchmarks/chat.py --llm smollm2 --requests 10        # also: does a chat model word ten of the answers well

What fits is decided here, by the catalogue's fields and by what each request was written to mean: nothing of what
the chat understood is asked. MovieLens has a script of its own; for other data one is made of categories and years.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from recllm_bench.data.catalogue import Catalogue
from recllm_bench.planning import recipe_values, resolved
from recllm_bench.recipe import override, recipe_from
from recllm_bench.reporting.machine import machine_facts
from recllm_bench.runner import BenchCell
from recllm_bench.talk import conversation_of
from recllm_bench.talk.session import Conversation, State


@dataclass(frozen=True)
class Asked:
    """A sentence and all that is wished after it.

    Attributes
    ----------
    says : str
    kind : str
        ``kind``, ``years``, ``negation``, ``title``, ``correction`` (something earlier goes or changes) or ``talk``.
    every, some, none : sequence of str
        Categories that an item has, of which it has one, and that it has not.
    low, high : int
        Years; 0 and 9999 where any will do.
    like : str
        Title with which it shares half of the categories or more.
    newer, older : bool
        Than everything in the list before.
    """

    says: str
    kind: str
    every: Sequence[str] = ()
    some: Sequence[str] = ()
    none: Sequence[str] = ()
    low: int = 0
    high: int = 9999
    like: str = ""
    newer: bool = False
    older: bool = False

    def fits(self, item: int, catalogue: Catalogue, before: Sequence[int]) -> bool:
        """Whether an item is what this asks for, after a list of other items."""
        own, year = set(catalogue.categories[item]), int(catalogue.years[item])
        held = [int(catalogue.years[other]) for other in before if catalogue.years[other]]
        good = set(self.every) <= own and (not self.some or bool(own & set(self.some))) and not own & set(self.none)
        if (self.low, self.high) != (0, 9999):
            good &= self.low <= year <= self.high and year > 0
        if held and (self.newer or self.older):
            good &= year > max(held) if self.newer else 0 < year < min(held)
        if self.like:
            other = catalogue.titles.index(self.like)
            theirs = set(catalogue.categories[other])
            good &= item != other and 2 * len(own & theirs) >= len(theirs)
        return good


AGAIN = "start over"
FILMS = (
    Asked("hello", "talk"),
    Asked("a comedy from the 1990s", "years", ["Comedy"], low=1990, high=1999),
    Asked("more", "years", ["Comedy"], low=1990, high=1999),
    Asked("nothing romantic please", "negation", ["Comedy"], none=["Romance"], low=1990, high=1999),
    Asked("rather from the 80s", "correction", ["Comedy"], none=["Romance"], low=1980, high=1989),
    Asked("older than 1980", "correction", ["Comedy"], none=["Romance"], high=1979),
    Asked(AGAIN, "talk"),
    Asked("something scary", "kind", ["Horror"]),
    Asked("not horror", "correction", none=["Horror"]),
    Asked("a war film", "kind", ["War"], none=["Horror"]),
    Asked("made before 1970", "years", ["War"], none=["Horror"], high=1969),
    Asked("horror is fine, and any year", "correction", ["War"]),
    Asked(AGAIN, "talk"),
    Asked("sci-fi but no action", "negation", ["Sci-Fi"], none=["Action"]),
    Asked("something newer", "years", ["Sci-Fi"], none=["Action"], newer=True),
    Asked(AGAIN, "talk"),
    Asked("a film like Alien", "title", like="Alien"),
    Asked("and not horror", "negation", none=["Horror"], like="Alien"),
    Asked("since 1990", "years", none=["Horror"], like="Alien", low=1990),
    Asked("undo", "correction", none=["Horror"], like="Alien"),
    Asked(AGAIN, "talk"),
    Asked("I want a thriller or a crime story", "kind", some=["Thriller", "Crime"]),
    Asked("also funny", "kind", ["Comedy"], ["Thriller", "Crime"]),
    Asked("between 1990 and 1995", "years", ["Comedy"], ["Thriller", "Crime"], low=1990, high=1995),
    Asked("forget the comedy", "correction", some=["Thriller", "Crime"], low=1990, high=1995),
    Asked("without drama", "negation", some=["Thriller", "Crime"], none=["Drama"], low=1990, high=1995),
    Asked(AGAIN, "talk"),
    Asked("animated movies for my kids", "kind", ["Animation", "Children's"]),
    Asked("no musicals", "negation", ["Animation", "Children's"], none=["Musical"]),
    Asked("something older", "years", ["Animation", "Children's"], none=["Musical"], older=True),
    Asked("a western instead", "correction", ["Western"], none=["Musical"]),
    Asked("musicals are fine, and any year", "correction", ["Western"]),
    Asked(AGAIN, "talk"),
    Asked("movies like Star Wars from the eighties", "title", like="Star Wars", low=1980, high=1989),
    Asked("like Toy Story instead", "correction", like="Toy Story", low=1980, high=1989),
    Asked("late 90s", "correction", like="Toy Story", low=1997, high=1999),
    Asked(AGAIN, "talk"),
    Asked("a documentary from 1994 or later", "years", ["Documentary"], low=1994),
)


def script_for(catalogue: Catalogue, most: int = 30) -> list[Asked]:
    """A script of a catalogue's own categories and years; every request is one that five items or more fit."""

    def enough(asked: Asked) -> bool:
        fit = sum(asked.fits(item, catalogue, ()) for item in range(1, len(catalogue)))
        return fit >= (20 if asked.says == "more" else 5)

    counts: dict[str, int] = {}
    for categories in catalogue.categories:
        for name in categories:
            counts[name] = counts.get(name, 0) + 1
    common = [name for name in sorted(counts, key=lambda name: -counts[name]) if counts[name] < len(catalogue) - 1][:8]
    decades = sorted({int(year) // 10 * 10 for year in catalogue.years if year})
    found: list[Asked] = []
    for one, two in zip(common, [*common[1:], *common[:1]], strict=True):
        rows = [
            Asked(one, "kind", [one]),
            Asked("more", "kind", [one]),
            Asked(f"no {two}", "negation", [one], none=[two]),
        ]
        rows += [Asked(f"{two} instead", "correction", [two])]
        for decade in decades[-2:]:
            said, years = f"from the {decade}s", {"low": decade, "high": decade + 9}
            rows.append(Asked(said, "years", [two], **years))
        rows = [row for row in rows if enough(row)]
        found += [Asked(AGAIN, "talk"), *rows] if rows else []
    lists = [place for place, asked in enumerate(found) if asked.kind != "talk"][:most]
    return found[: lists[-1] + 1] if lists else []


@dataclass
class Tally:
    """Items that were shown, and that fit, of one kind of request."""

    shown: int = 0
    fit: int = 0
    missing: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the items shown, those that fit."""
        return self.fit / max(1, self.shown)


def play(
    conversation: Conversation, script: Sequence[Asked], users: Sequence[tuple[int, Sequence[int]]], filters: bool
) -> dict[str, Tally]:
    """Say a script to a conversation as each user, and count by kind of request.

    A request that is answered without a list counts as a whole list that does not fit; small talk that is answered with
    one is named under ``talk``.
    """
    tallies: dict[str, Tally] = {}
    conversation.filters = filters
    for user, history in users:
        conversation.user, conversation.state = user, State(history=tuple(history))
        before: Sequence[int] = ()
        for asked in script:
            items = conversation.answer(asked.says).items
            tally = tallies.setdefault(asked.kind, Tally())
            if asked.kind == "talk":
                tally.missing += [asked.says] if items else []
                continue
            good = [asked.fits(item, conversation.catalogue, before) for item in items]
            tally.shown += len(items) or conversation.shown
            tally.fit += sum(good)
            tally.missing += [] if good and all(good) else [asked.says]
            before = items or before
    return tallies


def total(tallies: dict[str, Tally]) -> Tally:
    """All kinds together."""
    kept = [tally for kind, tally in tallies.items() if kind != "talk"]
    return Tally(sum(tally.shown for tally in kept), sum(tally.fit for tally in kept))


def measure(cell: BenchCell, n_users: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Both figures of a cell's model, by kind of request; users are spread over the whole dataset."""
    conversation = conversation_of(cell, say=say)
    histories, catalogue = cell.dataset.histories, cell.dataset.catalogue
    films = {"Film-Noir", "Children's", "Western"} <= {name for row in catalogue.categories for name in row}
    script = list(FILMS) if films and catalogue.years.any() else script_for(catalogue)
    step = max(1, histories.n_users // n_users)
    users = [(user, histories.of(user).tolist()) for user in range(1, histories.n_users + 1, step)][:n_users]
    ways = {name: play(conversation, script, users, name == "filter") for name in ("filter", "alone")}
    requests = sum(asked.kind != "talk" for asked in script)
    say(f"{cell.name} on {cell.dataset.name}: {requests} requests, {len(users)} users, lists of {conversation.shown}")
    say(f"{'request':<12}{'lists':>7}{'with the filter':>17}{'model alone':>13}")
    found: dict[str, Any] = {
        "model": cell.name,
        "dataset": cell.dataset.name,
        "requests": requests,
        "users": len(users),
    }
    for kind in [*dict.fromkeys(asked.kind for asked in script if asked.kind != "talk"), "all"]:
        pair = [total(way) if kind == "all" else way[kind] for way in ways.values()]
        lists = sum(asked.kind in (kind, "all") or (kind == "all" and asked.kind != "talk") for asked in script)
        say(f"{kind:<12}{lists * len(users):>7}{pair[0].share:>17.3f}{pair[1].share:>13.3f}")
        found[kind] = {"filter": pair[0].share, "alone": pair[1].share}
    unfit = {f"{kind}: {says}" for kind, tally in ways["filter"].items() for says in tally.missing}
    found["unfit"] = sorted(unfit)
    say("with the filter, something did not fit after: " + ("; ".join(sorted(unfit)) or "nothing"))
    return found


def worded(cell: BenchCell, llm: str, requests: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """What a chat model says before the first lists of the script, to the first user.

    Returns
    -------
    dict
        ``lists``, ``sentences`` that kept to the facts and were shown, ``seconds`` a list at the median, ``shown`` and
        ``same_items``: whether every list is the one without a chat model.
    """
    conversation = conversation_of(cell, wording=llm, say=say)
    script = [asked for asked in FILMS if asked.kind != "talk" or asked.says == AGAIN]
    speak = conversation.wording
    assert speak is not None
    seconds: list[float] = []
    shown: list[dict[str, str]] = []
    said: list[str] = []

    def timed(wishes: Any, items: Sequence[int]) -> str:
        start = time.perf_counter()
        said.append(speak(wishes, items))
        seconds.append(time.perf_counter() - start)
        return said[-1]

    history, lists = tuple(cell.dataset.histories.of(1).tolist()), []
    for wording in (timed, None):
        conversation.state, conversation.wording, kept = State(history=history), wording, []
        for asked in script:
            if len(kept) == requests:
                break
            items = conversation.answer(asked.says).items
            if items:
                kept.append(items)
                if wording is not None:
                    shown.append({"request": asked.says, "sentence": said[-1]})
        lists.append(kept)
    sentences = sum(bool(text) for text in said)
    found = {"llm": llm, "lists": len(lists[0]), "sentences": sentences, "seconds": statistics.median(seconds)}
    found |= {"shown": shown, "same_items": lists[0] == lists[1]}
    kept = f"{sentences} of {len(lists[0])} lists with a sentence that keeps to the facts"
    say(f"{llm}: {kept}, {found['seconds']:.1f} s each")
    for each in shown:
        say(f"  {each['request']}: {each['sentence'] or '(none that keeps to the facts)'}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="sasrec")
    parser.add_argument("dataset", nargs="?", default="ml-100k")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--llm", default="", help="chat model that words answers to the first user, such as smollm2")
    parser.add_argument("--requests", type=int, default=10, help="lists that it words (default 10)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = options.set or (["training.epochs=2"] if options.model == "sasrec" else [])
    values = override(recipe_values(options.model, options.dataset, "", ""), settings)
    values.pop("compare", None)
    where = f"{options.model} on {options.dataset}"
    recipe = resolved(recipe_from(values, where))
    cell = BenchCell(recipe)
    found = measure(cell, options.users)
    if options.llm:
        found["wording"] = worded(cell, options.llm, options.requests)
    if options.json:
        machine = {**machine_facts(str(cell.device)), "threads": torch.get_num_threads()}
        manifest = {"recipe": recipe.as_dict(), "data_checksum": cell.dataset.checksum, "machine": machine}
        options.json.write_text(json.dumps({**found, **manifest}, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
