"""Dialogues to learn from: whole ones of training users, each held up to some turn with a system that shows what fits.

A system that is trained on first sentences alone has never heard a refusal, a comparison or a correction. Here each
user opens and then answers what a simple system shows: popular items that fit what was said so far, drawn by chance,
never the wanted one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.dialogue_state import StateReader
from recllm_bench.conversation.draws import Draw
from recllm_bench.conversation.profile import Profile
from recllm_bench.conversation.simulators import GuardedSimulator
from recllm_bench.progress import track

if TYPE_CHECKING:
    from recllm_bench.data.histories import Histories
    from recllm_bench.data.splits import Cases

ANSWERS = 4
"""Most answers of a user: as many as five turns have."""
_SHOWN, _AT_ONCE = 5, 1024


def practise(
    speaker: GuardedSimulator,
    profiles: Sequence[Profile],
    cases: Cases,
    histories: Histories,
    reader: StateReader,
    popularity: np.ndarray,
    seed: int,
) -> list[Dialogue]:
    """One dialogue for each case, cut where the system would have to answer.

    Parameters
    ----------
    speaker : GuardedSimulator
        The users.
    profiles : sequence of Profile [n]
        What they know.
    cases : Cases [n]
        Users, ends of their histories, and targets.
    histories : Histories
        Of the dataset.
    reader : StateReader
        Knows what fits.
    popularity : float [n_items + 1]
        How often each item is shown, relatively.
    seed : int
        Fixes how long each dialogue is (0 to :data:`ANSWERS` answers, equally often) and what is shown.
    """
    starts = histories.offsets[np.asarray(cases.users) - 1].tolist()
    rows = zip(cases.users.tolist(), starts, cases.ends.tolist(), strict=True)
    talks = [Dialogue(user, histories.items[start:end]) for user, start, end in rows]
    weights = np.log(np.asarray(popularity, dtype=np.float64) + 1.0)
    lengths = np.random.default_rng([seed, 0x7A]).integers(0, ANSWERS + 1, len(talks))
    for talk, text in zip(talks, speaker.open(profiles), strict=True):
        talk.messages.append(("user", text or ""))
    gone = np.array([not talk.messages[0][1] for talk in talks], dtype=bool)
    for turn in range(1, ANSWERS + 1):
        active = np.flatnonzero((lengths >= turn) & ~gone)
        for some in track(np.array_split(active, -(-len(active) // _AT_ONCE) or 1), f"dialogues to learn from, {turn}"):
            for row in some.tolist():
                _show(talks[row], int(cases.targets[row]), reader, weights, Draw(seed, row, turn))
            lists = [talks[row].shown[-talks[row].sizes[-1] :] if talks[row].sizes[-1] else [] for row in some]
            replies = speaker.reply([profiles[row] for row in some], [talks[row] for row in some], lists)
            for row, reply in zip(some, replies, strict=True):
                gone[row] = reply.end or not reply.text
                talks[row].messages.append(("user", reply.text))
    return talks


def _show(talk: Dialogue, target: int, reader: StateReader, weights: np.ndarray, draw: Draw) -> None:
    """Show items that fit, drawn without replacement in proportion to their weight (Efraimidis and Spirakis, 2006).

    Where too few fit, any others fill the list.
    """
    fits = reader.fits(reader.of(talk)).copy()
    if fits.sum() < len(talk.shown) + _SHOWN + 1:
        fits |= True
    fits[[0, target, *talk.shown]] = False
    items = np.flatnonzero(fits)
    keys = -np.log(np.random.default_rng(draw.below(1 << 32)).random(len(items))) / np.maximum(weights[items], 1e-9)
    items = items[np.argpartition(keys, _SHOWN)[:_SHOWN]] if len(items) > _SHOWN else items
    talk.messages.append(("assistant", ""))
    talk.shown.extend(items.tolist())
    talk.sizes.append(len(items))
    talk.asked.append("")


def written(talks: Iterable[Dialogue]) -> str:
    """Dialogues as text, without their histories."""
    return json.dumps([[talk.messages, talk.shown, talk.sizes] for talk in talks], ensure_ascii=False)


def read(text: str, cases: Cases, histories: Histories) -> list[Dialogue]:
    """What :func:`written` wrote."""
    starts = histories.offsets[np.asarray(cases.users) - 1].tolist()
    found: list[Any] = json.loads(text)
    rows = zip(cases.users.tolist(), starts, cases.ends.tolist(), found, strict=True)
    return [
        Dialogue(
            user, histories.items[start:end], [(who, said) for who, said in messages], shown, [""] * len(sizes), sizes
        )
        for user, start, end, (messages, shown, sizes) in rows
    ]
