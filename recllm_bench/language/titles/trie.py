"""The catalogue's titles as a trie of tokens, and which items each title means."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from recllm_bench.artifacts import write_atomic
from recllm_bench.errors import BenchError
from recllm_bench.language.titles.paths import PathTrie, build_paths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASK_WORD = "(masked)"
"""What a list shows, in a title's place, for an item that was masked."""


@dataclass(frozen=True)
class TitleTrie:
    """Titles of a catalogue as token paths, each closed by the tokens of a line end.

    A path stands for a title, and for every item that has it. Item 0 stands for :data:`MASK_WORD`; items without a
    title have the path of ``item 17``. Such paths can be shown, and kept where they are, but never chosen anew.

    Attributes
    ----------
    paths : PathTrie
        The paths, line end included, in the order of their tokens.
    path_of_item : int64 [n_items + 1]
        Which path is an item's.
    item_start : int64 [n_paths + 1]
        Items of path ``p`` are ``item[item_start[p]:item_start[p + 1]]``, ascending; none for the mask word.
    item : int64 [n_titled]
    free : bool [n_paths]
        Whether a path is a title of the catalogue, and so may be chosen.
    free_before : int64 [n_paths + 1]
        How many free paths come before each.
    truncated : int64 [n]
        Items whose title was cut.
    line_end : tuple of int
        Tokens of a line end.
    counts : dict
        ``items``, ``titles`` (distinct paths that may be chosen), ``untitled`` (items), ``duplicates`` (items whose
        title another one has too), ``truncated``, ``collisions`` (items that share their path with a different
        title), ``reworded`` (titles with a special token's text in them), ``unfaithful`` (titles that the tokenizer
        does not give back).
    """

    paths: PathTrie
    path_of_item: torch.Tensor
    item_start: torch.Tensor
    item: torch.Tensor
    free: torch.Tensor
    free_before: torch.Tensor
    truncated: torch.Tensor
    line_end: tuple[int, ...]
    counts: dict[str, int]

    @property
    def n_items(self) -> int:
        return len(self.path_of_item) - 1

    @property
    def device(self) -> torch.device:
        return self.path_of_item.device

    @property
    def titled(self) -> torch.Tensor:
        """Whether each item has a title that may be chosen, bool [n_items + 1]."""
        titled = self.free[self.path_of_item]
        return titled & (torch.arange(len(titled), device=titled.device) > 0)

    def items_of(self, path: int) -> list[int]:
        """Items that have a title, ascending."""
        return self.item[int(self.item_start[path]) : int(self.item_start[path + 1])].tolist()

    def to(self, device: torch.device | str) -> TitleTrie:
        """The same trie on a device."""
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, paths=self.paths.to(device), **moved)

    def save(self, path: Path) -> None:
        """Write it to one safetensors file."""
        from safetensors.torch import save

        tensors = {f"paths.{name}": value for name, value in self.paths.tensors().items()}
        tensors |= {name: getattr(self, name) for name in _TENSORS}
        stored = {name: value.cpu().contiguous() for name, value in tensors.items()}
        stored = {name: value if value.dtype == torch.bool else value.int() for name, value in stored.items()}
        notes = {"line_end": json.dumps(self.line_end), "counts": json.dumps(self.counts)}
        write_atomic(path, lambda file: file.write(save(stored, notes)))

    @classmethod
    def load(cls, path: Path) -> TitleTrie:
        """Read what :meth:`save` wrote."""
        from safetensors import safe_open

        try:
            with safe_open(path, "pt") as file:
                notes = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            paths = PathTrie.from_tensors({name[6:]: value for name, value in tensors.items() if name[:6] == "paths."})
            own = {name: tensors[name] for name in _TENSORS}
            line_end, counts = tuple(json.loads(notes["line_end"])), json.loads(notes["counts"])
        except Exception as error:
            raise BenchError(f"{path} holds no trie of titles: {error}; delete it and run again") from error
        own = {name: value if value.dtype == torch.bool else value.long() for name, value in own.items()}
        return cls(paths=paths, line_end=line_end, counts=counts, **own)


_TENSORS = ("path_of_item", "item_start", "item", "free", "free_before", "truncated")


def clean_title(text: str) -> str:
    """A title on one line: NFKC, control and format characters out, white space single."""
    # Characters of category C that are white space part words; the others (zero width, marks of order) do not.
    text = unicodedata.normalize("NFKC", text)
    if not text.isprintable():
        text = "".join(
            character if character.isspace() or unicodedata.category(character)[0] != "C" else _gap(character)
            for character in text
        )
    return " ".join(text.split())


def _gap(character: str) -> str:
    return " " if unicodedata.category(character) == "Cc" else ""


