# SPDX-License-Identifier: Apache-2.0
"""The client's catalogue says of every built-in measure and mitigation what the trainer's own files say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import pytest

from cloister.debias import AXES, MEASURES, MITIGATIONS, TASKS, UTILITIES
from cloister.gate import MIN_CLUSTERS
from cloister.spec import read_spec, resolve, spec_bytes
from cloister_workers.trainer.debias.kinds import ModelKind
from cloister_workers.trainer.debias.lexicon.builtin import axes, languages, load_lexicon
from cloister_workers.trainer.debias.material import RowType
from cloister_workers.trainer.debias.measure import Items, Missing
from cloister_workers.trainer.debias.measures.bbq import BbqRow
from cloister_workers.trainer.debias.partition import make_partition
from cloister_workers.trainer.debias.registry import measures, mitigations, utilities
from cloister_workers.trainer.debias.shapes import Labelled
from cloister_workers.trainer.debias.spec import parse_debias


def listed(theirs: Mapping[str, object], ours: Iterable[str]) -> dict[str, object]:
    """What the trainer says of the names that the client lists; a site's own files may add others."""
    return {name: said for name, said in theirs.items() if name in set(ours)}


def test_tasks_are_the_kinds_of_models() -> None:
    """Names of tasks are one list."""
    assert set(TASKS) == {kind.value for kind in ModelKind}


def test_measures() -> None:
    """Names, models that they fit, and whether they are taken on the task."""
    theirs = {name: ({kind.value for kind in found.kinds}, found.extrinsic) for name, found in measures().items()}
    ours = {name: (set(found.tasks), found.extrinsic) for name, found in MEASURES.items()}
    assert ours == listed(theirs, MEASURES)


def test_axes_and_languages_that_a_measure_is_limited_to() -> None:
    """The client knows which measures take one axis, or one language, alone."""

    def refused(name: str, axis: str, language: str = "en") -> bool:
        lexicons = {"gender": load_lexicon("gender", language)}
        found = measures()[name].items(make_partition([], [], [], lexicons, seed=1).test, axis)
        return isinstance(found, Missing) and found.by_nature

    theirs = {name: (refused(name, "age"), refused(name, "gender", "de"), refused(name, "gender")) for name in MEASURES}
    ours = {
        name: (
            bool(found.axes and "age" not in found.axes),
            bool(found.languages and "de" not in found.languages),
            False,
        )
        for name, found in MEASURES.items()
    }
    assert ours == theirs


def test_measures_that_can_be_taken_on_an_intersection() -> None:
    """Where rows state both groups, or ask about both, the measures that the client names have items, and no others."""
    rows: list[RowType] = [
        BbqRow("1", "gender*age", "1", "neg", said, "c", "q", ("a", "b", "u"), 0, 2, 0)
        for said in ("ambig", "disambig")
    ]
    rows += [
        Labelled(f"{one} ran", "yes", {"gender": one, "age": two}) for one in ("he", "she") for two in ("old", "young")
    ]
    lexicons = {axis: load_lexicon(axis, "en") for axis in ("gender", "age")}
    part = make_partition([], [], rows, lexicons, seed=1).test
    taken = {name for name in MEASURES if isinstance(measures()[name].items(part, "gender*age"), Items)}
    assert {name for name, found in MEASURES.items() if found.intersections} == taken


def test_built_in_axes_are_enough_for_the_measures_that_say_so() -> None:
    """The client's list of axes is that of the word lists, and on each a measure of word lists has items: as many
    independent ones as the gate wants, save where it says that they are few.
    """
    assert {language: axes(language) for language in languages()} == AXES
    lexicons = {axis: load_lexicon(axis, "en") for axis in AXES["en"]}
    part = make_partition([], [], [], lexicons, seed=1).test
    named = [name for name, found in MEASURES.items() if found.lists]
    assert {name for task in ("sentence_encoder", "causal_lm") for name in TASKS[task].measures} == set(named)
    found = {(name, axis): measures()[name].items(part, axis) for name in named for axis in lexicons}
    assert [key for key, items in found.items() if isinstance(items, Missing)] == []
    few = {key for key, items in found.items() if isinstance(items, Items) and len(set(items.clusters)) < MIN_CLUSTERS}
    assert few == {(name, axis) for name in named for axis in MEASURES[name].few}


def test_utilities() -> None:
    """Names, and models that they fit."""
    theirs = {name: {kind.value for kind in found.kinds} for name, found in utilities().items()}
    ours = {name: set(found.tasks) for name, found in UTILITIES.items()}
    assert ours == listed(theirs, UTILITIES)


def test_mitigations() -> None:
    """Names, models, settings with their defaults, and options with their values."""
    theirs = {
        name: ({kind.value for kind in found.kinds}, found.trained, dict(found.defaults), dict(found.choices))
        for name, found in mitigations().items()
    }
    ours = {
        name: (set(found.tasks), found.trained, dict(found.settings), dict(found.options))
        for name, found in MITIGATIONS.items()
    }
    assert ours == listed(theirs, MITIGATIONS)


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for name, known in MITIGATIONS.items() for task in known.tasks]
)
def test_the_trainer_reads_what_the_client_signs(task: str, name: str) -> None:
    """A short specification, resolved and signed, gives the trainer the very settings that it spells out."""
    wanted = {"task": task, "axes": ["gender", "gender*age"], "mitigation": {"name": name}}
    spec = resolve(read_spec({"model": "m", "training_dataset": "d", "purpose": "p", "method": {"debias": wanted}}))
    found = parse_debias(json.loads(spec_bytes(spec)))
    signed = spec.method.debias
    assert (dict(signed.mitigation.settings), dict(signed.mitigation.options)) == (found.settings, found.options)
    assert list(signed.measures) == [measure.name for measure in found.measures]
    assert (frozenset(signed.primary), signed.seeds) == (found.primary, found.seeds)
    for field, value in signed.hyperparameters.ListFields():
        assert value == getattr(found.hyperparameters, field.name)
