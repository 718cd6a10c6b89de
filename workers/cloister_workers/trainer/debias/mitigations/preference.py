# SPDX-License-Identifier: Apache-2.0
"""Preference de-biasing: an adapter trained by direct preference optimisation (`objectives.preference`), so that what
is preferred is neutrality and not the other group.

Rows {prompt, chosen, rejected} are joined by the same rows with the groups swapped. A row that its swapped self
contradicts (the same prompt, chosen and rejected exchanged) only says that one group should come before the other:
of such rows it is learned that both completions are equally likely.

Without such rows pairs are built from the fit part's word lists: two prompts that differ in the group alone, and two
ways to go on, one that prejudice expects of each group. A stereotype is that the model's choice between the two
depends on the prompt; what is learned is the mean of its margins after both, so a model without a lean stays as it is
and none is pushed past the middle. (Plain pairs in both directions would do nothing: their DPO loss is least on the
model that training starts from.) In the terms of DPO, the pair is preferred with the certainty whose optimum lies at
that goal, sigmoid(beta (goal - margin before)).

    beta        of DPO
    sft         with rows: weight of the chosen completion's own loss, nats a token
    comparisons at most so many comparisons an axis are built; each gives two pairs
    retained    texts to retain for each pair: plain texts, neutral sentences, and the pairs' own
    retention   weight of what they lose, in units of beta squared, like the slope of the pairs' loss
    accuracy    with rows: training ends where more than this share of the validation pairs has gained
    kl_budget   training ends where predictions of neutral texts have moved so far, nats a token; 0: never
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from cloister_workers.messages import MetricName, Metrics, RefusalReason, RowReason
from cloister_workers.trainer.debias.adapters import (
    adapter_files,
    adapter_on,
    as_rows,
    causal_objective,
    no_longer_better,
    readable,
    retained_texts,
    watched,
)
from cloister_workers.trainer.debias.comparisons import comparisons
from cloister_workers.trainer.debias.families import Family, from_comparisons, from_rows, goals
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.mitigation import Case, Mitigated, Refused
from cloister_workers.trainer.debias.neutral import neutral_texts
from cloister_workers.trainer.debias.shapes import Preference as Row
from cloister_workers.trainer.debias.wordlists import lexicons_of_axes, refuse_short_lists
from cloister_workers.trainer.example import Example
from cloister_workers.trainer.forward import evaluating
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.objectives.anchor import Before, Divergence, Retaining
from cloister_workers.trainer.objectives.chat import ChatReader
from cloister_workers.trainer.objectives.preference import Preference

_CHECKED = 100  # comparisons of the validation part
_WATCHED = 64  # neutral texts on which movement is measured


@dataclass(frozen=True)
class PreferenceDebiasing:
    """No state."""

    name: str = "preference"
    title: str = "Preference for neutrality (DPO)"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CAUSAL})
    trained: bool = True
    defaults: Mapping[str, float] = field(
        default_factory=lambda: {
            "beta": 0.1,
            "sft": 0.1,
            "comparisons": 1000.0,
            "retained": 1.0,
            "retention": 0.1,
            "accuracy": 0.9,
            "kl_budget": 0.1,
        }
    )
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "Rafailov et al. 2023, arXiv:2305.18290"

    def refuse(self, case: Case) -> None:
        refuse_short_lists(case)
        if not _families(case, case.fit, 1):
            raise Refused(
                RefusalReason.NO_PAIRS,
                f"nothing to prefer on {len(case.axes)} axes: no rows of prompt, chosen and rejected that can be "
                "swapped, and no word list with persons, pair templates and associations; give one of them",
            )

    def apply(self, case: Case) -> Mitigated:
        self.refuse(case)
        fit = _families(case, case.fit, int(case.settings["comparisons"]))
        check = _families(case, case.validation, _CHECKED)
        given = any(family.given for family in fit)
        model, plain, wanted = adapter_on(case), causal_objective(case), case.hyperparameters
        reader = ChatReader(case.subject.tokenizer, wanted.max_seq_length)
        beta = case.settings["beta"]
        bare = Preference(replace(plain, reader=reader), beta, case.settings["sft"] if given else 0.0)
        pairs, checked = _examples(bare, fit), _examples(bare, check)
        known = bare.scored(model, [*_all(pairs), *_all(checked)], case.training.poll)
        known = replace(known, reference=goals(known, [*pairs, *checked]))

        divergence = Divergence(plain, Before(model))
        kept = readable(plain.read(as_rows(_retained(case, fit, len(_all(pairs))))))
        objective = Retaining(known, divergence, case.settings["retention"] * beta**2)
        watch = _Watch(case, model, divergence, given=given)
        parts = Parts((*_all(pairs), *kept), validation=_all(checked))
        wish = watched(wanted) if parts.validation else wanted
        trained = case.training(model, objective, parts, wish, case.seed, watch)
        notes = {**_notes(fit, pairs), "texts_retained": float(len(kept)), "moved": watch.moved()}
        return adapter_files(case, model, trained, notes)


class _Watch:
    """Says when it is enough."""

    def __init__(self, case: Case, model: torch.nn.Module, divergence: Divergence, *, given: bool) -> None:
        self._model, self._settings, self._given = model, case.settings, given
        self._divergence, self._poll = divergence, case.training.poll
        self._texts = readable(divergence.likelihood.read(as_rows(neutral_texts(case.fit)[:_WATCHED])))
        self._risen = no_longer_better()

    def __call__(self, metrics: Metrics) -> bool:
        if self._given and metrics.get(MetricName.EVAL_ACCURACY, 0.0) > self._settings["accuracy"]:
            return True
        budget = self._settings["kl_budget"]
        return self._risen(metrics) or (budget > 0 and self.moved() > budget)

    def moved(self) -> float:
        """KL(before || now) on neutral texts, mean nats a token; 0 where there are none."""
        total = 0.0
        with evaluating(self._model):
            for texts in self._divergence.likelihood.micro_batches(self._texts):
                self._poll()
                total += float(self._divergence.sums(self._model, texts).sum())
        return total / max(1, sum(map(self._divergence.likelihood.weight, self._texts)))


def _families(case: Case, part: Part, count: int) -> list[Family]:
    """From the rows where there are any, else from the word lists."""
    lexicons = lexicons_of_axes(case, part.lexicons)
    rows = [row for row in part.rows.of(Row) if not row.axis or row.axis in lexicons]
    if rows:
        return from_rows(rows, lexicons, case.seed)
    return [
        family for lexicon in lexicons.values() for family in from_comparisons(comparisons(lexicon, count, case.seed))
    ]


def _examples(objective: Preference, families: Sequence[Family]) -> list[tuple[Family, tuple[Example, ...]]]:
    """The examples of each family, each pair once in all; a family with a pair that is none is left out."""
    found: list[tuple[Family, tuple[Example, ...]]] = []
    seen: set[bytes] = set()
    for family in families:
        read = objective.read(family.rows())
        examples = tuple(entry for entry in read if not isinstance(entry, RowReason))
        if len(examples) == len(read) and seen.isdisjoint(example.digest for example in examples):
            seen |= {example.digest for example in examples}
            found.append((family, examples))
    return found


def _retained(case: Case, families: Sequence[Family], pairs: int) -> list[str]:
    built = [
        prompt + way for family in families for prompt in family.prompts for way in (family.chosen, family.rejected)
    ]
    return retained_texts(case, built, round(case.settings["retained"] * pairs))


def _all(pairs: Sequence[tuple[Family, tuple[Example, ...]]]) -> tuple[Example, ...]:
    return tuple(example for _, examples in pairs for example in examples)


def _notes(families: Sequence[Family], pairs: Sequence[tuple[Family, tuple[Example, ...]]]) -> dict[str, float]:
    return {
        "pairs": float(len(_all(pairs))),
        "pairs_given": float(sum(len(examples) for family, examples in pairs if family.given)),
        "pairs_contradicted": float(sum(len(family.prompts) == 1 and not family.given for family, _ in pairs)),
        "pairs_unusable": float(sum(map(len, (family.prompts for family in families))) - len(_all(pairs))),
    }


MITIGATION = PreferenceDebiasing()
