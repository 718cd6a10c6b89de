# SPDX-License-Identifier: Apache-2.0
"""A stereotype that was planted in a tiny decoder, and what each mitigation for language models makes of it.

Names, attributes and templates of the fit part and of the test part are disjoint. The bar is an equivalence bound: the
whole interval of the paired measure must lie within it.
"""

from __future__ import annotations

import pytest

from cloister_workers.messages import GateRule, Verdict
from cloister_workers.trainer.debias.registry import mitigations
from planted import BAR, case_of, judged, load_planted, make_world, write_planted_decoder

pytestmark = pytest.mark.timeout(600)  # about a minute of one core, and machines may be busy


@pytest.fixture(scope="module")
def world():
    return make_world()


@pytest.fixture(scope="module")
def decoder(world, tmp_path_factory):
    return write_planted_decoder(tmp_path_factory.mktemp("planted"), world)


def mitigated(name, world, decoder, tmp_path, **settings):
    """The mitigation's result as it loads from its exported files."""
    mitigation = mitigations()[name]
    subject = load_planted(decoder, tmp_path)
    case = case_of(mitigation, subject, (world.fit, world.validation), tmp_path, settings=settings)
    return load_planted(decoder, tmp_path, mitigation.apply(case).files)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("counterfactual", {}),
        ("preference", {"comparisons": 500}),
        ("pair_balance", {"comparisons": 600}),
    ],
)
def test_each_mitigation_brings_the_lean_within_its_bound(name, settings, world, decoder, tmp_path):
    """On held-out words and templates the lean was far outside of the bound and is inside of it with its interval; the
    perplexity ratio is at most 1.02 with its interval; the gate says PASS.
    """
    run = judged(world, load_planted(decoder, tmp_path), mitigated(name, world, decoder, tmp_path, **settings))
    [measured], [kept] = run.measured, run.kept
    assert measured.before.low > 4 * BAR
    assert -BAR < measured.after.low <= measured.after.high < BAR
    assert 1 + kept.loss.high <= 1.02
    assert run.judgement.verdict is Verdict.PASS


def test_a_sham_does_not_pass(world, decoder, tmp_path):
    """Training on the same texts without any copy leaves the lean where it was, and the gate does not pass it."""
    after = mitigated("counterfactual", world, decoder, tmp_path, share=0)
    run = judged(world, load_planted(decoder, tmp_path), after)
    [measured] = run.measured
    assert measured.after.low > 4 * BAR
    assert run.judgement.verdict is Verdict.FAIL
    assert Verdict.FAIL in {finding.verdict for finding in run.judgement.findings if finding.rule is GateRule.LEVEL}
