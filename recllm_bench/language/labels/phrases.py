"""Key phrases of documents, one to three words each: what a document's pieces say again and again, and others do not.

A phrase lies within a sentence and begins and ends with a content word; the middle of three may be a small word that
joins ("range of motion"). A document is several pieces, a review each. The weight of a phrase in a document is
``sqrt(words) r ln((r + 1/2) / (e + 1/2))``, with ``r`` the pieces of the document that have it and ``e`` how many
would if it were spread evenly over all pieces: a term of the log-likelihood ratio (Dunning 1993), and a little more
for phrases that say more. A phrase must be in ``max(3, N / 500)`` of ``N`` documents (in a third of them where there
are few), which keeps slips of the pen and private names out; one of several words must occur clearly more often than
its words would meet by chance. What a single piece says is one person's word and stands behind all else. Of
near-duplicates (phrases that share a content word, whatever its ending) only the heaviest stays.

Everything but the last look-up is done on flat arrays of word codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MOST_WORDS = 3
_CANDIDATES = 24  # of a document, heaviest first; among these near-duplicates are looked for
_TOGETHER = 4.0  # how many times more often than by chance the words of a phrase stand together
_END = "."
_JOINING = ("of", "and", "for", "in", "to", "on", "&", "n")

_ENDINGS = (("ings", 4), ("ing", 4), ("ies", 4), ("ers", 4), ("ed", 4), ("es", 3), ("er", 4), ("s", 3), ("y", 4))

_FUNCTION = """
a about above across after again against ago all almost alone along already also although always am among an and
another any anybody anyone anything anyway anywhere apart are aren't around as aside at away back be became because
become becomes been before behind being below beside besides between beyond both but by came can can't cannot come
comes coming could couldn't did didn't do does doesn't doing don't done down due during each either else enough etc
even ever every everybody everyone everything everywhere except few for from further gave get gets getting give given
gives giving go goes going gone got gotten had hadn't half has hasn't have haven't having he he's hence her here hers
herself him himself his how however i i'd i'll i'm i've if in indeed instead into is isn't it it's its itself just keep
keeps kept knew know known knows last least less let let's lets like likely ll lot lots made make makes making many may
maybe me mean means meant might mine more most mostly much must my myself near nearly need needed needs neither never
no nobody none nor not nothing now nowhere of off often oh ok okay on once one ones only onto or other others otherwise
our ours ourselves out over own per perhaps put puts putting quite rather re really said same saw say saying says see
seem seemed seems seen several shall she she's should shouldn't since so some somebody somehow someone something
sometimes somewhat somewhere soon still such take taken takes taking than that that's thats the their theirs them
themselves then there there's therefore these they they're they've thing things this those though through thus till to
together too took toward towards tried try trying twice two under unless until unto up upon us use used uses using
usually ve very via want wanted wants was wasn't way ways we we'll we're we've well went were weren't what what's
whatever when whenever where whereas wherever whether which while who whoever whole whom whose why will with within
without won't wont would wouldn't yes yet you you'd you'll you're you've your yours yourself
"""
_REVIEW = """
able absolutely actually add added ago amazing amazon anymore ask asked awesome awful bad basically believe best better
big bit bought buy buying came certain certainly cheap cheaply check clearly close com complain complaint complaints
completely cool cost costs could couple course date day days deal decent decided definitely deliver delivered delivery
didnt different disappointed dont doubt early easily easy end ended enjoy enjoyed entire especially exactly excellent
expect expected expensive experience extra extremely fact fairly fantastic far fast feel feels felt find fine first
five found fully fun future general glad good great guess guy guys happen happened happy hard hate help helped helps
high highly hit honestly hope hoped hours html http huge idea im important inexpensive interesting issue issues item
items ive job large later leave left little long look looked looking looks loses love loved loves mind minute minutes
moment money month months multiple new nice nicely normal number order ordered people perfect perfectly person pick
picked piece place plan pleased plenty plus point poor possible pretty previous price priced prices pricey probably
problem problems product products properly purchase purchased purchases purchasing quality question quick quickly quit
read real reason reasonable reasonably received recommend recommendation recommended regular return returned review
reviewed reviewer reviewers reviews right run satisfied second seller send sent serious seriously serve served serves
service ship shipped shipping short show shows side simple simply single small sold solid spend spent star stars start
started stuff super sure surprised tell terrible thank thanks think thinking third thought three time times today told
top total totally true truly turn turned turns type unfortunately useful value waste week weeks wish wonder wonderful
wondering word words work worked working works worry worse worst worth wow write wrong www year years yesterday
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())
"""Words that carry no meaning of their own."""
STOP_WORDS = FUNCTION_WORDS | frozenset(_REVIEW.split())
"""Words with which no phrase begins or ends: function words, and those that reviews of anything are full of."""


