# SPDX-License-Identifier: Apache-2.0
"""Counterfactual data augmentation (Lu et al. 2020, arXiv:1807.11714; two-sided): train on, on texts that say the
same of every group.

Each text of the fit part with a term of an axis gets a copy with all terms of that axis swapped, and both are kept;
a classifier's copy has the label of its source. Several axes give a copy each. A text that has terms and cannot be
swapped (two axes at once, a word of another part, a medical fact) is left out, because it would teach one side alone.
Texts without any term are replay. So that copies do not change what the texts are about, replay is repeated until its
share is that among the texts as they came, and no less than `replay`; where it was less, the neutral sentences of the
word lists come in first.

    replay   least share of texts without a term
    share    of swappable texts, how many get their copy; 0 trains on the texts as they are (a sham)
    kl       weight of KL(before || now) for each token, causal models alone; 0.01 to 0.05 suits instruction models
    two_axes `skip` texts with terms of two axes, or `swap` each axis in a copy of its own

A language model trains a low-rank adapter on the loss of every token; a classifier goes on with what it was trained
with. Training ends early where the loss on the validation part rises twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from cloister_workers.messages import FailureNumber, RefusalReason
from cloister_workers.trainer.debias.adapters import (
    adapter_files,
    adapter_on,
    as_rows,
    causal_objective,
    no_longer_better,
    readable,
    watched,
)
from cloister_workers.trainer.debias.classifying import examples_of, exported, objective_of
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.lexicon import Lexicon
from cloister_workers.trainer.debias.mitigation import Case, Mitigated, Refused
from cloister_workers.trainer.debias.shapes import Labelled, Text
from cloister_workers.trainer.debias.swapping import NotSwapped, Swapped, Swapper, Why
from cloister_workers.trainer.debias.training import Trained
from cloister_workers.trainer.debias.wordlists import lexicons_of_axes, refuse_short_lists
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.objectives import Objective
from cloister_workers.trainer.objectives.anchor import Anchored, Before
from cloister_workers.trainer.objectives.masked_language_model import MaskedLanguageModel
from cloister_workers.trainer.objectives.supervised import Supervised


@dataclass(frozen=True)
class Augmented:
    """What becomes of n texts: indices into them, and copies with the index of their source."""

    sources: tuple[int, ...] = ()
    """Texts with a term; each stays."""
    copies: tuple[tuple[int, str], ...] = ()
    neutral: tuple[int, ...] = ()
    """Texts without a term."""
    skipped: Mapping[Why, int] = field(default_factory=dict)
    """Texts with a term that are left out."""


@dataclass(frozen=True)
class Counterfactual:
    """No state."""

    name: str = "counterfactual"
    title: str = "Counterfactual data augmentation"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CAUSAL, ModelKind.MASKED, ModelKind.CLASSIFIER})
    trained: bool = True
    defaults: Mapping[str, float] = field(default_factory=lambda: {"replay": 0.25, "share": 1.0, "kl": 0.0})
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"two_axes": ("skip", "swap")})
    source: str = "Lu et al. 2020, arXiv:1807.11714"

    def refuse(self, case: Case) -> None:
        refuse_short_lists(case)
        texts = [row.text for row in _rows(case)]
        if not augment(texts, case, case.fit.lexicons).copies:
            raise Refused(
                RefusalReason.NO_PAIRS,
                f"none of {len(texts)} texts to fit on has a term of {len(case.axes)} axes that can be swapped; "
                "give texts that speak of the groups, or a word list that knows their words",
                {FailureNumber.ROWS: len(texts)},
            )

    def apply(self, case: Case) -> Mitigated:
        self.refuse(case)
        return _classifier(case) if case.kind is ModelKind.CLASSIFIER else _language_model(case)


# ---------------------------------------------------------------- texts
def augment(texts: Sequence[str], case: Case, lexicons: Mapping[str, Lexicon], share: float = 1.0) -> Augmented:
    """Swap every text on every axis of the case with the words of `lexicons`; the same for the same texts and seed."""
    swapper = Swapper(lexicons_of_axes(case, lexicons))
    both = case.options["two_axes"] == "swap"
    sources, copies, neutral = [], [], []
    skipped: Counter[Why] = Counter()
    for index, text in enumerate(texts):
        case.training.poll()
        found = [swapper.swap(text, axis, seed=case.seed, both_axes=both) for axis in swapper.axes]
        swapped = [entry for entry in found if isinstance(entry, Swapped)]
        why = [entry.reason for entry in found if isinstance(entry, NotSwapped) and entry.reason is not Why.NO_TERM]
        if swapped:
            sources.append(index)
            copies += [(index, entry.text) for entry in swapped if _drawn(case.seed, text) < share]
        elif why:
            skipped[why[0]] += 1
        else:
            neutral.append(index)
    return Augmented(tuple(sources), tuple(copies), tuple(neutral), skipped)


def _drawn(seed: int, text: str) -> float:
    """A number from 0 to below 1 that seed and text decide."""
    digest = hashlib.sha256(f"cloister/counterfactual/v1\0{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def repeats(swapped: int, own: int, wanted: float) -> int:
    """How many more texts without a term it takes, besides `own`, to make up the share `wanted` of the whole."""
    needed = round(wanted / (1 - wanted) * swapped)
    return max(0, needed - own) if own else 0


def replay_share(found: Augmented, least: float) -> float:
    """The share of texts without a term among those that stay, at least `least`."""
    return max(least, len(found.neutral) / (len(found.neutral) + len(found.sources)))


def _notes(found: Augmented, replayed: int, drawn: int) -> dict[str, float]:
    total = len(found.sources) + len(found.copies) + replayed
    return {
        "texts": float(total),
        "texts_swapped": float(len(found.copies)),
        "texts_with_terms": float(len(found.sources)),
        "texts_replayed": float(replayed),
        "texts_replayed_again": float(drawn),
        "replay_share": replayed / total,
        "texts_skipped": float(sum(found.skipped.values())),
        **{f"skipped_{why.name.lower()}": float(count) for why, count in sorted(found.skipped.items())},
    }


def _rows(case: Case) -> tuple[Text, ...] | tuple[Labelled, ...]:
    return case.fit.rows.of(Labelled) if case.kind is ModelKind.CLASSIFIER else case.fit.rows.of(Text)


# ---------------------------------------------------------------- models
def _language_model(case: Case) -> Mitigated:
    texts = [row.text for row in case.fit.rows.of(Text)]
    found = augment(texts, case, case.fit.lexicons, case.settings["share"])
    swapped = [*(texts[index] for index in found.sources), *(text for _, text in found.copies)]
    neutral, wanted = [texts[index] for index in found.neutral], replay_share(found, case.settings["replay"])
    if len(neutral) < wanted * len(texts):
        lists = (text for lexicon in case.fit.lexicons.values() for text in lexicon.neutral)
        neutral = list(dict.fromkeys([*neutral, *lists]))
    extra = repeats(len(swapped), len(neutral), wanted)
    replayed = [*neutral, *(neutral[number % len(neutral)] for number in range(extra))]

    model, plain = adapter_on(case), _objective(case)
    parts = Parts(
        readable(plain.read(as_rows([*swapped, *replayed]))), validation=readable(plain.read(as_rows(_held_out(case))))
    )
    objective: Objective = plain
    if case.settings["kl"] and isinstance(plain, Supervised):
        objective = Anchored(plain, Before(model), case.settings["kl"])
    trained = _train(case, model, objective, parts)
    cut = sum(example.truncated for example in parts.training)
    return adapter_files(case, model, trained, {**_notes(found, len(replayed), extra), "texts_cut": float(cut)})


def _classifier(case: Case) -> Mitigated:
    rows, plain = case.fit.rows.of(Labelled), objective_of(case)
    found = augment([row.text for row in rows], case, case.fit.lexicons, case.settings["share"])
    swapped = [*(rows[index] for index in found.sources), *(replace(rows[i], text=text) for i, text in found.copies)]
    neutral = [rows[index] for index in found.neutral]
    extra = repeats(len(swapped), len(neutral), replay_share(found, case.settings["replay"]))
    replayed = [*neutral, *(neutral[number % len(neutral)] for number in range(extra))]

    checked = case.validation.rows.of(Labelled)
    balanced = augment([row.text for row in checked], case, case.validation.lexicons)
    held_out = [*checked, *(replace(checked[index], text=text) for index, text in balanced.copies)]
    parts = Parts(examples_of(plain, [*swapped, *replayed]), validation=examples_of(plain, held_out))
    trained = _train(case, case.subject.model, plain, parts)
    return exported(case, trained, _notes(found, len(replayed), extra))


def _train(case: Case, model: torch.nn.Module, objective: Objective, parts: Parts) -> Trained:
    wanted = watched(case.hyperparameters) if parts.validation else case.hyperparameters
    return case.training(model, objective, parts, wanted, case.seed, no_longer_better())


def _objective(case: Case) -> Supervised | MaskedLanguageModel:
    if case.kind is ModelKind.CAUSAL:
        return causal_objective(case)
    wanted, subject = case.hyperparameters, case.subject
    size = wanted.micro_batch_size or wanted.batch_size
    return MaskedLanguageModel(subject.tokenizer, wanted.max_seq_length, size, subject.device, case.seed)


def _held_out(case: Case) -> list[str]:
    """Texts of the validation part, with their copies."""
    texts = [row.text for row in case.validation.rows.of(Text)]
    found = augment(texts, case, case.validation.lexicons)
    return [*(texts[index] for index in (*found.sources, *found.neutral)), *(text for _, text in found.copies)]


MITIGATION = Counterfactual()
