"""The distributions and losses of LatentCRS as pure functions.

Shapes: ``B`` cases, ``K`` intents, ``c`` candidates with the positive in column 0. ``g`` is a log density ratio
everywhere. Numbers in brackets are equations of the paper (arXiv 2503.10703v1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def distribution(logits: Tensor, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """Probabilities, and their logarithms as the KL terms take them.

    Parameters
    ----------
    logits : Tensor [B, K]
        Logits, or logarithms of a distribution.
    epsilon : float
        Added to the probabilities inside the logarithm.

    Returns
    -------
    p, log_p : Tensor [B, K]
        The second is ``log(p + epsilon)``.
    """
    if epsilon:
        p = torch.softmax(logits, -1)
        return p, torch.log(p + epsilon)
    log_p = torch.log_softmax(logits, -1)
    return log_p.exp(), log_p


def expected(p: Tensor, values: Tensor) -> Tensor:
    """Mean over cases of the expectation of ``values`` under ``p``, both [B, K].

    One dot product of everything: half the passes over memory, there and back, of a product and its sums.
    """
    return torch.dot(p.flatten(), values.flatten()) / len(p)


def log_posterior(log_f: Tensor, g: Tensor, form: str) -> Tensor:
    """Log posterior over intents given the item (13), Tensor [B, K].

    Parameters
    ----------
    log_f : Tensor [B, K]
        Log prior.
    g : Tensor [B, K]
        Score of the item under each intent.
    form : str
        ``exact_log``: softmax of ``log f + g``; ``softmax_product``: softmax of ``f * g`` (released code).
    """
    return torch.log_softmax(log_f + g if form == "exact_log" else log_f.exp() * g, -1)


def contrastive_loss(q: Tensor, log_f: Tensor, g: Tensor, logits: str, reduce: str) -> Tensor:
    """Contrastive term (8): cross entropy over candidates under each intent, weighted by ``q``.

    Parameters
    ----------
    q, log_f : Tensor [B, K]
        Inference distribution and log prior.
    g : Tensor [B, K, c]
        Scores, positive first.
    logits : str
        ``g``, or ``f_times_g``: multiplied by the prior before the softmax (released code).
    reduce : str
        ``sum`` over intents (paper) or ``mean``, smaller by the factor K (released code).
    """
    values = g if logits == "g" else log_f.exp().unsqueeze(-1) * g
    weighted = q * (torch.logsumexp(values, -1) - values[..., 0])
    return (weighted.sum(-1) if reduce == "sum" else weighted.mean(-1)).mean()


def ranking_loss(scores: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross entropy over candidates, positive first: (10) with scores h, and (15) with scores r W_e v.

    Parameters
    ----------
    scores : Tensor [B, c]
        One score for each candidate.
    temperature : float
        Divides the scores.
    """
    target = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    return functional.cross_entropy(scores / temperature, target)


def mixture_loss(log_f: Tensor, g: Tensor) -> Tensor:
    """Ranking loss (10) read as a mixture of exponentials: ``-log(sum_j f_j exp g_j(v+) / sum over items of it)``.

    Parameters
    ----------
    log_f : Tensor [B, K]
        Log prior.
    g : Tensor [B, K, c]
        Scores, positive first.
    """
    joint = torch.logsumexp(log_f.unsqueeze(-1) + g, 1)
    return (torch.logsumexp(joint, -1) - joint[:, 0]).mean()