def key_phrases(documents: Sequence[Sequence[str]], most: int = 8) -> list[tuple[str, ...]]:
    """Find what each document speaks of that the others do not.

    Parameters
    ----------
    documents : sequence of sequence of str [n]
        The pieces of each document; one without pieces has no phrases and counts as no document.
    most : int
        Phrases a document.

    Returns
    -------
    list of tuple of str
        Phrases in lower case, heaviest first; equal weights in alphabetical order of their words.
    """
    sizes = np.array([len(parts) for parts in documents], dtype=np.int64)
    document_of = np.repeat(np.arange(len(documents)), sizes)
    words, codes, piece = _words([part for parts in documents for part in parts])
    none: list[tuple[str, ...]] = [() for _ in documents]
    if not len(codes):
        return none
    content = _is_content(words)
    end = words.index(_END) if _END in words else -1
    joining = np.isin(np.arange(len(words)), [words.index(word) for word in _JOINING if word in words])
    usable = np.bincount(codes, minlength=len(words)).astype(np.float64)
    rows = [
        _weighed(piece, document_of, codes, usable, starts, length)
        for length, starts in enumerate(_starts(codes, piece, content, joining, end), 1)
    ]
    document = np.concatenate([row[0] for row in rows])
    weight = np.concatenate([row[1] for row in rows])
    grams = np.concatenate([row[2] for row in rows])  # [m, 3], -1 where there is no such word
    often = np.concatenate([row[3] for row in rows])
    if not len(document):
        return none
    order = np.lexsort((grams[:, 2], grams[:, 1], grams[:, 0], -weight, ~often, document))
    document, grams = document[order], grams[order]
    first = np.flatnonzero(np.diff(document, prepend=-1))
    sizes = np.diff(np.append(first, len(document)))
    place = np.arange(len(document)) - np.repeat(first, sizes)
    inside = place < _CANDIDATES
    row = np.repeat(np.arange(len(first)), sizes)[inside]
    table = np.full((len(first), _CANDIDATES, MOST_WORDS), -1, dtype=np.int64)
    table[row, place[inside]] = grams[inside]
    kept = _diverse(table, _stems(words, content), most)
    picked = table[kept]
    text = np.array([*words, ""], dtype=object)[picked].tolist()
    found = none
    ids = document[first][np.nonzero(kept)[0]].tolist()
    for id, parts in zip(ids, text, strict=True):
        found[id] += (" ".join(part for part in parts if part),)
    return found


