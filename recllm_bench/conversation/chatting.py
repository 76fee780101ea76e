"""Simulated users whose sentences a chat model writes, from the facts that the rules chose, and checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recllm_bench.artifacts import content_hash
from recllm_bench.conversation.people import People, Wish
from recllm_bench.conversation.profile import Profile
from recllm_bench.conversation.redaction import words
from recllm_bench.conversation.spoken import noun_phrase, refused_phrase
from recllm_bench.conversation.understanding import Understanding
from recllm_bench.errors import BenchError

if TYPE_CHECKING:
    from recllm_bench.data.catalogue import Catalogue
    from recllm_bench.language.chat import ChatModel

_ANSWER_TOKENS = 60
_LONGEST = 60  # words
_SYSTEM = (
    "You are a person who asks a friend for {domain}s. Say the wish that you are given in your own words, in one short "
    "sentence, as the person. Keep every fact, add none, and name no {domain}."
)
_QUESTION = 'The wish: "{wish}" Say it in other words.'
_COPIED = re.compile(r"^\W*(?:the|my)\s+wish\s*(?::|is\b)\W*", re.IGNORECASE)
_AGAIN = "That was not quite the wish: {wrong}. Try once more."
_WRONG = ("a fact is missing or added", "it names something", "it is no short sentence", "it is the wish word for word")


class Chatting(People):
    """The wishes of :class:`People`, in the words of a chat model.

    What it writes is read by :class:`.Understanding`: it must state and refuse the same facts, no other, not name the
    target, and not repeat the wish word for word; else it is asked once more, and then the sentence of the rules stands
    in its place. Replies to what is shown are those of the rules.

    Parameters
    ----------
    catalogue, seed, leaves, **manners
        As for :class:`People`.
    chat : str or ChatModel
        Who writes: ``"local:NAME"``, ``"server:MODEL@URL"``, or a chat model.

    Attributes
    ----------
    counts : dict of str to int
        Openings ``asked``, ``rewritten`` (the second answer served), ``replaced`` (the rules' sentence served) and
        ``lost`` (the model did not answer, in all its attempts: the dialogue is invalid).
    """

    def __init__(
        self, catalogue: Catalogue, seed: int = 0, leaves: float = 0.05, chat: str | ChatModel = "", **manners: Any
    ) -> None:
        if not chat:
            raise BenchError("a chat model speaks by its name: conversation.simulator=local:NAME or server:MODEL@URL")
        super().__init__(catalogue, seed, leaves, **manners)
        kind = ""
        if isinstance(chat, str):
            from recllm_bench.language.chat import chat_model

            kind, chat = f"{chat.partition(':')[0]}:", chat_model(chat)
        self.chat, self.name = chat, kind + chat.name
        self.reader = Understanding(catalogue, self.attributes)
        self.counts = dict.fromkeys(("asked", "rewritten", "replaced", "lost"), 0)

    @property
    def key(self) -> dict[str, Any]:
        """Who speaks: the model, its prompt, and what the rules' key has."""
        model = self.chat.key() if hasattr(self.chat, "key") else self.name
        asked = content_hash([model, _SYSTEM, _QUESTION, _AGAIN, _WRONG, _ANSWER_TOKENS])
        return {**super().key, "prompt": asked}

    def open(self, profiles: Sequence[Profile]) -> list[str | None]:
        """First utterance of each user; all are asked for in one batch, and those that failed in another."""
        found = [self._wish(profile) for profile in profiles]
        plain = [self._opening(profile, *each) for profile, each in zip(profiles, found, strict=True)]
        asked = [self._asked(wish) for wish, _ in found]
        said, wrong = self._checked(asked, profiles, [wish for wish, _ in found])
        again = [row for row, reason in enumerate(wrong) if reason]
        talks = [
            [
                *asked[row],
                {"role": "assistant", "content": said[row] or "..."},
                {"role": "user", "content": _AGAIN.format(wrong=wrong[row])},
            ]
            for row in again
        ]
        second, still = self._checked(talks, [profiles[row] for row in again], [found[row][0] for row in again])
        for row, text, reason in zip(again, second, still, strict=True):
            said[row] = None if text is None else plain[row] if reason else text
            self.counts["lost" if text is None else "replaced" if reason else "rewritten"] += 1
        self.counts["lost"] += sum(text is None and not reason for text, reason in zip(said, wrong, strict=True))
        self.counts["asked"] += len(profiles)
        return said

    def _told(self, wish: Wish) -> str:
        """The wish as the model is given it."""
        said = f"I want {noun_phrase(wish.wanted, self.domain)}"
        return said + (f", but no {refused_phrase(wish.refused[0])}." if wish.refused else ".")

    def _asked(self, wish: Wish) -> list[dict[str, str]]:
        frame = _SYSTEM.format(domain=self.domain)
        question = _QUESTION.format(wish=self._told(wish))
        return [{"role": "system", "content": frame}, {"role": "user", "content": question}]

    def _checked(
        self, asked: Sequence[list[dict[str, str]]], profiles: Sequence[Profile], wishes: Sequence[Wish]
    ) -> tuple[list[str | None], list[str]]:
        """Answers, and what is wrong with each; empty where nothing is. None for a question that was given up."""
        if not asked:
            return [], []
        answers = self.chat.attempt(list(asked), max_tokens=_ANSWER_TOKENS, temperature=0.0, seed=self.seed)
        texts = [None if answer is None else _unquoted(answer.text) for answer in answers]
        meant = self.reader.told([(wish.wanted, wish.refused) for wish in wishes])
        reasons = []
        rows = zip(texts, self.reader.read([text or "" for text in texts]), meant, profiles, wishes, strict=True)
        for text, read, told, profile, wish in rows:
            given = self._told(wish)
            if text is None:
                reasons.append("")
            elif not text or len(text.split()) > _LONGEST:
                reasons.append(_WRONG[2])
            elif read != told or not _numbers(text) <= _numbers(given):
                reasons.append(_WRONG[0])
            elif [word for word, _, _ in words(text)] == [word for word, _, _ in words(given)]:
                reasons.append(_WRONG[3])
            else:
                reasons.append("" if self.is_safe(text, profile) else _WRONG[1])
        return texts, reasons


def _unquoted(answer: str) -> str:
    """An answer without quotation marks around it, and without the question's own beginning."""
    return _COPIED.sub("", " ".join(answer.split())).strip("\"'“” ")


def _numbers(text: str) -> set[str]:
    """Numbers in a text: years that no item has are facts too."""
    return set(re.findall(r"\d+", text))
