"""The leakage guard: what a simulator says never names its target.

An utterance leaks when it contains the target's title in any of these forms, whatever its case, accents,
punctuation and spacing:

- the full title, its form without year, subtitle or edition, or an alternative title in parentheses;
- its subtitle alone, when that has two content words; numbers in it written otherwise ("Twelve Monkeys", "Rocky 2");
- one of these forms misspelt: one letter wrong, left out, too many or exchanged with its neighbour in five letters or
  more (below eleven where a capital shows that a name is meant), two in fifteen, the first letter being right;
- the initials of three words or more, in capitals, or in any case when there are four that begin no other word;
- three or more of its content words in a row, whatever small words stand between them;
- a word that occurs in no other title and has at least five letters (or its possessive);
- the source's own id of the item, an ASIN, an ISBN, or an address.

A title of one short or small word ("It", "Her", "Heat") is a word like any other: it leaks when it is quoted or
capitalised within a sentence; otherwise it is left and counted as ambiguous.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue

NEUTRAL = "this one"
"""What stands in place of a leak."""

_RARE_LENGTH = 5
_RUN = 3
_FAIR, _LONG, _TWO_SLIPS = 7, 11, 15  # letters from which a form may be misspelt where a sentence begins, in lower
# case, and by two letters
_ROMAN = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII")
_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORD = re.compile(r"[^\W_]+(?:['’`´][^\W_]+)*|&")
_POSSESSIVE = re.compile(r"([^\W_]+)['’`´]s\b", re.IGNORECASE)
_YEAR = re.compile(r"[(\[]\s*\d{4}\s*[)\]]")
_BRACKETS = re.compile(r"[(\[]([^()\[\]]*)[)\]]")
_ALSO = re.compile(r"^\s*(?:a\.?k\.?a\.?|aka|also known as)\s+", re.IGNORECASE)
_ARTICLE_LAST = re.compile(
    r"^(?P<rest>.+?),\s+(?P<article>the|an?|les?|la|las|los|el|il|lo|gli|der|die|das|une?|l['’])\s*$", re.IGNORECASE
)
_LEFT_ARTICLE = re.compile(r"\b(?:the|an?)\s+$", re.IGNORECASE)  # "the this one" would read badly
_ARTICLE_FIRST = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)
_EDITION = re.compile(
    r"[\s,:\-–—]*\b(?:(?:the|a)\s+)?(?:(?:\d+(?:st|nd|rd|th)\s+)?(?:special|limited|collector['’]?s|deluxe|anniversary|"
    r"ultimate|extended|definitive|complete|standard|premium|gold|platinum|remastered|expanded|revised|unrated|"
    r"theatrical|game\s+of\s+the\s+year|goty|first|second|third|\d+(?:st|nd|rd|th)|widescreen|full[\s-]?screen)"
    r"[\s-]+)*(?:edition|version|director['’]?s\s+cut|final\s+cut|extended\s+cut|remastered|blu-?ray|dvd|vhs)\b.*$",
    re.IGNORECASE,
)
_SUBTITLE = re.compile(r"\s*(?::|;|\s[-–—]\s|[–—])\s*")
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_NUMBERED = re.compile(
    r"\b(?:asin|isbn|imdb|(?:item|movie|product|business|game)[\s_-]*id|id)\b\s*[:#=]?\s*(?=[\w-]*\d)[\w-]+",
    re.IGNORECASE,
)
_ASIN = re.compile(r"\bB0[0-9A-Z]{8}\b|\b(?:97[89][- ]?)?\d{9}[\dXx]\b|\btt\d{7,}\b", re.IGNORECASE)
_QUOTES = "\"'“”‘’«»„`´"
_SENTENCE_ENDS = ".!?…:;\n"
_SMALL = """
a about above after again against all am an and any are as at be because been before being below between both
    but by can could did do does doing down during each few for from further had has have having he her here hers him
    his how i if in into is it its itself just me more most my no nor not now of off on once only or other our ours
    out over own same she should so some such than that the their theirs them then there these they this those
    through to too under until up very was we were what when where which while who whom why will with would you your
    yours one two three part vol volume episode
