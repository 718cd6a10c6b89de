# SPDX-License-Identifier: Apache-2.0
"""The losses of preference learning, each a function of summed log-probabilities alone.

Notation: x a prompt, y+ the chosen completion, y- the rejected one, |y| the tokens of y, pi the model, ref the model
before training, log pi(y|x) summed over the tokens of y, r(y) = log pi(y|x) - log ref(y|x). beta weighs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Pairs:
    """Of n pairs, float32 [n] each: log-probabilities of completions given their prompts, nats, and their tokens."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    ref_chosen: torch.Tensor
    """Of the model before training; 0 for losses that need none."""
    ref_rejected: torch.Tensor
    certainty: torch.Tensor
    """Probability that the chosen completion is the better one."""


@dataclass(frozen=True)
class Weights:
    """The numbers of a loss."""

    beta: float = 0.1
    margin: float = 0.5
    """SimPO's gamma."""


@dataclass(frozen=True)
class PairLoss:
    """A loss of pairs."""

    losses: Callable[[Pairs, Weights], torch.Tensor]
    """Of each pair, float32 [n], differentiable."""
    rewards: Callable[[Pairs, Weights], torch.Tensor]
    """By how much more the chosen completion is worth than the rejected one in terms of the loss, float32 [n]."""
    reference: bool
    """Whether it compares with the model before training."""


def dpo(pairs: Pairs, weights: Weights) -> torch.Tensor:
    """Rafailov et al. 2023 (arXiv:2305.18290, eq. 7), with c < 1 conservative DPO (Mitchell 2023):

    -c log sigmoid(beta (r(y+) - r(y-))) - (1 - c) log sigmoid(beta (r(y-) - r(y+)))
    """
    gain = gained(pairs, weights)
    return -pairs.certainty * functional.logsigmoid(gain) - (1 - pairs.certainty) * functional.logsigmoid(-gain)


def ipo(pairs: Pairs, weights: Weights) -> torch.Tensor:
    """Azar et al. 2023 (arXiv:2310.12036, eq. 17), beta their tau; log-ratios are means over tokens, as TRL has it
    from the authors:

    (r(y+) / |y+| - r(y-) / |y-| - 1 / (2 beta))^2
    """
    return (gained_a_token(pairs, weights) / weights.beta - 1 / (2 * weights.beta)) ** 2


def orpo(pairs: Pairs, weights: Weights) -> torch.Tensor:
    """Hong et al. 2024 (arXiv:2403.07691, eqs. 4 to 7), beta their lambda, p(y) = exp(log pi(y|x) / |y|):

    -log pi(y+|x) / |y+| - beta log sigmoid(log (p(y+) / (1 - p(y+))) - log (p(y-) / (1 - p(y-))))
    """
    chosen, rejected = pairs.chosen / pairs.chosen_tokens, pairs.rejected / pairs.rejected_tokens
    odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -chosen - weights.beta * functional.logsigmoid(odds)


def simpo(pairs: Pairs, weights: Weights) -> torch.Tensor:
    """Meng et al. 2024 (arXiv:2405.14734, eq. 6), gamma the margin:

    -log sigmoid(beta (log pi(y+|x) / |y+| - log pi(y-|x) / |y-|) - gamma)
    """
    return -functional.logsigmoid(likelier_a_token(pairs, weights) - weights.margin)


def kto(
    policy: torch.Tensor, reference: torch.Tensor, wanted: torch.Tensor, divergence: torch.Tensor, beta: float
) -> torch.Tensor:
    """Ethayarajh et al. 2024 (arXiv:2402.01306, eq. 7) of n completions, both weights 1; z the divergence, no gradient:

    wanted    1 - sigmoid(beta (r(y) - z))
    unwanted  1 - sigmoid(beta (z - r(y)))

    `policy` and `reference` are log-probabilities float32 [n], `wanted` bool [n].
    """
    reward = policy - reference - divergence.detach()
    return 1 - torch.sigmoid(beta * torch.where(wanted, reward, -reward))


def kto_divergence(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KTO's z: the mean of log pi(y'|x) - log ref(y'|x) over mismatched prompts and completions, not below 0."""
    return (policy - reference).mean().clamp(min=0).detach()


def gained(pairs: Pairs, weights: Weights) -> torch.Tensor:
    """The difference beta (r(y+) - r(y-)), float32 [n]."""
    return weights.beta * ((pairs.chosen - pairs.ref_chosen) - (pairs.rejected - pairs.ref_rejected))


def gained_a_token(pairs: Pairs, weights: Weights) -> torch.Tensor:
    """The difference beta (r(y+) / |y+| - r(y-) / |y-|), float32 [n]."""
    chosen = (pairs.chosen - pairs.ref_chosen) / pairs.chosen_tokens
    return weights.beta * (chosen - (pairs.rejected - pairs.ref_rejected) / pairs.rejected_tokens)


def likelier_a_token(pairs: Pairs, weights: Weights) -> torch.Tensor:
    """The difference beta (log pi(y+|x) / |y+| - log pi(y-|x) / |y-|), float32 [n]."""
    return weights.beta * (pairs.chosen / pairs.chosen_tokens - pairs.rejected / pairs.rejected_tokens)


def _log1mexp(x: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) of x < 0, exact near both ends (Maechler 2012), with slopes that are numbers."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > _HALF
    # Each branch sees only what it is good for: an infinite slope that is not chosen would still spoil the sum.
    small, large = torch.where(near, x, _HALF), torch.where(near, _HALF, x)
    return torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))


_HALF = -0.6931471805599453  # log 1/2


DPO = PairLoss(dpo, gained, reference=True)
LOSSES: Mapping[str, PairLoss] = {
    "dpo": DPO,
    "ipo": PairLoss(ipo, gained_a_token, reference=True),
    "orpo": PairLoss(orpo, likelier_a_token, reference=False),
    "simpo": PairLoss(simpo, likelier_a_token, reference=False),
}
KTO = "kto"
