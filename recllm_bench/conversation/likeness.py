"""How far simulated utterances are from people's: their length, their words, and what is done in them.

Acts are found by rules that anyone can read (:data:`ACTS`); an utterance may have several, or none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recllm_bench.conversation.redaction import words
from recllm_bench.errors import BenchError

ACTS = {
    "greets": re.compile(r"\b(?:hi|hey|hello|good (?:morning|evening|day|afternoon)|how are you)\b", re.I),
    "asks": re.compile(r"\?|\b(?:can|could|would|do|have) you\b|\b(?:any|some) (?:ideas|suggestions)\b", re.I),
    "says a liking": re.compile(r"\b(?:like[ds]?|love[ds]?|enjoy(?:ed|s)?|fan of|favou?rites?|into)\b", re.I),
    "says a dislike": re.compile(
        r"\b(?:no|not|never|hate[ds]?|dislike[ds]?|without|tired of|enough of|can['’]?t stand)\b|n['’]t\b", re.I
    ),
    "compares with a title": re.compile(
        r"\b(?:like|similar to|vein of|close to|liked was|enjoyed|loved|watched|saw|seen) (?:the movie |the film )?"
        r"[\"'“]?(?-i:[A-Z])\w+|\(\d{4}\)", re.I
    ),
    "names a person": re.compile(
        r"\b(?:by|with|starring|director|actor|actress|directed by|know) (?-i:[A-Z][\w.'’-]+ [A-Z][\w'’-]+)", re.I
    ),
    "tells of oneself": re.compile(r"\b(?:i|i['’]m|im|i['’]ve|my|me|we)\b", re.I),
    "thanks, please": re.compile(r"\b(?:thanks?|thank you|please)\b", re.I),
}  # fmt: skip
"""What is done in an utterance, and by which words it is found."""


@dataclass(frozen=True)
class Likeness:
    """Utterances beside those of people.

    Attributes
    ----------
    words : tuple of float
        5 %, 50 % and 95 % quantile of the utterances' lengths, in words.
    length_distance : float
        Words by which the lengths differ, the distributions laid over each other in the best way (Wasserstein).
    divergence : float
        Jensen-Shannon divergence of the words, in bits: 0 for equal shares of every word, 1 for no word in common.
    covered : float
        Share of people's words (each occurrence counts) that occur in the utterances.
    distinct : float
        Different words among the first thousand; NaN where fewer are said.
    acts : dict of str to float
        Share of the utterances with each of :data:`ACTS`.
    act_distance : float
        Mean absolute difference of these shares from people's.
    """

    words: tuple[float, float, float]
    length_distance: float
    divergence: float
    covered: float
    distinct: float
    acts: dict[str, float]
    act_distance: float


def likeness(texts: Sequence[str], people: Sequence[str]) -> Likeness:
    """Measure utterances against those of people.

    Parameters
    ----------
    texts, people : sequence of str
        At least one each, with at least one word.

    Raises
    ------
    BenchError
        When a side has no words.
    """
    said, theirs = ([[word for word, _, _ in words(text)] for text in side] for side in (texts, people))
    if not any(said) or not any(theirs):
        raise BenchError("likeness: there are no words to compare; give utterances on both sides")
    ours, real = (Counter(word for row in side for word in row) for side in (said, theirs))
    quantiles = np.linspace(0, 1, 1001)
    lengths = [np.quantile([len(row) for row in side], quantiles, method="nearest") for side in (said, theirs)]
    acts, their_acts = act_shares(texts), act_shares(people)
    first = [word for row in said for word in row][:1000]
    return Likeness(
        tuple(np.quantile([len(row) for row in said], [0.05, 0.5, 0.95]).tolist()),
        float(np.abs(lengths[0] - lengths[1]).mean()),
        jensen_shannon(ours, real),
        sum(count for word, count in real.items() if word in ours) / real.total(),
        1000 * len(set(first)) / len(first) if len(first) == 1000 else float("nan"),
        acts,
        float(np.mean([abs(acts[act] - their_acts[act]) for act in ACTS])),
    )


def act_shares(texts: Sequence[str]) -> dict[str, float]:
    """Share of utterances with each of :data:`ACTS`."""
    return {act: float(np.mean([bool(found.search(text)) for text in texts])) for act, found in ACTS.items()}


def jensen_shannon(one: Counter[str], other: Counter[str]) -> float:
    """Divergence of two counts as distributions, in bits (Lin, 1991): the mean of both to their middle, 0 to 1."""
    names = sorted(one.keys() | other.keys())
    p, q = (np.array([side[name] for name in names]) / side.total() for side in (one, other))
    middle = (p + q) / 2

    def surprise(side: np.ndarray) -> float:
        seen = side > 0
        return float((side[seen] * np.log2(side[seen] / middle[seen])).sum())

    return (surprise(p) + surprise(q)) / 2


def likeness_table(rows: dict[str, Sequence[str]], people: Sequence[str]) -> str:
    """A Markdown table of several speakers; people against the other half of people say what is chance."""
    half = [people[side::2] for side in (0, 1)]
    found = {
        "people, half against half": likeness(*half),
        **{name: likeness(texts, people) for name, texts in rows.items()},
    }
    heads = ("users", "words (5, 50, 95 %)", "length distance", "divergence", "people's words covered",
             "distinct in 1,000", "act distance", *ACTS)  # fmt: skip
    lines = [heads, ("---",) * len(heads)]
    for name, each in found.items():
        lengths = " ".join(f"{value:.0f}" for value in each.words)
        distinct = "" if np.isnan(each.distinct) else f"{each.distinct:.0f}"
        measured = (f"{each.length_distance:.1f}", f"{each.divergence:.2f}", f"{each.covered:.0%}", distinct)
        acts = (f"{each.acts[act]:.0%}" for act in ACTS)
        lines.append((name, lengths, *measured, f"{each.act_distance:.2f}", *acts))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