"""
SMALL_WORDS = frozenset(_SMALL.split())
"""Words that carry no title: they neither make a run of content words nor count as rare."""


@dataclass(frozen=True)
class Redacted:
    """Texts after the guard.

    Attributes
    ----------
    texts : list of str
        Safe to pass on.
    leaked : bool [n]
        Whether the text named its target.
    ambiguous : int64 [n]
        Occurrences of a one-word title that were left.
    identifiers : int64 [n]
        Addresses and ids taken out.
    """

    texts: list[str]
    leaked: np.ndarray
    ambiguous: np.ndarray
    identifiers: np.ndarray


@dataclass(frozen=True)
class _Title:
    """What to look for, for one target; every string is folded."""

    whole: tuple[str, ...]
    single: tuple[str, ...]
    runs: frozenset[tuple[str, ...]]
    rare: frozenset[str]
    token: str
    misspelt: tuple[str, ...] = ()
    initials: frozenset[str] = frozenset()


class Redactor:
    """Finds and replaces what would name a target.

    Parameters
    ----------
    catalogue : Catalogue
        Its titles decide which words are rare; its tokens are the ids to be taken out.

    Attributes
    ----------
    n_leaks : int
        Texts with a title taken out, over all calls.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._titles, self._tokens = catalogue.titles, catalogue.tokens
        counts: dict[str, int] = {}
        for title in set(catalogue.titles):  # items with one and the same title count as one
            for word in {word for word, _, _ in words(title)}:
                counts[word] = counts.get(word, 0) + 1
        self._titles_with = counts
        self._known: dict[int, _Title] = {}
        self.n_leaks = 0

    def rare_words(self, item: int) -> frozenset[str]:
        """Words of at least five letters that occur in this item's title alone, folded."""
        return self._title(item).rare

    def redact(self, texts: Sequence[str], targets: Sequence[int]) -> Redacted:
        """Replace every leak by :data:`NEUTRAL` and take ids and addresses out.

        Parameters
        ----------
        texts : sequence of str [n]
            What simulators said.
        targets : sequence of int [n]
            The item each text must not name.
        """
        done: dict[tuple[str, int], tuple[str, bool, int, int]] = {}
        rows = []
        for pair in zip(texts, map(int, targets), strict=True):
            if pair not in done:
                done[pair] = self._redact(*pair)
            rows.append(done[pair])
        leaked = np.array([row[1] for row in rows], dtype=bool)
        ambiguous = np.array([row[2] for row in rows], dtype=np.int64)
        identifiers = np.array([row[3] for row in rows], dtype=np.int64)
        self.n_leaks += int(leaked.sum())
        return Redacted([row[0] for row in rows], leaked, ambiguous, identifiers)

    def names(self, text: str, item: int) -> bool:
        """Whether a text names an item."""
        return self._redact(text, item)[1]

    def _redact(self, text: str, target: int) -> tuple[str, bool, int, int]:
        title = self._title(target)
        text, identifiers = _without_identifiers(text)
        token = re.compile(rf"(?<!\w){re.escape(title.token)}(?!\w)", re.IGNORECASE) if title.token else None
        text, hits = token.subn(" ", text) if token else (text, 0)
        leaked, ambiguous = hits > 0, 0
        for _ in range(8):  # taking one leak out may bring the parts of another together
            spans, ambiguous = _find(text, title, self._titles_with)
            if not spans:
                break
            leaked = True
            text = _replace(text, spans)
        if identifiers or leaked:
            text = re.sub(r"\s+([.,!?;])", r"\1", re.sub(r"\s{2,}", " ", text)).strip()
        return text, leaked, ambiguous, identifiers + hits

    def _title(self, item: int) -> _Title:
        if item not in self._known:
            self._known[item] = self._patterns(self._titles[item], str(self._tokens[item]))
        return self._known[item]

    def _patterns(self, title: str, token: str) -> _Title:
        whole, single, runs = set[str](), set[str](), set[tuple[str, ...]]()
        forms = title_forms(title)
        for form in dict.fromkeys([*forms, *(other for each in forms for other in other_spellings(each))]):
            spelled = [word for word, _, _ in words(form)]
            joined = "".join(spelled)
            if not joined:
                continue
            small = joined in SMALL_WORDS or len(joined) < _RARE_LENGTH
            if (len(spelled) == 1 and small) or len(joined) < 3:
                single.add(joined)
            else:
                whole.add(joined)
            content = [word for word in spelled if word not in SMALL_WORDS]
            runs.update(tuple(content[start : start + _RUN]) for start in range(len(content) - _RUN + 1))
        rare = {word for word, _, _ in words(title) if len(word) >= _RARE_LENGTH and word not in SMALL_WORDS}
        rare = {word for word in rare if self._titles_with.get(word, 0) <= 1}
        owners = {_folded(match[1]) for match in _POSSESSIVE.finditer(title)}
        near = {word for word in owners if len(word) >= _RARE_LENGTH} | {f"{word}s" for word in rare}
        rare |= {word for word in near if word not in SMALL_WORDS and not self._titles_with.get(word, 0)}
        near_misses = {form for form in whole if len(form) >= _RARE_LENGTH and not form.isdigit()}
        near_misses |= {word for word in rare if len(word) >= _LONG}
        parts = [[word for word, _, _ in words(form)] for form in forms if not _YEAR.search(form)]
        initials = {"".join(word[0] for word in each) for each in parts}
        initials |= {"".join(word[0] for word in each if word != "and") for each in parts}
        initials = {letters for letters in initials if len(letters) >= _RUN and letters not in SMALL_WORDS}
        # A short number is an id in some sources, but in a sentence it is a year or a count.
        token = "" if len(token) < _RARE_LENGTH or (token.isdigit() and len(token) < 7) else token
        return _Title(
            tuple(sorted(whole)),
            tuple(sorted(single - whole)),
            frozenset(runs),
            frozenset(rare),
            token,
            tuple(sorted(near_misses)),
            frozenset(initials),
        )


