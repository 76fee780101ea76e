"""Real people as tested users: what they said in published dialogues, for films of a prepared dataset.

The people of the dialogues have no history in the dataset. They are appended as users of their own, after its own
ones, whose history is the films that they had named; nothing of theirs trains. Titles are matched to the catalogue, a
talk whose seeker names the film that counts is left out, and who named no film of the catalogue gets, like everybody
else without one, the film with the most training interactions as a history.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.artifacts import ArtifactStore, content_hash, write_json
from recllm_bench.conversation.attributes import Fact
from recllm_bench.conversation.dialogue import Dialogue, Reply
from recllm_bench.conversation.redaction import Redactor, words
from recllm_bench.conversation.spoken import spoken_title
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.data.film_dialogues import FILES, film_dialogues
from recllm_bench.data.histories import Histories
from recllm_bench.data.prepare import prepare
from recllm_bench.data.splits import Cases, Split, split_named, with_tests
from recllm_bench.errors import BenchError, NotEnough, nearest
from recllm_bench.provenance import package_code_hash

if TYPE_CHECKING:
    from recllm_bench.conversation.profile import Profile
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.data.prepared import PreparedDataset
    from recllm_bench.evaluation.protocols import Protocol

ALL = "all"
"""Name of the collections together."""
_YEAR = re.compile(r"\s*[(\[](\d{4})[)\]]\s*$")
_BRACKETS = re.compile(r"\(([^()]*)\)")


class TitleIndex:
    """Finds films of a catalogue by titles as other collections write them.

    Case, punctuation, a leading article, and a year or another title in brackets make no difference. Of several films
    with one title the year decides (a year before or after is near enough); without one, none is taken.

    Parameters
    ----------
    catalogue : Catalogue
        The films.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._items: dict[str, list[tuple[int, int]]] = {}
        for item in range(1, len(catalogue)):
            for form in _plain_forms(catalogue.titles[item]):
                self._items.setdefault(form, []).append((item, int(catalogue.years[item])))

    def find(self, title: str) -> int:
        """The item of a title; 0 without one, or where several fit."""
        year = _YEAR.search(title)
        made = int(year[1]) if year else 0
        for form in _plain_forms(title):
            found = [(abs(each - made) if made and each else 0, item) for item, each in self._items.get(form, ())]
            near = sorted(pair for pair in found if pair[0] <= 1)
            if near and (len(near) == 1 or near[0][0] < near[1][0]):
                return near[0][1]
        return 0


def _plain_forms(title: str) -> list[str]:
    bare = _YEAR.sub("", title)
    forms = [_BRACKETS.sub(" ", bare), *_BRACKETS.findall(bare), bare]
    spoken = (re.sub(r"^(?:the|an?)\s+", "", spoken_title(form).strip(), flags=re.I) for form in forms)
    return list(dict.fromkeys(filter(None, ("".join(word for word, _, _ in words(form)) for form in spoken))))


