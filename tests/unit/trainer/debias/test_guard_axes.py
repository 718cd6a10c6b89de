# SPDX-License-Identifier: Apache-2.0
"""Guarded axes: measured beside the others, under the rule of harm alone, and out of the mitigation's sight."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from cloister.gate import Gate
from cloister_workers.errors import SpecError
from cloister_workers.messages import GateRule, RefusalReason, Verdict
from cloister_workers.trainer.debias.lexicon import load_lexicon
from cloister_workers.trainer.debias.material import Part
from cloister_workers.trainer.debias.measures.winobias import WinoBiasRow
from cloister_workers.trainer.debias.mitigation import Refused
from cloister_workers.trainer.debias.mitigations.erasure import Erasure
from cloister_workers.trainer.debias.panel import Scores, choose_panel
from cloister_workers.trainer.debias.partition import make_partition
from cloister_workers.trainer.debias.spec import parse_debias
from cloister_workers.trainer.debias.telling import Names
from cloister_workers.trainer.debias.verdicts import judge_run

GATE = Gate(draws=200)


def spec_of(**changes):
    body = {
        "task": "sentence_encoder",
        "axes": ["gender"],
        "guard_axes": ["age"],
        "mitigation": {"name": "erasure"},
        "measures": ["association", "retrieval_stereotype"],
        "primary": ["association"],
        "utilities": ["similarity_structure"],
        **changes,
    }
    return parse_debias({"model": "m", "method": {"debias": body}})


@pytest.fixture(scope="module")
def part() -> Part:
    lexicons = {axis: load_lexicon(axis, "en") for axis in ("gender", "age")}
    return make_partition([], [], [], lexicons, seed=1).test


def test_a_guard_is_measured_and_never_primary(part):
    """Figures of guarded axes count behind those of the others; only the others decide."""
    spec = spec_of()
    panel = choose_panel(spec, part)
    assert [("association", "gender", True), ("association", "age", False)] == [
        (entry.measure.name, entry.axis, entry.primary) for entry in panel.measures
    ][:2]
    assert (0, 1) == (Names(spec).axis("gender"), Names(spec).axis("age"))


def scores_of(panel, tilt):
    """Words of the guarded axis lie where `tilt` says; all others at one place."""
    random = np.random.default_rng(1)
    found = []
    for entry in panel.measures:
        scores = random.normal(size=(len(entry.items), 8 if entry.measure.name == "association" else 1)) * 1e-3
        if entry.measure.name == "association":
            lists = [{role for _, role in word.places} for word in entry.items.content]
            lean = 1.0 if entry.axis == "gender" else tilt
            scores[:, 0] += [lean * (1 if roles & {0, 2} else -1) for roles in lists]
        found.append(scores)
    return Scores(tuple(found), tuple(random.normal(size=(len(entry.items), 8)) for entry in panel.utilities))


def test_a_guard_that_gets_worse_fails_the_job(part):
    """Harm on an axis that was not mitigated is found, and nothing else is asked of it."""
    panel = choose_panel(spec_of(), part)
    before, after = scores_of(panel, 0.3), scores_of(panel, 0.6)
    run = judge_run(panel, before, after, GATE, seed=1, weights_changed=True)
    found = {(finding.rule, finding.verdict) for finding in run.judgement.findings if finding.axis == "age"}
    assert (GateRule.HARM, Verdict.FAIL) in found
    assert {GateRule.HARM} == {rule for rule, _ in found if rule is not GateRule.EVIDENCE}
    assert Verdict.FAIL is run.judgement.verdict


def test_a_guard_that_cannot_be_taken_opens_the_gate(part):
    """No word list of the guarded axis: each measure with a bar says so; one without a bar and intersections do not."""
    measures = ["association", "retrieval_stereotype", "probe_linear"]
    panel = choose_panel(spec_of(guard_axes=["caste", "gender*age"], measures=measures), part)
    scores = scores_of(panel, 0.0)
    run = judge_run(panel, scores, scores, GATE, seed=1, weights_changed=True)
    missing = {
        (finding.measure, finding.axis)
        for finding in run.judgement.findings
        if (finding.rule, finding.verdict) == (GateRule.EVIDENCE, Verdict.INCONCLUSIVE) and finding.axis
    }
    assert {("association", "caste"), ("retrieval_stereotype", "caste")} == missing
    listed = {(entry.name, entry.axis) for entry in panel.not_measured}
    assert {(name, axis) for name in measures for axis in ("caste", "gender*age")} <= listed


def test_an_axis_is_mitigated_or_guarded():
    """One axis in both lists is refused."""
    with pytest.raises(SpecError, match="guard_axes apart from axes"):
        spec_of(guard_axes=["gender"])


class Looking(Erasure):
    """A mitigation that notes what it may see and refuses."""

    seen: ClassVar[list] = []

    def refuse(self, case):
        self.seen[:] = [set(case.axes), set(case.fit.lexicons), set(case.validation.lexicons)]
        raise Refused(RefusalReason.NO_PAIRS, "seen enough")


def test_a_mitigation_does_not_see_the_lists_of_a_guard(tmp_path, recorder):
    """Fit and validation parts hold the word lists of the job's own axes alone."""
    import torch

    from cloister_workers.trainer.debias.job import run_debias
    from cloister_workers.trainer.place import Workplace
    from tiny_encoder import write_encoder

    spec = replace(spec_of(), mitigation=Looking())
    place = Workplace(str(write_encoder(tmp_path / "encoder")), str(tmp_path), torch.device("cpu"), lambda: 0.0)
    with pytest.raises(Refused):
        run_debias(spec, GATE, {}, place, recorder)
    assert [{"gender"}] * 3 == Looking.seen


