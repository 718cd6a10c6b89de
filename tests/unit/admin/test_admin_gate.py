# SPDX-License-Identifier: Apache-2.0
"""The de-biasing gate of a release policy, as compliance writes, signs and reads it."""

import json

import pytest

from cloister.admin.main import cli
from cloister.admin.policy import read_policy
from cloister.cli.exits import run
from cloister.errors import UsageError
from cloister.evidence.policy import Policy
from cloister.evidence.signatures import SigningKey
from cloister.gate import Gate
from set_clock import NOW

POLICY = "id: p\napprovals: 1\n"


def gate_of(text: str) -> Gate | None:
    """The gate of a policy, after it was signed and read again."""
    return Policy.parse(read_policy(POLICY + text, 30, now=NOW).sign(SigningKey.generate()).payload).gate


def test_a_policy_without_a_gate_signs_none() -> None:
    """What is not written is not signed: the defaults hold."""
    assert gate_of("") is None


def test_what_is_not_named_has_its_default() -> None:
    """Named numbers replace the defaults, and what is signed spells out all of them."""
    assert gate_of("gate: {}\n") == Gate()
    gate = gate_of("gate:\n  alpha: 0.01\n  bars: {flip_rate: 0.005, own_measure: 2}\n  margins: {accuracy: 0}\n")
    usual = Gate()
    assert gate is not None
    assert gate.alpha == 0.01
    assert gate.bars == {**usual.bars, "flip_rate": 0.005, "own_measure": 2.0}
    assert gate.margins == {**usual.margins, "accuracy": 0.0}
    assert (gate.draws, gate.harm, gate.extrinsic) == (usual.draws, usual.harm, usual.extrinsic)


@pytest.mark.parametrize(
    "text",
    [
        "gate: 5\n",
        "gate: {bias: gone}\n",
        "gate: {alpha: small}\n",
        "gate: {alpha: true}\n",
        "gate: {alpha: 0.9}\n",
        "gate: {draws: 10}\n",
        "gate: {draws: 2000.5}\n",
        "gate: {bars: [flip_rate]}\n",
        "gate: {bars: {flip_rate: 0}}\n",
        "gate: {bars: {flip_rate: -1}}\n",
        "gate: {bars: {flip_rate: .inf}}\n",
        "gate: {bars: {Flip Rate: 0.1}}\n",
        "gate: {bars: {5: 0.1}}\n",
        "gate: {margins: {accuracy: -0.1}}\n",
        "gate: {harm: no}\n",
        "gate: {extrinsic: 1}\n",
    ],
)
def test_a_gate_that_bars_nothing_is_refused(text: str) -> None:
    """Unknown fields, and numbers that no gate can have, are refused in one line."""
    with pytest.raises(UsageError, match=r"\Apolicy: [^\n]+\Z"):
        gate_of(text)


def test_a_signed_policy_shows_its_gate(tmp_path, capsys) -> None:
    """The gate in force is shown with every number, whether the policy spells it out or leaves it to the defaults."""
    key = SigningKey.generate()
    for name, text, expected in (("a", "", Gate()), ("b", "gate: {harm: 0.5}\n", Gate(harm=0.5))):
        signed = read_policy(POLICY + text, 30, now=NOW).sign(key)
        (tmp_path / name).write_bytes(signed.to_bytes())
        assert run("cloister-admin", cli, ["policy", "show", str(tmp_path / name)]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["gate"] == expected.to_json()
        assert (shown["id"], shown["approvals"]) == ("p", 1)
