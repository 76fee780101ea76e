"""Dialogues in which one person looked for a film and another recommended some: ReDial, INSPIRED, OpenDialKG.

Each is read up to the recommendation that counts: what the seeker had said until then, films that the seeker had named,
and the film. What "liked" means differs, since the collections do not record the same:

- ``redial`` (Li et al., 2018; validation part): the seeker marked every film of the talk; the first recommended film
  marked as liked. Of the films named before, those that the seeker did not mark as disliked.
- ``inspired`` (Hayati et al., 2020; development and test parts): the seeker accepted or refused at the end. Of accepted
  talks, those in which the recommender brought up one film only.
- ``opendialkg`` (Moon et al., 2019): nobody marked anything. The first film that the other one brings up, unless the
  seeker's next sentence refuses it.

A film that the seeker had named is never the one that counts.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recllm_bench.errors import BenchError, NotEnough
from recllm_bench.locations import data_mirror

FILES = {
    "redial": ("crs/redial/valid_data.jsonl.gz",),
    "inspired": ("crs/inspired/dev.tsv.gz", "crs/inspired/test.tsv.gz"),
    "opendialkg": (
        "crs/opendialkg/id2info.json.gz",
        *(f"crs/opendialkg/{part}_data_processed.jsonl.gz" for part in ("train", "valid", "test")),
    ),
}
"""Files of each collection, below ``RECLLM_DATA_MIRROR``."""
_LIKED, _DISLIKED = 1, 0
_REFUSES = re.compile(
    r"\b(?:no|nope|not|never|don'?t|didn'?t|doesn'?t|hate[ds]?|dislike[ds]?|boring|too (?:old|long|slow))\b", re.I
)


@dataclass(frozen=True)
class FilmDialogue:
    """One talk, up to the recommendation that counts.

    Attributes
    ----------
    source, name : str
        The collection and the talk's id in it.
    said : tuple of str
        What the seeker had said until then, in order.
    named : tuple of str
        Titles of films that the seeker had named as seen or liked, in order.
    liked : str
        Title of the film that was recommended and liked; empty where there is none.
    later : tuple of str
        What the seeker said afterwards.
    """

    source: str
    name: str
    said: tuple[str, ...]
    named: tuple[str, ...]
    liked: str
    later: tuple[str, ...] = ()


def film_dialogues(source: str) -> list[FilmDialogue]:
    """All talks of a collection, in the order of its files.

    Raises
    ------
    NotEnough
        When the files are not there.
    BenchError
        When one of them is damaged.
    """
    mirror = data_mirror() or ""
    paths = [Path(mirror) / name for name in FILES[source]]
    if not mirror or not all(path.is_file() for path in paths):
        raise NotEnough(
            f"the dialogues of {source} are not here: put {', '.join(FILES[source])} into a folder and set "
            "RECLLM_DATA_MIRROR to it (docs/people.md says where they come from)"
        )
    try:
        return list(_READERS[source](paths))
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        where = f"{FILES[source][0]} and its like"
        raise BenchError(f"{where}: not as {source} publishes it ({error}); get it again") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _redial(paths: list[Path]) -> Iterator[FilmDialogue]:
    for talk in (talk for path in paths for talk in _lines(path)):
        marks, titles = talk["initiatorQuestions"] or {}, talk["movieMentions"] or {}
        titles = {number: " ".join((title or "").split()) for number, title in titles.items()} if titles else {}
        seeker, liked = talk["initiatorWorkerId"], ""
        said, named, later = list[str](), list[str](), list[str]()
        for message in talk["messages"]:
            found = [number for number in re.findall(r"@(\d+)", message["text"]) if titles.get(number)]
            parts = re.split(r"@(\d+)", message["text"])  # every other one is the number of a film
            text = "".join(titles.get(part) or "it" if place % 2 else part for place, part in enumerate(parts))
            if message["senderWorkerId"] == seeker:
                (later if liked else said).append(text)
                named += [] if liked else [number for number in found if number not in named]
                continue
            fresh = [each for each in found if marks.get(each, {}).get("liked") == _LIKED and each not in named]
            liked = liked or (titles[fresh[0]] if fresh else "")
        kept = [titles[each] for each in named if marks.get(each, {}).get("liked") != _DISLIKED]
        yield FilmDialogue("redial", str(talk["conversationId"]), tuple(said), tuple(kept), liked, tuple(later))


def _inspired(paths: list[Path]) -> Iterator[FilmDialogue]:
    talks: dict[str, list[dict[str, str]]] = {}
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(io.StringIO(file.read()), delimiter="\t", quoting=csv.QUOTE_NONE):
                talks.setdefault(row["dialog_id"], []).append(row)
    for name, rows in talks.items():
        heard: dict[str, int] = {}  # films that the recommender brought up, and where
        named: dict[str, int] = {}
        for place, row in enumerate(rows):
            for title in filter(None, map(str.strip, (row["movies"] or "").split(";"))):
                plain = re.sub(r"\s*\(\d{4}\)$", "", title)
                # The films of a line were found by a machine, which takes "the entire time" for a title.
                if not re.search(rf"\b{re.escape(plain)}\b", row["text"]) or title in named or title in heard:
                    continue
                (named if row["speaker"] == "SEEKER" else heard)[title] = place
        accepted = rows[0]["coarse_label"].startswith("accept") and len(heard) == 1
        liked, end = next(iter(heard.items())) if accepted else ("", len(rows))
        texts = [(place, row["text"].replace("QUOTATION_MARK", '"')) for place, row in enumerate(rows)
                 if row["speaker"] == "SEEKER"]  # fmt: skip
        yield FilmDialogue(
            "inspired",
            name.removesuffix(".pkl"),
            tuple(text for place, text in texts if place < end),
            tuple(title for title, place in named.items() if place < end),
            liked,
            tuple(text for place, text in texts if place > end),
        )


def _opendialkg(paths: list[Path]) -> Iterator[FilmDialogue]:
    with gzip.open(paths[0], "rt", encoding="utf-8") as file:
        years = {film["name"]: film.get("year") for film in json.load(file).values()}
    for path in paths[1:]:
        talks: dict[int, list[dict[str, Any]]] = {}
        for row in _lines(path):
            talks.setdefault(row["dialog_id"], []).append(row)
        for name, rows in talks.items():
            longest = max(rows, key=lambda row: len(row["context"]))
            chosen, liked = longest, ""
            for row in rows:
                before = " ".join(row["context"]).casefold()
                fresh = [title for title in row["rec"] if title.casefold() not in before]
                if fresh:
                    chosen, liked = row, fresh[0]
                    break
            turn = len(chosen["context"])
            said = tuple(chosen["context"][(turn - 1) % 2 :: 2])
            after = tuple(longest["context"][turn + 1 :: 2])
            if liked and after and _REFUSES.search(after[0]):
                liked = ""
            talk = " ".join(said)
            named = [title for title in dict.fromkeys(chosen["entity"]) if title in years and title in talk]
            yield FilmDialogue(
                "opendialkg",
                f"{path.name.partition('_')[0]}-{name}",
                said,
                tuple(_dated(title, years) for title in named),
                _dated(liked, years) if liked else "",
                after,
            )


def _dated(title: str, years: dict[str, Any]) -> str:
    year = str(years.get(title) or "")[:4]
    return f"{title} ({year})" if year.isdigit() else title


_READERS: dict[str, Callable[[list[Path]], Iterator[FilmDialogue]]] = {
    "redial": _redial,
    "inspired": _inspired,
    "opendialkg": _opendialkg,
}