def build_trie(titles: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, most_tokens: int = 64) -> TitleTrie:
    """The trie of a catalogue's titles.

    Parameters
    ----------
    titles : sequence of str
        By item id; entry 0 is padding, an empty title is none.
    tokenizer : PreTrainedTokenizerBase
        Titles are tokenised as they stand after ``"1."`` and a space.
    most_tokens : int
        A longer title is cut there.

    Returns
    -------
    TitleTrie
        On the CPU.

    Raises
    ------
    BenchError
        When there are no titles, or the tokenizer has no way to write a line end.
    """
    if most_tokens < 1:
        raise BenchError(f"a trie of titles with most_tokens={most_tokens}: at least 1")
    cleaned = [clean_title(title) for title in titles]
    named = np.array([bool(title) and item > 0 for item, title in enumerate(cleaned)], dtype=bool)
    if not named.any():
        raise BenchError("the catalogue has no titles, so no list of titles can be written; choose a dataset with text")
    shown = [title if named[item] else f"item {item}" for item, title in enumerate(cleaned)]
    shown[0] = MASK_WORD
    texts = sorted(set(shown))
    ids, reworded, unfaithful = _title_tokens(texts, tokenizer)
    line_end = tokens_after(tokenizer, "a", ["\n"])[0]
    if not line_end or line_end[0] == tokenizer.unk_token_id:
        raise BenchError(f"tokenizer of {tokenizer.name_or_path} has no token for a line end, so it can write no lists")
    text_of_item = np.searchsorted(np.array(texts, object), np.array(shown, object))
    long = np.array([len(row) > most_tokens for row in ids])
    rows = [row[:most_tokens] for row in ids]
    if any(line_end[0] in row for row in rows):
        raise BenchError(
            f"tokenizer of {tokenizer.name_or_path} writes a line end inside a title; choose another model"
        )
    lengths = np.array([len(row) + len(line_end) for row in rows])
    flat = np.array([token for row in rows for token in (*row, *line_end)], np.int64)
    paths, path_of_text = build_paths(flat, np.concatenate([[0], np.cumsum(lengths)]))

    path_of_item = path_of_text[text_of_item]
    items = np.flatnonzero(named)
    items = items[np.argsort(path_of_item[items], kind="stable")]
    per_path = np.bincount(path_of_item[items], minlength=paths.n_paths)
    free = per_path > 0
    per_text = np.bincount(text_of_item[named], minlength=len(texts))
    texts_of_path = np.bincount(path_of_text[per_text > 0], minlength=paths.n_paths)
    cut = np.flatnonzero(named & long[text_of_item])
    counts = {
        "items": len(titles) - 1,
        "titles": int(free.sum()),
        "untitled": int((~named[1:]).sum()),
        "duplicates": int((per_text[text_of_item[named]] > 1).sum()),
        "truncated": len(cut),
        "collisions": int((texts_of_path[path_of_item[named]] > 1).sum()),
        "reworded": int(reworded[per_text > 0].sum()),
        "unfaithful": int(unfaithful[per_text > 0].sum()),
    }
    return TitleTrie(
        paths=paths,
        path_of_item=torch.from_numpy(path_of_item),
        item_start=torch.from_numpy(np.concatenate([[0], np.cumsum(per_path)])),
        item=torch.from_numpy(items),
        free=torch.from_numpy(free),
        free_before=torch.from_numpy(np.concatenate([[0], np.cumsum(free)])),
        truncated=torch.from_numpy(cut),
        line_end=tuple(line_end),
        counts=counts,
    )


def tokens_after(tokenizer: PreTrainedTokenizerBase, context: str, pieces: Sequence[str]) -> list[list[int]]:
    """Tokens of pieces of text as they stand after a context; alone where a tokenizer would merge the two."""
    if not pieces:
        return []
    before = tokenizer(context, add_special_tokens=False)["input_ids"]
    together = tokenizer([context + piece for piece in pieces], add_special_tokens=False, verbose=False)["input_ids"]
    alone = [row[: len(before)] != before for row in together]
    ids = [row[len(before) :] for row in together]
    if any(alone):
        apart = [piece for piece, merged in zip(pieces, alone, strict=True) if merged]
        found = iter(tokenizer(apart, add_special_tokens=False, verbose=False)["input_ids"])
        ids = [next(found) if merged else row for row, merged in zip(ids, alone, strict=True)]
    return ids


def _title_tokens(
    texts: list[str], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[list[int]], np.ndarray, np.ndarray]:
    """Tokens of titles; which have a special token's text in them; which the tokenizer does not give back."""
    special = [token for token in tokenizer.all_special_tokens if token]
    reworded = np.array([any(token in text for token in special) for text in texts], dtype=bool)
    safe = [_spelt(text, special) if changed else text for text, changed in zip(texts, reworded, strict=True)]
    ids = tokens_after(tokenizer, "1.", [" " + text for text in safe])
    unfaithful = _lost(ids, safe, tokenizer)
    if unfaithful.any():  # some tokenizers lose the space, others need it
        places = np.flatnonzero(unfaithful)
        bare = tokens_after(tokenizer, "1. ", [safe[place] for place in places])
        still = _lost(bare, [safe[place] for place in places], tokenizer)
        for place, row, lost in zip(places, bare, still, strict=True):
            if not lost:
                ids[place], unfaithful[place] = row, False
    return ids, reworded, unfaithful


def _spelt(text: str, special: list[str]) -> str:
    """Text in which no special token can be read."""
    for token in special:
        text = text.replace(token, " ".join(token))
    return text


def _lost(ids: list[list[int]], texts: list[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    read = tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return np.array([found.strip() != text for found, text in zip(read, texts, strict=True)], dtype=bool)