def lacking_in(axes, guards, measures, primary):
    """Where the gate lacks a measure, of a causal model with rows of WinoBias and the lists of gender and age."""
    spec = spec_of(
        task="causal_lm",
        axes=axes,
        guard_axes=guards,
        measures=measures,
        primary=primary,
        mitigation={"name": "counterfactual"},
        utilities=["perplexity"],
    )
    rows = [
        WinoBiasRow(f"{to}{number}", 1, to, f"text {to} {number}", "he", ("the cook", f"the guard {number}"), 0)
        for to in ("pro", "anti")
        for number in range(20)
    ]
    lexicons = {axis: load_lexicon(axis, "en") for axis in ("gender", "age")}
    panel = choose_panel(spec, make_partition([], [], rows, lexicons, seed=1).test)
    ones = [tuple(np.ones((len(entry.items), 2)) for entry in some) for some in (panel.measures, panel.utilities)]
    run = judge_run(panel, Scores(*ones), Scores(*ones), GATE, seed=1, weights_changed=True)
    untaken = {(entry.name, entry.axis) for entry in panel.not_measured}
    return untaken & {
        (finding.measure, finding.axis)
        for finding in run.judgement.findings
        if (finding.rule, finding.verdict) == (GateRule.EVIDENCE, Verdict.INCONCLUSIVE)
    }


BOTH = ["pair_preference", "winobias_type1"]


@pytest.mark.parametrize(
    ("axes", "guards", "measures", "primary", "lacking"),
    [
        (["gender"], ["age"], BOTH, ["pair_preference"], set()),
        (["gender", "age"], [], BOTH, BOTH, set()),
        (["gender"], ["age"], BOTH[1:], BOTH[1:], {("winobias_type1", "age")}),
        (["gender", "age"], [], BOTH, BOTH[1:], {("winobias_type1", "age")}),
        (["gender", "gender*age"], [], ["pair_preference", "regard"], ["pair_preference"], set()),
    ],
    ids=["guarded by another", "decided by another", "guarded by none", "decided by none", "intersection"],
)
def test_a_measure_of_one_axis_opens_the_gate_where_no_other_is_taken(axes, guards, measures, primary, lacking):
    """What by its nature takes gender alone is no gap on an axis where another measure decides, or guards."""
    assert lacking_in(axes, guards, measures, primary) == lacking
