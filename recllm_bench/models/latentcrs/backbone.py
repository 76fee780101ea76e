"""The pre-trained sequence encoder: trained once, shared with the plain baseline of the same name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recllm_bench.api.method import Job
from recllm_bench.api.registry import model_named
from recllm_bench.data.splits import Cases, Split
from recllm_bench.data.windows import DeviceHistories
from recllm_bench.errors import BenchError
from recllm_bench.models.latentcrs.options import LatentCRSOptions
from recllm_bench.training.cells import Cell, inner_cell

if TYPE_CHECKING:
    from recllm_bench.api.model import Model

_ROWS_AT_ONCE = 1024


def backbone_of(job: Job, options: LatentCRSOptions) -> Cell:
    """The encoder of a LatentCRS job: the plain baseline's recipe on the same data, with the changes asked for.

    An encoder that has intents too has as many as LatentCRS unless ``backbone_options`` says otherwise.

    Raises
    ------
    BenchError
        When the backbone is no causal encoder, or its options are wrong.
    """
    where = f"backbone {options.backbone} of latentcrs"
    own = dict(options.backbone_options or {})
    if "intents" in getattr(model_named(options.backbone).options, "__dataclass_fields__", ()):
        own.setdefault("intents", options.intents)
    cell = inner_cell(job, options.backbone, own, options.backbone_training, where)
    if not (hasattr(cell.entry.model, "sequence_states") and hasattr(cell.entry.model, "item_vectors")):
        raise BenchError(f"latentcrs: backbone '{options.backbone}' is no causal encoder; use iclrec or sasrec")
    return cell


def trained_encoder(cell: Cell) -> Model:
    """The encoder in evaluation mode on the job's device, frozen."""
    return cell.load().to(cell.job.device).eval().requires_grad_(False)


def frozen_items(encoder: Model) -> Tensor:
    """Item table ``[n_items + 1, d]`` without gradient; the padding row is zero."""
    items = encoder.item_vectors().detach().clone()
    items[0] = 0
    return items


def last_states(encoder: Model, item_seq: Tensor, lengths: Tensor, pad_to: str) -> Tensor:
    """User states ``[B, d]``: the encoder's output at the last item.

    Parameters
    ----------
    encoder : Module
        Its present mode decides about dropout.
    item_seq : int64 [B, L]
        Right-padded.
    lengths : int64 [B]
    pad_to : str
        ``pretrain_len``: the newest item has the last position of pre-training; ``batch_max``: positions count from
        the start of the batch's longest history, as in the released code.
    """
    with _padded(encoder, item_seq.shape[1] if pad_to == "batch_max" else None):
        states = encoder.sequence_states(item_seq, lengths)
    return states[torch.arange(len(states), device=states.device), lengths - 1]


@contextmanager
def _padded(encoder: Model, width: int | None) -> Iterator[None]:
    """Let an encoder that pads on the left believe that ``width`` is its full length."""
    full = getattr(encoder, "max_seq_length", None)
    if width is None or full is None:
        yield
        return
    encoder.max_seq_length = width
    try:
        yield
    finally:
        encoder.max_seq_length = full


@torch.no_grad()
def encode_cases(
    encoder: Model, histories: DeviceHistories, cases: Cases, length: int, pad_to: str, label: str = "encode"
) -> Tensor:
    """States ``[n, d]`` of the newest ``length`` items before each case, in the order of the cases."""
    from recllm_bench.progress import track

    starts = np.maximum(histories.offsets[cases.users - 1], cases.ends - length)
    order = np.argsort(cases.ends - starts, kind="stable") if pad_to == "pretrain_len" else np.arange(len(cases))
    parts = []
    for begin in track(range(0, len(order), _ROWS_AT_ONCE), label, unit="batch"):
        rows = order[begin : begin + _ROWS_AT_ONCE]
        item_seq, lengths = histories.history_batch(cases.users[rows], cases.ends[rows], length)
        parts.append(last_states(encoder, item_seq, lengths, pad_to))
    found = torch.cat(parts).float()
    result = torch.empty_like(found)
    result[torch.from_numpy(order).to(found.device)] = found
    return result


@torch.no_grad()
def pooled_states(encoder: Model, split: Split, histories: DeviceHistories, length: int, pool: str) -> np.ndarray:
    """Vector of every user's training sequence for K-means, float32 [n, d].

    The newest training item is left out: it is the newest target, which the encoder never read.

    Parameters
    ----------
    pool : str
        ``last`` state; ``mean_nonpad`` over real positions; ``mean_all`` over the full padded length, what stands at
        padding positions included (released code).
    """
    starts = split.histories.offsets[:-1]
    ends = np.maximum(starts + 1, np.asarray(split.train_ends) - 1)
    users = np.flatnonzero(np.asarray(split.train_ends) > starts) + 1
    if pool == "mean_all" and not hasattr(encoder, "padded_states"):
        raise BenchError("latentcrs: this backbone has no states at padding positions; set intent_pool=last")
    parts = []
    for begin in range(0, len(users), 512):
        rows = users[begin : begin + 512]
        item_seq, lengths = histories.history_batch(rows, ends[rows - 1], length)
        if pool == "mean_all":
            column = torch.arange(length, device=item_seq.device) - (length - lengths)[:, None]
            padded = torch.nn.functional.pad(item_seq, (0, length - item_seq.shape[1]))
            left = padded.gather(1, column.clamp(min=0)) * (column >= 0)
            parts.append(encoder.padded_states(left).mean(1))
            continue
        states = encoder.sequence_states(item_seq, lengths)
        if pool == "last":
            parts.append(states[torch.arange(len(rows), device=states.device), lengths - 1])
        else:
            parts.append((states * (item_seq > 0).unsqueeze(-1)).sum(1) / lengths.unsqueeze(1))
    return torch.cat(parts).float().cpu().numpy()
