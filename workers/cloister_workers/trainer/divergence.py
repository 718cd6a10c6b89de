# SPDX-License-Identifier: Apache-2.0
"""How far one model's next-token distributions are from another's, from hidden states, in chunks of tokens
(`chunked.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from cloister_workers.trainer.chunked import chunked


@dataclass(frozen=True)
class Predictor:
    """One model at some positions."""

    states: torch.Tensor
    """Hidden states [n, h]."""
    head: torch.nn.Module
    """From hidden states to logits [n, V]."""


@dataclass(frozen=True)
class Mixture:
    """share * T^2 * KL + (1 - share) * cross-entropy (Hinton et al. 2015, arXiv:1503.02531, 2), nats a token.

    With p = softmax(teacher / T) and q = softmax(student / T), KL is KL(p || q), or reversed KL(q || p) (Gu et al.
    2024, arXiv:2306.08543).
    """

    temperature: float = 1.0
    share: float = 1.0
    reverse: bool = False

    def losses(self, student: Predictor, teacher: Predictor, targets: torch.Tensor) -> torch.Tensor:
        """Of each token, float32 [n], from targets int64 [n]. Gradients go to the student alone. Where one vocabulary
        is padded to more entries than the other, the divergence is over those of both.
        """

        def mixed(ours: torch.Tensor, theirs: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                taught = teacher.head(theirs).float() if self.share > 0 else None
            return self._mixed(student.head(ours).float(), taught, true)

        return chunked(mixed, student.states, teacher.states, targets)

    def _mixed(self, logits: torch.Tensor, taught: torch.Tensor | None, targets: torch.Tensor) -> torch.Tensor:
        losses = torch.zeros(len(targets), device=logits.device)
        if self.share < 1:
            losses = losses + (1 - self.share) * functional.cross_entropy(logits, targets, reduction="none")
        if taught is not None:
            width = min(logits.shape[-1], taught.shape[-1])
            p = (taught[:, :width] / self.temperature).log_softmax(-1)
            q = (logits[:, :width] / self.temperature).log_softmax(-1)
            apart = kl_divergence(q, p) if self.reverse else kl_divergence(p, q)
            losses = losses + self.share * self.temperature**2 * apart
        return losses


def token_divergences(hidden: torch.Tensor, head: torch.nn.Module, reference: torch.Tensor) -> torch.Tensor:
    """KL(reference || head(hidden)) of each token, nats, float32 [n], from hidden [n, h] and reference
    log-probabilities [n, vocabulary].
    """
    return chunked(lambda part, known: kl_divergence(known, head(part).float().log_softmax(-1)), hidden, reference)


def kl_divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) of log-probabilities [n, V], nats, [n]."""
    return (p.exp() * (p - q)).sum(-1)
