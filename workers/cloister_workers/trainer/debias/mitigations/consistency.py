# SPDX-License-Identifier: Apache-2.0
"""Pair consistency for sentence encoders: a low-rank adapter learns to embed texts that differ in the group alone at
their common middle, and everything else where it was.

For a set of counterparts x_1 .. x_g with embeddings e(x) of the frozen model,

    loss = sum over i of |f(x_i) - mid|^2,  mid = mean of e(x_i), at length 1 where the model scales to that
    loss = retention * |f(x) - e(x)|^2      for a text that no axis touches

Sets come from the word lists, users' pairs and the swapped copies of users' texts; other texts are the users' neutral
ones, the lists' neutral sentences and their attributes in templates, each as often as it takes to be as many as there
are sets (at most MOST_REPEATS times). A step's loss is the mean over its examples.

    retention  weight of what must stay
    texts      how many texts to make from the word lists, about

The adapter is merged, so the version is a folder that sentence-transformers loads.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from cloister_workers.messages import MetricName, Metrics, RefusalReason, RowReason
from cloister_workers.trainer.adapt import attach_lora
from cloister_workers.trainer.debias.counterparts import Counterpart, from_pairs, from_swaps, from_words, joined
from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind
from cloister_workers.trainer.debias.lexicon import fill
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.mitigation import Case, Layer, Mitigated, Refused
from cloister_workers.trainer.debias.neutral import neutral_texts
from cloister_workers.trainer.debias.shapes import Pair, Text
from cloister_workers.trainer.debias.subjects.encoder import EncoderSubject
from cloister_workers.trainer.debias.subjects.pipeline import Normalize, pipeline_files
from cloister_workers.trainer.debias.utilities.similarity import unit
from cloister_workers.trainer.debias.wordlists import lexicons_of_axes, refuse_short_lists
from cloister_workers.trainer.example import Example, Outcome, digest_of
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.model import Base

MOST_REPEATS = 20
_TARGETS = ("all-linear",)  # where the spec names none: query and value alone move embeddings too little


@dataclass(frozen=True, slots=True)
class Drawn(Example):
    """Texts that are drawn to one point; `tokens` holds those of all of them, for counting."""

    texts: tuple[str, ...] = ()
    target: tuple[float, ...] = ()
    factor: float = 1.0


@dataclass(frozen=True)
class PairConsistency:
    """Squared distances of embeddings from fixed points. `model` is a `pipeline.SentenceEncoder`."""

    subject: EncoderSubject
    micro_batch_size: int

    def read(self, rows: Sequence[dict[str, object]]) -> list[Example | RowReason]:
        """Examples are made by `examples_of`; there is no file of them."""
        return [RowReason.UNKNOWN_KIND for _ in rows]

    def micro_batches(self, batch: Sequence[Example]) -> list[list[Example]]:
        size = self.micro_batch_size
        return [list(batch[start : start + size]) for start in range(0, len(batch), size)]

    def weight(self, example: Example) -> int:
        return 1

    def outcome(self, model: torch.nn.Module, examples: Sequence[Example]) -> Outcome:
        drawn = [example for example in examples if isinstance(example, Drawn)]
        owner = torch.tensor([index for index, example in enumerate(drawn) for _ in example.texts])
        embedded = model(self.subject.tokens([text for example in drawn for text in example.texts]))
        targets = torch.tensor([example.target for example in drawn], dtype=embedded.dtype, device=embedded.device)
        factors = torch.tensor([example.factor for example in drawn], dtype=embedded.dtype, device=embedded.device)
        owner = owner.to(embedded.device)
        distances = (embedded - targets[owner]).pow(2).sum(-1) * factors[owner]
        sums = torch.zeros(len(drawn), dtype=embedded.dtype, device=embedded.device).index_add(0, owner, distances)
        return Outcome(sums, torch.zeros(len(drawn), dtype=torch.long))

    def score(self, examples: Sequence[Example], sums: Sequence[float], predicted: Sequence[int]) -> Metrics:
        return {MetricName.EVAL_LOSS: sum(sums) / len(sums), MetricName.EVAL_ROWS: float(len(sums))}


@dataclass(frozen=True)
class Consistency:
    """No state."""

    name: str = "consistency"
    title: str = "Pair consistency of a sentence encoder"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.ENCODER})
    trained: bool = True
    defaults: Mapping[str, float] = field(default_factory=lambda: {"retention": 1.0, "texts": 3000.0})
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "mean of pairs as in Liang et al. 2020, arXiv:2007.08100, as a training target"

    def refuse(self, case: Case) -> None:
        if case.kind is not ModelKind.ENCODER:
            raise Refused(
                RefusalReason.MODEL_KIND, f"pair consistency does not fit a {case.kind}; use it on an encoder"
            )
        refuse_short_lists(case)
        if not _sets(case, case.fit):
            raise Refused(
                RefusalReason.NO_PAIRS,
                f"no texts that differ in the group alone can be made for {len(case.axes)} axes; give rows of kind "
                "pair or swap",
            )

    def apply(self, case: Case) -> Mitigated:
        self.refuse(case)
        subject: EncoderSubject = case.subject
        encoder = subject.model
        if hasattr(encoder.transformer, "merge_and_unload"):
            encoder.transformer = encoder.transformer.merge_and_unload()
        sets, kept = _sets(case, case.fit), _kept(case, case.fit)
        training = _examples(subject, sets, kept, case.settings["retention"], balance=True)
        checked = _examples(
            subject, _sets(case, case.validation), _kept(case, case.validation), case.settings["retention"]
        )
        encoder.requires_grad_(False)
        torch.manual_seed(case.seed)
        lora = case.lora if case.lora.target_modules else replace(case.lora, target_modules=_TARGETS)
        encoder.transformer = attach_lora(Base(encoder.transformer, ()), lora)
        wanted = case.hyperparameters
        objective = PairConsistency(subject, wanted.micro_batch_size or wanted.batch_size)
        trained = case.training(encoder, objective, Parts(training, validation=checked), wanted, case.seed)
        notes = {"sets": float(len(sets)), "texts_kept": float(len(kept)), "examples": float(len(training))}
        return Mitigated(
            layer=Layer.MERGED,
            files=pipeline_files(encoder, subject.tokenizer, case.model_name, case.scratch),
            trained_tokens=trained.trained_tokens,
            steps=trained.steps,
            notes={**notes, "training_loss": trained.loss},
        )


def _sets(case: Case, part: Part) -> list[tuple[str, ...]]:
    """Texts that say the same of several groups."""
    lexicons = lexicons_of_axes(case, part.lexicons)
    names = tuple(dict.fromkeys(name for axis in case.axes for name in axis.split("*")))
    swaps = from_swaps([row.text for row in part.rows.of(Text)], lexicons, case.seed)
    lists = [from_pairs(part.rows.of(Pair), names), swaps, from_words(lexicons, int(case.settings["texts"]))]
    found: dict[int, list[Counterpart]] = {}
    for entry in joined(lists):
        found.setdefault(entry.set, []).append(entry)
    return [tuple(entry.text for entry in entries) for entries in found.values()]


def _kept(case: Case, part: Part) -> list[str]:
    """Texts that no axis touches."""
    made = [
        fill(template, word=word)
        for lexicon in lexicons_of_axes(case, part.lexicons).values()
        for entry in lexicon.associations
        for number, word in enumerate((*entry.first, *entry.second))
        for template in lexicon.templates[number % len(lexicon.templates) :][:2]
    ]
    return list(dict.fromkeys([*neutral_texts(part), *made]))


def _examples(
    subject: EncoderSubject,
    sets: Sequence[tuple[str, ...]],
    kept: Sequence[str],
    retention: float,
    *,
    balance: bool = False,
) -> tuple[Drawn, ...]:
    """One example a set, and one a text that must stay where it is; `balance` repeats the latter to as many."""
    flat = [text for texts in sets for text in texts]
    embedded, frozen = subject.embed([*flat, *kept]), len(flat)
    scaled = any(isinstance(step, Normalize) for step in subject.model.steps)
    found, start = [], 0
    for texts in sets:
        mid = embedded[start : start + len(texts)].mean(0)
        found.append(_drawn(subject, texts, unit(mid[None])[0] if scaled else mid, 1.0))
        start += len(texts)
    if retention:
        times = min(MOST_REPEATS, max(1, len(sets) // max(len(kept), 1))) if balance else 1
        stays = [
            _drawn(subject, (text,), place, retention) for text, place in zip(kept, embedded[frozen:], strict=True)
        ]
        found += stays * times
    return tuple(found)


def _drawn(subject: EncoderSubject, texts: tuple[str, ...], target: FloatArray, factor: float) -> Drawn:
    lists = subject.tokenizer(list(texts), truncation=True, max_length=subject.max_seq_length)["input_ids"]
    return Drawn(
        tokens=array("i", np.concatenate(lists).tolist()),
        group=digest_of(*texts),
        digest=digest_of(*texts),
        texts=texts,
        target=tuple(target.tolist()),
        factor=factor,
    )


MITIGATION = Consistency()
