# SPDX-License-Identifier: Apache-2.0
"""Pair balance: an adapter under which stereotype and counter-stereotype are equally likely
(`objectives.pair_balance`).

Trains on the rows of kind pair of the job's axes, and on comparisons from the fit part's word lists (template, two
persons, two attributes: a group's words may stay as frequent as they are). They are mixed with texts whose predictions
are to stay: the part's plain texts, the neutral sentences of the word lists, and the comparisons' own sentences. Those
that speak of the groups hold the model against making all that is said of them less likely, which would balance pairs
too; they resist the balance itself a little.

    comparisons at most so many comparisons an axis
    retained    texts to retain for each pair or comparison
    retention   weight of what they lose

Training ends early where the loss on the validation part's comparisons rises twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloister_workers.messages import RefusalReason
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
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.mitigation import Case, Mitigated, Refused
from cloister_workers.trainer.debias.shapes import Pair
from cloister_workers.trainer.debias.wordlists import lexicons_of_axes, refuse_short_lists
from cloister_workers.trainer.loop import Parts
from cloister_workers.trainer.objectives.anchor import Before, Divergence, Retaining
from cloister_workers.trainer.objectives.pair_balance import PairBalance

_CHECKED = 200  # comparisons of the validation part


@dataclass(frozen=True)
class Balance:
    """No state."""

    name: str = "pair_balance"
    title: str = "Pair balance"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.CAUSAL})
    trained: bool = True
    defaults: Mapping[str, float] = field(
        default_factory=lambda: {"comparisons": 1000.0, "retained": 2.0, "retention": 0.3}
    )
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "after Xu et al. 2025, arXiv:2503.08588"

    def refuse(self, case: Case) -> None:
        refuse_short_lists(case)
        if not _pairs(case, case.fit) and not _comparisons(case, case.fit, 1):
            raise Refused(
                RefusalReason.NO_PAIRS,
                f"no pairs on {len(case.axes)} axes: no rows of kind pair, and no word list with persons, pair "
                "templates and associations; give one of them",
            )

    def apply(self, case: Case) -> Mitigated:
        self.refuse(case)
        rows, built = _pairs(case, case.fit), _comparisons(case, case.fit, int(case.settings["comparisons"]))
        count = round(case.settings["retained"] * (len(rows) + len(built)))
        kept = retained_texts(case, [text for chain in (*rows, *built) for text in chain], count)
        checked = [*_pairs(case, case.validation), *_comparisons(case, case.validation, _CHECKED)]

        model, wanted = adapter_on(case), case.hyperparameters
        plain = causal_objective(case)
        balance = PairBalance(plain)
        objective = Retaining(balance, Divergence(plain, Before(model)), case.settings["retention"])
        trained_rows: list[dict[str, object]] = [{"texts": chain} for chain in (*rows, *built)]
        parts = Parts(
            readable(balance.read([*trained_rows, *as_rows(kept)])),
            validation=readable(balance.read([{"texts": chain} for chain in checked])),
        )
        wish = watched(wanted) if parts.validation else wanted
        trained = case.training(model, objective, parts, wish, case.seed, no_longer_better())
        notes = {"pairs": float(len(rows)), "comparisons": float(len(built)), "texts_retained": float(len(kept))}
        return adapter_files(case, model, trained, notes)


def _pairs(case: Case, part: Part) -> list[tuple[str, ...]]:
    names = lexicons_of_axes(case, part.lexicons).keys() | set(case.axes)
    return [(row.first, row.second) for row in part.rows.of(Pair) if row.axis in names]


def _comparisons(case: Case, part: Part, count: int) -> list[tuple[str, ...]]:
    found = lexicons_of_axes(case, part.lexicons).values()
    return [entry.chain() for lexicon in found for entry in comparisons(lexicon, count, case.seed)]


MITIGATION = Balance()
