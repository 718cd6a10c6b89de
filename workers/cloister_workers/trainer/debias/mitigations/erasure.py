# SPDX-License-Identifier: Apache-2.0
"""Linear concept erasure, folded into the weights: after it no linear reader tells the group, and plain libraries
load the result. What a non-linear reader finds stays (measure `probe_nonlinear`).

    eraser  auto: the one that leaves least on the validation part without harm there, among mean_difference,
            orthogonal, pca of 1 to `components`, and leace where there are enough rows; or one of these by name
    data    pairs: texts that differ in the group alone, from the word lists, the users' pairs and, for a classifier,
            the swapped copies of its texts; rows: labelled rows that state their groups; auto: rows where there are
            any, else pairs
    texts   how many texts to make from the word lists, about; as many as LEACE needs where it is asked for

Orthogonal and PCA are fitted on embeddings less the mean of their set of counterparts. LEACE and the mean of all
erasers come from the embeddings as they are; LEACE sees neutral texts as background that is of no group.

Refused: rows whose label the group tells, in which erasing the group erases the task (Cramér's V above MAX_LINK in
what the rows were drawn from, with 97.5 % confidence, or above MAX_SEEN_LINK in the rows themselves); LEACE with
fewer than ROWS_A_DIMENSION rows a dimension; word lists under 25 words; classifiers whose classes do not come from a
linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cloister_workers.messages import FailureNumber, RefusalReason
from cloister_workers.trainer.debias.counterparts import (
    Counterpart,
    from_pairs,
    from_rows,
    from_swaps,
    from_words,
    joined,
    numbered,
    one_hot,
    sets_of,
)
from cloister_workers.trainer.debias.erasers import (
    Affine,
    centred_in_sets,
    fit_leace,
    fit_mean_difference,
    fit_orthogonal,
    fit_pca,
)
from cloister_workers.trainer.debias.erasure_choice import choose
from cloister_workers.trainer.debias.kinds import FloatArray, ModelKind
from cloister_workers.trainer.debias.link import cramers_v
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.mitigation import Case, Mitigated, Refused
from cloister_workers.trainer.debias.neutral import neutral_texts
from cloister_workers.trainer.debias.places import Place, place_of
from cloister_workers.trainer.debias.shapes import Labelled, Pair, Text
from cloister_workers.trainer.debias.wordlists import lexicons_of_axes, refuse_short_lists

MAX_LINK = 0.1
MAX_SEEN_LINK = 0.3
ROWS_A_DIMENSION = 20
FEWEST_ROWS = 25
"""Of each group."""
_ENOUGH_SWAPS = 200  # texts: with fewer of a classifier's own, the word lists help out


@dataclass(frozen=True)
class Fitting:
    """What an eraser is fitted on: representations [n, d] of n entries, and background [m, d] of no group."""

    entries: Sequence[Counterpart]
    X: FloatArray
    background: FloatArray
    texts: int
    """How many different ones: a text that speaks of two axes has two entries and one representation."""

    def inner(self) -> FloatArray:
        """X less the mean of each set; rows without counterparts less the mean of all."""
        return centred_in_sets(self.X, sets_of(self.entries))


@dataclass(frozen=True)
class Erasure:
    """No state."""

    name: str = "erasure"
    title: str = "Linear concept erasure, folded into the weights"
    kinds: frozenset[ModelKind] = frozenset({ModelKind.ENCODER, ModelKind.CLASSIFIER})
    trained: bool = False
    defaults: Mapping[str, float] = field(default_factory=lambda: {"texts": 3000.0, "components": 5.0})
    choices: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "eraser": ("auto", "orthogonal", "mean_difference", "pca", "leace"),
            "data": ("auto", "pairs", "rows"),
        }
    )
    source: str = "Belrose et al. 2023, arXiv:2306.03819; Bolukbasi et al. 2016, arXiv:1607.06520"

    def refuse(self, case: Case) -> None:
        place = place_of(case)
        entries = _checked(case, place)
        if case.options["eraser"] == "leace":
            _refuse_few(_distinct(entries, neutral_texts(case.fit)), place.width)

    def apply(self, case: Case) -> Mitigated:
        place = place_of(case)
        entries = _checked(case, place)
        neutral = neutral_texts(case.fit)
        background = place.features(neutral)
        features = place.features([entry.text for entry in entries])
        fitting = Fitting(entries, features, background.reshape(-1, features.shape[1]), _distinct(entries, neutral))
        if case.options["eraser"] == "leace":
            _refuse_few(fitting.texts, place.width)
        fitted = _fitted(fitting, case.options["eraser"], int(case.settings["components"]))
        if not fitted:
            raise Refused(
                RefusalReason.NO_PAIRS, "the texts show no difference between groups; nothing is to be erased"
            )
        checked = joined(_pairs(case, case.validation, int(case.settings["texts"]))) if len(fitted) > 1 else []
        name = choose(place, fitted, case.validation, tuple(lexicons_of_axes(case, case.validation.lexicons)), checked)
        with_constant = place.fold(fitted[name])
        layer, files = place.files(case.model_name, case.scratch)
        notes = {f"eraser_{name}": 1.0, "directions": float(fitted[name].rank), "dimensions": float(place.width)}
        notes |= {"texts": float(len(entries)), "background": float(len(background))}
        notes |= {"candidates": float(len(fitted)), "constant_folded": float(with_constant)}
        return Mitigated(layer, files, notes=notes)


# ---------------------------------------------------------------- what to fit on
def _checked(case: Case, place: Place) -> list[Counterpart]:
    """What the case is fitted on. Raises Refused."""
    axes = _axes(case)
    rows = from_rows(case.fit.rows.of(Labelled), axes)
    if case.options["data"] == "rows" or (case.options["data"] == "auto" and rows):
        _refuse_rows(case, rows)
        return rows
    refuse_short_lists(case)
    wanted = int(case.settings["texts"])
    if case.options["eraser"] == "leace":
        wanted = max(wanted, 2 * ROWS_A_DIMENSION * place.width)  # twice: some sets run out of templates
    entries = joined(_pairs(case, case.fit, wanted))
    if not entries:
        raise Refused(
            RefusalReason.NO_PAIRS,
            f"no texts that differ in the group alone can be made for {len(axes)} axes; give rows of kind pair or swap",
        )
    return entries


def _axes(case: Case) -> tuple[str, ...]:
    """Single axes of the job: an intersection counts as each of its own."""
    return tuple(dict.fromkeys(name for axis in case.axes for name in axis.split("*")))


def _pairs(case: Case, part: Part, most: int) -> list[list[Counterpart]]:
    lexicons = lexicons_of_axes(case, part.lexicons)
    own = from_pairs(part.rows.of(Pair), _axes(case))
    if case.kind is not ModelKind.CLASSIFIER:
        return [own, from_words(lexicons, most)]
    texts = [*(row.text for row in part.rows.of(Labelled)), *(row.text for row in part.rows.of(Text))]
    swaps = from_swaps(texts, lexicons, case.seed)
    return [own, swaps, from_words(lexicons, most) if len(swaps) < _ENOUGH_SWAPS else []]


def _refuse_rows(case: Case, rows: Sequence[Counterpart]) -> None:
    for number, axis in enumerate(_axes(case), start=1):
        groups = [entry.group for entry in rows if entry.axis == axis]
        counts = {group: groups.count(group) for group in set(groups)}
        if len(counts) < 2:
            raise Refused(
                RefusalReason.NO_GROUPS,
                f"the rows to fit on state {len(counts)} groups of axis {number}; give two or more, or fit on pairs "
                "(option data)",
                {FailureNumber.ROWS: len(groups)},
            )
        labels = [row.label for row in case.fit.rows.of(Labelled) if axis in row.groups]
        link = cramers_v(groups, labels)
        if link.low > MAX_LINK or link.value > MAX_SEEN_LINK:
            raise Refused(
                RefusalReason.PROTECTED_LABEL_LINK,
                f"group and label of axis {number} go together (Cramér's V {link.value:.2f}, from {link.low:.2f}); "
                "erasing the one would erase the other: balance the rows, fit on pairs (option data), or train on "
                "counterfactuals",
                {FailureNumber.ROWS: len(groups)},
            )
        if min(counts.values()) < FEWEST_ROWS:
            raise Refused(
                RefusalReason.TOO_FEW_ROWS,
                f"a group of axis {number} has {min(counts.values())} rows; give {FEWEST_ROWS} or more",
                {FailureNumber.ROWS: min(counts.values())},
            )


def _distinct(entries: Sequence[Counterpart], neutral: Sequence[str]) -> int:
    return len({*(entry.text for entry in entries), *neutral})


def _refuse_few(rows: int, width: int) -> None:
    if rows < ROWS_A_DIMENSION * width:
        raise Refused(
            RefusalReason.TOO_FEW_ROWS,
            f"LEACE on {width} dimensions needs {ROWS_A_DIMENSION * width} different texts, there are {rows}; raise "
            "the setting texts, give more rows, or use orthogonal",
            {FailureNumber.ROWS: rows},
        )


# ---------------------------------------------------------------- erasers
def _fitted(fitting: Fitting, wanted: str, components: int) -> dict[str, Affine]:
    """The eraser that is wanted, or all that can be fitted, by name. Raises Refused for one that cannot."""
    names = ["mean_difference", "orthogonal"]
    if len(set(sets_of(fitting.entries).tolist())) > 1:  # rows without counterparts have no directions of their own
        names += [f"pca_{k}" for k in range(1, min(components, *fitting.X.shape) + 1)]
    if fitting.texts >= ROWS_A_DIMENSION * fitting.X.shape[1]:
        names.append("leace")
    found: dict[str, Affine] = {}
    for name in names if wanted == "auto" else [f"pca_{components}" if wanted == "pca" else wanted]:
        try:
            found[name] = _fit(fitting, name)
        except ValueError as error:
            if wanted != "auto":
                raise Refused(RefusalReason.TOO_FEW_ROWS, f"{wanted} cannot be fitted: {error}") from error
    return {name: affine for name, affine in found.items() if affine.rank}


def _fit(fitting: Fitting, name: str) -> Affine:
    kind, _, k = name.partition("_")
    if kind == "pca":
        return fit_pca(fitting.inner(), int(k), fitting.X.mean(0))
    if kind == "mean":
        groups = numbered([f"{entry.axis}:{entry.group}" for entry in fitting.entries])
        return fit_mean_difference(fitting.X, groups, numbered([entry.axis for entry in fitting.entries]))
    return _leace(fitting) if kind == "leace" else _orthogonal(fitting)


def _orthogonal(fitting: Fitting) -> Affine:
    """Directions of each source by itself: a name shows its group elsewhere than a noun does."""
    inner = fit_orthogonal(fitting.inner(), one_hot(fitting.entries, by_source=True))
    centre = fitting.X.mean(0)
    return Affine(inner.P, centre - inner.P @ centre)


def _leace(fitting: Fitting) -> Affine:
    Z = one_hot(fitting.entries, by_source=False)
    none = np.zeros((len(fitting.background), Z.shape[1]))
    return fit_leace(np.concatenate([fitting.X, fitting.background]), np.concatenate([Z, none]))


MITIGATION = Erasure()