def title_forms(title: str) -> list[str]:
    """Forms of a title: full, without year, edition and subtitle, alternatives, article moved to the front."""
    forms = [title, _YEAR.sub(" ", title)]
    bare = _BRACKETS.sub(" ", title)
    forms += [bare] + [_ALSO.sub("", part) for part in _BRACKETS.findall(title) if not part.strip().isdigit()]
    forms += [_EDITION.sub("", form) for form in (title, bare)]
    forms += [_SUBTITLE.split(form.strip(), maxsplit=1)[0] for form in list(forms)]
    for form in list(forms):
        article = _ARTICLE_LAST.match(form.strip())
        if article:
            forms += [f"{article['article']} {article['rest']}", article["rest"]]
    forms += [_ARTICLE_FIRST.sub("", form.strip()) for form in list(forms)]
    forms += [form.replace("&", " ") for form in forms if "&" in form]
    editions = [form for form in forms if not _EDITION.fullmatch(form.strip())]
    return list(dict.fromkeys(form.strip() for form in editions if form.strip()))


def other_spellings(form: str) -> list[str]:
    """A title with its numbers written otherwise, as words, digits or Roman; and its subtitle alone."""
    parts = [part for part in _SUBTITLE.split(_YEAR.sub(" ", form).strip()) if part]
    found = [part for part in parts[1:] if sum(word not in SMALL_WORDS for word, _, _ in words(part)) > 1]
    spelled = [match[0] for match in _WORD.finditer(_YEAR.sub(" ", form))]
    numbers = [_number(word, place) for place, word in enumerate(spelled)]
    if not any(numbers):
        return found
    for write in (str, number_in_words, lambda number: _ROMAN[number] if number < len(_ROMAN) else str(number)):
        said = [write(number) if number else word for word, number in zip(spelled, numbers, strict=True)]
        found.append(" ".join(said))
    return found