def least_documents(n_documents: int) -> int:
    """In how many of ``n_documents`` a phrase must occur."""
    return min(1 + n_documents // 3, max(3, n_documents // 500))


def _words(documents: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Words in alphabetical order, the code of every word of every document, and whose it is."""
    text = pc.utf8_lower(pa.array(documents, pa.large_string()))
    text = pc.replace_substring_regex(text, r"[\x{2018}\x{2019}`´]", "'")
    text = pc.replace_substring_regex(text, r"[.!?;:,()\[\]{}\"“”\n\r|/…*—–]+|\s-+\s|--+", f" {_END} ")
    text = pc.replace_substring_regex(text, r"[^\p{L}\p{M}\p{N}'&_.\-]+", " ")
    split = pc.utf8_split_whitespace(text)
    owner = pc.list_parent_indices(split).to_numpy()
    flat = pc.list_flatten(split)
    trimmed = pc.utf8_trim(flat, "'-_&")
    trimmed = pc.if_else(pc.equal(flat, "&"), flat, trimmed)
    trimmed = pc.replace_substring_regex(trimmed, r"'s$", "")
    there = pc.not_equal(trimmed, "")
    owner = owner[there.to_numpy(zero_copy_only=False)]
    encoded = pc.dictionary_encode(trimmed.filter(there))
    names = encoded.dictionary.to_pylist()
    order = np.argsort(np.array(names, dtype=object), kind="stable") if names else np.zeros(0, dtype=np.int64)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    codes = rank[encoded.indices.to_numpy()]
    return [names[place] for place in order], codes, owner.astype(np.int64)


def _is_content(words: Sequence[str]) -> np.ndarray:
    """Words with which a phrase may begin or end."""
    return np.array([len(w) > 2 and w not in STOP_WORDS and not any(map(str.isdigit, w)) for w in words], dtype=bool)


def _starts(
    codes: np.ndarray, owner: np.ndarray, content: np.ndarray, joining: np.ndarray, end: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where phrases of one, two and three words begin."""
    good, middle = content[codes], (content | joining)[codes] & (codes != end)
    two = good[:-1] & good[1:] & (owner[:-1] == owner[1:])
    three = good[:-2] & middle[1:-1] & good[2:] & (owner[:-2] == owner[2:])
    return np.flatnonzero(good), np.flatnonzero(two), np.flatnonzero(three)


def _weighed(
    piece: np.ndarray,
    document_of: np.ndarray,
    codes: np.ndarray,
    occurrences: np.ndarray,
    starts: np.ndarray,
    length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Document, weight and words of the phrases of one length, and whether more than one piece has them."""
    size = len(occurrences)
    key = np.zeros(len(starts), dtype=np.int64)
    for offset in range(length):
        key = key * size + codes[starts + offset]
    grams, which = np.unique(key, return_inverse=True)
    n_grams = max(len(grams), 1)
    said = np.unique(piece[starts] * n_grams + which)  # a piece counts once, however often it repeats itself
    in_pieces = np.bincount(said % n_grams, minlength=len(grams))
    pairs, times = np.unique(document_of[said // n_grams] * n_grams + said % n_grams, return_counts=True)
    document, gram = pairs // n_grams, pairs % n_grams
    in_documents = np.bincount(gram, minlength=len(grams))
    parts = np.full((len(grams), MOST_WORDS), -1, dtype=np.int64)
    for offset in range(length):
        parts[:, offset] = grams // size ** (length - 1 - offset) % size
    usual = in_documents >= least_documents(len(np.unique(document_of[piece])))
    if length > 1:
        # How often the first and the last part meet, over how often they would if words were shuffled.
        chance = np.prod(occurrences[parts[:, :length]] / len(codes), axis=1) * len(codes)
        usual &= np.bincount(which, minlength=len(grams)) > _TOGETHER * chance
    spoken = np.unique(piece)  # pieces that have words
    pieces = np.bincount(document_of[spoken], minlength=int(document_of.max()) + 1)
    expected = pieces[document] * in_pieces[gram] / len(spoken)
    weight = length**0.5 * times * np.log((times + 0.5) / (expected + 0.5))
    keep = usual[gram] & (weight > 0)
    return document[keep], weight[keep], parts[gram[keep]], times[keep] > 1


def _stems(words: Sequence[str], content: np.ndarray) -> np.ndarray:
    """A number for each content word that its forms share (plural, -ing, -ed), -1 for other words; last entry -1."""
    numbers: dict[str, int] = {}
    stems = np.full(len(words) + 1, -1, dtype=np.int64)
    for code in np.flatnonzero(content).tolist():
        stems[code] = numbers.setdefault(_stem(words[code]), len(numbers))
    return stems


def _stem(word: str) -> str:
    if word.endswith("ss"):
        return word
    for ending, least in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= least:
            word = word[: -len(ending)]
            break
    return word[:-1] if (len(word) > 4 and word[-1] == word[-2]) or (len(word) > 3 and word[-1] == "e") else word


def _diverse(table: np.ndarray, stems: np.ndarray, most: int) -> np.ndarray:
    """Greedily keep phrases that share no stem with one kept before: bool [n, candidates], all rows at once."""
    parts = stems[table]  # [n, c, 3]; table's -1 picks the last entry, -1
    kept = np.zeros(table.shape[:2], dtype=bool)
    for place in range(table.shape[1]):
        mine = parts[:, place, :, None, None]  # [n, 3, 1, 1]
        theirs = np.where(kept[:, None, :place, None], parts[:, None, :place, :], -2)  # [n, 1, place, 3]
        clash = ((mine == theirs) & (mine >= 0)).any(axis=(1, 2, 3))
        there = table[:, place, 0] >= 0
        kept[:, place] = there & ~clash & (kept.sum(axis=1) < most)
    return kept
