# SPDX-License-Identifier: Apache-2.0
"""Figures: closed words and bounded numbers, bound by a result; and what older documents keep."""

import json
import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import Site
from cloister.evidence import figures
from cloister.evidence.canonical import canonical_bytes
from cloister.evidence.errors import BindingError, FormatError
from cloister.evidence.figures import Figures, figure_text, name_of, verdict_of, verify_figures
from cloister.evidence.policy import Policy
from cloister.evidence.result import Result
from cloister.gate import Gate
from cloister_workers.words import FigureKind, FigureName, GateRule, MetricName, Verdict
from debias_job import FIGURE, METHOD, figures_for, figures_of, sha256, verdict_metrics

NOW = 1_800_000_000
DIGEST = "ab" * 32


def document(**changes: object) -> bytes:
    """Figures with fields put in by hand, in canonical form."""
    values = {**json.loads(figures_of("j-1", DIGEST, DIGEST).to_payload()), **changes}
    return canonical_bytes(values)


def test_the_words_are_those_of_the_trainer() -> None:
    """What auditors may read and what a trainer may say are the same closed lists."""
    assert set(figures.KINDS) == {kind.value for kind in FigureKind}
    assert set(figures.RULES) == {rule.value for rule in GateRule}
    assert set(figures.VERDICTS) == {verdict.value for verdict in Verdict}
    assert set(figures.NAMES) == {name.value for name in FigureName}
    assert MetricName.DEBIAS_VERDICT.value == figures.VERDICT_METRIC


def test_figures_come_back_as_they_were() -> None:
    """Parsing a document gives the figures that it was made of."""
    made = figures_of("j-1", DIGEST, "cd" * 32, "INCONCLUSIVE", "PASS", attempt=3)
    assert Figures.parse(made.to_payload()) == made
    assert made.verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    "changes",
    [
        {"verdicts": []},
        {"verdicts": ["GREAT"]},
        {"figures": [{**FIGURE.__dict__, "run": 1}]},
        {"figures": [{**FIGURE.__dict__, "kind": "women"}]},
        {"figures": [{**FIGURE.__dict__, "values": {"women": "0.1"}}]},
        {"figures": [{**FIGURE.__dict__, "values": {"before": "1" * 20}}]},
        {"figures": [{**FIGURE.__dict__, "values": {"before": "women"}}]},
        {"figures": [{**FIGURE.__dict__, "items": -1}]},
        {"findings": [{"run": 0, "rule": "women", "verdict": "PASS", "kind": "job", "index": 0, "axis": 0}]},
        {"note": "women"},
        {"attempt": 0},
    ],
)
def test_nothing_but_closed_words_and_numbers_is_taken(changes: dict[str, object]) -> None:
    """A field, word or number beyond the closed form is refused: no text of a dataset has a place here."""
    with pytest.raises(FormatError):
        Figures.parse(document(**changes))


def test_a_document_is_bounded() -> None:
    """More entries than a job may report are neither written nor read."""
    short = replace(FIGURE, values={})
    many = replace(figures_of("j-1", DIGEST, DIGEST), figures=(short,) * figures.MAX_ENTRIES)
    with pytest.raises(FormatError, match="more than a job may report"):
        many.to_payload()
    with pytest.raises(FormatError, match="more than a job may report"):
        Figures.parse(document(figures=[short.__dict__] * figures.MAX_ENTRIES))
    with pytest.raises(FormatError, match="at most"):
        Figures.parse(bytes(figures.MAX_BYTES + 1))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_keeps_seven_digits_and_its_form(value: float) -> None:
    """Every finite number has a text that figures take, within half a unit of its seventh digit or of the limits."""
    text = figure_text(value)
    values = {**FIGURE.values, "before": text}
    assert Figures.parse(document(figures=[{**FIGURE.__dict__, "values": values}])).figures[0].values["before"] == text
    expected = max(-figures.LARGEST, min(figures.LARGEST, value))
    assert abs(Decimal(text) - Decimal(expected)) <= max(abs(Decimal(expected)) * Decimal("5.1e-7"), Decimal("1e-12"))
    assert len(text.replace("-", "").replace(".", "").strip("0")) <= 7


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_number_must_be_finite(value: float) -> None:
    """Infinities and NaN are no figures."""
    with pytest.raises(FormatError):
        figure_text(value)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [("1.0", "PASS"), ("1", "PASS"), ("0.0", "INCONCLUSIVE"), ("-1.0", "FAIL"), ("0.5", "FAIL"), ("2", "FAIL")],
)
def test_a_verdict_that_is_not_understood_is_no_pass(said: str, verdict: str) -> None:
    """Three numbers are verdicts; any other counts as FAIL."""
    assert verdict_of({"debias_verdict": said}) == verdict
    assert verdict_of({"eval_accuracy": "0.9"}) is None