def number_in_words(number: int) -> str:
    """A number up to 9,999 as it is read; years of the last century by pairs."""
    if number < len(_ONES):
        return _ONES[number]
    if number < 100:
        return f"{_TENS[number // 10 - 2]} {_ONES[number % 10] if number % 10 else ''}".strip()
    if 1100 <= number < 2000 and number % 100:
        return f"{number_in_words(number // 100)} {number_in_words(number % 100)}"
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    rest = number_in_words(number % size) if number % size else ""
    return f"{number_in_words(number // size)} {name} {rest}".strip()


def _number(word: str, place: int) -> int:
    """What number a word of a title is; 0 for none. A Roman one never stands first, and is no "I"."""
    if word.isdecimal():  # "²" is a digit that int() does not take
        return int(word) if len(word) < 5 else 0
    if place and word in _ROMAN[2:]:
        return _ROMAN.index(word)
    plain = word.casefold()
    return _ONES.index(plain) if plain in _ONES else 10 * (_TENS.index(plain) + 2) if plain in _TENS else 0


def words(text: str) -> list[tuple[str, int, int]]:
    """Words of a text as ``(folded, start, end)``: without case, accents or apostrophes; ``&`` reads "and"."""
    return [(_folded(match[0]), match.start(), match.end()) for match in _WORD.finditer(text)]


@lru_cache(maxsize=1 << 16)
def _folded(word: str) -> str:
    if word == "&":
        return "and"
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in plain if letter.isalnum())


def contains(text: str, phrase: str) -> bool:
    """Whether the words of a phrase stand in a text, one after the other, whatever case and punctuation."""
    return next(_occurrences(words(text), "".join(word for word, _, _ in words(phrase))), None) is not None


def _occurrences(spelled: list[tuple[str, int, int]], joined: str) -> Iterator[tuple[int, int]]:
    """Word ranges whose letters, spaces left out, are ``joined``: "Spiderman" is "Spider-Man"."""
    if not joined:
        return
    letters = "".join(word for word, _, _ in spelled)
    place = letters.find(joined)
    if place < 0:
        return
    starts, position = {}, 0
    for index, (word, _, _) in enumerate(spelled):
        starts[position] = index
        position += len(word)
    starts[position] = len(spelled)
    while place >= 0:
        if place in starts and place + len(joined) in starts:
            yield starts[place], starts[place + len(joined)]
        place = letters.find(joined, place + 1)


def _find(text: str, title: _Title, known: Mapping[str, int]) -> tuple[list[tuple[int, int]], int]:
    """Character spans of leaks, and the number of ambiguous occurrences."""
    spelled = words(text)
    found = [span for joined in title.whole for span in _occurrences(spelled, joined)]
    ambiguous = 0
    for joined in title.single:
        for start, end in _occurrences(spelled, joined):
            if _is_marked(text, spelled[start][1], spelled[end - 1][2]):
                found.append((start, end))
            else:
                ambiguous += 1
    if title.rare:
        for index, (word, start, end) in enumerate(spelled):
            owner = _POSSESSIVE.fullmatch(text, start, end)  # "the president's": its "presidents" is in other titles
            if word in title.rare or (owner and _folded(owner[1]) in title.rare):
                found.append((index, index + 1))
    if title.runs:
        content = [index for index, (word, _, _) in enumerate(spelled) if word not in SMALL_WORDS]
        for place in range(len(content) - _RUN + 1):
            run = content[place : place + _RUN]
            if tuple(spelled[index][0] for index in run) in title.runs:
                found.append((run[0], run[-1] + 1))
    if not found:
        found = [*_misspelt(text, spelled, title.misspelt, known), *_initials(text, spelled, title.initials, known)]
    return [(spelled[start][1], spelled[end - 1][2]) for start, end in found], ambiguous


