"""What the simulated users say, and its vectors: spoken once, embedded once, shared by every model that reads text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recllm_bench.artifacts import content_hash, write_atomic
from recllm_bench.errors import BenchError
from recllm_bench.progress import log

if TYPE_CHECKING:
    from recllm_bench.data.splits import Cases
    from recllm_bench.training.stages import Job

NEUTRAL_OPENING = "I am looking for something I will like."


def spoken(job: Job, users: np.ndarray, ends: np.ndarray, targets: np.ndarray) -> list[str]:
    """Opening utterances of the simulated users, spoken once and kept.

    Parameters
    ----------
    job : Job
        Its ``text_key`` names the simulator under ``"simulator"``: another encoder re-uses the words.
    users, ends, targets : array [n]
        As in :class:`~recllm_bench.data.splits.Cases`.

    Returns
    -------
    list of str
        One text for each row; ``""`` where the simulator said nothing.

    Raises
    ------
    BenchError
        When the job has no simulator, or it answers with another number of texts.
    """
    if job.speak is None:
        raise BenchError(f"model {job.recipe.model} reads what users say: name a simulator (conversation.simulator)")
    rows = [np.ascontiguousarray(column, dtype=np.int64) for column in (users, ends, targets)]
    key = {
        "data": job.dataset.checksum,
        "split": job.split.checksum,
        "seed": job.recipe.seed,
        "simulator": job.text_key.get("simulator"),
        "rows": content_hash([column.tolist() for column in rows]),
    }

    def make(work: Path) -> None:
        texts = [text.strip() for text in job.speak(*rows, job.recipe.seed)]
        if len(texts) != len(rows[0]):
            raise BenchError(f"the simulator returned {len(texts)} utterances for {len(rows[0])} users")
        unique, place = np.unique(np.array(texts, dtype=object), return_inverse=True)
        write_atomic(work / "texts.json", lambda file: file.write(json.dumps(unique.tolist()).encode()))
        write_atomic(work / "rows.npy", lambda file: np.save(file, place.reshape(-1).astype(np.int64)))

    folder = job.store.build("utterances", key, make)
    unique = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    return [unique[row] for row in np.load(folder / "rows.npy").tolist()]


def embedded(job: Job, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of texts, each distinct text once; ``job.encode`` keeps what it has embedded.

    Returns
    -------
    indices : int64 [n]
        Row of each text.
    vectors : float32 [m, width]
        One vector for each distinct text.

    Raises
    ------
    BenchError
        When the job has no text encoder.
    """
    if job.encode is None:
        raise BenchError(f"model {job.recipe.model} reads text: name a text encoder (conversation.encoder)")
    row_of: dict[str, int] = {}
    indices = np.fromiter((row_of.setdefault(text, len(row_of)) for text in texts), np.int64, len(texts))
    return indices, job.encode(list(row_of))


def record_utterances(
    job: Job, users: np.ndarray, ends: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Utterance vectors of training records (LatentCRS, stage 0b).

    Parameters
    ----------
    job : Job
        What is run.
    users, ends, targets : array [n]
        The records; the history of a record is ``items[offsets[user - 1]:end]``.

    Returns
    -------
    indices : int64 [n]
        Row of ``vectors`` for each record; ``-1`` where the simulator said nothing (drop such records).
    vectors : float32 [m, width]
        One vector for each distinct utterance.
    """
    texts = spoken(job, users, ends, targets)
    rows = np.array([index for index, text in enumerate(texts) if text], dtype=np.int64)
    if len(rows) < len(texts):
        log.warning(f"{len(texts) - len(rows)} of {len(texts)} training records have no utterance and are dropped")
    indices = np.full(len(texts), -1, dtype=np.int64)
    indices[rows], vectors = embedded(job, [texts[row] for row in rows])
    return indices, vectors


def utterance_columns(job: Job, cases: Cases) -> dict[str, np.ndarray]:
    """Evaluation columns: the vector of each case's opening utterance.

    With ``conversation.shuffle_utterances`` every case gets the words of another user: a control that shows how
    much of the score comes from the words.

    Returns
    -------
    dict
        ``{"utterance_vector": float32 [n, width]}``.
    """
    texts = [text or NEUTRAL_OPENING for text in spoken(job, cases.users, cases.ends, cases.targets)]
    indices, vectors = embedded(job, texts)
    if job.recipe.conversation.shuffle_utterances:
        indices = indices[other_user(cases.users, job.recipe.seed)]
    return {"utterance_vector": vectors[indices]}


def other_user(users: np.ndarray, seed: int) -> np.ndarray:
    """A permutation of the rows in which no row gets a row of its own user.

    The rows are put in a random order, user by user, and rotated by the largest number of rows one user has.

    Parameters
    ----------
    users : array [n]
        User of each row.
    seed : int
        Fixes the order of the users.

    Returns
    -------
    int64 [n]
        For each row, the row it takes instead.

    Raises
    ------
    BenchError
        When one user has more than half of the rows, so that no such permutation exists.
    """
    _, group, counts = np.unique(users, return_inverse=True, return_counts=True)
    if not len(users):
        return np.zeros(0, dtype=np.int64)
    shift = int(counts.max())
    if 2 * shift > len(users):
        raise BenchError("shuffle_utterances: one user has more than half of the cases, nobody else's words are left")
    rng = np.random.default_rng([seed, 0x5F])
    order = np.lexsort((rng.random(len(users)), rng.permutation(len(counts))[group.reshape(-1)]))
    source = np.empty(len(users), dtype=np.int64)
    source[order] = np.roll(order, -shift)
    return source
