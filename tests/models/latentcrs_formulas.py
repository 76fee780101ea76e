"""Formulas of LatentCRS written down plainly, for tests of the fast ways of computing them."""

from __future__ import annotations

import torch
from torch import Tensor


def kl_divergence(log_p: Tensor, log_q: Tensor, epsilon: float = 0.0) -> Tensor:
    """KL(p || q), summed over intents and averaged over cases.

    Parameters
    ----------
    log_p, log_q : Tensor [B, K]
        Logarithms of two distributions.
    epsilon : float
        Added to both probabilities inside their logarithms (released code: 1e-5).
    """
    p = log_p.exp()
    if epsilon:
        return (p * (torch.log(p + epsilon) - torch.log(log_q.exp() + epsilon))).sum(-1).mean()
    return (p * (log_p - log_q)).sum(-1).mean()


def evidence_bound(q: Tensor, log_f: Tensor, log_likelihood: Tensor) -> Tensor:
    """ELBO (9) of each case: ``E_q[log p(v|m)] - KL(q || f)``, Tensor [B].

    Parameters
    ----------
    q, log_f, log_likelihood : Tensor [B, K]
        Inference distribution, log prior, and ``log p(v | m_j)``.
    """
    return (q * (log_likelihood + log_f)).sum(-1) - torch.xlogy(q, q).sum(-1)
