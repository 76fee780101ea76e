"""LatentCRS' variational EM written down straight away: what ``em.py`` measures ours against."""

from __future__ import annotations

from typing import Any

import numpy as np


class Plain:
    """The same passes written down straight away: every batch is encoded anew, every case has its own text.

    Scores of an item follow the formulas: one for each intent, then their mean under the distribution.

    Parameters
    ----------
    given : em.Work
        Records, encoder, options; the networks are made anew.
    """

    def __init__(self, given: Any) -> None:
        import torch

        self.given, self.options = given, given.options
        self.inference, self.generative = given.networks()
        if given.options.text_dropout:
            self.generative.projector.dropout = torch.nn.Dropout(given.options.text_dropout)

    def states(self, rows: np.ndarray, dropout: bool) -> Any:
        """User states of records, encoded now."""
        import torch

        from recllm_bench.models.latentcrs.backbone import last_states

        given = self.given
        given.encoder.train(dropout and self.options.encoder_dropout_in_train)
        with torch.no_grad():
            cases = given.records.take(rows)
            batch = given.histories.history_batch(cases.users, cases.ends, given.length)
            return last_states(given.encoder, *batch, self.options.pad_to)

    def e_loss(self, rows: np.ndarray, repeats: np.ndarray) -> Any:
        """KL(q || posterior) + w L_rec^E, the generative network frozen."""
        import torch

        from recllm_bench.models.latentcrs import losses

        self._train(self.inference, self.generative)
        candidates = self._candidates(rows, repeats)
        with torch.no_grad():
            _, log_f, g = self._generative(self.states(rows, dropout=False), rows, candidates[:, :1])
            wanted = losses.log_posterior(log_f, g[..., 0], self.options.posterior_form)
        log_q = self.inference(self.states(rows, dropout=True))
        scores = self.inference.value_map(self.inference.intents) @ candidates.transpose(1, 2)
        ranked = (log_q.exp().unsqueeze(-1) * scores).sum(1)
        loss = _divergence(log_q, wanted, self.options.kl_epsilon)
        return loss + self.options.w_e_rec * losses.ranking_loss(ranked, self.options.temperature)

    def m_loss(self, rows: np.ndarray, repeats: np.ndarray) -> Any:
        """lambda KL(q || f) + w L_rec, the inference network frozen."""
        import torch

        from recllm_bench.models.latentcrs import losses

        self._train(self.generative, self.inference)
        with torch.no_grad():
            log_q = self.inference(self.states(rows, dropout=False))
        candidates = self._candidates(rows, repeats)
        _, log_f, g = self._generative(self.states(rows, dropout=True), rows, candidates)
        ranked = (log_f.exp().unsqueeze(-1) * g).sum(1)
        loss = self.options.lambda_kl * _divergence(log_q, log_f, self.options.kl_epsilon)
        return loss + self.options.w_rec * losses.ranking_loss(ranked)

    def _generative(self, states: Any, rows: np.ndarray, candidates: Any) -> tuple[Any, Any, Any]:
        import torch

        texts = self.given.texts[torch.from_numpy(self.given.records.targets[rows]).long().to(self.given.device)]
        affinity, log_f = self.generative(states, texts)
        return affinity, log_f, self.generative.intent_scores(affinity, self.generative.item_vectors(candidates))

    def _candidates(self, rows: np.ndarray, repeats: np.ndarray) -> Any:
        import torch

        targets = torch.from_numpy(self.given.records.targets[rows]).long().to(self.given.device)
        negatives = self.given.negatives[torch.from_numpy(repeats), torch.from_numpy(rows)].long()
        return self.given.items[torch.cat([targets[:, None], negatives], 1)]

    @staticmethod
    def _train(trained: Any, fixed: Any) -> None:
        trained.requires_grad_(True).train()
        fixed.requires_grad_(False).eval()


def _divergence(log_p: Any, log_q: Any, epsilon: float) -> Any:
    """KL(p || q) of logarithms [B, K], the mean over cases; ``epsilon`` is added to probabilities in logarithms."""
    p, q = log_p.exp(), log_q.exp()
    terms = (p + epsilon).log() - (q + epsilon).log() if epsilon else log_p - log_q
    return (p * terms).sum(-1).mean()
