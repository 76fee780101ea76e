"""From scores to what a system shows: the best items that a dialogue may still be shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recllm_bench.conversation.dialogue import Dialogue, Response

if TYPE_CHECKING:
    from torch import Tensor


def show_best(scores: Tensor, job: Any, dialogues: Sequence[Dialogue], *, seconds: float = 0.0) -> list[Response]:
    """The best items of each dialogue: none twice, and none that the protocol excludes."""
    return best_of(hide(scores, job, dialogues), job, seconds=seconds)


def hide(scores: Tensor, job: Any, dialogues: Sequence[Dialogue], *, again: bool = False) -> Tensor:
    """Scores ``[B, n_items + 1]``, written over with minus infinity for what must not be shown.

    Parameters
    ----------
    scores : float [B, n_items + 1]
    job : Job
        Its protocol says whether that is the history.
    dialogues : sequence of Dialogue [B]
    again : bool
        Whether an item may be shown once more.
    """
    import torch

    known = job.protocol.exclude_history
    hidden = [
        [0, *(() if again else talk.shown), *(np.asarray(talk.history).tolist() if known else ())] for talk in dialogues
    ]
    rows = np.repeat(np.arange(len(hidden)), [len(items) for items in hidden])
    columns = np.array([item for items in hidden for item in items], dtype=np.int64)
    scores[torch.from_numpy(rows).to(scores.device), torch.from_numpy(columns).to(scores.device)] = -torch.inf
    return scores


def best_of(scores: Tensor, job: Any, *, seconds: float = 0.0) -> list[Response]:
    """The best items of each row, without those of minus infinity.

    Parameters
    ----------
    scores : float [B, n_items + 1]
    job : Job
        Its protocol says how many are shown (5 where it does not).
    seconds : float
        Time of the whole batch, shared out among the rows.
    """
    best = scores.topk(min(job.protocol.shown_per_turn or 5, scores.shape[1] - 1), dim=1)
    kept, items = (best.values > -np.inf).cpu().numpy(), best.indices.cpu().numpy()
    return [Response(row[keep].tolist(), seconds=seconds / len(items)) for row, keep in zip(items, kept, strict=True)]


def history_batch(dialogues: Sequence[Dialogue], length: int, device: Any) -> dict[str, Tensor]:
    """The users of dialogues as a batch that models rank for: ``user_id [B]``, ``item_id_list [B, L]``,
    ``item_length [B]``, padding on the right.

    Parameters
    ----------
    dialogues : sequence of Dialogue [B]
    length : int
        Newest items of a history that are read.
    device : torch.device
    """
    import torch

    histories = [np.asarray(dialogue.history[-length:], dtype=np.int64) for dialogue in dialogues]
    lengths = torch.tensor([len(history) for history in histories])
    item_seq = torch.zeros(len(histories), max(1, int(lengths.max())), dtype=torch.long)
    for row, history in enumerate(histories):
        item_seq[row, : len(history)] = torch.from_numpy(history)
    users = torch.tensor([dialogue.user for dialogue in dialogues])
    found = {"user_id": users, "item_id_list": item_seq, "item_length": lengths}
    return {name: column.to(device) for name, column in found.items()}
