"""Titles in free text: written lines matched with the catalogue, for chat models that show no scores."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.artifacts import ArtifactStore
from recllm_bench.errors import BenchError
from recllm_bench.language.titles.trie import clean_title

if TYPE_CHECKING:
    from recllm_bench.language.encoders import TextEncoder

EXACT, FUZZY, EMBED, NONE = "exact", "fuzzy", "embed", "none"

_YEAR = re.compile(r"\s*[(\[]\s*(?:18|19|20)\d\d\s*[)\]]\s*")
_EDITION = re.compile(
    r"\s*(?:[(\[][^)\]]*\b(?:edition|version|cut|remaster(?:ed)?|dvd|vhs|blu-?ray)\b[^)\]]*[)\]]"
    r"|\s[-–—:]\s+(?:[\w'’]+\s+){0,3}(?:edition|version|cut)$)",
    re.IGNORECASE,
)
_ACCENT = re.compile("[\u0300-\u036f]")
_NOT_WORD = re.compile(r"[^\w\s]|_")
_PAIRS_AT_ONCE = 1 << 24  # numbers of a matrix [lines, titles]


def plain_key(text: str) -> str:
    """What two spellings of one title share: case folded, without accents and punctuation, single spaces."""
    text = _ACCENT.sub("", unicodedata.normalize("NFKD", clean_title(text).casefold()))
    text = unicodedata.normalize("NFC", text).replace("'", "").replace("’", "").replace("&", " and ")
    return " ".join(_NOT_WORD.sub(" ", text).split()) or " ".join(text.split())


def short_key(text: str) -> str:
    """The plain key of a title without its year in brackets and without the name of its edition."""
    text = clean_title(text)
    return plain_key(_EDITION.sub(" ", _YEAR.sub(" ", text)).strip() or text)


class TitleMatcher:
    """Finds the items that a written title may mean.

    In this order: the same title but for case, accents, punctuation and white space; the same but for year or edition;
    the nearest by token-sort ratio; the nearest by sentence vectors (specification 7.3).

    Parameters
    ----------
    titles : sequence of str
        By item id; entry 0 is padding, an empty title is none.
    encoder : str, TextEncoder, callable or None
        Of the sentence vectors (a name, an encoder, or what makes one), used only when a line needs it; None goes
        without.
    store : ArtifactStore, optional
        Keeps the titles' vectors.
    popularity : array [n_items + 1], optional
        Of items that share a title, the one with the highest is meant, then the one with the smallest id.
    least_ratio : float
        Token-sort ratio, 0 to 100, from which a spelling counts.
    least_cosine : float
        Cosine from which a vector counts.

    Raises
    ------
    BenchError
        When there are no titles.
    """

    def __init__(
        self,
        titles: Sequence[str],
        *,
        encoder: str | TextEncoder | Callable[[], TextEncoder] | None = "minilm",
        store: ArtifactStore | None = None,
        popularity: np.ndarray | None = None,
        least_ratio: float = 90.0,
        least_cosine: float = 0.5,
    ) -> None:
        self.n_items = len(titles) - 1
        self.encoder, self.store = encoder, store
        self.least_ratio, self.least_cosine = least_ratio, least_cosine
        if popularity is not None and len(popularity) != len(titles):
            raise BenchError(f"popularity of {len(popularity)} ids for {len(titles)} titles, padding included")
        known = [item for item in range(1, len(titles)) if clean_title(titles[item])]
        if not known:
            raise BenchError("the catalogue has no titles, so no line can be matched; choose a dataset with text")
        weight = np.zeros(len(titles)) if popularity is None else np.asarray(popularity)
        known.sort(key=lambda item: (-weight[item], item))  # so that the item meant comes first everywhere
        self._plain: dict[str, list[int]] = {}
        self._short: dict[str, list[int]] = {}
        for item in known:
            self._plain.setdefault(plain_key(titles[item]), []).append(item)
            self._short.setdefault(short_key(titles[item]), []).append(item)
        self._keys = list(self._plain)
        self._texts = [clean_title(titles[items[0]]) for items in self._plain.values()]

    def match(self, lines: Sequence[str]) -> list[tuple[list[int], str]]:
        """Items that each line may mean, the likeliest first, and how they were found.

        Parameters
        ----------
        lines : sequence of str
            Titles as they were written.

        Returns
        -------
        list of (list of int, str)
            ``exact``, ``fuzzy``, ``embed``, or ``none`` with no items.
        """
        found: dict[str, tuple[list[int], str]] = {}
        for line in dict.fromkeys(lines):
            items = self._plain.get(plain_key(line)) or self._short.get(short_key(line)) or []
            found[line] = (items, EXACT) if items else ([], NONE)
        for find, way in ((self._by_ratio, FUZZY), (self._by_vector, EMBED)):
            open_ = [line for line, (items, _) in found.items() if not items and plain_key(line)]
            for line, place in zip(open_, find(open_) if open_ else (), strict=True):
                if place >= 0:
                    found[line] = self._plain[self._keys[place]], way
        return [found[line] for line in lines]

    def _by_ratio(self, lines: list[str]) -> np.ndarray:
        """Place of the title of the highest token-sort ratio for each line, or -1."""
        try:
            from rapidfuzz import fuzz, process
        except ImportError as error:
            raise BenchError("matching titles needs rapidfuzz; run 'pip install rapidfuzz'") from error
        places = []
        size = max(1, _PAIRS_AT_ONCE // len(self._keys))
        for start in range(0, len(lines), size):
            keys = [plain_key(line) for line in lines[start : start + size]]
            ratios = process.cdist(keys, self._keys, scorer=fuzz.token_sort_ratio, dtype=np.float32)
            best = ratios.argmax(1)
            places.append(np.where(ratios[np.arange(len(keys)), best] >= self.least_ratio, best, -1))
        return np.concatenate(places)

    def _by_vector(self, lines: list[str]) -> np.ndarray:
        """Place of the title of the highest cosine for each line, or -1."""
        if self.encoder is None:
            return np.full(len(lines), -1)
        vectors = _normalised(self._encoder.encode(lines))
        cosine, place = self._index.search(vectors, 1)
        return np.where(cosine[:, 0] >= self.least_cosine, place[:, 0], -1)

    @cached_property
    def _encoder(self) -> Any:
        from recllm_bench.language.encoders import load_text_encoder

        if isinstance(self.encoder, str):
            return load_text_encoder(self.encoder)
        return self.encoder() if callable(self.encoder) else self.encoder

    @cached_property
    def _index(self) -> Any:
        try:
            import faiss
        except ImportError as error:
            raise BenchError("matching titles by vectors needs faiss; run 'pip install faiss-cpu'") from error
        if self.store is None:
            vectors = self._encoder.encode(self._texts, "title vectors")
        else:
            from recllm_bench.language.vectors import text_vectors

            vectors = text_vectors(self._encoder, self._texts, self.store, label="title vectors")
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(_normalised(vectors))
        return index


def _normalised(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def common_subsequence(one: Sequence[int], other: Sequence[int]) -> list[tuple[int, int]]:
    """Places of a longest common subsequence, ascending; entries that are 0 match nothing.

    Of several, the one that takes each pair as early in ``one`` as it can.
    """
    table = np.zeros((len(one) + 1, len(other) + 1), np.int64)  # lengths for what follows each pair of places
    for i in range(len(one) - 1, -1, -1):
        for j in range(len(other) - 1, -1, -1):
            same = one[i] == other[j] and one[i] != 0
            table[i, j] = table[i + 1, j + 1] + 1 if same else max(table[i + 1, j], table[i, j + 1])
    pairs, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        if one[i] == other[j] and one[i] != 0:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif table[i, j + 1] >= table[i + 1, j]:
            j += 1
        else:
            i += 1
    return pairs


def banned_rows(forbid: Sequence[Iterable[int]] | None, count: int) -> list[set[int]]:
    """What each list must not hold anew."""
    if forbid is None:
        return [set() for _ in range(count)]
    if len(forbid) != count:
        raise BenchError(f"{len(forbid)} rows of forbidden items for {count} lists")
    return [{int(item) for item in row} for row in forbid]
