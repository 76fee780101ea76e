"""Training as in use: what networks hear is what users say in whole dialogues, and validation chooses what is embedded.

Nothing here knows a test target: records learn from training targets, the choice is made in dialogues about those of
validation.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recllm_bench.api.method import Job
from recllm_bench.conversation.dialogue_state import FORMS, StateReader, dialogue_text
from recllm_bench.conversation.understanding import reader_for
from recllm_bench.data.splits import Cases
from recllm_bench.evaluation.candidates import evaluated_cases
from recllm_bench.evaluation.dialogue_outcomes import success_at, valid_outcomes

CHOSEN = "chosen.json"
_USERS = 300  # of the validation dialogues
_TURNS, _SHOWN = 5, 5  # where the protocol has none


def forms(job: Job) -> tuple[str, ...]:
    """Forms in which training hears dialogues; none where it hears first sentences."""
    told = job.options.train_text or ("dialogues" if job.protocol.turns else "openings")
    if told == "openings":
        return ()
    return (job.options.x_text,) if job.options.x_text else FORMS


def said(job: Job, forms: Sequence[str], cases: Cases) -> tuple[np.ndarray, np.ndarray]:
    """What the users of some cases said up to some turn, embedded once for each distinct text.

    Returns
    -------
    rows : int64 [n]
        Row of each case's text, in one of the forms by chance; -1 where nothing was said.
    vectors : float32 [m, width]
    """
    reader = StateReader(job.dataset.catalogue, reader_for(job))
    drawn = np.random.default_rng([job.recipe.seed, 0xF0]).integers(len(forms), size=len(cases)).tolist()
    talks = job.words.practice(cases)
    texts = [dialogue_text(talk, forms[form], reader) for talk, form in zip(talks, drawn, strict=True)]
    row_of = {text: row for row, text in enumerate(dict.fromkeys(filter(None, texts)))}
    return np.array([row_of.get(text, -1) for text in texts], dtype=np.int64), job.encode(list(row_of))


def key(job: Job, forms: Sequence[str]) -> dict[str, Any]:
    """What the choice depends on, beside the networks."""
    measured = {"users": _USERS, "measured": job.protocol.fingerprint(), "text": dict(job.words.practice_key)}
    return {"forms": list(forms), **measured}


def chosen(job: Job, model: Any, forms: Sequence[str]) -> dict[str, Any]:
    """The form under which a model succeeds soonest in validation dialogues, by the mean of S@1 to S@5."""
    users = min(_USERS, len(np.unique(job.split.valid.users)))
    cases = evaluated_cases(job.split.valid, dataclasses.replace(job.protocol, users=users))
    turns, found = job.protocol.turns or _TURNS, {}
    for form in forms:
        model.x_text = form
        shown = job.protocol.shown_per_turn or _SHOWN
        outcomes = job.words.hold(lambda talks: model.respond(job, talks), cases, turns, shown)
        held = valid_outcomes(outcomes.turns)
        found[form] = float(np.mean([success_at(held, turn).mean() for turn in range(1, turns + 1)]))
    return {"x_text": max(found, key=lambda form: found[form]), "found": found, "dialogues": len(cases)}


def read(folders: Mapping[str, Path]) -> dict[str, Any]:
    """What :func:`chosen` found, from the stage's folder."""
    return json.loads((folders["choose"] / CHOSEN).read_text())


def note(folders: Mapping[str, Path]) -> dict[str, str]:
    """What is embedded in dialogues, in words; nothing where nothing was chosen."""
    if "choose" not in folders:
        return {}
    choice = read(folders)
    found = ", ".join(f"{form} {value:.3f}" for form, value in choice["found"].items())
    how = f"by the mean of S@1 to S@5 in {choice['dialogues']} validation dialogues ({found})"
    return {"embedded": f"{choice['x_text']}, {how}"}
