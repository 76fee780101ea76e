"""Invented prose for generated files: one long text, made once, of which every review is a slice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

WORDS = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split()
"""English words, the common ones first, and some that files have to escape."""
_NAMES = [
    *("James", "Mary", "Robert", "Linda", "Michael", "Sarah", "David", "Karen", "Daniel", "Emma", "Thomas", "Anna"),
    *("Peter", "Laura", "Kevin", "Julia", "Brian", "Nina", "Steven", "Alice", "George", "Helen", "Jason", "Diane"),
    *("Eric", "Rosa", "Paul", "Grace", "Mark", "Olga", "Scott", "Irene", "Adam", "José", "Zoë", "Renée", "Björn"),
]
_CHARACTERS = 5.6  # of a word and what follows it, about


@dataclass(frozen=True)
class Prose:
    """One long text with the places at which it can be cut.

    Attributes
    ----------
    text : bytes
        Sentences, escaped for the file they go into.
    starts, ends : int64 [sentences]
        Where each begins, and ends without the blank behind it.
    words_before : int64 [sentences + 1]
        Words before each sentence; last, all words.
    """

    text: bytes
    starts: np.ndarray
    ends: np.ndarray
    words_before: np.ndarray

    def cut(self, where: np.ndarray, words: np.ndarray) -> list[bytes]:
        """Slices of about so many words.

        Parameters
        ----------
        where : float64 [n]
            Where to begin, 0 the start of the text and 1 its end.
        words : int64 [n]
            Wanted words; a slice has whole sentences, and at least one.
        """
        last = len(self.starts) - 1
        room = np.searchsorted(self.words_before, max(0, int(self.words_before[-1]) - int(words.max(initial=0))))
        first = (where * max(1, min(int(room), last))).astype(np.int64)
        goal = self.words_before[first] + words
        final = np.searchsorted(self.words_before, goal, "right") - 1
        # Of the two sentence ends around the goal the nearer one, so that the mean length comes out right.
        next_end = self.words_before[np.minimum(final + 1, last + 1)]
        final = np.where(next_end - goal < goal - self.words_before[final], final, final - 1)
        final = np.clip(final, first, last)
        text = self.text
        return [text[a:b] for a, b in zip(self.starts[first].tolist(), self.ends[final].tolist(), strict=True)]


@lru_cache(maxsize=4)
def prose(escape: Callable[[str], bytes], characters: int, seed: int) -> Prose:
    """Make a text of about so many characters.

    Words follow Zipf's law. One sentence in eight is a single short exclamation, one in twelve ends a paragraph.
    """
    rng = np.random.default_rng((seed, 11))
    n = max(64, int(characters / _CHARACTERS))
    chances = (np.arange(len(WORDS)) + 3.0) ** -0.85
    plain = np.array([escape(word) for word in WORDS], dtype=object)
    capital = np.array([escape(word[:1].upper() + word[1:]) for word in WORDS], dtype=object)
    drawn = np.searchsorted(np.cumsum(chances / chances.sum())[:-1], rng.random(n), "right")
    lengths = np.where(rng.random(n) < 0.125, rng.integers(1, 4, n), 3 + rng.poisson(9, n))
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths), n))]
    if not len(lengths):
        lengths = np.array([n])
    lengths[-1] += n - int(lengths.sum())  # the words that are left over join the last sentence
    words_before = np.concatenate([[0], np.cumsum(lengths)])
    opening, closing = words_before[:-1], words_before[1:] - 1
    spoken = plain[drawn]
    spoken[opening] = capital[drawn[opening]]
    pauses = np.where(rng.random(n) < 0.06, b", ", b" ").astype(object)
    signs = rng.choice(np.array([b".", b"!", b"?", b"..."], dtype=object), len(lengths), p=[0.78, 0.14, 0.05, 0.03])
    blanks = rng.choice(np.array([b" ", b"  ", escape("\n\n")], dtype=object), len(lengths), p=[0.77, 0.15, 0.08])
    pauses[closing] = signs + blanks
    sizes = np.fromiter(map(len, spoken), np.int64, n) + np.fromiter(map(len, pauses), np.int64, n)
    stops = np.cumsum(sizes)
    ends = stops[closing] - np.fromiter(map(len, blanks), np.int64, len(blanks))
    starts = np.concatenate([[0], stops[closing][:-1]])
    pieces = np.empty(2 * n, dtype=object)
    pieces[0::2], pieces[1::2] = spoken, pauses
    return Prose(b"".join(pieces.tolist()), starts, ends, words_before)


def phrases(escape: Callable[[str], bytes], count: int, low: int, high: int, seed: int, title: bool) -> np.ndarray:
    """Short texts, object [count]: of ``low`` to ``high`` words, each word with a capital when ``title``."""
    rng = np.random.default_rng((seed, 12))
    # Titles have few function words, so theirs come from the rarer part of the list.
    drawn = rng.integers(60 if title else 0, len(WORDS) - 20, (count, high))
    words = [word[:1].upper() + word[1:] if title else word for word in WORDS]
    kept = rng.integers(low, high + 1, count).tolist()
    return _objects(
        [escape(" ".join([words[word] for word in row[:n]])) for row, n in zip(drawn.tolist(), kept, strict=True)]
    )


def names(escape: Callable[[str], bytes], count: int, seed: int) -> np.ndarray:
    """Names that reviewers go by, object [count]; some have quotes or letters beyond ASCII."""
    rng = np.random.default_rng((seed, 13))
    first, second = rng.integers(0, len(_NAMES), (2, count)).tolist()
    forms = rng.choice(4, count, p=[0.2, 0.4, 0.3, 0.1]).tolist()
    made = []
    for one, two, form in zip(first, second, forms, strict=True):
        given, other = _NAMES[one], _NAMES[two]
        made.append(("Amazon Customer", f"{given} {other[0]}.", given.lower() + other, f'{given} "{other}"')[form])
    return _objects([escape(name) for name in made])


def lengths(mean: float, seed: int, most: int = 4000) -> np.ndarray:
    """Word counts to draw from, int64 [65536]: log-normal, with this mean."""
    rng = np.random.default_rng((seed, 14))
    drawn = np.minimum(rng.lognormal(0, 0.95, 1 << 16), 60)
    return np.clip(np.round(drawn * (mean / drawn.mean())), 1, most).astype(np.int64)


def json_ascii(text: str) -> bytes:
    """Escaped for a JSON string that is ASCII throughout."""
    return json.dumps(text)[1:-1].encode()


def json_utf8(text: str) -> bytes:
    """Escaped for a JSON string that keeps letters beyond ASCII."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def python_literal(text: str) -> bytes:
    """Escaped as Python 2 wrote unicode strings, without the quotes."""
    return text.encode("unicode_escape")


def python_strings(texts: list[bytes]) -> list[bytes]:
    """Quote escaped texts as Python's ``repr`` does: double quotes where the text has single ones alone."""
    quoted = []
    for text in texts:
        if b"'" not in text:
            quoted.append(b"u'" + text + b"'")
        elif b'"' not in text:
            quoted.append(b'u"' + text + b'"')
        else:
            quoted.append(b"u'" + text.replace(b"'", b"\\'") + b"'")
    return quoted


def _objects(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
