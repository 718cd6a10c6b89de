# SPDX-License-Identifier: Apache-2.0
"""The bars of the de-biasing gate as values and as a part of a signed document."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.evidence.canonical import canonical_bytes, parse_canonical
from cloister.evidence.errors import FormatError
from cloister.gate import BARS, MARGINS, MAX_ALPHA, MAX_DRAWS, MIN_DRAWS, Gate

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)
BAR = st.floats(1e-9, 1e9)
MARGIN = st.floats(0, 1e9)
GATES = st.builds(
    Gate,
    alpha=st.floats(1e-6, MAX_ALPHA),
    draws=st.integers(MIN_DRAWS, MAX_DRAWS),
    bars=st.dictionaries(NAMES, BAR, max_size=5),
    margins=st.dictionaries(NAMES, MARGIN, max_size=5),
    harm=MARGIN,
    extrinsic=st.booleans(),
    allow_own_bars=st.booleans(),
)


@settings(deadline=None, max_examples=50)
@given(GATES)
def test_a_gate_survives_the_signed_document(gate: Gate) -> None:
    """Canonical bytes of a gate read back as the same numbers, to the last bit."""
    assert gate == Gate.from_json(parse_canonical(canonical_bytes(gate.to_json())))


def test_defaults_are_those_of_the_reference() -> None:
    """The bars that the documentation states: odds .10, parity .05, flips 2 %, CrowS 5 points, ambiguous BBQ 10."""
    gate = Gate.from_json(Gate().to_json())
    wanted = {"equalized_odds": 0.1, "demographic_parity": 0.05, "flip_rate": 0.02, "crows_pll_nangia": 5}
    assert {**wanted, "bbq_ambiguous": 10} == {name: gate.bars[name] for name in (*wanted, "bbq_ambiguous")}
    assert (0.05, 2000, 0.01, 0.02) == (gate.alpha, gate.draws, gate.margins["accuracy"], gate.margins["perplexity"])
    assert (dict(BARS), dict(MARGINS)) == (gate.bars, gate.margins)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha": "0"}, "alpha is 0"),
        ({"alpha": "0.2"}, "alpha is 0.2"),
        ({"alpha": 0.05}, "'alpha' is not a decimal|string"),
        ({"draws": 1999}, "at least 2000"),
        ({"draws": MAX_DRAWS + 1}, "at most 100000"),
        ({"harm": "-1"}, "harm is -1"),
        ({"extrinsic": "yes"}, "true or false"),
        ({"bars": {"flip_rate": "0"}}, "the bar of flip_rate is 0"),
        ({"bars": {"flip_rate": "-0.1"}}, "the bar of flip_rate is -0.1"),
        ({"bars": {"flip_rate": "9" * 310}}, "the bar of flip_rate is inf"),
        ({"bars": {"flip_rate": "1e-2"}}, "decimal"),
        ({"bars": {"Flip rate": "0.1"}}, "lower case"),
        ({"margins": {"accuracy": "-0.01"}}, "the margin of accuracy is -0.01"),
        ({"bar": "0.1"}, "unknown field bar"),
    ],
)
def test_what_is_no_gate_is_refused(change: dict, words: str) -> None:
    """Each wrong number or field is a FormatError that names it."""
    with pytest.raises(FormatError, match=words):
        Gate.from_json({**Gate().to_json(), **change})


def test_every_field_must_be_there() -> None:
    """A document that leaves a bar to chance is refused, whichever field is missing."""
    whole = Gate().to_json()  # without the flag that may be left out
    for name in whole:
        with pytest.raises(FormatError, match=name):
            Gate.from_json({key: value for key, value in whole.items() if key != name})


def test_a_specification_only_tightens() -> None:
    """Lower bars are taken, new names where the policy allows them; the rest stays, and so does the policy itself."""
    policy = Gate(allow_own_bars=True)
    tight = policy.tightened({"flip_rate": 0.01, "my_measure": 0.3}, {"accuracy": 0.01})
    assert {**BARS, "flip_rate": 0.01, "my_measure": 0.3} == tight.bars
    assert (dict(MARGINS), Gate(allow_own_bars=True)) == (tight.margins, policy)


@pytest.mark.parametrize(("bars", "margins"), [({"flip_rate": 0.021}, {}), ({}, {"accuracy": 0.02})])
def test_a_specification_never_loosens(bars: dict, margins: dict) -> None:
    """A higher bar or margin than the policy's is refused with both numbers."""
    with pytest.raises(ValueError, match=r"the release policy allows at most 0\.0[12]"):
        Gate().tightened(bars, margins)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_tightened_bar_is_a_bar(value: float) -> None:
    """Zero, negative and not finite numbers are no bars, in a specification either."""
    with pytest.raises(FormatError, match="the bar of new is"):
        Gate(allow_own_bars=True).tightened({"new": value}, {})


@pytest.mark.parametrize(("bars", "margins"), [({"probe_linear": 100.0}, {}), ({}, {"my_utility": 1.0})])
def test_a_specification_sets_no_bar_of_its_own(bars: dict, margins: dict) -> None:
    """A name that the signed policy lacks is refused, so that nobody sets a bar that holds nothing."""
    with pytest.raises(ValueError, match="has no limit in the release policy"):
        Gate().tightened(bars, margins)


def test_a_gate_without_the_permission_keeps_its_bytes() -> None:
    """The flag stands in the document only where it is true."""
    assert "allow_own_bars" not in Gate().to_json()
    with pytest.raises(FormatError, match="true or left out"):
        Gate.from_json({**Gate().to_json(), "allow_own_bars": False})
