# SPDX-License-Identifier: Apache-2.0
"""What mitigations that train a language model share: the adapter that they train, and its export.

A base model gets a new adapter (`trainer.adapt.lora`, its numbers those of the spec); a version that has one already
goes on with it, so that there is one adapter on the base model afterwards too. Causal models train on packed
sequences, as in every other job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import torch

from cloister_workers.messages import MetricName, Metrics, RowReason
from cloister_workers.trainer.adapt import attach_lora
from cloister_workers.trainer.attention import NAME, register
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.mitigation import Case, Layer, Mitigated
from cloister_workers.trainer.debias.shapes import Text
from cloister_workers.trainer.debias.training import Trained
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.export import export_files
from cloister_workers.trainer.forward import unwrapped
from cloister_workers.trainer.model import Base
from cloister_workers.trainer.objectives.language_model import language_model
from cloister_workers.trainer.objectives.supervised import Supervised
from cloister_workers.trainer.order import data_order
from cloister_workers.trainer.probe import check_packing
from cloister_workers.trainer.spec import Hyperparameters

_LOOKS = 5  # evaluations in a run whose spec asks for none, for mitigations that stop by them


def adapter_on(case: Case) -> torch.nn.Module:
    """The subject's model with the adapter that is to be trained, ready for packed training where it is causal; drawn
    from the case's seed. Raises SpecError ADAPTER_INVALID, TrainerError MODEL_UNSUPPORTED.
    """
    model: torch.nn.Module = case.subject.model
    causal = case.kind is ModelKind.CAUSAL
    if causal:
        register()
        inner = unwrapped(model)
        inner.set_attn_implementation(NAME)
        check_packing(inner, case.subject.device)
    torch.manual_seed(case.seed)
    if hasattr(model, "peft_config"):
        return model
    return attach_lora(Base(model, (), "CAUSAL_LM" if causal else None), case.lora)


def watched(hyperparameters: Hyperparameters) -> Hyperparameters:
    """The same with evaluations during training, for a mitigation that stops by them."""
    return replace(hyperparameters, n_evals=hyperparameters.n_evals or _LOOKS)


def no_longer_better() -> Callable[[Metrics], bool]:
    """Says enough at the second evaluation in a row whose loss is above the lowest so far."""
    lowest, risen = float("inf"), 0

    def enough(metrics: Metrics) -> bool:
        nonlocal lowest, risen
        loss = metrics.get(MetricName.EVAL_LOSS, float("inf"))
        risen = risen + 1 if loss > lowest else 0
        lowest = min(lowest, loss)
        return risen >= 2

    return enough


def causal_objective(case: Case) -> Supervised:
    """The plain loss of texts, packed as the hyperparameters say."""
    wanted, subject = case.hyperparameters, case.subject
    size = wanted.micro_batch_size or wanted.batch_size
    return language_model(subject.tokenizer, wanted.max_seq_length, size, subject.device)


def as_rows(texts: Iterable[str]) -> list[dict[str, object]]:
    """Texts as an objective reads them."""
    return [{"text": text} for text in texts]


def readable(read: Iterable[Example | RowReason]) -> tuple[Example, ...]:
    """What of a reading gave examples; a text without a single token to learn gives none."""
    return tuple(entry for entry in read if not isinstance(entry, RowReason))


def retained_texts(case: Case, built: Sequence[str], count: int) -> list[str]:
    """`count` texts whose predictions are to stay: the fit part's plain texts, its neutral sentences, and sentences
    `built` for the job, in turn, in an order that the seed draws; again from the start where there are too few.
    """
    own = [row.text for row in case.fit.rows.of(Text)]
    lists = [text for lexicon in case.fit.lexicons.values() for text in lexicon.neutral]
    shuffled = [[some[index] for index in data_order(case.seed, 0, len(some))] for some in (own, lists, built)]
    mixed = (text for turn in zip_longest(*shuffled) for text in turn)
    texts = list(dict.fromkeys(text for text in mixed if text is not None))
    return [texts[number % len(texts)] for number in range(count)] if texts else []


def adapter_files(case: Case, model: torch.nn.Module, trained: Trained, notes: Mapping[str, float]) -> Mitigated:
    """The adapter as peft loads it."""
    return Mitigated(
        layer=Layer.ADAPTER,
        files=export_files(model, case.subject.tokenizer, case.model_name, case.scratch),
        trained_tokens=trained.trained_tokens,
        steps=trained.steps,
        notes={**notes, "training_loss": trained.loss},
    )