def real_cases(catalogue: Catalogue, source: str) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Cases of a collection: who said what, having named which items, and which item they liked.

    Parameters
    ----------
    catalogue : Catalogue
        Whose items.
    source : str
        ``redial``, ``inspired``, ``opendialkg``, or ``all``.

    Returns
    -------
    list of dict
        ``user`` (a token), ``words``, ``named`` (items), ``liked`` (an item).
    dict of str to int
        How many talks there were, and what became of them.
    """
    if source not in (*FILES, ALL):
        raise BenchError(f"unknown dialogues '{source}'.{nearest(source, (*FILES, ALL))}")
    index, guard, cases = TitleIndex(catalogue), Redactor(catalogue), []
    counts = dict.fromkeys(
        ("dialogues", "with a liked recommendation", "title in the catalogue", "nothing said before",
         "film named by the seeker", "cases", "without a named film"), 0
    )  # fmt: skip
    for talk in (talk for each in (FILES if source == ALL else (source,)) for talk in film_dialogues(each)):
        said = " ".join(_ended(text) for text in talk.said if text.strip())
        counts["dialogues"] += 1
        counts["with a liked recommendation"] += bool(talk.liked)
        item = index.find(talk.liked) if talk.liked else 0
        counts["title in the catalogue"] += item > 0
        if not item:
            continue
        if not any(letter.isalpha() for letter in said):
            counts["nothing said before"] += 1
        elif guard.names(said, item) or any(index.find(title) == item for title in talk.named):
            counts["film named by the seeker"] += 1
        else:
            named = [found for found in map(index.find, talk.named) if found]
            cases.append({"user": f"{talk.source}:{talk.name}", "words": said, "named": named, "liked": item})
            counts["without a named film"] += not named
    counts["cases"] = len(cases)
    return cases, counts


def _ended(text: str) -> str:
    """An utterance with a sign at its end, so that the next one is not read as part of it."""
    text = " ".join(text.split())
    return text if text[-1] in ".!?…" else f"{text}."


def evaluated_data(name: str, rules: Protocol, store: ArtifactStore | None = None) -> tuple[PreparedDataset, Split]:
    """The data that a protocol measures on, and their split.

    Parameters
    ----------
    name : str
        A dataset, as for :func:`~recllm_bench.data.prepare.prepare`.
    rules : Protocol
        Its filter, split and dialogues; without dialogues the dataset's own users are tested.

    Raises
    ------
    NotEnough
        When no talk is about the dataset's items, or the dialogues are not here.
    """
    plain = prepare(name, filter=rules.filter, store=store)
    split = split_named(rules.split, plain.histories, **dict(rules.split_params))
    return with_real_users(plain, split, rules.dialogues, store) if rules.dialogues else (plain, split)


def with_real_users(
    plain: PreparedDataset, before: Split, source: str, store: ArtifactStore | None = None
) -> tuple[PreparedDataset, Split]:
    """A dataset with the people of dialogues as further users, who alone are tested; see :func:`evaluated_data`."""
    store = store or ArtifactStore(plain.folder.parent.parent)
    key = {"data": plain.checksum, "source": source, "code": package_code_hash(["conversation", "data"])}

    def make(work: Path) -> None:
        cases, counts = real_cases(plain.catalogue, source)
        write_json(work / "cases.json", {"cases": cases, "counts": counts})

    found = json.loads((store.build("real-users", key, make) / "cases.json").read_text(encoding="utf-8"))
    cases, counts = found["cases"], found["counts"]
    if not cases:
        raise NotEnough(f"no dialogue of {source} is about an item of {plain.name}; they are about films (ml1m, ...)")
    old = plain.histories
    trained = old.items[old.before(before.train_ends)]
    common = int(np.bincount(trained, minlength=old.n_items + 1)[1:].argmax()) + 1
    rows = [[*(case["named"] or [common]), case["liked"]] for case in cases]
    lengths = np.array([len(row) for row in rows])
    ends = old.offsets[-1] + np.cumsum(lengths)
    added = np.concatenate(rows).astype(np.int32)

    def longer(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        return np.concatenate([values, np.full(len(added), values.max(), dtype=values.dtype)])

    histories = Histories(
        np.concatenate([old.items, added]), np.concatenate([old.offsets, ends]), old.n_items,
        longer(old.times), longer(old.ratings),
    )  # fmt: skip
    users = np.arange(old.n_users + 1, histories.n_users + 1)
    dataset = dataclasses.replace(
        plain,
        histories=histories,
        user_tokens=[*plain.user_tokens, *(case["user"] for case in cases)],
        facts={**plain.facts, "dialogues": {"source": source, **counts}},
        checksum=content_hash([plain.checksum, source, cases]),
        said=dict(zip(users.tolist(), (case["words"] for case in cases), strict=True)),
    )
    test = Cases(users, ends - 1, added[np.cumsum(lengths) - 1])
    return dataset, with_tests(before, histories, test, f"{source} after {before.name}", counts)


class WithRealUsers:
    """A simulator whose tested users are real: these say what was recorded, all others what the simulator says.

    Parameters
    ----------
    simulator : Simulator
        Plays the users of the dataset.
    said : mapping of int to str
        Words of the real users, by user id.
    catalogue : Catalogue
        By whose vocabulary the facts in real words are read.
    """

    def __init__(self, simulator: Any, said: Mapping[int, str], catalogue: Catalogue) -> None:
        self._simulator, self._said, self._catalogue = simulator, said, catalogue
        self.name = f"people, trained with {getattr(simulator, 'name', type(simulator).__name__)}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._simulator, name)

    @property
    def key(self) -> dict[str, Any]:
        """Who speaks: the simulator, and the words of the real users."""
        own = dict(getattr(self._simulator, "key", None) or {"simulator": self.name})
        people = content_hash([[user, text] for user, text in self._said.items()])
        return {**own, "simulator": self.name, "people": people}

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """Recorded words of real users, first sentences of the others."""
        own = iter(self._simulator.open([profile for profile in profiles if profile.user not in self._said]))
        return [self._said[profile.user] if profile.user in self._said else next(own) for profile in profiles]

    def reply(
        self, profiles: Sequence[Profile], dialogues: Sequence[Dialogue], shown: Sequence[Sequence[int]]
    ) -> list[Reply]:
        """What the simulated users answer; real people cannot be asked again.

        Raises
        ------
        BenchError
            When one of the users is real.
        """
        if any(profile.user in self._said for profile in profiles):
            raise BenchError("real people said what they said; set conversation.users=0, or take another protocol")
        return self._simulator.reply(profiles, dialogues, shown)

    def facts_said(self, profiles: Sequence[Profile]) -> list[tuple[Fact, ...]]:
        """Facts that openings state: of real words, those that a reader finds."""
        return self._facts(profiles, "facts_said", 0)

    def facts_refused(self, profiles: Sequence[Profile]) -> list[tuple[Fact, ...]]:
        """Facts that openings refuse; see :meth:`facts_said`."""
        return self._facts(profiles, "facts_refused", 1)

    def _facts(self, profiles: Sequence[Profile], name: str, side: int) -> list[tuple[Fact, ...]]:
        told = getattr(self._simulator, name, lambda several: [()] * len(several))
        own = iter(told([profile for profile in profiles if profile.user not in self._said]))
        table = getattr(self._simulator, "attributes", None)
        reader = Understanding(self._catalogue, *([table] if table else []))
        facts = {} if table is None else {tuple(w for w, _, _ in words(fact.value)): fact for fact in table.vocabulary}
        found = []
        for profile in profiles:
            if profile.user not in self._said:
                found.append(next(own))
                continue
            terms = [reader.terms[term] for term in reader.read([self._said[profile.user]])[0][side]]
            found.append(tuple(facts[term] for term in terms if term in facts))
        return found
