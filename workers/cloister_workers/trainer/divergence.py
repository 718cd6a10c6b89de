# SPDX-License-Identifier: Apache-2.0
"""How far one model's next-token distributions are from another's, chunk by chunk: logits of tokens x vocabulary never
exist whole, in the backward pass neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cloister_workers.trainer.cross_entropy import CHUNK


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
        parts = zip(
            torch.split(student.states, CHUNK),
            torch.split(teacher.states, CHUNK),
            torch.split(targets, CHUNK),
            strict=True,
        )
        grad = torch.is_grad_enabled()
        found = []
        for ours, theirs, true in parts:
            given = (ours, student.head, theirs, teacher.head, true)
            found.append(checkpoint(self._chunk, *given, use_reentrant=False) if grad else self._chunk(*given))
        return torch.cat(found)

    def _chunk(
        self,
        ours: torch.Tensor,
        our_head: torch.nn.Module,
        theirs: torch.Tensor,
        their_head: torch.nn.Module,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        logits = our_head(ours).float()
        losses = torch.zeros(len(targets), device=logits.device)
        if self.share < 1:
            losses = losses + (1 - self.share) * functional.cross_entropy(logits, targets, reduction="none")
        if self.share > 0:
            with torch.no_grad():
                taught = their_head(theirs).float()
            width = min(logits.shape[-1], taught.shape[-1])
            p = (taught[:, :width] / self.temperature).log_softmax(-1)
            q = (logits[:, :width] / self.temperature).log_softmax(-1)
            from_, to = (q, p) if self.reverse else (p, q)
            losses = losses + self.share * self.temperature**2 * (from_.exp() * (from_ - to)).sum(-1)
        return losses