def test_figures_are_verified_against_the_signed_result() -> None:
    """The figures that a result binds are taken; other bytes, and figures of another job or verdict, are not."""
    site = Site(NOW)
    job, version = site.job(spec={"method": METHOD}), site.export()

    def result(payload: bytes, **changes: object) -> Result:
        made = site.result(job, version, figures_sha256=sha256(payload), metrics=verdict_metrics("FAIL"))
        return replace(Result.parse(made.payload), **changes)  # type: ignore[arg-type]  # a test names real fields

    good = figures_for(job)
    assert verify_figures(good.to_payload(), result(good.to_payload()), job.authorisation) == good
    better = figures_for(job, "PASS").to_payload()
    with pytest.raises(BindingError, match="not those that host"):
        verify_figures(better, result(good.to_payload()), job.authorisation)
    with pytest.raises(BindingError, match="not those that host"):
        verify_figures(good.to_payload(), result(good.to_payload(), figures_sha256=""), job.authorisation)
    others = [
        figures_for(job, "PASS"),
        figures_for(job, attempt=2),
        figures_for(site.job()),
        figures_for(job, policy_sha256=DIGEST),
        figures_for(job, spec_sha256=DIGEST),
    ]
    for other in others:
        payload = other.to_payload()
        with pytest.raises(BindingError, match="of another job, or say something else"):
            verify_figures(payload, result(payload), job.authorisation)


def test_names_come_from_the_signed_lists() -> None:
    """A place in a list has its name; a place beyond it is shown as a number."""
    assert [name_of(["a", "b"], index) for index in (0, 1, 2, -1)] == ["a", "b", "#2", "#-1"]


def test_a_result_of_another_job_keeps_its_bytes() -> None:
    """A result without report and figures has neither field; with them both come back, and an empty one is refused."""
    site = Site(NOW)
    job = site.job()
    plain = site.result(job, site.export())
    assert b"figures_sha256" not in plain.payload
    assert b"report_trailer_sha256" not in plain.payload
    assert Result.parse(plain.payload).to_payload() == plain.payload
    bound = site.result(job, site.export(), figures_sha256=DIGEST, report_trailer_sha256="cd" * 32)
    found = Result.parse(bound.payload)
    assert (found.figures_sha256, found.report_trailer_sha256) == (DIGEST, "cd" * 32)
    with pytest.raises(FormatError):
        Result.parse(canonical_bytes({**json.loads(plain.payload), "figures_sha256": ""}))


def test_a_policy_without_a_gate_keeps_its_bytes() -> None:
    """The gate is left out where a policy has none; where it has one, every number of it comes back."""
    site = Site(NOW)
    plain = Policy.parse(site.policy().payload)
    assert plain.gate is None
    assert b"gate" not in plain.to_payload()
    strict = Gate().tightened({"flip_rate": 0.005}, {"accuracy": 0.0})
    signed = Policy.parse(site.policy(gate=strict).payload)
    assert signed.gate == strict
    with pytest.raises(FormatError):
        Policy.parse(canonical_bytes({**json.loads(plain.to_payload()), "gate": None}))