def _misspelt(
    text: str, spelled: list[tuple[str, int, int]], forms: Sequence[str], known: Mapping[str, int]
) -> Iterator[tuple[int, int]]:
    """Word ranges that are a form but for a slip or two; a word that other titles have is none.

    Of a short form the capital must show that a name is meant: "the mood" is not "The Wood".
    """
    starts: dict[str, list[int]] = {}
    for place, (word, _, _) in enumerate(spelled):
        starts.setdefault(word[:1], []).append(place)
    for form in forms:
        slips, shortest = (2 if len(form) >= _TWO_SLIPS else 1), len(form) - 2
        for start in starts.get(form[0], ()):
            joined = ""
            for end in range(start, len(spelled)):
                joined += spelled[end][0]
                if len(joined) > len(form) + slips:
                    break
                if len(joined) >= shortest and _near(joined, form, slips):
                    word_like = end == start and (known.get(joined) or joined in SMALL_WORDS)
                    first, last = spelled[start][1], spelled[end][2]
                    named = len(form) >= _LONG or _is_marked(text, first, last)
                    shown = text[first].isdigit() or (text[first].isupper() and text.upper() != text)
                    named = named or (len(form) >= _FAIR and shown)
                    if named and not word_like:
                        yield start, end + 1
                    break


def _near(word: str, form: str, slips: int) -> bool:
    """Whether two spellings are at most so many edits apart; exchanged neighbours are one (Damerau, 1964)."""
    if abs(len(word) - len(form)) > slips or len(set(word) ^ set(form)) > 2 * slips:
        return False
    if [letter for letter in word if letter.isdigit()] != [letter for letter in form if letter.isdigit()]:
        return False  # another number is another title
    while word and form and word[-1] == form[-1]:
        word, form = word[:-1], form[:-1]
    while word and form and word[0] == form[0]:
        word, form = word[1:], form[1:]
    before, row = [0] * (len(form) + 1), list(range(len(form) + 1))
    for i, letter in enumerate(word, 1):
        older, before, row = before, row, [i]
        for j, other in enumerate(form, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == form[j - 2] and word[i - 2] == other:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > slips:
            return False
    return row[-1] <= slips


def _initials(
    text: str, spelled: list[tuple[str, int, int]], initials: frozenset[str], known: Mapping[str, int]
) -> Iterator[tuple[int, int]]:
    firsts = {word[:1] for word, _, _ in spelled}
    for letters in initials:
        if letters[0] not in firsts:
            continue
        for start, end in _occurrences(spelled, letters):
            if any(len(word) > 1 for word, _, _ in spelled[start:end]) and end - start > 1:
                continue  # letters of several words
            said = text[spelled[start][1] : spelled[end - 1][2]]
            shouted = text.upper() == text
            if (said.upper() == said and not shouted) or (len(letters) > _RUN and not known.get(letters)):
                yield start, end


def _is_marked(text: str, start: int, end: int) -> bool:
    """Whether the word is quoted, or capitalised although no sentence begins with it."""
    before, after = text[:start].rstrip(" *_("), text[end:].lstrip(" *_)")
    if before[-1:] and before[-1] in _QUOTES and after[:1] and after[0] in _QUOTES + ".,!?":
        return True
    shouted = text.upper() == text
    return text[start].isupper() and not shouted and bool(before) and before[-1] not in _SENTENCE_ENDS + _QUOTES


def _replace(text: str, spans: list[tuple[int, int]]) -> str:
    parts, place = [], 0
    for start, end in _merged(sorted(spans)):
        parts += [_LEFT_ARTICLE.sub("", text[place:start]), NEUTRAL]
        place = end
    return "".join([*parts, text[place:]])


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged = [spans[0]]
    for start, end in spans[1:]:
        if start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _without_identifiers(text: str) -> tuple[str, int]:
    total = 0
    for pattern in (_ADDRESS, _NUMBERED, _ASIN):
        text, hits = pattern.subn(" ", text)
        total += hits
    return text, total
